//! Every bound is an error, and what it refuses changes nothing.

use super::{Table, owner, range};
use atoll_lockd::limits::*;
use atoll_lockd::{
    Bound, ByteRange, Callback, LockError, LockOutcome, LockOwner, LockRequest, NlmClient, Wait,
};
use atoll_lockd::{LockMode::Exclusive as E, LockMode::Shared as S};

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
