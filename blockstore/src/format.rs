//! Bytes on disk: the segment header and the trailer ([`units`]), records ([`record`]), and what footers and records of
//! tombstones list ([`lists`]). Pure; every decoder is bounded and takes hostile bytes. All integers are little-endian.
//!
//! A segment file is a sequence of [`UNIT`]-byte units:
//!
//! ```text
//! header   1 unit   magic "ATSG", version, store id, segment number, salt, crc32c
//! record   …        one block, or a list of tombstones; each starts on a unit; there may be units of zeros between two
//! …
//! footer   …        a record that lists all records before it       (only in a sealed segment)
//! trailer  1 unit   magic "ATTR", where the footer is, highest batch  (only in a sealed segment, ends the file)
//! ```
//!
//! A record is an *area* (64 bytes of fixed header, then one crc32c per [`CHUNK`] of payload, padded to a unit)
//! and then the payload, padded to a unit:
//!
//! ```text
//!  0 magic "ATRC"   4 version u8   5 kind u8   6 log2 of the chunk size u8   7 zero
//!  8 salt of the segment u64      16 block id u128 (0 if not a block)
//! 32 payload length u32           36 zero u32
//! 40 batch u64                    48 own position in units u32
//! 52 zero                         60 crc32c of the whole area but these four bytes u32
//! 64 crc32c of each chunk u32 …
//! ```
//!
//! Salt and position make a record valid at one place only: bytes of another segment, or a copy of a segment file
//! that a user stored as a block's payload, never pass for a record. A chunk's crc is seeded with the block's id
//! and the chunk's number, so right bytes at a wrong place are found too, and the crcs travel unchanged when
//! compaction copies a block.
//!
//! The chunk is 4 KiB: a checksum per 64 KiB would make a read of 4 KiB fetch and verify sixteen times what was
//! asked for. The table costs 0.1 % of the payload.

mod lists;
mod record;
#[cfg(test)]
mod tests;
mod units;

pub(crate) use lists::{
    BlockEntry, ENTRY, TOMBSTONES_MAX, Tombstone, decode_footer, decode_tombstones, encode_footer,
    encode_tombstones, seal_len,
};
pub(crate) use record::{
    CHUNK, Header, Kind, area_len, crc_table, padding, record_len, table_of, verify_chunks,
};
pub(crate) use units::{SegmentHeader, Trailer};

/// Alignment of everything in a segment, in bytes: a sector.
pub(crate) const UNIT: u64 = 512;

const VERSION: u8 = 1;

/// What is wrong with bytes from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("wrong magic")]
    Magic,
    #[error("unknown version {0}")]
    Version(u8),
    #[error("the checksum of the header does not match")]
    HeaderCrc,
    #[error("a field of the header is out of bounds")]
    Bounds,
    #[error("the header belongs to another place")]
    Place,
}

const fn round_up(n: u64) -> u64 {
    n.div_ceil(UNIT) * UNIT
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut n = [0; 4];
    n.copy_from_slice(&b[at..at + 4]);
    u32::from_le_bytes(n)
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut n = [0; 8];
    n.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(n)
}

fn u128_at(b: &[u8], at: usize) -> u128 {
    let mut n = [0; 16];
    n.copy_from_slice(&b[at..at + 16]);
    u128::from_le_bytes(n)
}
