//! Finds blocks of which files use only a splinter.
//!
//! A block lives while anything refers to any byte of it, and the metadata do not know how long blocks are; so files that were
//! truncated or overwritten in large pieces can hold much more room than they have data, without having many extents. This
//! walk goes through all extents, a page at a time, and compares what each file uses of its blocks with their lengths. It keeps
//! nothing over a restart: it begins anew.

use atoll_base::block::BlockId;
use atoll_base::id::Ino;
use atoll_blockstore::BlockStore;
use atoll_core::service::LocalMetadata;
use atoll_meta::FsError;
use atoll_model::read::{self, ExtentRow};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Rows looked at in one step: about a millisecond's work.
const ROWS: usize = 4096;

/// Unused bytes of a file's blocks that are no matter, whatever the file's size.
const WASTE_MIN: u64 = 64 << 10;

/// A file's blocks may have unused bytes up to one in so many of those used.
const WASTE_SHARE: u64 = 4;

/// A block is sparse if less than this share of it is used.
const USED_PERCENT: u64 = 75;

/// A file that holds much more room than it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wasteful {
    pub(super) ino: Ino,
    /// Those of its blocks that are mostly unused.
    pub(super) sparse: BTreeSet<BlockId>,
}

/// What a file uses of its blocks: bounded by the blocks of one file, 250 000 for a terabyte.
struct Usage {
    ino: Ino,
    blocks: BTreeMap<BlockId, u64>,
}

/// The walk.
pub(super) struct Splinters {
    next: (Ino, u64),
    usage: Usage,
    rest_until: Option<Instant>,
    /// Between the end of one walk and the begin of the next.
    rest: Duration,
}

impl Splinters {
    pub(super) fn new(rest: Duration) -> Self {
        Self { next: (Ino(0), 0), usage: Usage::of(Ino(0)), rest_until: None, rest }
    }

    /// One page on; returns the wasteful files that end in it.
    pub(super) async fn step(
        &mut self,
        meta: &LocalMetadata,
        blocks: &BlockStore,
    ) -> Result<Vec<Wasteful>, FsError> {
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return Ok(Vec::new());
        }
        self.rest_until = None;
        let from = self.next;
        let rows = meta.with_state(|kv| read::extent_rows(kv, from, ROWS)).await?;
        let mut found = Vec::new();
        for row in &rows {
            if row.ino != self.usage.ino {
                let ended = std::mem::replace(&mut self.usage, Usage::of(row.ino));
                found.extend(ended.judge(|id| blocks.length(id)));
            }
            self.usage.add(row);
        }
        match rows.last() {
            Some(last) if rows.len() == ROWS => self.next = (last.ino, last.offset + 1),
            _ => {
                let ended = std::mem::replace(&mut self.usage, Usage::of(Ino(0)));
                found.extend(ended.judge(|id| blocks.length(id)));
                self.next = (Ino(0), 0);
                self.rest_until = Some(Instant::now() + self.rest);
            }
        }
        Ok(found)
    }
}

impl Usage {
    fn of(ino: Ino) -> Self {
        Self { ino, blocks: BTreeMap::new() }
    }

    fn add(&mut self, row: &ExtentRow) {
        if let Some(id) = row.block {
            *self.blocks.entry(id).or_default() += u64::from(row.len);
        }
    }

    /// A block that does not exist is not this walk's business.
    fn judge(self, length: impl Fn(BlockId) -> Option<u32>) -> Option<Wasteful> {
        let (mut used, mut held) = (0, 0);
        let mut sparse = BTreeSet::new();
        for (id, bytes) in self.blocks {
            let Some(len) = length(id).map(u64::from) else { continue };
            used += bytes.min(len);
            held += len;
            if bytes * 100 < len * USED_PERCENT {
                sparse.insert(id);
            }
        }
        let is_wasteful = held - used > WASTE_MIN + used / WASTE_SHARE && !sparse.is_empty();
        is_wasteful.then_some(Wasteful { ino: self.ino, sparse })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::id::Epoch;

    fn usage(of: &[(u64, u64)]) -> Usage {
        let blocks = of.iter().map(|(seq, bytes)| (BlockId::new(Epoch(1), *seq), *bytes)).collect();
        Usage { ino: Ino(7), blocks }
    }

    #[test]
    fn only_a_real_waste_counts() {
        let mib4 = |_| Some(4 << 20);
        assert_eq!(usage(&[(1, 4 << 20)]).judge(mib4), None);
        assert_eq!(usage(&[(1, (4 << 20) - (32 << 10))]).judge(mib4), None);
        let splinter = usage(&[(1, 4096), (2, 4 << 20)]).judge(mib4).unwrap();
        assert_eq!(splinter.sparse.into_iter().collect::<Vec<_>>(), [BlockId::new(Epoch(1), 1)]);
        // One splinter among many whole blocks is below what a file may waste.
        let many: Vec<_> = (0..100).map(|n| (n, if n == 5 { 4096 } else { 4 << 20 })).collect();
        assert_eq!(usage(&many).judge(mib4), None);
        assert_eq!(usage(&[(1, 10)]).judge(|_| None), None);
    }
}
