//! A range of bytes of a file, as the lock protocols mean it: an offset and a length, or to the end of file however
//! long the file is or becomes.
//!
//! Invariant: `first ≤ last`. The range is kept inclusive so that "to end of file" is simply `last = u64::MAX`; no
//! finite range of either protocol ends there, because offset + length may not exceed 2^64 - 1 (RFC 7530 §16.10.4).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an offset and a length are no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Length zero where the protocol does not give it a meaning (NFSv4: NFS4ERR_INVAL, RFC 7530 §16.10.4).
    #[error("a range of length zero")]
    Empty,
    /// Offset + length exceeds 2^64 - 1 (NFS4ERR_INVAL, RFC 7530 §16.10.4; NLM4_FBIG, RFC 1813 §6.3.1).
    #[error("offset {offset} + length {length} exceeds 64 bits")]
    Overflow {
        /// Offset of the request, bytes.
        offset: u64,
        /// Length of the request, bytes.
        length: u64,
    },
    /// The first byte is after the last one (only from stored or inner bytes, not from a protocol).
    #[error("first byte {first} is after the last {last}")]
    Reversed {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
}

/// A non-empty range of bytes. Ordered by first byte, then by last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct ByteRange {
    first: u64,
    last: u64,
}

impl ByteRange {
    /// The length by which NFSv4 says "to end of file" (RFC 7530 §16.10.4).
    pub const V4_TO_EOF: u64 = u64::MAX;
    /// The length by which NLM says "to end of file" (RFC 1813 §6.1.4, nlm4_lock).
    pub const NLM_TO_EOF: u64 = 0;
    /// Every byte that a file can have.
    pub const WHOLE: Self = Self { first: 0, last: u64::MAX };

    /// From NLM's `l_offset` and `l_len`: 0 is to the end of file (RFC 1813 §6.1.4), and so is 2^64 - 1, which
    /// clients that share code with v4 send. The 32-bit fields of versions 1 and 3 are widened by the caller.
    pub fn from_nlm(offset: u64, length: u64) -> Result<Self, RangeError> {
        match length {
            Self::NLM_TO_EOF | Self::V4_TO_EOF => Ok(Self::to_eof(offset)),
            _ => Self::finite(offset, length),
        }
    }

    /// From NFSv4's `offset` and `length`: all bits set is to the end of file, zero is an error (RFC 7530 §16.10.4).
    pub fn from_v4(offset: u64, length: u64) -> Result<Self, RangeError> {
        match length {
            Self::V4_TO_EOF => Ok(Self::to_eof(offset)),
            _ => Self::finite(offset, length),
        }
    }

    /// `length` bytes from `offset`: neither empty nor past 2^64 - 1.
    pub fn finite(offset: u64, length: u64) -> Result<Self, RangeError> {
        if length == 0 {
            return Err(RangeError::Empty);
        }
        let end = offset.checked_add(length).ok_or(RangeError::Overflow { offset, length })?;
        Ok(Self { first: offset, last: end - 1 })
    }

    /// From `offset` to the end of file, wherever that is.
    pub const fn to_eof(offset: u64) -> Self {
        Self { first: offset, last: u64::MAX }
    }

    /// From both ends, inclusive; `last = u64::MAX` is to the end of file.
    pub fn inclusive(first: u64, last: u64) -> Result<Self, RangeError> {
        if first > last { Err(RangeError::Reversed { first, last }) } else { Ok(Self { first, last }) }
    }

    /// First byte of the range (the offset).
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Last byte of the range; `u64::MAX` when it runs to the end of file.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Whether the range runs to the end of file.
    pub const fn is_to_eof(&self) -> bool {
        self.last == u64::MAX
    }

    /// Number of bytes; `None` when it runs to the end of file.
    pub const fn length(&self) -> Option<u64> {
        if self.is_to_eof() { None } else { Some(self.last - self.first + 1) }
    }

    /// `(l_offset, l_len)` for NLM version 4.
    pub fn to_nlm(&self) -> (u64, u64) {
        (self.first, self.length().unwrap_or(Self::NLM_TO_EOF))
    }

    /// `(l_offset, l_len)` for NLM versions 1 and 3. What 32 bits can't say is cut: an offset to the highest one, an
    /// end to "end of file", so that the report never shows less than the part of the lock that such a client can see.
    pub fn to_nlm32(&self) -> (u32, u32) {
        let offset = u32::try_from(self.first).unwrap_or(u32::MAX);
        let length = match self.length() {
            Some(length) if self.last <= u64::from(u32::MAX) => u32::try_from(length).unwrap_or(0),
            _ => 0,
        };
        (offset, length)
    }

    /// `(offset, length)` for NFSv4.
    pub fn to_v4(&self) -> (u64, u64) {
        (self.first, self.length().unwrap_or(Self::V4_TO_EOF))
    }

    /// Whether both have a byte in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether every byte of `other` is in `self`.
    pub const fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The bytes that both have.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::inclusive(self.first.max(other.first), self.last.min(other.last)).ok()
    }

    /// The part of `self` before the first byte of `cut`.
    pub(crate) fn before(&self, cut: &Self) -> Option<Self> {
        let last = cut.first.checked_sub(1)?.min(self.last);
        Self::inclusive(self.first, last).ok()
    }

    /// The part of `self` after the last byte of `cut`.
    pub(crate) fn after(&self, cut: &Self) -> Option<Self> {
        let first = cut.last.checked_add(1)?.max(self.first);
        Self::inclusive(first, self.last).ok()
    }

    /// Whether `next` begins at the byte right after `self`.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        self.last.checked_add(1) == Some(next.first)
    }

    /// One range over `self` and `next`, which follows it.
    pub(crate) fn joined_with(&self, next: &Self) -> Self {
        debug_assert!(self.is_followed_by(next));
        Self { first: self.first, last: next.last }
    }
}

impl TryFrom<(u64, u64)> for ByteRange {
    type Error = RangeError;

    fn try_from((first, last): (u64, u64)) -> Result<Self, RangeError> {
        Self::inclusive(first, last)
    }
}

impl From<ByteRange> for (u64, u64) {
    fn from(range: ByteRange) -> Self {
        (range.first, range.last)
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `first-last` inclusive, or `first-eof`.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_to_eof() {
            write!(f, "{}-eof", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn length_that_means_to_end_of_file_differs_by_protocol() {
        assert_eq!(ByteRange::from_nlm(7, 0).unwrap(), ByteRange::to_eof(7));
        assert_eq!(ByteRange::from_nlm(7, u64::MAX).unwrap(), ByteRange::to_eof(7));
        assert_eq!(ByteRange::from_v4(7, u64::MAX).unwrap(), ByteRange::to_eof(7));
        assert_eq!(ByteRange::from_v4(7, 0), Err(RangeError::Empty));
        assert_eq!(ByteRange::to_eof(7).to_nlm(), (7, 0));
        assert_eq!(ByteRange::to_eof(7).to_v4(), (7, u64::MAX));
    }

    #[test]
    fn ends_near_the_last_offset() {
        // offset + length = 2^64 - 1 is the longest finite range that the RFC allows; it is not "to end of file".
        let longest = ByteRange::from_v4(1, u64::MAX - 1).unwrap();
        assert_eq!((longest.first(), longest.last()), (1, u64::MAX - 1));
        assert!(!longest.is_to_eof());
        assert_eq!(longest.to_v4(), (1, u64::MAX - 1));
        assert_eq!(
            ByteRange::from_v4(2, u64::MAX - 1),
            Err(RangeError::Overflow { offset: 2, length: u64::MAX - 1 })
        );
        assert_eq!(
            ByteRange::from_nlm(u64::MAX, 1),
            Err(RangeError::Overflow { offset: u64::MAX, length: 1 })
        );
        let last = ByteRange::from_nlm(u64::MAX, 0).unwrap();
        assert!(last.is_to_eof() && last.overlaps(&ByteRange::WHOLE) && !last.overlaps(&longest));
        assert!(longest.is_followed_by(&last) && longest.joined_with(&last) == ByteRange::to_eof(1));
    }

    #[test]
    fn parts_outside_a_cut() {
        let range = ByteRange::finite(10, 10).unwrap();
        let cut = ByteRange::finite(12, 3).unwrap();
        assert_eq!(range.before(&cut), Some(ByteRange::inclusive(10, 11).unwrap()));
        assert_eq!(range.after(&cut), Some(ByteRange::inclusive(15, 19).unwrap()));
        assert_eq!(range.before(&ByteRange::WHOLE), None);
        assert_eq!(range.after(&ByteRange::WHOLE), None);
        assert_eq!(range.intersection(&ByteRange::to_eof(19)), Some(ByteRange::finite(19, 1).unwrap()));
        assert_eq!(range.intersection(&ByteRange::to_eof(20)), None);
    }

    #[test]
    fn what_32_bits_cannot_say() {
        assert_eq!(ByteRange::finite(5, 6).unwrap().to_nlm32(), (5, 6));
        assert_eq!(ByteRange::to_eof(5).to_nlm32(), (5, 0));
        assert_eq!(ByteRange::finite(5, 1 << 40).unwrap().to_nlm32(), (5, 0));
        assert_eq!(ByteRange::finite(1 << 40, 1).unwrap().to_nlm32(), (u32::MAX, 0));
        // 2^32 bytes from 0 end at the last 32-bit offset but their number does not fit: to end of file.
        assert_eq!(ByteRange::finite(0, 1 << 32).unwrap().to_nlm32(), (0, 0));
    }

    #[test]
    fn stored_bytes_are_checked() {
        let bytes = postcard::to_stdvec(&(9_u64, 3_u64)).unwrap();
        assert!(postcard::from_bytes::<ByteRange>(&bytes).is_err());
        let range = ByteRange::finite(3, 4).unwrap();
        assert_eq!(postcard::from_bytes::<ByteRange>(&postcard::to_stdvec(&range).unwrap()).unwrap(), range);
    }
}
