//! Reads of lock state.

use super::Read;
use super::namespace::inode;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::ops::locks::granted;
use crate::ops::nfs4::release;
use crate::store;
use atoll_base::attr::FileKind;
use atoll_base::id::Ino;
use atoll_lockd::FileLocks;
use atoll_meta::FsError;
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use std::ops::{Bound, ControlFlow};

/// The lock that stands in the way, if any; `Delay` if that is only what is left of a client that ended.
pub fn test_lock(kv: &impl KvRead, test: &LockTest) -> Result<Read<Option<Conflict>>, KvError> {
    let attr = match inode(kv, test.ino)? {
        Ok(inode) => inode.attr,
        Err(e) => return Ok(Err(e)),
    };
    if attr.generation != test.generation {
        return Ok(Err(FsError::Stale));
    }
    match attr.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Ok(Err(FsError::IsDirectory)),
        _ => return Ok(Err(FsError::WrongType)),
    }
    let locks: Option<FileLocks> = store::get(kv, Table::Lock, &keys::ino(test.ino))?;
    let conflict = locks.and_then(|locks| locks.test(&test.owner, test.range, test.mode));
    match &conflict {
        Some(conflict) if release::is_remainder(kv, &conflict.owner)? => Ok(Err(FsError::Delay)),
        _ => Ok(Ok(conflict)),
    }
}

/// Grants that their clients have not acknowledged, of the files after `after`: those of at most `files` files.
pub fn pending_grants(
    kv: &impl KvRead,
    after: Option<Ino>,
    files: usize,
) -> Result<Vec<GrantedWaiter>, KvError> {
    let from = after.map(keys::ino);
    let from = from.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut inos = Vec::new();
    store::each_from(kv, Table::PendingGrant, from, Bound::Unbounded, |key, _| {
        if inos.len() >= files {
            return Ok(ControlFlow::Break(()));
        }
        inos.push(Parts::new(Table::PendingGrant, key).ino()?);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut found = Vec::new();
    for ino in inos {
        let locks: FileLocks = store::get(kv, Table::Lock, &keys::ino(ino))?
            .ok_or_else(|| KvError::Failed(format!("file {ino} has pending grants but no locks")))?;
        found.extend(locks.pending_grants().into_iter().map(|effect| granted(ino, effect)));
    }
    Ok(found)
}
