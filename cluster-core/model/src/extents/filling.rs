//! New pieces in a range that is clear.
//!
//! Inline bytes that touch within one page are merged into one row, so that a log written in small stable pieces makes a row per page.

use super::damage::load;
use super::references::block_of;
use super::rows::{drop_row, put_row, shorten_row};
use crate::extent::{self, Head};
use crate::kv::KvWrite;
use crate::limits::{INLINE_EXTENT_MAX, PAGE};
use crate::transaction::{At, Step, Transaction};
use atoll_meta::{Extent, Piece, Source};
use bytes::{Bytes, BytesMut};

/// A run of pieces without a gap between.
pub(super) struct Run<'a> {
    pub(super) pieces: &'a [Piece],
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Run<'_> {
    /// The row that [`fill`] would make of it, if that is one, and takes in nothing beside it.
    pub(super) fn alone(&self, birth: u64) -> Option<Extent> {
        let [piece] = self.pieces else { return None };
        let source = match &piece.source {
            Source::Inline(bytes) => {
                let is_alone = self.start.is_multiple_of(PAGE) && self.end.is_multiple_of(PAGE);
                if !is_alone || piece.len > INLINE_EXTENT_MAX {
                    return None;
                }
                // Kept for long, and it may lie in the memory of many commands.
                Source::Inline(Bytes::copy_from_slice(bytes))
            }
            Source::Block { .. } => piece.source.clone(),
        };
        Some(Extent { piece: Piece { source, ..*piece }, birth })
    }
}

pub(super) fn runs(pieces: &[Piece]) -> impl Iterator<Item = Run<'_>> {
    pieces.chunk_by(|a, b| a.end() == b.offset).map(|pieces| Run {
        pieces,
        start: pieces[0].offset,
        end: pieces[pieces.len() - 1].end(),
    })
}

/// Puts the pieces of a run into a range that is clear.
pub(super) fn fill<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, run: &Run<'_>, merge: bool) -> Step<()> {
    let birth = t.txn;
    let is_inline = |piece: &Piece| block_of(piece).is_none();
    for group in run.pieces.chunk_by(|a, b| is_inline(a) && is_inline(b)) {
        if let Source::Block { .. } = group[0].source {
            put_row(t, at, &Extent { piece: group[0].clone(), birth })?;
            continue;
        }
        let start = group[0].offset;
        let end = group[group.len() - 1].end();
        let head = if merge { take_before(t, at, start)? } else { None }.unwrap_or_default();
        let tail = if merge { take_after(t, at, end)? } else { None }.unwrap_or_default();
        let from = start - head.len() as u64;
        let mut bytes = BytesMut::with_capacity(head.len() + (end - start) as usize + tail.len());
        bytes.extend_from_slice(&head);
        for piece in group {
            if let Source::Inline(part) = &piece.source {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(&tail);
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
