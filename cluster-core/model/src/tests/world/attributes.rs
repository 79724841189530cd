//! SETATTR and extended attributes.

use super::{Answer, Expect, World};
use crate::limits::{XATTR_COMPARED_MAX, XATTRS_MAX};
use atoll_base::access::Cred;
use atoll_base::attr::{FileKind, SetAttr, SetTime};
use atoll_base::id::Ino;
use atoll_base::time::Timestamp;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{FsError, XattrHow};
use bytes::Bytes;
use std::sync::Arc;

impl World {
    pub(super) fn strip(&mut self, cred: &Cred, ino: Ino) -> bool {
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

    pub(super) fn set(
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
        if bad_uid || bad_gid || (set.mode.is_some() || set.btime.is_some() || set.label.is_some()) && !owner
        {
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
        if let Some(label) = set.label {
            node.label = (!label.data.is_empty()).then(|| Arc::new(*label));
        }
        for (field, set) in [(&mut node.atime, set.atime), (&mut node.mtime, set.mtime)] {
            match set {
                SetTime::Keep => {}
                SetTime::Server => *field = time,
                SetTime::Client(t) => *field = t,
            }
        }
        Ok(Expect::Done)
    }

    pub(super) fn xattr(
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
            Some(value) if value.len() <= XATTR_COMPARED_MAX && node.xattrs.get(name) == Some(value) => {
                return Ok(Expect::Done);
            }
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
