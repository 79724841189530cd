//! Single rows of extents, and what counts them: the inode, its file, its volume, and the block that a row refers to.
//!
//! Every row comes and goes here, so that the counters and references follow from the rows.

use super::references::{reference, unreference};
use crate::extent::{self, Head};
use crate::kv::KvWrite;
use crate::transaction::{At, Step, Transaction};
use atoll_base::id::{Ino, VolumeId};
use atoll_meta::{Extent, Source};
use std::ops::ControlFlow;

fn put_extent<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, extent: &Extent) -> Step<()> {
    let lost = is_lost(t, ino, extent);
    Ok(extent::put(t.kv, ino, extent, lost)?)
}

fn is_lost<K: KvWrite>(t: &Transaction<'_, K>, ino: Ino, extent: &Extent) -> bool {
    t.lost.overlaps(ino, &(extent.piece.offset..extent.piece.end()))
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
pub(super) fn put_row<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, extent: &Extent) -> Step<()> {
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
pub(super) fn drop_row<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: Head) -> Step<()> {
    let ino = t[at].attr.ino;
    extent::delete(t.kv, ino, &row)?;
    count_row(t, at, row, false);
    row.block.map_or(Ok(()), |id| unreference(t, id))
}

/// Puts a row in the place of a live one with the same bounds.
pub(super) fn overwrite_row<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    former: Head,
    extent: &Extent,
) -> Step<()> {
    let (ino, row) = (t[at].attr.ino, Head::of(extent));
    debug_assert_eq!((row.offset, row.len), (former.offset, former.len));
    if let Some(id) = row.block {
        reference(t, id)?;
    }
    // As many bytes in as many rows: nothing is counted anew unless they are of the other kind.
    if row.block.is_some() != former.block.is_some() {
        count_row(t, at, former, false);
        count_row(t, at, row, true);
    }
    let lost = is_lost(t, ino, extent);
    extent::overwrite(t.kv, ino, &former, extent, lost)?;
    former.block.map_or(Ok(()), |id| unreference(t, id))
}

/// Makes a row end earlier.
pub(super) fn shorten_row<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    row: &Extent,
    end: u64,
) -> Step<()> {
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
pub(super) fn rows_within<K: KvWrite>(
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

pub(super) fn split_at<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    row: &Extent,
    offset: u64,
) -> Step<()> {
    if let Some(rest) = extent::clip(row, offset, u64::MAX) {
        shorten_row(t, at, row, offset)?;
        put_row(t, at, &rest)?;
    }
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
