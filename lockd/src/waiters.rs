//! The blocked requests of one file, oldest first.
//!
//! Invariant: no two of them have the same owner, range and mode; that triple is what a client repeats when it
//! retransmits or polls, and what it cancels by (RFC 1813 §6.1.4, nlm4_lock; XNFS NLM_CANCEL).

use serde::{Deserialize, Serialize};

use crate::byte_ranges::LockMode;
use crate::limits::{MAX_WAITERS_PER_FILE, MAX_WAITERS_PER_OWNER};
use crate::owner::{Callback, LockOwner};
use crate::range::ByteRange;
use crate::request::{Bound, LockError};

/// A blocked request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who asks.
    pub owner: LockOwner,
    /// The bytes.
    pub range: ByteRange,
    /// The mode.
    pub mode: LockMode,
    /// How to tell its client.
    pub callback: Callback,
    /// Since when it waits: seconds since 1970.
    pub since: i64,
}

impl Waiter {
    /// Whether this is the request of that owner, range and mode.
    pub(crate) fn is(&self, owner: &LockOwner, range: ByteRange, mode: LockMode) -> bool {
        self.range == range && self.mode == mode && self.owner == *owner
    }

    /// Whether it and a lock of `owner` can't both be granted.
    pub(crate) fn conflicts_with(&self, owner: &LockOwner, range: ByteRange, mode: LockMode) -> bool {
        self.mode.conflicts_with(mode) && self.range.overlaps(&range) && self.owner != *owner
    }

    fn identity_bytes(&self) -> usize {
        self.owner.identity_bytes() + self.callback.as_bytes().len()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitQueue {
    queue: Vec<Waiter>,
}

impl WaitQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[Waiter] {
        &self.queue
    }

    pub(crate) fn position(&self, owner: &LockOwner, range: ByteRange, mode: LockMode) -> Option<usize> {
        self.queue.iter().position(|waiter| waiter.is(owner, range, mode))
    }

    /// The oldest request, among the first `ahead`, that a lock of `owner` would conflict with.
    pub(crate) fn first_conflict(
        &self,
        ahead: usize,
        owner: &LockOwner,
        range: ByteRange,
        mode: LockMode,
    ) -> Option<&Waiter> {
        self.queue[..ahead].iter().find(|waiter| waiter.conflicts_with(owner, range, mode))
    }

    /// Whether one more request of `owner` has room, beside `of_owner` grants of that owner and `in_file` of all that their
    /// clients have not acknowledged.
    pub(crate) fn check_room(
        &self,
        owner: &LockOwner,
        of_owner: usize,
        in_file: usize,
    ) -> Result<(), LockError> {
        if self.queue.len() + in_file >= MAX_WAITERS_PER_FILE {
            return Err(LockError::TooMany(Bound::WaitersPerFile));
        }
        let waiting = self.queue.iter().filter(|waiter| waiter.owner == *owner).count();
        if waiting + of_owner >= MAX_WAITERS_PER_OWNER {
            return Err(LockError::TooMany(Bound::WaitersPerOwner));
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, waiter: Waiter) {
        debug_assert!(self.position(&waiter.owner, waiter.range, waiter.mode).is_none());
        self.queue.push(waiter);
    }

    /// A client that asks again may have come by another address: the newest way to reach it counts.
    pub(crate) fn set_callback(&mut self, index: usize, callback: Callback) {
        self.queue[index].callback = callback;
    }

    pub(crate) fn remove(&mut self, index: usize) -> Waiter {
        self.queue.remove(index)
    }

    /// Takes out all that `pred` says, and says how many.
    pub(crate) fn remove_where(&mut self, pred: impl Fn(&Waiter) -> bool) -> usize {
        let before = self.queue.len();
        self.queue.retain(|waiter| !pred(waiter));
        before - self.queue.len()
    }

    pub(crate) fn identity_bytes(&self) -> usize {
        self.queue.iter().map(Waiter::identity_bytes).sum()
    }

    /// Whether the invariant of this file holds.
    pub(crate) fn is_sound(&self) -> bool {
        self.queue
            .iter()
            .enumerate()
            .all(|(i, a)| !self.queue[..i].iter().any(|b| b.is(&a.owner, a.range, a.mode)))
    }
}
