//! What one owner holds in one file: the locks its client knows of, and above them the grants whose callback the client
//! has not acknowledged yet, oldest first.
//!
//! A grant is kept as a layer of its own so that it can be undone without touching what the owner held before (it may
//! have waited for an upgrade) or has locked since. Whatever the owner does explicitly (LOCK, UNLOCK) is newer than
//! every layer and cuts through all of them.
//!
//! Invariants: at each byte a layer is at least as strong as everything below it (a shared grant weakens what is
//! below), so taking away a layer never makes anything stronger and can't create a conflict; no layer is empty; every
//! layer's bytes are within the range that was asked for.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::byte_ranges::{LockMode, RangeMap, Segment};
use crate::owner::Callback;
use crate::range::ByteRange;

/// Identifies a grant, for the answer to its callback. Never repeats for a file, also if its table is deleted when empty
/// and made anew (see [`crate::FileLocks::new`]): a late answer can't hit another grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrantId {
    /// Which incarnation of the file's table.
    pub incarnation: u64,
    /// Which grant of it, counted from 0.
    pub number: u64,
}

/// A grant whose client has not acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingGrant {
    pub(crate) id: GrantId,
    /// The request that was granted.
    pub(crate) range: ByteRange,
    pub(crate) mode: LockMode,
    pub(crate) callback: Callback,
    /// The bytes that are held by this grant only.
    layer: RangeMap,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerLocks {
    confirmed: RangeMap,
    grants: Vec<PendingGrant>,
}

impl OwnerLocks {
    pub(crate) fn is_empty(&self) -> bool {
        self.confirmed.is_empty() && self.grants.is_empty()
    }

    /// Stored segments, over all layers: what the bounds count.
    pub(crate) fn stored_ranges(&self) -> usize {
        self.confirmed.len() + self.grants.iter().map(|grant| grant.layer.len()).sum::<usize>()
    }

    /// The most that [`Self::lock`] or [`Self::unlock`] can add to [`Self::stored_ranges`].
    pub(crate) fn growth(&self) -> usize {
        2 + self.grants.len()
    }

    pub(crate) fn grants(&self) -> &[PendingGrant] {
        &self.grants
    }

    /// What the owner holds, all layers together.
    pub(crate) fn effective(&self) -> Cow<'_, RangeMap> {
        let mut all = Cow::Borrowed(&self.confirmed);
        for grant in &self.grants {
            all.to_mut().overlay(&grant.layer);
        }
        all
    }

    /// The first of the held segments that a lock of another owner would conflict with.
    pub(crate) fn first_conflict(&self, range: ByteRange, mode: LockMode) -> Option<Segment> {
        if self.grants.is_empty() {
            return self.confirmed.first_conflict(range, mode);
        }
        // The top layer is the strongest, so looking at each layer decides; put them together only for the report.
        let layers = self.grants.iter().map(|grant| &grant.layer).chain([&self.confirmed]);
        if layers.into_iter().all(|layer| layer.first_conflict(range, mode).is_none()) {
            return None;
        }
        self.effective().first_conflict(range, mode)
    }

    /// The client locks `range`: replaces what it held there (POSIX).
    pub(crate) fn lock(&mut self, range: ByteRange, mode: LockMode, now: i64) {
        self.cut_grants(range);
        self.confirmed.set(range, mode, now);
    }

    /// The client unlocks `range`.
    pub(crate) fn unlock(&mut self, range: ByteRange) {
        self.cut_grants(range);
        self.confirmed.clear(range);
    }

    /// A queued request of the client is granted.
    pub(crate) fn grant(
        &mut self,
        id: GrantId,
        range: ByteRange,
        mode: LockMode,
        callback: Callback,
        now: i64,
    ) {
        if mode == LockMode::Shared {
            self.confirmed.weaken(range);
            for below in &mut self.grants {
                below.layer.weaken(range);
            }
        }
        self.grants.push(PendingGrant { id, range, mode, callback, layer: RangeMap::of(range, mode, now) });
    }

    /// The client knows of the grant: its layer becomes part of what is confirmed. What is held stays the same.
    /// False if there is no such grant.
    pub(crate) fn acknowledge(&mut self, id: GrantId) -> bool {
        let Some(index) = self.grants.iter().position(|grant| grant.id == id) else { return false };
        let PendingGrant { layer, .. } = self.grants.remove(index);
        // Older layers would otherwise lie above it.
        for older in &mut self.grants[..index] {
            older.layer.subtract(&layer);
        }
        self.grants.retain(|grant| !grant.layer.is_empty());
        self.confirmed.overlay(&layer);
        true
    }

    /// The client does not want the grant: its layer goes. The range it was for; `None` if there is no such grant.
    pub(crate) fn undo(&mut self, id: GrantId) -> Option<ByteRange> {
        let index = self.grants.iter().position(|grant| grant.id == id)?;
        Some(self.grants.remove(index).range)
    }

    /// Whether the invariants of this file hold.
    pub(crate) fn is_sound(&self) -> bool {
        let layers: Vec<&RangeMap> =
            [&self.confirmed].into_iter().chain(self.grants.iter().map(|grant| &grant.layer)).collect();
        let canonical = layers.iter().all(|layer| layer.is_canonical());
        let within = self.grants.iter().all(|grant| {
            !grant.layer.is_empty()
                && grant.layer.segments().iter().all(|held| grant.range.contains(&held.range))
        });
        let rising = layers.iter().enumerate().all(|(i, below)| {
            layers[i + 1..].iter().all(|above| {
                below
                    .segments()
                    .iter()
                    .all(|low| above.overlapping(low.range).iter().all(|high| high.mode >= low.mode))
            })
        });
        canonical && within && rising && !self.is_empty()
    }

    /// An explicit operation on `range` is newer than every grant. A grant that has no byte left of its own is
    /// forgotten: the client has locked or unlocked all of it, so it knows, and a callback sent now could be taken for the
    /// answer to its next request for the same range.
    fn cut_grants(&mut self, range: ByteRange) {
        for grant in &mut self.grants {
            grant.layer.clear(range);
        }
        self.grants.retain(|grant| !grant.layer.is_empty());
    }
}
