//! Rows of the extent table: how they are encoded, and how to find them.
//!
//! Value: version 1, kind 1 (0 inline, 1 block), birth 8; then of an inline extent its bytes, of a block extent len 4,
//! block 16, offset within it 4.
//!
//! Invariants: no row is empty; live rows of a file do not overlap and end at or before its size; dead rows (see
//! [`crate::record::Cut`]) may lie anywhere, also over live ones, but never share a key with one. An inline row is at
//! most [`crate::limits::INLINE_EXTENT_MAX`] long, a block row at most `BLOCK_MAX`.

use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::record::File;
use crate::store::{RAW, check_raw, each_from};
use atoll_base::block::BlockId;
use atoll_base::id::Ino;
use atoll_base::limits::{BLOCK_MAX, FILE_SIZE_MAX};
use atoll_meta::{Extent, Piece, Source};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

const INLINE: u8 = 0;
const BLOCK: u8 = 1;

/// What a row says without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) birth: u64,
    /// `None` if inline.
    pub(crate) block: Option<BlockId>,
}

impl Head {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    pub(crate) fn of(extent: &Extent) -> Self {
        let block = match &extent.piece.source {
            Source::Inline(_) => None,
            Source::Block { id, .. } => Some(*id),
        };
        Self { offset: extent.piece.offset, len: extent.piece.len, birth: extent.birth, block }
    }
}

/// The value of a row.
pub(crate) fn encode(extent: &Extent) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    match &extent.piece.source {
        Source::Inline(bytes) => {
            debug_assert_eq!(bytes.len(), extent.piece.len as usize);
            value.extend_from_slice(&[RAW, INLINE]);
            value.extend_from_slice(&extent.birth.to_be_bytes());
            value.extend_from_slice(bytes);
        }
        Source::Block { id, offset } => {
            value.extend_from_slice(&[RAW, BLOCK]);
            value.extend_from_slice(&extent.birth.to_be_bytes());
            value.extend_from_slice(&extent.piece.len.to_be_bytes());
            value.extend_from_slice(&id.0.to_be_bytes());
            value.extend_from_slice(&offset.to_be_bytes());
        }
    }
    value
}

/// A row's file and place.
pub(crate) fn parse_key(key: &[u8]) -> Result<(Ino, u64), KvError> {
    let mut parts = Parts::new(Table::Extent, key);
    let place = (parts.ino()?, parts.u64()?);
    parts.end()?;
    Ok(place)
}

fn broken(what: &str) -> KvError {
    KvError(format!("an extent row {what}"))
}

fn parse(offset: u64, value: &[u8]) -> Result<(Head, &[u8], u32), KvError> {
    let mut parts = Parts::new(Table::Extent, value);
    check_raw(Table::Extent, parts.take()?)?;
    let [kind] = parts.take()?;
    let birth = parts.u64()?;
    let (head, bytes, within) = match kind {
        INLINE => {
            let bytes = parts.rest();
            let len = u32::try_from(bytes.len()).map_err(|_| broken("is too long"))?;
            (Head { offset, len, birth, block: None }, bytes, 0)
        }
        BLOCK => {
            let len = parts.u32()?;
            let id = BlockId(u128::from_be_bytes(parts.take()?));
            let within = parts.u32()?;
            parts.end()?;
            if within.checked_add(len).is_none_or(|end| end > BLOCK_MAX) {
                return Err(broken("points behind its block"));
            }
            (Head { offset, len, birth, block: Some(id) }, &[][..], within)
        }
        _ => return Err(broken("is of no known kind")),
    };
    if head.len == 0 || head.offset.checked_add(head.len.into()).is_none_or(|end| end > FILE_SIZE_MAX) {
        return Err(broken("is empty or behind the largest file"));
    }
    Ok((head, bytes, within))
}

pub(crate) fn parse_head(offset: u64, value: &[u8]) -> Result<Head, KvError> {
    parse(offset, value).map(|(head, _, _)| head)
}

pub(crate) fn parse_extent(offset: u64, value: &[u8]) -> Result<Extent, KvError> {
    let (head, bytes, within) = parse(offset, value)?;
    let source = match head.block {
        None => Source::Inline(Bytes::copy_from_slice(bytes)),
        Some(id) => Source::Block { id, offset: within },
    };
    Ok(Extent { piece: Piece { offset, len: head.len, source }, birth: head.birth })
}

/// The part of an extent within `start..end`; `None` if there is none.
pub fn clip(extent: &Extent, start: u64, end: u64) -> Option<Extent> {
    let piece = &extent.piece;
    let from = piece.offset.max(start);
    let to = piece.end().min(end);
    if from >= to {
        return None;
    }
    // Both differences are within the extent's length, a u32.
    let skip = (from - piece.offset) as u32;
    let len = (to - from) as u32;
    let source = match &piece.source {
        Source::Inline(bytes) => Source::Inline(bytes.slice(skip as usize..(skip + len) as usize)),
        Source::Block { id, offset } => Source::Block { id: *id, offset: offset + skip },
    };
    Some(Extent { piece: Piece { offset: from, len, source }, birth: extent.birth })
}

/// The row with this key.
pub(crate) fn at(kv: &impl KvRead, ino: Ino, offset: u64) -> Result<Option<Extent>, KvError> {
    kv.get(Table::Extent, &keys::with_u64(ino, offset), |v| v.map(|v| parse_extent(offset, v)).transpose())?
}

/// The live row that begins before `offset` and reaches beyond it.
pub(crate) fn across(
    kv: &impl KvRead,
    ino: Ino,
    file: &File,
    offset: u64,
) -> Result<Option<Extent>, KvError> {
    before(kv, ino, file, offset, |head| head.end() > offset)
}

/// The live row that ends exactly at `offset`.
pub(crate) fn ending_at(
    kv: &impl KvRead,
    ino: Ino,
    file: &File,
    offset: u64,
) -> Result<Option<Extent>, KvError> {
    before(kv, ino, file, offset, |head| head.end() == offset)
}

/// The last live row that begins before `offset`, if `fits`.
fn before(
    kv: &impl KvRead,
    ino: Ino,
    file: &File,
    offset: u64,
    fits: impl Fn(&Head) -> bool,
) -> Result<Option<Extent>, KvError> {
    // Nothing longer than a block: what begins earlier cannot reach here. Live rows do not overlap, so the last one
    // decides; before it may lie dead ones.
    let from = keys::with_u64(ino, offset.saturating_sub(BLOCK_MAX.into()));
    let to = keys::with_u64(ino, offset);
    let mut found = None;
    let mut failed = None;
    kv.scan_back(Table::Extent, Bound::Included(&from), Bound::Excluded(&to), |key, value| {
        let step = || -> Result<Option<Option<Extent>>, KvError> {
            let (_, at) = parse_key(key)?;
            let head = parse_head(at, value)?;
            if !file.is_live(head.offset, head.birth) {
                return Ok(None);
            }
            Ok(Some(if fits(&head) { Some(parse_extent(at, value)?) } else { None }))
        };
        match step() {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(last)) => {
                found = last;
                ControlFlow::Break(())
            }
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(found), Err)
}

/// Calls `f` with each row, dead or live, that begins in `start..end`, in order, until it breaks. `end` `u64::MAX` is
/// without end.
pub(crate) fn each(
    kv: &impl KvRead,
    ino: Ino,
    start: u64,
    end: u64,
    mut f: impl FnMut(Head, &[u8]) -> Result<ControlFlow<()>, KvError>,
) -> Result<(), KvError> {
    if start >= end {
        return Ok(());
    }
    let from = keys::with_u64(ino, start);
    let to = keys::with_u64(ino, end);
    let to = if end == u64::MAX { Bound::Included(&to[..]) } else { Bound::Excluded(&to[..]) };
    each_from(kv, Table::Extent, Bound::Included(&from), to, |key, value| {
        let (_, offset) = parse_key(key)?;
        f(parse_head(offset, value)?, value)
    })
}
