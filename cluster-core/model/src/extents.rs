//! Changes of a file's extents, and the reference counts of blocks that follow from them.
//!
//! # Replacing
//!
//! A range gets new extents by taking out what is there (an extent that reaches over an end is cut, and what is left keeps its
//! birth) and putting the new ones in. Inline bytes that touch within one page are merged into one row, so that a log written in small
//! stable pieces makes a row per page.
//!
//! # Cuts
//!
//! If more rows would have to go than one command may touch, the inode gets a [`Cut`] instead: rows in its range that were born before
//! are dead from then on, wherever extents are read, and Sweep removes them in bounded steps. A new row may take the key of a dead
//! one, which is released then.
//!
//! # Damage
//!
//! A change may need bytes that the store of this member cannot read. Whoever leads looks before and refuses ([`crate::read::needed`]); but a command that
//! is in the log already, on another member or applied again after a crash, is applied as everywhere: rows come and go as they do elsewhere, and those that would
//! take over the bytes are marked as lost ([`Lost`]). So a member is never stopped by damaged bytes of a file, and its answers are those of the others.
//! That is for bytes that were read and are proven to be wrong; if reading fails, the member stops: a restart, or another member, may still have them.
//!
//! # References
//!
//! A block's count is the number of rows that refer to it, dead ones included; at 0 its row moves to `Garbage`.
//! A block in there never comes back, because the collector may be deleting it: see [`check_new_blocks`].

use crate::extent::{self, Head};
use crate::kv::{KvError, KvWrite, Table};
use crate::limits::{
    CUTS_MAX, INLINE_EXTENT_MAX, PAGE, RELEASE_ROWS_MAX, REPACK_BYTES_PER_EXTENT, REPACK_EXTENTS,
    REPACK_INLINE, WRITE_ROWS_MAX,
};
use crate::record::{Cut, Garbage, Orphan};
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, store};
use atoll_base::block::BlockId;
use atoll_base::id::{Ino, VolumeId};
use atoll_meta::{Extent, FsError, Piece, Source};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

// ---- references

/// Requires that each block may be referenced: it is already, or it is new and was put by the caller's present life. One in
/// `Garbage` may be gone any moment, and one of an earlier life may have been collected: the writer must put it again under
/// a new id.
pub(crate) fn check_new_blocks<K: KvWrite>(t: &Transaction<'_, K>, pieces: &[Piece]) -> Step<()> {
    let mut seen = BTreeSet::new();
    for piece in pieces {
        let Source::Block { id, .. } = piece.source else { continue };
        if !seen.insert(id) || store::has(t.kv, Table::Block, &keys::block(id))? {
            continue;
        }
        require(!store::has(t.kv, Table::Garbage, &keys::block(id))?, FsError::Conflict)?;
        require(t.origin.is_none_or(|o| o.epoch == id.epoch()), FsError::Conflict)?;
    }
    Ok(())
}

fn reference<K: KvWrite>(t: &mut Transaction<'_, K>, id: BlockId) -> Step<()> {
    let refs = store::block_refs(t.kv, id)? + 1;
    Ok(t.kv.put(Table::Block, &keys::block(id), &refs.to_be_bytes())?)
}

fn unreference<K: KvWrite>(t: &mut Transaction<'_, K>, id: BlockId) -> Step<()> {
    let key = keys::block(id);
    match store::block_refs(t.kv, id)? {
        0 => panic!("block {id:?} lost a reference it did not have"),
        1 => {
            t.kv.delete(Table::Block, &key)?;
            t.model.meta.garbage += 1;
            let garbage = Garbage { txn: t.txn, since: t.now };
            store::put(t.kv, Table::Garbage, &key, &garbage)?;
        }
        n => t.kv.put(Table::Block, &key, &(n - 1).to_be_bytes())?,
    }
    Ok(())
}

// ---- rows

/// Bytes that a command took over from rows and this member could not read, by file and place.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Where they were.
    taken: Vec<(Ino, Range<u64>)>,
    /// Where a clone brings them.
    brought: Vec<(Ino, Range<u64>)>,
}

impl Lost {
    fn overlaps(&self, ino: Ino, range: &Range<u64>) -> bool {
        let mut all = self.taken.iter().chain(&self.brought);
        all.any(|(of, lost)| *of == ino && lost.start < range.end && range.start < lost.end)
    }

    /// A range is cleared: nobody misses them any more.
    fn clear(&mut self, ino: Ino, start: u64, end: u64) {
        for (of, lost) in std::mem::take(&mut self.taken) {
            if of != ino {
                self.taken.push((of, lost));
                continue;
            }
            let rest = [lost.start..lost.end.min(start), lost.start.max(end)..lost.end];
            self.taken.extend(rest.into_iter().filter(|rest| !rest.is_empty()).map(|rest| (ino, rest)));
        }
    }

    /// What was taken from a range of one file will be put into another, from `to_offset` on.
    pub(crate) fn bring(&mut self, from: Ino, range: Range<u64>, to: Ino, to_offset: u64) {
        for (_, lost) in self.taken.extract_if(.., |(of, _)| *of == from) {
            let (start, end) = (lost.start.max(range.start), lost.end.min(range.end));
            if start < end {
                let moved = |at: u64| at - range.start + to_offset;
                self.brought.push((to, moved(start)..moved(end)));
            }
        }
    }
}

/// A row with its bytes. Those that are damaged, also at a second look, are zeros, and noted as lost. An error of reading proves nothing and loses nothing.
pub(crate) fn load<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: Head) -> Step<Extent> {
    let ino = t[at].attr.ino;
    let first = extent::load(t.kv, ino, row);
    let is_damaged = matches!(first, Err(KvError::Damaged(_)));
    let error = match if is_damaged { extent::load(t.kv, ino, row) } else { first } {
        Err(error @ KvError::Damaged(_)) => error,
        done => return Ok(done?),
    };
    let mut bytes = BytesMut::zeroed(row.len as usize);
    let readable = extent::readable(t.kv, ino, row)?.unwrap_or_default();
    bytes[..readable.len()].copy_from_slice(&readable);
    t.lost.taken.push((ino, row.offset + readable.len() as u64..row.end()));
    t.touched.lost.push((ino, error.what().to_owned()));
    let piece = Piece { offset: row.offset, len: row.len, source: Source::Inline(bytes.freeze()) };
    Ok(Extent { piece, birth: row.birth })
}

fn put_extent<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, extent: &Extent) -> Step<()> {
    let lost = t.lost.overlaps(ino, &(extent.piece.offset..extent.piece.end()));
    Ok(extent::put(t.kv, ino, extent, lost)?)
}

fn count_bytes<K: KvWrite>(t: &mut Transaction<'_, K>, volume: VolumeId, plus: u64, minus: u64) {
    let record = t.volume_mut(volume);
    record.bytes = (record.bytes + plus).checked_sub(minus).expect("a volume counts fewer bytes than it has");
}

fn count_row<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: Head, new: bool) {
    let len = u64::from(row.len);
    let inline = if row.block.is_none() { len } else { 0 };
    let (ino, volume) = (t[at].attr.ino, t[at].attr.volume);
    let add = |counter: &mut u64, n: u64| {
        let sum = if new { counter.checked_add(n) } else { counter.checked_sub(n) };
        *counter = sum.unwrap_or_else(|| panic!("a counter of inode {ino} does not match its extents"));
    };
    add(&mut t[at].attr.used, len);
    let file = t.file_mut(at);
    add(&mut file.extents, 1);
    add(&mut file.inline_bytes, inline);
    let (plus, minus) = if new { (len, 0) } else { (0, len) };
    count_bytes(t, volume, plus, minus);
}

/// Puts a new row in, with a reference of its own. Only a dead row can have its key.
fn put_row<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, extent: &Extent) -> Step<()> {
    let ino = t[at].attr.ino;
    let offset = extent.piece.offset;
    if let Source::Block { id, .. } = extent.piece.source {
        reference(t, id)?;
    }
    if !t.file(at).cuts.is_empty()
        && let Some(dead) = extent::at(t.kv, ino, offset)?
    {
        assert!(!t.file(at).is_live(offset, dead.birth), "inode {ino} has two live extents at {offset}");
        drop_row(t, at, dead)?;
    }
    count_row(t, at, Head::of(extent), true);
    put_extent(t, ino, extent)
}

/// Takes a row out, with its reference.
fn drop_row<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: Head) -> Step<()> {
    let ino = t[at].attr.ino;
    extent::delete(t.kv, ino, &row)?;
    count_row(t, at, row, false);
    row.block.map_or(Ok(()), |id| unreference(t, id))
}

/// Makes a row end earlier.
fn shorten_row<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: &Extent, end: u64) -> Step<()> {
    let ino = t[at].attr.ino;
    let offset = row.piece.offset;
    let shorter =
        extent::clip(row, offset, end).unwrap_or_else(|| panic!("extent of {ino} shortened to nothing"));
    count_row(t, at, Head::of(row), false);
    count_row(t, at, Head::of(&shorter), true);
    extent::delete(t.kv, ino, &Head::of(row))?;
    put_extent(t, ino, &shorter)
}

/// Rows that begin in `start..end`, dead ones included; `None` if there are more than `most`.
fn rows_within<K: KvWrite>(
    t: &Transaction<'_, K>,
    at: At,
    start: u64,
    end: u64,
    most: usize,
) -> Step<Option<Vec<Head>>> {
    let mut rows = Vec::new();
    let mut too_many = false;
    extent::each(t.kv, t[at].attr.ino, start, end, |head| {
        if rows.len() >= most {
            too_many = true;
            return Ok(ControlFlow::Break(()));
        }
        rows.push(head);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((!too_many).then_some(rows))
}

// ---- cuts

/// Whether the inode has room for so many more cuts.
fn has_room_for_cuts<K: KvWrite>(t: &Transaction<'_, K>, at: At, more: usize) -> bool {
    t.file(at).cuts.len() + more <= CUTS_MAX
}

fn add_cut<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, start: u64, end: u64) -> Step<()> {
    let cut = Cut { start, end, before: t.txn };
    let file = t.file_mut(at);
    // Of rows in a part of the new cut's range, it kills all that an older one does.
    file.cuts.retain(|old| old.start < start || old.end > end);
    file.cuts.push(cut);
    let ino = t[at].attr.ino;
    Ok(store::put(t.kv, Table::Orphan, &keys::ino(ino), &Orphan::Tail)?)
}

// ---- replacing

/// Takes out every live byte of `start..end`: by rows, or if `by_cut` by a new cut.
fn clear<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, start: u64, end: u64, by_cut: bool) -> Step<()> {
    clear_rows(t, at, start, end, by_cut)?;
    let ino = t[at].attr.ino;
    t.lost.clear(ino, start, end);
    Ok(())
}

fn clear_rows<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    start: u64,
    end: u64,
    by_cut: bool,
) -> Step<()> {
    let ino = t[at].attr.ino;
    if start >= t[at].attr.size {
        // No live row reaches there.
        return Ok(());
    }
    if t.file(at).cuts.is_empty()
        && let Some(same) = extent::at(t.kv, ino, start)?
        && same.end() == end
    {
        // The same bytes again, written anew: most writes into a file that is full of small ones.
        return drop_row(t, at, same);
    }
    if let Some(left) = extent::across(t.kv, ino, t.file(at), start)? {
        let left = load(t, at, left)?;
        let behind = extent::clip(&left, end, u64::MAX);
        shorten_row(t, at, &left, start)?;
        if let Some(rest) = behind {
            // It covered the whole range.
            return put_row(t, at, &rest);
        }
    }
    if by_cut {
        if let Some(right) = extent::across(t.kv, ino, t.file(at), end)? {
            let right = load(t, at, right)?;
            split_at(t, at, &right, end)?;
        }
        return add_cut(t, at, start, end);
    }
    let mut rows = Vec::new();
    let mut last_live = None;
    extent::each(t.kv, ino, start, end, |head| {
        rows.push(head);
        if head.end() > end && t.file(at).is_live(head.offset, head.birth) {
            last_live = Some(head);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(last) = last_live
        && let Some(rest) = extent::clip(&load(t, at, last)?, end, u64::MAX)
    {
        put_row(t, at, &rest)?;
    }
    for row in rows {
        drop_row(t, at, row)?;
    }
    Ok(())
}

fn split_at<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: &Extent, offset: u64) -> Step<()> {
    if let Some(rest) = extent::clip(row, offset, u64::MAX) {
        shorten_row(t, at, row, offset)?;
        put_row(t, at, &rest)?;
    }
    Ok(())
}

/// A run of pieces without a gap between.
struct Run<'a> {
    pieces: &'a [Piece],
    start: u64,
    end: u64,
}

fn runs(pieces: &[Piece]) -> impl Iterator<Item = Run<'_>> {
    pieces.chunk_by(|a, b| a.end() == b.offset).map(|pieces| Run {
        pieces,
        start: pieces[0].offset,
        end: pieces[pieces.len() - 1].end(),
    })
}

/// Puts checked pieces in, in place of what is there. Refuses with `Delay` if too many cuts wait for Sweep, having
/// changed nothing.
pub(crate) fn replace<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, pieces: &[Piece]) -> Step<()> {
    let by_cut = plan_cuts(t, at, runs(pieces).map(|run| (run.start, run.end)))?;
    let held = hold_blocks(t, pieces)?;
    for (run, by_cut) in runs(pieces).zip(by_cut) {
        clear(t, at, run.start, run.end, by_cut)?;
        fill(t, at, &run, true)?;
    }
    let_go(t, held)?;
    update_repack_hint(t, at)
}

/// Puts checked pieces in, in place of everything in a range that they lie in: what they leave out becomes a hole. Refuses
/// with `Delay` as [`replace`] does.
pub(crate) fn replace_range<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    start: u64,
    end: u64,
    pieces: &[Piece],
) -> Step<()> {
    let by_cut = plan_cuts(t, at, std::iter::once((start, end)))?;
    let held = hold_blocks(t, pieces)?;
    clear(t, at, start, end, by_cut[0])?;
    for run in runs(pieces) {
        fill(t, at, &run, true)?;
    }
    let_go(t, held)?;
    update_repack_hint(t, at)
}

/// Which ranges need a cut, because their rows are too many.
fn plan_cuts<K: KvWrite>(
    t: &Transaction<'_, K>,
    at: At,
    ranges: impl Iterator<Item = (u64, u64)>,
) -> Step<Vec<bool>> {
    if t.file(at).extents <= WRITE_ROWS_MAX as u64 {
        return Ok(ranges.map(|_| false).collect());
    }
    let mut left = WRITE_ROWS_MAX;
    let mut by_cut = Vec::new();
    for (start, end) in ranges {
        let rows = rows_within(t, at, start, end, left)?;
        left -= rows.as_ref().map_or(0, Vec::len);
        by_cut.push(rows.is_none());
    }
    let cuts = by_cut.iter().filter(|by_cut| **by_cut).count();
    require(cuts == 0 || has_room_for_cuts(t, at, cuts), FsError::Delay)?;
    Ok(by_cut)
}

/// A reference on each block of the pieces that rows refer to already, while rows change: so that a block that is taken out
/// and put in by the same command does not become garbage in between.
fn hold_blocks<K: KvWrite>(t: &mut Transaction<'_, K>, pieces: &[Piece]) -> Step<Vec<BlockId>> {
    let mut held = Vec::new();
    for id in pieces.iter().filter_map(block_of) {
        if store::has(t.kv, Table::Block, &keys::block(id))? {
            reference(t, id)?;
            held.push(id);
        }
    }
    Ok(held)
}

fn let_go<K: KvWrite>(t: &mut Transaction<'_, K>, held: Vec<BlockId>) -> Step<()> {
    held.into_iter().try_for_each(|id| unreference(t, id))
}

fn block_of(piece: &Piece) -> Option<BlockId> {
    match piece.source {
        Source::Inline(_) => None,
        Source::Block { id, .. } => Some(id),
    }
}

/// Puts the pieces of a run into a range that is clear.
fn fill<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, run: &Run<'_>, merge: bool) -> Step<()> {
    let birth = t.txn;
    let is_inline = |piece: &Piece| block_of(piece).is_none();
    for group in run.pieces.chunk_by(|a, b| is_inline(a) && is_inline(b)) {
        if let Source::Block { .. } = group[0].source {
            put_row(t, at, &Extent { piece: group[0].clone(), birth })?;
            continue;
        }
        let start = group[0].offset;
        let end = group[group.len() - 1].end();
        let mut bytes = BytesMut::new();
        let mut from = start;
        if merge && let Some(head) = take_before(t, at, start)? {
            from -= head.len() as u64;
            bytes.extend_from_slice(&head);
        }
        for piece in group {
            if let Source::Inline(part) = &piece.source {
                bytes.extend_from_slice(part);
            }
        }
        if merge && let Some(tail) = take_after(t, at, end)? {
            bytes.extend_from_slice(&tail);
        }
        put_inline(t, at, from, bytes.freeze())?;
    }
    Ok(())
}

/// Takes the bytes out of the page of `start` that an inline row has directly before it.
fn take_before<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, start: u64) -> Step<Option<Bytes>> {
    let page = start - start % PAGE;
    if page == start {
        return Ok(None);
    }
    let ino = t[at].attr.ino;
    let row = extent::ending_at(t.kv, ino, t.file(at), start)?.filter(|row| row.block.is_none());
    let Some(row) = row.map(|row| load(t, at, row)).transpose()? else { return Ok(None) };
    let Some(Extent { piece: Piece { source: Source::Inline(bytes), .. }, .. }) =
        extent::clip(&row, page, start)
    else {
        return Ok(None);
    };
    if row.piece.offset < page {
        shorten_row(t, at, &row, page)?;
    } else {
        drop_row(t, at, Head::of(&row))?;
    }
    Ok(Some(bytes))
}

/// Takes the bytes out of the page of `end` that an inline row has directly behind it.
fn take_after<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, end: u64) -> Step<Option<Bytes>> {
    if end.is_multiple_of(PAGE) {
        return Ok(None);
    }
    let page_end = end.next_multiple_of(PAGE);
    let ino = t[at].attr.ino;
    let row = extent::at(t.kv, ino, end)?;
    let Some(row) = row.filter(|row| row.block.is_none() && t.file(at).is_live(end, row.birth)) else {
        return Ok(None);
    };
    let row = load(t, at, row)?;
    let Some(Extent { piece: Piece { source: Source::Inline(bytes), .. }, .. }) =
        extent::clip(&row, end, page_end)
    else {
        return Ok(None);
    };
    drop_row(t, at, Head::of(&row))?;
    if let Some(rest) = extent::clip(&row, page_end, u64::MAX) {
        put_row(t, at, &rest)?;
    }
    Ok(Some(bytes))
}

/// Puts inline bytes in, in rows of bounded length that end at page boundaries.
fn put_inline<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, mut offset: u64, mut bytes: Bytes) -> Step<()> {
    let birth = t.txn;
    while !bytes.is_empty() {
        let most = u64::from(INLINE_EXTENT_MAX) - offset % PAGE;
        let len = most.min(bytes.len() as u64);
        let part = bytes.split_to(len as usize);
        let piece = Piece { offset, len: len as u32, source: Source::Inline(part) };
        put_row(t, at, &Extent { piece, birth })?;
        offset += len;
    }
    Ok(())
}

/// Puts pieces in for the rows of a range that hold the same bytes.
pub(crate) fn repack<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    start: u64,
    end: u64,
    pieces: &[Piece],
) -> Step<()> {
    let held = hold_blocks(t, pieces)?;
    clear(t, at, start, end, false)?;
    for run in runs(pieces) {
        fill(t, at, &run, false)?;
    }
    let_go(t, held)?;
    update_repack_hint(t, at)
}

// ---- releasing

/// Takes out everything from `size` on. Refuses with `Delay` if too many cuts wait for Sweep, having changed
/// nothing.
pub(crate) fn truncate<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, size: u64) -> Step<()> {
    let ino = t[at].attr.ino;
    let rows = rows_within(t, at, size, u64::MAX, RELEASE_ROWS_MAX)?;
    if rows.is_none() {
        let stay = t.file(at).cuts.iter().filter(|cut| cut.start < size).count();
        require(stay < CUTS_MAX, FsError::Delay)?;
    }
    if let Some(last) = extent::across(t.kv, ino, t.file(at), size)? {
        let last = load(t, at, last)?;
        shorten_row(t, at, &last, size)?;
    }
    match rows {
        None => add_cut(t, at, size, u64::MAX)?,
        Some(rows) => {
            for row in rows {
                drop_row(t, at, row)?;
            }
            if !t.file(at).cuts.is_empty() {
                t.file_mut(at).cuts.retain(|cut| cut.start < size);
                if t.file(at).cuts.is_empty() {
                    t.kv.delete(Table::Orphan, &keys::ino(ino))?;
                }
            }
        }
    }
    update_repack_hint(t, at)
}

/// Releases the data of a file that is being removed, or leaves it to Sweep if there are more than `max` extents.
pub(crate) fn release_all<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, max: usize) -> Step<()> {
    let (ino, volume) = (t[at].attr.ino, t[at].attr.volume);
    if t.file(at).repack {
        t.kv.delete(Table::Repack, &keys::ino(ino))?;
    }
    let key = keys::ino(ino);
    if t.file(at).extents > max as u64 {
        return Ok(store::put(t.kv, Table::Orphan, &key, &Orphan::Removed { volume })?);
    }
    if !t.file(at).cuts.is_empty() {
        t.kv.delete(Table::Orphan, &key)?;
    }
    let rows = rows_within(t, at, 0, u64::MAX, usize::MAX)?.unwrap_or_default();
    let used = t[at].attr.used;
    release_rows(t, ino, volume, &rows)?;
    assert_eq!(
        used,
        rows.iter().map(|r| u64::from(r.len)).sum::<u64>(),
        "inode {ino} does not count its extents"
    );
    Ok(())
}

/// Takes rows out that belong to no inode any more.
pub(crate) fn release_rows<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    volume: VolumeId,
    rows: &[Head],
) -> Step<()> {
    for row in rows {
        extent::delete(t.kv, ino, row)?;
        count_bytes(t, volume, 0, row.len.into());
        if let Some(id) = row.block {
            unreference(t, id)?;
        }
    }
    Ok(())
}

/// Takes dead rows out of a file, for Sweep.
pub(crate) fn drop_dead<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, rows: &[Head]) -> Step<()> {
    rows.iter().try_for_each(|row| drop_row(t, at, *row))?;
    update_repack_hint(t, at)
}

// ---- repacking

/// Lists the file for the repacker, or takes it from the list.
fn update_repack_hint<K: KvWrite>(t: &mut Transaction<'_, K>, at: At) -> Step<()> {
    let (used, file) = (t[at].attr.used, t.file(at));
    let is_worth =
        file.inline_bytes > REPACK_INLINE || file.extents > REPACK_EXTENTS + used / REPACK_BYTES_PER_EXTENT;
    if is_worth == file.repack {
        return Ok(());
    }
    t.file_mut(at).repack = is_worth;
    let key = keys::ino(t[at].attr.ino);
    if is_worth {
        t.kv.put(Table::Repack, &key, &[])?;
    } else {
        t.kv.delete(Table::Repack, &key)?;
    }
    Ok(())
}
