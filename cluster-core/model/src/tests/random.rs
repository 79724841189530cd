//! Random histories against the naive world: answers, attributes, listings, contents; times and counters that never go
//! back; and after some steps the whole check.

mod delegations;

use super::rig::{ROOT, Rig, at, user};
use super::world::{Expect, World, agrees};
use crate::limits::{OUTCOME_KEEP, OUTCOMES_MAX};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, Device, FileKind, SetAttr, SetTime};
use atoll_base::id::{Epoch, FrontendId, Ino};
use atoll_base::label::Label;
use atoll_base::time::Timestamp;
use atoll_meta::nfs4::{ClientId, StateError};
use atoll_meta::{
    Call, CreateHow, Flush, FsError, NewNode, OnceKey, Op, Origin, Outcome, Piece, RemoveKind, Response,
    XattrHow,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One step; small numbers choose among what exists when it is taken.
#[derive(Clone, Debug)]
enum Do {
    Create { dir: u8, name: u8, node: u8, how: u8, mode: u16, size: Option<u8> },
    Link { ino: u8, dir: u8, name: u8 },
    Remove { dir: u8, name: u8, kind: u8 },
    Rename { from: u8, name: u8, to: u8, to_name: u8 },
    Set { ino: u8, set: SetAttr, guard: bool },
    Truncate { ino: u8, size: u8 },
    Write { ino: u8, at: u8, parts: Vec<(u8, u8, bool)>, flush: Option<FlushPlan> },
    Begin { ino: u8 },
    Register,
    Lost { ino: u8 },
    Touch { ino: u8, ahead: u8 },
    Xattr { ino: u8, name: u8, value: Option<u8>, how: u8 },
    Repack { ino: u8, start: u8, len: u8, inline: bool },
    Punch { ino: u8, at: u8, len: u8 },
    Extend { ino: u8, size: u8 },
    Clone { from: u8, from_at: u8, to: u8, to_at: u8, len: u8, partial: bool },
    Delegate { ino: u8, who: u8, writes: bool },
    Return { which: u8 },
    Recall { which: u8, change: bool },
    Sweep,
    Collect,
    Replay { which: u8 },
}

#[derive(Clone, Debug)]
struct FlushPlan {
    ahead: u8,
    longer: u8,
    release: bool,
    cover: bool,
}

#[derive(Clone, Debug)]
struct Act {
    who: u8,
    via: u8,
    client: u8,
    once: bool,
    back: bool,
    what: Do,
}

fn small_set() -> impl Strategy<Value = SetAttr> {
    let time = prop_oneof![
        4 => Just(SetTime::Keep),
        1 => Just(SetTime::Server),
        1 => (0..3000_u16).prop_map(|n| SetTime::Client(at(n.into())))
    ];
    let who = prop::option::weighted(0.2, prop_oneof![Just(0_u32), Just(1), Just(2), Just(101), Just(7)]);
    let born = prop::option::weighted(0.2, (0..3000_u16).prop_map(|n| at(n.into())));
    let label = prop::option::weighted(
        0.2,
        (0..3_usize).prop_map(|len| Box::new(Label { format: 1, policy: 2, data: vec![b'l'; len].into() })),
    );
    (prop::option::weighted(0.4, 0..0o10000_u32), who.clone(), who, time.clone(), time, born, label).prop_map(
        |(mode, uid, gid, atime, mtime, btime, label)| SetAttr {
            mode,
            uid,
            gid,
            atime,
            mtime,
            btime,
            label,
            ..SetAttr::default()
        },
    )
}

fn what() -> impl Strategy<Value = Do> {
    let b = any::<u8>;
    let flush = (0..4_u8, 0..20_u8, any::<bool>(), any::<bool>())
        .prop_map(|(ahead, longer, release, cover)| FlushPlan { ahead, longer, release, cover });
    prop_oneof![
        6 => (b(), 0..5_u8, b(), 0..4_u8, 0..0o10000_u16, prop::option::weighted(0.3, b()))
            .prop_map(|(dir, name, node, how, mode, size)| Do::Create { dir, name, node, how, mode, size }),
        2 => (b(), b(), 0..5_u8).prop_map(|(ino, dir, name)| Do::Link { ino, dir, name }),
        3 => (b(), 0..5_u8, b()).prop_map(|(dir, name, kind)| Do::Remove { dir, name, kind }),
        4 => (b(), 0..5_u8, b(), 0..5_u8)
            .prop_map(|(from, name, to, to_name)| Do::Rename { from, name, to, to_name }),
        3 => (b(), small_set(), any::<bool>()).prop_map(|(ino, set, guard)| Do::Set { ino, set, guard }),
        3 => (b(), b()).prop_map(|(ino, size)| Do::Truncate { ino, size }),
        14 => (b(), b(), prop::collection::vec((0..10_u8, 1..30_u8, any::<bool>()), 0..5),
            prop::option::weighted(0.3, flush))
            .prop_map(|(ino, at, parts, flush)| Do::Write { ino, at, parts, flush }),
        4 => b().prop_map(|ino| Do::Begin { ino }),
        1 => Just(Do::Register),
        1 => b().prop_map(|ino| Do::Lost { ino }),
        1 => (b(), b()).prop_map(|(ino, ahead)| Do::Touch { ino, ahead }),
        2 => (b(), 0..6_u8, prop::option::of(b()), 0..4_u8)
            .prop_map(|(ino, name, value, how)| Do::Xattr { ino, name, value, how }),
        3 => (b(), b(), b(), any::<bool>())
            .prop_map(|(ino, start, len, inline)| Do::Repack { ino, start, len, inline }),
        3 => (b(), b(), b()).prop_map(|(ino, at, len)| Do::Punch { ino, at, len }),
        1 => (b(), b()).prop_map(|(ino, size)| Do::Extend { ino, size }),
        6 => (b(), b(), b(), b(), b(), any::<bool>()).prop_map(|(from, from_at, to, to_at, len, partial)| {
            Do::Clone { from, from_at, to, to_at, len, partial }
        }),
        6 => (b(), 0..2_u8, any::<bool>()).prop_map(|(ino, who, writes)| Do::Delegate { ino, who, writes }),
        4 => b().prop_map(|which| Do::Return { which }),
        1 => (b(), any::<bool>()).prop_map(|(which, change)| Do::Recall { which, change }),
        2 => Just(Do::Sweep),
        1 => Just(Do::Collect),
        3 => b().prop_map(|which| Do::Replay { which }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    (0..4_u8, 0..4_u8, 0..4_u8, any::<bool>(), prop::bool::weighted(0.1), what())
        .prop_map(|(who, via, client, once, back, what)| Act { who, via, client, once, back, what })
}

struct Stored {
    key: OnceKey,
    call: Call,
    response: Response,
    time: Timestamp,
    number: u64,
}

struct Run {
    rig: Rig,
    world: World,
    /// All inode numbers ever seen, with generations: handles that clients may still hold.
    known: Vec<(Ino, u32)>,
    origins: Vec<Origin>,
    /// Of NFSv4.
    clients: [ClientId; 2],
    stored: Vec<Stored>,
    stores: u64,
    next_key: u32,
    last: BTreeMap<Ino, Attr>,
}

impl Run {
    fn new() -> Self {
        let mut rig = Rig::new();
        let second = match rig.root(Op::CreateVolume { name: "second".into() }) {
            Ok(Outcome::Volume(id)) => read::volume(&rig.kv, id).unwrap().unwrap().root,
            other => panic!("{other:?}"),
        };
        let mut world = World::new(&rig.attr(ROOT));
        world.adopt(&rig.attr(second));
        let clients = ["one", "two"].map(|name| rig.v41(name).0);
        let known = [ROOT, second].map(|ino| (ino, rig.attr(ino).generation)).to_vec();
        let mut run = Self {
            rig,
            world,
            known,
            origins: Vec::new(),
            clients,
            stored: Vec::new(),
            stores: 0,
            next_key: 0,
            last: BTreeMap::new(),
        };
        for frontend in [1, 2] {
            run.step(&Cred::root(), None, None, Op::RegisterFrontend { frontend: FrontendId(frontend) });
        }
        // Anybody may use the roots, so that rights below them matter.
        for (ino, generation) in run.known.clone() {
            let set = SetAttr { mode: Some(0o777), ..SetAttr::default() };
            run.step(&Cred::root(), None, None, Op::SetAttr { ino, generation, set, guard: None });
        }
        let origin = Some(run.origins[0]);
        for (dir, name, node) in [
            (ROOT, "a", NewNode::Directory),
            (ROOT, "b", NewNode::Directory),
            (ROOT, "c", NewNode::Regular),
            (ROOT, "d", NewNode::Regular),
        ] {
            let attrs = SetAttr { mode: Some(0o777), ..SetAttr::default() };
            let (name, how) = (Bytes::from(name), CreateHow::Guarded);
            run.step(&user(1), origin, None, Op::Create { dir, name, node, how, attrs });
        }
        run
    }

    fn pick(&self, n: u8) -> (Ino, u32) {
        // Mostly what exists.
        if n % 16 == 15 {
            return self.known[n as usize / 16 % self.known.len()];
        }
        let live: Vec<Ino> = self.world.nodes.keys().copied().collect();
        let ino = live[n as usize % live.len()];
        let generation = self.world.nodes[&ino].generation;
        (ino, if n % 16 == 14 { generation ^ 1 } else { generation })
    }

    fn pick_kind(&self, n: u8, kind: FileKind) -> (Ino, u32) {
        // Seldom in the second volume.
        let volume = if n % 8 == 7 { 2 } else { 1 };
        let fits = |node: &super::world::Node| node.kind == kind && node.volume == volume;
        let fitting: Vec<Ino> =
            self.world.nodes.iter().filter(|(_, node)| fits(node)).map(|(ino, _)| *ino).collect();
        if n % 16 >= 14 || fitting.is_empty() {
            return self.pick(n);
        }
        let ino = fitting[n as usize % fitting.len()];
        (ino, self.world.nodes[&ino].generation)
    }

    fn dir(&self, n: u8) -> Ino {
        self.pick_kind(n, FileKind::Directory).0
    }

    fn pieces(&mut self, start: u8, parts: &[(u8, u8, bool)], epoch: Epoch) -> Vec<Piece> {
        let mut from = u64::from(start) % 150;
        let mut pieces = Vec::new();
        for (i, (gap, len, is_block)) in parts.iter().enumerate() {
            // Gaps of 0 are likely: pieces that touch.
            from += u64::from(gap.saturating_sub(4));
            let fill = (self.rig.txn / 10) as u8;
            let bytes: Vec<u8> = (0..*len).map(|b| fill ^ (b << 3) ^ i as u8 | 1).collect();
            let piece =
                if *is_block { self.rig.block(epoch, from, &bytes) } else { self.rig.inline(from, &bytes) };
            from = piece.end();
            pieces.push(piece);
        }
        pieces
    }

    fn act(&mut self, act: Act) {
        let cred = [Cred::root(), user(1), user(2), user(1)][act.who as usize].clone();
        let live: Vec<Origin> = (1..=2)
            .map(|f| Origin { frontend: FrontendId(f), epoch: Epoch(self.world.epochs[&FrontendId(f)]) })
            .collect();
        let mut origin = [Some(live[0]), Some(live[0]), Some(live[1]), None][act.via as usize];
        if act.via == 1 && act.who == 3 {
            origin = Some(self.origins[self.rig.txn as usize / 10 % self.origins.len()]);
        }
        if act.back {
            self.rig.clock -= 25;
        }
        let name = |n: u8| Bytes::from(vec![b'a' + n]);
        let op = match act.what {
            Do::Create { dir, name: n, node, how, mode, size } => {
                let node = match node % 8 {
                    0..4 => NewNode::Regular,
                    4..6 => NewNode::Directory,
                    6 => NewNode::Symlink(Bytes::from_static(b"some/where")),
                    _ if mode & 1 == 0 => NewNode::Special(FileKind::Fifo, Device::default()),
                    _ => NewNode::Special(FileKind::CharDevice, Device { major: 1, minor: 3 }),
                };
                let how = match how {
                    0 if node == NewNode::Regular => CreateHow::Unchecked,
                    1 if node == NewNode::Regular => CreateHow::Exclusive([n % 2; 8]),
                    _ => CreateHow::Guarded,
                };
                // Directories that nobody can enter make short histories.
                let mode = if node == NewNode::Directory { mode | 0o555 } else { mode };
                let attrs = SetAttr {
                    mode: Some(mode.into()),
                    size: size.map(u64::from),
                    uid: (mode & 3 == 0).then_some(1),
                    gid: (mode & 7 == 0).then_some(7),
                    ..SetAttr::default()
                };
                Op::Create { dir: self.dir(dir), name: name(n), node, how, attrs }
            }
            Do::Link { ino, dir, name: n } => {
                let (ino, generation) = self.pick(ino);
                Op::Link { ino, generation, dir: self.dir(dir), name: name(n) }
            }
            Do::Remove { dir, name: n, kind } => {
                let kind =
                    [RemoveKind::Any, RemoveKind::Any, RemoveKind::Directory, RemoveKind::NonDirectory]
                        [kind as usize % 4];
                Op::Remove { dir: self.dir(dir), name: name(n), kind }
            }
            Do::Rename { from, name: n, to, to_name } => Op::Rename {
                from_dir: self.dir(from),
                from_name: name(n),
                to_dir: self.dir(to),
                to_name: name(to_name),
            },
            Do::Set { ino, set, guard } => {
                let (ino, generation) = self.pick(ino);
                let ctime = self.world.nodes.get(&ino).map(|n| n.ctime);
                Op::SetAttr { ino, generation, set, guard: ctime.filter(|_| guard) }
            }
            Do::Truncate { ino, size } => {
                let (ino, generation) = self.pick_kind(ino, FileKind::Regular);
                let set = SetAttr { size: Some(size.into()), ..SetAttr::default() };
                Op::SetAttr { ino, generation, set, guard: None }
            }
            Do::Write { ino, at, parts, flush } => {
                let (ino, generation) = self.pick_kind(ino, FileKind::Regular);
                let mut flush = flush;
                let lease = self.world.nodes.get(&ino).and_then(|n| n.lease);
                if let Some(lease) = lease {
                    // Mostly a fitting flush.
                    if at % 4 != 0 {
                        origin = live.iter().find(|o| o.frontend == lease.holder).copied();
                    }
                } else if at % 8 != 0 {
                    flush = None;
                }
                let epoch = origin.map_or(Epoch(1), |o| o.epoch);
                let pieces = self.pieces(at, &parts, epoch);
                let flush = flush.map(|plan| self.flush(ino, &plan));
                Op::Write { ino, generation, pieces, flush }
            }
            Do::Begin { ino } => {
                let (ino, generation) = self.pick_kind(ino, FileKind::Regular);
                Op::BeginDirty { ino, generation }
            }
            Do::Register => Op::RegisterFrontend { frontend: FrontendId(1 + u32::from(act.via % 2)) },
            Do::Lost { ino } => Op::DataLost { inos: vec![self.pick_kind(ino, FileKind::Regular).0, ROOT] },
            Do::Touch { ino, ahead } => {
                let time = self.world.now.plus_nanos(i64::from(ahead) - 100);
                Op::Touch(vec![(self.pick(ino).0, time), (Ino(999_999), time)])
            }
            Do::Xattr { ino, name: n, value, how: how_n } => {
                let (ino, generation) = self.pick(ino);
                let value = value.map(|v| Bytes::from(vec![v; v as usize % 9]));
                let how = [XattrHow::Either, XattrHow::Either, XattrHow::Create, XattrHow::Replace];
                let how = if value.is_some() { how[how_n as usize] } else { XattrHow::Either };
                Op::SetXattr { ino, generation, name: name(n), value, how }
            }
            Do::Punch { ino, at, len } => {
                let (ino, generation) = self.pick_kind(ino, FileKind::Regular);
                Op::Punch { ino, generation, offset: u64::from(at) % 150, len: u64::from(len) % 80 }
            }
            Do::Extend { ino, size } => {
                let (ino, generation) = self.pick_kind(ino, FileKind::Regular);
                Op::Extend { ino, generation, size: size.into() }
            }
            Do::Clone { from, from_at, to, to_at, len, partial } => {
                let (from, from_generation) = self.pick_kind(from, FileKind::Regular);
                let (to, to_generation) = self.pick_kind(to, FileKind::Regular);
                // Mostly within the source.
                let size = self.world.nodes.get(&from).map_or(0, |n| n.bytes.len() as u64);
                let from_offset = u64::from(from_at) % (size + 2);
                let len =
                    if len % 4 == 0 { 0 } else { u64::from(len) % (size.saturating_sub(from_offset) + 2) };
                let to_offset = u64::from(to_at) % 150;
                Op::Clone { from, from_generation, from_offset, to, to_generation, to_offset, len, partial }
            }
            Do::Delegate { ino, who, writes } => return self.delegate(ino, who, writes),
            Do::Return { which } => return self.give_back(which),
            Do::Recall { which, change } => return self.recall(which, change),
            Do::Repack { ino, start, len, inline } => return self.repack(ino, start, len, inline),
            Do::Sweep => return self.background(Op::Sweep),
            Do::Collect => {
                let garbage = read::garbage(&self.rig.kv, None, 5).unwrap();
                let ids = garbage.into_iter().map(|(id, _)| id).collect();
                return self.background(Op::Collected(ids));
            }
            Do::Replay { which } => return self.replay(which),
        };
        let once = act.once.then(|| {
            self.next_key += 1;
            super::rig::key(self.next_key)
        });
        let origin = if matches!(op, Op::RegisterFrontend { .. }) { None } else { origin };
        // Mostly a client, for one of those may be the holder.
        self.world.caller = [None, Some(0), Some(1), Some(0)][act.client as usize];
        self.step(&cred, origin, once, op);
    }

    fn flush(&mut self, ino: Ino, plan: &FlushPlan) -> Flush {
        let node = self.world.nodes.get(&ino);
        let change = node.map_or(0, |n| n.change);
        let ctime = node.map_or(self.world.now, |n| n.ctime);
        let size = node.map_or(0, |n| n.bytes.len() as u64);
        let mut covered = Vec::new();
        if plan.cover {
            self.next_key += 1;
            covered.push((super::rig::key(self.next_key), Response::refused(FsError::Io).into()));
        }
        Flush {
            mtime: self.world.now.plus_nanos(i64::from(plan.longer) - 10),
            ctime: ctime.plus_nanos(i64::from(plan.ahead) * 5 - 5),
            change: (change + u64::from(plan.ahead)).saturating_sub(1),
            size: size + u64::from(plan.longer),
            release: plan.release,
            covered,
        }
    }

    fn step(&mut self, cred: &Cred, origin: Option<Origin>, once: Option<OnceKey>, op: Op) {
        let client = self.world.caller.map(|client| self.clients[client]);
        let call = Call { origin, once: once.map(Into::into), cred: cred.clone(), client, op: op.clone() };
        self.world.blocks.clone_from(&self.rig.blocks);
        self.world.now = self.world.now.max(at(self.rig.clock + 10));
        let losses = self.world.losses;
        let before_verifier = self.rig.model.verifier();
        let before: BTreeMap<Ino, super::world::Node> = self.world.nodes.clone();
        let response = self.rig.call(call.clone());
        assert_eq!(self.rig.model.now(), self.world.now);
        if response.result == Err(FsError::Delay) {
            // Cuts wait for Sweep: the world knows of none. Nothing may have changed, which is compared below.
            self.background(Op::Sweep);
        } else {
            let epochs = self.world.epochs.clone();
            let expected = self.world.apply(cred, origin, &op);
            assert!(
                agrees(&expected, &response.result),
                "{op:?} by {cred:?} via {origin:?}: expected {expected:?}, got {:?}",
                response.result
            );
            if let (Ok(Expect::New), Op::Create { .. }) = (&expected, &op) {
                let Ok(Outcome::Created { attr, .. }) = &response.result else { unreachable!() };
                self.known.push((attr.ino, attr.generation));
                self.world.created(cred, &op, attr);
            }
            if let (Ok(Expect::Cloned(most)), Op::Clone { partial, .. }) = (&expected, &op) {
                match response.result {
                    Ok(Outcome::Cloned { count, .. }) => {
                        assert!(*partial || count == *most);
                        self.world.cloned(cred, &op, count);
                    }
                    _ => assert!(!partial),
                }
            }
            if let (Ok(Outcome::Registered { epoch, .. }), Op::RegisterFrontend { frontend }) =
                (&response.result, &op)
            {
                assert!(epochs.values().all(|e| epoch.0 > *e));
                self.world.epochs.insert(*frontend, epoch.0);
                self.origins.push(Origin { frontend: *frontend, epoch: *epoch });
            }
        }
        assert_eq!(self.world.losses != losses, self.rig.model.verifier() != before_verifier);
        let touched = self.rig.applied.as_ref().unwrap().touched.clone();
        assert_eq!(touched.verifier.is_some(), self.world.losses != losses);
        if response.result != Err(FsError::Delay) {
            self.report(&response, &before, &touched.inos);
        }
        if let Op::Write { flush: Some(flush), .. } = &op
            && response.result.is_ok()
        {
            for (key, covered) in &flush.covered {
                self.stores += 1;
                assert_eq!(self.rig.outcome(key).as_ref(), Some(&**covered));
            }
        }
        let delegated = FsError::State(StateError::Delegated);
        let transient = [FsError::Delay, FsError::Fenced, FsError::TableFull, delegated].map(Err);
        if let Some(key) = once {
            if transient.contains(&response.result) {
                assert_eq!(self.rig.outcome(&key), None);
            } else {
                self.stores += 1;
                let (time, number) = (self.world.now, self.stores);
                self.stored.push(Stored { key, call, response, time, number });
            }
        }
        self.compare_after(matches!(op, Op::Write { flush: Some(_), .. }));
    }

    /// What the response and the notes for caches say is what has changed.
    fn report(&self, response: &Response, before: &BTreeMap<Ino, super::world::Node>, touched: &[Ino]) {
        for change in &response.changes {
            let former = &before[&change.after.ino];
            assert_eq!((change.before.change, change.before.ctime), (former.change, former.ctime));
            assert_eq!(change.before.mtime, former.mtime);
            match self.world.nodes.get(&change.after.ino) {
                Some(_) => self.world.compare(change.after.ino, &change.after),
                None => assert_eq!(change.after.nlink, 0),
            }
        }
        for (ino, former) in before {
            let same = self.world.nodes.get(ino).is_some_and(|now| {
                (now.change, now.ctime, now.atime, now.mtime)
                    == (former.change, former.ctime, former.atime, former.mtime)
                    && now.bytes == former.bytes
            });
            assert!(same || touched.contains(ino), "inode {ino} changed but is not listed as touched");
        }
    }

    fn background(&mut self, op: Op) {
        let response = self.rig.op(&Cred::root(), op);
        assert!(response.result.is_ok(), "{response:?}");
        self.world.now = self.rig.model.now();
        self.compare();
    }

    fn repack(&mut self, ino: u8, start: u8, len: u8, inline: bool) {
        let (ino, _) = self.pick_kind(ino, FileKind::Regular);
        let Some(node) = self.world.nodes.get(&ino).filter(|n| n.kind == FileKind::Regular) else { return };
        let content = node.bytes.clone();
        let (start, len) = (u64::from(start) % 100, u64::from(len) % 60);
        let map = read::map(&self.rig.kv, ino, start, len).unwrap().unwrap();
        let len = map.complete_to - start;
        let expect: Vec<(u64, u64)> = map.extents.iter().map(|e| (e.birth, e.piece.offset)).collect();
        let mut pieces: Vec<Piece> = Vec::new();
        for extent in &map.extents {
            let range = extent.piece.offset as usize..extent.piece.end() as usize;
            let bytes = &content[range];
            pieces.push(if inline {
                self.rig.inline(extent.piece.offset, bytes)
            } else {
                self.rig.block(Epoch(1), extent.piece.offset, bytes)
            });
        }
        if len == 0 {
            return;
        }
        let op = |expect, pieces| Op::Repack { ino, offset: start, len, expect, pieces };
        if !expect.is_empty() {
            let mut wrong = expect.clone();
            wrong[0].0 += 1;
            assert_eq!(self.rig.root(op(wrong, pieces.clone())), Err(FsError::Conflict));
            let mut short = pieces.clone();
            short.pop();
            assert_eq!(self.rig.root(op(expect.clone(), short)), Err(FsError::Conflict));
        }
        let result = self.rig.root(op(expect, pieces));
        assert!(matches!(result, Ok(Outcome::Done) | Err(FsError::Delay)), "{result:?}");
        self.world.now = self.rig.model.now();
        self.compare();
    }

    fn replay(&mut self, which: u8) {
        let Some(last) = self.stored.len().checked_sub(1) else { return };
        let stored = &self.stored[last - which as usize % (last + 1).min(30)];
        let after = at(self.rig.clock + 10).max(self.world.now);
        let old = after.since(stored.time) > OUTCOME_KEEP.as_nanos() as i128;
        // A fenced call is refused before its key is looked at.
        let fenced =
            stored.call.origin.is_some_and(|o| self.world.epochs.get(&o.frontend) != Some(&o.epoch.0));
        if old || fenced || self.stores - stored.number + 2 >= OUTCOMES_MAX {
            return;
        }
        assert_eq!(self.rig.outcome(&stored.key).as_ref(), Some(&stored.response));
        let (call, response) = (stored.call.clone(), stored.response.clone());
        assert_eq!(self.rig.call(call), response);
        self.world.now = self.rig.model.now();
        self.compare();
    }

    fn compare(&mut self) {
        self.compare_after(false);
    }

    /// Compares everything. A flush in parts may leave change and ctime as they are.
    fn compare_after(&mut self, is_flush: bool) {
        for (ino, generation) in &self.known {
            let Ok(attr) = read::getattr(&self.rig.kv, *ino).unwrap() else {
                assert!(!self.world.nodes.contains_key(ino), "inode {ino} is missing");
                self.last.remove(ino);
                continue;
            };
            assert_eq!(attr.generation, *generation);
            self.world.compare(*ino, &attr);
            if let Some(last) = self.last.get(ino) {
                assert!(attr.change >= last.change && attr.ctime >= last.ctime, "change or ctime goes back");
                let same =
                    Attr { atime: last.atime, used: last.used, delegated: last.delegated, ..attr.clone() }
                        == *last;
                assert!(same || is_flush || attr.change > last.change && attr.ctime > last.ctime);
            }
            match attr.kind {
                FileKind::Regular => {
                    assert_eq!(self.rig.content(*ino), self.world.nodes[ino].bytes, "content of {ino}");
                }
                FileKind::Directory => assert_eq!(self.rig.names(*ino), self.world.nodes[ino].names),
                _ => {}
            }
            let names = read::list_xattrs(&self.rig.kv, *ino).unwrap().unwrap();
            assert_eq!(names, self.world.nodes[ino].xattrs.keys().cloned().collect::<Vec<_>>());
            self.last.insert(*ino, attr);
        }
    }

    fn finish(&mut self) {
        self.rig.check();
        self.rig.sweep();
        self.rig.check();
        self.compare();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories(acts in prop::collection::vec(act(), 1..150)) {
        let mut run = Run::new();
        for (i, act) in acts.into_iter().enumerate() {
            run.act(act);
            if i % 8 == 0 {
                run.rig.check();
            }
        }
        run.finish();
    }

    /// The other member finds bytes damaged, and goes on as this one does.
    #[test]
    fn histories_with_damage(acts in prop::collection::vec(act(), 1..150)) {
        let mut run = Run::new();
        run.rig.rots = Some(4);
        for (i, act) in acts.into_iter().enumerate() {
            run.act(act);
            if i % 8 == 0 {
                run.rig.check();
            }
        }
        run.finish();
    }
}
