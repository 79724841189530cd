//! The ranges that one owner holds, as a canonical list.
//!
//! Invariants: segments are sorted by offset, do not overlap, and two that touch differ in mode. So equal holdings are
//! equal values but for their times, and a listing shows what POSIX shows: neighbours of one mode are one lock (fcntl; RFC 7530 §9.1), as old as
//! the oldest of them.

use serde::{Deserialize, Serialize};

use crate::range::ByteRange;

/// Mode of a byte-range lock. Ordered by strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// Read lock: any number of owners (NLM `exclusive` false; READ_LT).
    Shared,
    /// Write lock: one owner, and no other of any mode (NLM `exclusive` true; WRITE_LT).
    Exclusive,
}

impl LockMode {
    /// Whether locks of two owners in these modes can't hold the same byte.
    pub const fn conflicts_with(self, other: Self) -> bool {
        matches!(self, Self::Exclusive) || matches!(other, Self::Exclusive)
    }
}

/// A locked range and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The bytes.
    pub range: ByteRange,
    /// The mode.
    pub mode: LockMode,
    /// Since when the first of the bytes is held in this mode: seconds since 1970.
    pub since: i64,
}

/// A canonical list of [`Segment`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RangeMap {
    segments: Vec<Segment>,
}

impl RangeMap {
    pub(crate) fn of(range: ByteRange, mode: LockMode, since: i64) -> Self {
        Self { segments: vec![Segment { range, mode, since }] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments that overlap `range`.
    pub(crate) fn overlapping(&self, range: ByteRange) -> &[Segment] {
        let (low, high) = self.bounds(range);
        &self.segments[low..high]
    }

    /// The first segment that a lock of another owner on `range` in `mode` conflicts with.
    pub(crate) fn first_conflict(&self, range: ByteRange, mode: LockMode) -> Option<Segment> {
        self.overlapping(range).iter().find(|held| held.mode.conflicts_with(mode)).copied()
    }

    /// Every byte of `range` is held in `mode` afterwards, since then unless it was before. Adds at most 2 segments.
    pub(crate) fn set(&mut self, range: ByteRange, mode: LockMode, since: i64) {
        self.replace(range, Some((mode, since)));
    }

    /// No byte of `range` is held afterwards. Adds at most 1 segment.
    pub(crate) fn clear(&mut self, range: ByteRange) {
        self.replace(range, None);
    }

    /// What of `range` is held exclusively is held shared afterwards; what is not held stays so. Adds at most 2 segments
    /// (inner ones only merge).
    pub(crate) fn weaken(&mut self, range: ByteRange) {
        let exclusive: Vec<(ByteRange, i64)> = self
            .overlapping(range)
            .iter()
            .filter(|held| held.mode == LockMode::Exclusive)
            .filter_map(|held| Some((held.range.intersection(&range)?, held.since)))
            .collect();
        for (part, since) in exclusive {
            self.set(part, LockMode::Shared, since);
        }
    }

    /// What `top` holds replaces what was held there.
    pub(crate) fn overlay(&mut self, top: &Self) {
        for segment in &top.segments {
            self.set(segment.range, segment.mode, segment.since);
        }
    }

    /// What `other` holds, in whatever mode, is not held afterwards.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for segment in &other.segments {
            self.clear(segment.range);
        }
    }

    /// Whether the invariants of this file hold.
    pub(crate) fn is_canonical(&self) -> bool {
        self.segments.windows(2).all(|pair| {
            let [a, b] = pair else { return false };
            let touching = a.range.is_followed_by(&b.range);
            a.range.last() < b.range.first() && !(touching && a.mode == b.mode)
        })
    }

    /// Indices `low..high` of the segments that overlap `range`.
    fn bounds(&self, range: ByteRange) -> (usize, usize) {
        let low = self.segments.partition_point(|held| held.range.last() < range.first());
        let high = self.segments.partition_point(|held| held.range.first() <= range.last());
        (low, high)
    }

    fn replace(&mut self, range: ByteRange, with: Option<(LockMode, i64)>) {
        if self.segments.is_empty() {
            self.segments.extend(with.map(|(mode, since)| Segment { range, mode, since }));
            return;
        }
        let (low, high) = self.bounds(range);
        let overlapping = &self.segments[low..high];
        let left =
            overlapping.first().and_then(|held| Some(Segment { range: held.range.before(&range)?, ..*held }));
        let right =
            overlapping.last().and_then(|held| Some(Segment { range: held.range.after(&range)?, ..*held }));
        // The neighbours on both sides may touch: they go through the merge as well.
        let before = low.checked_sub(1).map(|i| self.segments[i]);
        let after = self.segments.get(high).copied();
        let low = low - usize::from(before.is_some());
        let high = high + usize::from(after.is_some());

        let middle = with.map(|(mode, since)| {
            let same = overlapping.iter().filter(|held| held.mode == mode);
            let since = same.map(|held| held.since).fold(since, i64::min);
            Segment { range, mode, since }
        });
        let mut merged: Vec<Segment> = Vec::with_capacity(5);
        for segment in [before, left, middle, right, after].into_iter().flatten() {
            match merged.last_mut() {
                Some(last) if last.mode == segment.mode && last.range.is_followed_by(&segment.range) => {
                    last.range = last.range.joined_with(&segment.range);
                    last.since = last.since.min(segment.since);
                }
                _ => merged.push(segment),
            }
        }
        self.segments.splice(low..high, merged);
    }
}
