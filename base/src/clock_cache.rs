//! A bounded map in memory that never holds anything older than what was published.
//!
//! Two sides touch it. *Readers* miss, read an immutable view of the state, and offer what they found ([`ClockCache::fill`]).
//! The *applier*, before it publishes a new view, removes every key that the new view changes ([`ClockCache::invalidate`]), and may put
//! the new values in after ([`ClockCache::put`]).
//!
//! Invariant: an entry that can be found equals what the newest published view says of its key. A reader's offer may
//! come from a view that was replaced meanwhile; so each shard remembers the newest view that removed something from it, and
//! takes no offers from older ones.
//!
//! Eviction is CLOCK: an entry that was used since the hand last passed gets a second round.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards, to keep threads out of each other's way.
const SHARDS: usize = 64;

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

struct Slot<V> {
    key: u64,
    value: V,
    used: bool,
}

struct Shard<V> {
    /// Newest view that removed something here.
    newest: u64,
    index: HashMap<u64, usize, BuildHasherDefault<Identity>>,
    slots: Vec<Slot<V>>,
    hand: usize,
}

impl<V> Shard<V> {
    fn remove(&mut self, key: u64) {
        let Some(at) = self.index.remove(&key) else { return };
        self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.key, at);
        }
    }

    fn insert(&mut self, key: u64, value: V, capacity: usize) {
        let slot = Slot { key, value, used: false };
        if let Some(&at) = self.index.get(&key) {
            self.slots[at] = slot;
            return;
        }
        let at = if self.slots.len() < capacity {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let at = self.victim();
            self.index.remove(&self.slots[at].key);
            self.slots[at] = slot;
            at
        };
        self.index.insert(key, at);
    }

    fn victim(&mut self) -> usize {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let at = self.hand;
            self.hand += 1;
            // Ends in the second round at the latest.
            if !std::mem::take(&mut self.slots[at].used) {
                return at;
            }
        }
    }
}

/// How a cache is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Entries now.
    pub entries: u64,
    /// Most entries.
    pub capacity: u64,
    /// Look-ups that found something, since the start.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
}

#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

struct Counted<V> {
    shard: Mutex<Shard<V>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The map. Keys must be spread over all 64 bits.
pub struct ClockCache<V> {
    shards: Box<[Padded<Counted<V>>]>,
    /// Entries per shard.
    capacity: usize,
}

impl<V> ClockCache<V> {
    /// Holds at most about `entries` (at least one per shard).
    pub fn new(entries: usize) -> Self {
        let shard = || {
            let shard = Shard { newest: 0, index: HashMap::default(), slots: Vec::new(), hand: 0 };
            Padded(Counted { shard: Mutex::new(shard), hits: AtomicU64::new(0), misses: AtomicU64::new(0) })
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), capacity: entries.div_ceil(SHARDS).max(1) }
    }

    fn shard(&self, key: u64) -> &Counted<V> {
        // The map within the shard uses the bits at both ends.
        &self.shards[(key >> 32) as usize % SHARDS].0
    }

    fn lock(counted: &Counted<V>) -> MutexGuard<'_, Shard<V>> {
        counted.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the value, if there is one; `None` also if `f` says that it is not the one meant.
    pub fn get<R>(&self, key: u64, f: impl FnOnce(&V) -> Option<R>) -> Option<R> {
        let counted = self.shard(key);
        let mut shard = Self::lock(counted);
        let found = match shard.index.get(&key).copied() {
            Some(at) => {
                let slot = &mut shard.slots[at];
                slot.used = true;
                f(&slot.value)
            }
            None => None,
        };
        // Under the lock: one writer at a time, so no locked instruction is needed.
        let counter = if found.is_some() { &counted.hits } else { &counted.misses };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        found
    }

    /// Offers what a reader found in the view `version`.
    pub fn fill(&self, key: u64, value: V, version: u64) {
        let mut shard = Self::lock(self.shard(key));
        if version >= shard.newest {
            shard.insert(key, value, self.capacity);
        }
    }

    /// Removes a key that the view `version`, about to be published, changes.
    pub fn invalidate(&self, key: u64, version: u64) {
        let mut shard = Self::lock(self.shard(key));
        shard.newest = version;
        shard.remove(key);
    }

    /// Puts in what the newest view says, after it was published. For the applier alone.
    pub fn put(&self, key: u64, value: V) {
        Self::lock(self.shard(key)).insert(key, value, self.capacity);
    }

    /// Forgets everything, before the view `version` is published.
    pub fn clear(&self, version: u64) {
        for counted in &self.shards {
            let mut shard = Self::lock(&counted.0);
            shard.newest = version;
            shard.index.clear();
            shard.slots.clear();
        }
    }

    /// Figures.
    pub fn status(&self) -> CacheStatus {
        let mut status = CacheStatus { capacity: (self.capacity * SHARDS) as u64, ..CacheStatus::default() };
        for counted in &self.shards {
            status.entries += Self::lock(&counted.0).slots.len() as u64;
            status.hits += counted.0.hits.load(Ordering::Relaxed);
            status.misses += counted.0.misses.load(Ordering::Relaxed);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn offer_from_a_replaced_view_is_refused() {
        let cache = ClockCache::new(64);
        cache.fill(1, "old", 5);
        cache.invalidate(1, 6);
        cache.fill(1, "old", 5);
        assert_eq!(cache.get(1, |v| Some(*v)), None);
        cache.fill(1, "new", 6);
        assert_eq!(cache.get(1, |v| Some(*v)), Some("new"));
        assert_eq!(cache.status().hits, 1);
        assert_eq!(cache.status().misses, 1);
    }

    #[test]
    fn used_entries_get_a_second_round() {
        let cache = ClockCache::new(2 * SHARDS);
        cache.put(1, ());
        cache.put(2, ());
        assert!(cache.get(1, |()| Some(())).is_some());
        cache.put(3, ());
        assert!(cache.get(1, |()| Some(())).is_some());
        assert!(cache.get(2, |()| Some(())).is_none());
    }

    proptest! {
        /// Against a plain map: what is found is what the newest version says, and the bound holds.
        #[test]
        fn never_stale(steps in prop::collection::vec((0u64..40, 0u8..4, any::<bool>()), 1..300)) {
            let cache = ClockCache::new(SHARDS * 4);
            let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
            let mut before = truth.clone();
            let mut version = 1;
            for (key, what, spread) in steps {
                let key = if spread { key << 32 | key } else { key };
                match what {
                    0 => {
                        before = truth.clone();
                        version += 1;
                        cache.invalidate(key, version);
                        truth.insert(key, version);
                    }
                    1 => if let Some(&v) = truth.get(&key) { cache.fill(key, v, version) },
                    // A reader that still has the view before.
                    2 => if let Some(&v) = before.get(&key) { cache.fill(key, v, version - 1) },
                    _ => {
                        if let Some(found) = cache.get(key, |v| Some(*v)) {
                            prop_assert_eq!(Some(&found), truth.get(&key));
                        }
                    }
                }
                let status = cache.status();
                prop_assert!(status.entries <= status.capacity);
            }
        }
    }
}
