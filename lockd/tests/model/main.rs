//! The table against a naive model ([`naive`]).
//!
//! After every operation: the same outcome and the same grants as the model; the same holdings, in canonical form;
//! no two owners in conflict; every grant legal; nobody waits who could be granted; the value survives storage; and a
//! second table that gets the same operations is the same value.

#![allow(clippy::unwrap_used)]

mod naive;

use std::collections::BTreeMap;

use atoll_lockd::{
    ByteRange, Callback, CancelOutcome, ClientMatch, Effect, FileLocks, GrantId, GrantOutcome, LockMode,
    LockOutcome, LockOwner, LockRequest, Wait,
};
use naive::{CELLS, Model, OWNERS, Outcome, Request, Span, client_of, owner};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Lock {
        owner: usize,
        span: Span,
        mode: LockMode,
        wait: bool,
    },
    /// Repeat the n-th blocked request (a retransmission or a poll).
    Repeat {
        nth: usize,
    },
    /// Ask again for what the n-th unacknowledged grant gave.
    Poll {
        nth: usize,
        wait: bool,
    },
    Unlock {
        owner: usize,
        span: Span,
    },
    Cancel {
        owner: usize,
        span: Span,
        mode: LockMode,
    },
    CancelWaiter {
        nth: usize,
    },
    CancelGrant {
        nth: usize,
    },
    Acknowledge {
        nth: usize,
    },
    Refuse {
        nth: usize,
    },
    /// Answer a callback for the second time.
    LateAnswer {
        nth: usize,
        refuse: bool,
    },
    ReleaseClient {
        owner: usize,
    },
    ReleaseOwner {
        owner: usize,
    },
}

const INCARNATION: u64 = 3;

fn id(number: u64) -> GrantId {
    GrantId { incarnation: INCARNATION, number }
}

/// Runs `op` on both; panics where they differ.
fn step(table: &mut FileLocks, model: &mut Model, op: &Op) -> Vec<Effect> {
    let mut effects = Vec::new();
    let pick = |nth: usize, of: usize| (of > 0).then(|| nth % of.max(1));
    match op {
        Op::Lock { owner, span, mode, wait } => {
            lock(table, model, Request { owner: *owner, span: *span, mode: *mode }, *wait, &mut effects);
        }
        Op::Repeat { nth } => {
            if let Some(nth) = pick(*nth, model.waiters.len()) {
                let request = model.waiters[nth].clone();
                lock(table, model, request, true, &mut effects);
            }
        }
        Op::Poll { nth, wait } => {
            if let Some(nth) = pick(*nth, model.grants.len()) {
                let request = model.grants[nth].request.clone();
                lock(table, model, request, *wait, &mut effects);
            }
        }
        Op::Unlock { owner: index, span } => {
            table.unlock(&owner(*index), span.range(), &mut effects).unwrap();
            model.explicit(*index, *span, None);
        }
        Op::Cancel { owner, span, mode } => {
            cancel(table, model, &Request { owner: *owner, span: *span, mode: *mode }, &mut effects);
        }
        Op::CancelWaiter { nth } => {
            if let Some(nth) = pick(*nth, model.waiters.len()) {
                cancel(table, model, &model.waiters[nth].clone(), &mut effects);
            }
        }
        Op::CancelGrant { nth } => {
            if let Some(nth) = pick(*nth, model.grants.len()) {
                cancel(table, model, &model.grants[nth].request.clone(), &mut effects);
            }
        }
        Op::Acknowledge { nth } => {
            if let Some(nth) = pick(*nth, model.grants.len()) {
                let number = model.grants[nth].number;
                let before: Vec<_> = holdings(table);
                assert_eq!(table.grant_acknowledged(id(number)), GrantOutcome::Settled);
                assert_eq!(holdings(table), before, "an acknowledgement changes nothing that is held");
                model.acknowledge(number);
            }
        }
        Op::Refuse { nth } => {
            if let Some(nth) = pick(*nth, model.grants.len()) {
                let number = model.grants[nth].number;
                assert_eq!(table.release_grant(id(number), &mut effects), GrantOutcome::Settled);
                model.refuse(number);
            }
        }
        Op::LateAnswer { nth, refuse } => {
            let number = *nth as u64 % (model.next + 1);
            if model.grants.iter().all(|grant| grant.number != number) {
                let before = table.clone();
                let outcome = match refuse {
                    true => table.release_grant(id(number), &mut effects),
                    false => table.grant_acknowledged(id(number)),
                };
                assert_eq!(outcome, GrantOutcome::NotPending);
                assert_eq!(*table, before);
            }
        }
        Op::ReleaseClient { owner: index } => {
            let client = client_of(*index);
            table.release_client(&ClientMatch::Client(client.clone()), &mut effects);
            for other in (0..OWNERS).filter(|other| client_of(*other) == client) {
                forget(model, other);
            }
        }
        Op::ReleaseOwner { owner: index } => {
            table.release_owners(&[owner(*index)].into(), &mut effects);
            forget(model, *index);
        }
    }
    let granted = model.wake();
    let expected: Vec<Effect> = granted
        .iter()
        .map(|(number, request)| Effect::Granted {
            grant: id(*number),
            owner: owner(request.owner),
            range: request.span.range(),
            mode: request.mode,
            callback: callback(request.owner),
        })
        .collect();
    assert_eq!(effects, expected, "grants");
    effects
}

fn callback(owner: usize) -> Callback {
    Callback::new(vec![owner as u8; owner]).unwrap()
}

fn lock(table: &mut FileLocks, model: &mut Model, request: Request, wait: bool, effects: &mut Vec<Effect>) {
    let (owner, range, mode) = (owner(request.owner), request.span.range(), request.mode);
    let holder = model.conflict(&request);
    assert_eq!(table.test(&owner, range, mode), holder);
    let wait_for = if wait { Wait::Queue(callback(request.owner)) } else { Wait::No };
    let got = table.lock(LockRequest { owner, range, mode, wait: wait_for }, effects);
    match (got, model.lock(request, wait)) {
        (Ok(LockOutcome::Granted), Ok(Outcome::Granted)) => assert_eq!(holder, None),
        (Ok(LockOutcome::Denied(conflict)), Ok(Outcome::Denied)) => assert_eq!(Some(conflict), holder),
        (Ok(LockOutcome::Blocked(conflict)), Ok(Outcome::Blocked)) => match holder {
            Some(holder) => assert_eq!(conflict, holder),
            None => assert!(conflict.range.overlaps(&range)),
        },
        (Err(got), Err(expected)) => assert_eq!(got, expected),
        (got, expected) => panic!("table {got:?}, model {expected:?}"),
    }
}

fn cancel(table: &mut FileLocks, model: &mut Model, request: &Request, effects: &mut Vec<Effect>) {
    let outcome = table.cancel(&owner(request.owner), request.span.range(), request.mode, effects);
    let expected = if let Some(at) = model.waiters.iter().position(|waiter| waiter == request) {
        model.waiters.remove(at);
        CancelOutcome::Cancelled
    } else if let Some(number) = model.grants.iter().find(|g| g.request == *request).map(|g| g.number) {
        model.refuse(number);
        CancelOutcome::GrantUndone
    } else {
        CancelOutcome::NotFound
    };
    assert_eq!(outcome, expected);
}

fn forget(model: &mut Model, owner: usize) {
    model.confirmed[owner] = [None; CELLS];
    model.grants.retain(|grant| grant.request.owner != owner);
    model.waiters.retain(|waiter| waiter.owner != owner);
}

fn holdings(table: &FileLocks) -> Vec<(LockOwner, ByteRange, LockMode)> {
    table.holders().map(|held| (held.owner.clone(), held.range, held.mode)).collect()
}

/// What must be true after every operation.
fn check(table: &FileLocks, model: &Model) {
    assert_eq!(table.verify(), Ok(()));

    let mut expected: BTreeMap<LockOwner, Vec<(ByteRange, LockMode)>> = BTreeMap::new();
    for index in 0..OWNERS {
        let runs: Vec<_> = model.runs(index).into_iter().map(|(span, mode)| (span.range(), mode)).collect();
        expected.insert(owner(index), runs);
    }
    let expected: Vec<_> = expected
        .into_iter()
        .flat_map(|(owner, runs)| runs.into_iter().map(move |(range, mode)| (owner.clone(), range, mode)))
        .collect();
    assert_eq!(holdings(table), expected, "holdings in canonical form");

    let waiting: Vec<_> = table.waiters().map(|w| (w.owner.clone(), w.range, w.mode)).collect();
    let expected: Vec<_> = model.waiters.iter().map(|w| (owner(w.owner), w.span.range(), w.mode)).collect();
    assert_eq!(waiting, expected, "queue");

    let pending: Vec<GrantId> =
        table.pending_grants().iter().map(|Effect::Granted { grant, .. }| *grant).collect();
    let expected: Vec<GrantId> = model.grants.iter().map(|grant| id(grant.number)).collect();
    assert_eq!(pending, expected, "pending callbacks");
    assert_eq!(table.has_pending_grants(), !pending.is_empty());

    for cell in 0..CELLS {
        let holders: Vec<LockMode> = (0..OWNERS).filter_map(|owner| model.held(owner, cell)).collect();
        assert!(holders.len() <= 1 || holders.iter().all(|mode| *mode == LockMode::Shared), "cell {cell}");
    }
    for (at, waiter) in model.waiters.iter().enumerate() {
        let held_back = !model.free_of_holders(waiter) || model.must_queue(&model.waiters[..at], waiter);
        assert!(held_back, "lost wake-up of {waiter:?}");
    }
    let nothing = model.waiters.is_empty() && model.grants.is_empty();
    assert_eq!(table.is_empty(), nothing && (0..OWNERS).all(|owner| !model.holds_any(owner)));
    assert!(
        model.waiters.is_empty() || (0..OWNERS).any(|owner| model.holds_any(owner)),
        "requests wait and nobody holds anything"
    );
}

fn span() -> impl Strategy<Value = Span> {
    // Few ends most of the time, so that requests meet and touch; all of them at times, and to end of file.
    let end = prop_oneof![6 => 0_usize..6, 1 => 0_usize..CELLS, 1 => Just(CELLS - 1)];
    (end.clone(), end).prop_map(|(a, b)| Span { first: a.min(b), last: a.max(b) })
}

fn mode() -> impl Strategy<Value = LockMode> {
    prop_oneof![Just(LockMode::Shared), Just(LockMode::Exclusive)]
}

fn op() -> impl Strategy<Value = Op> {
    let nth = 0_usize..64;
    prop_oneof![
        12 => (0..OWNERS, span(), mode(), prop::bool::weighted(0.7))
            .prop_map(|(owner, span, mode, wait)| Op::Lock { owner, span, mode, wait }),
        1 => nth.clone().prop_map(|nth| Op::Repeat { nth }),
        1 => (nth.clone(), any::<bool>()).prop_map(|(nth, wait)| Op::Poll { nth, wait }),
        6 => (0..OWNERS, span()).prop_map(|(owner, span)| Op::Unlock { owner, span }),
        1 => (0..OWNERS, span(), mode()).prop_map(|(owner, span, mode)| Op::Cancel { owner, span, mode }),
        1 => nth.clone().prop_map(|nth| Op::CancelWaiter { nth }),
        1 => nth.clone().prop_map(|nth| Op::CancelGrant { nth }),
        2 => nth.clone().prop_map(|nth| Op::Acknowledge { nth }),
        2 => nth.clone().prop_map(|nth| Op::Refuse { nth }),
        1 => (nth, any::<bool>()).prop_map(|(nth, refuse)| Op::LateAnswer { nth, refuse }),
        1 => (0..OWNERS).prop_map(|owner| Op::ReleaseClient { owner }),
        1 => (0..OWNERS).prop_map(|owner| Op::ReleaseOwner { owner }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_the_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let mut table = FileLocks::new(INCARNATION);
        let mut model = Model::new();
        // A second member: it applies the same operations to what it reads back from storage each time.
        let mut member = postcard::to_stdvec(&table).unwrap();
        for op in &ops {
            let before = model.clone();
            let effects = step(&mut table, &mut model, op);
            check(&table, &model);

            let mut loaded: FileLocks = postcard::from_bytes(&member).unwrap();
            let mut again = before;
            prop_assert_eq!(step(&mut loaded, &mut again, op), effects);
            prop_assert_eq!(&loaded, &table);
            member = postcard::to_stdvec(&loaded).unwrap();
            prop_assert_eq!(&member, &postcard::to_stdvec(&table).unwrap());
        }
        // Everybody goes: nothing stays.
        for index in 0..OWNERS {
            table.release_client(&ClientMatch::Client(client_of(index)), &mut Vec::new());
        }
        prop_assert!(table.is_empty());
    }

    /// However the requests came, if each holder unlocks everything and acknowledges, everyone who waits has a turn.
    #[test]
    fn everyone_who_waits_has_a_turn(ops in prop::collection::vec(op(), 1..60)) {
        let mut table = FileLocks::new(INCARNATION);
        let mut model = Model::new();
        for op in &ops {
            step(&mut table, &mut model, op);
        }
        let mut waiting = table.waiters().count();
        while waiting > 0 {
            // Those that hold, in order, let go of all they hold; a deadlock of owners that never let go is theirs to resolve.
            let holders: Vec<LockOwner> = table.holders().map(|held| held.owner.clone()).collect();
            prop_assert!(!holders.is_empty());
            for holder in holders {
                table.unlock(&holder, ByteRange::WHOLE, &mut Vec::new()).unwrap();
            }
            let still = table.waiters().count();
            prop_assert!(still < waiting);
            waiting = still;
        }
    }
}
