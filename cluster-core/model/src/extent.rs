//! Rows of the extent table: how they are encoded, and how to find them.
//!
//! Value: version 1, kind 1 (0 inline, 1 block), birth 8, len 4; then of a block extent block 16, offset within it 4, of an inline
//! one its first bytes ([`INLINE_HEAD`]). If it has more, those are a row of their own, in `Inline` under the same key: what is
//! planned looks at many rows and at the bytes of hardly any.
//!
//! Kind 2 is an inline one whose bytes this member has lost: a command needed them when the store could not read them, and took them over into this row.
//! It is where the other members have one with its bytes, and ends with the length.
//!
//! Invariants: no row is empty; live rows of a file do not overlap and end at or before its size; dead rows (see
//! [`crate::record::Cut`]) may lie anywhere, also over live ones, but never share a key with one. An inline row is at
//! most [`crate::limits::INLINE_EXTENT_MAX`] long, a block row at most `BLOCK_MAX`.

use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{CLONE_INLINE_MAX, INLINE_HEAD};
use crate::record::File;
use crate::store::{RAW, check_raw, each_from};
use atoll_base::block::BlockId;
use atoll_base::id::Ino;
use atoll_base::limits::{BLOCK_MAX, FILE_SIZE_MAX};
use atoll_meta::{Extent, Piece, Source};
use bytes::{Bytes, BytesMut};
use std::ops::{Bound, ControlFlow, Range};

const INLINE: u8 = 0;
const BLOCK: u8 = 1;
const LOST: u8 = 2;

/// What a row says without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) birth: u64,
    /// `None` if inline.
    pub(crate) block: Option<BlockId>,
    /// Where in the block it begins; 0 if inline.
    pub(crate) within: u32,
}

impl Head {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    pub(crate) fn of(extent: &Extent) -> Self {
        let (block, within) = match &extent.piece.source {
            Source::Inline(_) => (None, 0),
            Source::Block { id, offset } => (Some(*id), *offset),
        };
        Self { offset: extent.piece.offset, len: extent.piece.len, birth: extent.birth, block, within }
    }
}

/// Puts a row in. There must be none with its key, or its bytes in `Inline` must be replaced, too ([`overwrite`]). `lost`: whether inline bytes of it are not what they were.
pub(crate) fn put(kv: &mut impl KvWrite, ino: Ino, extent: &Extent, lost: bool) -> Result<(), KvError> {
    let head = Head::of(extent);
    let key = keys::with_u64(ino, head.offset);
    let mut value = Vec::with_capacity(14 + INLINE_HEAD);
    let kind = match head.block {
        Some(_) => BLOCK,
        None if lost => LOST,
        None => INLINE,
    };
    value.extend_from_slice(&[RAW, kind]);
    value.extend_from_slice(&head.birth.to_be_bytes());
    value.extend_from_slice(&head.len.to_be_bytes());
    match &extent.piece.source {
        Source::Inline(_) if lost => {}
        Source::Inline(bytes) => {
            debug_assert_eq!(bytes.len(), head.len as usize);
            let first = bytes.len().min(INLINE_HEAD);
            value.extend_from_slice(&bytes[..first]);
            if bytes.len() > first {
                kv.put_shared(Table::Inline, &key, bytes.slice(first..))?;
            }
        }
        Source::Block { id, offset } => {
            value.extend_from_slice(&id.0.to_be_bytes());
            value.extend_from_slice(&offset.to_be_bytes());
        }
    }
    kv.put(Table::Extent, &key, &value)
}

/// Whether a row has bytes in `Inline`, if they are not lost.
fn has_rest(row: &Head) -> bool {
    row.block.is_none() && row.len as usize > INLINE_HEAD
}

/// Puts a row in the place of one with the same key. `lost` as for [`put`].
pub(crate) fn overwrite(
    kv: &mut impl KvWrite,
    ino: Ino,
    former: &Head,
    extent: &Extent,
    lost: bool,
) -> Result<(), KvError> {
    if has_rest(former) && (lost || !has_rest(&Head::of(extent))) {
        kv.delete(Table::Inline, &keys::with_u64(ino, former.offset))?;
    }
    put(kv, ino, extent, lost)
}

/// Takes a row out.
pub(crate) fn delete(kv: &mut impl KvWrite, ino: Ino, row: &Head) -> Result<(), KvError> {
    let key = keys::with_u64(ino, row.offset);
    if has_rest(row) {
        kv.delete(Table::Inline, &key)?;
    }
    kv.delete(Table::Extent, &key)
}

/// A row's file and place.
pub(crate) fn parse_key(key: &[u8]) -> Result<(Ino, u64), KvError> {
    let mut parts = Parts::new(Table::Extent, key);
    let place = (parts.ino()?, parts.u64()?);
    parts.end()?;
    Ok(place)
}

fn broken(what: &str) -> KvError {
    KvError::Failed(format!("an extent row {what}"))
}

pub(crate) fn parse_head(offset: u64, value: &[u8]) -> Result<Head, KvError> {
    parse(offset, value).map(|(head, _)| head)
}

/// A row and its first bytes, if they are inline; `None` if they are lost.
fn parse(offset: u64, value: &[u8]) -> Result<(Head, Option<&[u8]>), KvError> {
    let mut parts = Parts::new(Table::Extent, value);
    check_raw(Table::Extent, parts.take()?)?;
    let [kind] = parts.take()?;
    let mut head = Head { offset, birth: parts.u64()?, len: parts.u32()?, block: None, within: 0 };
    let mut first = Some(&[][..]);
    match kind {
        INLINE => first = Some(parts.bytes(INLINE_HEAD.min(head.len as usize))?),
        LOST => first = None,
        BLOCK => {
            head.block = Some(BlockId(u128::from_be_bytes(parts.take()?)));
            head.within = parts.u32()?;
            if head.within.checked_add(head.len).is_none_or(|end| end > BLOCK_MAX) {
                return Err(broken("points behind its block"));
            }
        }
        _ => return Err(broken("is of no known kind")),
    }
    parts.end()?;
    if head.len == 0 || head.offset.checked_add(head.len.into()).is_none_or(|end| end > FILE_SIZE_MAX) {
        return Err(broken("is empty or behind the largest file"));
    }
    Ok((head, first))
}

/// A row with its bytes, if they are inline.
pub(crate) fn load(kv: &impl KvRead, ino: Ino, row: Head) -> Result<Extent, KvError> {
    let source = match row.block {
        Some(id) => Source::Block { id, offset: row.within },
        None => {
            let key = keys::with_u64(ino, row.offset);
            let mut bytes = BytesMut::with_capacity(row.len as usize);
            let first = readable(kv, ino, row)?.ok_or_else(|| {
                KvError::Damaged(format!(
                    "{} bytes of inode {ino} at {} were damaged and are lost",
                    row.len, row.offset
                ))
            })?;
            bytes.extend_from_slice(&first);
            if row.len as usize > INLINE_HEAD {
                kv.get(Table::Inline, &key, |rest| bytes.extend_from_slice(rest.unwrap_or_default()))
                    .map_err(|error| {
                        error.of(format_args!("{} bytes of inode {ino} at {}", row.len, row.offset))
                    })?;
            }
            if bytes.len() != row.len as usize {
                return Err(broken("does not have as many bytes as it says"));
            }
            Source::Inline(bytes.freeze())
        }
    };
    Ok(Extent { piece: Piece { offset: row.offset, len: row.len, source }, birth: row.birth })
}

/// The bytes of an inline row that are in the row itself; `None` if they are lost with the others.
pub(crate) fn readable(kv: &impl KvRead, ino: Ino, row: Head) -> Result<Option<Bytes>, KvError> {
    kv.get(Table::Extent, &keys::with_u64(ino, row.offset), |value| {
        let value = value.ok_or_else(|| broken("is gone"))?;
        Ok(parse(row.offset, value)?.1.map(Bytes::copy_from_slice))
    })?
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
        Source::Inline(bytes) => {
            let part = bytes.slice(skip as usize..(skip + len) as usize);
            // A small part must not keep all the rest.
            let is_small = part.len() < bytes.len() / 2;
            Source::Inline(if is_small { Bytes::copy_from_slice(&part) } else { part })
        }
        Source::Block { id, offset } => Source::Block { id: *id, offset: offset + skip },
    };
    Some(Extent { piece: Piece { offset: from, len, source }, birth: extent.birth })
}

/// The row with this key.
pub(crate) fn at(kv: &impl KvRead, ino: Ino, offset: u64) -> Result<Option<Head>, KvError> {
    kv.get(Table::Extent, &keys::with_u64(ino, offset), |v| v.map(|v| parse_head(offset, v)).transpose())?
}

/// The live row that begins before `offset` and reaches beyond it.
pub(crate) fn across(kv: &impl KvRead, ino: Ino, file: &File, offset: u64) -> Result<Option<Head>, KvError> {
    before(kv, ino, file, offset, |head| head.end() > offset)
}

/// The live row that ends exactly at `offset`.
pub(crate) fn ending_at(
    kv: &impl KvRead,
    ino: Ino,
    file: &File,
    offset: u64,
) -> Result<Option<Head>, KvError> {
    before(kv, ino, file, offset, |head| head.end() == offset)
}

/// The last live row that begins before `offset`, if `fits`.
pub(crate) fn before(
    kv: &impl KvRead,
    ino: Ino,
    file: &File,
    offset: u64,
    fits: impl Fn(&Head) -> bool,
) -> Result<Option<Head>, KvError> {
    // Nothing longer than a block: what begins earlier cannot reach here. Live rows do not overlap, so the last one
    // decides; before it may lie dead ones.
    let from = keys::with_u64(ino, offset.saturating_sub(BLOCK_MAX.into()));
    let to = keys::with_u64(ino, offset);
    let mut found = None;
    let mut failed = None;
    kv.scan_back(Table::Extent, Bound::Included(&from), Bound::Excluded(&to), |key, value| match parse_key(
        key,
    )
    .and_then(|(_, at)| parse_head(at, value))
    {
        Ok(head) if !file.is_live(head.offset, head.birth) => ControlFlow::Continue(()),
        Ok(head) => {
            found = Some(head).filter(&fits);
            ControlFlow::Break(())
        }
        Err(e) => {
            failed = Some(e);
            ControlFlow::Break(())
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
    mut f: impl FnMut(Head) -> Result<ControlFlow<()>, KvError>,
) -> Result<(), KvError> {
    if start >= end {
        return Ok(());
    }
    let from = keys::with_u64(ino, start);
    let to = keys::with_u64(ino, end);
    let to = if end == u64::MAX { Bound::Included(&to[..]) } else { Bound::Excluded(&to[..]) };
    each_from(kv, Table::Extent, Bound::Included(&from), to, |key, value| {
        let (_, offset) = parse_key(key)?;
        f(parse_head(offset, value)?)
    })
}

/// Live rows of a range, and up to where they are all: at most `most` rows are looked at, and not many more than
/// [`CLONE_INLINE_MAX`] inline bytes are in them.
pub(crate) fn live_within(
    kv: &impl KvRead,
    ino: Ino,
    file: &File,
    Range { start, end }: Range<u64>,
    most: usize,
) -> Result<(Vec<Head>, u64), KvError> {
    let inline = |row: &Head| if row.block.is_none() { u64::from(row.len) } else { 0 };
    let mut live: Vec<Head> = across(kv, ino, file, start)?.into_iter().collect();
    let (mut rows, mut bytes, mut complete_to) = (0, live.iter().map(inline).sum::<u64>(), end);
    each(kv, ino, start, end, |row| {
        rows += 1;
        if rows > most || bytes >= CLONE_INLINE_MAX {
            complete_to = row.offset;
            return Ok(ControlFlow::Break(()));
        }
        if file.is_live(row.offset, row.birth) {
            bytes += inline(&row);
            live.push(row);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    // A dead row where it was left off may begin within the last live one.
    let covered = live.last().map_or(start, |last| last.end().min(end));
    Ok((live, complete_to.max(covered)))
}
