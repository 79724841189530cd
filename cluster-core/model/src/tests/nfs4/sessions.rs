//! CREATE_SESSION and its replay, DESTROY_SESSION, and what slots keep.

use super::super::rig::{ROOT, Rig};
use super::{bytes, refusal, terms};
use crate::limits::{SESSIONS_MAX, SLOTS_MAX};
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::SetAttr;
use atoll_meta::nfs4::{ClientId, ClientOp, ClientOutcome, Principal, SessionId, StateError};
use atoll_meta::once::SLOT_BEFORE_MAX;
use atoll_meta::{CreateHow, FsError, NewNode, Op, Outcome, RemoveKind, Response, SlotKey};

fn session(outcome: Result<ClientOutcome, FsError>) -> SessionId {
    match outcome {
        Ok(ClientOutcome::Session { session, .. }) => session,
        other => panic!("{other:?}"),
    }
}

#[test]
fn creation_is_replayed_by_its_sequence() {
    let mut rig = Rig::new();
    let Ok(ClientOutcome::Exchanged { client, .. }) = rig.exchange("c", 1, 0, false) else { panic!() };
    let misordered = refusal(StateError::Misordered);
    // The cached result of none so far (§18.36.4).
    assert_eq!(rig.create_session(client, 0, 2), misordered);
    assert_eq!(rig.create_session(client, 2, 2), misordered);
    let first = rig.create_session(client, 1, 2);
    assert_eq!(rig.create_session(client, 1, 2), first);
    assert_eq!(rig.create_session(client, 3, 2), misordered);
    let second = rig.create_session(client, 2, 1);
    assert_ne!(session(second.clone()), session(first));
    assert_eq!(rig.create_session(client, 2, 2), second);
    assert_eq!(read::sessions(&rig.kv, client).unwrap().len(), 2);
    assert_eq!(rig.create_session(ClientId(3), 1, 1), refusal(StateError::StaleClient));
    rig.check();
}

#[test]
fn only_the_principal_of_a_client_confirms_it() {
    let mut rig = Rig::new();
    let Ok(ClientOutcome::Exchanged { client, .. }) = rig.exchange("c", 1, 4, false) else { panic!() };
    assert_eq!(rig.create_session(client, 1, 1), refusal(StateError::ClientInUse));
    let create = |principal| ClientOp::CreateSession { client, sequence: 1, principal, terms: terms(1) };
    assert!(rig.on_client(create(Principal::Sys(4))).is_ok());
    rig.check();
}

#[test]
fn sessions_and_slots_are_bounded() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("c");
    assert_eq!(rig.create_session(client, 2, SLOTS_MAX + 1), Err(FsError::Invalid));
    assert_eq!(rig.create_session(client, 2, 0), Err(FsError::Invalid));
    for n in 1..SESSIONS_MAX {
        rig.create_session(client, n + 1, 1).unwrap();
    }
    assert_eq!(rig.create_session(client, SESSIONS_MAX + 1, 1), Err(FsError::TableFull));
    let its = read::sessions(&rig.kv, client).unwrap();
    rig.on_client(ClientOp::DestroySession(its[0].id)).unwrap();
    rig.create_session(client, SESSIONS_MAX + 1, 1).unwrap();
    rig.check();
}

#[test]
fn callbacks_get_new_terms() {
    let mut rig = Rig::new();
    let (_, session) = rig.v41("c");
    let set = |session| ClientOp::SetCallback { session, program: 99, security: bytes("s") };
    rig.on_client(set(session)).unwrap();
    let shown = read::session(&rig.kv, session).unwrap().unwrap();
    assert_eq!((shown.terms.callback_program, shown.terms.callback_security), (99, bytes("s")));
    assert_eq!(rig.on_client(set(SessionId(77))), refusal(StateError::BadSession));
    rig.check();
}

// ---- slots

fn make(name: &str) -> Op {
    Op::Create {
        dir: ROOT,
        name: bytes(name),
        node: NewNode::Regular,
        how: CreateHow::Guarded,
        attrs: SetAttr::default(),
    }
}

fn key(session: SessionId, seqid: u32, index: u32) -> SlotKey {
    SlotKey { session, slot: 1, seqid, fingerprint: u64::from(seqid), index, before: bytes("before") }
}

impl Rig {
    fn on_slot(&mut self, key: SlotKey, op: Op) -> Response {
        self.keyed(&Cred::root(), key.into(), op)
    }
}

#[test]
fn a_slot_keeps_its_last_request() {
    let mut rig = Rig::new();
    let (_, id) = rig.v41("c");
    assert_eq!(read::slot(&rig.kv, id, 1).unwrap(), Ok(None));
    let first = rig.on_slot(key(id, 1, 0), make("a"));
    assert!(first.result.is_ok());
    assert_eq!(rig.on_slot(key(id, 1, 0), make("a")), first);
    // A refusal is an outcome, too.
    let refused = rig.on_slot(key(id, 1, 2), make("a"));
    assert_eq!(refused.result, Err(FsError::Exists));
    assert_eq!(rig.on_slot(key(id, 1, 2), make("b")), refused);
    let kept = read::slot(&rig.kv, id, 1).unwrap().unwrap().unwrap();
    assert_eq!((kept.seqid, kept.index, kept.before, kept.response), (1, 2, bytes("before"), refused));
    // Its answer is part of what the later operation came after.
    assert_eq!(rig.on_slot(key(id, 1, 0), make("a")).result, Err(FsError::Conflict));
    rig.check();
    let other = SlotKey { fingerprint: 9, ..key(id, 1, 3) };
    assert_eq!(rig.on_slot(other, make("c")).result, refusal(StateError::FalseRetry));
    assert!(rig.on_slot(key(id, 5, 0), make("c")).result.is_ok());
    assert_eq!(rig.on_slot(key(id, 4, 9), make("d")).result, refusal(StateError::Misordered));
    rig.check();
}

#[test]
fn a_slots_sequence_wraps() {
    let mut rig = Rig::new();
    let (_, id) = rig.v41("c");
    assert!(rig.on_slot(key(id, u32::MAX, 0), make("a")).result.is_ok());
    assert!(rig.on_slot(key(id, 0, 0), make("b")).result.is_ok());
    assert_eq!(rig.on_slot(key(id, u32::MAX, 0), make("c")).result, refusal(StateError::Misordered));
    // Requests that change nothing leave no trace, and there may have been any number of them.
    assert!(rig.on_slot(key(id, 0x8000_0000, 0), make("c")).result.is_ok());
    assert!(rig.on_slot(key(id, 0x8000_0000 - (1 << 21), 0), make("d")).result.is_ok());
}

#[test]
fn slots_that_were_let_go_begin_anew() {
    let mut rig = Rig::new();
    let (_, id) = rig.v41("c");
    let (_, other) = rig.v41("d");
    let at = |session, slot, seqid| SlotKey { slot, ..key(session, seqid, 0) };
    for (session, slot, name) in [(id, 0, "a"), (id, 1, "b"), (id, 2, "c"), (other, 2, "d")] {
        assert!(rig.on_slot(at(session, slot, 500), make(name)).result.is_ok());
    }
    let retire = |session, keep| ClientOp::RetireSlots { session, keep };
    rig.on_client(retire(id, 1)).unwrap();
    rig.on_client(retire(id, 1)).unwrap();
    let kept = |rig: &Rig, session, slot| read::slot(&rig.kv, session, slot).unwrap().unwrap().is_some();
    assert_eq!([0, 1, 2].map(|slot| kept(&rig, id, slot)), [true, false, false]);
    assert!(kept(&rig, other, 2));
    rig.check();
    assert!(rig.on_slot(at(id, 1, 1), make("e")).result.is_ok());
    assert_eq!(rig.on_slot(at(id, 0, 1), make("f")).result, refusal(StateError::Misordered));
    assert_eq!(rig.on_client(retire(SessionId(77), 1)), refusal(StateError::BadSession));
}

#[test]
fn bad_slots() {
    let mut rig = Rig::new();
    let (client, id) = rig.v41("c");
    let bad = refusal::<Outcome>(StateError::BadSession);
    assert_eq!(rig.on_slot(SlotKey { slot: 3, ..key(id, 1, 0) }, make("a")).result, bad);
    assert_eq!(rig.on_slot(key(SessionId(9), 1, 0), make("a")).result, bad);
    let long = SlotKey { before: vec![0; SLOT_BEFORE_MAX + 1].into(), ..key(id, 1, 0) };
    assert_eq!(rig.on_slot(long, make("a")).result, Err(FsError::Invalid));
    rig.on_slot(key(id, 1, 0), make("a")).result.unwrap();
    // A session that ends by its own request leaves nothing.
    rig.on_slot(key(id, 2, 0), Op::Client(ClientOp::DestroySession(id))).result.unwrap();
    assert_eq!(rig.rows(Table::Slot), 0);
    assert_eq!(rig.on_slot(key(id, 3, 0), make("b")).result, bad);
    assert_eq!(read::slot(&rig.kv, id, 1).unwrap(), refusal(StateError::BadSession));
    rig.on_client(ClientOp::DestroyClient(client)).unwrap();
    rig.check_nothing_left();
}

#[test]
fn what_passes_is_not_kept() {
    let mut rig = Rig::new();
    let (_, id) = rig.v41("c");
    for n in 1..SESSIONS_MAX {
        let client = read::session(&rig.kv, id).unwrap().unwrap().client;
        rig.create_session(client, n + 1, 1).unwrap();
    }
    let client = read::session(&rig.kv, id).unwrap().unwrap().client;
    let (principal, terms) = (Principal::Sys(0), terms(1));
    let create = ClientOp::CreateSession { client, sequence: SESSIONS_MAX + 1, principal, terms };
    assert_eq!(rig.on_slot(key(id, 1, 0), Op::Client(create)).result, Err(FsError::TableFull));
    assert_eq!(read::slot(&rig.kv, id, 1).unwrap(), Ok(None));
    let remove = Op::Remove { dir: ROOT, name: bytes("none"), kind: RemoveKind::Any };
    assert_eq!(rig.on_slot(key(id, 1, 0), remove).result, Err(FsError::NotFound));
    rig.check();
}
