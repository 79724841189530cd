//! Waiting: in which order, who passes whom, and what is a deadlock.

use super::{Table, owner, range};
use atoll_lockd::{ByteRange, Callback, CancelOutcome, LockError, LockOutcome, LockOwner, Wait};
use atoll_lockd::{LockMode::Exclusive as E, LockMode::Shared as S};

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
fn cancelling_a_waiter_wakes_those_behind_it() {
    let mut t = Table::new();
    t.lock("a", range(0, 9), S);
    t.queue("w", range(0, 9), E);
    t.queue("r", range(0, 9), S);
    assert_eq!(t.cancel("w", range(0, 9), E), CancelOutcome::Cancelled);
    t.granted_to("r");
}
