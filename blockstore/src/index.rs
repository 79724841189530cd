//! The index block → place, wholly in memory, 12 bytes a block.
//!
//! Ids are a writer's epoch and a running number, so 256 neighbours share one page (a sorted vector under the id's
//! upper 120 bits) and an entry holds only the low eight. With the vector's slack and the tree's node a block costs
//! about 16 bytes when written in order: 16 MB of RAM per TB of 1 MiB blocks, 250 MB per TB of 64 KiB blocks
//! (smaller data ride in the metadata store). A page that becomes empty is freed, one that becomes sparse shrinks.

use atoll_base::block::BlockId;
use std::collections::BTreeMap;

/// Where a block's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// Start of the record in units.
    pub(crate) units: u32,
    /// Payload length, 1..=`BLOCK_MAX`.
    pub(crate) len: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    segment: u32,
    units: u32,
    /// Low eight bits of the id above 22 bits of length - 1.
    low_and_len: u32,
}

const LEN_BITS: u32 = 22;

impl Slot {
    fn new(low: u8, place: Place) -> Self {
        assert!(place.len >= 1 && place.len <= 1 << LEN_BITS, "a block's length is bounded at the door");
        Self {
            segment: place.segment,
            units: place.units,
            low_and_len: u32::from(low) << LEN_BITS | (place.len - 1),
        }
    }

    fn low(self) -> u8 {
        (self.low_and_len >> LEN_BITS) as u8
    }

    fn place(self) -> Place {
        Place {
            segment: self.segment,
            units: self.units,
            len: (self.low_and_len & ((1 << LEN_BITS) - 1)) + 1,
        }
    }
}

/// The index.
#[derive(Default)]
pub(crate) struct Index {
    pages: BTreeMap<u128, Vec<Slot>>,
    blocks: u64,
    bytes: u64,
}

fn split(id: BlockId) -> (u128, u8) {
    (id.0 >> 8, id.0 as u8)
}

impl Index {
    /// Where a block is.
    pub(crate) fn get(&self, id: BlockId) -> Option<Place> {
        let (page, low) = split(id);
        let page = self.pages.get(&page)?;
        page.binary_search_by_key(&low, |s| s.low()).ok().map(|i| page[i].place())
    }

    /// Sets a block's place; returns the one before.
    pub(crate) fn insert(&mut self, id: BlockId, place: Place) -> Option<Place> {
        let (page, low) = split(id);
        let page = self.pages.entry(page).or_default();
        self.bytes += u64::from(place.len);
        match page.binary_search_by_key(&low, |s| s.low()) {
            Ok(i) => {
                let old = std::mem::replace(&mut page[i], Slot::new(low, place)).place();
                self.bytes -= u64::from(old.len);
                Some(old)
            }
            Err(i) => {
                page.insert(i, Slot::new(low, place));
                self.blocks += 1;
                None
            }
        }
    }

    /// Forgets a block; returns where it was.
    pub(crate) fn remove(&mut self, id: BlockId) -> Option<Place> {
        let (key, low) = split(id);
        let page = self.pages.get_mut(&key)?;
        let i = page.binary_search_by_key(&low, |s| s.low()).ok()?;
        let old = page.remove(i).place();
        if page.is_empty() {
            self.pages.remove(&key);
        } else if page.len() * 4 < page.capacity() {
            page.shrink_to(page.len() * 2);
        }
        self.blocks -= 1;
        self.bytes -= u64::from(old.len);
        Some(old)
    }

    /// Blocks with ids at or above `from`, in order of ids.
    pub(crate) fn range_from(&self, from: BlockId) -> impl Iterator<Item = (BlockId, Place)> + '_ {
        let (first, _) = split(from);
        self.pages
            .range(first..)
            .flat_map(|(key, page)| {
                page.iter().map(move |s| (BlockId(key << 8 | u128::from(s.low())), s.place()))
            })
            .skip_while(move |(id, _)| *id < from)
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Sum of their lengths.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec((0u128..2000, 0u8..3, 1u32..=4 << 20), 0..400)) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (n, (id, op, len)) in ops.into_iter().enumerate() {
                // Some ids share pages, some are far apart.
                let id = BlockId(if id % 2 == 0 { id } else { id << 60 });
                let place = Place { segment: n as u32, units: u32::MAX - n as u32, len };
                match op {
                    0 => prop_assert_eq!(index.remove(id), model.remove(&id)),
                    _ => prop_assert_eq!(index.insert(id, place), model.insert(id, place)),
                }
                prop_assert_eq!(index.get(id), model.get(&id).copied());
                prop_assert_eq!(index.blocks(), model.len() as u64);
                prop_assert_eq!(index.bytes(), model.values().map(|p| u64::from(p.len)).sum::<u64>());
            }
            let from = BlockId(1000);
            let got: Vec<_> = index.range_from(from).collect();
            let want: Vec<_> = model.range(from..).map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn a_slot_is_twelve_bytes() {
        assert_eq!(std::mem::size_of::<Slot>(), 12);
        let p = Place { segment: 1, units: 2, len: 4 << 20 };
        assert_eq!(Slot::new(255, p).place(), p);
        assert_eq!(Slot::new(255, p).low(), 255);
    }
}
