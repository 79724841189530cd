//! LOCK requests of NFSv4 that are denied and remembered (RFC 8881 §9.6, §20.11).

use super::super::rig::Rig;
use super::{BOTH, newest, range, stateid};
use crate::{Table, read};
use atoll_base::attr::Attr;
use atoll_lockd::LockMode::{Exclusive, Shared};
use atoll_lockd::limits::MAX_WAITERS_PER_OWNER;
use atoll_lockd::{ByteRange, Callback, GrantId, LockMode, LockOwner, LockRequest, NlmClient, Wait};
use atoll_meta::lock::{GrantedWaiter, LockOp, LockOutcome};
use atoll_meta::nfs4::{ClientId, ClientOp, LockState, StateId, StateOp, StateOutcome};
use atoll_meta::{FsError, Op, Outcome};

fn callback(name: &str) -> Callback {
    Callback::new(name.into()).unwrap()
}

struct Scene {
    rig: Rig,
    file: Attr,
    /// With an open each.
    clients: Vec<(ClientId, StateId)>,
}

impl Scene {
    fn new(clients: usize) -> Self {
        let mut rig = Rig::new();
        let file = rig.file("f");
        let clients = (0..clients)
            .map(|n| {
                let (client, _) = rig.v41(&format!("c{n}"));
                (client, rig.open(client, "o", &file, BOTH).unwrap().id)
            })
            .collect();
        Self { rig, file, clients }
    }

    fn lock(&mut self, who: usize, range: ByteRange, mode: LockMode, waits: bool) -> StateOutcome {
        let (client, open) = self.clients[who];
        let state = LockState::New { open: newest(open), owner: super::bytes("l"), seqid: 0 };
        let wait = waits.then(|| callback(&format!("c{who}")));
        let outcome = self.rig.on_state(StateOp::Lock { client, state, range, mode, wait }).unwrap();
        self.rig.check();
        outcome
    }

    fn denied(&mut self, who: usize, range: ByteRange, mode: LockMode, waits: bool) {
        let outcome = self.lock(who, range, mode, waits);
        assert!(matches!(outcome, StateOutcome::Denied(_)), "{outcome:?}");
    }

    fn unlock(&mut self, who: usize, lock: StateId, range: ByteRange) {
        let client = self.clients[who].0;
        self.rig.on_state(StateOp::Unlock { client, lock: newest(lock), range }).unwrap();
        self.rig.check();
    }

    fn granted(&self) -> Vec<GrantedWaiter> {
        read::pending_grants(&self.rig.kv, None, 10).unwrap()
    }

    fn only_grant(&self, who: usize) -> GrantId {
        let granted = self.granted();
        assert_eq!(granted.len(), 1, "{granted:?}");
        assert_eq!(granted[0].owner.as_v4_holder(), (self.clients[who].0.0, &b"l"[..]));
        assert_eq!(granted[0].callback, callback(&format!("c{who}")));
        granted[0].grant
    }

    fn settle(&mut self, grant: GrantId) {
        let op = LockOp::Settle { ino: self.file.ino, grant, accepted: false };
        self.rig.root(Op::Lock(op)).unwrap();
        self.rig.check();
    }
}

#[test]
fn what_becomes_free_is_reserved_for_who_waits_and_taken_by_its_next_lock() {
    let mut s = Scene::new(3);
    let first = stateid(&s.lock(0, range(0, 10), Exclusive, false));
    s.denied(1, range(0, 10), Exclusive, true);
    s.denied(1, range(0, 10), Exclusive, true);
    assert_eq!(s.granted(), []);
    s.unlock(0, first.id, range(0, 10));
    s.only_grant(1);
    s.denied(2, range(5, 1), Shared, false);
    let taken = stateid(&s.lock(1, range(0, 10), Exclusive, true));
    assert_eq!(taken.seqid, 1, "the first that the client sees");
    assert_eq!(s.granted(), []);
    s.denied(2, range(5, 1), Shared, false);
    s.unlock(1, taken.id, range(0, 10));
    stateid(&s.lock(2, range(5, 1), Shared, false));
}

#[test]
fn a_reservation_that_is_given_up_goes_to_the_next() {
    let mut s = Scene::new(3);
    let first = stateid(&s.lock(0, range(0, 10), Exclusive, false));
    s.denied(1, range(0, 10), Exclusive, true);
    s.denied(2, range(0, 10), Exclusive, true);
    s.unlock(0, first.id, range(0, 10));
    let grant = s.only_grant(1);
    s.settle(grant);
    let next = s.only_grant(2);
    s.settle(grant);
    assert_eq!(s.only_grant(2), next, "an answer to the first is none to the second");
    stateid(&s.lock(2, range(0, 10), Exclusive, true));
    // The timer of what was taken changes nothing.
    s.settle(next);
    s.denied(0, range(0, 10), Exclusive, false);
}

#[test]
fn a_request_that_does_not_wait_any_more_is_forgotten() {
    let mut s = Scene::new(2);
    let first = stateid(&s.lock(0, range(0, 10), Exclusive, false));
    s.denied(1, range(0, 10), Exclusive, true);
    s.denied(1, range(0, 10), Exclusive, false);
    s.unlock(0, first.id, range(0, 10));
    assert_eq!(s.granted(), []);
    // Other requests of the owner are others.
    let first = stateid(&s.lock(0, range(0, 10), Exclusive, false));
    s.denied(1, range(0, 10), Exclusive, true);
    s.denied(1, range(0, 5), Exclusive, false);
    s.unlock(0, first.id, range(0, 10));
    s.only_grant(1);
}

#[test]
fn close_and_the_end_of_a_client_forget_what_waits() {
    for expire in [false, true] {
        let mut s = Scene::new(3);
        let first = stateid(&s.lock(0, range(0, 10), Exclusive, false));
        s.denied(1, range(0, 10), Exclusive, true);
        s.denied(2, range(0, 10), Exclusive, true);
        let (client, open) = s.clients[1];
        if expire {
            s.rig.on_client(ClientOp::Expire(client)).unwrap();
        } else {
            s.rig.close(client, open).unwrap();
        }
        s.rig.check();
        s.unlock(0, first.id, range(0, 10));
        s.only_grant(2);
        // Of a reservation the same.
        let (client, open) = s.clients[2];
        if expire {
            s.rig.on_client(ClientOp::Expire(client)).unwrap();
        } else {
            s.rig.close(client, open).unwrap();
        }
        s.rig.check();
        assert_eq!(s.granted(), []);
        stateid(&s.lock(0, range(0, 10), Exclusive, false));
        s.rig.on_client(ClientOp::Expire(s.clients[0].0)).unwrap();
        if !expire {
            for who in [1, 2] {
                s.rig.on_client(ClientOp::Expire(s.clients[who].0)).unwrap();
            }
        }
        s.rig.check();
        assert_eq!((s.rig.rows(Table::Lock), s.rig.rows(Table::LockClient)), (0, 0));
    }
}

/// A reservation is no lock yet: the client must not lose by it what it holds.
#[test]
fn waiting_for_a_shared_lock_weakens_no_exclusive_one() {
    let mut s = Scene::new(3);
    for exclusive_first in [true, false] {
        let other = stateid(&s.lock(0, range(10, 10), Exclusive, false));
        if exclusive_first {
            stateid(&s.lock(1, range(0, 10), Exclusive, false));
            s.denied(1, range(0, 20), Shared, true);
        } else {
            s.denied(1, range(0, 20), Shared, true);
            stateid(&s.lock(1, range(0, 10), Exclusive, false));
        }
        s.unlock(0, other.id, range(10, 10));
        assert_eq!(s.granted(), []);
        s.denied(2, range(0, 1), Shared, false);
        let all = stateid(&s.lock(1, range(0, 20), Shared, true));
        stateid(&s.lock(2, range(0, 1), Shared, false));
        s.unlock(1, all.id, range(0, 20));
        let (client, open) = s.clients[2];
        s.rig.close(client, open).unwrap();
        let file = s.file.clone();
        s.clients[2].1 = s.rig.open(client, "o", &file, BOTH).unwrap().id;
    }
    // The other way round nothing is lost: the exclusive one lies above.
    let other = stateid(&s.lock(0, range(10, 10), Shared, false));
    let shared = stateid(&s.lock(1, range(0, 20), Shared, false));
    s.denied(1, range(0, 20), Exclusive, true);
    s.unlock(0, other.id, range(10, 10));
    let grant = s.only_grant(1);
    s.settle(grant);
    stateid(&s.lock(2, range(0, 20), Shared, false));
    s.denied(0, range(0, 1), Exclusive, false);
    s.unlock(1, shared.id, range(0, 20));
}

/// Who waits may have given up without a word, so it stands in nobody's way.
#[test]
fn waiting_requests_hold_nobody_up() {
    let mut s = Scene::new(3);
    stateid(&s.lock(0, range(0, 10), Shared, false));
    s.denied(1, range(0, 10), Exclusive, true);
    stateid(&s.lock(2, range(0, 10), Shared, true));
}

#[test]
fn what_cannot_be_remembered_is_denied_all_the_same() {
    let mut s = Scene::new(2);
    stateid(&s.lock(0, range(0, 1000), Exclusive, false));
    for n in 0..MAX_WAITERS_PER_OWNER as u64 + 1 {
        s.denied(1, range(n, 1), Exclusive, true);
    }
    // A deadlock is none: who waits may wait no longer.
    let mut s = Scene::new(2);
    stateid(&s.lock(0, range(0, 1), Exclusive, false));
    stateid(&s.lock(1, range(1, 1), Exclusive, false));
    s.denied(0, range(1, 1), Exclusive, true);
    s.denied(1, range(0, 1), Exclusive, true);
}

#[test]
fn clients_of_both_protocols_wait_for_each_other() {
    let mut s = Scene::new(1);
    let (ino, generation) = (s.file.ino, s.file.generation);
    let owner = LockOwner::nlm(NlmClient::new(b"h".to_vec(), None).unwrap(), b"oh", 1).unwrap();
    let request = LockRequest {
        owner: owner.clone(),
        range: ByteRange::WHOLE,
        mode: Exclusive,
        wait: Wait::Queue(callback("h")),
    };
    let nlm = Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 });
    let lock = |s: &mut Scene| match s.rig.root(nlm.clone()) {
        Ok(Outcome::Lock(LockOutcome::Lock(outcome))) => outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(lock(&mut s), atoll_lockd::LockOutcome::Granted);
    s.denied(0, range(0, 10), Exclusive, true);
    s.rig.root(Op::Lock(LockOp::Unlock { ino, generation, owner, range: ByteRange::WHOLE })).unwrap();
    s.only_grant(0);
    assert!(matches!(lock(&mut s), atoll_lockd::LockOutcome::Blocked(_)));
    let taken = stateid(&s.lock(0, range(0, 10), Exclusive, true));
    s.unlock(0, taken.id, range(0, 10));
    assert_eq!(s.granted().len(), 1);
    assert_eq!(s.granted()[0].callback, callback("h"));
    let removed: Result<_, FsError> =
        s.rig.root(Op::State(StateOp::Close { client: s.clients[0].0, open: newest(s.clients[0].1) }));
    removed.unwrap();
    s.rig.check();
}
