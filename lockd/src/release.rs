//! Release of everything that a client or an owner has in one file: NLM FREE_ALL and NSM notify (the client restarted),
//! expiry of a v4 lease, RELEASE_LOCKOWNER, FREE_STATEID.

use std::collections::BTreeSet;

use crate::file::{Change, FileLocks};
use crate::owner::{ClientMatch, LockOwner};
use crate::range::ByteRange;
use crate::request::Effect;

/// What a release took away, in numbers, for logs and listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// Byte ranges held (a grant that was not acknowledged counts as one more).
    pub ranges: usize,
    /// Blocked requests.
    pub waiters: usize,
    /// Share reservations.
    pub shares: usize,
}

impl FileLocks {
    /// Releases the byte ranges, blocked requests and share reservations of the clients that `which` means. A callback that
    /// was pending for them is forgotten.
    pub fn release_client(&mut self, which: &ClientMatch, effects: &mut Vec<Effect>) -> Released {
        let released = Released {
            ranges: self.remove_owners(|owner| which.matches(owner.client())),
            waiters: self.waiters.remove_where(|waiter| which.matches(waiter.owner.client())),
            shares: self.shares.remove_where(|owner| which.matches(owner.client())),
        };
        self.grant_waiters(Change::of(ByteRange::WHOLE), effects);
        released
    }

    /// Releases the byte ranges and blocked requests of some owners. Share reservations stay: in NFSv4 they belong to open-owners,
    /// which are another kind of owner (RFC 7530 §9.1.5), and are given up one by one ([`FileLocks::close_open`]).
    pub fn release_owners(&mut self, owners: &BTreeSet<LockOwner>, effects: &mut Vec<Effect>) -> Released {
        let released = Released {
            ranges: self.remove_owners(|owner| owners.contains(owner)),
            waiters: self.waiters.remove_where(|waiter| owners.contains(&waiter.owner)),
            shares: 0,
        };
        self.grant_waiters(Change::of(ByteRange::WHOLE), effects);
        released
    }

    /// Whether any client that `which` means has anything here.
    pub fn concerns(&self, which: &ClientMatch) -> bool {
        self.owners.keys().any(|owner| which.matches(owner.client()))
            || self.waiters().any(|waiter| which.matches(waiter.owner.client()))
            || self.shares.iter().any(|(owner, _)| which.matches(owner.client()))
    }

    fn remove_owners(&mut self, pred: impl Fn(&LockOwner) -> bool) -> usize {
        let mut ranges = 0;
        self.owners.retain(|owner, locks| {
            let goes = pred(owner);
            ranges += if goes { locks.stored_ranges() } else { 0 };
            !goes
        });
        ranges
    }
}
