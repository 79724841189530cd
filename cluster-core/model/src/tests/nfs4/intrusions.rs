//! What a delegation forbids to others, and not to its holder.

use super::super::rig::{ROOT, Rig, key};
use super::delegations::{READING, WRITING, given, nlm, wish};
use super::{BOTH, Owner40, READ, WRITE, bytes, newest, open_file, open_name, range, refusal};
use crate::limits::RELEASE_STATES_MAX;
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr, SetTime};
use atoll_lockd::{LockMode, LockRequest, Share, ShareBits, Wait};
use atoll_meta::delegation::{DelegationKind, DelegationWish, Intrusion};
use atoll_meta::lock::LockOp;
use atoll_meta::nfs4::{ClientId, ClientOp, OpenTarget, StateError, StateId, StateOp, Stateid};
use atoll_meta::{
    Call, CreateHow, Flush, FsError, NewNode, Op, Origin, Outcome, RemoveKind, SlotKey, XattrHow,
};

const DELEGATED: FsError = FsError::State(StateError::Delegated);
const FORALL: Share = Share { access: ShareBits::Read, deny: ShareBits::Write };

/// A file `f`, another one, and who sends what to them.
struct Scene {
    rig: Rig,
    f: Attr,
    other: Attr,
    holder: ClientId,
    stranger: ClientId,
    origin: Origin,
}

impl Scene {
    fn new() -> Self {
        let mut rig = Rig::new();
        let (f, other) = (rig.file("f"), rig.file("other"));
        for file in [&f, &other] {
            let pieces = vec![rig.inline(0, b"content")];
            rig.write(&Cred::root(), file, pieces).unwrap();
        }
        let origin = rig.register(1);
        let (holder, stranger) = (rig.v41("holder").0, rig.v41("stranger").0);
        Self { rig, f, other, holder, stranger, origin }
    }

    fn send(&mut self, client: Option<ClientId>, op: Op) -> Result<Outcome, FsError> {
        let call = Call { origin: Some(self.origin), once: None, cred: Cred::root(), client, op };
        self.rig.call(call).result
    }

    /// What each of these is to the file: `None` is nothing.
    fn ops(&self) -> Vec<(Op, Option<Intrusion>)> {
        let (ino, generation) = (self.f.ino, self.f.generation);
        let (from, from_generation) = (self.other.ino, self.other.generation);
        let set = |set| Op::SetAttr { ino, generation, set, guard: None };
        let name = |name: &str| bytes(name);
        let xattr = |name: &str, value: Option<&str>, how| {
            let value = value.map(bytes);
            Op::SetXattr { ino, generation, name: bytes(name), value, how }
        };
        let clone = |(from, from_generation), (to, to_generation)| Op::Clone {
            from,
            from_generation,
            from_offset: 0,
            to,
            to_generation,
            to_offset: 0,
            len: 2,
            partial: false,
        };
        let lock = |mode| {
            let request = LockRequest { owner: nlm("h"), range: range(0, 1), mode, wait: Wait::No };
            Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 })
        };
        let share =
            |share| Op::Lock(LockOp::Share { ino, generation, owner: nlm("h"), share, client_state: 0 });
        let named = |share, create| {
            let target = OpenTarget::Name { dir: ROOT, name: bytes("f"), create };
            let client = self.stranger;
            Op::State(StateOp::Open { client, owner: bytes("o"), share, target, delegate: None, under: None })
        };
        let opened = |share| Op::State(open_file(self.stranger, "o", &self.f, share));
        let cut = SetAttr { size: Some(0), ..SetAttr::default() };
        let plain = SetAttr::default();
        let (read, change) = (Some(Intrusion::Read), Some(Intrusion::Change));
        let pieces = vec![self.rig.inline(2, b"xyz")];
        vec![
            (set(SetAttr::default()), None),
            (set(SetAttr { mode: Some(0o600), ..SetAttr::default() }), change),
            (set(SetAttr { atime: SetTime::Server, ..SetAttr::default() }), change),
            (set(cut.clone()), change),
            (Op::Write { ino, generation, pieces: Vec::new(), flush: None }, None),
            (Op::Write { ino, generation, pieces, flush: None }, change),
            (Op::Punch { ino, generation, offset: 100, len: 4 }, None),
            (Op::Punch { ino, generation, offset: 0, len: 4 }, change),
            (Op::Extend { ino, generation, size: 3 }, None),
            (Op::Extend { ino, generation, size: 300 }, change),
            (clone((ino, generation), (from, from_generation)), read),
            (clone((from, from_generation), (ino, generation)), change),
            (xattr("x", Some("1"), XattrHow::Either), change),
            (xattr("never", None, XattrHow::Either), None),
            (Op::Link { ino, generation, dir: ROOT, name: name("link") }, change),
            (
                Op::Create {
                    dir: ROOT,
                    name: name("f"),
                    node: NewNode::Regular,
                    how: CreateHow::Unchecked,
                    attrs: plain.clone(),
                },
                None,
            ),
            (
                Op::Create {
                    dir: ROOT,
                    name: name("f"),
                    node: NewNode::Regular,
                    how: CreateHow::Unchecked,
                    attrs: cut.clone(),
                },
                change,
            ),
            (lock(LockMode::Shared), read),
            (lock(LockMode::Exclusive), change),
            (share(READ), read),
            (share(WRITE), change),
            (share(FORALL), change),
            (opened(READ), read),
            (opened(WRITE), change),
            (opened(FORALL), change),
            (named(READ, None), read),
            (named(BOTH, None), change),
            (named(READ, Some((CreateHow::Unchecked, plain))), read),
            (named(BOTH, Some((CreateHow::Unchecked, cut))), change),
            (Op::Touch(vec![(ino, self.rig.model.now())]), None),
            (Op::Remove { dir: ROOT, name: name("f"), kind: RemoveKind::Any }, change),
            (Op::Rename { from_dir: ROOT, from_name: name("f"), to_dir: ROOT, to_name: name("g") }, change),
            (
                Op::Rename { from_dir: ROOT, from_name: name("other"), to_dir: ROOT, to_name: name("f") },
                change,
            ),
            (Op::BeginDirty { ino, generation }, change),
        ]
    }
}

/// Sends each operation to a file with a delegation; `strongest` is what it lets others do.
fn each(wish: DelegationWish, forbidden: impl Fn(Intrusion) -> bool) {
    for n in 0..Scene::new().ops().len() {
        let mut scene = Scene::new();
        given(&scene.rig.delegate(scene.holder, &scene.f.clone(), wish).unwrap());
        let (op, intrusion) = scene.ops().swap_remove(n);
        let is_forbidden = intrusion.is_some_and(&forbidden);
        let before = scene.rig.kv.clone();
        let result = scene.send(Some(scene.stranger), op.clone());
        assert_eq!(result == Err(DELEGATED), is_forbidden, "{op:?}: {result:?}");
        if is_forbidden {
            for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
                let rows = |kv| super::super::rig::rows_of(kv, table);
                assert_eq!(rows(&scene.rig.kv), rows(&before), "{}", table.name());
            }
            if !matches!(op, Op::State(_)) {
                assert_eq!(scene.send(None, op.clone()), Err(DELEGATED));
                // Not its holder's.
                let own = scene.send(Some(scene.holder), op.clone());
                assert!(own.is_ok(), "{op:?}: {own:?}");
            } else if let Op::State(StateOp::Open { owner, share, target, .. }) = op {
                let (client, delegate, under) = (scene.holder, None, None);
                let own = StateOp::Open { client, owner, share, target, delegate, under };
                // Whoever the call is for.
                scene.send(Some(scene.stranger), Op::State(own)).unwrap();
            }
        }
        scene.rig.check();
    }
}

#[test]
fn a_read_delegation_forbids_changes() {
    each(READING, |intrusion| intrusion == Intrusion::Change);
}

#[test]
fn a_write_delegation_forbids_reading_too() {
    each(WRITING, |_| true);
}

#[test]
fn once_recalled_it_still_forbids_and_once_revoked_not() {
    let mut scene = Scene::new();
    let f = scene.f.clone();
    let delegation = given(&scene.rig.delegate(scene.holder, &f, WRITING).unwrap());
    let open = Op::State(open_file(scene.stranger, "o", &f, READ));
    scene.rig.recall(&f, Intrusion::Read, Some(scene.stranger));
    assert_eq!(scene.send(None, open.clone()), Err(DELEGATED));
    scene.rig.on_state(StateOp::Revoke(delegation.id)).unwrap();
    scene.send(None, open).unwrap();
    scene.rig.check();
}

#[test]
fn a_flush_is_in_nobodys_way() {
    let mut scene = Scene::new();
    let f = scene.f.clone();
    let (ino, generation) = (f.ino, f.generation);
    given(&scene.rig.delegate(scene.holder, &f, WRITING).unwrap());
    let begun = scene.send(Some(scene.holder), Op::BeginDirty { ino, generation }).unwrap();
    let Outcome::Dirty { change_ceiling: change, ctime_ceiling: ctime } = begun else { panic!("{begun:?}") };
    let pieces = vec![scene.rig.inline(0, b"flushed")];
    let flush = Flush { change, ctime, mtime: ctime, size: 0, release: true, covered: Vec::new() };
    scene.send(None, Op::Write { ino, generation, pieces, flush: Some(flush) }).unwrap();
    assert_eq!(scene.rig.content(ino), b"flushed");
    scene.rig.check();
}

#[test]
fn a_directory_delegation_forbids_other_entries() {
    let make = |dir, name: &str| Op::Create {
        dir,
        name: bytes(name),
        node: NewNode::Directory,
        how: CreateHow::Guarded,
        attrs: SetAttr::default(),
    };
    let rename = |from_dir, from: &str, to_dir, to: &str| Op::Rename {
        from_dir,
        from_name: bytes(from),
        to_dir,
        to_name: bytes(to),
    };
    let mut scene = Scene::new();
    let dir = scene.rig.dir(ROOT, "dir");
    let inside = scene.rig.make(&Cred::root(), dir, "in", NewNode::Regular, 0o644);
    let at = scene.rig.attr(dir);
    let (holder, stranger) = (scene.holder, scene.stranger);
    let wish = wish(DelegationKind::Directory);
    let delegation = given(&scene.rig.delegate(holder, &at, wish).unwrap());
    // There is no second one of its own, but another's.
    let none = atoll_meta::delegation::DelegationOutcome::Contention;
    assert_eq!(scene.rig.delegate(holder, &at, wish), Ok(none));
    let (ino, generation) = (inside.ino, inside.generation);
    let mode = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let create =
        OpenTarget::Name { dir, name: bytes("new"), create: Some((CreateHow::Guarded, SetAttr::default())) };
    let open = StateOp::Open {
        client: stranger,
        owner: bytes("o"),
        share: BOTH,
        target: create,
        delegate: None,
        under: None,
    };
    for op in [
        make(dir, "new"),
        Op::State(open),
        Op::Remove { dir, name: bytes("in"), kind: RemoveKind::Any },
        Op::Link { ino, generation, dir, name: bytes("new") },
        rename(dir, "in", ROOT, "out"),
        rename(ROOT, "f", dir, "new"),
        rename(ROOT, "dir", ROOT, "dir2"),
        Op::SetAttr { ino: dir, generation: at.generation, set: mode.clone(), guard: None },
    ] {
        assert_eq!(scene.send(Some(stranger), op.clone()), Err(DELEGATED), "{op:?}");
    }
    // What is in it can be changed, and opened.
    scene.send(Some(stranger), Op::SetAttr { ino, generation, set: mode, guard: None }).unwrap();
    scene.send(Some(stranger), Op::State(open_file(stranger, "o", &inside, READ))).unwrap();
    let second = given(&scene.rig.delegate(stranger, &at, wish).unwrap());
    scene.rig.check();
    scene.rig.on_state(StateOp::Return { client: stranger, delegation: second }).unwrap();
    // The holder removes it; nothing but the state is left, which can be returned.
    let name = |name: &str| bytes(name);
    for (from, what) in [(dir, "in"), (ROOT, "dir")] {
        let op = Op::Remove { dir: from, name: name(what), kind: RemoveKind::Any };
        scene.send(Some(holder), op).unwrap();
        scene.rig.check();
    }
    assert_eq!(read::getattr(&scene.rig.kv, dir).unwrap(), Err(FsError::Stale));
    scene.rig.on_state(StateOp::Return { client: holder, delegation }).unwrap();
    scene.rig.check();
}

#[test]
fn what_is_left_of_a_holder_is_delay() {
    let mut rig = Rig::new();
    let files: Vec<Attr> = (0..=RELEASE_STATES_MAX).map(|n| rig.file(&format!("f{n}"))).collect();
    let [(holder, _), (stranger, _)] = ["holder", "stranger"].map(|name| rig.v41(name));
    for file in &files {
        given(&rig.delegate(holder, file, WRITING).unwrap());
    }
    rig.on_client(ClientOp::Expire(holder)).unwrap();
    let last = files.last().unwrap();
    assert_eq!(rig.open(stranger, "o", last, READ), Err(FsError::Delay));
    rig.recall(last, Intrusion::Read, None);
    assert_eq!(read::recalled(&rig.kv, StateId(0), 9).unwrap(), []);
    rig.check();
    rig.sweep();
    rig.open(stranger, "o", last, READ).unwrap();
    rig.check();
}

#[test]
fn no_record_is_made_of_the_refusal() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (holder, _) = rig.v41("holder");
    let (stranger, session) = rig.v41("stranger");
    let old = rig.v40("old");
    let delegation = given(&rig.delegate(holder, &f, WRITING).unwrap());
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let set = Op::SetAttr { ino: f.ino, generation: f.generation, set, guard: None };
    let slot = SlotKey { session, slot: 0, seqid: 1, fingerprint: 1, index: 0, before: bytes("") };
    let mut owner = Owner40::new(old, "o", 1);
    let by_owner = owner.by_name();
    let keyed = [
        (key(1).into(), set),
        (slot.into(), Op::State(open_file(stranger, "o", &f, READ))),
        (by_owner, Op::State(open_name(old, "o", "f", READ))),
    ];
    for (once, op) in &keyed {
        assert_eq!(rig.keyed(&Cred::root(), once.clone(), op.clone()).result, Err(DELEGATED));
        rig.check();
    }
    rig.on_state(StateOp::Return { client: holder, delegation }).unwrap();
    for (once, op) in &keyed {
        rig.keyed(&Cred::root(), once.clone(), op.clone()).result.unwrap();
    }
    // The owner goes on from there.
    let id = read::states_of(&rig.kv, f.ino, StateId(0), 9).unwrap()[1].stateid.id;
    let once = owner.of(id);
    rig.step(once, StateOp::Confirm { client: old, open: newest(id) }).unwrap();
    let stale = StateOp::Return { client: old, delegation: Stateid { id, seqid: 0 } };
    assert_eq!(rig.on_state(stale), refusal(StateError::BadStateid));
    rig.check();
}
