//! What an act is in the world as it is: which inodes, on whose behalf, with which bytes.

use super::super::rig::{self, ROOT, user};
use super::super::world;
use super::Run;
use super::acts::{Act, Do, FlushPlan};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Device, FileKind, SetAttr};
use atoll_base::id::{Epoch, FrontendId, Ino};
use atoll_meta::{CreateHow, Flush, FsError, NewNode, Op, Origin, Piece, RemoveKind, Response, XattrHow};
use bytes::Bytes;

impl Run {
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

    pub(super) fn pick_kind(&self, n: u8, kind: FileKind) -> (Ino, u32) {
        // Seldom in the second volume.
        let volume = if n % 8 == 7 { 2 } else { 1 };
        let fits = |node: &world::Node| node.kind == kind && node.volume == volume;
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

    pub(super) fn act(&mut self, act: Act) {
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
            rig::key(self.next_key)
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
            covered.push((rig::key(self.next_key), Response::refused(FsError::Io).into()));
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
}
