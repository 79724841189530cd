//! Records: area and payload, their lengths, and the checksums of chunks.

use super::{FormatError, VERSION, round_up, u32_at, u64_at, u128_at};
use atoll_base::block::BlockId;
use atoll_base::checksum;
use atoll_base::limits::BLOCK_MAX;

/// Payload bytes under one checksum.
pub(crate) const CHUNK: usize = 1 << CHUNK_SHIFT;
pub(super) const CHUNK_SHIFT: u8 = 12;

/// Bytes before the crc table of a record.
const FIXED: usize = 64;

/// Largest payload of a footer: 2.8 million entries, more than a segment of the default size can hold (1 KiB a
/// record at least).
pub(crate) const FOOTER_MAX: u32 = 64 << 20;

pub(super) const MAGIC_RECORD: [u8; 4] = *b"ATRC";

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

/// Number of chunks of a payload of `len` bytes.
pub(crate) const fn chunks(len: u32) -> usize {
    (len as usize).div_ceil(CHUNK)
}

/// Bytes of the area before a payload of `len` bytes.
pub(crate) const fn area_len(len: u32) -> usize {
    round_up((FIXED + 4 * chunks(len)) as u64) as usize
}

/// Bytes of a whole record with a payload of `len` bytes, padding included.
pub(crate) const fn record_len(len: u32) -> u64 {
    area_len(len) as u64 + round_up(len as u64)
}

/// Bytes of padding after a payload of `len` bytes.
pub(crate) fn padding(len: u32) -> usize {
    (round_up(u64::from(len)) - u64::from(len)) as usize
}

/// What the checksum of a chunk begins with.
fn chunk_seed(id: BlockId, chunk: usize) -> u32 {
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&id.0.to_le_bytes());
    seed[16..].copy_from_slice(&(chunk as u32).to_le_bytes());
    checksum::crc32c(&seed)
}

/// The checksum of one chunk.
pub(crate) fn chunk_crc(id: BlockId, chunk: usize, bytes: &[u8]) -> u32 {
    checksum::crc32c_append(chunk_seed(id, chunk), bytes)
}

/// A payload that lies in parts, cut at the ends of chunks, too: each piece with its place in the payload.
fn pieces<T: AsRef<[u8]>>(payload: &[T]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut parts = payload.iter().map(AsRef::as_ref);
    let (mut at, mut part): (usize, &[u8]) = (0, &[]);
    std::iter::from_fn(move || {
        while part.is_empty() {
            part = parts.next()?;
        }
        let (here, rest) = part.split_at(part.len().min(CHUNK - at % CHUNK));
        let place = at;
        (at, part) = (at + here.len(), rest);
        Some((place, here))
    })
}

/// The table of checksums of a payload that lies in parts.
pub(crate) fn crc_table<T: AsRef<[u8]>>(id: BlockId, payload: &[T]) -> Vec<u8> {
    let mut table: Vec<u8> = Vec::new();
    let (mut end, mut crc) = (0, 0);
    for (at, here) in pieces(payload) {
        if at % CHUNK == 0 {
            crc = chunk_seed(id, at / CHUNK);
        }
        crc = checksum::crc32c_append(crc, here);
        end = at + here.len();
        if end % CHUNK == 0 {
            table.extend_from_slice(&crc.to_le_bytes());
        }
    }
    if end % CHUNK != 0 {
        table.extend_from_slice(&crc.to_le_bytes());
    }
    table
}

/// Joins the parts of a payload in `to`.
fn copy<T: AsRef<[u8]>>(payload: &[T], to: &mut [u8]) {
    let mut at = 0;
    for part in payload.iter().map(AsRef::as_ref) {
        to[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}

/// The same, filling in the table of checksums on the way: of each chunk while it is in the nearest cache.
fn copy_summing<T: AsRef<[u8]>>(id: BlockId, payload: &[T], to: &mut [u8], table: &mut [u8]) {
    for (at, here) in pieces(payload) {
        let end = at + here.len();
        to[at..end].copy_from_slice(here);
        if end % CHUNK == 0 || end == to.len() {
            let n = at / CHUNK;
            let crc = chunk_crc(id, n, &to[n * CHUNK..end]);
            table[4 * n..4 * n + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
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

fn area_crc(area: &[u8]) -> u32 {
    checksum::crc32c_append(checksum::crc32c(&area[..60]), &area[FIXED..])
}

impl Header {
    /// The area, padded to a unit.
    pub(crate) fn encode(&self, table: &[u8]) -> Vec<u8> {
        assert_eq!(table.len(), 4 * chunks(self.len), "a record's table has one entry per chunk");
        let mut area = vec![0; area_len(self.len)];
        area[FIXED..FIXED + table.len()].copy_from_slice(table);
        self.complete(&mut area);
        area
    }

    /// Lays the whole record out in `record`, which is as long. A table that is not here yet is made on the way.
    pub(crate) fn lay_out<T: AsRef<[u8]>>(&self, table: Option<&[u8]>, payload: &[T], record: &mut [u8]) {
        let (area, rest) = record.split_at_mut(area_len(self.len));
        let (place, behind) = rest.split_at_mut(self.len as usize);
        area.fill(0);
        behind.fill(0);
        let room = &mut area[FIXED..FIXED + 4 * chunks(self.len)];
        match table {
            Some(table) => {
                room.copy_from_slice(table);
                copy(payload, place);
            }
            None => copy_summing(self.id, payload, place, room),
        }
        self.complete(area);
    }

    /// Fills the fixed part of an area in, whose rest is there.
    fn complete(&self, area: &mut [u8]) {
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
        let crc = area_crc(area);
        area[60..64].copy_from_slice(&crc.to_le_bytes());
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
