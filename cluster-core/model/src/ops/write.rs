//! Data into files: stable writes, flushes of what a frontend acknowledged under its write lease, repacking.
//!
//! # What a flush does to times and size
//!
//! The holder says what it has shown; `change` tells whether that is newer than what is stored:
//!
//! - newer: change, mtime and size become what was shown (mtime in either direction: the holder may show an earlier one
//!   after somebody set it into the future), ctime unless it would go back, size unless it would shrink;
//! - the same: another part of the same state. Only data and size move;
//! - older: another's change came between and moved past the ceiling. The data are acknowledged, so they go in, as a
//!   change of its own; but the size the holder knew may be from before a truncation, so the file grows only as far as the
//!   pieces reach.
//!
//! A flush without a lease is refused with `Conflict`. Only its holder ends a lease, so to the holder this says: an
//! earlier copy of this flush has been applied. A flush that may have to be repeated without `release` needs a key of
//! exactly-once: put in again it would undo a later one.
//!
//! # Repacking
//!
//! Births and offsets do not show that an extent has been cut short since (a truncation leaves both). So the pieces must also cover
//! exactly the bytes that the extents of the range cover: an extent reaches as far as the next one begins or the
//! coverage ends, so with both the same the bytes are.

use super::attributes::is_time;
use super::nfs4::delegations;
use super::{data, lease};
use crate::kv::KvWrite;
use crate::limits::{COVERED_MAX, INLINE_EXTENT_MAX, PIECES_MAX};
use crate::transaction::{At, Step, Transaction, require};
use crate::{extent, extents, once, store};
use atoll_base::id::Ino;
use atoll_base::limits::{BLOCK_MAX, FILE_SIZE_MAX, INLINE_WRITE_MAX};
use atoll_meta::delegation::Intrusion;
use atoll_meta::{Flush, FsError, Outcome, Piece, Source};
use std::ops::{ControlFlow, Range};

/// Checks what a caller says about its pieces.
fn check_pieces(pieces: &[Piece]) -> Result<(), FsError> {
    require(pieces.len() <= PIECES_MAX, FsError::Invalid)?;
    let mut from = 0;
    let mut inline = 0;
    for piece in pieces {
        require(piece.len > 0 && piece.offset >= from, FsError::Invalid)?;
        from = piece.offset.checked_add(piece.len.into()).ok_or(FsError::TooLarge)?;
        require(from <= FILE_SIZE_MAX, FsError::TooLarge)?;
        match &piece.source {
            Source::Inline(bytes) => {
                require(bytes.len() == piece.len as usize, FsError::Invalid)?;
                inline += bytes.len();
            }
            Source::Block { offset, .. } => {
                let end = offset.checked_add(piece.len).ok_or(FsError::Invalid)?;
                require(end <= BLOCK_MAX, FsError::Invalid)?;
            }
        }
    }
    require(inline <= INLINE_WRITE_MAX, FsError::Invalid)
}

/// Write.
pub(crate) fn write<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    generation: u32,
    pieces: &[Piece],
    flush: Option<&Flush>,
) -> Step<Outcome> {
    let at = t.load_generation(ino, generation)?;
    t.require_regular(at)?;
    match flush {
        None => write_stable(t, at, pieces)?,
        Some(flush) => write_flush(t, at, pieces, flush)?,
    }
    Ok(Outcome::Written { verifier: t.model.verifier() })
}

fn write_stable<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, pieces: &[Piece]) -> Step<()> {
    data::check_write_at(t, at, pieces.first().map_or(u64::MAX, |piece| piece.offset))?;
    check_pieces(pieces)?;
    let Some(last) = pieces.last() else { return Ok(()) };
    delegations::check(t, at, Intrusion::Change)?;
    extents::check_new_blocks(t, pieces)?;
    extents::replace(t, at, pieces)?;

    data::data_written(t, at)?;
    let size = t[at].attr.size.max(last.end());
    t[at].attr.size = size;
    Ok(())
}

fn write_flush<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, pieces: &[Piece], flush: &Flush) -> Step<()> {
    let ino = t[at].attr.ino;
    let origin = t.origin.ok_or(FsError::Invalid)?;
    require(t.file(at).lease == Some(origin.frontend), FsError::Conflict)?;
    let lease = store::lease(t.kv, origin.frontend, ino)?;
    require(flush.change <= lease.change_ceiling && flush.ctime <= lease.ctime_ceiling, FsError::Invalid)?;
    require(is_time(flush.ctime) && is_time(flush.mtime), FsError::Invalid)?;
    require(flush.size <= FILE_SIZE_MAX, FsError::TooLarge)?;
    require(flush.covered.len() <= COVERED_MAX, FsError::Invalid)?;
    check_pieces(pieces)?;
    extents::check_new_blocks(t, pieces)?;
    extents::replace(t, at, pieces)?;

    let now = t.now;
    let end = pieces.last().map_or(0, Piece::end);
    let attr = &mut t[at].attr;
    let is_older = flush.change < attr.change;
    let shown = if is_older { 0 } else { flush.size };
    let size = attr.size.max(end).max(shown);
    if flush.change > attr.change {
        attr.change = flush.change;
        attr.ctime = attr.ctime.max(flush.ctime);
        attr.mtime = flush.mtime;
    } else if is_older && (!pieces.is_empty() || size != attr.size) {
        attr.change += 1;
        attr.ctime = now.max(attr.ctime.next());
        attr.mtime = attr.mtime.max(flush.mtime);
    }
    attr.size = size;
    t.touch(ino);
    if flush.release {
        lease::end(t, at)?;
    }
    for (key, response) in &flush.covered {
        once::store(t.kv, t.model, key, response)?;
    }
    Ok(())
}

/// Adds a range to a list of ranges in order, joining what touches.
fn cover(covered: &mut Vec<Range<u64>>, start: u64, end: u64) {
    match covered.last_mut() {
        Some(last) if last.end == start => last.end = end,
        _ => covered.push(start..end),
    }
}

/// Repack.
pub(crate) fn repack<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    range: (u64, u64),
    expect: &[(u64, u64)],
    pieces: &[Piece],
) -> Step<Outcome> {
    let at = t.find(ino)?.ok_or(FsError::Stale)?;
    t.report(at);
    t.require_regular(at)?;
    let (start, len) = range;
    require(len > 0, FsError::Invalid)?;
    let end = start.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX).ok_or(FsError::TooLarge)?;
    check_pieces(pieces)?;
    require(expect.len() <= PIECES_MAX, FsError::Invalid)?;
    let (first, last) = (pieces.first().map_or(start, |p| p.offset), pieces.last().map_or(end, Piece::end));
    require(first >= start && last <= end, FsError::Invalid)?;

    let (mut found, mut holds, mut dead) = (Vec::new(), Vec::new(), 0);
    if let Some(left) = extent::across(t.kv, ino, t.file(at), start)? {
        found.push((left.birth, start));
        cover(&mut holds, start, left.end().min(end));
    }
    extent::each(t.kv, ino, start, end, |head| {
        if t.file(at).is_live(head.offset, head.birth) {
            found.push((head.birth, head.offset));
            cover(&mut holds, head.offset, head.end().min(end));
        } else {
            dead += 1;
        }
        let more = found.len() <= expect.len() && dead <= PIECES_MAX;
        Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    let mut puts = Vec::new();
    for piece in pieces {
        cover(&mut puts, piece.offset, piece.end());
    }
    // Too many dead rows would make the replacement unbounded: come back when Sweep is through.
    require(dead <= PIECES_MAX, FsError::Delay)?;
    require(found == expect && holds == puts, FsError::Conflict)?;
    extents::check_new_blocks(t, pieces)?;
    extents::repack(t, at, start, end, pieces)?;
    t.touch(ino);
    Ok(Outcome::Done)
}

// One command's inline bytes fit into one stored extent and a page on either side.
const _: () = assert!(cfg!(test) || INLINE_EXTENT_MAX as usize >= INLINE_WRITE_MAX);
