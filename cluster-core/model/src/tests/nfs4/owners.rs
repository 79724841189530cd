//! Sequences of v4.0 owners: replays, confirmation, what counts, idle owners.

use super::super::rig::{ROOT, Rig};
use super::{
    BAD_SEQID, BAD_STATEID, BOTH, Owner40, READ, bytes, newest, open_file, open_name, opened, range, refusal,
    stateid,
};
use crate::limits::IDLE_OWNERS_MAX;
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_lockd::LockMode;
use atoll_meta::nfs4::{
    ClientId, ClientOp, LockState, OpenTarget, StateError, StateId, StateOp, StateOutcome, Stateid,
};
use atoll_meta::once::OwnerSequence;
use atoll_meta::{CreateHow, FsError, Once, Op, OwnerKey, RemoveKind};

/// An open of a confirmed owner, whose next number is returned.
fn established(rig: &mut Rig, client: ClientId, name: &str, file: &Attr) -> (Owner40, StateId) {
    let mut owner = Owner40::new(client, name, 1);
    let once = owner.by_name();
    let outcome = rig.step(once, open_file(client, name, file, BOTH)).unwrap();
    assert!(matches!(outcome, StateOutcome::Opened { confirm: true, .. }));
    let open = opened(&outcome);
    let once = owner.of(open.id);
    let confirmed = stateid(&rig.step(once, StateOp::Confirm { client, open }).unwrap());
    assert_eq!(confirmed, Stateid { id: open.id, seqid: 2 });
    (owner, open.id)
}

fn create(client: ClientId, owner: &str, name: &str) -> StateOp {
    let create = Some((CreateHow::Guarded, SetAttr::default()));
    let target = OpenTarget::Name { dir: ROOT, name: bytes(name), create };
    StateOp::Open { client, owner: bytes(owner), share: BOTH, target, delegate: None, under: None }
}

#[test]
fn the_last_step_is_replayed() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    let once = owner.by_name();
    let make = Op::State(create(client, "o", "new"));
    let first = rig.keyed(&Cred::root(), once.clone(), make.clone());
    assert!(first.result.is_ok());
    assert_eq!(rig.keyed(&Cred::root(), once.clone(), make.clone()), first);
    // A refusal counts and is kept.
    let once = owner.by_name();
    let refused = rig.keyed(&Cred::root(), once.clone(), make.clone());
    assert_eq!(refused.result, Err(FsError::Exists));
    rig.root(Op::Remove { dir: ROOT, name: bytes("new"), kind: RemoveKind::Any }).unwrap();
    assert_eq!(rig.keyed(&Cred::root(), once.clone(), make.clone()), refused);
    // The same number for something else, and numbers that are not the next.
    let Once::Owner(key) = once else { panic!() };
    let bad = [
        OwnerKey { fingerprint: 77, ..key.clone() },
        OwnerKey { seqid: key.seqid + 2, ..key.clone() },
        OwnerKey { seqid: key.seqid - 1, ..key },
    ];
    for key in bad {
        assert_eq!(rig.keyed(&Cred::root(), key.into(), make.clone()).result, refusal(StateError::BadSeqid));
    }
    rig.check();
    let once = owner.of(open);
    rig.step(once, StateOp::Close { client, open: newest(open) }).unwrap();
    rig.check();
}

#[test]
fn a_close_is_replayed_after_the_state_is_gone() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    let once = owner.of(open);
    let close = StateOp::Close { client, open: newest(open) };
    let first = rig.step(once.clone(), close.clone()).unwrap();
    assert_eq!(stateid(&first), Stateid { id: open, seqid: 3 });
    rig.check();
    assert_eq!(rig.step(once, close.clone()), Ok(first));
    assert_eq!(read::client_of(&rig.kv, open).unwrap(), Some(client));
    // Another step of the closed state: the owner is known, the state is not, and that does not count.
    let Once::Owner(next) = owner.of(open) else { panic!() };
    assert_eq!(rig.step(next.clone().into(), close.clone()), Err(BAD_STATEID));
    let other = OwnerKey { sequence: OwnerSequence::Open(bytes("o")), ..next };
    let outcome = rig.step(other.into(), open_file(client, "o", &f, READ)).unwrap();
    assert!(matches!(outcome, StateOutcome::Opened { confirm: false, .. }), "it was confirmed before");
    // By that the answer to CLOSE is given up.
    assert_eq!(rig.rows(Table::ClosedState), 0);
    assert_eq!(read::client_of(&rig.kv, open).unwrap(), None);
    let once = owner.of(open);
    assert_eq!(rig.step(once, close), Err(BAD_STATEID));
    rig.check();
}

#[test]
fn an_owner_must_be_confirmed() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let mut owner = Owner40::new(client, "o", 5);
    let once = owner.by_name();
    let outcome = rig.step(once.clone(), open_file(client, "o", &f, BOTH)).unwrap();
    assert_eq!(rig.step(once, open_file(client, "o", &f, BOTH)), Ok(outcome.clone()));
    let first = opened(&outcome);
    let shown = read::state(&rig.kv, first.id).unwrap().unwrap();
    assert!(matches!(shown.kind, atoll_meta::nfs4::StateKind::Open { confirmed: false, .. }));
    // §16.18.5: everything but OPEN_CONFIRM is refused.
    let Once::Owner(next) = owner.of(first.id) else { panic!() };
    let state = LockState::New { open: first, owner: bytes("l"), seqid: 1 };
    let lock = StateOp::Lock { client, state, range: range(0, 1), mode: LockMode::Shared, wait: None };
    assert_eq!(rig.step(next.clone().into(), lock), Err(BAD_STATEID));
    let late = OwnerKey { seqid: 9, ..next.clone() };
    assert_eq!(rig.step(late.into(), StateOp::Confirm { client, open: first }), Err(BAD_SEQID));
    rig.check();
    // Another OPEN takes the place of the first, whatever its number.
    let mut again = Owner40::new(client, "o", 77);
    let once = again.by_name();
    let outcome = rig.step(once, open_file(client, "o", &f, READ)).unwrap();
    let second = opened(&outcome);
    assert!(second.id != first.id && matches!(outcome, StateOutcome::Opened { confirm: true, .. }));
    assert_eq!(read::state(&rig.kv, first.id).unwrap(), None);
    rig.check();
    let once = again.of(second.id);
    rig.step(once, StateOp::Confirm { client, open: second }).unwrap();
    let once = again.of(second.id);
    let twice = StateOp::Confirm { client, open: newest(second.id) };
    assert_eq!(rig.step(once, twice), Err(BAD_STATEID));
    rig.check();
}

#[test]
fn an_open_that_is_refused_begins_the_owner_too() {
    let mut rig = Rig::new();
    let client = rig.v40("c");
    let mut owner = Owner40::new(client, "o", 3);
    let once = owner.by_name();
    assert_eq!(rig.step(once.clone(), open_name(client, "o", "none", READ)), Err(FsError::NotFound));
    rig.file("none");
    assert_eq!(rig.step(once, open_name(client, "o", "none", READ)), Err(FsError::NotFound));
    rig.check();
    let once = owner.by_name();
    let outcome = rig.step(once, open_name(client, "o", "none", READ)).unwrap();
    assert!(matches!(outcome, StateOutcome::Opened { confirm: true, .. }));
    rig.check();
}

#[test]
fn refusals_of_the_frontend_count_as_others_do() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    for (error, counts) in [
        (FsError::ReadOnly, true),
        (FsError::Delay, true),
        (StateError::Wire(10013).into(), true),
        (FsError::TableFull, false),
        (StateError::Wire(10036).into(), false),
        (StateError::Wire(10020).into(), false),
        (BAD_STATEID, false),
    ] {
        let once = owner.of(open);
        assert_eq!(rig.step(once.clone(), StateOp::Refuse(error)), Err(error));
        let repeated = rig.step(once, StateOp::Refuse(FsError::Io));
        assert_eq!(repeated, Err(if counts { error } else { FsError::Io }));
    }
    rig.check();
}

/// RFC 7530 §9.1.7: BAD_STATEID does not count, so it is said again.
#[test]
fn nothing_else_is_refused_of_a_state_that_is_closed() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    let close = StateOp::Close { client, open: Stateid { id: open, seqid: 2 } };
    let closing = owner.of(open);
    let closed = rig.step(closing.clone(), close.clone());
    assert!(closed.is_ok(), "{closed:?}");
    let once = owner.of(open);
    for _ in 0..2 {
        assert_eq!(rig.step(once.clone(), StateOp::Refuse(FsError::Invalid)), Err(BAD_STATEID));
    }
    assert_eq!(rig.step(closing, close), closed);
    rig.check();
}

#[test]
fn a_key_must_fit_its_operation() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let other = rig.v40("d");
    let (v41, _) = rig.v41("e");
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    let Once::Owner(key) = owner.of(open) else { panic!() };
    let close = StateOp::Close { client, open: newest(open) };
    for key in [
        OwnerKey { sequence: OwnerSequence::Open(bytes("o")), ..key.clone() },
        OwnerKey { sequence: OwnerSequence::Of(StateId(999)), ..key.clone() },
        OwnerKey { client: other, ..key.clone() },
    ] {
        assert_eq!(rig.step(key.into(), close.clone()), Err(FsError::Invalid));
    }
    let foreign = OwnerKey { client: other, ..key.clone() };
    assert_eq!(
        rig.step(foreign.into(), StateOp::Close { client: other, open: newest(open) }),
        Err(BAD_STATEID)
    );
    let newer = OwnerKey { client: v41, sequence: OwnerSequence::Open(bytes("o")), ..key.clone() };
    assert_eq!(rig.step(newer.into(), open_file(v41, "o", &f, READ)), refusal(StateError::StaleClient));
    assert_eq!(rig.keyed(&Cred::root(), key.into(), Op::Sweep).result, Err(FsError::Invalid));
    rig.check();
}

#[test]
fn a_lock_owner_has_a_sequence_of_its_own() {
    let mut rig = Rig::new();
    let (f, g) = (rig.file("f"), rig.file("g"));
    let client = rig.v40("c");
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    let (mut second, open2) = established(&mut rig, client, "p", &g);
    let lock = |open, seqid| {
        let state = LockState::New { open: newest(open), owner: bytes("l"), seqid };
        StateOp::Lock { client, state, range: range(0, 10), mode: LockMode::Exclusive, wait: None }
    };
    let once = owner.of(open);
    let outcome = rig.step(once.clone(), lock(open, 40)).unwrap();
    assert_eq!(rig.step(once, lock(open, 40)), Ok(outcome.clone()));
    let id = stateid(&outcome).id;
    let mut locker = Owner40::new(client, "l", 41);
    let once = locker.of(id);
    let unlock = StateOp::Unlock { client, lock: newest(id), range: range(0, 5) };
    let unlocked = rig.step(once.clone(), unlock.clone()).unwrap();
    assert_eq!(rig.step(once, unlock), Ok(unlocked));
    rig.check();
    // The owner is known: its number must be the next, and if not, the open owner's does not count either.
    let Once::Owner(key) = second.of(open2) else { panic!() };
    assert_eq!(rig.step(key.clone().into(), lock(open2, 40)), Err(BAD_SEQID));
    assert_eq!(rig.step(key.clone().into(), lock(open2, 43)), Err(BAD_SEQID));
    let other = stateid(&rig.step(key.into(), lock(open2, 42)).unwrap()).id;
    assert_ne!(other, id);
    let mut locker = Owner40::new(client, "l", 43);
    let once = locker.of(id);
    let held = LockState::Held(newest(id));
    let again = StateOp::Lock { client, state: held, range: range(0, 5), mode: LockMode::Shared, wait: None };
    rig.step(once, again).unwrap();
    rig.check();
    // CLOSE takes the lock states along, and with the last the lock owner.
    for (owner, open) in [(&mut owner, open), (&mut second, open2)] {
        let once = owner.of(open);
        rig.step(once, StateOp::Close { client, open: newest(open) }).unwrap();
        rig.check();
    }
    assert_eq!(rig.rows(Table::Owner), 2);
}

#[test]
fn a_lock_that_is_denied_counts() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let (other, _) = rig.v41("d");
    let theirs = rig.open(other, "o", &f, BOTH).unwrap();
    rig.lock4(other, theirs.id, "l", range(0, 10), LockMode::Exclusive).unwrap();
    let (mut owner, open) = established(&mut rig, client, "o", &f);
    let state = LockState::New { open: newest(open), owner: bytes("l"), seqid: 1 };
    let lock = StateOp::Lock { client, state, range: range(0, 10), mode: LockMode::Exclusive, wait: None };
    let once = owner.of(open);
    let denied = rig.step(once.clone(), lock.clone());
    assert!(matches!(denied, Ok(StateOutcome::Denied(_))));
    rig.close(other, theirs.id).unwrap();
    assert_eq!(rig.step(once, lock.clone()), denied, "it is the same request");
    let once = owner.of(open);
    assert!(matches!(rig.step(once, lock), Ok(StateOutcome::Locked(_))));
    rig.check();
}

#[test]
fn numbers_wrap() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    for (name, after) in [("one", 1), ("zero", 0)] {
        let client = rig.v40(name);
        let key = |seqid, sequence| OwnerKey { client, sequence, seqid, fingerprint: u64::from(seqid) };
        let by_name = OwnerSequence::Open(bytes("o"));
        let open =
            opened(&rig.step(key(u32::MAX - 1, by_name).into(), open_file(client, "o", &f, READ)).unwrap());
        let confirm = StateOp::Confirm { client, open };
        rig.step(key(u32::MAX, OwnerSequence::Of(open.id)).into(), confirm).unwrap();
        let close = StateOp::Close { client, open: newest(open.id) };
        rig.step(key(after, OwnerSequence::Of(open.id)).into(), close).unwrap();
        rig.check();
    }
}

#[test]
fn the_owner_that_is_idle_longest_gives_way() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let client = rig.v40("c");
    let mut owners = Vec::new();
    for n in 0..=IDLE_OWNERS_MAX {
        let (mut owner, open) = established(&mut rig, client, &n.to_string(), &f);
        let once = owner.of(open);
        rig.step(once, StateOp::Close { client, open: newest(open) }).unwrap();
        owners.push(owner);
        rig.check();
    }
    assert_eq!(rig.rows(Table::IdleOwner), IDLE_OWNERS_MAX as usize);
    for (n, owner) in owners.iter_mut().enumerate() {
        let once = owner.by_name();
        let outcome = rig.step(once, open_file(client, &n.to_string(), &f, READ)).unwrap();
        let StateOutcome::Opened { confirm, .. } = outcome else { panic!() };
        assert_eq!(confirm, n == 0, "the first is forgotten");
        rig.check();
    }
    rig.on_client(ClientOp::Expire(client)).unwrap();
    rig.sweep();
    rig.check_nothing_left();
}

/// An open that its owner never confirmed goes with the owner's next OPEN, even if that is refused; so does its file, if it has
/// no name any more.
#[test]
fn a_refused_open_in_the_place_of_another_frees_a_removed_file() {
    let mut rig = Rig::new();
    let client = rig.v40("c");
    let mut owner = Owner40::new(client, "o", 1);
    let once = owner.by_name();
    rig.step(once, create(client, "o", "f")).unwrap();
    rig.root(Op::Remove { dir: ROOT, name: bytes("f"), kind: RemoveKind::Any }).unwrap();
    rig.check();
    let once = owner.by_name();
    assert_eq!(rig.step(once, open_name(client, "o", "none", READ)), refusal(FsError::NotFound));
    rig.check();
    rig.on_client(ClientOp::Expire(client)).unwrap();
    rig.check_nothing_left();
    rig.check();
    assert_eq!(rig.rows(Table::Inode), 1);
}
