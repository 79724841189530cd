//! Lists of records: what a footer and a record of tombstones hold.

use super::record::record_len;
use super::{FormatError, UNIT, u32_at, u128_at};
use atoll_base::block::BlockId;
use atoll_base::limits::BLOCK_MAX;

/// Bytes of one entry, of a block or of a tombstone, in a footer or a tombstone record.
pub(crate) const ENTRY: usize = 24;

/// Most tombstones in one record.
pub(crate) const TOMBSTONES_MAX: usize = BLOCK_MAX as usize / ENTRY;
/// A block's record as a footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) id: BlockId,
    pub(crate) units: u32,
    pub(crate) len: u32,
}

/// The death of exactly one record: that of `id` at `units` of `segment`. Not of the id, so that it can be
/// forgotten as soon as that segment is gone, and so that it never hits another copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tombstone {
    pub(crate) id: BlockId,
    pub(crate) segment: u32,
    pub(crate) units: u32,
}

fn put_entry(out: &mut Vec<u8>, id: BlockId, a: u32, b: u32) {
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&a.to_le_bytes());
    out.extend_from_slice(&b.to_le_bytes());
}

fn tombstone_at(b: &[u8]) -> Tombstone {
    Tombstone { id: BlockId(u128_at(b, 0)), segment: u32_at(b, 16), units: u32_at(b, 20) }
}

/// Payload of a tombstone record.
pub(crate) fn encode_tombstones(list: &[Tombstone]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * ENTRY);
    for t in list {
        put_entry(&mut out, t.id, t.segment, t.units);
    }
    out
}

/// Payload of a verified tombstone record.
pub(crate) fn decode_tombstones(payload: &[u8]) -> Result<Vec<Tombstone>, FormatError> {
    if !payload.len().is_multiple_of(ENTRY) {
        return Err(FormatError::Bounds);
    }
    Ok(payload.chunks_exact(ENTRY).map(tombstone_at).collect())
}

/// Payload of a footer.
pub(crate) fn encode_footer(blocks: &[BlockEntry], tombstones: &[Tombstone]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + (blocks.len() + tombstones.len()) * ENTRY);
    out.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    out.extend_from_slice(&(tombstones.len() as u32).to_le_bytes());
    for b in blocks {
        put_entry(&mut out, b.id, b.units, b.len);
    }
    for t in tombstones {
        put_entry(&mut out, t.id, t.segment, t.units);
    }
    out
}

/// Payload of a verified footer.
pub(crate) fn decode_footer(payload: &[u8]) -> Result<(Vec<BlockEntry>, Vec<Tombstone>), FormatError> {
    if payload.len() < 8 {
        return Err(FormatError::Bounds);
    }
    let (blocks, tombstones) = (u32_at(payload, 0) as usize, u32_at(payload, 4) as usize);
    let entries = &payload[8..];
    let count = blocks.checked_add(tombstones).and_then(|n| n.checked_mul(ENTRY));
    if count != Some(entries.len()) {
        return Err(FormatError::Bounds);
    }
    let (b, t) = entries.split_at(blocks * ENTRY);
    let b: Vec<BlockEntry> = b
        .chunks_exact(ENTRY)
        .map(|e| BlockEntry { id: BlockId(u128_at(e, 0)), units: u32_at(e, 16), len: u32_at(e, 20) })
        .collect();
    if b.iter().any(|e| e.len == 0 || e.len > BLOCK_MAX) {
        return Err(FormatError::Bounds);
    }
    Ok((b, t.chunks_exact(ENTRY).map(tombstone_at).collect()))
}

/// Bytes that sealing a segment with this many entries appends.
pub(crate) fn seal_len(entries: usize) -> u64 {
    record_len((8 + entries * ENTRY) as u32) + UNIT
}
