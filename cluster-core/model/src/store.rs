//! Typed access to the tables.
//!
//! A record that does not decode is an error of the store, named by table and key; the member that meets it stops.

use crate::codec;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::record::{Inode, Lease};
use atoll_base::block::BlockId;
use atoll_base::id::{Cookie, FrontendId, Ino};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Version byte of values that are not postcard.
pub(crate) const RAW: u8 = 1;

pub(crate) fn undecodable(table: Table, key: &[u8], why: impl std::fmt::Display) -> KvError {
    KvError::Failed(format!("record {} of table {}: {why}", key.escape_ascii(), table.name()))
}

pub(crate) fn parse<T: DeserializeOwned>(table: Table, key: &[u8], value: &[u8]) -> Result<T, KvError> {
    codec::decode(value).map_err(|e| undecodable(table, key, e))
}

pub(crate) fn get<T: DeserializeOwned>(
    kv: &impl KvRead,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, KvError> {
    kv.get(table, key, |value| value.map(|v| parse(table, key, v)).transpose())?
}

/// The first fields of a row ([`codec::decode_head`]), if the others are not wanted.
pub(crate) fn head<T: DeserializeOwned>(
    kv: &impl KvRead,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, KvError> {
    let parse = |value: &[u8]| codec::decode_head(value).map_err(|e| undecodable(table, key, e));
    kv.get(table, key, |value| value.map(parse).transpose())?
}

pub(crate) fn put<T: Serialize>(
    kv: &mut impl KvWrite,
    table: Table,
    key: &[u8],
    value: &T,
) -> Result<(), KvError> {
    codec::encoded(value, |bytes| kv.put(table, key, bytes))
}

/// The same for a key that is not there.
pub(crate) fn put_new<T: Serialize>(
    kv: &mut impl KvWrite,
    table: Table,
    key: &[u8],
    value: &T,
) -> Result<(), KvError> {
    codec::encoded(value, |bytes| kv.put_new(table, key, bytes))
}

pub(crate) fn has(kv: &impl KvRead, table: Table, key: &[u8]) -> Result<bool, KvError> {
    kv.get(table, key, |value| value.is_some())
}

/// Calls `f` for each row from `from` on, until it breaks or fails.
pub(crate) fn each_from(
    kv: &impl KvRead,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    mut f: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, KvError>,
) -> Result<(), KvError> {
    let mut failed = None;
    kv.scan(table, from, to, |key, value| match f(key, value) {
        Ok(flow) => flow,
        Err(e) => {
            failed = Some(e);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Calls `f` for each row whose key begins with `prefix`, until it breaks or fails.
pub(crate) fn each_prefixed(
    kv: &impl KvRead,
    table: Table,
    prefix: &[u8],
    f: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, KvError>,
) -> Result<(), KvError> {
    let after = keys::after_prefix(prefix);
    let to = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    each_from(kv, table, Bound::Included(prefix), to, f)
}

/// Calls `f` with each key that begins with `prefix`, until it breaks. What the values are, and whether they can be read, does not matter.
pub(crate) fn each_key_prefixed(
    kv: &impl KvRead,
    table: Table,
    prefix: &[u8],
    f: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), KvError> {
    let after = keys::after_prefix(prefix);
    let to = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    kv.keys(table, Bound::Included(prefix), to, f)
}

/// Whether there is any row whose key begins with `prefix`.
pub(crate) fn any_prefixed(kv: &impl KvRead, table: Table, prefix: &[u8]) -> Result<bool, KvError> {
    let mut any = false;
    each_key_prefixed(kv, table, prefix, |_| {
        any = true;
        ControlFlow::Break(())
    })?;
    Ok(any)
}

/// Whether the table has any row.
pub(crate) fn any(kv: &impl KvRead, table: Table) -> Result<bool, KvError> {
    let mut found = false;
    kv.scan(table, Bound::Unbounded, Bound::Unbounded, |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

pub(crate) fn inode(kv: &impl KvRead, ino: Ino) -> Result<Option<Inode>, KvError> {
    let key = keys::ino(ino);
    let Some(mut inode) = get::<Inode>(kv, Table::Inode, &key)? else { return Ok(None) };
    if inode.acl {
        inode.attr.acl = Some(Arc::new(apart(kv, Table::Acl, &key)?));
    }
    if inode.label {
        inode.attr.label = Some(Arc::new(apart(kv, Table::Label, &key)?));
    }
    Ok(Some(inode))
}

/// What an inode's row says is in another row.
fn apart<T: DeserializeOwned>(kv: &impl KvRead, table: Table, key: &[u8]) -> Result<T, KvError> {
    get(kv, table, key)?.ok_or_else(|| undecodable(table, key, "missing, though the inode has one"))
}

/// Writes an inode's row. Its access control list and its label have rows of their own, see [`put_apart`].
pub(crate) fn put_inode(kv: &mut impl KvWrite, inode: &Inode) -> Result<(), KvError> {
    let key = keys::ino(inode.attr.ino);
    let attr = &inode.attr;
    if attr.acl.is_none() && attr.label.is_none() && !inode.acl && !inode.label {
        return put(kv, Table::Inode, &key, inode);
    }
    let mut row = inode.clone();
    row.acl = row.attr.acl.take().is_some();
    row.label = row.attr.label.take().is_some();
    put(kv, Table::Inode, &key, &row)
}

/// Writes the row of an inode's access control list or label, or removes it.
pub(crate) fn put_apart<T: Serialize>(
    kv: &mut impl KvWrite,
    table: Table,
    ino: Ino,
    value: Option<&T>,
) -> Result<(), KvError> {
    let key = keys::ino(ino);
    match value {
        Some(value) => put(kv, table, &key, value),
        None => kv.delete(table, &key),
    }
}

/// What a name stands for.
pub(crate) fn dirent(kv: &impl KvRead, dir: Ino, name: &[u8]) -> Result<Option<(Ino, Cookie)>, KvError> {
    kv.get(Table::Dirent, &keys::named(dir, name), |v| v.map(parse_dirent).transpose())?
}

pub(crate) fn parse_dirent(value: &[u8]) -> Result<(Ino, Cookie), KvError> {
    let mut parts = Parts::new(Table::Dirent, value);
    check_raw(Table::Dirent, parts.take()?)?;
    let entry = (parts.ino()?, Cookie(parts.u64()?));
    parts.end()?;
    Ok(entry)
}

pub(crate) fn parse_dircookie(value: &[u8]) -> Result<(Ino, &[u8]), KvError> {
    let mut parts = Parts::new(Table::DirCookie, value);
    check_raw(Table::DirCookie, parts.take()?)?;
    let ino = parts.ino()?;
    Ok((ino, parts.rest()))
}

pub(crate) fn check_raw(table: Table, [version]: [u8; 1]) -> Result<(), KvError> {
    if version == RAW {
        Ok(())
    } else {
        Err(KvError::Failed(format!("a value of table {} has the unknown version {version}", table.name())))
    }
}

/// Writes both rows of a directory entry.
pub(crate) fn put_dirent(
    kv: &mut impl KvWrite,
    dir: Ino,
    name: &[u8],
    ino: Ino,
    cookie: Cookie,
) -> Result<(), KvError> {
    let mut value = [RAW; 17];
    value[1..9].copy_from_slice(&keys::ino(ino));
    value[9..].copy_from_slice(&cookie.0.to_be_bytes());
    kv.put(Table::Dirent, &keys::named(dir, name), &value)?;
    let mut value = Vec::with_capacity(9 + name.len());
    value.push(RAW);
    value.extend_from_slice(&keys::ino(ino));
    value.extend_from_slice(name);
    kv.put(Table::DirCookie, &keys::cookie(dir, cookie), &value)
}

/// Removes both rows of a directory entry.
pub(crate) fn delete_dirent(
    kv: &mut impl KvWrite,
    dir: Ino,
    name: &[u8],
    cookie: Cookie,
) -> Result<(), KvError> {
    kv.delete(Table::Dirent, &keys::named(dir, name))?;
    kv.delete(Table::DirCookie, &keys::cookie(dir, cookie))
}

pub(crate) fn lease(kv: &impl KvRead, frontend: FrontendId, ino: Ino) -> Result<Lease, KvError> {
    let key = keys::lease(frontend, ino);
    get(kv, Table::Dirty, &key)?
        .ok_or_else(|| undecodable(Table::Dirty, &key, "missing, though the inode names it"))
}

pub(crate) fn symlink(kv: &impl KvRead, ino: Ino) -> Result<Bytes, KvError> {
    let key = keys::ino(ino);
    kv.get(Table::Symlink, &key, |v| v.map(Bytes::copy_from_slice))?
        .ok_or_else(|| undecodable(Table::Symlink, &key, "missing, though the inode is a symbolic link"))
}

/// Number of extents that reference a block; 0 if none ever did or all are gone.
pub(crate) fn block_refs(kv: &impl KvRead, id: BlockId) -> Result<u64, KvError> {
    kv.get(Table::Block, &keys::block(id), |v| v.map(parse_count).transpose())?.map(|n| n.unwrap_or(0))
}

pub(crate) fn parse_count(value: &[u8]) -> Result<u64, KvError> {
    let mut parts = Parts::new(Table::Block, value);
    let count = parts.u64()?;
    parts.end()?;
    Ok(count)
}
