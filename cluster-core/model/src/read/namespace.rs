//! Reads of inodes, directories, links and extended attributes.

use super::Read;
use crate::keys;
use crate::kv::{KvError, KvRead, Table};
use crate::record::{Dir, Inode};
use crate::store;
use atoll_base::attr::{Attr, FileKind};
use atoll_base::id::{Cookie, Ino};
use atoll_meta::FsError;
use atoll_meta::service::{DirEntry, DirPage, Found};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

pub(super) fn inode(kv: &impl KvRead, ino: Ino) -> Result<Read<Inode>, KvError> {
    Ok(store::inode(kv, ino)?.ok_or(FsError::Stale))
}

fn directory(kv: &impl KvRead, ino: Ino) -> Result<Read<(Attr, Dir)>, KvError> {
    Ok(match store::inode(kv, ino)? {
        None => Err(FsError::Stale),
        Some(Inode { attr, dir: Some(dir), .. }) => Ok((attr, dir)),
        Some(_) => Err(FsError::NotDirectory),
    })
}

/// Attributes of an inode; `Stale` if there is none.
pub fn getattr(kv: &impl KvRead, ino: Ino) -> Result<Read<Attr>, KvError> {
    Ok(inode(kv, ino)?.map(|inode| inode.attr))
}

fn follow(kv: &impl KvRead, dir: Ino, ino: Ino) -> Result<Attr, KvError> {
    match store::inode(kv, ino)? {
        Some(inode) => Ok(inode.attr),
        None => {
            Err(KvError::Failed(format!("inode {ino}, named by an entry of directory {dir}, does not exist")))
        }
    }
}

/// Looks a name up; `.` and `..` are names like any other here and not found.
pub fn lookup(kv: &impl KvRead, dir: Ino, name: &[u8]) -> Result<Read<Found>, KvError> {
    let (attr, _) = match directory(kv, dir)? {
        Ok(found) => found,
        Err(e) => return Ok(Err(e)),
    };
    let child = match store::dirent(kv, dir, name)? {
        Some((ino, _)) => Ok(follow(kv, dir, ino)?),
        None => Err(FsError::NotFound),
    };
    Ok(Ok(Found { dir: attr, child }))
}

/// The parent of a directory; itself for a volume's root.
pub fn parent(kv: &impl KvRead, dir: Ino) -> Result<Read<Ino>, KvError> {
    Ok(directory(kv, dir)?.map(|(_, dir)| dir.parent))
}

/// Entries after a cookie: at most `max_entries`, with names of at most `max_bytes` in all, but one at least.
pub fn readdir(
    kv: &impl KvRead,
    dir: Ino,
    after: Cookie,
    max_entries: usize,
    max_bytes: usize,
    with_attrs: bool,
) -> Result<Read<DirPage>, KvError> {
    let (attr, record) = match directory(kv, dir)? {
        Ok(found) => found,
        Err(e) => return Ok(Err(e)),
    };
    let mut entries: Vec<DirEntry> = Vec::new();
    let mut bytes = 0;
    let mut end = true;
    let from = keys::cookie(dir, after);
    let to = keys::cookie(dir, Cookie(u64::MAX));
    store::each_from(kv, Table::DirCookie, Bound::Excluded(&from), Bound::Included(&to), |key, value| {
        let (ino, name) = store::parse_dircookie(value)?;
        bytes += name.len();
        if !entries.is_empty() && (entries.len() >= max_entries || bytes > max_bytes) {
            end = false;
            return Ok(ControlFlow::Break(()));
        }
        let mut parts = keys::Parts::new(Table::DirCookie, key);
        let _dir = parts.ino()?;
        let cookie = Cookie(parts.u64()?);
        entries.push(DirEntry { cookie, name: Bytes::copy_from_slice(name), ino, attr: None });
        Ok(ControlFlow::Continue(()))
    })?;
    if with_attrs {
        for entry in &mut entries {
            entry.attr = Some(follow(kv, dir, entry.ino)?);
        }
    }
    Ok(Ok(DirPage { dir: attr, parent: record.parent, entries, end }))
}

/// Attributes and target of a symbolic link; `WrongType` if it is none.
pub fn readlink(kv: &impl KvRead, ino: Ino) -> Result<Read<(Attr, Bytes)>, KvError> {
    Ok(match inode(kv, ino)? {
        Err(e) => Err(e),
        Ok(inode) if inode.attr.kind != FileKind::Symlink => Err(FsError::WrongType),
        Ok(inode) => Ok((inode.attr, store::symlink(kv, ino)?)),
    })
}

/// Value of an extended attribute.
pub fn get_xattr(kv: &impl KvRead, ino: Ino, name: &[u8]) -> Result<Read<Bytes>, KvError> {
    if let Err(e) = inode(kv, ino)? {
        return Ok(Err(e));
    }
    let value = kv.get(Table::Xattr, &keys::named(ino, name), |value| value.map(Bytes::copy_from_slice))?;
    Ok(value.ok_or(FsError::NoXattr))
}

/// Names of all extended attributes, in order of their bytes.
pub fn list_xattrs(kv: &impl KvRead, ino: Ino) -> Result<Read<Vec<Bytes>>, KvError> {
    if let Err(e) = inode(kv, ino)? {
        return Ok(Err(e));
    }
    let mut names = Vec::new();
    store::each_key_prefixed(kv, Table::Xattr, &keys::ino(ino), |key| {
        names.push(Bytes::copy_from_slice(&key[8..]));
        ControlFlow::Continue(())
    })?;
    Ok(Ok(names))
}
