//! Which outcome a request's key has: in memory, beside the rows.
//!
//! Nearly every request is new, and that must be found out for each: here without touching the store. An entry is 32 bits of a hash
//! of the key and the outcome's number, so it says where to look, and the row says whether it is that key's. Holds exactly what the
//! rows hold ([`super`] keeps it so) and is built from the hashes in [`super::tags`] when a state is loaded.
//!
//! Shared with those who read published states. The state machine is the only one who writes, and writes before
//! the batch is published; a reader looks here first and takes a state then, which is not older.
//!
//! Memory: 10 to 20 bytes for each outcome. Each shard grows by itself, so that growing holds nobody up for long.

use super::hash;
use atoll_meta::OnceKey;
use hashbrown::HashTable;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const SHARDS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    tag: u32,
    /// The lower half of the outcome's number.
    number: u32,
}

impl Slot {
    /// Where it lies in its shard: the tag spread over all bits (by 2^64 over the golden ratio).
    fn hash(&self) -> u64 {
        u64::from(self.tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The index.
pub struct OnceIndex {
    /// Makes hashes of this cluster's own, so that nobody outside can choose keys that collide.
    secret: [u8; 16],
    shards: Vec<RwLock<HashTable<Slot>>>,
    /// No number is greater, and none less by 2^32 or more.
    newest: AtomicU64,
}

type Shard = HashTable<Slot>;

impl OnceIndex {
    /// An empty one.
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { secret, shards, newest: AtomicU64::new(0) }
    }

    /// The hash of a key.
    pub(super) fn tag(&self, key: &OnceKey) -> u32 {
        hash::tag(self.secret, key)
    }

    fn shard(tag: u32) -> usize {
        (tag >> 24) as usize
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of the outcomes that may be the key's; nearly always none or the one.
    pub(crate) fn find(&self, key: &OnceKey) -> Vec<u64> {
        self.with_tag(self.tag(key))
    }

    pub(super) fn with_tag(&self, tag: u32) -> Vec<u64> {
        let slots = self.read(Self::shard(tag));
        let newest = self.newest.load(Ordering::Acquire);
        let hash = Slot { tag, number: 0 }.hash();
        let matching = slots.iter_hash(hash).filter(|slot| slot.tag == tag);
        // By how much it is less fits into 32 bits.
        matching.map(|slot| newest - u64::from((newest as u32).wrapping_sub(slot.number))).collect()
    }

    /// Adds an outcome. Returns the hash of its key.
    pub(crate) fn insert(&self, key: &OnceKey, number: u64) -> u32 {
        let tag = self.tag(key);
        self.insert_tag(tag, number);
        tag
    }

    pub(super) fn insert_tag(&self, tag: u32, number: u64) {
        self.newest.store(number, Ordering::Release);
        let slot = Slot { tag, number: number as u32 };
        self.write(Self::shard(tag)).insert_unique(slot.hash(), slot, Slot::hash);
    }

    /// Takes an outcome out. Returns whether it was in.
    pub(crate) fn remove(&self, key: &OnceKey, number: u64) -> bool {
        self.remove_tag(self.tag(key), number)
    }

    pub(super) fn remove_tag(&self, tag: u32, number: u64) -> bool {
        let slot = Slot { tag, number: number as u32 };
        let mut slots = self.write(Self::shard(tag));
        let Ok(entry) = slots.find_entry(slot.hash(), |other| *other == slot) else { return false };
        entry.remove();
        // Half a shard's memory for a quarter of its slots is enough.
        if slots.len() < slots.capacity() / 4 {
            let room = slots.len() * 2;
            slots.shrink_to(room, Slot::hash);
        }
        true
    }

    /// Number of outcomes.
    fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.read(shard).len()).sum()
    }
}

impl PartialEq for OnceIndex {
    fn eq(&self, other: &Self) -> bool {
        let has_all = |shard: usize| {
            let theirs = other.read(shard);
            self.read(shard).iter().all(|slot| theirs.find(slot.hash(), |s| s == slot).is_some())
        };
        self.secret == other.secret && self.len() == other.len() && (0..SHARDS).all(has_all)
    }
}

impl Eq for OnceIndex {}

impl std::fmt::Debug for OnceIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnceIndex").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(xid: u32) -> OnceKey {
        OnceKey { client: [1; 16], xid, fingerprint: u64::from(xid) << 40 }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in vec((0..300_u32, any::<bool>()), 0..600), secret: [u8; 16]) {
            let index = OnceIndex::new(secret);
            let mut map = BTreeMap::new();
            // Past the point from where on the lower halves of numbers begin anew.
            for (number, (xid, add)) in (u64::from(u32::MAX) - 100..).zip(steps) {
                if let Some(former) = map.remove(&xid) {
                    prop_assert!(index.remove(&key(xid), former));
                    prop_assert!(!index.remove(&key(xid), former));
                }
                if add {
                    index.insert(&key(xid), number);
                    map.insert(xid, number);
                }
            }
            for xid in 0..300 {
                let mut found = index.find(&key(xid));
                found.sort_unstable();
                // Another key's now and then: hashes have 32 bits, and secrets are random here.
                let same = |other: u32| index.tag(&key(other)) == index.tag(&key(xid));
                let mut expected: Vec<_> = map.iter().filter(|(x, _)| same(**x)).map(|(_, n)| *n).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
            let again = OnceIndex::new(secret);
            let mut by_number: Vec<_> = map.iter().map(|(xid, number)| (*number, *xid)).collect();
            by_number.sort_unstable();
            by_number.iter().for_each(|(number, xid)| _ = again.insert(&key(*xid), *number));
            prop_assert_eq!(&index, &again);
            if let Some((number, xid)) = by_number.first() {
                again.remove(&key(*xid), *number);
                prop_assert_ne!(&index, &again);
            }
        }
    }
}
