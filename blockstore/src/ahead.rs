//! Blocks that somebody will read soon, read ahead past the page cache into memory that is used again.
//!
//! A stream that is read once gains nothing from the page cache and pays for it: a fresh page for each 4 KiB (where a hypervisor
//! has taken free memory back, several microseconds each), and a copy out of it. What is read ahead is verified when it comes from
//! the disk and then given out as it lies, without a copy.
//!
//! What is read again is what the page cache is for. So the store remembers which blocks large reads asked for lately; those are
//! not read ahead but through the cache, where the third reader finds them.
//!
//! Bounds: [`Config::ahead_bytes`](crate::Config) for what is being read or waits to be asked for, [`SEEN`] block ids. When there is no
//! room, what nobody asked for within [`STALE`] makes some; else nothing is read ahead, and the read itself goes the usual way.

use crate::lock::lock;
use crate::metrics::{add, get};
use atoll_base::block::BlockId;
use atoll_base::clock_cache::ClockCache;
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
    /// Bytes of payload.
    size: u32,
    /// Expected bytes that were not asked for yet; the entry goes with the last.
    left: u32,
    since: Instant,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<BlockId, Entry>,
    bytes: usize,
}

impl Inner {
    fn remove(&mut self, id: BlockId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.size as usize;
        Some(entry)
    }

    /// Lets go of the oldest that nobody asked for in time; whether there was one.
    fn drop_stale(&mut self, now: Instant) -> bool {
        let ready = self.entries.iter().filter(|(_, e)| matches!(e.state, State::Ready(_)));
        let oldest = ready.min_by_key(|(_, e)| e.since).map(|(id, e)| (*id, e.since));
        match oldest {
            Some((id, since)) if now.duration_since(since) >= STALE => self.remove(id).is_some(),
            _ => false,
        }
    }
}

/// How reading ahead is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AheadStatus {
    /// Bytes being read ahead or waiting to be asked for.
    pub bytes: u64,
    /// Most of them.
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
    limit: usize,
    inner: Mutex<Inner>,
    /// Entries, so that nobody takes the lock to learn that there are none.
    count: AtomicUsize,
    seen: ClockCache<BlockId>,
    hasher: RandomState,
    blocks: AtomicU64,
    hits: AtomicU64,
    wasted: AtomicU64,
}

impl Ahead {
    /// Holds at most `limit` bytes; with 0, nothing is read ahead.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::default(),
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
        if self.limit > 0 {
            self.seen.put(self.key(id), id);
        }
    }

    /// Takes room for a block of `size` bytes of which `expected` will be asked for. If that works, a reader must read it and
    /// call [`Ahead::finish`].
    pub(crate) fn begin(&self, id: BlockId, size: u32, expected: u32, now: Instant) -> bool {
        // Of a block of which little is wanted, the rest would be read for nothing.
        if size < BLOCK_MIN || expected < size / 2 || size as usize > self.limit {
            return false;
        }
        if self.seen.get(self.key(id), |seen| (*seen == id).then_some(())).is_some() {
            return false;
        }
        let mut inner = lock(&self.inner);
        if inner.entries.contains_key(&id) {
            return false;
        }
        while inner.bytes + size as usize > self.limit {
            if !inner.drop_stale(now) {
                self.count.store(inner.entries.len(), Ordering::Release);
                return false;
            }
            add(&self.wasted, 1);
        }
        inner.bytes += size as usize;
        let entry = Entry { state: State::Reading(Vec::new()), size, left: expected, since: now };
        inner.entries.insert(id, entry);
        self.count.store(inner.entries.len(), Ordering::Release);
        true
    }

    /// The block's payload, verified; `None` if it could not be had: whoever waits then reads for himself and learns why.
    pub(crate) fn finish(&self, id: BlockId, payload: Option<Bytes>, now: Instant) {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.entries.get_mut(&id) else { return };
        let waiting = match payload {
            Some(bytes) => {
                add(&self.blocks, 1);
                entry.since = now;
                std::mem::replace(&mut entry.state, State::Ready(bytes))
            }
            None => {
                let entry = inner.remove(id).expect("was just there");
                self.count.store(inner.entries.len(), Ordering::Release);
                entry.state
            }
        };
        drop(inner);
        if let State::Reading(waiting) = waiting {
            waiting.into_iter().for_each(|w| _ = w.send(()));
        }
    }

    /// Bytes `range` of a block that exists.
    pub(crate) fn take(&self, id: BlockId, range: Range<usize>) -> Found {
        if self.count.load(Ordering::Acquire) == 0 {
            return Found::Nothing;
        }
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.entries.get_mut(&id) else { return Found::Nothing };
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
            inner.remove(id);
            self.count.store(inner.entries.len(), Ordering::Release);
        }
        drop(inner);
        add(&self.hits, 1);
        Found::Bytes(bytes)
    }

    pub(crate) fn status(&self) -> AheadStatus {
        AheadStatus {
            bytes: lock(&self.inner).bytes as u64,
            limit: self.limit as u64,
            blocks: get(&self.blocks),
            hits: get(&self.hits),
            wasted: get(&self.wasted),
        }
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

    fn bytes(ahead: &Ahead, n: u64, range: Range<usize>) -> Option<usize> {
        match ahead.take(id(n), range) {
            Found::Bytes(bytes) => Some(bytes.len()),
            Found::Soon(_) | Found::Nothing => None,
        }
    }

    #[test]
    fn goes_with_the_last_byte_that_was_expected() {
        let ahead = Ahead::new(4 << 20);
        let now = Instant::now();
        assert!(ahead.begin(id(1), MIB, MIB, now));
        assert!(!ahead.begin(id(1), MIB, MIB, now), "is on its way");
        let Found::Soon(mut soon) = ahead.take(id(1), 0..10) else { panic!("nothing came yet") };
        assert!(soon.try_recv().is_err());
        ahead.finish(id(1), Some(Bytes::from(vec![1; MIB as usize])), now);
        assert_eq!(soon.try_recv(), Ok(()));
        assert_eq!(bytes(&ahead, 1, 0..MIB as usize / 2), Some(MIB as usize / 2));
        assert_eq!(bytes(&ahead, 1, MIB as usize / 2..MIB as usize + 1), None, "longer than the block");
        assert_eq!(bytes(&ahead, 1, MIB as usize / 2..MIB as usize), Some(MIB as usize / 2));
        assert_eq!(bytes(&ahead, 1, 0..10), None, "is gone");
        assert_eq!(ahead.status().bytes, 0);
        assert_eq!(bytes(&ahead, 2, 0..10), None);
    }

    #[test]
    fn what_failed_lets_the_waiting_read_for_themselves() {
        let ahead = Ahead::new(4 << 20);
        assert!(ahead.begin(id(1), MIB, MIB, Instant::now()));
        let Found::Soon(mut soon) = ahead.take(id(1), 0..10) else { panic!("nothing came yet") };
        ahead.finish(id(1), None, Instant::now());
        assert_eq!(soon.try_recv(), Ok(()));
        assert!(matches!(ahead.take(id(1), 0..10), Found::Nothing));
        assert_eq!(ahead.status(), AheadStatus { limit: 4 << 20, ..AheadStatus::default() });
    }

    #[test]
    fn stays_bounded_and_only_what_is_stale_makes_room() {
        let ahead = Ahead::new(2 << 20);
        let now = Instant::now();
        for n in 1..=2 {
            assert!(ahead.begin(id(n), MIB, MIB, now));
        }
        assert!(!ahead.begin(id(3), MIB, MIB, now + 2 * STALE), "what is being read stays");
        ahead.finish(id(1), Some(Bytes::from(vec![1; MIB as usize])), now);
        assert!(!ahead.begin(id(3), MIB, MIB, now + STALE / 2), "is fresh");
        assert!(ahead.begin(id(3), MIB, MIB, now + STALE));
        assert!(matches!(ahead.take(id(1), 0..10), Found::Nothing));
        let status = ahead.status();
        assert_eq!((status.bytes, status.wasted), (2 << 20, 1));
    }

    #[test]
    fn what_was_read_lately_or_is_hardly_wanted_is_left_to_the_page_cache() {
        let ahead = Ahead::new(8 << 20);
        let now = Instant::now();
        ahead.saw(id(1));
        assert!(!ahead.begin(id(1), MIB, MIB, now));
        assert!(!ahead.begin(id(2), MIB, MIB / 2 - 1, now));
        assert!(!ahead.begin(id(3), BLOCK_MIN - 1, BLOCK_MIN - 1, now));
        assert!(!Ahead::new(0).begin(id(4), MIB, MIB, now));
        assert!(ahead.begin(id(5), MIB, MIB / 2, now));
    }
}
