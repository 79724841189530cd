//! The end of a client that has much: freed in steps, and until then in nobody's way for good.

use super::super::rig::Rig;
use super::{BOTH, READ, WRITE, newest, range, refusal, stateid};
use crate::limits::RELEASE_STATES_MAX;
use crate::{Table, read};
use atoll_base::attr::Attr;
use atoll_lockd::{ByteRange, LockMode, LockOwner, LockRequest, NlmClient, Share, ShareBits, Wait};
use atoll_meta::lock::{LockOp, LockTest};
use atoll_meta::nfs4::{ClientId, ClientOp, StateError, StateId, StateOp};
use atoll_meta::{FsError, Op};

const EXCLUSIVE: Share = Share { access: ShareBits::Both, deny: ShareBits::Both };

/// A client with a lock in each of more files than can be freed at once.
fn busy(rig: &mut Rig) -> (ClientId, Vec<Attr>) {
    let (client, _) = rig.v41("busy");
    let files: Vec<Attr> = (0..RELEASE_STATES_MAX + 1).map(|n| rig.file(&format!("f{n}"))).collect();
    for file in &files {
        let open = rig.open(client, "o", file, EXCLUSIVE).unwrap();
        rig.lock4(client, open.id, "l", range(0, 10), LockMode::Exclusive).unwrap();
    }
    (client, files)
}

#[test]
fn what_is_left_of_a_client_is_delay_and_never_granted() {
    let mut rig = Rig::new();
    let (client, files) = busy(&mut rig);
    let (other, session) = rig.v41("other");
    let last = files.last().unwrap();
    rig.on_client(ClientOp::Expire(client)).unwrap();
    rig.check();
    assert_eq!(rig.rows(Table::ClientRelease), 1);
    assert!(read::has_work(&rig.kv).unwrap());
    // Nobody sees it any more ...
    assert_eq!(read::states_of(&rig.kv, last.ino, StateId(0), 10).unwrap(), []);
    assert_eq!(read::states_by(&rig.kv, client, StateId(0), 10).unwrap(), []);
    assert_eq!(read::sessions(&rig.kv, client).unwrap(), []);
    // ... but it is in the way.
    assert_eq!(rig.open(other, "o", last, READ), Err(FsError::Delay));
    assert_eq!(read::is_denied(&rig.kv, last.ino, ShareBits::Read).unwrap(), Err(FsError::Delay));
    let nlm = LockOwner::nlm(NlmClient::new(b"h".to_vec(), None).unwrap(), b"oh", 1).unwrap();
    let (ino, generation) = (last.ino, last.generation);
    let share = Share { access: ShareBits::Read, deny: ShareBits::None };
    let take = LockOp::Share { ino, generation, owner: nlm.clone(), share, client_state: 0 };
    assert_eq!(rig.root(Op::Lock(take)), Err(FsError::Delay));
    let (range, mode) = (ByteRange::WHOLE, LockMode::Shared);
    let request = LockRequest { owner: nlm.clone(), range, mode, wait: Wait::No };
    let lock = Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 });
    assert_eq!(rig.root(lock.clone()), Err(FsError::Delay));
    let test = LockTest { ino, generation, owner: nlm, range, mode };
    assert_eq!(read::test_lock(&rig.kv, &test).unwrap(), Err(FsError::Delay));
    // A new boot of the same client is not concerned.
    let (again, _) = rig.v41_boot("busy", 2);
    rig.open(again, "o", &files[0], READ).unwrap();
    rig.check();
    let steps = rig.sweep();
    assert!(steps > 1);
    rig.check();
    rig.open(other, "o", last, BOTH).unwrap();
    rig.root(lock).unwrap();
    assert_eq!(rig.rows(Table::ClientRelease), 0);
    assert!(read::session(&rig.kv, session).unwrap().is_some());
    rig.check();
}

#[test]
fn a_lock_of_v4_against_a_remainder_waits_too() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("busy");
    let (other, _) = rig.v41("other");
    let files: Vec<Attr> = (0..RELEASE_STATES_MAX + 1).map(|n| rig.file(&format!("f{n}"))).collect();
    let mut opens = Vec::new();
    for file in &files {
        let open = rig.open(client, "o", file, BOTH).unwrap();
        rig.lock4(client, open.id, "l", range(0, 10), LockMode::Exclusive).unwrap();
        opens.push(rig.open(other, "o", file, BOTH).unwrap());
    }
    rig.on_client(ClientOp::Expire(client)).unwrap();
    let open = opens.last().unwrap();
    assert_eq!(rig.lock4(other, open.id, "l", range(0, 1), LockMode::Shared), Err(FsError::Delay));
    rig.sweep();
    rig.lock4(other, open.id, "l", range(0, 1), LockMode::Shared).unwrap();
    rig.check();
}

#[test]
fn a_restart_frees_all_at_last() {
    let mut rig = Rig::new();
    let (client, files) = busy(&mut rig);
    let (next, _) = rig.v41_boot("busy", 2);
    assert_ne!(next, client);
    let stale = rig.on_state(StateOp::Close { client, open: newest(StateId(1)) });
    assert_eq!(stale, refusal(StateError::StaleClient));
    rig.check();
    rig.sweep();
    for file in &files {
        rig.open(next, "o", file, WRITE).unwrap();
    }
    rig.check();
    rig.on_client(ClientOp::Expire(next)).unwrap();
    rig.sweep();
    rig.check_nothing_left();
    rig.check();
}

#[test]
fn a_removed_file_leaves_no_trace_of_a_client_that_ends() {
    let mut rig = Rig::new();
    let (client, files) = busy(&mut rig);
    for n in 0..files.len() {
        let name = format!("f{n}").into();
        rig.root(Op::Remove { dir: super::ROOT, name, kind: atoll_meta::RemoveKind::Any }).unwrap();
        rig.check();
    }
    rig.on_client(ClientOp::Expire(client)).unwrap();
    rig.check();
    rig.sweep();
    rig.check_nothing_left();
}

#[test]
fn slots_of_a_client_that_ends_go_in_steps() {
    let mut rig = Rig::new();
    let (client, first) = rig.v41("c");
    let second = match rig.create_session(client, 2, 3) {
        Ok(atoll_meta::nfs4::ClientOutcome::Session { session, .. }) => session,
        other => panic!("{other:?}"),
    };
    for session in [first, second] {
        for slot in 0..3 {
            let before = super::bytes("");
            let once = atoll_meta::SlotKey { session, slot, seqid: 1, fingerprint: 1, index: 0, before };
            let op = Op::Client(ClientOp::SetCallback { session, program: slot, security: super::bytes("") });
            rig.keyed(&atoll_base::access::Cred::root(), once.into(), op).result.unwrap();
        }
    }
    rig.on_client(ClientOp::Expire(client)).unwrap();
    rig.check();
    assert_eq!(rig.rows(Table::ClientRelease), 1);
    assert_eq!(read::slot(&rig.kv, second, 0).unwrap(), refusal(StateError::BadSession));
    rig.sweep();
    rig.check_nothing_left();
}

#[test]
fn the_stateid_of_what_a_lock_was_is_gone_with_its_client() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = rig.open(client, "o", &f, BOTH).unwrap();
    let lock = stateid(&rig.lock4(client, open.id, "l", range(0, 1), LockMode::Shared).unwrap());
    rig.on_client(ClientOp::Expire(client)).unwrap();
    let unlock = StateOp::Unlock { client, lock, range: range(0, 1) };
    assert_eq!(rig.on_state(unlock), refusal(StateError::Expired));
    assert_eq!(read::state(&rig.kv, lock.id).unwrap(), None);
    rig.check_nothing_left();
}
