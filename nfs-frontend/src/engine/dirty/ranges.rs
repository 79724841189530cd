//! Byte ranges of one file and the bytes in them: the pure part of the dirty map.
//!
//! A later write wins over an earlier one, byte by byte. Payloads are slices of receive buffers, kept without a copy
//! as long as they are most of what they keep alive.
//!
//! Invariants:
//! - segments are not empty, do not overlap, and are in order of offset;
//! - the buffer behind a segment is at most [`WASTE`] times as long as the segment (or the segment owns its bytes
//!   alone), so [`RangeMap::cost`] bounds the memory that is really held, whatever clients overwrite;
//! - `bytes` and `cost` are the sums over the segments.

use crate::rpc;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What one segment costs besides its bytes: tree node, `Bytes`, allocation headers, rounded up.
pub(crate) const SEGMENT_COST: u64 = 256;

/// How many times longer than a segment its buffer may be.
const WASTE: usize = 2;

/// Payloads below this are copied into a buffer of their own, but for those in [`OWN_RECORD`]. A receive buffer may hold
/// much more than one record, and a small slice must not keep it; from here on a payload is nearly all of its record.
pub(crate) const COPY_BELOW: usize = 64 << 10;

/// Payloads of such lengths are most of a record that came in a buffer of its own ([`rpc::OWN_RECORD`]): what is before
/// them in it (credential, verifier, handle) is below 1200 bytes.
const OWN_RECORD: std::ops::RangeInclusive<usize> = 2048..=rpc::OWN_RECORD - 2048;

#[derive(Clone, Debug)]
struct Segment {
    data: Bytes,
    /// Length of the buffer that `data` keeps alive.
    backing: usize,
}

impl Segment {
    fn cost(&self) -> u64 {
        SEGMENT_COST + self.backing as u64
    }

    /// A part of this segment, copied if too little of the buffer would be left in use.
    fn part(&self, range: std::ops::Range<usize>) -> Segment {
        if range.len() * WASTE < self.backing {
            Segment { data: Bytes::copy_from_slice(&self.data[range.clone()]), backing: range.len() }
        } else {
            Segment { data: self.data.slice(range), backing: self.backing }
        }
    }
}

/// Bytes by file offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeMap {
    segments: BTreeMap<u64, Segment>,
    bytes: u64,
    cost: u64,
}

impl RangeMap {
    /// Whether there are no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// First byte behind the last; 0 if there are none.
    pub(crate) fn end(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(at, segment)| at + segment.data.len() as u64)
    }

    /// Number of distinct bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory, see the module's invariants.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// Number of segments.
    #[cfg(test)]
    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    fn put(&mut self, offset: u64, segment: Segment) {
        self.bytes += segment.data.len() as u64;
        self.cost += segment.cost();
        let former = self.segments.insert(offset, segment);
        assert!(former.is_none(), "segments do not overlap");
    }

    fn take(&mut self, offset: u64) -> Segment {
        let segment = self.segments.remove(&offset).expect("the key was just seen");
        self.bytes -= segment.data.len() as u64;
        self.cost -= segment.cost();
        segment
    }

    /// Puts bytes at `offset`, over what is there. `offset + data.len()` must not overflow.
    pub(crate) fn insert(&mut self, offset: u64, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        self.clear(offset, end);
        let backing = data.len();
        let shared = backing < COPY_BELOW && !OWN_RECORD.contains(&backing);
        let data = if shared { Bytes::copy_from_slice(&data) } else { data };
        self.put(offset, Segment { data, backing });
    }

    /// Forgets the bytes of `start..end`.
    pub(crate) fn clear(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let sticking_out = self.segments.range(..start).next_back().map(|(at, s)| (*at, s.data.len() as u64));
        if let Some((at, len)) = sticking_out
            && at + len > start
        {
            let segment = self.take(at);
            if at + len > end {
                self.put(end, segment.part((end - at) as usize..segment.data.len()));
            }
            self.put(at, segment.part(0..(start - at) as usize));
        }
        while let Some(at) = self.segments.range(start..end).next().map(|(at, _)| *at) {
            let segment = self.take(at);
            if at + segment.data.len() as u64 > end {
                self.put(end, segment.part((end - at) as usize..segment.data.len()));
            }
        }
    }

    /// Cuts the segment that lies across `at` in two.
    fn cut(&mut self, at: u64) {
        let across = self.segments.range(..at).next_back().map(|(from, s)| (*from, s.data.len() as u64));
        if let Some((from, len)) = across
            && from + len > at
        {
            let segment = self.take(from);
            let middle = (at - from) as usize;
            self.put(at, segment.part(middle..segment.data.len()));
            self.put(from, segment.part(0..middle));
        }
    }

    /// Moves the bytes of all pieces of `unit` bytes, at multiples of it, that are here whole out of this map, if they
    /// are `least` bytes or more.
    pub(crate) fn take_whole(&mut self, unit: u64, least: u64) -> Option<RangeMap> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (at, s) in &self.segments {
            let end = at + s.data.len() as u64;
            match runs.last_mut() {
                Some(run) if run.1 == *at => run.1 = end,
                _ => runs.push((*at, end)),
            }
        }
        runs.iter_mut().for_each(|run| *run = (run.0.next_multiple_of(unit), run.1 / unit * unit));
        runs.retain(|run| run.0 < run.1);
        if runs.is_empty() || runs.iter().map(|run| run.1 - run.0).sum::<u64>() < least {
            return None;
        }
        let mut taken = RangeMap::default();
        for (start, end) in runs {
            self.cut(start);
            self.cut(end);
            while let Some(at) = self.segments.range(start..end).next().map(|(at, _)| *at) {
                let segment = self.take(at);
                taken.put(at, segment);
            }
        }
        Some(taken)
    }

    /// The bytes within `start..end`, in order, as (offset, slice).
    pub(crate) fn slices(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        let first = match self.segments.range(..start).next_back() {
            Some((at, s)) if at + s.data.len() as u64 > start => *at,
            _ => start,
        };
        self.segments.range(first..end.max(first)).map(move |(at, s)| {
            let from = start.saturating_sub(*at) as usize;
            let to = s.data.len().min((end - at) as usize);
            (at + from as u64, s.data.slice(from..to))
        })
    }

    /// All segments in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        self.segments.iter().map(|(at, s)| (*at, &s.data))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, usize, u8),
        Clear(u64, u64),
        Take(u64, u64),
    }

    /// Lengths on both sides of the copying threshold, in units that overlap often.
    fn any_len() -> impl Strategy<Value = usize> {
        prop_oneof![1usize..3000, COPY_BELOW - 10..COPY_BELOW * 3]
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let write = (0u64..400_000, any_len(), any::<u8>());
        prop_oneof![
            6 => write.prop_map(|(o, l, b)| Step::Insert(o, l, b)),
            2 => (0u64..400_000, 0u64..200_000).prop_map(|(o, l)| Step::Clear(o, o + l)),
            1 => (1u64..100_000, 0u64..100_000).prop_map(|(unit, least)| Step::Take(unit, least)),
        ]
    }

    fn check(map: &RangeMap, model: &[Option<u8>]) {
        let mut seen = vec![None; model.len()];
        let (mut bytes, mut cost, mut last) = (0, 0, 0);
        for (at, s) in &map.segments {
            assert!(!s.data.is_empty() && *at >= last, "not empty, in order, not overlapping");
            assert!(s.backing <= s.data.len() * WASTE, "no segment keeps a much larger buffer");
            last = at + s.data.len() as u64;
            bytes += s.data.len() as u64;
            cost += s.cost();
            for (i, b) in s.data.iter().enumerate() {
                seen[*at as usize + i] = Some(*b);
            }
        }
        assert_eq!((bytes, cost), (map.bytes, map.cost));
        assert!(seen == model, "the same bytes as in the naive model");
    }

    fn payload(len: usize, b: u8) -> Bytes {
        (0..len).map(|i| b.wrapping_add((i % 251) as u8)).collect::<Vec<_>>().into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn equals_a_plain_array(steps in prop::collection::vec(any_step(), 1..25), probe in (0u64..400_000, 0u64..100_000)) {
            let mut map = RangeMap::default();
            let mut model = vec![None; 800_000];
            fn write(model: &mut [Option<u8>], o: u64, data: &Bytes) {
                for (i, b) in data.iter().enumerate() {
                    model[o as usize + i] = Some(*b);
                }
            }
            for step in steps {
                match step {
                    Step::Insert(o, l, b) => {
                        let data = payload(l, b);
                        write(&mut model, o, &data);
                        map.insert(o, data);
                    }
                    Step::Clear(from, to) => {
                        map.clear(from, to);
                        model[from as usize..to as usize].fill(None);
                    }
                    Step::Take(unit, least) => {
                        let mut whole = vec![None; model.len()];
                        for (to, from) in whole.chunks_mut(unit as usize).zip(model.chunks(unit as usize)) {
                            if from.len() == unit as usize && from.iter().all(Option::is_some) {
                                to.copy_from_slice(from);
                            }
                        }
                        let bytes = whole.iter().flatten().count() as u64;
                        match map.take_whole(unit, least) {
                            Some(taken) => {
                                prop_assert!(bytes > 0 && bytes >= least);
                                check(&taken, &whole);
                                model.iter_mut().zip(&whole).filter(|(_, w)| w.is_some()).for_each(|(m, _)| *m = None);
                            }
                            None => prop_assert!(bytes == 0 || bytes < least),
                        }
                    }
                }
                check(&map, &model);
            }
            let (start, end) = (probe.0, probe.0 + probe.1);
            let mut got = vec![None; model.len()];
            for (at, data) in map.slices(start, end) {
                prop_assert!(at >= start && at + data.len() as u64 <= end && !data.is_empty());
                write(&mut got, at, &data);
            }
            prop_assert!(got[start as usize..end as usize] == model[start as usize..end as usize]);
        }
    }

    #[test]
    fn an_overwritten_receive_buffer_is_let_go() {
        let mut map = RangeMap::default();
        map.insert(0, Bytes::from(vec![1; 1 << 20]));
        map.insert(4096, Bytes::from(vec![2; (1 << 20) - 4096]));
        assert_eq!(map.segments(), 2);
        assert_eq!(map.cost(), (1 << 20) + 2 * SEGMENT_COST, "4 KiB of the first buffer were copied out");
    }
}
