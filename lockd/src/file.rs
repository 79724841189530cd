//! The lock table of one file: [`FileLocks`].
//!
//! # Rules
//!
//! **Locks** are POSIX's (fcntl; RFC 7530 §9.1): advisory, per owner; a lock replaces what its owner held in that range,
//! neighbours merge, an unlock inside a range splits it, unlocking what is not held is no error.
//!
//! **A waiter becomes a holder when it is granted, here**, in the state machine, in the step that made it possible; so it
//! survives failover, and nobody else can take the range while the callback is under way. The grant stays *pending* in
//! the state until the client answers ([`FileLocks::grant_acknowledged`], [`FileLocks::release_grant`]), or does
//! something with the range that shows that it knows: repeats the request (a poll), locks or unlocks all of it. From
//! then on an answer to the callback changes nothing: it is a late one.
//! NFSv4 needs nothing else: a pending grant is the reservation that RFC 7530 §9.4 lets the server keep for the first waiting
//! client, CB_NOTIFY_LOCK (RFC 8881 §20.11) is its callback, the client's next LOCK acknowledges it, and the leader's
//! timer refuses it.
//!
//! **Whoever sends the callback must know**: NLM clients answer a GRANTED that they have accepted before with "denied",
//! because nothing waits for it any more. A refusal is therefore sure only as the answer to the one and only transmission.
//! After a retransmission, or when a leader before may have sent it, take "denied" for an acknowledgement: a client
//! that really gave up has sent CANCEL or UNLOCK, while releasing a lock that is in use loses data.
//!
//! **Fairness.** Requests that wait are granted in order of arrival, and a later one passes an earlier one only if they do not
//! conflict. A new blocking request that conflicts with no holder, but with an earlier waiter of another owner,
//! queues behind it: else a stream of readers starves a writer. Two exceptions:
//! - a request that does not wait is refused only because of locks that are held, as fcntl(F_SETLK) says; a refusal could name no
//!   holder, and F_GETLK would contradict it;
//! - an owner that holds anything in this file passes the queue: those ahead may, directly or through others, wait for
//!   what it holds. So queueing adds no deadlock within a file: an owner that is held back by the queue alone holds
//!   nothing that anyone could wait for.
//!
//! Requests of one owner never hold each other back. What remains: owners that keep some range of the file locked can pass a
//! waiter for another range again and again; and across several files that are locked in no common order, a reader held back
//! by a waiting writer can be part of a circle that would not exist without fairness (as with every lock that
//! prefers writers).
//!
//! **Deadlock** within the file is found when a request would queue (two holders of a shared lock that both want it
//! exclusive), and refused. Circles over several files are not looked for.

mod queue;

pub(crate) use queue::Change;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::byte_ranges::{LockMode, Segment};
use crate::limits::{
    MAX_IDENTITY_BYTES, MAX_OPENS_PER_FILE, MAX_RANGES_PER_FILE, MAX_RANGES_PER_OWNER, MAX_SHARES_PER_FILE,
};
use crate::owner::LockOwner;
use crate::owner_locks::{GrantId, OwnerLocks};
use crate::range::ByteRange;
use crate::request::{
    Bound, CancelOutcome, Conflict, Effect, GrantOutcome, HeldLock, LockError, LockOutcome, LockRequest, Wait,
};
use crate::shares::{Share, ShareError, ShareTable};
use crate::waiters::{WaitQueue, Waiter};

/// The byte-range locks, blocked requests and share reservations of one file. See the rules at the top of this file
/// (`lockd/src/file.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLocks {
    incarnation: u64,
    next_grant: u64,
    /// No entry is empty: an owner that holds nothing is not here.
    pub(crate) owners: BTreeMap<LockOwner, OwnerLocks>,
    pub(crate) waiters: WaitQueue,
    pub(crate) shares: ShareTable,
    /// Seconds since 1970; not stored.
    #[serde(skip)]
    now: i64,
}

impl FileLocks {
    /// An empty table. `incarnation` must never be the same twice for one file (a number that the state machine never
    /// gives out again, such as the index of the command among all commands): it becomes part of every [`GrantId`], so
    /// that a late answer to a callback of a former table of this file hits nothing.
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            next_grant: 0,
            owners: BTreeMap::new(),
            waiters: WaitQueue::default(),
            shares: ShareTable::default(),
            now: 0,
        }
    }

    /// The table with the time of what is done next, in seconds since 1970: listings say how old a lock is. Nothing else depends on it.
    #[must_use]
    pub fn at(self, now: i64) -> Self {
        Self { now, ..self }
    }

    /// Whether `owner` holds any byte range, a granted request included.
    pub fn holds_any(&self, owner: &LockOwner) -> bool {
        self.owners.contains_key(owner)
    }

    /// Whether there is nothing to keep: the record can be deleted.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.waiters.is_empty() && self.shares.is_empty()
    }

    // ---- byte ranges

    /// The lock that a request of `owner` would conflict with, of those that are held: that with the lowest offset, of equal ones
    /// the first in order of owners (NLM TEST, LOCKT). Waiters do not count.
    pub fn test(&self, owner: &LockOwner, range: ByteRange, mode: LockMode) -> Option<Conflict> {
        self.owners
            .iter()
            .filter(|(holder, _)| *holder != owner)
            .filter_map(|(holder, locks)| Some((holder, locks.first_conflict(range, mode)?)))
            .min_by_key(|(holder, held)| (held.range.first(), *holder))
            .map(|(holder, held)| Conflict { owner: holder.clone(), range: held.range, mode: held.mode })
    }

    /// Locks a range, or queues the request, or denies it. Repeating a request is harmless: what is held is granted again (and
    /// counts as acknowledgement of a pending grant), what waits keeps its place.
    ///
    /// Effects: a lock that replaces an exclusive one by a shared one can let waiters in.
    pub fn lock(
        &mut self,
        request: LockRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<LockOutcome, LockError> {
        let LockRequest { owner, range, mode, wait } = request;
        if let Some(holder) = self.test(&owner, range, mode) {
            return match wait {
                Wait::No => Ok(LockOutcome::Denied(holder)),
                Wait::Queue(callback) => {
                    self.enqueue(Waiter { owner, range, mode, callback, since: self.now }, holder)
                }
            };
        }
        if let Wait::Queue(callback) = wait {
            let ahead = self.waiters.position(&owner, range, mode).unwrap_or(self.waiters.as_slice().len());
            if let Some(earlier) = self.queue_conflict(ahead, &owner, range, mode) {
                let earlier =
                    Conflict { owner: earlier.owner.clone(), range: earlier.range, mode: earlier.mode };
                return self.enqueue(Waiter { owner, range, mode, callback, since: self.now }, earlier);
            }
        }
        let now = self.now;
        self.change_owner(&owner, |locks| locks.lock(range, mode, now))?;
        if !self.waiters.is_empty() {
            // The same request may have waited: it has its answer now.
            if let Some(index) = self.waiters.position(&owner, range, mode) {
                self.waiters.remove(index);
            }
            self.grant_waiters(Change::by(owner, range), effects);
        }
        Ok(LockOutcome::Granted)
    }

    /// Unlocks what `owner` holds of `range`; nothing held is no error. Blocked requests of the owner stay.
    ///
    /// An unlock inside a range makes two of one and can hit a bound; one that splits nothing never fails.
    pub fn unlock(
        &mut self,
        owner: &LockOwner,
        range: ByteRange,
        effects: &mut Vec<Effect>,
    ) -> Result<(), LockError> {
        if !self.owners.contains_key(owner) {
            return Ok(());
        }
        self.change_owner(owner, |locks| locks.unlock(range))?;
        if !self.waiters.is_empty() {
            self.grant_waiters(Change::of(range), effects);
        }
        Ok(())
    }

    /// Takes back a blocked request (NLM CANCEL), which is identified by all three. If it has been granted and the client has not
    /// acknowledged, the grant is undone: the cancel and the callback have crossed.
    pub fn cancel(
        &mut self,
        owner: &LockOwner,
        range: ByteRange,
        mode: LockMode,
        effects: &mut Vec<Effect>,
    ) -> CancelOutcome {
        if let Some(index) = self.waiters.position(owner, range, mode) {
            self.waiters.remove(index);
            self.grant_waiters(Change::of(range), effects);
            return CancelOutcome::Cancelled;
        }
        match self.pending_grant(owner, range, mode).map(|id| self.release_grant(id, effects)) {
            Some(GrantOutcome::Settled) => CancelOutcome::GrantUndone,
            Some(GrantOutcome::NotPending) | None => CancelOutcome::NotFound,
        }
    }

    // ---- callbacks of granted requests

    /// The client has accepted the grant: it needs no more callback. What is held does not change.
    pub fn grant_acknowledged(&mut self, id: GrantId) -> GrantOutcome {
        if self.owners.values_mut().any(|locks| locks.acknowledge(id)) {
            GrantOutcome::Settled
        } else {
            GrantOutcome::NotPending
        }
    }

    /// The client has refused the grant, or can't be reached: the owner holds again what it held before, less what it has
    /// unlocked, more what it has locked since. (A shared grant over what the owner held exclusively leaves it shared: others
    /// may be in already.) See the top of this file for when a refusal is one.
    pub fn release_grant(&mut self, id: GrantId, effects: &mut Vec<Effect>) -> GrantOutcome {
        let Some(range) = self.owners.values_mut().find_map(|locks| locks.undo(id)) else {
            return GrantOutcome::NotPending;
        };
        self.owners.retain(|_, locks| !locks.is_empty());
        self.grant_waiters(Change::of(range), effects);
        GrantOutcome::Settled
    }

    /// The grants that the clients have not acknowledged, as they were emitted, in order: what a new leader must send again.
    pub fn pending_grants(&self) -> Vec<Effect> {
        let mut pending: Vec<(GrantId, Effect)> = Vec::new();
        for (owner, locks) in &self.owners {
            pending.extend(locks.grants().iter().map(|grant| {
                let effect = Effect::Granted {
                    grant: grant.id,
                    owner: owner.clone(),
                    range: grant.range,
                    mode: grant.mode,
                    callback: grant.callback.clone(),
                };
                (grant.id, effect)
            }));
        }
        pending.sort_by_key(|(id, _)| *id);
        pending.into_iter().map(|(_, effect)| effect).collect()
    }

    /// Whether [`Self::pending_grants`] has any: for an index of the files that a new leader must look at.
    pub fn has_pending_grants(&self) -> bool {
        self.owners.values().any(|locks| !locks.grants().is_empty())
    }

    // ---- share reservations

    /// Takes the share reservation of an NLM owner, in the place of its former one (NLM SHARE).
    pub fn share(&mut self, owner: LockOwner, share: Share) -> Result<(), ShareError> {
        if self.shares.get(&owner).is_none() {
            if self.shares.len() >= MAX_SHARES_PER_FILE {
                return Err(ShareError::TooMany(Bound::SharesPerFile));
            }
            if !self.has_identity_room(owner.identity_bytes()) {
                return Err(ShareError::TooMany(Bound::IdentityBytes));
            }
        }
        self.shares.share(owner, share, self.now)
    }

    /// Gives up the share reservation of an NLM owner (NLM UNSHARE); returns what it was. None held is no error.
    pub fn unshare(&mut self, owner: &LockOwner) -> Option<Share> {
        self.shares.unshare(owner)
    }

    /// OPEN of NFSv4: takes `wanted` for an open that has `former` so far (`None`: a new one), unless any other reservation, or the
    /// open's own, conflicts. Returns what it has afterwards.
    pub fn open(&mut self, former: Option<Share>, wanted: Share) -> Result<Share, ShareError> {
        if former.is_none() && self.shares.opens().opens >= MAX_OPENS_PER_FILE {
            return Err(ShareError::TooMany(Bound::OpensPerFile));
        }
        self.shares.open(former, wanted)
    }

    /// OPEN_DOWNGRADE of an open that has `held`: what it keeps must be within.
    pub fn downgrade_open(&mut self, held: Share, to: Share) -> Result<(), ShareError> {
        self.shares.downgrade(held, to)
    }

    /// CLOSE of an open that has `held`.
    pub fn close_open(&mut self, held: Share) -> Result<(), ShareError> {
        self.shares.close(held)
    }

    /// The share reservations, to list and to test against.
    pub fn shares(&self) -> &ShareTable {
        &self.shares
    }

    // ---- listings

    /// The byte ranges held, by owner and then by offset; a granted request counts from its grant on.
    pub fn holders(&self) -> impl Iterator<Item = HeldLock<'_>> {
        self.owners.iter().flat_map(|(owner, locks)| {
            let held = locks.effective().segments().to_vec();
            held.into_iter().map(move |held| {
                let Segment { range, mode, since } = held;
                HeldLock { owner, range, mode, since }
            })
        })
    }

    /// The blocked requests, in the order in which they wait.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.as_slice().iter()
    }

    /// What is wrong with this table, if anything: for a check of stored state. An operation never leaves it so.
    pub fn verify(&self) -> Result<(), &'static str> {
        if !self.owners.values().all(OwnerLocks::is_sound) {
            return Err("an owner's ranges are not in canonical form");
        }
        if !self.waiters.is_sound() {
            return Err("a blocked request is queued twice");
        }
        if !self.shares.is_sound() {
            return Err("share reservations conflict");
        }
        if self.holders().any(|held| self.test(held.owner, held.range, held.mode).is_some()) {
            return Err("locks of two owners conflict");
        }
        if (0..self.waiters.as_slice().len()).any(|index| self.is_grantable(index, &mut None)) {
            return Err("a request waits that could be granted");
        }
        Ok(())
    }

    // ---- inner steps

    /// The unacknowledged grant of just this request.
    fn pending_grant(&self, owner: &LockOwner, range: ByteRange, mode: LockMode) -> Option<GrantId> {
        let grants = self.owners.get(owner)?.grants();
        grants.iter().find(|grant| grant.range == range && grant.mode == mode).map(|grant| grant.id)
    }

    /// Changes what `owner` holds, unless that would exceed a bound.
    fn change_owner(
        &mut self,
        owner: &LockOwner,
        change: impl FnOnce(&mut OwnerLocks),
    ) -> Result<(), LockError> {
        let in_file = self.stored_ranges();
        let Some(locks) = self.owners.get_mut(owner) else {
            if !self.has_identity_room(owner.identity_bytes()) {
                return Err(LockError::TooMany(Bound::IdentityBytes));
            }
            if in_file >= MAX_RANGES_PER_FILE {
                return Err(LockError::TooMany(Bound::RangesPerFile));
            }
            let mut locks = OwnerLocks::default();
            change(&mut locks);
            if !locks.is_empty() {
                self.owners.insert(owner.clone(), locks);
            }
            return Ok(());
        };
        let before = locks.stored_ranges();
        let growth = locks.growth();
        if before + growth <= MAX_RANGES_PER_OWNER && in_file + growth <= MAX_RANGES_PER_FILE {
            change(locks);
        } else {
            // Near a bound: only the result can tell, and it may be fewer ranges than before.
            let mut changed = locks.clone();
            change(&mut changed);
            let after = changed.stored_ranges();
            if after > before && after > MAX_RANGES_PER_OWNER {
                return Err(LockError::TooMany(Bound::RangesPerOwner));
            }
            if after > before && in_file - before + after > MAX_RANGES_PER_FILE {
                return Err(LockError::TooMany(Bound::RangesPerFile));
            }
            *locks = changed;
        }
        if locks.is_empty() {
            self.owners.remove(owner);
        }
        Ok(())
    }

    fn stored_ranges(&self) -> usize {
        self.owners.values().map(OwnerLocks::stored_ranges).sum()
    }

    fn has_identity_room(&self, more: usize) -> bool {
        let owners: usize = self.owners.keys().map(LockOwner::identity_bytes).sum();
        owners + self.waiters.identity_bytes() + self.shares.identity_bytes() + more <= MAX_IDENTITY_BYTES
    }
}
