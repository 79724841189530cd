//! Bytes on disk: the segment header, records, the footer and the trailer. Pure; every decoder is bounded and
//! takes hostile bytes. All integers are little-endian.
//!
//! A segment file is a sequence of [`UNIT`]-byte units:
//!
//! ```text
//! header   1 unit   magic "ATSG", version, store id, segment number, salt, crc32c
//! record   …        one block, or a list of tombstones; each starts on a unit
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

use atoll_base::block::BlockId;
use atoll_base::checksum;
use atoll_base::limits::BLOCK_MAX;

/// Alignment of everything in a segment, in bytes: a sector.
pub(crate) const UNIT: u64 = 512;

/// Payload bytes under one checksum.
pub(crate) const CHUNK: usize = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u8 = 12;

/// Bytes before the crc table of a record.
const FIXED: usize = 64;

/// Largest payload of a footer: 2.8 million entries, more than a segment of the default size can hold (1 KiB a
/// record at least).
pub(crate) const FOOTER_MAX: u32 = 64 << 20;

const VERSION: u8 = 1;
const MAGIC_SEGMENT: [u8; 4] = *b"ATSG";
pub(crate) const MAGIC_RECORD: [u8; 4] = *b"ATRC";
const MAGIC_TRAILER: [u8; 4] = *b"ATTR";

/// Bytes of one entry, of a block or of a tombstone, in a footer or a tombstone record.
pub(crate) const ENTRY: usize = 24;

/// Most tombstones in one record.
pub(crate) const TOMBSTONES_MAX: usize = BLOCK_MAX as usize / ENTRY;

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

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Tombstones,
    Footer,
}

/// The fixed part of a record's area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) salt: u64,
    pub(crate) id: BlockId,
    pub(crate) len: u32,
    pub(crate) batch: u64,
    pub(crate) units: u32,
}

fn round_up(n: u64) -> u64 {
    n.div_ceil(UNIT) * UNIT
}

/// Number of chunks of a payload of `len` bytes.
pub(crate) fn chunks(len: u32) -> usize {
    (len as usize).div_ceil(CHUNK)
}

/// Bytes of the area before a payload of `len` bytes.
pub(crate) fn area_len(len: u32) -> usize {
    round_up((FIXED + 4 * chunks(len)) as u64) as usize
}

/// Bytes of a whole record with a payload of `len` bytes, padding included.
pub(crate) fn record_len(len: u32) -> u64 {
    area_len(len) as u64 + round_up(u64::from(len))
}

/// Bytes of padding after a payload of `len` bytes.
pub(crate) fn padding(len: u32) -> usize {
    (round_up(u64::from(len)) - u64::from(len)) as usize
}

/// Bytes that sealing a segment with this many entries appends.
pub(crate) fn seal_len(entries: usize) -> u64 {
    record_len((8 + entries * ENTRY) as u32) + UNIT
}

/// The checksum of one chunk.
pub(crate) fn chunk_crc(id: BlockId, chunk: usize, bytes: &[u8]) -> u32 {
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&id.0.to_le_bytes());
    seed[16..].copy_from_slice(&(chunk as u32).to_le_bytes());
    checksum::crc32c_append(checksum::crc32c(&seed), bytes)
}

/// The table of checksums of a payload.
pub(crate) fn crc_table(id: BlockId, payload: &[u8]) -> Vec<u8> {
    let mut table = Vec::with_capacity(4 * chunks(payload.len() as u32));
    for (i, chunk) in payload.chunks(CHUNK).enumerate() {
        table.extend_from_slice(&chunk_crc(id, i, chunk).to_le_bytes());
    }
    table
}

/// The table inside an area that [`Header::decode`] accepted.
pub(crate) fn table_of(area: &[u8], len: u32) -> &[u8] {
    &area[FIXED..FIXED + 4 * chunks(len)]
}

/// Verifies the chunks from number `first` on, which `bytes` hold without gap; the last may be the payload's short
/// one. Returns the first damaged chunk's number.
pub(crate) fn verify_chunks(id: BlockId, table: &[u8], first: usize, bytes: &[u8]) -> Result<(), usize> {
    for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
        let n = first + i;
        let want = table.get(4 * n..4 * n + 4).ok_or(n)?;
        if chunk_crc(id, n, chunk).to_le_bytes() != want {
            return Err(n);
        }
    }
    Ok(())
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

fn area_crc(area: &[u8]) -> u32 {
    checksum::crc32c_append(checksum::crc32c(&area[..60]), &area[FIXED..])
}

impl Header {
    /// The area, padded to a unit.
    pub(crate) fn encode(&self, table: &[u8]) -> Vec<u8> {
        assert_eq!(table.len(), 4 * chunks(self.len), "a record's table has one entry per chunk");
        let mut area = vec![0; area_len(self.len)];
        area[..4].copy_from_slice(&MAGIC_RECORD);
        area[4] = VERSION;
        area[5] = match self.kind {
            Kind::Block => 1,
            Kind::Tombstones => 2,
            Kind::Footer => 3,
        };
        area[6] = CHUNK_SHIFT;
        area[8..16].copy_from_slice(&self.salt.to_le_bytes());
        area[16..32].copy_from_slice(&self.id.0.to_le_bytes());
        area[32..36].copy_from_slice(&self.len.to_le_bytes());
        area[40..48].copy_from_slice(&self.batch.to_le_bytes());
        area[48..52].copy_from_slice(&self.units.to_le_bytes());
        area[FIXED..FIXED + table.len()].copy_from_slice(table);
        let crc = area_crc(&area);
        area[60..64].copy_from_slice(&crc.to_le_bytes());
        area
    }

    /// How long the area is that starts with these (at least [`FIXED`]) bytes, if they look like a record at all.
    pub(crate) fn peek_area_len(start: &[u8]) -> Result<usize, FormatError> {
        Self::fields(start).map(|h| area_len(h.len))
    }

    fn fields(b: &[u8]) -> Result<Self, FormatError> {
        if b.len() < FIXED {
            return Err(FormatError::Bounds);
        }
        if b[..4] != MAGIC_RECORD {
            return Err(FormatError::Magic);
        }
        if b[4] != VERSION {
            return Err(FormatError::Version(b[4]));
        }
        let (kind, max) = match b[5] {
            1 => (Kind::Block, BLOCK_MAX),
            2 => (Kind::Tombstones, BLOCK_MAX),
            3 => (Kind::Footer, FOOTER_MAX),
            _ => return Err(FormatError::Bounds),
        };
        let len = u32_at(b, 32);
        if b[6] != CHUNK_SHIFT || len == 0 || len > max {
            return Err(FormatError::Bounds);
        }
        Ok(Self {
            kind,
            salt: u64_at(b, 8),
            id: BlockId(u128_at(b, 16)),
            len,
            batch: u64_at(b, 40),
            units: u32_at(b, 48),
        })
    }

    /// Decodes and verifies a whole area, which must be the one at `units` of the segment with this salt (any
    /// salt, if the segment's header was lost).
    pub(crate) fn decode(area: &[u8], salt: Option<u64>, units: u32) -> Result<Self, FormatError> {
        let header = Self::fields(area)?;
        let area = area.get(..area_len(header.len)).ok_or(FormatError::Bounds)?;
        if area_crc(area) != u32_at(area, 60) {
            return Err(FormatError::HeaderCrc);
        }
        if salt.is_some_and(|s| s != header.salt) || header.units != units {
            return Err(FormatError::Place);
        }
        Ok(header)
    }
}

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

/// What the first unit of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: u128,
    pub(crate) segment: u32,
    pub(crate) salt: u64,
}

/// What the last unit of a sealed segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// The same as in the first unit, in case that is lost.
    pub(crate) header: SegmentHeader,
    /// Where the footer's record starts.
    pub(crate) footer_units: u32,
    /// Payload length of the footer.
    pub(crate) footer_len: u32,
    /// The highest batch number in use when the segment was sealed.
    pub(crate) batch: u64,
}

const CRC_AT: usize = UNIT as usize - 4;

fn begin_unit(magic: [u8; 4], h: &SegmentHeader) -> Vec<u8> {
    let mut b = vec![0; UNIT as usize];
    b[..4].copy_from_slice(&magic);
    b[4] = VERSION;
    b[8..24].copy_from_slice(&h.store_id.to_le_bytes());
    b[24..28].copy_from_slice(&h.segment.to_le_bytes());
    b[32..40].copy_from_slice(&h.salt.to_le_bytes());
    b
}

fn end_unit(mut b: Vec<u8>) -> Vec<u8> {
    let crc = checksum::crc32c(&b[..CRC_AT]);
    b[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    b
}

fn open_unit(magic: [u8; 4], b: &[u8]) -> Result<SegmentHeader, FormatError> {
    if b.len() != UNIT as usize {
        return Err(FormatError::Bounds);
    }
    if b[..4] != magic {
        return Err(FormatError::Magic);
    }
    if checksum::crc32c(&b[..CRC_AT]) != u32_at(b, CRC_AT) {
        return Err(FormatError::HeaderCrc);
    }
    if b[4] != VERSION {
        return Err(FormatError::Version(b[4]));
    }
    Ok(SegmentHeader { store_id: u128_at(b, 8), segment: u32_at(b, 24), salt: u64_at(b, 32) })
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        end_unit(begin_unit(MAGIC_SEGMENT, self))
    }

    pub(crate) fn decode(b: &[u8]) -> Result<Self, FormatError> {
        open_unit(MAGIC_SEGMENT, b)
    }
}

impl Trailer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = begin_unit(MAGIC_TRAILER, &self.header);
        b[40..44].copy_from_slice(&self.footer_units.to_le_bytes());
        b[44..48].copy_from_slice(&self.footer_len.to_le_bytes());
        b[48..56].copy_from_slice(&self.batch.to_le_bytes());
        end_unit(b)
    }

    pub(crate) fn decode(b: &[u8]) -> Result<Self, FormatError> {
        let header = open_unit(MAGIC_TRAILER, b)?;
        let footer_len = u32_at(b, 44);
        if footer_len == 0 || footer_len > FOOTER_MAX {
            return Err(FormatError::Bounds);
        }
        Ok(Self { header, footer_units: u32_at(b, 40), footer_len, batch: u64_at(b, 48) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn header(len: u32) -> Header {
        Header { kind: Kind::Block, salt: 7, id: BlockId(99), len, batch: 3, units: 5 }
    }

    proptest! {
        #[test]
        fn a_record_area_round_trips_and_any_flipped_bit_is_found(
            payload in proptest::collection::vec(any::<u8>(), 1..20_000), bit in any::<usize>(),
        ) {
            let id = BlockId(99);
            let h = header(payload.len() as u32);
            let table = crc_table(id, &payload);
            let area = h.encode(&table);
            prop_assert_eq!(area.len(), area_len(h.len));
            prop_assert_eq!(Header::decode(&area, Some(7), 5), Ok(h));
            prop_assert_eq!(table_of(&area, h.len), &table[..]);
            prop_assert_eq!(verify_chunks(id, &table, 0, &payload), Ok(()));
            let mut bad = area.clone();
            let at = bit % (bad.len() * 8);
            bad[at / 8] ^= 1 << (at % 8);
            prop_assert!(Header::decode(&bad, Some(7), 5).is_err());
            let mut bad = payload.clone();
            let at = bit % (bad.len() * 8);
            bad[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(verify_chunks(id, &table, 0, &bad), Err(at / 8 / CHUNK));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut bytes = bytes;
            let _ = Header::decode(&bytes, None, 0);
            let _ = decode_footer(&bytes);
            let _ = decode_tombstones(&bytes);
            let _ = SegmentHeader::decode(&bytes);
            let _ = Trailer::decode(&bytes);
            if bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&MAGIC_RECORD);
                bytes[4] = VERSION;
                bytes[5] = 1;
                bytes[6] = CHUNK_SHIFT;
                let _ = Header::peek_area_len(&bytes);
                let _ = Header::decode(&bytes, None, 0);
            }
        }
    }

    #[test]
    fn a_record_is_valid_at_its_own_place_only() {
        let area = header(10).encode(&crc_table(BlockId(99), &[1; 10]));
        assert_eq!(Header::decode(&area, Some(8), 5), Err(FormatError::Place));
        assert_eq!(Header::decode(&area, Some(7), 6), Err(FormatError::Place));
        assert_eq!(Header::decode(&area, None, 5).unwrap().salt, 7);
    }

    #[test]
    fn an_unknown_version_is_named() {
        let mut area = header(10).encode(&crc_table(BlockId(99), &[1; 10]));
        area[4] = 2;
        assert_eq!(Header::decode(&area, None, 5), Err(FormatError::Version(2)));
    }

    #[test]
    fn a_chunk_is_valid_in_its_own_block_and_place_only() {
        let payload = vec![5; 2 * CHUNK];
        let table = crc_table(BlockId(1), &payload);
        assert_ne!(table[..4], table[4..]);
        assert_eq!(verify_chunks(BlockId(2), &table, 0, &payload), Err(0));
        assert_eq!(verify_chunks(BlockId(1), &table, 2, &payload), Err(2));
    }

    #[test]
    fn footers_and_units_round_trip() {
        let blocks = [BlockEntry { id: BlockId(1), units: 1, len: 9 }];
        let tombs = [Tombstone { id: BlockId(2), segment: 3, units: 4 }; 2];
        assert_eq!(
            decode_footer(&encode_footer(&blocks, &tombs)).unwrap(),
            (blocks.to_vec(), tombs.to_vec())
        );
        assert_eq!(decode_tombstones(&encode_tombstones(&tombs)).unwrap(), tombs.to_vec());
        let header = SegmentHeader { store_id: 1, segment: 2, salt: 3 };
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        let trailer = Trailer { header, footer_units: 4, footer_len: 5, batch: 6 };
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        for bit in 0..UNIT as usize * 8 {
            let mut b = trailer.encode();
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(Trailer::decode(&b).is_err());
            let mut b = header.encode();
            b[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&b).is_err());
        }
    }
}
