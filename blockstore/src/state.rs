//! What the store knows in memory: the index, the accounts of each segment, and shadows. Pure.
//!
//! A *shadow* is a copy of a live block's record in another segment (compaction copied the block and the old segment
//! still exists, or a block was put twice). The newest copy counts at recovery; a deletion writes a tombstone for
//! the live record and for every shadow, or the shadow would come back as the block after a crash.

use crate::format::{ENTRY, Tombstone, record_len};
use crate::index::{Index, Place};
use atoll_base::block::BlockId;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Accounts of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentState {
    pub(crate) salt: u64,
    /// Bytes that the file takes (once sealed: exactly).
    pub(crate) size: u64,
    /// Bytes of records of live blocks.
    pub(crate) live: u64,
    /// Live blocks.
    pub(crate) blocks: u64,
    /// Tombstones in this segment by the segment whose records they bury. Those of a segment that is gone count
    /// no more.
    pub(crate) buries: BTreeMap<u32, u64>,
    /// When a block in it was deleted last, if one was since the store was opened.
    pub(crate) deleted: Option<Instant>,
    pub(crate) sealed: bool,
    /// A live block in it is damaged and cannot be copied: compaction leaves the segment alone.
    pub(crate) pinned: bool,
}

impl SegmentState {
    /// Bytes that compaction would have to copy.
    pub(crate) fn needed(&self) -> u64 {
        self.live + self.buries.values().sum::<u64>() * ENTRY as u64
    }

    /// Whether some of it lives, and a block of it was deleted within `quiet` before `now`: then more of them may soon be.
    pub(crate) fn is_dying(&self, quiet: Duration, now: Instant) -> bool {
        self.blocks > 0 && self.deleted.is_some_and(|at| now.saturating_duration_since(at) < quiet)
    }
}

/// All of it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) segments: BTreeMap<u32, SegmentState>,
    pub(crate) shadows: HashMap<BlockId, Vec<Place>>,
}

impl State {
    fn gain(&mut self, place: Place) {
        let segment = self.segments.get_mut(&place.segment).expect("a block's segment is known");
        segment.live += record_len(place.len);
        segment.blocks += 1;
    }

    fn lose(&mut self, place: Place) -> &mut SegmentState {
        let segment = self.segments.get_mut(&place.segment).expect("a block's segment is known");
        segment.live -= record_len(place.len);
        segment.blocks -= 1;
        segment
    }

    /// The block is now at `place`; a copy elsewhere becomes a shadow.
    pub(crate) fn put(&mut self, id: BlockId, place: Place) {
        self.gain(place);
        if let Some(old) = self.index.insert(id, place) {
            self.lose(old);
            self.shadows.entry(id).or_default().push(old);
        }
    }

    /// Notes an older copy of a live block, found at recovery.
    pub(crate) fn shadow(&mut self, id: BlockId, place: Place) {
        self.shadows.entry(id).or_default().push(place);
    }

    /// The tombstones that bury a block wholly; none if it does not exist.
    pub(crate) fn tombstones(&self, id: BlockId) -> Vec<Tombstone> {
        let Some(place) = self.index.get(id) else { return Vec::new() };
        let shadows = self.shadows.get(&id).into_iter().flatten();
        std::iter::once(&place)
            .chain(shadows)
            .map(|p| Tombstone { id, segment: p.segment, units: p.units })
            .collect()
    }

    /// The block is dead.
    pub(crate) fn delete(&mut self, id: BlockId, now: Instant) {
        if let Some(place) = self.index.remove(id) {
            self.lose(place).deleted = Some(now);
        }
        self.shadows.remove(&id);
    }

    /// Tombstones were written in `segment`.
    pub(crate) fn buried(&mut self, segment: u32, tombstones: &[Tombstone]) {
        for t in tombstones {
            if self.segments.contains_key(&t.segment) {
                let holder = self.segments.get_mut(&segment).expect("the segment written to is known");
                *holder.buries.entry(t.segment).or_default() += 1;
            }
        }
    }

    /// A segment's file is gone for good.
    pub(crate) fn drop_segment(&mut self, number: u32) {
        let gone = self.segments.remove(&number);
        assert!(gone.is_none_or(|s| s.blocks == 0), "a segment with live blocks is not dropped");
        self.shadows.retain(|_, places| {
            places.retain(|p| p.segment != number);
            !places.is_empty()
        });
        for segment in self.segments.values_mut() {
            segment.buries.remove(&number);
        }
    }
}
