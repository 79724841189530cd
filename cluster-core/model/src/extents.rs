//! Changes of a file's extents: pieces put in, ranges cleared, files cut off and released.
//!
//! A range gets new extents by taking out what is there (an extent that reaches over an end is cut, and what is left keeps its
//! birth) and putting the new ones in. Each change leaves the counters of inode, file and volume and the references of blocks as the
//! rows are, and the file in or out of the repacker's list.
//!
//! - [`rows`]: single rows, and what counts them;
//! - [`references`]: how often a block is referred to;
//! - [`filling`]: new pieces, merged within their page;
//! - [`cuts`]: what is taken out where the rows are too many for one command;
//! - [`damage`]: bytes that this member cannot read.

mod cuts;
mod damage;
mod filling;
mod references;
mod rows;

pub(crate) use damage::{Lost, load};
pub(crate) use references::check_new_blocks;
pub(crate) use rows::release_rows;

use crate::extent::{self, Head};
use crate::kv::{KvWrite, Table};
use crate::limits::{CUTS_MAX, RELEASE_ROWS_MAX, REPACK_BYTES_PER_EXTENT, REPACK_EXTENTS, REPACK_INLINE};
use crate::record::Orphan;
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, store};
use atoll_meta::{FsError, Piece};
use cuts::{add_cut, forget_cuts, plan_cuts};
use filling::{fill, runs};
use references::{hold_blocks, let_go};
use rows::{drop_row, overwrite_row, put_row, rows_within, shorten_row, split_at};
use std::ops::{ControlFlow, Range};

// ---- replacing

/// Puts checked pieces in, in place of what is there. Refuses with `Delay` if too many cuts wait for Sweep, having
/// changed nothing.
pub(crate) fn replace<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, pieces: &[Piece]) -> Step<()> {
    let by_cut = plan_cuts(t, at, runs(pieces).map(|run| (run.start, run.end)))?;
    let held = hold_blocks(t, pieces)?;
    for (run, by_cut) in runs(pieces).zip(by_cut) {
        let only = only_row(t, at, run.start..run.end)?;
        if let Some(former) = only.filter(|only| only.end() == run.end)
            && let Some(row) = run.alone(t.txn)
        {
            // The same bytes again, written anew: most writes into a file that is full of small ones.
            t.lost.clear(t[at].attr.ino, run.start, run.end);
            overwrite_row(t, at, former, &row)?;
            continue;
        }
        clear_knowing(t, at, run.start..run.end, only, by_cut)?;
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
    clear(t, at, start..end, by_cut[0])?;
    for run in runs(pieces) {
        fill(t, at, &run, true)?;
    }
    let_go(t, held)?;
    update_repack_hint(t, at)
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
    clear(t, at, start..end, false)?;
    for run in runs(pieces) {
        fill(t, at, &run, false)?;
    }
    let_go(t, held)?;
    update_repack_hint(t, at)
}

/// The only row of a range, if it begins with it and goes to its end or beyond, and one look tells. No other reaches in then.
fn only_row<K: KvWrite>(t: &Transaction<'_, K>, at: At, range: Range<u64>) -> Step<Option<Head>> {
    // No live row is behind the size, and beside a dead one others may be.
    if range.is_empty() || range.start >= t[at].attr.size || !t.file(at).cuts.is_empty() {
        return Ok(None);
    }
    Ok(extent::at(t.kv, t[at].attr.ino, range.start)?.filter(|row| row.end() >= range.end))
}

/// Takes out every live byte of a range: by rows, or if `by_cut` by a new cut.
fn clear<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, range: Range<u64>, by_cut: bool) -> Step<()> {
    let only = only_row(t, at, range.clone())?;
    clear_knowing(t, at, range, only, by_cut)
}

/// As [`clear`], for who knows the range's [`only_row`].
fn clear_knowing<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    Range { start, end }: Range<u64>,
    only: Option<Head>,
    by_cut: bool,
) -> Step<()> {
    match only {
        Some(row) if row.end() == end || !by_cut => {
            put_rest(t, at, row, end)?;
            drop_row(t, at, row)?;
        }
        _ => clear_rows(t, at, start, end, by_cut)?,
    }
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
    if let Some(left) = extent::across(t.kv, ino, t.file(at), start)? {
        let left = load(t, at, left)?;
        let behind = extent::clip(&left, end, u64::MAX);
        shorten_row(t, at, &left, start)?;
        if let Some(rest) = behind {
            // It covered the whole range.
            return put_row(t, at, &rest);
        }
    }
    if by_cut { cut_out(t, at, start, end) } else { drop_rows(t, at, start, end) }
}

/// Takes out what begins in `start..end` by a new cut; what reaches over the end lives on behind it.
fn cut_out<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, start: u64, end: u64) -> Step<()> {
    if let Some(right) = extent::across(t.kv, t[at].attr.ino, t.file(at), end)? {
        let right = load(t, at, right)?;
        split_at(t, at, &right, end)?;
    }
    add_cut(t, at, start, end)
}

/// Takes out the rows that begin in `start..end`; what reaches over the end gets a row behind it.
fn drop_rows<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, start: u64, end: u64) -> Step<()> {
    let mut rows = Vec::new();
    let mut last_live = None;
    extent::each(t.kv, t[at].attr.ino, start, end, |head| {
        rows.push(head);
        if head.end() > end && t.file(at).is_live(head.offset, head.birth) {
            last_live = Some(head);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(last) = last_live {
        put_rest(t, at, last, end)?;
    }
    rows.into_iter().try_for_each(|row| drop_row(t, at, row))
}

/// What of a row lies behind `end` gets a row of its own.
fn put_rest<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: Head, end: u64) -> Step<()> {
    if row.end() > end
        && let Some(rest) = extent::clip(&load(t, at, row)?, end, u64::MAX)
    {
        put_row(t, at, &rest)?;
    }
    Ok(())
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
            rows.into_iter().try_for_each(|row| drop_row(t, at, row))?;
            forget_cuts(t, at, size)?;
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
