//! Random histories of copies against plain bytes.

use super::super::super::rig::{ROOT, Rig};
use super::copy;
use crate::limits::{CLIENT_OFFLOADS_MAX, OFFLOADS_MAX};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::id::Epoch;
use atoll_meta::nfs4::{ClientId, ClientOp, StateId, Stateid};
use atoll_meta::offload::OffloadOp;
use atoll_meta::{FsError, Op, Outcome, RemoveKind};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Copy { client: usize, from: (usize, u64), to: (usize, u64), len: u64, most: u32 },
    Step { which: usize, most: u32 },
    Fail(usize),
    Cancel(usize),
    Forget(usize),
    Write { file: usize, offset: u64, len: usize, byte: u8, inline: bool },
    Truncate { file: usize, size: u64 },
    Replace(usize),
    Expire(usize),
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    let at = || (0_usize..3, 0_u64..150);
    prop_oneof![
        6 => (0_usize..2, at(), at(), prop_oneof![Just(0), 1_u64..150], 1_u32..4)
            .prop_map(|(client, from, to, len, most)| Act::Copy { client, from, to, len, most }),
        12 => (any::<usize>(), 1_u32..6).prop_map(|(which, most)| Act::Step { which, most }),
        1 => any::<usize>().prop_map(Act::Fail),
        1 => any::<usize>().prop_map(Act::Cancel),
        3 => any::<usize>().prop_map(Act::Forget),
        12 => (at(), 1_usize..30, 1_u8.., any::<bool>()).prop_map(|((file, offset), len, byte, inline)| {
            Act::Write { file, offset, len, byte, inline }
        }),
        2 => at().prop_map(|(file, size)| Act::Truncate { file, size }),
        1 => (0_usize..3).prop_map(Act::Replace),
        1 => (0_usize..2).prop_map(Act::Expire),
        3 => Just(Act::Sweep),
    ]
}

/// A file and its bytes.
struct Plain {
    attr: Attr,
    bytes: Vec<u8>,
}

impl Plain {
    fn put(&mut self, offset: u64, part: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + part.len());
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[start..end].copy_from_slice(part);
    }
}

/// A copy as it should be: indexes of its files in `World::files`, which keep those without a name.
#[derive(Clone, Debug)]
struct Copying {
    stateid: Stateid,
    client: ClientId,
    from: (usize, u64),
    to: (usize, u64),
    left: u64,
    count: u64,
    ended: Option<Result<(), FsError>>,
}

struct World {
    rig: Rig,
    clients: Vec<ClientId>,
    boots: u8,
    /// All there ever were; gone ones too.
    files: Vec<Plain>,
    /// Those that have a name.
    named: Vec<usize>,
    copies: Vec<Copying>,
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::new();
        let clients = (0..2).map(|n| rig.v41_boot(&format!("client{n}"), 1).0).collect();
        let files =
            (0..3).map(|n| Plain { attr: rig.file(&format!("file{n}")), bytes: Vec::new() }).collect();
        Self { rig, clients, boots: 1, files, named: vec![0, 1, 2], copies: Vec::new() }
    }

    /// Bytes went from one file to the other.
    fn moved(&mut self, from: (usize, u64), to: (usize, u64), count: u64) {
        if count > 0 {
            let start = from.1 as usize;
            let part = self.files[from.0].bytes[start..start + count as usize].to_vec();
            self.files[to.0].put(to.1, &part);
        }
    }

    fn copy(&mut self, client: usize, from: (usize, u64), to: (usize, u64), len: u64, most: u32) {
        let (from, to) = ((self.named[from.0], from.1), (self.named[to.0], to.1));
        if from.0 == to.0 {
            return;
        }
        let client = self.clients[client];
        let (source, target) = (self.files[from.0].attr.clone(), self.files[to.0].attr.clone());
        let size = self.files[from.0].bytes.len() as u64;
        let len = if len == 0 { size.saturating_sub(from.1) } else { len };
        let fits = from.1 + len <= size && from.1 <= size;
        let cred = Cred::root();
        match copy(&mut self.rig, (client, &cred), (&source, from.1), (&target, to.1), len, most) {
            Ok(Outcome::Cloned { count, .. }) => {
                assert!(fits && count <= len);
                let its = self.copies.iter().filter(|copy| copy.client == client).count();
                let full = its == CLIENT_OFFLOADS_MAX || self.copies.len() == OFFLOADS_MAX;
                assert!(full || count == len, "the rest is forgotten");
                self.moved(from, to, count);
            }
            Ok(Outcome::Offloaded { stateid, .. }) => {
                let count = self.rig.offload(stateid).unwrap().count;
                assert!(fits && 0 < count && count < len);
                self.moved(from, to, count);
                let (from, to) = ((from.0, from.1 + count), (to.0, to.1 + count));
                self.copies.push(Copying {
                    stateid,
                    client,
                    from,
                    to,
                    left: len - count,
                    count,
                    ended: None,
                });
            }
            Err(FsError::Invalid) => assert!(!fits),
            Err(FsError::Delay) => {}
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, which: usize, most: u32) {
        let Copying { stateid, from, to, left, count, ended, .. } = self.copies[which].clone();
        match self.rig.offload_step(stateid, most) {
            Ok(more) => {
                let now = self.rig.offload(stateid).unwrap();
                let brought = now.count - count;
                let there = self.files[from.0].bytes.len() as u64;
                if ended.is_some() {
                    assert_eq!((more, brought), (false, 0));
                    return;
                }
                assert!(brought <= left && (brought > 0 || from.1 >= there), "it gets on");
                self.moved(from, to, brought);
                let copy = &mut self.copies[which];
                (copy.from.1, copy.to.1) = (from.1 + brought, to.1 + brought);
                (copy.left, copy.count) = (left - brought, count + brought);
                let is_over = copy.left == 0 || brought == 0;
                copy.ended = is_over.then_some(Ok(()));
                assert_eq!(more, !is_over);
            }
            Err(FsError::Delay) => {}
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, act: &Act) {
        let which = |copies: &[Copying], n: usize| (!copies.is_empty()).then(|| n % copies.len());
        match *act {
            Act::Copy { client, from, to, len, most } => self.copy(client, from, to, len, most),
            Act::Step { which: n, most } => {
                if let Some(n) = which(&self.copies, n) {
                    self.step(n, most);
                }
            }
            Act::Fail(n) => {
                let Some(n) = which(&self.copies, n) else { return };
                let error = FsError::NoSpace;
                let op = OffloadOp::Fail { offload: self.copies[n].stateid, error };
                assert_eq!(self.rig.offload_op(op), Ok(Outcome::Done));
                self.copies[n].ended.get_or_insert(Err(error));
            }
            Act::Cancel(n) => {
                let Some(n) = which(&self.copies, n) else { return };
                let Copying { client, to, stateid: offload, .. } = self.copies.remove(n);
                let ino = self.files[to.0].attr.ino;
                let op = OffloadOp::Cancel { client, ino, offload };
                assert_eq!(self.rig.offload_op(op), Ok(Outcome::Done));
            }
            Act::Forget(n) => {
                let Some(n) = which(&self.copies, n) else { return };
                let op = OffloadOp::Forget(self.copies[n].stateid);
                assert_eq!(self.rig.offload_op(op), Ok(Outcome::Done));
                if self.copies[n].ended.is_some() {
                    self.copies.remove(n);
                }
            }
            Act::Write { file, offset, len, byte, inline } => {
                let file = self.named[file];
                let bytes = vec![byte; len];
                let piece = match inline {
                    true => self.rig.inline(offset, &bytes),
                    false => self.rig.block(Epoch(1), offset, &bytes),
                };
                let attr = self.files[file].attr.clone();
                match self.rig.write(&Cred::root(), &attr, vec![piece]) {
                    Ok(_) => self.files[file].put(offset, &bytes),
                    Err(FsError::Delay) => {}
                    other => panic!("{other:?}"),
                }
            }
            Act::Truncate { file, size } => {
                let file = self.named[file];
                let attr = self.files[file].attr.clone();
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                match self.rig.set(&Cred::root(), &attr, set) {
                    Ok(_) => self.files[file].bytes.resize(size as usize, 0),
                    Err(FsError::Delay) => {}
                    other => panic!("{other:?}"),
                }
            }
            Act::Replace(n) => {
                let name = format!("file{n}");
                let op = Op::Remove { dir: ROOT, name: name.clone().into(), kind: RemoveKind::Any };
                self.rig.root(op).unwrap();
                self.files.push(Plain { attr: self.rig.file(&name), bytes: Vec::new() });
                self.named[n] = self.files.len() - 1;
            }
            Act::Expire(n) => {
                let client = self.clients[n];
                self.rig.on_client(ClientOp::Expire(client)).unwrap();
                self.copies.retain(|copy| copy.client != client);
                self.boots += 1;
                self.clients[n] = self.rig.v41_boot(&format!("client{n}"), self.boots).0;
            }
            Act::Sweep => drop(self.rig.sweep()),
        }
    }

    fn check(&self) {
        self.rig.check();
        for (n, file) in self.files.iter().enumerate() {
            let held = self.copies.iter().any(|copy| copy.from.0 == n || copy.to.0 == n);
            let there = read::getattr(&self.rig.kv, file.attr.ino).unwrap().is_ok();
            assert_eq!(there, held || self.named.contains(&n));
            if there {
                assert_eq!(self.rig.content(file.attr.ino), file.bytes);
            }
        }
        let known = read::offloads(&self.rig.kv, StateId(0), 99).unwrap();
        assert_eq!(known.len(), self.copies.len());
        for (known, copy) in known.iter().zip(&self.copies) {
            let Copying { stateid, client, from, to, left, count, ended } = copy;
            assert_eq!((known.stateid, known.client, known.ended), (*stateid, *client, *ended));
            assert_eq!((known.from.offset, known.to.offset), (from.1, to.1));
            assert_eq!((known.left, known.count), (*left, *count));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn histories_of_copies(acts in prop::collection::vec(act(), 1..150)) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            world.check();
        }
    }
}
