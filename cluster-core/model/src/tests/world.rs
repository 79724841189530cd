//! A naive file system: trees of structs, files as vectors of bytes, link counts by counting. What the state machine answers
//! and shows is compared with it.

pub(super) mod delegations;

use self::delegations::Delegation;
use crate::limits::{DIRECTORY_SIZE, LEASE_CHANGES, LEASE_NANOS, LEASES_MAX, XATTRS_MAX};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind, SetAttr, SetTime};
use atoll_base::block::BlockId;
use atoll_base::id::{FrontendId, Ino};
use atoll_base::time::Timestamp;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{
    CreateHow, Flush, FsError, NewNode, Op, Origin, Outcome, Piece, RemoveKind, Source, XattrHow,
};
use bytes::Bytes;
use std::collections::BTreeMap;

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

    fn written(&mut self, cred: &Cred, ino: Ino) {
        self.moved_data(ino);
        self.strip(cred, ino);
    }

    fn strip(&mut self, cred: &Cred, ino: Ino) -> bool {
        let mode = &mut self.nodes.get_mut(&ino).unwrap().mode;
        let former = *mode;
        if cred.uid != 0 {
            if *mode & 0o2010 == 0o2010 {
                *mode -= 0o2000;
            }
            *mode &= 0o3777;
        }
        former != *mode
    }

    fn unlink(&mut self, dir: Ino, name: &Bytes) {
        self.nodes.get_mut(&dir).unwrap().names.retain(|(n, _)| n != name);
    }

    fn gone_if_unnamed(&mut self, ino: Ino) -> Expect {
        self.moved(ino);
        if self.is_named(ino) {
            return Expect::Done;
        }
        if self.nodes[&ino].kind != FileKind::Directory && self.is_delegated(ino) {
            return Expect::Unnamed;
        }
        self.nodes.remove(&ino);
        Expect::Done
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

    fn lost(&mut self, frontend: FrontendId, inos: &[Ino]) {
        let mut any = false;
        let now = self.now;
        for ino in inos {
            let Some(node) = self.nodes.get_mut(ino) else { continue };
            let Some(lease) = node.lease.filter(|l| l.holder == frontend) else { continue };
            any = true;
            node.lease = None;
            node.change = node.change.max(lease.change) + 1;
            node.ctime = now.max(node.ctime.max(lease.ctime).next());
            node.mtime = node.ctime;
        }
        self.losses += u64::from(any);
    }

    fn create(
        &mut self,
        cred: &Cred,
        dir: Ino,
        name: &Bytes,
        node: &NewNode,
        how: CreateHow,
        attrs: &SetAttr,
    ) -> Answer<Expect> {
        let parent = self.dir(dir)?.clone();
        if how != CreateHow::Guarded && *node != NewNode::Regular {
            return Err(FsError::Invalid);
        }
        if !self.may(cred, dir, 1) {
            return Err(FsError::AccessDenied);
        }
        if let Some(ino) = self.named(dir, name) {
            let found = &self.nodes[&ino];
            let taken = match how {
                CreateHow::Guarded => false,
                CreateHow::Unchecked => found.kind == FileKind::Regular,
                CreateHow::Exclusive(v) => found.verifier == Some(v),
            };
            if !taken {
                return Err(FsError::Exists);
            }
            if let (CreateHow::Unchecked, Some(size)) = (how, attrs.size) {
                if !self.may(cred, ino, 2) && !self.is_owner(cred, ino) {
                    return Err(FsError::AccessDenied);
                }
                self.allow(ino, Intrusion::Change)?;
                self.nodes.get_mut(&ino).unwrap().bytes.resize(size as usize, 0);
                self.written(cred, ino);
            }
            return Ok(Expect::Old(ino));
        }
        if !self.may(cred, dir, 3) {
            return Err(FsError::AccessDenied);
        }
        if let NewNode::Special(FileKind::BlockDevice | FileKind::CharDevice, _) = node
            && cred.uid != 0
        {
            return Err(FsError::NotOwner);
        }
        self.allow(dir, Intrusion::Change)?;
        self.moved_data(dir);
        let _ = parent;
        Ok(Expect::New)
    }

    /// What a new inode must look like.
    pub(super) fn created(&mut self, cred: &Cred, op: &Op, attr: &Attr) {
        let Op::Create { dir, name, node, how, attrs } = op else { panic!("{op:?} makes nothing") };
        let dir = *dir;
        let parent = self.nodes[&dir].clone();
        let is_dir = *node == NewNode::Directory;
        let set_gid = parent.mode & 0o2000 != 0;
        let mut mode = attrs.mode.unwrap();
        if set_gid && is_dir {
            mode |= 0o2000;
        }
        let gid = if set_gid { parent.gid } else { cred.gid };
        let member = cred.uid == 0 || cred.gid == gid || cred.groups().contains(&gid);
        if set_gid && !is_dir && !member && mode & 0o2010 == 0o2010 {
            mode -= 0o2000;
        }
        if matches!(node, NewNode::Symlink(_)) {
            mode = 0o777;
        }
        let (uid, gid) =
            if cred.uid == 0 { (attrs.uid.unwrap_or(0), attrs.gid.unwrap_or(gid)) } else { (cred.uid, gid) };
        assert_eq!((attr.mode, attr.uid, attr.gid), (mode, uid, gid));
        assert_eq!(attr.volume.0, parent.volume);
        assert_eq!((attr.ctime, attr.mtime, attr.btime), (parent.ctime, parent.ctime, parent.ctime));
        if *node == NewNode::Regular {
            assert_eq!(attr.size, attrs.size.unwrap_or(0));
        }
        self.adopt(attr);
        if let CreateHow::Exclusive(v) = *how {
            self.nodes.get_mut(&attr.ino).unwrap().verifier = Some(v);
        }
        self.nodes.get_mut(&dir).unwrap().names.push((name.clone(), attr.ino));
    }

    fn link(&mut self, cred: &Cred, ino: Ino, generation: u32, dir: Ino, name: &Bytes) -> Answer<Expect> {
        self.of(dir)?;
        let kind = self.of_generation(ino, generation)?.kind;
        self.dir(dir)?;
        if !self.may(cred, dir, 3) {
            return Err(FsError::AccessDenied);
        }
        if kind == FileKind::Directory {
            return Err(FsError::IsDirectory);
        }
        if self.named(dir, name).is_some() {
            return Err(FsError::Exists);
        }
        if self.nodes[&dir].volume != self.nodes[&ino].volume {
            return Err(FsError::CrossVolume);
        }
        if !self.is_named(ino) {
            return Err(FsError::NotFound);
        }
        self.allow(dir, Intrusion::Change)?;
        self.allow(ino, Intrusion::Change)?;
        self.moved_data(dir);
        self.moved(ino);
        self.nodes.get_mut(&dir).unwrap().names.push((name.clone(), ino));
        Ok(Expect::Done)
    }

    fn remove(&mut self, cred: &Cred, dir: Ino, name: &Bytes, kind: RemoveKind) -> Answer<Expect> {
        self.dir(dir)?;
        if !self.may(cred, dir, 3) {
            return Err(FsError::AccessDenied);
        }
        let ino = self.named(dir, name).ok_or(FsError::NotFound)?;
        if self.sticky(cred, dir, ino) {
            return Err(FsError::NotOwner);
        }
        let is_dir = self.nodes[&ino].kind == FileKind::Directory;
        match kind {
            RemoveKind::NonDirectory if is_dir => return Err(FsError::IsDirectory),
            RemoveKind::Directory if !is_dir => return Err(FsError::NotDirectory),
            _ => {}
        }
        if !self.nodes[&ino].names.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.allow(dir, Intrusion::Change)?;
        self.allow(ino, Intrusion::Change)?;
        self.moved_data(dir);
        self.unlink(dir, name);
        Ok(self.gone_if_unnamed(ino))
    }

    fn rename(
        &mut self,
        cred: &Cred,
        (from, from_name): (Ino, &Bytes),
        (to, to_name): (Ino, &Bytes),
    ) -> Answer<Expect> {
        self.of(from)?;
        self.of(to)?;
        self.dir(from)?;
        self.dir(to)?;
        if !self.may(cred, from, 3) || !self.may(cred, to, 3) {
            return Err(FsError::AccessDenied);
        }
        if self.nodes[&from].volume != self.nodes[&to].volume {
            return Err(FsError::CrossVolume);
        }
        let ino = self.named(from, from_name).ok_or(FsError::NotFound)?;
        let target = self.named(to, to_name);
        if target == Some(ino) {
            return Ok(Expect::Done);
        }
        let is_dir = self.nodes[&ino].kind == FileKind::Directory;
        if is_dir && from != to && self.is_below(to, ino) {
            return Err(FsError::Invalid);
        }
        if self.sticky(cred, from, ino) || target.is_some_and(|t| self.sticky(cred, to, t)) {
            return Err(FsError::NotOwner);
        }
        if let Some(target) = target {
            match (is_dir, self.nodes[&target].kind == FileKind::Directory) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                _ if !self.nodes[&target].names.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        if is_dir && from != to && !self.may(cred, ino, 2) {
            return Err(FsError::AccessDenied);
        }
        for changed in [from, to, ino].into_iter().chain(target) {
            self.allow(changed, Intrusion::Change)?;
        }
        self.moved_data(from);
        self.moved_data(to);
        self.moved(ino);
        self.unlink(from, from_name);
        let names = &mut self.nodes.get_mut(&to).unwrap().names;
        match target {
            None => names.push((to_name.clone(), ino)),
            Some(target) => {
                names.iter_mut().find(|(n, _)| n == to_name).unwrap().1 = ino;
                return Ok(self.gone_if_unnamed(target));
            }
        }
        Ok(Expect::Done)
    }

    fn set(
        &mut self,
        cred: &Cred,
        ino: Ino,
        generation: u32,
        set: &SetAttr,
        guard: Option<Timestamp>,
    ) -> Answer<Expect> {
        let node = self.of_generation(ino, generation)?.clone();
        if guard.is_some_and(|g| g != node.ctime) {
            return Err(FsError::NotSync);
        }
        let mut set = set.clone();
        if node.kind == FileKind::Symlink {
            set.mode = None;
        }
        if set.is_empty() {
            return Ok(Expect::Done);
        }
        let owner = self.is_owner(cred, ino);
        let may_write = self.may(cred, ino, 2);
        if set.size.is_some() {
            match node.kind {
                FileKind::Regular if may_write || owner => {}
                FileKind::Regular => return Err(FsError::AccessDenied),
                FileKind::Directory => return Err(FsError::IsDirectory),
                _ => return Err(FsError::Invalid),
            }
        }
        let member = |gid| cred.uid == 0 || cred.gid == gid || cred.groups().contains(&gid);
        let bad_uid = set.uid.is_some_and(|u| cred.uid != 0 && !(owner && u == node.uid));
        let bad_gid = set.gid.is_some_and(|g| !(cred.uid == 0 || owner && (g == node.gid || member(g))));
        if bad_uid || bad_gid || (set.mode.is_some() || set.btime.is_some()) && !owner {
            return Err(FsError::NotOwner);
        }
        for time in [set.atime, set.mtime] {
            match time {
                SetTime::Server if !owner && !may_write => return Err(FsError::AccessDenied),
                SetTime::Client(_) if !owner => return Err(FsError::NotOwner),
                _ => {}
            }
        }
        self.allow(ino, Intrusion::Change)?;
        let time = self.moved(ino);
        let node = self.nodes.get_mut(&ino).unwrap();
        node.verifier = None;
        if (set.uid.is_some() || set.gid.is_some()) && node.kind != FileKind::Directory {
            node.mode &= 0o3777;
            if node.mode & 0o2000 != 0 && (node.mode & 0o10 != 0 || !member(node.gid)) {
                node.mode -= 0o2000;
            }
        }
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        let gid = node.gid;
        if let Some(size) = set.size {
            node.bytes.resize(size as usize, 0);
            node.mtime = time;
            self.strip(cred, ino);
        }
        let node = self.nodes.get_mut(&ino).unwrap();
        if let Some(mode) = set.mode {
            node.mode = mode & 0o7777;
            if !member(gid) {
                node.mode &= 0o5777;
            }
        }
        node.btime = set.btime.unwrap_or(node.btime);
        for (field, set) in [(&mut node.atime, set.atime), (&mut node.mtime, set.mtime)] {
            match set {
                SetTime::Keep => {}
                SetTime::Server => *field = time,
                SetTime::Client(t) => *field = t,
            }
        }
        Ok(Expect::Done)
    }

    fn file(&self, ino: Ino, generation: u32) -> Answer<&Node> {
        let node = self.of_generation(ino, generation)?;
        match node.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::WrongType),
        }
    }

    fn put(&mut self, ino: Ino, pieces: &[Piece]) {
        let node = self.nodes.get_mut(&ino).unwrap();
        for piece in pieces {
            let data = match &piece.source {
                Source::Inline(data) => data.to_vec(),
                Source::Block { id, offset } => {
                    self.blocks[id][*offset as usize..][..piece.len as usize].to_vec()
                }
            };
            let end = piece.end() as usize;
            if node.bytes.len() < end {
                node.bytes.resize(end, 0);
            }
            node.bytes[piece.offset as usize..end].copy_from_slice(&data);
        }
    }

    fn write(&mut self, cred: &Cred, ino: Ino, generation: u32, pieces: &[Piece]) -> Answer<Expect> {
        self.file(ino, generation)?;
        if !self.may(cred, ino, 2) && !self.is_owner(cred, ino) {
            return Err(FsError::AccessDenied);
        }
        if !pieces.is_empty() {
            self.allow(ino, Intrusion::Change)?;
            self.put(ino, pieces);
            self.written(cred, ino);
        }
        Ok(Expect::Written)
    }

    fn writable(&self, cred: &Cred, ino: Ino, generation: u32) -> Answer<()> {
        self.file(ino, generation)?;
        let may = self.may(cred, ino, 2) || self.is_owner(cred, ino);
        if may { Ok(()) } else { Err(FsError::AccessDenied) }
    }

    /// What a clone of so many bytes does.
    pub(super) fn cloned(&mut self, cred: &Cred, op: &Op, count: u64) {
        let Op::Clone { from, from_offset, to, to_offset, .. } = op else { panic!("{op:?}") };
        if count == 0 {
            return;
        }
        let part = self.nodes[from].bytes[*from_offset as usize..][..count as usize].to_vec();
        let bytes = &mut self.nodes.get_mut(to).unwrap().bytes;
        let (start, end) = (*to_offset as usize, (*to_offset + count) as usize);
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(&part);
        self.written(cred, *to);
    }

    fn begin(&mut self, cred: &Cred, origin: Option<Origin>, ino: Ino, generation: u32) -> Answer<Expect> {
        self.file(ino, generation)?;
        let holder = origin.ok_or(FsError::Invalid)?.frontend;
        if !self.may(cred, ino, 2) && !self.is_owner(cred, ino) {
            return Err(FsError::AccessDenied);
        }
        let held = self.nodes.values().filter(|n| n.lease.is_some_and(|l| l.holder == holder)).count();
        match self.nodes[&ino].lease {
            Some(lease) if lease.holder != holder => return Err(FsError::Conflict),
            None if held as u32 >= LEASES_MAX => return Err(FsError::TableFull),
            _ => {}
        }
        self.allow(ino, Intrusion::Change)?;
        if self.strip(cred, ino) {
            self.moved(ino);
        }
        let now = self.now;
        let node = self.nodes.get_mut(&ino).unwrap();
        let (mut change, mut ctime) = (node.change, now.max(node.ctime).plus_nanos(LEASE_NANOS));
        if let Some(former) = node.lease {
            change = change.max(former.change);
            ctime = ctime.max(former.ctime);
        }
        let lease = Lease { holder, change: change + LEASE_CHANGES, ctime };
        node.lease = Some(lease);
        Ok(Expect::Dirty(lease.change, lease.ctime))
    }

    fn flush(
        &mut self,
        origin: Option<Origin>,
        ino: Ino,
        generation: u32,
        pieces: &[Piece],
        flush: &Flush,
    ) -> Answer<Expect> {
        let node = self.file(ino, generation)?.clone();
        let holder = origin.ok_or(FsError::Invalid)?.frontend;
        let lease = node.lease.filter(|l| l.holder == holder).ok_or(FsError::Conflict)?;
        if flush.change > lease.change || flush.ctime > lease.ctime {
            return Err(FsError::Invalid);
        }
        self.put(ino, pieces);
        let now = self.now;
        let after = self.nodes.get_mut(&ino).unwrap();
        if flush.change >= node.change && flush.size > after.bytes.len() as u64 {
            after.bytes.resize(flush.size as usize, 0);
        }
        if flush.change > node.change {
            after.change = flush.change;
            after.ctime = node.ctime.max(flush.ctime);
            after.mtime = flush.mtime;
        }
        if flush.change < node.change && !pieces.is_empty() {
            after.change = node.change + 1;
            after.ctime = now.max(node.ctime.next());
            after.mtime = node.mtime.max(flush.mtime);
        }
        if flush.release {
            after.lease = None;
        }
        Ok(Expect::Written)
    }

    fn xattr(
        &mut self,
        cred: &Cred,
        ino: Ino,
        generation: u32,
        name: &Bytes,
        value: Option<&Bytes>,
        how: XattrHow,
    ) -> Answer<Expect> {
        let node = self.of_generation(ino, generation)?;
        let is_dir = node.kind == FileKind::Directory;
        if node.kind != FileKind::Regular && !is_dir
            || is_dir && node.mode & 0o1000 != 0 && !self.is_owner(cred, ino)
        {
            return Err(FsError::NotOwner);
        }
        if !self.may(cred, ino, 2) {
            return Err(FsError::AccessDenied);
        }
        let (has, count) = (node.xattrs.contains_key(name), node.xattrs.len());
        match value {
            _ if has && how == XattrHow::Create => return Err(FsError::Exists),
            _ if !has && how == XattrHow::Replace => return Err(FsError::NoXattr),
            None if !has => return Err(FsError::NoXattr),
            Some(value) if node.xattrs.get(name) == Some(value) => return Ok(Expect::Done),
            Some(_) if !has && count as u32 >= XATTRS_MAX => return Err(FsError::NoSpace),
            _ => {}
        }
        self.allow(ino, Intrusion::Change)?;
        self.moved(ino);
        let xattrs = &mut self.nodes.get_mut(&ino).unwrap().xattrs;
        match value {
            None => xattrs.remove(name),
            Some(value) => xattrs.insert(name.clone(), value.clone()),
        };
        Ok(Expect::Done)
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
