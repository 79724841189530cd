//! The rules that `lockd/src/file.rs` states, one test each: here those of what is held.

#![allow(clippy::unwrap_used)]

mod bounds;
mod grants;
mod queue;

use atoll_lockd::{
    ByteRange, Callback, CancelOutcome, ClientMatch, Effect, FileLocks, GrantId, GrantOutcome, LockError,
    LockMode, LockOutcome, LockOwner, LockRequest, NlmClient, Released, Wait,
};
use atoll_lockd::{LockMode::Exclusive as E, LockMode::Shared as S};

fn owner(name: &str) -> LockOwner {
    let client = NlmClient::new(name.as_bytes().to_vec(), None).unwrap();
    LockOwner::nlm(client, b"oh", 1).unwrap()
}

fn range(first: u64, last: u64) -> ByteRange {
    ByteRange::inclusive(first, last).unwrap()
}

/// A table, and the effects since they were last taken.
struct Table {
    locks: FileLocks,
    effects: Vec<Effect>,
}

impl Table {
    fn new() -> Self {
        Self { locks: FileLocks::new(7), effects: Vec::new() }
    }

    fn request(
        &mut self,
        name: &str,
        range: ByteRange,
        mode: LockMode,
        wait: Wait,
    ) -> Result<LockOutcome, LockError> {
        let outcome =
            self.locks.lock(LockRequest { owner: owner(name), range, mode, wait }, &mut self.effects);
        assert_eq!(self.locks.verify(), Ok(()));
        outcome
    }

    /// A lock that must be granted at once.
    fn lock(&mut self, name: &str, range: ByteRange, mode: LockMode) {
        assert_eq!(self.request(name, range, mode, Wait::No), Ok(LockOutcome::Granted));
    }

    /// A lock that must be queued; whose owner or request is in the way.
    fn queue(&mut self, name: &str, range: ByteRange, mode: LockMode) -> LockOwner {
        match self.request(name, range, mode, Wait::Queue(Callback::default())) {
            Ok(LockOutcome::Blocked(conflict)) => conflict.owner,
            other => panic!("{name} {range} {mode:?}: {other:?}"),
        }
    }

    fn unlock(&mut self, name: &str, range: ByteRange) {
        self.locks.unlock(&owner(name), range, &mut self.effects).unwrap();
        assert_eq!(self.locks.verify(), Ok(()));
    }

    fn cancel(&mut self, name: &str, range: ByteRange, mode: LockMode) -> CancelOutcome {
        let outcome = self.locks.cancel(&owner(name), range, mode, &mut self.effects);
        assert_eq!(self.locks.verify(), Ok(()));
        outcome
    }

    fn refuse(&mut self, id: GrantId) -> GrantOutcome {
        let outcome = self.locks.release_grant(id, &mut self.effects);
        assert_eq!(self.locks.verify(), Ok(()));
        outcome
    }

    /// The grants since the last call: owner and id.
    fn granted(&mut self) -> Vec<(LockOwner, GrantId)> {
        let taken = self.effects.drain(..);
        taken.map(|Effect::Granted { grant, owner, .. }| (owner, grant)).collect()
    }

    /// The one grant since the last call, which must be to `name`.
    fn granted_to(&mut self, name: &str) -> GrantId {
        let granted = self.granted();
        assert_eq!(granted.len(), 1, "{granted:?}");
        assert_eq!(granted[0].0, owner(name));
        granted[0].1
    }

    fn held_by(&self, name: &str) -> Vec<(u64, u64, LockMode)> {
        let name = owner(name);
        let held = self.locks.holders().filter(|held| *held.owner == name);
        held.map(|held| (held.range.first(), held.range.last(), held.mode)).collect()
    }
}

#[test]
fn a_lock_is_as_old_as_the_oldest_of_its_bytes() {
    let mut t = Table::new();
    let ages = |t: &Table| t.locks.holders().map(|held| (held.range.first(), held.since)).collect::<Vec<_>>();
    for (now, first, last, mode) in [(10, 0, 9, S), (20, 20, 29, S), (30, 5, 24, S)] {
        t.locks = t.locks.at(now);
        t.lock("a", range(first, last), mode);
    }
    assert_eq!(ages(&t), [(0, 10)]);
    t.locks = t.locks.at(40);
    t.lock("a", range(10, 12), E);
    assert_eq!(ages(&t), [(0, 10), (10, 40), (13, 10)], "another mode is another lock");
    t.locks = t.locks.at(50);
    t.queue("b", range(11, 11), E);
    assert_eq!(t.locks.waiters().map(|waiter| waiter.since).collect::<Vec<_>>(), [50]);
    t.locks = t.locks.at(60);
    t.lock("a", range(10, 12), E);
    t.unlock("a", range(11, 11));
    assert_eq!(ages(&t), [(0, 10), (10, 40), (12, 40), (13, 10), (11, 60)], "granted just now");
}

#[test]
fn a_lock_replaces_merges_and_splits_what_its_owner_holds() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.lock("a", range(10, 19), S);
    assert_eq!(t.held_by("a"), [(0, 19, S)]);
    t.lock("a", range(5, 6), E);
    assert_eq!(t.held_by("a"), [(0, 4, S), (5, 6, E), (7, 19, S)]);
    t.unlock("a", range(10, 11));
    assert_eq!(t.held_by("a"), [(0, 4, S), (5, 6, E), (7, 9, S), (12, 19, S)]);
    t.lock("a", range(0, 19), S);
    assert_eq!(t.held_by("a"), [(0, 19, S)]);
    t.unlock("a", ByteRange::WHOLE);
    assert!(t.locks.is_empty());
}

#[test]
fn locks_to_end_of_file_and_at_the_last_offsets() {
    let mut t = Table::new();
    t.lock("a", ByteRange::to_eof(100), E);
    let conflict = t.locks.test(&owner("b"), range(1 << 60, 1 << 60), S).unwrap();
    assert_eq!((conflict.owner, conflict.range, conflict.mode), (owner("a"), ByteRange::to_eof(100), E));
    assert_eq!(t.locks.test(&owner("b"), range(0, 99), E), None);
    // The byte u64::MAX is only in ranges to end of file.
    t.unlock("a", range(200, u64::MAX - 1));
    assert_eq!(t.held_by("a"), [(100, 199, E), (u64::MAX, u64::MAX, E)]);
    t.lock("a", range(300, u64::MAX - 1), E);
    assert_eq!(t.held_by("a"), [(100, 199, E), (300, u64::MAX, E)]);
    t.unlock("a", ByteRange::to_eof(0));
    assert!(t.locks.is_empty());
}

#[test]
fn the_conflict_reported_is_the_lowest_then_by_owner() {
    let mut t = Table::new();
    t.lock("c", range(4, 9), S);
    t.lock("b", range(4, 5), S);
    t.lock("a", range(8, 9), S);
    let conflict = t.locks.test(&owner("d"), range(5, 20), E).unwrap();
    assert_eq!((conflict.owner, conflict.range), (owner("b"), range(4, 5)));
    let Ok(LockOutcome::Denied(denied)) = t.request("d", range(6, 20), E, Wait::No) else { panic!() };
    assert_eq!((denied.owner, denied.range), (owner("c"), range(4, 9)));
}

#[test]
fn nlm_and_v4_see_each_other() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    let v4 = LockOwner::v4(0x10, b"owner".to_vec()).unwrap();
    let conflict = t.locks.test(&v4, range(0, 0), S).unwrap();
    assert_eq!(conflict.owner.as_v4_holder(), (0, &b"\0\0\0\x01oh"[..]));
    let request = LockRequest { owner: v4.clone(), range: range(20, 29), mode: E, wait: Wait::No };
    assert_eq!(t.locks.lock(request, &mut t.effects), Ok(LockOutcome::Granted));
    let conflict = t.locks.test(&owner("a"), range(0, 29), S).unwrap();
    assert_eq!(conflict.owner.as_nlm_holder(), (&b"owner"[..], 0));
    assert_eq!(conflict.range, range(20, 29));
}

#[test]
fn a_client_that_restarted_loses_all_and_others_go_on() {
    let mut t = Table::new();
    t.lock("a", range(0, 4), E);
    t.lock("a", range(8, 9), S);
    t.queue("b", range(0, 4), E);
    t.lock("c", range(20, 20), E);
    t.queue("a", range(20, 20), E);
    t.queue("b", range(20, 20), S);
    let which = ClientMatch::NlmName(b"a".to_vec());
    assert!(t.locks.concerns(&which));
    let released = t.locks.release_client(&which, &mut t.effects);
    assert_eq!(released, Released { ranges: 2, waiters: 1, shares: 0 });
    assert!(!t.locks.concerns(&which));
    t.granted_to("b");
    // A client with a grant under way.
    let released = t.locks.release_client(&ClientMatch::Client(owner("b").client().clone()), &mut t.effects);
    assert_eq!(released, Released { ranges: 1, waiters: 1, shares: 0 });
    t.unlock("c", ByteRange::WHOLE);
    assert!(t.locks.is_empty() && t.granted().is_empty());
}
