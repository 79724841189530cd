//! Segment files: names, making one, sealing one, reading one back.
//!
//! A segment is written by one writer, front to back, in batches; each batch is synced before the next is written
//! anywhere. So a record of batch *n* proves that every batch below *n* reached the disk whole: only records of the
//! highest batch in the store can be torn by a crash, whatever else does not verify is damage.

use crate::format::{
    self, BlockEntry, FormatError, Header, Kind, SegmentHeader, Tombstone, Trailer, UNIT, area_len,
    record_len,
};
use crate::spare::{self, Spare};
use atoll_base::block::BlockId;
use atoll_base::disk::{DIRECT_ALIGN, Disk, File, Open, read_exact_at};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directory of the segments, below the disk's root.
pub(crate) const DIR: &str = "blocks";

/// Makes the directory `blocks` durable in its parent.
pub const SITE_ROOT: &str = "blocks.root";
/// Makes a new segment's entry durable, before the first batch in it is acknowledged. At open it also covers the
/// removal of segments that hold torn records only: with a newer batch about, these would pass for old, damaged ones.
pub const SITE_CREATE: &str = "blocks.create";
/// Makes the header of a segment durable in a spare file, and its copy, which lies where the former segment's trailer was, before the file gets the segment's name: else it
/// would be taken for the former one.
pub const SITE_REUSE: &str = "blocks.reuse";
/// Makes a batch durable; the acknowledgement of puts and deletes waits for it.
pub const SITE_APPEND: &str = "blocks.append";
/// Makes the footer of a full segment durable before any newer batch exists, so that a footer found torn later is
/// known to be damaged.
pub const SITE_SEAL: &str = "blocks.seal";
/// Makes the footer durable that recovery writes, and the records it lists, before any newer batch exists: torn
/// records would pass for old, damaged ones then, and records that were never synced could go after they were seen.
pub const SITE_RESEAL: &str = "blocks.reseal";
/// Makes the removal of a segment durable, before any tombstone of its blocks is forgotten.
pub const SITE_REMOVE: &str = "blocks.remove";

/// Smallest segment that is made when the disk is nearly full, unless one record needs more.
pub(crate) const SEGMENT_MIN: u64 = 64 << 10;

/// What scanning reads at once, at least: a header with the longest table. Of large blocks nothing else is read.
const WINDOW_MIN: usize = 8 << 10;
/// What scanning reads at once, at most: where records are small.
const WINDOW_MAX: usize = 1 << 20;

const SUFFIX: &str = ".seg";

/// The path of a file that is named for a segment.
pub(crate) fn path_with(segment: u32, suffix: &str) -> PathBuf {
    Path::new(DIR).join(format!("{segment:010}{suffix}"))
}

/// For which segment a file is named.
pub(crate) fn number_in(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() == 10 { digits.parse().ok() } else { None }
}

pub(crate) fn path_of(segment: u32) -> PathBuf {
    path_with(segment, SUFFIX)
}

pub(crate) fn number_of(name: &str) -> Option<u32> {
    number_in(name, SUFFIX)
}

/// Whether an error means that the disk has no room.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn bytes_of(units: u32) -> u64 {
    u64::from(units) * UNIT
}

/// A new segment: header written, storage reserved, entry durable.
pub(crate) struct Fresh {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
    /// Bytes reserved.
    pub(crate) capacity: u64,
    /// The file was another segment: what is not written are not zeros, but for what lies before an aligned position behind what is.
    pub(crate) is_reused: bool,
}

fn new_header(store_id: u128, segment: u32) -> io::Result<SegmentHeader> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|e| io::Error::other(format!("no random numbers: {e}")))?;
    Ok(SegmentHeader { store_id, segment, salt: u64::from_le_bytes(salt) })
}

/// Makes a segment of `wanted` bytes of a spare file, or of those that it has if the disk has no more. `None`, and the file is gone, if these are fewer than `least`.
pub(crate) fn reuse(
    disk: &dyn Disk,
    store_id: u128,
    segment: u32,
    spare: Spare,
    wanted: u64,
    least: u64,
) -> io::Result<Option<Fresh>> {
    let (from, to) = (spare::path_of(spare.number), path_of(segment));
    let result = new_header(store_id, segment).and_then(|header| {
        let file = disk.open(&from, Open::ReadWrite)?;
        let capacity = extend(&*file, spare.len, wanted)?;
        if capacity < least {
            return Ok(None);
        }
        let unit = header.encode();
        // With zeros up to where an aligned batch may begin, and a whole page, lest it is read before it is written.
        let mut front = unit.clone();
        front.resize(DIRECT_ALIGN.min((capacity - UNIT) as usize), 0);
        file.write_at(&[IoSlice::new(&front)], 0)?;
        file.write_at(&[IoSlice::new(&[0; UNIT as usize])], spare.len - UNIT)?;
        file.write_at(&[IoSlice::new(&unit)], capacity - UNIT)?;
        file.sync(SITE_REUSE)?;
        disk.rename(&from, &to)?;
        disk.sync_dir(Path::new(DIR), SITE_CREATE)?;
        Ok(Some(Fresh { header, file, capacity, is_reused: true }))
    });
    if !matches!(result, Ok(Some(_))) {
        // Nothing is in it; if this fails too, the next open finds it.
        let _ = disk.remove(&from);
        let _ = disk.remove(&to);
    }
    result
}

/// Reserves storage up to `wanted` bytes in a file of `len`, if the disk has it; how many it has then.
fn extend(file: &dyn File, len: u64, wanted: u64) -> io::Result<u64> {
    if wanted <= len {
        return Ok(len);
    }
    match file.allocate(0, wanted) {
        Ok(()) => Ok(wanted),
        // A part may have been reserved: others need it more.
        Err(e) if is_full(&e) => file.set_len(len).map(|()| len),
        Err(e) => Err(e),
    }
}

/// Makes a segment of `wanted` bytes; of fewer, but at least `least`, when there is not enough room.
///
/// The file itself is not synced: the sync of the first batch covers header and length.
pub(crate) fn create(
    disk: &dyn Disk,
    store_id: u128,
    segment: u32,
    wanted: u64,
    least: u64,
) -> io::Result<Fresh> {
    let header = new_header(store_id, segment)?;
    let path = path_of(segment);
    let file = disk.open(&path, Open::CreateNew)?;
    let result = allocate(&*file, wanted, least).and_then(|capacity| {
        file.write_at(&[IoSlice::new(&header.encode())], 0)?;
        disk.sync_dir(Path::new(DIR), SITE_CREATE)?;
        Ok(capacity)
    });
    match result {
        Ok(capacity) => Ok(Fresh { header, file, capacity, is_reused: false }),
        Err(e) => {
            // Nothing is in it; if this fails too, the next open removes it.
            let _ = disk.remove(&path);
            Err(e)
        }
    }
}

fn allocate(file: &dyn File, wanted: u64, least: u64) -> io::Result<u64> {
    let mut size = wanted;
    loop {
        match file.allocate(0, size) {
            Ok(()) => return Ok(size),
            Err(e) if is_full(&e) && size > least => size = (size / 2 / UNIT * UNIT).max(least),
            Err(e) => return Err(e),
        }
    }
}

/// Appends footer and trailer at `tail` and cuts the file behind them. Not durable before a sync.
pub(crate) fn seal(
    file: &dyn File,
    header: &SegmentHeader,
    tail: u64,
    batch: u64,
    blocks: &[BlockEntry],
    tombstones: &[Tombstone],
) -> io::Result<u64> {
    let payload = format::encode_footer(blocks, tombstones);
    let len = payload.len() as u32;
    let units = (tail / UNIT) as u32;
    let footer = Header { kind: Kind::Footer, salt: header.salt, id: BlockId(0), len, batch, units };
    let area = footer.encode(&format::crc_table(BlockId(0), &[&payload]));
    let pad = vec![0; format::padding(len)];
    let trailer = Trailer { header: *header, footer_units: units, footer_len: len, batch }.encode();
    let bufs = [&area, &payload, &pad, &trailer].map(|b| IoSlice::new(b));
    file.write_at(&bufs, tail)?;
    let end = tail + format::seal_len(blocks.len() + tombstones.len());
    file.set_len(end)?;
    Ok(end)
}

/// A record found by a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) header: Header,
}

/// A stretch of a segment that should hold records and does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Number of the segment.
    pub segment: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What is known of a segment before its records are read.
pub(crate) struct Opened {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn File>,
    pub(crate) len: u64,
    /// `None`: the first unit is unreadable and nothing at the end replaces it.
    pub(crate) header: Option<SegmentHeader>,
    /// Whether the first unit itself was good.
    pub(crate) header_good: bool,
    /// Of a sealed segment.
    pub(crate) trailer: Option<Trailer>,
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it belongs to store {0:032x}")]
    Foreign(u128),
    #[error("it was written by a newer version ({0})")]
    Version(u8),
}

pub(crate) fn open(disk: &dyn Disk, number: u32, store_id: u128, how: Open) -> Result<Opened, LoadError> {
    let file = disk.open(&path_of(number), how)?;
    let len = file.len()?;
    let mut unit = vec![0; UNIT as usize];
    let mut first = None;
    let (mut trailer, mut copy) = (None, None);
    if len >= UNIT {
        read_exact_at(&*file, &mut unit, 0)?;
        first = match SegmentHeader::decode(&unit) {
            Ok(h) => Some(h),
            Err(FormatError::Version(v)) => return Err(LoadError::Version(v)),
            Err(_) => None,
        };
    }
    if len >= 2 * UNIT && len.is_multiple_of(UNIT) {
        read_exact_at(&*file, &mut unit, len - UNIT)?;
        trailer = Trailer::decode(&unit).ok();
        // Of a segment that was made of a spare file.
        copy = SegmentHeader::decode(&unit).ok().filter(|h| h.store_id == store_id && h.segment == number);
    }
    if let (Some(h), Some(t)) = (first, trailer)
        && h != t.header
    {
        trailer = None;
    }
    let header = first.or(trailer.map(|t| t.header)).or(copy);
    if let Some(h) = header {
        if h.store_id != store_id {
            return Err(LoadError::Foreign(h.store_id));
        }
        if h.segment != number {
            return Err(LoadError::Io(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("segment {number} says that it is segment {}", h.segment),
            )));
        }
    }
    Ok(Opened { number, file, len, header, header_good: first.is_some(), trailer })
}

impl Opened {
    /// The lists in the footer, if the segment is sealed and they verify.
    pub(crate) fn footer(&self) -> io::Result<Option<(Vec<BlockEntry>, Vec<Tombstone>)>> {
        let Some(trailer) = self.trailer else { return Ok(None) };
        let offset = bytes_of(trailer.footer_units);
        if offset.checked_add(record_len(trailer.footer_len) + UNIT) != Some(self.len) {
            return Ok(None);
        }
        let mut record = vec![0; area_len(trailer.footer_len) + trailer.footer_len as usize];
        read_exact_at(&*self.file, &mut record, offset)?;
        let Ok(header) = Header::decode(&record, Some(trailer.header.salt), trailer.footer_units) else {
            return Ok(None);
        };
        if header.kind != Kind::Footer || header.len != trailer.footer_len {
            return Ok(None);
        }
        let (area, payload) = record.split_at(area_len(header.len));
        if format::verify_chunks(header.id, format::table_of(area, header.len), 0, payload).is_err() {
            return Ok(None);
        }
        Ok(format::decode_footer(payload).ok())
    }

    /// Finds all records by their headers, in order; payloads are not looked at. A unit where no record starts
    /// is skipped, and stretches that are neither records nor zeros are returned, with the batch of the next
    /// record, as suspected gaps. What was allocated and never written is not read.
    pub(crate) fn scan(&self) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut salt = self.header.map(|h| h.salt);
        let written = self.file.written()?;
        let mut window = Window::new(&*self.file, self.len);
        let mut at = UNIT;
        let mut gap: Option<u64> = None;
        let mut newest = 0;
        while at + UNIT <= self.len {
            if !window.has(at) {
                let Some(next) = written.get(written.partition_point(|range| range.end <= at)) else { break };
                at = at.max(next.start / UNIT * UNIT);
                if at + UNIT > self.len {
                    break;
                }
            }
            let unit = window.get(at, UNIT as usize)?;
            let Ok(area) = Header::peek_area_len(unit) else {
                if gap.is_none() && unit.iter().any(|b| *b != 0) {
                    gap = Some(at);
                }
                at += UNIT;
                continue;
            };
            let units = (at / UNIT) as u32;
            let header = if at + area as u64 <= self.len {
                Header::decode(window.get(at, area)?, salt, units).ok()
            } else {
                None
            };
            let Some(header) = header.filter(|h| at + record_len(h.len) <= self.len) else {
                gap = gap.or(Some(at));
                at += UNIT;
                continue;
            };
            salt = Some(header.salt);
            newest = newest.max(header.batch);
            if let Some(start) = gap.take() {
                let gap = Gap { segment: self.number, offset: start, len: at - start };
                scan.gaps.push((gap, header.batch));
            }
            if header.kind != Kind::Footer {
                scan.records.push(Found { header });
                scan.end = at + record_len(header.len);
            }
            at += record_len(header.len);
        }
        scan.end = scan.end.max(UNIT);
        scan.salt = salt;
        scan.batch = newest;
        Ok(scan)
    }

    /// Reads the payload of a record, if it verifies.
    pub(crate) fn payload(&self, header: &Header) -> io::Result<Option<Vec<u8>>> {
        let mut record = vec![0; area_len(header.len) + header.len as usize];
        read_exact_at(&*self.file, &mut record, bytes_of(header.units))?;
        let (area, payload) = record.split_at(area_len(header.len));
        let table = format::table_of(area, header.len);
        let good = Header::decode(area, Some(header.salt), header.units).is_ok()
            && format::verify_chunks(header.id, table, 0, payload).is_ok();
        Ok(if good { Some(record.split_off(area_len(header.len))) } else { None })
    }
}

/// What a scan found.
#[derive(Default)]
pub(crate) struct Scan {
    /// Blocks and tombstones, in order.
    pub(crate) records: Vec<Found>,
    /// Suspected gaps, each with the batch of the record behind it.
    pub(crate) gaps: Vec<(Gap, u64)>,
    /// Where the last record ends.
    pub(crate) end: u64,
    /// The salt of header or records.
    pub(crate) salt: Option<u64>,
    /// The highest batch.
    pub(crate) batch: u64,
}

struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    start: u64,
    buf: Vec<u8>,
    /// Bytes to read next: more where all is looked at, little where records are jumped over.
    stride: usize,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File, len: u64) -> Self {
        Self { file, len, start: 0, buf: Vec::new(), stride: WINDOW_MIN }
    }

    fn end(&self) -> u64 {
        self.start + self.buf.len() as u64
    }

    fn has(&self, at: u64) -> bool {
        (self.start..self.end()).contains(&at)
    }

    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        if at < self.start || at + len as u64 > self.end() {
            let goes_on = at <= self.end() + WINDOW_MIN as u64;
            self.stride = if goes_on { (self.stride * 2).min(WINDOW_MAX) } else { WINDOW_MIN };
            let want = (self.len - at).min(self.stride.max(len) as u64) as usize;
            self.buf.resize(want, 0);
            self.start = at;
            read_exact_at(self.file, &mut self.buf, at)?;
        }
        let from = (at - self.start) as usize;
        Ok(&self.buf[from..from + len])
    }
}
