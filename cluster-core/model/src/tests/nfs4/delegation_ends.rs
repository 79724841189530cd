//! Delegations that are recalled, revoked, returned, or gone with the file or the client; and what the holder says of times and data.

use super::super::rig::{ROOT, Rig, at};
use super::delegations::{READING, WRITING, given, shown};
use super::{BAD_STATEID, BOTH, refusal};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, Delegated};
use atoll_base::time::Timestamp;
use atoll_meta::delegation::{DelegationOutcome, DelegationPhase, DelegationWish, Intrusion};
use atoll_meta::nfs4::{ClientOp, StateError, StateId, StateOp, Stateid};
use atoll_meta::{Call, FsError, Op, Outcome, RemoveKind};

#[test]
fn recall_and_revocation() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let [(a, _), (b, _), (c, _)] = ["a", "b", "c"].map(|name| rig.v41(name));
    let first = given(&rig.delegate(a, &f, READING).unwrap());
    let second = given(&rig.delegate(b, &f, READING).unwrap());
    let told = |rig: &Rig| -> Vec<StateId> {
        read::recalled(&rig.kv, StateId(0), 1).unwrap().iter().map(|state| state.stateid.id).collect()
    };
    // Readers are in no reader's way.
    rig.recall(&f, Intrusion::Read, None);
    assert_eq!(told(&rig), []);
    assert!(!rig.applied.as_ref().unwrap().touched.recalls);
    rig.on_state(StateOp::Revoke(first.id)).unwrap();
    assert_eq!(shown(&rig, first).1, DelegationPhase::Held, "it was not recalled");
    rig.recall(&f, Intrusion::Change, Some(b));
    assert!(rig.applied.as_ref().unwrap().touched.recalls);
    assert_eq!(told(&rig), [first.id]);
    assert_eq!(shown(&rig, second).1, DelegationPhase::Held);
    rig.check();
    rig.recall(&f, Intrusion::Change, Some(b));
    assert!(!rig.applied.as_ref().unwrap().touched.recalls, "nothing new");
    // While one is, there is none to be had, not even its own again.
    for client in [a, c] {
        assert_eq!(rig.delegate(client, &f, READING), Ok(DelegationOutcome::Contention));
    }
    rig.recall(&f, Intrusion::Change, None);
    assert_eq!(rig.attr(f.ino).delegated, Delegated::Read);
    let seqid = first.seqid;
    rig.on_state(StateOp::Revoke(first.id)).unwrap();
    rig.on_state(StateOp::Revoke(second.id)).unwrap();
    assert_eq!(rig.attr(f.ino).delegated, Delegated::No);
    assert_eq!(told(&rig), []);
    assert_eq!(read::states_of(&rig.kv, f.ino, StateId(0), 9).unwrap(), []);
    let its = read::states_by(&rig.kv, a, StateId(0), 9).unwrap();
    assert_eq!(its.len(), 1);
    assert_eq!(its[0].stateid, Stateid { id: first.id, seqid });
    assert_eq!(shown(&rig, first).1, DelegationPhase::Revoked);
    let client = read::client(&rig.kv, a).unwrap().unwrap();
    assert_eq!((client.states, client.revoked), (1, 1));
    rig.check();
    // It is in nobody's way, but another's comes only when its loss was acknowledged.
    rig.open(c, "o", &f, BOTH).unwrap();
    rig.close(c, read::states_of(&rig.kv, f.ino, StateId(0), 9).unwrap()[0].stateid.id).unwrap();
    assert_eq!(rig.delegate(a, &f, READING), Ok(DelegationOutcome::Contention));
    let times = StateOp::DelegatedTimes { client: a, delegation: first, atime: None, mtime: None };
    assert_eq!(rig.on_state(times), refusal(StateError::DelegationRevoked));
    let close = StateOp::Close { client: a, open: first };
    assert_eq!(rig.on_state(close), refusal(StateError::BadStateid));
    rig.on_state(StateOp::Free { client: a, state: first }).unwrap();
    rig.on_state(StateOp::Return { client: b, delegation: second }).unwrap();
    assert_eq!(read::client(&rig.kv, a).unwrap().unwrap().revoked, 0);
    let third = given(&rig.delegate(a, &f, READING).unwrap());
    assert_ne!(third.id, first.id);
    let free = StateOp::Free { client: a, state: third };
    assert_eq!(rig.on_state(free), refusal(StateError::LocksHeld));
    rig.check();
}

#[test]
fn a_removed_file_stays_until_its_delegation_is_returned() {
    let mut rig = Rig::new();
    let (a, _) = rig.v41("a");
    for ends in 0..3 {
        let name = format!("f{ends}");
        let f = rig.file(&name);
        let delegation = given(&rig.delegate(a, &f, WRITING).unwrap());
        let remove = Op::Remove { dir: ROOT, name: name.into(), kind: RemoveKind::Any };
        let call = Call { origin: None, once: None, cred: Cred::root(), client: Some(a), op: remove };
        assert_eq!(rig.call(call).result, Ok(Outcome::Unnamed));
        rig.check();
        assert_eq!(rig.attr(f.ino).nlink, 0);
        match ends {
            0 => drop(rig.on_state(StateOp::Return { client: a, delegation }).unwrap()),
            1 => {
                rig.recall(&f, Intrusion::Read, None);
                rig.on_state(StateOp::Revoke(delegation.id)).unwrap();
                assert_eq!(read::client(&rig.kv, a).unwrap().unwrap().revoked, 1);
            }
            _ => drop(rig.on_client(ClientOp::Expire(a)).unwrap()),
        }
        assert_eq!(read::getattr(&rig.kv, f.ino).unwrap(), Err(FsError::Stale));
        rig.check();
    }
    rig.check_nothing_left();
}

#[test]
fn times_that_the_holder_keeps() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, _) = rig.v41("a");
    let keeping = |wish: DelegationWish| DelegationWish { timestamps: true, ..wish };
    let set = |delegation, atime, mtime| StateOp::DelegatedTimes { client: a, delegation, atime, mtime };
    let plain = given(&rig.delegate(a, &f, READING).unwrap());
    assert_eq!(rig.on_state(set(plain, None, None)), Err(BAD_STATEID));
    rig.on_state(StateOp::Return { client: a, delegation: plain }).unwrap();
    let delegation = given(&rig.delegate(a, &f, keeping(READING)).unwrap());
    assert_eq!(rig.on_state(set(delegation, None, Some(at(0)))), Err(FsError::Invalid));
    // A time of access moves nothing else; none goes back.
    let before = rig.attr(f.ino);
    let later = before.atime.plus_nanos(5);
    rig.on_state(set(delegation, Some(later), None)).unwrap();
    assert_eq!(rig.attr(f.ino), Attr { atime: later, ..before.clone() });
    rig.on_state(set(delegation, Some(before.atime), None)).unwrap();
    assert_eq!(rig.attr(f.ino).atime, later);
    let delegation = given(&rig.delegate(a, &f, keeping(WRITING)).unwrap());
    let before = rig.attr(f.ino);
    // ctime becomes what mtime does, not the present.
    let time = before.ctime.plus_nanos(7);
    rig.on_state(set(delegation, None, Some(time))).unwrap();
    let after = rig.attr(f.ino);
    assert!(time < rig.model.now());
    assert_eq!(after, Attr { mtime: time, ctime: time, change: before.change + 1, ..before });
    rig.on_state(set(delegation, None, Some(time))).unwrap();
    assert_eq!(rig.attr(f.ino), after, "the same again");
    // Nor beyond the present.
    let future = rig.model.now().plus_nanos(1_000_000);
    rig.on_state(set(delegation, Some(future), Some(future))).unwrap();
    let (now, after) = (rig.model.now(), rig.attr(f.ino));
    assert_eq!((after.atime, after.mtime, after.ctime), (now, now, now));
    let broken = Timestamp { secs: 1, nanos: 2_000_000_000 };
    assert_eq!(rig.on_state(set(delegation, Some(broken), None)), Err(FsError::Invalid));
    rig.check();
}

#[test]
fn a_holder_that_has_changed_the_file() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, _) = rig.v41("a");
    let reading = given(&rig.delegate(a, &f, READING).unwrap());
    rig.on_state(StateOp::HolderChanged(reading.id)).unwrap();
    assert_eq!(rig.attr(f.ino).change, f.change, "a reader changes nothing");
    let writing = given(&rig.delegate(a, &f, WRITING).unwrap());
    for times in 1..3 {
        let response = rig.op(&Cred::root(), Op::State(StateOp::HolderChanged(writing.id)));
        let after = rig.attr(f.ino);
        assert_eq!(response.changes[0].after, after);
        assert_eq!((after.change, after.size), (f.change + times, 0));
        assert_eq!((after.mtime, after.ctime), (rig.model.now(), rig.model.now()));
    }
    rig.recall(&f, Intrusion::Read, None);
    rig.on_state(StateOp::Revoke(writing.id)).unwrap();
    let before = rig.attr(f.ino);
    rig.on_state(StateOp::HolderChanged(writing.id)).unwrap();
    rig.on_state(StateOp::HolderChanged(StateId(999))).unwrap();
    assert_eq!(rig.attr(f.ino), before);
    rig.check();
}
