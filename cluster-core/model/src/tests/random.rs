//! Random histories ([`acts`]) against the naive world: answers, attributes, listings, contents; times and counters that never go
//! back; and after some steps the whole check.

mod acts;
mod delegations;
mod operations;

use self::acts::act;
use super::rig::{ROOT, Rig, at, user};
use super::world::{Expect, World, agrees};
use crate::limits::{OUTCOME_KEEP, OUTCOMES_MAX};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_base::id::{Epoch, FrontendId, Ino};
use atoll_base::time::Timestamp;
use atoll_meta::nfs4::{ClientId, StateError};
use atoll_meta::{Call, CreateHow, FsError, NewNode, OnceKey, Op, Origin, Outcome, Piece, Response};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

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
