//! Segment files: `<number in 16 hex digits>.wal`, of fixed length, written with zeros before use.
//!
//! The first 512 bytes (one sector, so never torn) are the header; frames follow. Zeros are really written, not
//! only allocated, because the first write to an allocated but unwritten block makes ext4 commit its journal at
//! the next sync: measured 124 µs against 78 µs for 4 KiB and fdatasync. A file is made under another name and
//! renamed when it is durable, so that a file with a segment's name and a bad header is damage.
//!
//! A segment that a purge made superfluous becomes a new one by a new header: to write zeros again would double what the log
//! writes. What it still holds is void, because frames are sealed with the header's salt.

use super::WalError;
use super::record::{ALIGN, FRAME_HEADER, FrameHeader, Record, Seal};
use atoll_base::checksum;
use atoll_base::disk::{Aligned, Disk, File, Open};
use bytes::{Buf, BufMut, Bytes};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes before the first frame.
pub(super) const HEADER: u32 = 512;
const MAGIC: &[u8; 8] = b"ATOLLWAL";
const VERSION: u32 = 1;
/// The name of a segment that is being made.
pub(super) const UNFINISHED: &str = "next.tmp";
/// Bytes per write of zeros and per read while scanning.
const STRIDE: usize = 1 << 20;

/// Bytes of zeros per sync.
const SYNC_EVERY: u64 = 4 << 20;

/// An open segment file.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) len: u32,
    pub(super) seal: Seal,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

/// A frame, as scanned.
pub(super) struct Scanned {
    pub(super) record: Record,
    pub(super) group: u32,
    pub(super) body_len: u32,
    pub(super) next: u32,
}

pub(super) fn name(number: u64) -> String {
    format!("{number:016x}.wal")
}

pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let lower_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() == 16 && lower_hex).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Not a secret of cryptographic strength: it has to differ from any other segment's and not be guessed by a
/// client that writes look-alike frames.
fn fresh_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn header(number: u64, len: u32, salt: u64) -> [u8; HEADER as usize] {
    let mut raw = [0; HEADER as usize];
    let mut buf = &mut raw[..];
    buf.put_slice(MAGIC);
    buf.put_u32_le(VERSION);
    buf.put_u32_le(len);
    buf.put_u64_le(number);
    buf.put_u64_le(salt);
    let crc = checksum::crc32c(&raw[..32]);
    raw[32..36].copy_from_slice(&crc.to_le_bytes());
    raw
}

impl Segment {
    /// Makes a durable, empty segment of zeros.
    pub(super) fn prepare(disk: &dyn Disk, dir: &Path, number: u64, len: u32) -> std::io::Result<Self> {
        let (unfinished, path) = (dir.join(UNFINISHED), dir.join(name(number)));
        let made = Self::make(disk, &unfinished, number, len);
        if made.is_err() {
            // Give back the space; the error that counts is the first.
            let _ = disk.remove(&unfinished);
        }
        let (file, seal) = made?;
        disk.rename(&unfinished, &path)?;
        disk.sync_dir(dir, "wal.segment.dir")?;
        Ok(Self { number, len, seal, path, file })
    }

    /// Makes a durable, empty segment of one that is not needed any more, not even by recovery, and that nobody reads.
    pub(super) fn recycle(mut self, disk: &dyn Disk, dir: &Path, number: u64) -> std::io::Result<Self> {
        let old = std::mem::replace(&mut self.path, dir.join(name(number)));
        let salt = fresh_salt();
        self.file.write_at(&[IoSlice::new(&header(number, self.len, salt))], 0)?;
        self.file.sync("wal.segment.file")?;
        disk.rename(&old, &self.path)?;
        disk.sync_dir(dir, "wal.segment.dir")?;
        Ok(Self { number, seal: Seal::new(number, salt), ..self })
    }

    fn make(disk: &dyn Disk, path: &Path, number: u64, len: u32) -> std::io::Result<(Arc<dyn File>, Seal)> {
        let file = disk.open(path, Open::Create)?;
        file.set_len(0)?;
        file.allocate(0, u64::from(len))?;
        let salt = fresh_salt();
        let mut zeros = Aligned::<STRIDE>::default();
        let zeros = &zeros.bytes()[..STRIDE.min(len as usize)];
        let mut at = 0;
        while at < u64::from(len) {
            let n = zeros.len().min((u64::from(len) - at) as usize);
            // They would only push out of the page cache what is read.
            file.write_direct_at(&zeros[..n], at)?;
            at += n as u64;
            // Little by little: one sync of a whole segment would hold up the appends for long.
            if at.is_multiple_of(SYNC_EVERY) {
                file.sync("wal.segment.file")?;
            }
        }
        file.write_at(&[IoSlice::new(&header(number, len, salt))], 0)?;
        file.sync("wal.segment.file")?;
        Ok((file, Seal::new(number, salt)))
    }

    /// Opens a segment that has to be there.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Self, WalError> {
        let path = dir.join(name(number));
        let file =
            disk.open(&path, Open::ReadWrite).map_err(WalError::io(format!("open {}", path.display())))?;
        // What counts is on the disk. Where a write past the page cache failed, the cache may have what was there before.
        file.forget_cached(0, file.len().map_err(WalError::io(format!("look at {}", path.display())))?);
        let mut raw = [0; HEADER as usize];
        let read = file.read_at(&mut raw, 0).map_err(WalError::io(format!("read {}", path.display())))?;
        let mut buf = &raw[8..32];
        let (version, len, stored, salt) =
            (buf.get_u32_le(), buf.get_u32_le(), buf.get_u64_le(), buf.get_u64_le());
        let damaged = |what: &str| WalError::Damaged {
            file: path.display().to_string(),
            offset: 0,
            what: what.to_owned(),
        };
        if read < raw.len() || raw != header(number, len, salt) {
            let what = match &raw[..8] == MAGIC && version != VERSION && stored == number {
                true => "a segment of an unknown format version",
                false => "not the header of this segment",
            };
            return Err(damaged(what));
        }
        if len < HEADER + ALIGN || len % ALIGN != 0 {
            return Err(damaged("impossible length"));
        }
        Ok(Self { number, len, seal: Seal::new(number, salt), path, file })
    }

    /// Voids all that an unused segment may hold. Needs no sync: before the first sync of an append to it
    /// nothing in it counts, and that one covers the new header as well.
    pub(super) fn renew(&mut self) -> std::io::Result<()> {
        let salt = fresh_salt();
        self.file.write_at(&[IoSlice::new(&header(self.number, self.len, salt))], 0)?;
        self.seal = Seal::new(self.number, salt);
        Ok(())
    }

    pub(super) fn damaged(&self, offset: u32, what: impl Into<String>) -> WalError {
        WalError::Damaged {
            file: self.path.display().to_string(),
            offset: u64::from(offset),
            what: what.into(),
        }
    }

    fn io(&self, verb: &str) -> impl FnOnce(std::io::Error) -> WalError {
        WalError::io(format!("{verb} {}", self.path.display()))
    }

    /// The valid frame at `offset`; `None` if there is none.
    pub(super) fn frame(&self, window: &mut Window, offset: u32) -> Result<Option<Scanned>, WalError> {
        if self.len - offset.min(self.len) < FRAME_HEADER as u32 {
            return Ok(None);
        }
        let raw = window.get(self, offset, FRAME_HEADER)?;
        let raw = raw.try_into().expect("the window gives what was asked for");
        let Some(header) = FrameHeader::parse(raw, self.seal) else { return Ok(None) };
        if u64::from(offset) + header.size() > u64::from(self.len) || header.group > offset {
            return Ok(None);
        }
        let body = window.get(self, offset + FRAME_HEADER as u32, header.body_len as usize)?;
        if !header.verifies(body, self.seal, offset) {
            return Ok(None);
        }
        let record = header
            .decode(Bytes::copy_from_slice(body))
            .ok_or_else(|| self.damaged(offset, "a record of an unknown format"))?;
        let next = offset + header.size() as u32;
        Ok(Some(Scanned { record, group: header.group, body_len: header.body_len, next }))
    }

    /// Reads the frame of `body_len` at `offset`, as one read.
    pub(super) fn read(&self, offset: u32, body_len: u32) -> Result<Record, WalError> {
        let mut buf = vec![0; FRAME_HEADER + body_len as usize];
        let n = self.file.read_at(&mut buf, u64::from(offset)).map_err(self.io("read"))?;
        let mut body = Bytes::from(buf);
        let raw = body.split_to(FRAME_HEADER);
        let raw = raw[..].try_into().expect("split at its length");
        let header = FrameHeader::parse(raw, self.seal)
            .filter(|h| n == FRAME_HEADER + body.len() && h.body_len == body_len)
            .ok_or_else(|| self.damaged(offset, "no record where one was written"))?;
        if !header.verifies(&body, self.seal, offset) {
            return Err(self.damaged(offset, "checksum mismatch"));
        }
        header.decode(body).ok_or_else(|| self.damaged(offset, "a record of an unknown format"))
    }

    /// What follows `end`, where the valid frames end. A frame of a later group proves that the bytes at `end`
    /// were durable, so they are damaged; frames of the same group are the rest of a torn write. Returns
    /// whether any byte is not zero. `outer` is where it may have been read already.
    pub(super) fn inspect_tail(&self, outer: &mut Window, end: u32) -> Result<bool, WalError> {
        let mut inner = Window::default();
        let mut dirty = false;
        let mut at = end;
        while at < self.len {
            // Millions of words, nearly none of which begins a frame.
            let (words, _) = outer.get(self, at, STRIDE.min((self.len - at) as usize))?.as_chunks();
            for (place, word) in (at..).step_by(ALIGN as usize).zip(words) {
                dirty |= *word != [0; ALIGN as usize];
                if self.seal.may_begin(*word)
                    && let Some(found) = self.frame(&mut inner, place)?
                    && found.group > end
                {
                    let what = format!("no valid record, though one follows at byte {place}");
                    return Err(self.damaged(end, what));
                }
            }
            at += (words.len() * ALIGN as usize) as u32;
        }
        Ok(dirty)
    }

    /// Writes the bytes of `range` again and syncs: after a failed sync the system shows bytes that never
    /// reached the platter and takes them for clean.
    pub(super) fn settle(&self, start: u32, end: u32) -> Result<(), WalError> {
        let mut at = start;
        let mut buf = vec![0; STRIDE.min((end - start) as usize)];
        while at < end {
            let n = buf.len().min((end - at) as usize);
            self.file.read_at(&mut buf[..n], u64::from(at)).map_err(self.io("read"))?;
            self.file.write_at(&[IoSlice::new(&buf[..n])], u64::from(at)).map_err(self.io("write"))?;
            at += n as u32;
        }
        self.file.sync("wal.recover.file").map_err(self.io("sync"))
    }
}

/// A buffered part of a segment.
#[derive(Default)]
pub(super) struct Window {
    start: u32,
    buf: Vec<u8>,
    of: Option<u64>,
}

impl Window {
    /// `len` bytes at `offset`; beyond the end of the file zeros.
    fn get(&mut self, segment: &Segment, offset: u32, len: usize) -> Result<&[u8], WalError> {
        let inside = self.of == Some(segment.number)
            && offset >= self.start
            && (offset - self.start) as usize + len <= self.buf.len();
        if !inside {
            self.buf.clear();
            self.buf.resize(len.max(STRIDE.min((segment.len - offset) as usize)), 0);
            segment.file.read_at(&mut self.buf, u64::from(offset)).map_err(segment.io("read"))?;
            self.start = offset;
            self.of = Some(segment.number);
        }
        Ok(&self.buf[(offset - self.start) as usize..][..len])
    }
}
