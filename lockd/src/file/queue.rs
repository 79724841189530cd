//! Who waits in a file, who has to, and who is granted next: the rules of fairness and deadlock at the top of `lockd/src/file.rs`.
//!
//! Invariant between two operations: no request waits that could be granted. So each operation names what it changed
//! ([`Change`]), and only waiters that it concerns are looked at again.

use std::collections::BTreeSet;

use super::FileLocks;
use crate::byte_ranges::LockMode;
use crate::limits::MAX_RANGES_PER_FILE;
use crate::owner::{Callback, LockOwner};
use crate::owner_locks::GrantId;
use crate::range::ByteRange;
use crate::request::{Bound, Conflict, Effect, LockError, LockOutcome};
use crate::waiters::Waiter;

/// What an operation changed that can make a waiter grantable; all others need not be looked at again. Bytes that were
/// freed or whose waiter went, and owners that hold something now and so pass the queue.
#[derive(Debug, Default)]
pub(crate) struct Change {
    ranges: Vec<ByteRange>,
    owners: Vec<LockOwner>,
}

impl Change {
    pub(crate) fn of(range: ByteRange) -> Self {
        Self { ranges: vec![range], owners: Vec::new() }
    }

    /// The owner holds something in this range now.
    pub(super) fn by(owner: LockOwner, range: ByteRange) -> Self {
        Self { ranges: vec![range], owners: vec![owner] }
    }

    fn concerns(&self, waiter: &Waiter) -> bool {
        self.ranges.iter().any(|range| range.overlaps(&waiter.range)) || self.owners.contains(&waiter.owner)
    }
}

impl FileLocks {
    /// The earlier waiter, among the first `ahead`, that `owner` has to queue behind.
    pub(super) fn queue_conflict(
        &self,
        ahead: usize,
        owner: &LockOwner,
        range: ByteRange,
        mode: LockMode,
    ) -> Option<&Waiter> {
        if self.owners.contains_key(owner) {
            return None;
        }
        self.waiters.first_conflict(ahead, owner, range, mode)
    }

    pub(super) fn enqueue(&mut self, waiter: Waiter, conflict: Conflict) -> Result<LockOutcome, LockError> {
        let Waiter { owner, range, mode, .. } = &waiter;
        if let Some(index) = self.waiters.position(owner, *range, *mode) {
            self.waiters.set_callback(index, waiter.callback);
            return Ok(LockOutcome::Blocked(conflict));
        }
        if self.would_deadlock(owner, *range, *mode) {
            return Err(LockError::Deadlock);
        }
        // A grant that is not acknowledged will be a request to answer for as long as one that waits.
        let of_owner = self.owners.get(owner).map_or(0, |locks| locks.grants().len());
        let in_file: usize = self.owners.values().map(|locks| locks.grants().len()).sum();
        self.waiters.check_room(owner, of_owner, in_file)?;
        // The grant, later, can't be refused: there must be room for it now.
        if self.stored_ranges() >= MAX_RANGES_PER_FILE {
            return Err(LockError::TooMany(Bound::RangesPerFile));
        }
        if !self.has_identity_room(owner.identity_bytes() + waiter.callback.as_bytes().len()) {
            return Err(LockError::TooMany(Bound::IdentityBytes));
        }
        // The client has unlocked a part of what this same request got it before, so it knew of that grant: its callback,
        // sent from now on, would be taken for the answer to this request.
        if let Some(former) = self.pending_grant(owner, *range, *mode) {
            self.grant_acknowledged(former);
        }
        self.waiters.push(waiter);
        Ok(LockOutcome::Blocked(conflict))
    }

    /// Whether an owner that stands in the way of this request waits, directly or through others, for `owner`. Only
    /// holders are followed: who is held back by the queue alone holds nothing, so no circle passes through it.
    fn would_deadlock(&self, owner: &LockOwner, range: ByteRange, mode: LockMode) -> bool {
        if !self.owners.contains_key(owner) {
            return false;
        }
        let mut seen: BTreeSet<&LockOwner> = BTreeSet::new();
        let mut next: Vec<&LockOwner> = self.blockers(owner, range, mode).collect();
        while let Some(blocker) = next.pop() {
            if blocker == owner {
                return true;
            }
            if seen.insert(blocker) {
                for waiter in self.waiters().filter(|waiter| waiter.owner == *blocker) {
                    next.extend(self.blockers(&waiter.owner, waiter.range, waiter.mode));
                }
            }
        }
        false
    }

    /// The other owners that hold what conflicts with a request of `owner`.
    fn blockers(
        &self,
        owner: &LockOwner,
        range: ByteRange,
        mode: LockMode,
    ) -> impl Iterator<Item = &LockOwner> {
        self.owners
            .iter()
            .filter(move |(holder, locks)| *holder != owner && locks.first_conflict(range, mode).is_some())
            .map(|(holder, _)| holder)
    }

    /// Whether the waiter at `index` conflicts with no holder and has to queue behind nobody. `hint` is a holder that stood in
    /// the way of another waiter, and is asked first: in the usual crowd, all wait for the same one.
    pub(super) fn is_grantable(&self, index: usize, hint: &mut Option<LockOwner>) -> bool {
        let Waiter { owner, range, mode, .. } = &self.waiters.as_slice()[index];
        let hinted =
            hint.as_ref().filter(|holder| *holder != owner).and_then(|holder| self.owners.get(holder));
        if hinted.is_some_and(|locks| locks.first_conflict(*range, *mode).is_some()) {
            return false;
        }
        if let Some(blocker) = self.blockers(owner, *range, *mode).next() {
            *hint = Some(blocker.clone());
            return false;
        }
        self.queue_conflict(index, owner, *range, *mode).is_none()
    }

    /// Grants, in order, every waiter that can be granted after `change`. Again from the start after a pass that granted any:
    /// its owner holds something now and may pass the queue with its earlier requests.
    pub(crate) fn grant_waiters(&mut self, mut change: Change, effects: &mut Vec<Effect>) {
        loop {
            let mut caused = Change::default();
            let mut hint = None;
            let mut index = 0;
            while index < self.waiters.as_slice().len() {
                let waiter = &self.waiters.as_slice()[index];
                if !change.concerns(waiter) || !self.is_grantable(index, &mut hint) {
                    index += 1;
                    continue;
                }
                let Waiter { owner, range, mode, callback, .. } = self.waiters.remove(index);
                for change in [&mut change, &mut caused] {
                    change.ranges.push(range);
                    change.owners.push(owner.clone());
                }
                effects.push(self.grant(owner, range, mode, callback));
            }
            if caused.ranges.is_empty() {
                return;
            }
            change = caused;
        }
    }

    fn grant(&mut self, owner: LockOwner, range: ByteRange, mode: LockMode, callback: Callback) -> Effect {
        let grant = GrantId { incarnation: self.incarnation, number: self.next_grant };
        self.next_grant += 1;
        let locks = self.owners.entry(owner.clone()).or_default();
        locks.grant(grant, range, mode, callback.clone(), self.now);
        Effect::Granted { grant, owner, range, mode, callback }
    }
}
