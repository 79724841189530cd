//! Records and their frames.
//!
//! A frame is 16 bytes of header and a body, padded with zeros to a multiple of 8:
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | CRC-32C of the frame's offset, the rest of the header and the body, seeded from the segment's number and salt; a copy of a frame elsewhere, such as in a file that a client stores, is not valid |
//! | 4–7 | kind, mixed with the salt: stale bytes and contents made to look like a frame don't pass |
//! | 8–11 | length of the body |
//! | 12–15 | where the group of this record begins in the segment |
//!
//! All numbers little-endian. The body of an entry is `term, leader, index: u64; parts, head length: u32; length of
//! each part: u32`, the head and the parts; other bodies are postcard.

use super::{Entry, EntryId};
use atoll_base::checksum;
use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Bytes of a frame's header.
pub(super) const FRAME_HEADER: usize = 16;
/// Frames begin at multiples of it.
pub(super) const ALIGN: u32 = 8;
const ENTRY_FIXED: usize = 32;
/// What an entry costs beside head, parts and 4 bytes per part.
pub(super) const ENTRY_OVERHEAD: usize = FRAME_HEADER + ENTRY_FIXED + ALIGN as usize;

/// What a segment says about all segments before it; its first record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Where the records of the segment before end; 0 if there is none.
    pub(super) previous_end: u32,
    /// The oldest segment that is needed.
    pub(super) keep_from: u64,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<EntryId>,
    pub(super) purged: Option<EntryId>,
    /// The last entry, or `purged` if there is none.
    pub(super) last: Option<EntryId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Checkpoint(Checkpoint),
    Entry(Entry),
    Vote(Bytes),
    Committed(Option<EntryId>),
    /// Entries after this one are void.
    Truncate(Option<EntryId>),
    /// Entries up to this one are void, and segments before `keep_from` no longer needed.
    Purge {
        upto: EntryId,
        keep_from: u64,
    },
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Self::Checkpoint(_) => 1,
            Self::Entry(_) => 2,
            Self::Vote(_) => 3,
            Self::Committed(_) => 4,
            Self::Truncate(_) => 5,
            Self::Purge { .. } => 6,
        }
    }
}

/// Bytes of an entry's contents and their lengths.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    entry.head.len() + entry.parts.iter().map(|part| part.len() + 4).sum::<usize>()
}

/// A record ready to be placed: its size is known.
#[derive(Debug)]
pub(super) struct Frame {
    kind: u8,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Plain(Vec<u8>),
    Entry(Entry),
}

/// `to_stdvec` fails only for types that postcard can't express, which ours are not.
fn postcard(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data serializes")
}

impl Frame {
    pub(super) fn new(record: Record) -> Self {
        let kind = record.kind();
        let body = match record {
            Record::Entry(entry) => Body::Entry(entry),
            Record::Checkpoint(c) => Body::Plain(postcard(&c)),
            Record::Vote(vote) => Body::Plain(vote.to_vec()),
            Record::Committed(id) | Record::Truncate(id) => Body::Plain(postcard(&id)),
            Record::Purge { upto, keep_from } => Body::Plain(postcard(&(upto, keep_from))),
        };
        Self { kind, body }
    }

    /// [`Frame::size`] of the frame that `record` will have.
    pub(super) fn size_of(record: &Record) -> usize {
        match record {
            Record::Entry(entry) => padded(ENTRY_FIXED + entry_bytes(entry)),
            other => Self::new(other.clone()).size(),
        }
    }

    /// Length of the body.
    pub(super) fn body_len(&self) -> usize {
        match &self.body {
            Body::Plain(body) => body.len(),
            Body::Entry(entry) => ENTRY_FIXED + entry_bytes(entry),
        }
    }

    /// Bytes that it takes in a segment.
    pub(super) fn size(&self) -> usize {
        padded(self.body_len())
    }

    /// Adds its bytes to `out`, for `offset` in the segment of `seal`; `group` is where its group begins there.
    pub(super) fn encode(&self, seal: Seal, group: u32, offset: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        for number in [seal.tag ^ u32::from(self.kind), self.body_len() as u32, group] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        match &self.body {
            Body::Plain(body) => out.extend_from_slice(body),
            Body::Entry(entry) => {
                for number in [entry.id.term, entry.id.leader, entry.id.index] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                let lengths = entry.parts.iter().map(Bytes::len);
                for number in [entry.parts.len(), entry.head.len()].into_iter().chain(lengths) {
                    out.extend_from_slice(&(number as u32).to_le_bytes());
                }
                out.extend_from_slice(&entry.head);
                for part in &entry.parts {
                    out.extend_from_slice(part);
                }
            }
        }
        let crc = checksum::crc32c_append(seal.crc_at(offset), &out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + self.size(), 0);
    }
}

/// Bytes of a frame with a body of `body_len`.
fn padded(body_len: usize) -> usize {
    (FRAME_HEADER + body_len).next_multiple_of(ALIGN as usize)
}

/// What [`Record::kind`] may be.
const KINDS: RangeInclusive<u32> = 1..=6;

/// The secret of a segment, without which a frame isn't valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    crc_seed: u32,
    tag: u32,
}

impl Seal {
    pub(super) fn new(number: u64, salt: u64) -> Self {
        let crc_seed = checksum::crc32c_append(checksum::crc32c(&number.to_le_bytes()), &salt.to_le_bytes());
        Self { crc_seed, tag: (salt >> 32) as u32 }
    }

    /// Whether a frame of this segment may begin so.
    pub(super) fn may_begin(self, word: [u8; ALIGN as usize]) -> bool {
        KINDS.contains(&((u64::from_le_bytes(word) >> 32) as u32 ^ self.tag))
    }

    fn crc_at(self, offset: u32) -> u32 {
        checksum::crc32c_append(self.crc_seed, &offset.to_le_bytes())
    }
}

/// The header of a frame, as read.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    crc: u32,
    kind: u8,
    pub(super) body_len: u32,
    pub(super) group: u32,
    raw: [u8; FRAME_HEADER],
}

impl FrameHeader {
    /// `None` if no frame of this segment begins so.
    pub(super) fn parse(raw: [u8; FRAME_HEADER], seal: Seal) -> Option<Self> {
        let mut buf = &raw[..];
        let (crc, tag, body_len, group) =
            (buf.get_u32_le(), buf.get_u32_le(), buf.get_u32_le(), buf.get_u32_le());
        let kind = u8::try_from(tag ^ seal.tag).ok()?;
        KINDS.contains(&u32::from(kind)).then_some(Self { crc, kind, body_len, group, raw })
    }

    /// Bytes that the frame takes.
    pub(super) fn size(&self) -> u64 {
        (FRAME_HEADER as u64 + u64::from(self.body_len)).next_multiple_of(u64::from(ALIGN))
    }

    /// Whether `body` is the one that was written.
    pub(super) fn verifies(&self, body: &[u8], seal: Seal, offset: u32) -> bool {
        let crc = checksum::crc32c_append(seal.crc_at(offset), &self.raw[4..]);
        checksum::crc32c_append(crc, body) == self.crc
    }

    /// The record in a body that verifies. `None` if a different version wrote it.
    pub(super) fn decode(&self, body: Bytes) -> Option<Record> {
        Some(match self.kind {
            1 => Record::Checkpoint(postcard::from_bytes(&body).ok()?),
            2 => Record::Entry(decode_entry(body)?),
            3 => Record::Vote(body),
            4 => Record::Committed(postcard::from_bytes(&body).ok()?),
            5 => Record::Truncate(postcard::from_bytes(&body).ok()?),
            6 => {
                let (upto, keep_from) = postcard::from_bytes(&body).ok()?;
                Record::Purge { upto, keep_from }
            }
            _ => return None,
        })
    }
}

/// The parts are slices of `body`.
fn decode_entry(mut body: Bytes) -> Option<Entry> {
    let id = EntryId {
        term: body.try_get_u64_le().ok()?,
        leader: body.try_get_u64_le().ok()?,
        index: body.try_get_u64_le().ok()?,
    };
    let parts = body.try_get_u32_le().ok()? as usize;
    let head = body.try_get_u32_le().ok()? as usize;
    if body.len() < parts.checked_mul(4)? {
        return None;
    }
    let mut lengths = body.split_to(parts * 4);
    let take = |body: &mut Bytes, len: usize| (len <= body.len()).then(|| body.split_to(len));
    let head = take(&mut body, head)?;
    let parts: Option<Vec<Bytes>> =
        (0..parts).map(|_| take(&mut body, lengths.get_u32_le() as usize)).collect();
    Some(Entry { id, head, parts: parts? }).filter(|_| body.is_empty())
}
