//! Names: what is made, linked, removed and renamed.

use super::{Answer, Expect, World};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_base::id::Ino;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{CreateHow, FsError, NewNode, Op, RemoveKind};
use bytes::Bytes;
use std::sync::Arc;

impl World {
    pub(super) fn unlink(&mut self, dir: Ino, name: &Bytes) {
        self.nodes.get_mut(&dir).unwrap().names.retain(|(n, _)| n != name);
    }

    pub(super) fn gone_if_unnamed(&mut self, ino: Ino) -> Expect {
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

    pub(super) fn create(
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

    pub(super) fn link(
        &mut self,
        cred: &Cred,
        ino: Ino,
        generation: u32,
        dir: Ino,
        name: &Bytes,
    ) -> Answer<Expect> {
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

    pub(super) fn remove(&mut self, cred: &Cred, dir: Ino, name: &Bytes, kind: RemoveKind) -> Answer<Expect> {
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

    pub(super) fn rename(
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

    /// What a new inode must look like.
    pub(in super::super) fn created(&mut self, cred: &Cred, op: &Op, attr: &Attr) {
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
        let label = attrs.label.as_deref().filter(|label| !label.data.is_empty());
        self.adopt(attr);
        self.nodes.get_mut(&attr.ino).unwrap().label = label.cloned().map(Arc::new);
        if let CreateHow::Exclusive(v) = *how {
            self.nodes.get_mut(&attr.ino).unwrap().verifier = Some(v);
        }
        self.nodes.get_mut(&dir).unwrap().names.push((name.clone(), attr.ino));
    }
}
