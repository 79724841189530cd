//! Bytes of files, and the write leases on them.

use super::{Answer, Expect, Lease, Node, World};
use crate::limits::{LEASE_CHANGES, LEASE_NANOS, LEASES_MAX};
use atoll_base::access::Cred;
use atoll_base::attr::FileKind;
use atoll_base::id::{FrontendId, Ino};
use atoll_meta::delegation::Intrusion;
use atoll_meta::{Flush, FsError, Op, Origin, Piece, Source};

impl World {
    pub(super) fn written(&mut self, cred: &Cred, ino: Ino) {
        self.moved_data(ino);
        self.strip(cred, ino);
    }

    pub(super) fn lost(&mut self, frontend: FrontendId, inos: &[Ino]) {
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

    pub(super) fn file(&self, ino: Ino, generation: u32) -> Answer<&Node> {
        let node = self.of_generation(ino, generation)?;
        match node.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::WrongType),
        }
    }

    pub(super) fn put(&mut self, ino: Ino, pieces: &[Piece]) {
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

    pub(super) fn write(
        &mut self,
        cred: &Cred,
        ino: Ino,
        generation: u32,
        pieces: &[Piece],
    ) -> Answer<Expect> {
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

    pub(super) fn writable(&self, cred: &Cred, ino: Ino, generation: u32) -> Answer<()> {
        self.file(ino, generation)?;
        let may = self.may(cred, ino, 2) || self.is_owner(cred, ino);
        if may { Ok(()) } else { Err(FsError::AccessDenied) }
    }

    /// What a clone of so many bytes does.
    pub(in super::super) fn cloned(&mut self, cred: &Cred, op: &Op, count: u64) {
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

    pub(super) fn begin(
        &mut self,
        cred: &Cred,
        origin: Option<Origin>,
        ino: Ino,
        generation: u32,
    ) -> Answer<Expect> {
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

    pub(super) fn flush(
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
}
