//! SETCLIENTID and its confirmation, EXCHANGE_ID, the ends of clients: by the RFCs' cases.

use super::super::rig::Rig;
use super::{READ, callback, refusal, verifier};
use crate::limits::{CLIENTS_MAX, EXPIRED_MAX, UNCONFIRMED_MAX};
use crate::{Table, read};
use atoll_meta::FsError;
use atoll_meta::nfs4::{Client, ClientId, ClientOp, ClientOutcome, StateError};

impl Rig {
    fn shown(&self, id: ClientId) -> Option<Client> {
        read::client(&self.kv, id).unwrap()
    }

    fn set40(&mut self, name: &str, boot: u8, uid: u32, ident: u32) -> (ClientId, [u8; 8]) {
        match self.set_client_id(name, boot, uid, ident) {
            Ok(ClientOutcome::Set { client, confirm }) => (client, confirm),
            other => panic!("{other:?}"),
        }
    }

    fn exchanged(&mut self, name: &str, boot: u8, uid: u32) -> (ClientId, u32, bool) {
        match self.exchange(name, boot, uid, false) {
            Ok(ClientOutcome::Exchanged { client, sequence, confirmed }) => (client, sequence, confirmed),
            other => panic!("{other:?}"),
        }
    }
}

const STALE: FsError = FsError::State(StateError::StaleClient);
const IN_USE: FsError = FsError::State(StateError::ClientInUse);
const DONE: Result<ClientOutcome, FsError> = Ok(ClientOutcome::Done);

#[test]
fn ids_bear_the_mark_of_the_cluster() {
    let mut rig = Rig::new();
    let (a, b) = (rig.v40("a"), rig.v41("b").0);
    assert_eq!(a.0 >> 32, rig.model.verifier() >> 32);
    assert_eq!(b.0 >> 32, a.0 >> 32);
    assert_ne!(a, b);
    assert_eq!(read::clients(&rig.kv, ClientId(0), 10).unwrap().len(), 2);
    assert_eq!(read::clients(&rig.kv, a, 10).unwrap()[0].id, b);
    rig.check();
}

// ---- v4.0, RFC 7530 §16.33.5 and §16.34.5

#[test]
fn a_new_client_is_set_and_confirmed() {
    let mut rig = Rig::new();
    let (id, token) = rig.set40("c", 1, 0, 1);
    assert!(!rig.shown(id).unwrap().confirmed);
    assert_eq!(rig.open(id, "o", &rig.attr(super::ROOT), READ), Err(STALE), "it is not confirmed");
    assert_eq!(rig.confirm(id, [0; 8], 0), Err(STALE));
    assert_eq!(rig.confirm(id, token, 5), Err(IN_USE));
    assert_eq!(rig.confirm(ClientId(id.0 + 1), token, 0), Err(STALE));
    rig.check();
    assert_eq!(rig.confirm(id, token, 0), DONE);
    // The reply was lost.
    assert_eq!(rig.confirm(id, token, 0), DONE);
    assert_eq!(rig.confirm(id, token, 5), Err(IN_USE));
    let shown = rig.shown(id).unwrap();
    assert_eq!((shown.minor, shown.confirmed, shown.callback), (0, true, Some(callback(1))));
    rig.check();
}

#[test]
fn setting_an_unconfirmed_client_again_replaces_it() {
    let mut rig = Rig::new();
    let (a, t) = rig.set40("c", 1, 0, 1);
    let (b, u) = rig.set40("c", 1, 3, 1);
    assert!(a != b && t != u);
    assert_eq!(rig.confirm(a, t, 0), Err(STALE));
    assert_eq!(rig.confirm(b, u, 3), DONE);
    rig.check();
}

#[test]
fn the_same_boot_again_updates_the_callback() {
    let mut rig = Rig::new();
    let id = rig.v40("c");
    let f = rig.file("f");
    rig.open(id, "o", &f, READ).unwrap();
    let (same, t) = rig.set40("c", 1, 0, 2);
    assert_eq!(same, id);
    assert_eq!(rig.shown(id).unwrap().callback, Some(callback(1)), "not before it is confirmed");
    let (_, u) = rig.set40("c", 1, 0, 3);
    rig.check();
    assert_eq!(rig.confirm(id, t, 0), Err(STALE), "a later update took its place");
    assert_eq!(rig.confirm(id, u, 4), Err(IN_USE));
    assert_eq!(rig.confirm(id, u, 0), DONE);
    assert_eq!(rig.confirm(id, u, 0), DONE);
    let shown = rig.shown(id).unwrap();
    assert_eq!((shown.callback, shown.states), (Some(callback(3)), 1));
    rig.check();
}

#[test]
fn a_new_boot_ends_the_former_one_when_it_is_confirmed() {
    let mut rig = Rig::new();
    let id = rig.v40("c");
    let f = rig.file("f");
    rig.open(id, "o", &f, READ).unwrap();
    let (first, t) = rig.set40("c", 2, 0, 1);
    let (second, u) = rig.set40("c", 3, 0, 1);
    assert!(first != id && second != id && second != first);
    assert_eq!(rig.shown(id).unwrap().states, 1);
    assert_eq!(rig.confirm(first, t, 0), Err(STALE));
    rig.check();
    assert_eq!(rig.confirm(second, u, 0), DONE);
    assert_eq!(rig.shown(id), None);
    rig.sweep();
    assert_eq!(rig.rows(Table::State), 0);
    rig.check();
}

#[test]
fn a_name_belongs_to_a_principal_that_has_something() {
    let mut rig = Rig::new();
    let id = rig.v40("c");
    let f = rig.file("f");
    let open = rig.open(id, "o", &f, READ).unwrap();
    assert_eq!(rig.set_client_id("c", 1, 7, 9), Ok(ClientOutcome::InUse(callback(1))));
    rig.close(id, open.id).unwrap();
    // RFC 7530 §9.1.2: it has no state any more.
    let (other, token) = rig.set40("c", 1, 7, 9);
    rig.open(id, "o", &f, READ).unwrap();
    assert_eq!(rig.confirm(other, token, 7), Err(IN_USE), "and now it has");
    rig.check();
    rig.on_client(ClientOp::Expire(id)).unwrap();
    assert_eq!(rig.confirm(other, token, 7), DONE);
    rig.check();
}

#[test]
fn minor_versions_have_names_of_their_own() {
    let mut rig = Rig::new();
    let old = rig.v40("c");
    let (new, _) = rig.v41("c");
    assert!(rig.shown(old).is_some() && rig.shown(new).is_some());
    let (old_again, _) = rig.set40("d", 1, 0, 1);
    assert_eq!(rig.create_session(old_again, 1, 1), Err(STALE));
    let (new_again, ..) = rig.exchanged("d", 1, 0);
    assert_eq!(rig.confirm(new_again, [0; 8], 0), Err(STALE));
    rig.check();
}

// ---- v4.1, RFC 8881 §18.35.4

#[test]
fn case_1_and_4_new_and_replaced() {
    let mut rig = Rig::new();
    let (a, sequence, confirmed) = rig.exchanged("c", 1, 0);
    assert_eq!((sequence, confirmed), (1, false));
    let (b, ..) = rig.exchanged("c", 1, 0);
    assert_ne!(a, b);
    assert_eq!(rig.create_session(a, 1, 1), Err(STALE));
    rig.create_session(b, 1, 1).unwrap();
    rig.check();
}

#[test]
fn case_2_a_confirmed_client_is_shown_as_it_is() {
    let mut rig = Rig::new();
    let (id, _) = rig.v41("c");
    assert_eq!(rig.exchanged("c", 1, 0), (id, 2, true));
    let (next, ..) = rig.exchanged("c", 2, 0);
    assert_eq!(rig.exchanged("c", 1, 0), (id, 2, true));
    assert_eq!(rig.create_session(next, 1, 1), Err(STALE), "the unconfirmed one went");
    rig.check();
}

#[test]
fn case_3_another_principal() {
    let mut rig = Rig::new();
    let (id, session) = rig.v41("c");
    assert_eq!(rig.exchange("c", 1, 9, false), Err(IN_USE));
    rig.on_client(ClientOp::DestroySession(session)).unwrap();
    let (other, _, confirmed) = rig.exchanged("c", 1, 9);
    assert!(other != id && !confirmed);
    assert_eq!(rig.shown(id), None);
    rig.check();
}

#[test]
fn case_5_restart() {
    let mut rig = Rig::new();
    let (id, session) = rig.v41("c");
    let f = rig.file("f");
    rig.open(id, "o", &f, READ).unwrap();
    let (next, sequence, confirmed) = rig.exchanged("c", 2, 0);
    assert_eq!((sequence, confirmed), (1, false));
    assert_eq!(rig.shown(id).unwrap().states, 1);
    rig.check();
    assert!(rig.create_session(next, 1, 2).is_ok());
    assert_eq!(rig.shown(id), None);
    assert_eq!(read::session(&rig.kv, session).unwrap(), None);
    rig.sweep();
    assert_eq!((rig.rows(Table::State), rig.rows(Table::Session)), (0, 1));
    rig.check();
}

#[test]
fn cases_6_to_9_updates() {
    let mut rig = Rig::new();
    assert_eq!(rig.exchange("c", 1, 0, true), Err(FsError::NotFound));
    let (next, ..) = rig.exchanged("c", 1, 0);
    assert_eq!(rig.exchange("c", 1, 0, true), Err(FsError::NotFound));
    rig.create_session(next, 1, 1).unwrap();
    let known = ClientOutcome::Exchanged { client: next, sequence: 2, confirmed: true };
    assert_eq!(rig.exchange("c", 1, 0, true), Ok(known));
    assert_eq!(rig.exchange("c", 2, 0, true), refusal(StateError::NotSame));
    assert_eq!(rig.exchange("c", 1, 5, true), Err(FsError::NotOwner));
    assert_eq!(rig.shown(next).unwrap().verifier, verifier(1));
    rig.check();
}

// ---- ends

#[test]
fn a_client_is_destroyed_when_it_has_nothing() {
    let mut rig = Rig::new();
    let (id, session) = rig.v41("c");
    let f = rig.file("f");
    let busy = refusal(StateError::ClientBusy);
    assert_eq!(rig.on_client(ClientOp::DestroyClient(id)), busy);
    let open = rig.open(id, "o", &f, READ).unwrap();
    rig.on_client(ClientOp::DestroySession(session)).unwrap();
    assert_eq!(rig.on_client(ClientOp::DestroyClient(id)), busy);
    rig.close(id, open.id).unwrap();
    assert_eq!(rig.on_client(ClientOp::DestroyClient(id)), DONE);
    assert_eq!(rig.on_client(ClientOp::DestroyClient(id)), Err(STALE));
    let (unconfirmed, ..) = rig.exchanged("c", 1, 0);
    assert_eq!(rig.on_client(ClientOp::DestroyClient(unconfirmed)), DONE);
    rig.check_nothing_left();
    rig.check();
}

#[test]
fn reclaim_is_complete_once() {
    let mut rig = Rig::new();
    let (id, _) = rig.v41("c");
    assert!(!rig.shown(id).unwrap().reclaimed);
    assert_eq!(rig.on_client(ClientOp::ReclaimComplete(id)), DONE);
    assert_eq!(rig.on_client(ClientOp::ReclaimComplete(id)), refusal(StateError::CompleteAlready));
    assert!(rig.shown(id).unwrap().reclaimed);
    assert_eq!(rig.on_client(ClientOp::ReclaimComplete(ClientId(5))), Err(STALE));
}

#[test]
fn an_expired_client_is_told_so_for_a_while() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (id, _) = rig.v41("c");
    rig.on_client(ClientOp::Expire(id)).unwrap();
    rig.on_client(ClientOp::Expire(id)).unwrap();
    assert_eq!(rig.open(id, "o", &f, READ), refusal(StateError::Expired));
    for n in 0..EXPIRED_MAX {
        let (other, _) = rig.v41(&n.to_string());
        rig.on_client(ClientOp::Expire(other)).unwrap();
        rig.check();
    }
    assert_eq!(rig.open(id, "o", &f, READ), Err(STALE));
    let (unconfirmed, ..) = rig.exchanged("c", 1, 0);
    rig.on_client(ClientOp::Expire(unconfirmed)).unwrap();
    assert_eq!(rig.open(unconfirmed, "o", &f, READ), Err(STALE));
    rig.check_nothing_left();
}

#[test]
fn the_oldest_unconfirmed_client_gives_way() {
    let mut rig = Rig::new();
    let (oldest, ..) = rig.exchanged("0", 1, 0);
    for n in 1..UNCONFIRMED_MAX {
        rig.exchanged(&n.to_string(), 1, 0);
    }
    assert!(rig.shown(oldest).is_some());
    rig.set40("more", 1, 0, 1);
    assert_eq!(rig.shown(oldest), None);
    assert_eq!(rig.rows(Table::Unconfirmed) as u64, UNCONFIRMED_MAX);
    rig.check();
}

#[test]
fn confirmed_clients_are_bounded() {
    let mut rig = Rig::new();
    for n in 0..CLIENTS_MAX {
        rig.v41(&n.to_string());
    }
    let (id, token) = rig.set40("more", 1, 0, 1);
    assert_eq!(rig.confirm(id, token, 0), Err(FsError::TableFull));
    let (id, ..) = rig.exchanged("more", 1, 0);
    assert_eq!(rig.create_session(id, 1, 1), Err(FsError::TableFull));
    // A new boot takes the place of the former.
    rig.v41_boot("0", 2);
    rig.check();
}

#[test]
fn texts_are_bounded() {
    let mut rig = Rig::new();
    let long = "x".repeat(crate::limits::OPAQUE_MAX + 1);
    assert_eq!(rig.exchange(&long, 1, 0, false), Err(FsError::Invalid));
    assert_eq!(rig.set_client_id(&long, 1, 0, 0), Err(FsError::Invalid));
    let (id, _) = rig.v41(&long[1..]);
    let f = rig.file("f");
    assert_eq!(rig.open(id, &long, &f, READ), Err(FsError::Invalid));
    rig.open(id, &long[1..], &f, READ).unwrap();
    rig.check();
}
