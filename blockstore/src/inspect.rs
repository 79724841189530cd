//! Looking at every byte: the online scrub and the offline check. Neither repairs anything.

use crate::format::{self, CHUNK, Header, Kind, UNIT, area_len};
use crate::index::Place;
use crate::lock::read;
use crate::recover::{self, Builder, OpenError};
use crate::shared::Shared;
use atoll_base::block::BlockId;
use atoll_base::disk::{Disk, File, Open, read_exact_at};
use std::collections::BTreeMap;
use std::io;

/// Something wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The block.
    pub id: BlockId,
    /// First byte of the damaged part within the block.
    pub offset: u64,
    /// Bytes that cannot be read because of it.
    pub len: u64,
    /// What was found.
    pub detail: String,
}

/// What a step of the scrub did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks looked at.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// What the offline check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Segment files.
    pub segments: u64,
    /// All live blocks with their lengths, in order of ids.
    pub blocks: Vec<(BlockId, u32)>,
    /// Live blocks with damage.
    pub damage: Vec<Damage>,
    /// Damage of the structure around the blocks: headers, footers, lost records.
    pub structure: Vec<String>,
    /// Torn records of a last batch that was never acknowledged. Not an inconsistency.
    pub torn: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.structure.is_empty()
    }
}

/// Verifies one block's whole record; runs of damaged chunks are joined.
fn inspect(file: &dyn File, id: BlockId, place: Place, salt: u64) -> io::Result<Vec<Damage>> {
    let whole = |detail: String| vec![Damage { id, offset: 0, len: u64::from(place.len), detail }];
    let area_len = area_len(place.len);
    let mut record = vec![0; area_len + place.len as usize];
    let at = u64::from(place.units) * UNIT;
    file.forget_cached(at, record.len() as u64);
    match read_exact_at(file, &mut record, at) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(whole("the segment file ends before it".into()));
        }
        other => other?,
    }
    match Header::decode(&record, Some(salt), place.units) {
        Ok(h) if h.kind == Kind::Block && h.id == id && h.len == place.len => {}
        Ok(_) => return Ok(whole("the record is another block's".into())),
        Err(e) => return Ok(whole(e.to_string())),
    }
    let (area, payload) = record.split_at(area_len);
    let table = format::table_of(area, place.len);
    let mut damage: Vec<Damage> = Vec::new();
    for (n, chunk) in payload.chunks(CHUNK).enumerate() {
        if format::verify_chunks(id, table, n, chunk).is_ok() {
            continue;
        }
        let offset = (n * CHUNK) as u64;
        match damage.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += chunk.len() as u64,
            _ => damage.push(Damage {
                id,
                offset,
                len: chunk.len() as u64,
                detail: "the checksum does not match".into(),
            }),
        }
    }
    Ok(damage)
}

impl Shared {
    /// Verifies blocks from `cursor` on until about `budget` bytes are read.
    pub(crate) fn scrub_step(&self, cursor: BlockId, budget: u64) -> (Option<BlockId>, Scrubbed) {
        let mut done = Scrubbed::default();
        let mut next = Some(cursor);
        while let Some(from) = next
            && done.bytes < budget.max(1)
        {
            let Some((id, place)) = read(&self.state).index.range_from(from).next() else {
                return (None, done);
            };
            next = id.0.checked_add(1).map(BlockId);
            done.blocks += 1;
            done.bytes += u64::from(place.len);
            done.damage.extend(self.scrub(id));
        }
        (next, done)
    }

    fn scrub(&self, id: BlockId) -> Vec<Damage> {
        // Moved or deleted while being read: look again. Compaction is far slower than this loop.
        while let Some((place, salt)) = self.find(id) {
            let found = self
                .files
                .get(&*self.disk, place.segment)
                .and_then(|file| inspect(&*file, id, place, salt))
                .unwrap_or_else(|e| {
                    vec![Damage { id, offset: 0, len: u64::from(place.len), detail: e.to_string() }]
                });
            if found.is_empty() || self.find(id) == Some((place, salt)) {
                return found;
            }
        }
        Vec::new()
    }
}

/// Verifies a store that no process has open: all segments, all live blocks. Changes nothing.
pub fn check(disk: &dyn Disk, store_id: u128) -> Result<CheckReport, OpenError> {
    let mut report = CheckReport::default();
    let numbers = recover::names(disk)?.segments;
    report.segments = numbers.len() as u64;
    let mut survey = recover::survey(disk, store_id, &numbers, || {})?;
    let mut builder = Builder::new(&numbers);
    let mut files = BTreeMap::new();
    for &number in numbers.iter().rev() {
        let Some(loaded) = recover::load(disk, store_id, number, &mut survey, Open::Read)? else {
            // Made when the power went, and never written; a store that is opened removes it.
            continue;
        };
        // The last segment may have been in the middle of being made or sealed when the power went.
        let sealed = loaded.opened.trailer.is_some_and(|t| t.batch < survey.batch);
        let synced = loaded.unsealed.as_ref().map_or(sealed, |u| !u.young);
        if !loaded.opened.header_good && synced {
            report.structure.push(format!("the header of segment {number} is damaged"));
        }
        if loaded.unsealed.is_some() && sealed {
            report.structure.push(format!("the footer of segment {number} is damaged"));
        }
        if let Some(unsealed) = &loaded.unsealed {
            report.torn += unsealed.torn;
            for gap in &unsealed.lost {
                let (at, len) = (gap.offset, gap.len);
                report.structure.push(format!("segment {number}: records lost in {len} bytes at {at}"));
            }
        }
        builder.enter(&loaded);
        files.insert(number, (loaded.opened.file, loaded.salt));
    }
    for (id, place) in builder.state.index.range_from(BlockId(0)) {
        report.blocks.push((id, place.len));
        let (file, salt) = files.get(&place.segment).expect("a block's segment was loaded");
        report.damage.extend(inspect(&**file, id, place, *salt)?);
    }
    Ok(report)
}
