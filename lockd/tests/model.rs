//! The table against a naive model: one cell for each byte, plain loops, nothing merged or ordered cleverly.
//!
//! After every operation: the same outcome and the same grants as the model; the same holdings, in canonical form;
//! no two owners in conflict; every grant legal; nobody waits who could be granted; the value survives storage; and a
//! second table that gets the same operations is the same value.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use atoll_lockd::{
    ByteRange, Callback, CancelOutcome, ClientMatch, Conflict, Effect, FileLocks, GrantId, GrantOutcome,
    LockClient, LockError, LockMode, LockOutcome, LockOwner, LockRequest, NlmClient, Wait,
};
use proptest::prelude::*;

/// Cells 0..64 are the bytes 0..64, the last stands for all bytes from 64 to the end of file.
const CELLS: usize = 65;
/// Owners 0 and 1 are of one NLM client, 2 and 3 of another, 4 and 5 of one of v4.
const OWNERS: usize = 6;

type Cells = [Option<LockMode>; CELLS];

fn owner(index: usize) -> LockOwner {
    match index {
        0..4 => {
            let client = NlmClient::new(vec![b'A' + (index / 2) as u8], None).unwrap();
            LockOwner::nlm(client, b"host", index as i32).unwrap()
        }
        _ => LockOwner::v4(9, vec![index as u8]).unwrap(),
    }
}

fn client_of(index: usize) -> LockClient {
    owner(index).client().clone()
}

/// Cells `first..=last` of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: usize,
    last: usize,
}

impl Span {
    fn range(self) -> ByteRange {
        let last = if self.last == CELLS - 1 { u64::MAX } else { self.last as u64 };
        ByteRange::inclusive(self.first as u64, last).unwrap()
    }

    fn cells(self) -> std::ops::RangeInclusive<usize> {
        self.first..=self.last
    }

    fn overlaps(self, other: Span) -> bool {
        self.cells().any(|cell| other.cells().contains(&cell))
    }
}

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

#[derive(Debug, Clone, PartialEq)]
struct Request {
    owner: usize,
    span: Span,
    mode: LockMode,
}

#[derive(Debug, Clone)]
struct Grant {
    number: u64,
    request: Request,
    cells: Cells,
}

#[derive(Debug, Clone)]
struct Model {
    confirmed: [Cells; OWNERS],
    grants: Vec<Grant>,
    waiters: Vec<Request>,
    next: u64,
}

impl Model {
    fn new() -> Self {
        Self { confirmed: [[None; CELLS]; OWNERS], grants: Vec::new(), waiters: Vec::new(), next: 0 }
    }

    /// The mode in which `owner` holds `cell`: that of its newest grant there, or what is confirmed.
    fn held(&self, owner: usize, cell: usize) -> Option<LockMode> {
        let grants = self.grants.iter().rev().filter(|grant| grant.request.owner == owner);
        grants.filter_map(|grant| grant.cells[cell]).next().or(self.confirmed[owner][cell])
    }

    fn holds_any(&self, owner: usize) -> bool {
        (0..CELLS).any(|cell| self.held(owner, cell).is_some())
    }

    /// Whether `other` holds what a request of another owner conflicts with.
    fn blocks(&self, other: usize, request: &Request) -> bool {
        other != request.owner
            && request.span.cells().any(|cell| {
                self.held(other, cell)
                    .is_some_and(|held| held == LockMode::Exclusive || request.mode == LockMode::Exclusive)
            })
    }

    fn free_of_holders(&self, request: &Request) -> bool {
        (0..OWNERS).all(|other| !self.blocks(other, request))
    }

    /// Whether the rule of fairness holds a request back: an earlier one conflicts, and its owner holds nothing.
    fn must_queue(&self, ahead: &[Request], request: &Request) -> bool {
        !self.holds_any(request.owner)
            && ahead.iter().any(|earlier| {
                earlier.owner != request.owner
                    && earlier.span.overlaps(request.span)
                    && (earlier.mode == LockMode::Exclusive || request.mode == LockMode::Exclusive)
            })
    }

    /// Holdings as maximal runs of one mode.
    fn runs(&self, owner: usize) -> Vec<(Span, LockMode)> {
        let mut runs: Vec<(Span, LockMode)> = Vec::new();
        for cell in 0..CELLS {
            let Some(mode) = self.held(owner, cell) else { continue };
            match runs.last_mut() {
                Some((span, last)) if *last == mode && span.last + 1 == cell => span.last = cell,
                _ => runs.push((Span { first: cell, last: cell }, mode)),
            }
        }
        runs
    }

    fn conflict(&self, request: &Request) -> Option<Conflict> {
        let mut found: Vec<(usize, LockOwner, Conflict)> = Vec::new();
        for other in (0..OWNERS).filter(|other| *other != request.owner) {
            for (span, mode) in self.runs(other) {
                let exclusive = mode == LockMode::Exclusive || request.mode == LockMode::Exclusive;
                if exclusive && span.overlaps(request.span) {
                    let conflict = Conflict { owner: owner(other), range: span.range(), mode };
                    found.push((span.first, owner(other), conflict));
                }
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        found.into_iter().next().map(|(_, _, conflict)| conflict)
    }

    /// Whether waiting would close a circle: the transitive closure of "waits for what the other holds".
    fn deadlock(&self, request: &Request) -> bool {
        let mut waits = [[false; OWNERS]; OWNERS];
        for waiter in self.waiters.iter().chain([request]) {
            for (other, waits) in waits[waiter.owner].iter_mut().enumerate() {
                *waits |= self.blocks(other, waiter);
            }
        }
        for via in 0..OWNERS {
            for from in 0..OWNERS {
                for to in 0..OWNERS {
                    waits[from][to] |= waits[from][via] && waits[via][to];
                }
            }
        }
        // A circle may be there already (two threads of one owner): only what this request waits for counts.
        (0..OWNERS).any(|other| self.blocks(other, request) && waits[other][request.owner])
    }

    fn explicit(&mut self, owner: usize, span: Span, mode: Option<LockMode>) {
        for cell in span.cells() {
            self.confirmed[owner][cell] = mode;
            for grant in self.grants.iter_mut().filter(|grant| grant.request.owner == owner) {
                grant.cells[cell] = None;
            }
        }
        self.grants.retain(|grant| grant.cells.iter().any(Option::is_some));
    }

    fn lock(&mut self, request: Request, wait: bool) -> Result<Outcome, LockError> {
        let place = self.waiters.iter().position(|waiter| *waiter == request);
        let ahead = &self.waiters[..place.unwrap_or(self.waiters.len())];
        let free = self.free_of_holders(&request);
        if !wait && !free {
            return Ok(Outcome::Denied);
        }
        if wait && (!free || self.must_queue(ahead, &request)) {
            if place.is_none() {
                if self.deadlock(&request) {
                    return Err(LockError::Deadlock);
                }
                if let Some(number) = self.grants.iter().find(|g| g.request == request).map(|g| g.number) {
                    self.acknowledge(number);
                }
                self.waiters.push(request);
            }
            return Ok(Outcome::Blocked);
        }
        self.explicit(request.owner, request.span, Some(request.mode));
        self.waiters.retain(|waiter| *waiter != request);
        Ok(Outcome::Granted)
    }

    fn acknowledge(&mut self, number: u64) {
        let index = self.grants.iter().position(|grant| grant.number == number).unwrap();
        let grant = self.grants.remove(index);
        for cell in 0..CELLS {
            if grant.cells[cell].is_none() {
                continue;
            }
            self.confirmed[grant.request.owner][cell] = grant.cells[cell];
            for older in self.grants[..index].iter_mut().filter(|g| g.request.owner == grant.request.owner) {
                older.cells[cell] = None;
            }
        }
        self.grants.retain(|grant| grant.cells.iter().any(Option::is_some));
    }

    fn refuse(&mut self, number: u64) {
        self.grants.retain(|grant| grant.number != number);
    }

    /// Grants whoever can be granted, oldest first, in passes from the start until a pass grants nobody.
    fn wake(&mut self) -> Vec<(u64, Request)> {
        let mut granted = Vec::new();
        loop {
            let before = granted.len();
            let mut at = 0;
            while at < self.waiters.len() {
                let request = self.waiters[at].clone();
                if !self.free_of_holders(&request) || self.must_queue(&self.waiters[..at], &request) {
                    at += 1;
                    continue;
                }
                self.waiters.remove(at);
                let mut cells = [None; CELLS];
                for cell in request.span.cells() {
                    cells[cell] = Some(request.mode);
                    if request.mode == LockMode::Shared {
                        let own = |g: &&mut Grant| g.request.owner == request.owner;
                        let below = self.grants.iter_mut().filter(own).map(|g| &mut g.cells[cell]);
                        for mode in below.chain([&mut self.confirmed[request.owner][cell]]).flatten() {
                            *mode = LockMode::Shared;
                        }
                    }
                }
                self.grants.push(Grant { number: self.next, request: request.clone(), cells });
                granted.push((self.next, request));
                self.next += 1;
            }
            if granted.len() == before {
                return granted;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Granted,
    Denied,
    Blocked,
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
