//! Cuts: what is taken out of a file without touching its rows.
//!
//! If more rows would have to go than one command may touch, the inode gets a [`Cut`] instead: rows in its range that were born before
//! are dead from then on, wherever extents are read, and Sweep removes them in bounded steps. A new row may take the key of a dead
//! one, which is released then. An inode with cuts is listed in `Orphan`.

use super::rows::rows_within;
use crate::kv::{KvWrite, Table};
use crate::limits::{CUTS_MAX, WRITE_ROWS_MAX};
use crate::record::{Cut, Orphan};
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, store};
use atoll_meta::FsError;

/// Which ranges need a cut, because their rows are too many.
pub(super) fn plan_cuts<K: KvWrite>(
    t: &Transaction<'_, K>,
    at: At,
    ranges: impl Iterator<Item = (u64, u64)>,
) -> Step<Vec<bool>> {
    let ranges: Vec<_> = ranges.collect();
    // Each row begins at an offset of its own: there are not more of them than bytes.
    let bytes = ranges.iter().map(|(start, end)| end.saturating_sub(*start)).fold(0, u64::saturating_add);
    if t.file(at).extents.min(bytes) <= WRITE_ROWS_MAX as u64 {
        return Ok(vec![false; ranges.len()]);
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

/// Whether the inode has room for so many more cuts.
fn has_room_for_cuts<K: KvWrite>(t: &Transaction<'_, K>, at: At, more: usize) -> bool {
    t.file(at).cuts.len() + more <= CUTS_MAX
}

pub(super) fn add_cut<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, start: u64, end: u64) -> Step<()> {
    let cut = Cut { start, end, before: t.txn };
    let file = t.file_mut(at);
    // Of rows in a part of the new cut's range, it kills all that an older one does.
    file.cuts.retain(|old| old.start < start || old.end > end);
    file.cuts.push(cut);
    let ino = t[at].attr.ino;
    Ok(store::put(t.kv, Table::Orphan, &keys::ino(ino), &Orphan::Tail)?)
}

/// Forgets the cuts that begin at `size` or behind: their rows are gone.
pub(super) fn forget_cuts<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, size: u64) -> Step<()> {
    if !t.file(at).cuts.is_empty() {
        t.file_mut(at).cuts.retain(|cut| cut.start < size);
        if t.file(at).cuts.is_empty() {
            t.kv.delete(Table::Orphan, &keys::ino(t[at].attr.ino))?;
        }
    }
    Ok(())
}
