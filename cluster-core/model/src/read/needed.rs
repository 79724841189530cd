//! Whether the bytes that a call's execution needs can be read: asked by the leader before it proposes the call.
//!
//! Most changes put rows in or take them out without looking into them. Some need bytes that are stored: a write or a truncation, those of an inline
//! row that goes on beyond its end, or ends in the page where it begins; a clone, all of the source's; an extended attribute, its former value if it is short (which is
//! compared; of a longer one only the length is asked, which its row tells). Where the store finds these damaged when the command is applied, rows of files are lost ([`crate::extents`]), and
//! where it cannot tell the length of an attribute the member stops.
//!
//! What is asked here is what [`crate::extents`] does, told by the same rows. Other commands may come between the question and the execution. Most cannot make a row needed that
//! was not: which part of a row goes depends on its ends alone, and who moves those loads it. But a clone or a copy goes as far as rows are allowed in one command, and a punch or a
//! repack of its source can let it reach rows that were not looked at. If those are damaged, they are lost where the clone puts them: reads of them fail, nothing is silent.

use crate::extent::{self, Head};
use crate::kv::{KvError, KvRead};
use crate::limits::{CLONE_ROWS_MAX, PAGE};
use crate::ops::attributes;
use crate::ops::nfs4::offloads;
use crate::record::nfs4::OffloadRecord;
use crate::record::{File, Inode};
use crate::{keys, store};
use atoll_base::attr::Attr;
use atoll_base::id::Ino;
use atoll_meta::offload::OffloadOp;
use atoll_meta::{CreateHow, Op, Piece, Source};
use std::iter;
use std::ops::Range;

/// What cannot be read, and of which inode it is.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The inode.
    pub ino: Ino,
    /// What the store says.
    pub error: KvError,
}

/// Whether a call may need any stored bytes. `attr` gives attributes of an inode as far as they are at hand, as of now or before.
pub fn may_need_bytes(op: &Op, attr: impl FnOnce(Ino) -> Option<Attr>) -> bool {
    match op {
        Op::Write { ino, pieces, .. } => match pieces.first() {
            None => false,
            // Behind all there is, or on a page of its own behind the end.
            Some(first) => attr(*ino).is_none_or(|attr| {
                attr.used > 0 && !(first.offset >= attr.size && first.offset.is_multiple_of(PAGE))
            }),
        },
        Op::SetAttr { set, .. } => set.size.is_some_and(|size| size > 0),
        Op::Create { how: CreateHow::Unchecked, attrs, .. } => attrs.size.is_some_and(|size| size > 0),
        Op::Repack { .. } | Op::SetXattr { .. } | Op::Punch { .. } | Op::Clone { .. } => true,
        Op::Offload(op) => matches!(op, OffloadOp::Copy { .. } | OffloadOp::Step { .. }),
        _ => false,
    }
}

/// Reads the bytes that a call needs. What the call is refused for by itself is no matter here.
pub fn needed(kv: &impl KvRead, op: &Op) -> Result<(), Unreadable> {
    match op {
        Op::Write { ino, pieces, .. } => within(kv, *ino, |file| {
            pieces.chunk_by(|a, b| end_of(a) == b.offset).try_for_each(|run| {
                let (first, last) = (&run[0], &run[run.len() - 1]);
                let merged = (is_inline(&first.source), is_inline(&last.source));
                file.replaced(first.offset..end_of(last), merged)
            })
        }),
        Op::SetAttr { ino, set, .. } => match set.size {
            Some(size) => within(kv, *ino, |file| file.cut_at(size)),
            None => Ok(()),
        },
        Op::Create { dir, name, how: CreateHow::Unchecked, attrs, .. } => {
            let found = store::dirent(kv, *dir, name).map_err(|error| Unreadable { ino: *dir, error })?;
            match (found, attrs.size) {
                (Some((ino, _)), Some(size)) => within(kv, ino, |file| file.cut_at(size)),
                _ => Ok(()),
            }
        }
        Op::Punch { ino, offset, len, .. } => within(kv, *ino, |file| {
            let end = offset.saturating_add(*len).min(file.size);
            if *offset < end { file.replaced(*offset..end, (false, false)) } else { Ok(()) }
        }),
        Op::Repack { ino, offset, len, .. } => {
            within(kv, *ino, |file| file.replaced(*offset..offset.saturating_add(*len), (false, false)))
        }
        Op::SetXattr { ino, name, value, .. } => {
            let found = attributes::former_xattr(kv, &keys::named(*ino, name), value.as_ref());
            found.map(drop).map_err(|error| Unreadable { ino: *ino, error })
        }
        Op::Clone { from, from_offset, to, to_offset, len, .. } => {
            shared(kv, (*from, *from_offset), (*to, *to_offset), *len, CLONE_ROWS_MAX)
        }
        Op::Offload(OffloadOp::Copy { from, to, len, most, .. }) => {
            shared(kv, (from.ino, from.offset), (to.ino, to.offset), *len, offloads::rows(*most))
        }
        Op::Offload(OffloadOp::Step { offload, most }) => {
            match offloads::load(kv, offload.id) {
                Ok(Some(OffloadRecord { from, to, left, ended: None, .. })) => {
                    shared(kv, (from.ino, from.offset), (to.ino, to.offset), left, offloads::rows(*most))
                }
                // Of its files nothing is known, and nothing needed.
                Ok(_) | Err(_) => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Of the bytes that the pieces of a [`Op::Write`] bring, those that cannot go in because they need bytes which cannot be read: ranges in order. Without
/// them the rest goes in. They end with the row that is needed, or with the page where bytes are merged with it.
pub fn refused(kv: &impl KvRead, ino: Ino, pieces: &[Piece]) -> Result<Vec<Range<u64>>, KvError> {
    let Some(Inode { attr, file: Some(file), .. }) = store::inode(kv, ino)? else { return Ok(Vec::new()) };
    let file = Target { kv, ino, size: attr.size, file: &file };
    let mut refused = Vec::new();
    for run in pieces.chunk_by(|a, b| end_of(a) == b.offset) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let is_inline_at = |at: u64| {
            let after = run.partition_point(|piece| end_of(piece) <= at);
            run.get(after).is_some_and(|piece| is_inline(&piece.source))
        };
        let mut left: Vec<_> = iter::once(first.offset..end_of(last)).collect();
        while let Some(run) = left.pop() {
            let merged = (is_inline_at(run.start), is_inline_at(run.end - 1));
            let needed = file.needed_beside(run.clone(), merged)?.into_iter().flatten();
            let Some(row) = needed.into_iter().find(|row| file.load(*row).is_err()) else { continue };
            let beside = |at: u64| at - at % PAGE;
            let start = if row.offset < run.end { row.offset } else { beside(run.end) };
            let end = if row.end() > run.start { row.end() } else { beside(run.start).saturating_add(PAGE) };
            let bad = start.max(run.start)..end.min(run.end);
            left.extend([run.start..bad.start, bad.end..run.end].into_iter().filter(|part| !part.is_empty()));
            refused.push(bad);
        }
    }
    refused.sort_unstable_by_key(|range| range.start);
    Ok(refused)
}

/// Nobody has looked yet whether there can be such a piece.
fn end_of(piece: &Piece) -> u64 {
    piece.offset.saturating_add(piece.len.into())
}

fn is_inline(source: &Source) -> bool {
    matches!(source, Source::Inline(_))
}

/// What is needed where a range of one file is to be another's, too. `len` 0: up to the end of the file.
fn shared<K: KvRead>(
    kv: &K,
    (from, from_offset): (Ino, u64),
    (to, to_offset): (Ino, u64),
    len: u64,
    most: usize,
) -> Result<(), Unreadable> {
    let mut copied = None;
    within(kv, from, |file| {
        let end = match len {
            0 => file.size,
            // A source that was cut off meanwhile gives what is left.
            len => from_offset.saturating_add(len).min(file.size),
        };
        if end <= from_offset {
            return Ok(());
        }
        let most = most.min(CLONE_ROWS_MAX);
        let (rows, complete_to) = extent::live_within(kv, from, file.file, from_offset..end, most)?;
        rows.iter().try_for_each(|row| file.load(*row))?;
        let is_inline = |row: Option<&Head>| row.is_some_and(|row| row.block.is_none());
        let first = rows.first().filter(|row| row.offset <= from_offset);
        let last = rows.last().filter(|row| row.end() >= complete_to);
        let merged = (is_inline(first), is_inline(last));
        copied = complete_to.checked_sub(from_offset).filter(|len| *len > 0).map(|len| (len, merged));
        Ok(())
    })?;
    let Some((len, merged)) = copied else { return Ok(()) };
    within(kv, to, |file| file.replaced(to_offset..to_offset.saturating_add(len), merged))
}

/// A regular file of which something is to be replaced.
struct Target<'k, K> {
    kv: &'k K,
    ino: Ino,
    size: u64,
    file: &'k File,
}

/// Looks into an inode, if it is a regular file.
fn within<K: KvRead>(
    kv: &K,
    ino: Ino,
    look: impl FnOnce(&Target<'_, K>) -> Result<(), KvError>,
) -> Result<(), Unreadable> {
    let looked = match store::inode(kv, ino) {
        Ok(Some(Inode { attr, file: Some(file), .. })) => {
            look(&Target { kv, ino, size: attr.size, file: &file })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    looked.map_err(|error| Unreadable { ino, error })
}

impl<K: KvRead> Target<'_, K> {
    /// What a truncation needs.
    fn cut_at(&self, size: u64) -> Result<(), KvError> {
        match extent::across(self.kv, self.ino, self.file, size)? {
            Some(row) if size < self.size => self.load(row),
            _ => Ok(()),
        }
    }

    /// Reads what is needed where a range gets other extents.
    fn replaced(&self, range: Range<u64>, merged: (bool, bool)) -> Result<(), KvError> {
        self.needed_beside(range, merged)?.into_iter().flatten().try_for_each(|row| self.load(row))
    }

    /// The rows that are needed where a range gets other extents. `merged`: whether what comes first and last in it is inline, and takes in what is beside it within
    /// a page.
    fn needed_beside(&self, range: Range<u64>, merged: (bool, bool)) -> Result<[Option<Head>; 2], KvError> {
        let (kv, ino, file) = (self.kv, self.ino, self.file);
        let Range { start, end } = range;
        let touches = merged.0 && !start.is_multiple_of(PAGE);
        let touches_behind = merged.1 && !end.is_multiple_of(PAGE);
        if file.cuts.is_empty()
            && !touches
            && !touches_behind
            && let Some(row) = extent::at(kv, ino, start)?.filter(|row| row.end() >= end)
        {
            // One look, and no other row reaches in. The same bytes again are the most frequent.
            return Ok([Some(row).filter(|row| row.end() > end), None]);
        }
        let fits = |row: &Head| row.end() > start || touches && row.end() == start;
        let left = extent::before(kv, ino, file, start, fits)?;
        if left.is_some_and(|left| left.end() > end) {
            // It covers the whole range.
            return Ok([left, None]);
        }
        let mut right = extent::across(kv, ino, file, end)?;
        if right.is_none() && touches_behind {
            right = extent::at(kv, ino, end)?.filter(|row| file.is_live(row.offset, row.birth));
        }
        Ok([left, right.filter(|right| left.is_none_or(|left| left.offset != right.offset))])
    }

    fn load(&self, row: Head) -> Result<(), KvError> {
        match row.block {
            None => extent::load(self.kv, self.ino, row).map(drop),
            Some(_) => Ok(()),
        }
    }
}
