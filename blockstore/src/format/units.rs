//! The units that begin and end a segment: its header, and the trailer of a sealed one.

use super::record::FOOTER_MAX;
use super::{FormatError, UNIT, VERSION, u32_at, u64_at, u128_at};
use atoll_base::checksum;

const MAGIC_SEGMENT: [u8; 4] = *b"ATSG";
const MAGIC_TRAILER: [u8; 4] = *b"ATTR";

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
