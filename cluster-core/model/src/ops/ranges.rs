//! Ranges of files as a whole: holes, room, clones (RFC 7862 §15.1, §15.4, §15.13).
//!
//! # Clones
//!
//! The extents of the source's range are put into the target's as a write would put them there, blocks with one reference more,
//! inline bytes copied. They are read before anything changes, so source and target may be one file. No block can be on its way
//! to the collector: a live extent refers to it, and it is held while rows change (see [`extents`]).
//!
//! One command looks at no more than [`crate::limits::CLONE_ROWS_MAX`] rows of the source and copies no more than [`crate::limits::CLONE_INLINE_MAX`] inline bytes; it
//! clears the target as a write does, by a cut if need be.

use super::data;
use super::nfs4::delegations;
use crate::kv::KvWrite;
use crate::limits::CLONE_ROWS_MAX;
use crate::transaction::{Step, Transaction, require};
use crate::{extent, extents};
use atoll_base::id::Ino;
use atoll_base::limits::FILE_SIZE_MAX;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{Extent, FsError, Outcome, Piece};

/// Punch.
pub(crate) fn punch<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    generation: u32,
    offset: u64,
    len: u64,
) -> Step<Outcome> {
    let at = t.load_generation(ino, generation)?;
    t.require_regular(at)?;
    data::check_write_permission(t, at)?;
    let end = offset.saturating_add(len).min(t[at].attr.size);
    if offset < end {
        delegations::check(t, at, Intrusion::Change)?;
        extents::replace_range(t, at, offset, end, &[])?;
        data::data_written(t, at)?;
    }
    Ok(Outcome::Done)
}

/// Extend.
pub(crate) fn extend<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    generation: u32,
    size: u64,
) -> Step<Outcome> {
    let at = t.load_generation(ino, generation)?;
    t.require_regular(at)?;
    data::check_write_permission(t, at)?;
    if size > t[at].attr.size {
        delegations::check(t, at, Intrusion::Change)?;
        data::set_size(t, at, size)?;
        data::data_written(t, at)?;
    }
    Ok(Outcome::Done)
}

/// An end of a clone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) ino: Ino,
    pub(crate) generation: u32,
    pub(crate) offset: u64,
}

/// Clone.
pub(crate) fn clone<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    from: Place,
    to: Place,
    len: u64,
    partial: bool,
) -> Step<Outcome> {
    let (_, count) = share(t, from, to, len, CLONE_ROWS_MAX, partial)?;
    Ok(Outcome::Cloned { count, verifier: t.model.verifier() })
}

/// Puts a range, or as much of its beginning as `rows` of the source hold, into its new place. Returns the length of the range, which the source decides if it
/// was given as 0, and how much of it that was.
pub(crate) fn share<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    from: Place,
    to: Place,
    len: u64,
    rows: usize,
    partial: bool,
) -> Step<(u64, u64)> {
    let target = t.load_generation(to.ino, to.generation)?;
    let source = t.find(from.ino)?.ok_or(FsError::Stale)?;
    require(t[source].attr.generation == from.generation, FsError::Stale)?;
    for at in [source, target] {
        t.require_regular(at)?;
    }
    require(t[source].attr.volume == t[target].attr.volume, FsError::CrossVolume)?;
    data::check_write_permission(t, target)?;
    let size = t[source].attr.size;
    let len = match len {
        0 => size.checked_sub(from.offset).ok_or(FsError::Invalid)?,
        len => len,
    };
    let end = from.offset.checked_add(len).filter(|end| *end <= size).ok_or(FsError::Invalid)?;
    let to_end = to.offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX).ok_or(FsError::TooLarge)?;
    let overlap = from.ino == to.ino && from.offset < to_end && to.offset < end;
    require(!overlap, FsError::Invalid)?;
    delegations::check(t, source, Intrusion::Read)?;
    delegations::check(t, target, Intrusion::Change)?;

    let most = rows.min(CLONE_ROWS_MAX);
    let (rows, complete_to) = extent::live_within(t.kv, from.ino, t.file(source), from.offset..end, most)?;
    // With dead rows only there is nothing to report: Sweep is to come first.
    require(complete_to > from.offset || len == 0, FsError::Delay)?;
    require(partial || complete_to == end, FsError::NotSupported)?;
    let count = complete_to - from.offset;
    if count == 0 {
        return Ok((len, count));
    }
    let moved = |offset: u64| offset - from.offset + to.offset;
    let mut pieces: Vec<Piece> = Vec::with_capacity(rows.len());
    for row in rows {
        let row = extents::load(t, source, row)?;
        let part = extent::clip(&row, from.offset, end);
        pieces.extend(part.map(|Extent { piece, .. }| Piece { offset: moved(piece.offset), ..piece }));
    }
    t.lost.bring(from.ino, from.offset..end, to.ino, to.offset);
    extents::replace_range(t, target, to.offset, moved(complete_to), &pieces)?;
    data::data_written(t, target)?;
    let size = t[target].attr.size.max(moved(complete_to));
    t[target].attr.size = size;
    Ok((len, count))
}
