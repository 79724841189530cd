//! A naive file system: trees of structs, files as vectors of bytes, link counts by counting. What the state machine answers
//! and shows is compared with it.

mod attributes;
mod data;
pub(super) mod delegations;
mod names;

use self::delegations::Delegation;
use crate::limits::{DIRECTORY_SIZE, LEASE_CHANGES, LEASE_NANOS};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockId;
use atoll_base::id::{FrontendId, Ino};
use atoll_base::label::Label;
use atoll_base::time::Timestamp;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{FsError, Op, Origin, Outcome};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

type Answer<T> = Result<T, FsError>;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: FileKind,
    pub(super) volume: u32,
    pub(super) generation: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) bytes: Vec<u8>,
    /// In the order of a listing.
    pub(super) names: Vec<(Bytes, Ino)>,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) btime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) change: u64,
    pub(super) verifier: Option<[u8; 8]>,
    pub(super) xattrs: BTreeMap<Bytes, Bytes>,
    pub(super) label: Option<Arc<Label>>,
    pub(super) lease: Option<Lease>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) holder: FrontendId,
    pub(super) change: u64,
    pub(super) ctime: Timestamp,
}

/// What the world expects of a success.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Done,
    New,
    Old(Ino),
    Written,
    Dirty(u64, Timestamp),
    Registered,
    /// A file that lost its last name and stays, because it is delegated.
    Unnamed,
    /// All of so many bytes, if the command may bring a part only as many as it says.
    Cloned(u64),
}

pub(super) struct World {
    pub(super) nodes: BTreeMap<Ino, Node>,
    pub(super) now: Timestamp,
    pub(super) losses: u64,
    pub(super) epochs: BTreeMap<FrontendId, u32>,
    pub(super) blocks: BTreeMap<BlockId, Vec<u8>>,
    /// By client (a small number) and inode; also those of directories that are gone.
    pub(super) delegations: BTreeMap<(usize, Ino), Delegation>,
    /// Who sends the next operation.
    pub(super) caller: Option<usize>,
    moved: Vec<Ino>,
}

impl World {
    pub(super) fn new(root: &Attr) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            now: root.ctime,
            losses: 0,
            epochs: BTreeMap::new(),
            blocks: BTreeMap::new(),
            delegations: BTreeMap::new(),
            caller: None,
            moved: Vec::new(),
        };
        world.adopt(root);
        world
    }

    /// Takes an inode in that has just been made.
    pub(super) fn adopt(&mut self, attr: &Attr) {
        let node = Node {
            kind: attr.kind,
            volume: attr.volume.0,
            generation: attr.generation,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            bytes: if attr.kind == FileKind::Regular { vec![0; attr.size as usize] } else { Vec::new() },
            names: Vec::new(),
            atime: attr.atime,
            mtime: attr.mtime,
            btime: attr.btime,
            ctime: attr.ctime,
            change: attr.change,
            verifier: None,
            xattrs: BTreeMap::new(),
            label: None,
            lease: None,
        };
        assert!(self.nodes.insert(attr.ino, node).is_none(), "an inode number was given out twice");
    }

    pub(super) fn nlink(&self, ino: Ino) -> u32 {
        let names = self.nodes.values().flat_map(|n| &n.names).filter(|(_, i)| *i == ino).count() as u32;
        if self.nodes[&ino].kind != FileKind::Directory {
            return names;
        }
        let below = self.nodes[&ino].names.iter();
        2 + below.filter(|(_, i)| self.nodes[i].kind == FileKind::Directory).count() as u32
    }

    /// Compares what GETATTR shows.
    pub(super) fn compare(&self, ino: Ino, attr: &Attr) {
        let node = &self.nodes[&ino];
        let size = match node.kind {
            FileKind::Regular => node.bytes.len() as u64,
            FileKind::Directory => DIRECTORY_SIZE,
            _ => attr.size,
        };
        let expected = Attr {
            kind: node.kind,
            mode: node.mode,
            nlink: self.nlink(ino),
            uid: node.uid,
            gid: node.gid,
            size,
            atime: node.atime,
            mtime: node.mtime,
            btime: node.btime,
            ctime: node.ctime,
            change: node.change,
            generation: node.generation,
            label: node.label.clone(),
            delegated: self.delegated(ino),
            ..attr.clone()
        };
        assert_eq!(*attr, expected);
    }

    // ---- what POSIX lets whom do

    fn may(&self, cred: &Cred, ino: Ino, bits: u32) -> bool {
        let node = &self.nodes[&ino];
        if cred.uid == 0 {
            return true;
        }
        let shift = match () {
            () if cred.uid == node.uid => 6,
            () if cred.gid == node.gid || cred.groups().contains(&node.gid) => 3,
            () => 0,
        };
        node.mode >> shift & bits == bits
    }

    fn is_owner(&self, cred: &Cred, ino: Ino) -> bool {
        cred.uid == 0 || cred.uid == self.nodes[&ino].uid
    }

    fn sticky(&self, cred: &Cred, dir: Ino, ino: Ino) -> bool {
        self.nodes[&dir].mode & 0o1000 != 0 && !self.is_owner(cred, dir) && !self.is_owner(cred, ino)
    }

    fn of(&self, ino: Ino) -> Answer<&Node> {
        self.nodes.get(&ino).ok_or(FsError::Stale)
    }

    fn of_generation(&self, ino: Ino, generation: u32) -> Answer<&Node> {
        self.of(ino).and_then(|n| if n.generation == generation { Ok(n) } else { Err(FsError::Stale) })
    }

    fn dir(&self, ino: Ino) -> Answer<&Node> {
        self.of(ino)
            .and_then(|n| if n.kind == FileKind::Directory { Ok(n) } else { Err(FsError::NotDirectory) })
    }

    fn named(&self, dir: Ino, name: &Bytes) -> Option<Ino> {
        self.nodes[&dir].names.iter().find(|(n, _)| n == name).map(|(_, i)| *i)
    }

    fn is_below(&self, ino: Ino, top: Ino) -> bool {
        ino == top || self.nodes[&top].names.iter().any(|(_, child)| self.is_below(ino, *child))
    }

    // ---- changes

    fn moved(&mut self, ino: Ino) -> Timestamp {
        let now = self.now;
        let node = self.nodes.get_mut(&ino).unwrap();
        if self.moved.contains(&ino) {
            return node.ctime;
        }
        self.moved.push(ino);
        if let Some(lease) = node.lease {
            node.change = node.change.max(lease.change);
            node.ctime = node.ctime.max(lease.ctime);
        }
        node.change += 1;
        node.ctime = now.max(node.ctime.next());
        if let Some(lease) = &mut node.lease {
            lease.change = node.change + LEASE_CHANGES;
            lease.ctime = node.ctime.plus_nanos(LEASE_NANOS);
        }
        node.ctime
    }

    fn moved_data(&mut self, ino: Ino) {
        let time = self.moved(ino);
        self.nodes.get_mut(&ino).unwrap().mtime = time;
    }

    /// Applies an operation; the caller adopts what was made.
    pub(super) fn apply(&mut self, cred: &Cred, origin: Option<Origin>, op: &Op) -> Answer<Expect> {
        self.moved.clear();
        if let Some(origin) = origin
            && self.epochs.get(&origin.frontend) != Some(&origin.epoch.0)
        {
            return Err(FsError::Fenced);
        }
        match op {
            Op::Create { dir, name, node, how, attrs } => self.create(cred, *dir, name, node, *how, attrs),
            Op::Link { ino, generation, dir, name } => self.link(cred, *ino, *generation, *dir, name),
            Op::Remove { dir, name, kind } => self.remove(cred, *dir, name, *kind),
            Op::Rename { from_dir, from_name, to_dir, to_name } => {
                self.rename(cred, (*from_dir, from_name), (*to_dir, to_name))
            }
            Op::SetAttr { ino, generation, set, guard } => self.set(cred, *ino, *generation, set, *guard),
            Op::BeginDirty { ino, generation } => self.begin(cred, origin, *ino, *generation),
            Op::Write { ino, generation, pieces, flush: None } => self.write(cred, *ino, *generation, pieces),
            Op::Write { ino, generation, pieces, flush: Some(flush) } => {
                self.flush(origin, *ino, *generation, pieces, flush)
            }
            Op::SetXattr { ino, generation, name, value, how } => {
                self.xattr(cred, *ino, *generation, name, value.as_ref(), *how)
            }
            Op::Punch { ino, generation, offset, len } => {
                self.writable(cred, *ino, *generation)?;
                let bytes = &self.nodes[ino].bytes;
                let end = (offset + len).min(bytes.len() as u64);
                if *offset < end {
                    self.allow(*ino, Intrusion::Change)?;
                    let bytes = &mut self.nodes.get_mut(ino).unwrap().bytes;
                    bytes[*offset as usize..end as usize].fill(0);
                    self.written(cred, *ino);
                }
                Ok(Expect::Done)
            }
            Op::Extend { ino, generation, size } => {
                self.writable(cred, *ino, *generation)?;
                if *size > self.nodes[ino].bytes.len() as u64 {
                    self.allow(*ino, Intrusion::Change)?;
                    let bytes = &mut self.nodes.get_mut(ino).unwrap().bytes;
                    bytes.resize(*size as usize, 0);
                    self.written(cred, *ino);
                }
                Ok(Expect::Done)
            }
            Op::Clone { from, from_generation, from_offset, to, to_generation, to_offset, len, .. } => {
                self.of_generation(*to, *to_generation)?;
                self.file(*from, *from_generation)?;
                self.file(*to, *to_generation)?;
                if self.nodes[from].volume != self.nodes[to].volume {
                    return Err(FsError::CrossVolume);
                }
                self.writable(cred, *to, *to_generation)?;
                let size = self.nodes[from].bytes.len() as u64;
                if *from_offset > size || from_offset + len > size {
                    return Err(FsError::Invalid);
                }
                let len = if *len == 0 { size - from_offset } else { *len };
                let overlap = from == to && from_offset.abs_diff(*to_offset) < len;
                if overlap {
                    return Err(FsError::Invalid);
                }
                self.allow(*from, Intrusion::Read)?;
                self.allow(*to, Intrusion::Change)?;
                Ok(Expect::Cloned(len))
            }
            Op::Touch(times) => {
                for (ino, time) in times {
                    if let Some(node) = self.nodes.get_mut(ino) {
                        node.atime = node.atime.max(*time);
                    }
                }
                Ok(Expect::Done)
            }
            Op::RegisterFrontend { frontend } => {
                let inos: Vec<Ino> = self.nodes.keys().copied().collect();
                self.lost(*frontend, &inos);
                let next = self.epochs.values().max().copied().unwrap_or(0) + 1;
                self.epochs.insert(*frontend, next);
                Ok(Expect::Registered)
            }
            Op::DataLost { inos } => {
                self.lost(origin.ok_or(FsError::Invalid)?.frontend, inos);
                Ok(Expect::Done)
            }
            other => panic!("the world knows nothing of {other:?}"),
        }
    }
}

/// Whether an answer is the expected one.
pub(super) fn agrees(expected: &Answer<Expect>, result: &Answer<Outcome>) -> bool {
    match (expected, result) {
        (Err(a), Err(b)) => a == b,
        (Ok(Expect::Done), Ok(Outcome::Done)) | (Ok(Expect::Unnamed), Ok(Outcome::Unnamed)) => true,
        (Ok(Expect::New), Ok(Outcome::Created { new: true, .. })) => true,
        (Ok(Expect::Old(ino)), Ok(Outcome::Created { attr, new: false })) => attr.ino == *ino,
        (Ok(Expect::Written), Ok(Outcome::Written { .. })) => true,
        (Ok(Expect::Dirty(c, t)), Ok(Outcome::Dirty { change_ceiling, ctime_ceiling })) => {
            c == change_ceiling && t == ctime_ceiling
        }
        (Ok(Expect::Registered), Ok(Outcome::Registered { .. })) => true,
        (Ok(Expect::Cloned(most)), Ok(Outcome::Cloned { count, .. })) => {
            count <= most && (*count > 0 || *most == 0)
        }
        // More than one command may copy.
        (Ok(Expect::Cloned(most)), Err(FsError::NotSupported)) => *most > 0,
        _ => false,
    }
}
