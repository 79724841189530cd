//! Blocks that somebody will read soon, read ahead past the page cache into memory that is used again.
//!
//! A stream that is read once gains nothing from the page cache and pays for it: a fresh page for each 4 KiB (where a hypervisor
//! has taken free memory back, several microseconds each), and a copy out of it. What is read ahead is verified when it comes from
//! the disk and then given out as it lies, without a copy.
//!
//! What is read again is what the page cache is for. So the store remembers which blocks large reads asked for lately; those are
//! not read ahead but through the cache, where the third reader finds them.
//!
//! Neighbours on the disk are read at once, as a [`Run`], into one [region](crate::warm) that comes back when the answers made of it are
//! sent.
//!
//! Bounds: [`Config::ahead_bytes`](crate::Config) of regions, in which all lies that is being read, waits to be asked for, or is
//! being sent; [`SEEN`] block ids. When there is no room, what nobody asked for within [`STALE`] makes some; else nothing is read ahead,
//! and the read itself goes the usual way.

use crate::format::{UNIT, record_len};
use crate::index::Place;
use crate::lock::lock;
use crate::metrics::{add, get};
use crate::warm::{Loan, Pool};
use atoll_base::block::BlockId;
use atoll_base::clock_cache::ClockCache;
use atoll_base::disk::DIRECT_ALIGN;
use atoll_base::limits::BLOCK_MAX;
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Shorter blocks go through the page cache, as they were written: a direct read of them costs more than it saves.
pub(crate) const BLOCK_MIN: u32 = 128 << 10;

/// Bytes of a region: the longest block with its head, or four of 1 MiB, from one multiple of [`DIRECT_ALIGN`] to another.
const RUN_MAX: usize = BLOCK_MAX as usize + (64 << 10);

/// What may lie between two neighbours: zeros before a batch that was aligned.
const GAP_MAX: u64 = DIRECT_ALIGN as u64;

/// Reads from this size on count as having read the block.
pub(crate) const READ_MIN: u32 = 64 << 10;

/// Blocks remembered as read lately: 32 GiB of 1 MiB, for about 2 MiB of memory.
const SEEN: usize = 32 << 10;

/// A stream that paused for so long has stopped, as far as its room is concerned.
const STALE: Duration = Duration::from_secs(1);

enum State {
    /// A reader thread has it or will; who asks meanwhile waits here.
    Reading(Vec<oneshot::Sender<()>>),
    /// The whole payload, verified.
    Ready(Bytes),
}

struct Entry {
    state: State,
    /// Expected bytes that were not asked for yet; the entry goes with the last.
    left: u32,
    since: Instant,
}

/// Blocks that lie one behind the other in a segment, and how many bytes of each are wanted.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) salt: u64,
    pub(crate) blocks: Vec<(BlockId, Place, u32)>,
}

impl Run {
    /// Where the run is in its segment's file, as direct reads want it. Not of an empty run.
    pub(crate) fn range(&self) -> Range<u64> {
        let (first, last) = (self.blocks[0].1, self.blocks[self.blocks.len() - 1].1);
        let align = DIRECT_ALIGN as u64;
        u64::from(first.units) * UNIT / align * align..end_of(last).next_multiple_of(align)
    }

    /// Adds a block, if it comes next.
    pub(crate) fn add(&mut self, id: BlockId, place: Place, salt: u64, expected: u32) -> bool {
        if let Some((_, last, _)) = self.blocks.last() {
            let start = u64::from(place.units) * UNIT;
            let gap = start.checked_sub(end_of(*last));
            if place.segment != last.segment || gap.is_none_or(|gap| gap > GAP_MAX) {
                return false;
            }
        }
        self.salt = salt;
        self.blocks.push((id, place, expected));
        let range = self.range();
        let fits = range.end - range.start <= RUN_MAX as u64;
        if !fits {
            self.blocks.pop();
        }
        fits
    }
}

fn end_of(place: Place) -> u64 {
    u64::from(place.units) * UNIT + record_len(place.len)
}

/// How reading ahead is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AheadStatus {
    /// Memory taken for it, in use or kept for the next.
    pub bytes: u64,
    /// Most of that.
    pub limit: u64,
    /// Blocks read ahead since the start.
    pub blocks: u64,
    /// Reads answered from them.
    pub hits: u64,
    /// Blocks that were dropped before they were asked for whole.
    pub wasted: u64,
}

/// What is known about a range.
pub(crate) enum Found {
    Bytes(Bytes),
    /// Ask again when this ends.
    Soon(oneshot::Receiver<()>),
    Nothing,
}

pub(crate) struct Ahead {
    pool: Pool,
    entries: Mutex<HashMap<BlockId, Entry>>,
    /// Entries, so that nobody takes the lock to learn that there are none.
    count: AtomicUsize,
    seen: ClockCache<BlockId>,
    hasher: RandomState,
    blocks: AtomicU64,
    hits: AtomicU64,
    wasted: AtomicU64,
}

impl Ahead {
    /// Holds at most `limit` bytes; with less than a region's, nothing is read ahead.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            pool: Pool::new(RUN_MAX, limit / RUN_MAX),
            entries: Mutex::default(),
            count: AtomicUsize::new(0),
            seen: ClockCache::new(SEEN),
            hasher: RandomState::new(),
            blocks: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            wasted: AtomicU64::new(0),
        }
    }

    fn key(&self, id: BlockId) -> u64 {
        self.hasher.hash_one(id)
    }

    /// Remembers that a block was read.
    pub(crate) fn saw(&self, id: BlockId) {
        if self.pool.limit() > 0 {
            self.seen.put(self.key(id), id);
        }
    }

    /// Whether it makes sense to read a block of `size` bytes ahead of which `expected` will be asked for.
    pub(crate) fn wants(&self, id: BlockId, size: u32, expected: u32) -> bool {
        // Of a block of which little is wanted, the rest would be read for nothing.
        size >= BLOCK_MIN
            && expected >= size / 2
            && self.pool.limit() > 0
            && self.seen.get(self.key(id), |seen| (*seen == id).then_some(())).is_none()
            && !lock(&self.entries).contains_key(&id)
    }

    /// Memory for a run. Who gets it must read it and call [`Ahead::finish`] or
    /// [`Ahead::give_up`] for each block.
    pub(crate) fn begin(&self, run: &Run, now: Instant) -> Option<Loan> {
        let mut entries = lock(&self.entries);
        if run.blocks.iter().any(|(id, ..)| entries.contains_key(id)) {
            return None;
        }
        let memory = loop {
            match self.pool.get() {
                Some(memory) => break memory,
                None if self.drop_stale(&mut entries, now) => {}
                None => return None,
            }
        };
        for &(id, _, left) in &run.blocks {
            entries.insert(id, Entry { state: State::Reading(Vec::new()), left, since: now });
        }
        self.count.store(entries.len(), Ordering::Release);
        Some(memory)
    }

    /// Lets go of the oldest that nobody asked for in time; whether there was one.
    fn drop_stale(&self, entries: &mut HashMap<BlockId, Entry>, now: Instant) -> bool {
        let ready = entries.iter().filter(|(_, e)| matches!(e.state, State::Ready(_)));
        let oldest = ready.min_by_key(|(_, e)| e.since).map(|(id, e)| (*id, e.since));
        let Some((id, since)) = oldest else { return false };
        if now.duration_since(since) < STALE {
            return false;
        }
        entries.remove(&id);
        self.count.store(entries.len(), Ordering::Release);
        add(&self.wasted, 1);
        true
    }

    /// The block's payload, verified.
    pub(crate) fn finish(&self, id: BlockId, payload: Bytes, now: Instant) {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(&id) else { return };
        entry.since = now;
        let before = std::mem::replace(&mut entry.state, State::Ready(payload));
        drop(entries);
        add(&self.blocks, 1);
        wake(before);
    }

    /// The block cannot be had, unless it is here already: whoever waits then reads for himself and learns why.
    pub(crate) fn give_up(&self, id: BlockId) {
        let mut entries = lock(&self.entries);
        if !entries.get(&id).is_some_and(|e| matches!(e.state, State::Reading(_))) {
            return;
        }
        let entry = entries.remove(&id).expect("was just there");
        self.count.store(entries.len(), Ordering::Release);
        drop(entries);
        wake(entry.state);
    }

    /// Bytes `range` of a block that exists.
    pub(crate) fn take(&self, id: BlockId, range: Range<usize>) -> Found {
        if self.count.load(Ordering::Acquire) == 0 {
            return Found::Nothing;
        }
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(&id) else { return Found::Nothing };
        let bytes = match &mut entry.state {
            State::Ready(bytes) if range.end <= bytes.len() => bytes.slice(range.clone()),
            State::Ready(_) => return Found::Nothing,
            State::Reading(waiting) => {
                let (done, soon) = oneshot::channel();
                waiting.push(done);
                return Found::Soon(soon);
            }
        };
        entry.left = entry.left.saturating_sub(range.len() as u32);
        if entry.left == 0 {
            entries.remove(&id);
            self.count.store(entries.len(), Ordering::Release);
        }
        drop(entries);
        add(&self.hits, 1);
        Found::Bytes(bytes)
    }

    pub(crate) fn status(&self) -> AheadStatus {
        AheadStatus {
            bytes: self.pool.bytes(),
            limit: self.pool.limit(),
            blocks: get(&self.blocks),
            hits: get(&self.hits),
            wasted: get(&self.wasted),
        }
    }
}

fn wake(before: State) {
    if let State::Reading(waiting) = before {
        // Who no longer waits needs no word.
        waiting.into_iter().for_each(|w| _ = w.send(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_base::id::Epoch;

    const MIB: u32 = 1 << 20;

    fn id(n: u64) -> BlockId {
        BlockId::new(Epoch(1), n)
    }

    /// A block of 1 MiB, one behind the other.
    fn place(n: u64) -> Place {
        Place { segment: 1, units: (n * record_len(MIB) / UNIT) as u32, len: MIB }
    }

    fn run(numbers: &[u64]) -> Run {
        let mut run = Run::default();
        for n in numbers {
            assert!(run.add(id(*n), place(*n), 5, MIB));
        }
        run
    }

    fn payload() -> Bytes {
        Bytes::from(vec![1; MIB as usize])
    }

    fn bytes(ahead: &Ahead, n: u64, range: Range<usize>) -> Option<usize> {
        match ahead.take(id(n), range) {
            Found::Bytes(bytes) => Some(bytes.len()),
            Found::Soon(_) | Found::Nothing => None,
        }
    }

    #[test]
    fn neighbours_make_a_run_as_long_as_a_region_takes_them() {
        let mut four = run(&[1, 2, 3, 4]);
        assert!(!four.add(id(5), place(5), 5, MIB), "is full");
        assert_eq!(four.blocks.len(), 4);
        let range = four.range();
        assert!(range.start <= u64::from(place(1).units) * UNIT && range.end >= end_of(place(4)));
        assert!(
            range.start.is_multiple_of(DIRECT_ALIGN as u64) && range.end.is_multiple_of(DIRECT_ALIGN as u64)
        );

        assert!(!run(&[1]).add(id(3), place(3), 5, MIB), "lies further off");
        assert!(!run(&[2]).add(id(1), place(1), 5, MIB), "lies before");
        assert!(!run(&[1]).add(id(2), Place { segment: 2, ..place(2) }, 5, MIB), "lies in another segment");
        let aligned = Place { units: place(2).units + 7, ..place(2) };
        assert!(run(&[1]).add(id(2), aligned, 5, MIB), "zeros between batches are read along");
        let long = Place { len: BLOCK_MAX, ..place(1) };
        assert!(Run::default().add(id(1), long, 5, BLOCK_MAX), "the longest block fits");
    }

    #[test]
    fn goes_with_the_last_byte_that_was_expected() {
        let ahead = Ahead::new(2 * RUN_MAX);
        let now = Instant::now();
        assert!(ahead.begin(&run(&[1]), now).is_some());
        assert!(ahead.begin(&run(&[1]), now).is_none(), "is on its way");
        assert!(!ahead.wants(id(1), MIB, MIB));
        let Found::Soon(mut soon) = ahead.take(id(1), 0..10) else { panic!("nothing came yet") };
        assert!(soon.try_recv().is_err());
        ahead.finish(id(1), payload(), now);
        assert_eq!(soon.try_recv(), Ok(()));
        assert_eq!(bytes(&ahead, 1, 0..MIB as usize / 2), Some(MIB as usize / 2));
        assert_eq!(bytes(&ahead, 1, MIB as usize / 2..MIB as usize + 1), None, "longer than the block");
        assert_eq!(bytes(&ahead, 1, MIB as usize / 2..MIB as usize), Some(MIB as usize / 2));
        assert_eq!(bytes(&ahead, 1, 0..10), None, "is gone");
        assert_eq!(bytes(&ahead, 2, 0..10), None);
    }

    #[test]
    fn what_failed_lets_the_waiting_read_for_themselves() {
        let ahead = Ahead::new(2 * RUN_MAX);
        assert!(ahead.begin(&run(&[1, 2]), Instant::now()).is_some());
        let Found::Soon(mut soon) = ahead.take(id(1), 0..10) else { panic!("nothing came yet") };
        ahead.finish(id(2), payload(), Instant::now());
        ahead.give_up(id(1));
        ahead.give_up(id(2));
        assert_eq!(soon.try_recv(), Ok(()));
        assert!(matches!(ahead.take(id(1), 0..10), Found::Nothing));
        assert_eq!(bytes(&ahead, 2, 0..10), Some(10), "what came stays");
        let status = ahead.status();
        assert_eq!((status.blocks, status.hits, status.wasted), (1, 1, 0));
    }

    #[test]
    fn stays_bounded_and_only_what_is_stale_makes_room() {
        let ahead = Ahead::new(2 * RUN_MAX);
        let now = Instant::now();
        let first = ahead.begin(&run(&[1]), now).expect("there is room");
        let _second = ahead.begin(&run(&[2]), now).expect("there is room");
        assert!(ahead.begin(&run(&[3]), now + 2 * STALE).is_none(), "what is being read stays");
        ahead.finish(id(1), first.into_bytes().slice(..MIB as usize), now);
        assert!(ahead.begin(&run(&[3]), now + STALE / 2).is_none(), "is fresh");
        assert!(ahead.begin(&run(&[3]), now + STALE).is_some());
        assert!(matches!(ahead.take(id(1), 0..10), Found::Nothing));
        let status = ahead.status();
        assert_eq!((status.bytes, status.wasted), (2 * RUN_MAX as u64, 1));
    }

    #[test]
    fn what_was_read_lately_or_is_hardly_wanted_is_left_to_the_page_cache() {
        let ahead = Ahead::new(2 * RUN_MAX);
        ahead.saw(id(1));
        assert!(!ahead.wants(id(1), MIB, MIB));
        assert!(!ahead.wants(id(2), MIB, MIB / 2 - 1));
        assert!(!ahead.wants(id(3), BLOCK_MIN - 1, BLOCK_MIN - 1));
        assert!(!Ahead::new(RUN_MAX - 1).wants(id(4), MIB, MIB));
        assert!(ahead.wants(id(5), MIB, MIB / 2));
    }
}
