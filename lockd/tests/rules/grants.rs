//! Grants until their callbacks are answered: acknowledged, refused, overtaken.

use super::{Table, range};
use atoll_lockd::{
    ByteRange, Callback, CancelOutcome, Effect, FileLocks, GrantId, GrantOutcome, LockMode, LockOutcome, Wait,
};
use atoll_lockd::{LockMode::Exclusive as E, LockMode::Shared as S};

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
