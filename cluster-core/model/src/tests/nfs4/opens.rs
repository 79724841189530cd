//! OPEN, OPEN_DOWNGRADE, CLOSE, and stateids.

use super::super::rig::{ROOT, Rig, user};
use super::{BAD_STATEID, BOTH, READ, WRITE, bytes, newest, open_name, opened, refusal, stateid};
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::{FileKind, SetAttr};
use atoll_lockd::{Share, ShareBits};
use atoll_meta::lock::LockOp;
use atoll_meta::nfs4::{
    ClientId, ClientOp, OpenTarget, StateError, StateId, StateKind, StateOp, StateOutcome, Stateid,
};
use atoll_meta::{CreateHow, FsError, NewNode, Op, Outcome, RemoveKind};

fn share(access: ShareBits, deny: ShareBits) -> Share {
    Share { access, deny }
}

fn create(client: ClientId, owner: &str, name: &str, share: Share, how: CreateHow, set: SetAttr) -> StateOp {
    let target = OpenTarget::Name { dir: ROOT, name: bytes(name), create: Some((how, set)) };
    StateOp::Open { client, owner: bytes(owner), share, target, delegate: None, under: None }
}

#[test]
fn open_lock_and_close() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = opened(&rig.on_state(open_name(client, "o", "f", BOTH)).unwrap());
    assert_eq!(open.seqid, 1);
    rig.check();
    let shown = read::state(&rig.kv, open.id).unwrap().unwrap();
    assert_eq!((shown.stateid, shown.client, shown.ino), (open, client, f.ino));
    assert_eq!(shown.kind, StateKind::Open { share: BOTH, confirmed: true });
    let closed = rig.close(client, open.id).unwrap();
    assert_eq!(closed, Stateid { id: open.id, seqid: 2 });
    assert_eq!(read::state(&rig.kv, open.id).unwrap(), None);
    assert_eq!(rig.close(client, open.id), Err(BAD_STATEID));
    rig.check();
    assert_eq!(rig.rows(Table::Lock), 0);
}

#[test]
fn a_further_open_of_the_owner_upgrades() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let first = rig.open(client, "o", &f, READ).unwrap();
    let second = rig.open(client, "o", &f, WRITE).unwrap();
    assert_eq!(second, Stateid { id: first.id, seqid: 2 });
    let other = rig.open(client, "p", &f, READ).unwrap();
    assert_ne!(other.id, first.id);
    rig.check();
    let shown = read::state(&rig.kv, first.id).unwrap().unwrap();
    assert_eq!(shown.kind, StateKind::Open { share: BOTH, confirmed: true });
    assert_eq!(read::states_of(&rig.kv, f.ino, StateId(0), 10).unwrap().len(), 2);
    assert_eq!(read::states_of(&rig.kv, f.ino, first.id, 10).unwrap()[0].stateid, other);
    assert_eq!(read::states_by(&rig.kv, client, StateId(0), 1).unwrap()[0].stateid, second);
}

#[test]
fn versions_of_a_stateid() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let (other, _) = rig.v41("d");
    let id = rig.open(client, "o", &f, READ).unwrap().id;
    rig.open(client, "o", &f, BOTH).unwrap();
    let mut down =
        |client, seqid| rig.on_state(StateOp::Downgrade { client, open: Stateid { id, seqid }, share: READ });
    assert_eq!(down(client, 1), refusal(StateError::OldStateid));
    assert_eq!(down(client, 3), Err(BAD_STATEID));
    assert_eq!(down(other, 2), Err(BAD_STATEID));
    assert_eq!(stateid(&down(client, 2).unwrap()).seqid, 3);
    assert_eq!(stateid(&down(client, 0).unwrap()).seqid, 4);
    let unknown = Stateid { id: StateId(99), seqid: 0 };
    assert_eq!(rig.on_state(StateOp::Close { client, open: unknown }), Err(BAD_STATEID));
    rig.check();
}

#[test]
fn shares_deny() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, _) = rig.v41("a");
    let (b, _) = rig.v41("b");
    let denied = refusal(StateError::ShareDenied);
    let first = rig.open(a, "o", &f, share(ShareBits::Read, ShareBits::Write)).unwrap();
    assert_eq!(rig.open(b, "o", &f, WRITE), denied);
    assert_eq!(rig.open(b, "o", &f, share(ShareBits::Read, ShareBits::Read)), denied);
    rig.open(b, "o", &f, READ).unwrap();
    // The same owner is no exception (RFC 8881 §9.7).
    assert_eq!(rig.open(a, "o", &f, WRITE), denied);
    assert!(read::is_denied(&rig.kv, f.ino, ShareBits::Write).unwrap().unwrap());
    assert!(!read::is_denied(&rig.kv, f.ino, ShareBits::Read).unwrap().unwrap());
    rig.check();
    rig.close(a, first.id).unwrap();
    rig.open(b, "o", &f, WRITE).unwrap();
    rig.check();
}

#[test]
fn opens_and_nlm_shares_see_each_other() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let nlm = atoll_lockd::NlmClient::new(b"host".to_vec(), None).unwrap();
    let owner = atoll_lockd::LockOwner::nlm(nlm, b"oh", 0).unwrap();
    let take = Op::Lock(LockOp::Share {
        ino: f.ino,
        generation: f.generation,
        owner,
        share: share(ShareBits::Read, ShareBits::Write),
        client_state: 0,
    });
    rig.root(take.clone()).unwrap();
    assert_eq!(rig.open(client, "o", &f, WRITE), refusal(StateError::ShareDenied));
    rig.open(client, "o", &f, READ).unwrap();
    rig.check();
}

#[test]
fn only_what_was_opened_is_left_of_a_downgrade() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = newest(rig.open(client, "o", &f, BOTH).unwrap().id);
    let mut down = |share| rig.on_state(StateOp::Downgrade { client, open, share });
    assert_eq!(down(READ), Err(FsError::Invalid), "it was never opened for reading alone");
    assert_eq!(down(share(ShareBits::None, ShareBits::None)), Err(FsError::Invalid));
    down(BOTH).unwrap();
    rig.open(client, "o", &f, READ).unwrap();
    let mut down = |share| rig.on_state(StateOp::Downgrade { client, open, share });
    assert_eq!(down(WRITE), Err(FsError::Invalid));
    down(READ).unwrap();
    assert_eq!(down(BOTH), Err(FsError::Invalid), "that is no OPEN in effect any more");
    rig.check();
    rig.open(client, "o", &f, WRITE).unwrap();
    let mut down = |share| rig.on_state(StateOp::Downgrade { client, open, share });
    down(BOTH).unwrap();
    down(WRITE).unwrap();
    rig.check();
}

#[test]
fn permission_is_the_callers() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("c");
    let root = rig.attr(ROOT);
    rig.set(&Cred::root(), &root, SetAttr { mode: Some(0o777), ..SetAttr::default() }).unwrap();
    let f = rig.make(&user(1), ROOT, "f", NewNode::Regular, 0o400);
    for (uid, share, by_name, by_file) in [
        (1, READ, true, true),
        // open(2) must fail, but what was open can be opened again.
        (1, WRITE, false, true),
        (1, BOTH, false, true),
        (2, READ, false, false),
        (0, BOTH, true, true),
    ] {
        let expected = |ok: bool| if ok { Ok(()) } else { Err(FsError::AccessDenied) };
        let name = rig.on_state_by(&user(uid), open_name(client, "o", "f", share));
        assert_eq!(name.map(drop), expected(by_name), "{uid} {share:?} by name");
        let file = rig.on_state_by(&user(uid), super::open_file(client, "o", &f, share));
        assert_eq!(file.map(drop), expected(by_file), "{uid} {share:?} by file");
    }
    // A program is read to be executed.
    rig.make(&user(1), ROOT, "x", NewNode::Regular, 0o711);
    rig.on_state_by(&user(2), open_name(client, "o", "x", READ)).unwrap();
    assert_eq!(rig.on_state_by(&user(2), open_name(client, "o", "x", BOTH)), Err(FsError::AccessDenied));
    rig.check();
}

#[test]
fn types_that_cannot_be_opened() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("c");
    rig.dir(ROOT, "d");
    rig.make(&Cred::root(), ROOT, "l", NewNode::Symlink(bytes("t")), 0o777);
    rig.make(&Cred::root(), ROOT, "p", NewNode::Special(FileKind::Fifo, Default::default()), 0o666);
    let unchecked = |name: &str| create(client, "o", name, READ, CreateHow::Unchecked, SetAttr::default());
    for (name, error) in [("d", FsError::IsDirectory), ("l", FsError::WrongType), ("p", FsError::WrongType)] {
        assert_eq!(rig.on_state(open_name(client, "o", name, READ)), Err(error), "{name}");
        assert_eq!(rig.on_state(unchecked(name)), Err(error), "{name}");
        let guarded = create(client, "o", name, READ, CreateHow::Guarded, SetAttr::default());
        assert_eq!(rig.on_state(guarded), Err(FsError::Exists));
    }
    assert_eq!(rig.on_state(open_name(client, "o", "none", READ)), Err(FsError::NotFound));
    assert_eq!(rig.rows(Table::State), 0);
    rig.check();
}

#[test]
fn open_makes_a_file() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("c");
    let mode = SetAttr { mode: Some(0), ..SetAttr::default() };
    let root = rig.attr(ROOT);
    rig.set(&Cred::root(), &root, SetAttr { mode: Some(0o777), ..SetAttr::default() }).unwrap();
    // Its creator may open it whatever its mode.
    let guarded = create(client, "o", "g", BOTH, CreateHow::Guarded, mode.clone());
    let response = rig.op(&user(1), Op::State(guarded.clone()));
    assert_eq!(response.changes.len(), 2);
    assert_eq!(response.changes[0].after.ino, ROOT);
    let outcome = super::state_outcome(response.clone()).unwrap();
    let StateOutcome::Opened { attr, created: true, confirm: false, .. } = outcome else { panic!() };
    assert_eq!((attr.mode, attr.uid), (0, 1));
    assert_eq!(response.changes[1].after, attr);
    assert_eq!(rig.on_state_by(&user(1), guarded), Err(FsError::Exists));
    // The same exclusive creation twice is one.
    let exclusive = |n: u8| create(client, "o", "e", BOTH, CreateHow::Exclusive([n; 8]), mode.clone());
    let first = rig.on_state_by(&user(1), exclusive(1)).unwrap();
    let again = rig.on_state_by(&user(1), exclusive(1)).unwrap();
    assert_eq!(opened(&first).id, opened(&again).id);
    assert!(matches!(again, StateOutcome::Opened { created: false, .. }));
    assert_eq!(rig.on_state_by(&user(1), exclusive(2)), Err(FsError::Exists));
    assert_eq!(
        rig.on_state_by(&user(2), exclusive(1)),
        Err(FsError::AccessDenied),
        "verifiers are no secrets"
    );
    rig.check();
}

#[test]
fn open_cuts_a_file_off() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let data = rig.inline(0, b"hello");
    rig.write(&Cred::root(), &f, vec![data]).unwrap();
    let (client, _) = rig.v41("c");
    let (other, _) = rig.v41("d");
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let open = |client, share| create(client, "o", "f", share, CreateHow::Unchecked, size(0));
    assert_eq!(rig.on_state(open(client, READ)), Err(FsError::Invalid));
    let deny = rig.open(other, "o", &f, share(ShareBits::Read, ShareBits::Write)).unwrap();
    assert_eq!(rig.on_state(open(client, BOTH)), refusal(StateError::ShareDenied));
    assert_eq!(rig.content(f.ino), b"hello");
    rig.close(other, deny.id).unwrap();
    let Ok(StateOutcome::Opened { attr, created: false, .. }) = rig.on_state(open(client, BOTH)) else {
        panic!()
    };
    assert_eq!(attr.size, 0);
    assert_eq!(rig.content(f.ino), b"");
    rig.check();
}

#[test]
fn a_removed_file_stays_until_it_is_closed_for_the_last_time() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let inodes = rig.rows(Table::Inode);
    let (client, _) = rig.v41("c");
    let (other, _) = rig.v41("d");
    let open = rig.open(client, "o", &f, BOTH).unwrap();
    let others = rig.open(other, "p", &f, READ).unwrap();
    let all = super::range(0, 10);
    let exclusive = atoll_lockd::LockMode::Exclusive;
    rig.lock4(client, open.id, "l", all, exclusive).unwrap();
    let removed = rig.root(Op::Remove { dir: ROOT, name: bytes("f"), kind: RemoveKind::Any });
    assert_eq!(removed, Ok(Outcome::Unnamed));
    rig.check();
    // All goes on by its handle, but it gets no name again.
    let link = Op::Link { ino: f.ino, generation: f.generation, dir: ROOT, name: bytes("g") };
    assert_eq!(rig.root(link), Err(FsError::NotFound));
    let reader = rig.open(client, "o", &f, READ).unwrap();
    assert_eq!(reader.id, open.id);
    rig.on_state(StateOp::Downgrade { client, open: newest(open.id), share: BOTH }).unwrap();
    rig.check();
    rig.close(client, open.id).unwrap();
    assert_eq!((rig.rows(Table::Inode), rig.rows(Table::Lock)), (inodes, 1));
    rig.check();
    rig.close(other, others.id).unwrap();
    assert_eq!((rig.rows(Table::Inode), rig.rows(Table::Lock), rig.rows(Table::State)), (inodes - 1, 0, 0));
    rig.check();
    assert_eq!(rig.open(client, "o", &f, READ), Err(FsError::Stale));
}

#[test]
fn a_file_that_a_rename_replaced_goes_with_its_client() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    rig.file("g");
    let inodes = rig.rows(Table::Inode);
    let (client, _) = rig.v41("c");
    rig.open(client, "o", &f, BOTH).unwrap();
    let rename = Op::Rename { from_dir: ROOT, from_name: bytes("g"), to_dir: ROOT, to_name: bytes("f") };
    assert_eq!(rig.root(rename), Ok(Outcome::Unnamed));
    assert_eq!(rig.rows(Table::Inode), inodes);
    rig.check();
    rig.root(Op::Client(ClientOp::Expire(client))).unwrap();
    assert_eq!(rig.rows(Table::Inode), inodes - 1);
    rig.check();
}

#[test]
fn opens_are_bounded() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("c");
    let f = rig.file("f");
    for n in 0..crate::limits::STATES_MAX {
        rig.open(client, &n.to_string(), &f, READ).unwrap();
    }
    assert_eq!(rig.open(client, "more", &f, READ), Err(FsError::TableFull));
    let make = create(client, "more", "new", READ, CreateHow::Guarded, SetAttr::default());
    assert_eq!(rig.on_state(make), Err(FsError::TableFull));
    assert!(read::lookup(&rig.kv, ROOT, b"new").unwrap().unwrap().child.is_err());
    rig.open(client, "0", &f, WRITE).unwrap();
    rig.check();
}
