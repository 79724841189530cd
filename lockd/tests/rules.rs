//! The rules that `lockd/src/file.rs` states, one test each.

#![allow(clippy::unwrap_used)]

use atoll_lockd::limits::*;
use atoll_lockd::{
    Bound, ByteRange, Callback, CancelOutcome, ClientMatch, Effect, FileLocks, GrantId, GrantOutcome,
    LockError, LockMode, LockOutcome, LockOwner, LockRequest, NlmClient, Released, Wait,
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
fn waiters_are_granted_in_order_and_repeating_a_request_keeps_its_place() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    for name in ["b", "c", "b", "d", "b"] {
        t.queue(name, range(0, 9), E);
    }
    assert_eq!(t.locks.waiters().count(), 3);
    t.unlock("a", range(0, 9));
    t.granted_to("b");
    t.unlock("b", range(0, 9));
    t.granted_to("c");
    t.unlock("c", range(0, 9));
    t.granted_to("d");
}

#[test]
fn a_repeated_request_brings_the_newest_callback() {
    let mut t = Table::new();
    t.lock("a", range(0, 0), E);
    for port in [b"1", b"2"] {
        let wait = Wait::Queue(Callback::new(port.to_vec()).unwrap());
        assert!(matches!(t.request("b", range(0, 0), E, wait), Ok(LockOutcome::Blocked(_))));
    }
    t.unlock("a", range(0, 0));
    let Effect::Granted { callback, .. } = &t.effects[0];
    assert_eq!(callback.as_bytes(), b"2");
    assert_eq!(t.locks.pending_grants(), t.effects);
}

#[test]
fn a_downgrade_lets_readers_in_together() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    t.queue("b", range(0, 3), S);
    t.queue("c", range(2, 9), S);
    t.lock("a", range(0, 9), S);
    let granted: Vec<LockOwner> = t.granted().into_iter().map(|(owner, _)| owner).collect();
    assert_eq!(granted, [owner("b"), owner("c")]);
}

#[test]
fn a_blocking_reader_does_not_pass_a_waiting_writer() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.queue("w", range(0, 9), E);
    assert_eq!(t.queue("r", range(0, 9), S), owner("w"));
    // One that does not wait sees only what is held, as TEST does.
    assert_eq!(t.locks.test(&owner("n"), range(0, 9), S), None);
    t.lock("n", range(0, 9), S);
    t.unlock("a", range(0, 9));
    assert!(t.granted().is_empty());
    t.unlock("n", range(0, 9));
    t.granted_to("w");
    t.unlock("w", range(0, 9));
    t.granted_to("r");
}

#[test]
fn a_holder_passes_the_queue_that_may_wait_for_it() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.queue("w", range(0, 19), E);
    // "w" waits for "a"; if "a" had to queue behind "w", neither would ever go on.
    let wait = Wait::Queue(Callback::default());
    assert_eq!(t.request("a", range(5, 15), S, wait), Ok(LockOutcome::Granted));
    t.unlock("a", ByteRange::WHOLE);
    t.granted_to("w");
}

#[test]
fn a_holder_passes_also_those_that_wait_for_it_through_others() {
    let mut t = Table::new();
    t.lock("a", range(0, 0), E);
    t.lock("b", range(10, 10), E);
    t.queue("b", range(0, 0), E); // b waits for a
    t.queue("c", range(10, 20), E); // c waits for b
    let wait = Wait::Queue(Callback::default());
    assert_eq!(t.request("a", range(20, 20), E, wait), Ok(LockOutcome::Granted));
}

#[test]
fn a_grant_makes_its_owner_pass_with_an_earlier_request() {
    let mut t = Table::new();
    t.lock("x", range(0, 0), E);
    t.lock("y", range(10, 10), E);
    t.queue("w", range(0, 5), E); // waits for x
    t.queue("a", range(5, 5), E); // waits only for the queue
    t.queue("a", range(10, 10), E); // waits for y
    t.unlock("y", range(10, 10));
    let granted = t.granted();
    assert_eq!(granted.len(), 2);
    assert_eq!(t.held_by("a"), [(5, 5, E), (10, 10, E)]);
}

#[test]
fn requests_of_one_owner_do_not_hold_each_other_back() {
    let mut t = Table::new();
    t.lock("x", range(0, 0), E);
    t.queue("a", range(0, 9), E);
    let wait = Wait::Queue(Callback::default());
    assert_eq!(t.request("a", range(5, 5), E, wait), Ok(LockOutcome::Granted));
}

#[test]
fn two_readers_that_both_want_to_write_are_a_deadlock() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.lock("b", range(0, 9), S);
    t.queue("a", range(0, 9), E);
    let wait = Wait::Queue(Callback::default());
    assert_eq!(t.request("b", range(0, 9), E, wait), Err(LockError::Deadlock));
    // Refused, it holds what it held; "a" gets its upgrade when "b" lets go.
    assert_eq!(t.held_by("b"), [(0, 9, S)]);
    t.unlock("b", range(0, 9));
    t.granted_to("a");
    assert_eq!(t.held_by("a"), [(0, 9, E)]);
}

#[test]
fn a_deadlock_of_three() {
    let mut t = Table::new();
    for (name, at) in [("a", 0), ("b", 1), ("c", 2)] {
        t.lock(name, range(at, at), E);
    }
    t.queue("a", range(1, 1), E);
    t.queue("b", range(2, 2), S);
    let wait = || Wait::Queue(Callback::default());
    assert_eq!(t.request("c", range(0, 0), S, wait()), Err(LockError::Deadlock));
    // Waiting for the end of the chain from outside is none.
    t.queue("d", range(0, 2), E);
}

#[test]
fn an_upgrade_waits_for_the_other_reader_and_keeps_the_read_lock() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.lock("b", range(5, 5), S);
    assert_eq!(t.queue("a", range(0, 9), E), owner("b"));
    assert_eq!(t.held_by("a"), [(0, 9, S)]);
    // It unlocks while it waits: the request stays, and gives it all.
    t.unlock("a", range(0, 9));
    t.unlock("b", range(5, 5));
    t.granted_to("a");
    assert_eq!(t.held_by("a"), [(0, 9, E)]);
}

#[test]
fn a_refused_grant_leaves_what_was_held_before() {
    let mut t = Table::new();
    t.lock("a", range(0, 4), S);
    t.lock("b", range(3, 9), S);
    t.queue("a", range(2, 9), E);
    t.queue("c", range(4, 9), E);
    t.unlock("b", range(3, 9));
    let id = t.granted_to("a");
    assert_eq!(t.held_by("a"), [(0, 1, S), (2, 9, E)]);
    assert_eq!(t.refuse(id), GrantOutcome::Settled);
    assert_eq!(t.held_by("a"), [(0, 4, S)]);
    // "c" waits for "a"'s byte 4 still.
    assert!(t.granted().is_empty());
    t.unlock("a", range(4, 4));
    t.granted_to("c");
    assert_eq!(t.refuse(id), GrantOutcome::NotPending);
}

#[test]
fn a_refused_shared_grant_does_not_bring_back_an_exclusive_lock() {
    let mut t = Table::new();
    t.lock("a", range(0, 4), E);
    t.lock("b", range(5, 9), E);
    t.queue("a", range(0, 9), S);
    t.queue("c", range(0, 4), S);
    t.unlock("b", range(5, 9));
    let granted = t.granted();
    assert_eq!(granted.len(), 2);
    assert_eq!(t.refuse(granted[0].1), GrantOutcome::Settled);
    assert_eq!(t.held_by("a"), [(0, 4, S)]);
    assert_eq!(t.held_by("c"), [(0, 4, S)]);
}

#[test]
fn an_acknowledged_grant_stays_whatever_is_answered_later() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    t.queue("b", range(0, 9), E);
    t.unlock("a", range(0, 9));
    let id = t.granted_to("b");
    assert!(t.locks.has_pending_grants());
    assert_eq!(t.locks.grant_acknowledged(id), GrantOutcome::Settled);
    assert!(!t.locks.has_pending_grants());
    assert_eq!(t.locks.grant_acknowledged(id), GrantOutcome::NotPending);
    assert_eq!(t.refuse(id), GrantOutcome::NotPending);
    assert_eq!(t.cancel("b", range(0, 9), E), CancelOutcome::NotFound);
    assert_eq!(t.held_by("b"), [(0, 9, E)]);
}

#[test]
fn polling_for_a_granted_request_acknowledges_it() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    t.queue("b", range(0, 9), E);
    t.unlock("a", range(0, 9));
    let id = t.granted_to("b");
    let wait = Wait::Queue(Callback::default());
    assert_eq!(t.request("b", range(0, 9), E, wait), Ok(LockOutcome::Granted));
    assert!(!t.locks.has_pending_grants());
    // The callback was under way, and the client answers that nothing waits for it.
    assert_eq!(t.refuse(id), GrantOutcome::NotPending);
    assert_eq!(t.held_by("b"), [(0, 9, E)]);
}

#[test]
fn unlocking_before_the_acknowledgement_arrives_leaves_nothing() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    t.queue("b", range(0, 9), E);
    t.unlock("a", range(0, 9));
    let id = t.granted_to("b");
    t.unlock("b", ByteRange::WHOLE);
    assert!(t.locks.is_empty());
    assert_eq!(t.locks.grant_acknowledged(id), GrantOutcome::NotPending);
    assert!(t.locks.is_empty());
}

#[test]
fn a_cancel_that_crosses_the_callback_undoes_the_grant() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    t.queue("b", range(0, 9), E);
    t.queue("c", range(0, 9), S);
    t.unlock("a", range(0, 9));
    let id = t.granted_to("b");
    assert_eq!(t.cancel("b", range(0, 9), S), CancelOutcome::NotFound, "another mode, another request");
    assert_eq!(t.cancel("b", range(0, 9), E), CancelOutcome::GrantUndone);
    t.granted_to("c");
    assert_eq!(t.cancel("b", range(0, 9), E), CancelOutcome::NotFound);
    assert_eq!(t.locks.grant_acknowledged(id), GrantOutcome::NotPending);
    assert!(t.held_by("b").is_empty());
}

#[test]
fn cancelling_a_waiter_wakes_those_behind_it() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.queue("w", range(0, 9), E);
    t.queue("r", range(0, 9), S);
    assert_eq!(t.cancel("w", range(0, 9), E), CancelOutcome::Cancelled);
    t.granted_to("r");
}

#[test]
fn asking_again_for_a_grant_that_was_cut_is_a_new_request() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), E);
    t.queue("b", range(0, 9), E);
    t.unlock("a", range(0, 9));
    let first = t.granted_to("b");
    t.unlock("b", range(5, 5));
    assert!(t.locks.has_pending_grants());
    t.lock("c", range(5, 5), E);
    t.queue("b", range(0, 9), E);
    // The first grant has no callback any more: the client would take it for this request.
    assert!(!t.locks.has_pending_grants());
    assert_eq!(t.refuse(first), GrantOutcome::NotPending);
    assert_eq!(t.held_by("b"), [(0, 4, E), (6, 9, E)]);
    t.unlock("c", range(5, 5));
    let second = t.granted_to("b");
    assert_ne!(first, second);
    assert_eq!(t.refuse(second), GrantOutcome::Settled);
    assert_eq!(t.held_by("b"), [(0, 4, E), (6, 9, E)]);
}

#[test]
fn two_grants_of_one_owner_are_settled_in_any_order() {
    // Both grants, over what was held before; every order of acknowledging and refusing.
    for (first_acknowledged, second_acknowledged, second_first) in
        (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
    {
        let mut t = Table::new();
        t.lock("a", range(8, 8), S);
        t.lock("x", range(0, 0), E);
        t.queue("a", range(0, 9), S);
        t.queue("a", range(0, 4), E);
        t.unlock("x", range(0, 0));
        let granted = t.granted();
        assert_eq!(granted.len(), 2);
        let mut answers = [(granted[0].1, first_acknowledged), (granted[1].1, second_acknowledged)];
        if second_first {
            answers.reverse();
        }
        for (id, acknowledged) in answers {
            let outcome = if acknowledged { t.locks.grant_acknowledged(id) } else { t.refuse(id) };
            assert_eq!(outcome, GrantOutcome::Settled);
            assert_eq!(t.locks.verify(), Ok(()));
        }
        let expected: &[(u64, u64, LockMode)] = match (first_acknowledged, second_acknowledged) {
            (true, true) => &[(0, 4, E), (5, 9, S)],
            (true, false) => &[(0, 9, S)],
            (false, true) => &[(0, 4, E), (8, 8, S)],
            (false, false) => &[(8, 8, S)],
        };
        assert_eq!(t.held_by("a"), expected, "{first_acknowledged} {second_acknowledged} {second_first}");
    }
}

#[test]
fn a_table_made_anew_does_not_repeat_grant_ids() {
    let ids: Vec<GrantId> = [1, 2]
        .map(|incarnation| {
            let mut t = Table { locks: FileLocks::new(incarnation), effects: Vec::new() };
            t.lock("a", range(0, 9), E);
            t.queue("b", range(0, 9), E);
            t.unlock("a", range(0, 9));
            t.granted_to("b")
        })
        .to_vec();
    assert_ne!(ids[0], ids[1]);
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

#[test]
fn bounds_are_errors_and_change_nothing() {
    let mut t = Table::new();
    for at in 0..MAX_RANGES_PER_OWNER as u64 {
        t.locks
            .lock(
                LockRequest { owner: owner("a"), range: range(at * 4, at * 4 + 2), mode: S, wait: Wait::No },
                &mut t.effects,
            )
            .unwrap();
    }
    let full = t.locks.clone();
    let beyond =
        LockRequest { owner: owner("a"), range: ByteRange::to_eof(1 << 40), mode: S, wait: Wait::No };
    assert_eq!(t.locks.lock(beyond, &mut t.effects), Err(LockError::TooMany(Bound::RangesPerOwner)));
    assert_eq!(
        t.locks.unlock(&owner("a"), range(1, 1), &mut t.effects),
        Err(LockError::TooMany(Bound::RangesPerOwner))
    );
    assert_eq!(t.locks, full);
    // What makes no more ranges is never refused: a merge, an upgrade in place, an unlock of the whole.
    t.lock("a", range(0, 2), E);
    t.lock("a", range(3, 3), S);
    t.lock("b", range(3, 3), S);
    t.unlock("a", ByteRange::WHOLE);
    t.unlock("b", ByteRange::WHOLE);
    assert!(t.locks.is_empty());
}

#[test]
fn the_file_bound_counts_all_owners() {
    let mut t = Table::new();
    for at in 0..MAX_RANGES_PER_FILE as u64 {
        let name = if at % 2 == 0 { "a" } else { "b" };
        let request = LockRequest { owner: owner(name), range: range(at, at), mode: E, wait: Wait::No };
        t.locks.lock(request, &mut t.effects).unwrap();
    }
    let more =
        |name: &str, wait| LockRequest { owner: owner(name), range: range(1 << 40, 1 << 40), mode: E, wait };
    let full = LockError::TooMany(Bound::RangesPerFile);
    assert_eq!(t.locks.lock(more("c", Wait::No), &mut t.effects), Err(full));
    let queued = LockRequest { range: range(0, 0), ..more("c", Wait::Queue(Callback::default())) };
    assert_eq!(t.locks.lock(queued, &mut t.effects), Err(full));
    // Also of an owner that is here already, and neither by locking nor by splitting.
    assert_eq!(
        t.locks.lock(more("a", Wait::No), &mut t.effects),
        Err(LockError::TooMany(Bound::RangesPerOwner))
    );
    t.locks.unlock(&owner("a"), ByteRange::to_eof(8000), &mut t.effects).unwrap();
    for at in 0..96 {
        t.locks
            .lock(
                LockRequest { range: range(at * 2 + (1 << 41), at * 2 + (1 << 41)), ..more("c", Wait::No) },
                &mut t.effects,
            )
            .unwrap();
    }
    let before = t.locks.clone();
    assert_eq!(t.locks.lock(more("a", Wait::No), &mut t.effects), Err(full));
    assert_eq!(t.locks.lock(more("c", Wait::No), &mut t.effects), Err(full));
    assert_eq!(t.locks, before);
    t.locks.unlock(&owner("a"), range(0, 0), &mut t.effects).unwrap();
    assert_eq!(t.locks.lock(more("c", Wait::No), &mut t.effects), Ok(LockOutcome::Granted));
}

#[test]
fn blocked_requests_are_bounded_with_the_grants_they_become() {
    let mut t = Table::new();
    t.lock("x", range(0, 99), E);
    let request = |at: u64| LockRequest {
        owner: owner("a"),
        range: range(at, at),
        mode: E,
        wait: Wait::Queue(Callback::default()),
    };
    let bound = MAX_WAITERS_PER_OWNER as u64;
    for at in 0..bound {
        assert!(matches!(t.locks.lock(request(at), &mut t.effects), Ok(LockOutcome::Blocked(_))));
    }
    let full = Err(LockError::TooMany(Bound::WaitersPerOwner));
    assert_eq!(t.locks.lock(request(bound), &mut t.effects), full);
    t.unlock("x", range(0, bound - 1));
    assert_eq!(t.granted().len(), MAX_WAITERS_PER_OWNER);
    assert_eq!(t.locks.lock(request(bound), &mut t.effects), full, "unacknowledged grants count");
    t.unlock("a", range(0, 0));
    assert!(matches!(t.locks.lock(request(bound), &mut t.effects), Ok(LockOutcome::Blocked(_))));

    let mut t = Table::new();
    t.lock("x", range(0, 0), E);
    for n in 0..MAX_WAITERS_PER_FILE {
        t.locks.lock(LockRequest { owner: owner(&n.to_string()), ..request(0) }, &mut t.effects).unwrap();
    }
    assert_eq!(
        t.locks.lock(LockRequest { owner: owner("one more"), ..request(0) }, &mut t.effects),
        Err(LockError::TooMany(Bound::WaitersPerFile))
    );
}

#[test]
fn names_are_bounded_one_by_one_and_together() {
    assert!(NlmClient::new(vec![b'n'; MAX_CALLER_NAME + 1], None).is_err());
    let client = NlmClient::new(vec![b'n'; MAX_CALLER_NAME], None).unwrap();
    assert!(LockOwner::nlm(client.clone(), &[0; MAX_OWNER_OPAQUE + 1], 0).is_err());
    assert!(LockOwner::v4(1, vec![0; MAX_OWNER_OPAQUE + 1]).is_err());
    assert!(Callback::new(vec![0; MAX_CALLBACK_BYTES + 1]).is_err());

    let mut t = Table::new();
    let each = MAX_CALLER_NAME + 4 + 4;
    let request = |n: u32| LockRequest {
        owner: LockOwner::nlm(client.clone(), &n.to_be_bytes(), 0).unwrap(),
        range: range(0, 0),
        mode: S,
        wait: Wait::No,
    };
    let fit = (MAX_IDENTITY_BYTES / each) as u32;
    for n in 0..fit {
        assert_eq!(t.locks.lock(request(n), &mut t.effects), Ok(LockOutcome::Granted));
    }
    assert_eq!(t.locks.lock(request(fit), &mut t.effects), Err(LockError::TooMany(Bound::IdentityBytes)));
    // A longer name can't come in by way of storage either.
    let stored = postcard::to_stdvec(&(vec![b'n'; MAX_CALLER_NAME + 1], None::<std::net::IpAddr>)).unwrap();
    assert!(postcard::from_bytes::<NlmClient>(&stored).is_err());
}
