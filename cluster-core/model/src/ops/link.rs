//! LINK, REMOVE, RMDIR, RENAME (RFC 1813 §3.3.12 to §3.3.15), with the checks of Linux and their order (fs/nfsd/vfs.c; `may_delete`,
//! `vfs_link`, `vfs_rename` in fs/namei.c):
//!
//! - permission on the directories first, then whether the names exist;
//! - the sticky bit answers `NotOwner` (EPERM);
//! - an access control list may allow to add but not to remove, or the reverse, or only directories or others
//!   ([`atoll_base::access::may_unlink`]);
//! - a directory over another type is `NotDirectory`, another type over a directory `IsDirectory`;
//! - a directory that changes its parent needs permission to write itself, because its `..` changes;
//! - a directory into itself or below is `Invalid`: the parents of the target directory are followed up to the root.
//!
//! A file that loses its last name while NFSv4 clients have it open stays, without links, until the last of its states goes (RFC 8881
//! §18.25.4: "until last CLOSE of the file, the server MAY continue to allow access to the file via its filehandle"): a program that has
//! it open need not notice that another client removed it.
//!
//! A name that is replaced keeps its cookie, so a listing under way shows it once; a name that moves gets a new one.

use super::create::add_name;
use super::nfs4::{delegations, notices};
use super::{locks, names, nfs4};
use crate::kv::{KvWrite, Table};
use crate::limits::{DEPTH_MAX, RELEASE_ROWS_MAX};
use crate::transaction::{At, Step, Stop, Transaction, require};
use crate::{extents, keys, kv, store};
use atoll_base::access::{Perm, Unlink, may_delete_child, may_unlink, permits};
use atoll_base::attr::FileKind;
use atoll_base::id::{Cookie, Ino};
use atoll_base::limits::LINK_MAX;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{FsError, Outcome, RemoveKind};
use bytes::Bytes;
use std::ops::ControlFlow;

/// Extents of a file that are released in the step in which it is closed for the last time.
const CLOSED_ROWS_MAX: usize = 4;

/// LINK.
pub(crate) fn link<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    generation: u32,
    dir: Ino,
    name: &Bytes,
) -> Step<Outcome> {
    let dir = t.load(dir)?;
    let at = t.load_generation(ino, generation)?;
    require(t[dir].is_dir(), FsError::NotDirectory)?;
    names::check(name, FsError::Exists)?;
    require(permits(t.cred, &t[dir].attr, Perm::ADD_FILE), FsError::AccessDenied)?;
    require(!t[at].is_dir(), FsError::IsDirectory)?;
    require(store::dirent(t.kv, t[dir].attr.ino, name)?.is_none(), FsError::Exists)?;
    require(t[dir].attr.volume == t[at].attr.volume, FsError::CrossVolume)?;
    require(t[at].attr.nlink < LINK_MAX, FsError::TooManyLinks)?;
    // As Linux: a file without a name does not get one again.
    require(t[at].attr.nlink > 0, FsError::NotFound)?;
    check_delegations(t, [(dir, Intrusion::Add), (at, Intrusion::Change)])?;

    t.data_changed(dir)?;
    t.changed(at)?;
    t[at].attr.nlink += 1;
    let cookie = add_name(t, dir, name, ino)?;
    notices::added(t, dir, name, cookie, false)?;
    Ok(Outcome::Done)
}

/// REMOVE, RMDIR.
pub(crate) fn remove<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: Ino,
    name: &Bytes,
    kind: RemoveKind,
) -> Step<Outcome> {
    let dir = t.load_dir(dir)?;
    names::check(name, FsError::AccessDenied)?;
    let (ino, cookie) = entry_to_take(t, dir, name)?;
    let victim = t.follow(ino, "a directory entry")?;
    t.report(victim);
    check_unlink(t, dir, victim)?;
    match kind {
        RemoveKind::NonDirectory => require(!t[victim].is_dir(), FsError::IsDirectory)?,
        RemoveKind::Directory => require(t[victim].is_dir(), FsError::NotDirectory)?,
        RemoveKind::Any => {}
    }
    require(is_empty(t, victim), FsError::NotEmpty)?;
    check_delegations(t, [(dir, Intrusion::Remove), (victim, Intrusion::Change)])?;

    t.data_changed(dir)?;
    take_name(t, dir, name, cookie)?;
    notices::removed(t, dir, name, cookie)?;
    drop_link(t, dir, victim)
}

/// An entry that is to go. Who may not search the directory, or could not remove what is there, does not learn what is not.
fn entry_to_take<K: KvWrite>(t: &Transaction<'_, K>, dir: At, name: &[u8]) -> Step<(Ino, Cookie)> {
    let attr = &t[dir].attr;
    require(permits(t.cred, attr, Perm::EXEC), FsError::AccessDenied)?;
    match store::dirent(t.kv, attr.ino, name)? {
        Some(entry) => Ok(entry),
        None if may_delete_child(t.cred, attr) => Err(FsError::NotFound.into()),
        None => Err(FsError::AccessDenied.into()),
    }
}

fn check_unlink<K: KvWrite>(t: &Transaction<'_, K>, dir: At, victim: At) -> Result<(), FsError> {
    match may_unlink(t.cred, &t[dir].attr, &t[victim].attr) {
        Unlink::Allowed => Ok(()),
        Unlink::Forbidden => Err(FsError::AccessDenied),
        Unlink::Sticky => Err(FsError::NotOwner),
    }
}

/// That nobody else's delegations are against any of these changes.
fn check_delegations<K: KvWrite>(
    t: &Transaction<'_, K>,
    changes: impl IntoIterator<Item = (At, Intrusion)>,
) -> Step<()> {
    changes.into_iter().try_for_each(|(at, intrusion)| delegations::check(t, at, intrusion))
}

/// Whether it is no directory with entries.
fn is_empty<K: KvWrite>(t: &Transaction<'_, K>, at: At) -> bool {
    t[at].dir.as_ref().is_none_or(|dir| dir.entries == 0)
}

/// Takes an entry out of a directory whose times the caller has moved.
fn take_name<K: KvWrite>(t: &mut Transaction<'_, K>, dir: At, name: &Bytes, cookie: Cookie) -> Step<()> {
    let ino = t[dir].attr.ino;
    let record = t[dir].dir.as_mut().expect("a directory without its part");
    record.entries = record.entries.checked_sub(1).expect("a directory counts fewer entries than it has");
    store::delete_dirent(t.kv, ino, name, cookie)?;
    t.touch_name(ino, name);
    Ok(())
}

/// Takes away the link that an entry of `parent` was, and says whether the file stays without a name.
fn drop_link<K: KvWrite>(t: &mut Transaction<'_, K>, parent: At, at: At) -> Step<Outcome> {
    t.changed(at)?;
    if t[at].is_dir() {
        t[parent].attr.nlink -= 1;
        t[at].attr.nlink = 0;
    } else {
        t[at].attr.nlink -= 1;
    }
    if t[at].attr.nlink > 0 {
        return Ok(Outcome::Done);
    }
    // Nobody can do anything with a directory by a delegation of it.
    if !t[at].is_dir() && nfs4::states::any_of(t.kv, t[at].attr.ino)? {
        return Ok(Outcome::Unnamed);
    }
    destroy(t, at, RELEASE_ROWS_MAX)?;
    Ok(Outcome::Done)
}

/// Removes a file that lost its last name before, if the last of its states has just gone. One command can do this to many files, so
/// what is not small is left to Sweep.
pub(crate) fn closed<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino) -> Step<()> {
    match t.find(ino)? {
        Some(at) if t[at].attr.nlink == 0 && !nfs4::states::any_of(t.kv, ino)? => {
            destroy(t, at, CLOSED_ROWS_MAX)
        }
        _ => Ok(()),
    }
}

/// Removes an inode that has no name any more, and all that belongs to it; more than `rows` extents later.
fn destroy<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, rows: usize) -> Step<()> {
    let ino = t[at].attr.ino;
    let key = keys::ino(ino);
    match t[at].attr.kind {
        FileKind::Regular => {
            super::lease::end(t, at)?;
            locks::drop_file(t, ino)?;
            extents::release_all(t, at, rows)?;
        }
        FileKind::Symlink => t.kv.delete(Table::Symlink, &key)?,
        _ => {}
    }
    if t[at].xattrs > 0 {
        let mut rows = Vec::new();
        store::each_key_prefixed(t.kv, Table::Xattr, &key, |row| {
            rows.push(row.to_vec());
            ControlFlow::Continue(())
        })?;
        for row in rows {
            t.kv.delete(Table::Xattr, &row)?;
        }
    }
    t.vanish(at);
    Ok(())
}

/// RENAME.
pub(crate) fn rename<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    (from_dir, from_name): (Ino, &Bytes),
    (to_dir, to_name): (Ino, &Bytes),
) -> Step<Outcome> {
    let from = t.load(from_dir)?;
    let to = t.load(to_dir)?;
    require(t[from].is_dir() && t[to].is_dir(), FsError::NotDirectory)?;
    names::check(from_name, FsError::Invalid)?;
    names::check(to_name, FsError::Invalid)?;
    require(permits(t.cred, &t[from].attr, Perm::EXEC), FsError::AccessDenied)?;
    let entry = store::dirent(t.kv, from_dir, from_name)?;
    let moved = entry.map(|(ino, _)| t.follow(ino, "a directory entry")).transpose()?;
    check_move(t, from, to, moved)?;
    require(t[from].attr.volume == t[to].attr.volume, FsError::CrossVolume)?;
    let ((ino, cookie), moved) = entry.zip(moved).ok_or(FsError::NotFound)?;
    t.report(moved);
    let target = match store::dirent(t.kv, to_dir, to_name)? {
        Some((target, _)) if target == ino => return Ok(Outcome::Done),
        Some((target, cookie)) => {
            let victim = t.follow(target, "a directory entry")?;
            t.report(victim);
            Some((victim, cookie))
        }
        None => None,
    };
    let victim = target.map(|(victim, _)| victim);
    check_rename(t, from, to, moved, victim)?;
    let (away, here) =
        if from == to { (Intrusion::Rename, Intrusion::Rename) } else { (Intrusion::Remove, Intrusion::Add) };
    check_delegations(t, [(from, away), (to, here)])?;
    check_delegations(t, [moved].into_iter().chain(victim).map(|at| (at, Intrusion::Change)))?;

    t.data_changed(from)?;
    t.data_changed(to)?;
    t.changed(moved)?;
    take_name(t, from, from_name, cookie)?;
    let mut outcome = Outcome::Done;
    let new_cookie = match target {
        None => add_name(t, to, to_name, ino)?,
        Some((victim, cookie)) => {
            store::put_dirent(t.kv, to_dir, to_name, ino, cookie)?;
            t.touch_name(to_dir, to_name);
            outcome = drop_link(t, to, victim)?;
            cookie
        }
    };
    if from == to {
        notices::renamed(t, to, (from_name, cookie), (to_name, new_cookie), target.is_some())?;
    } else {
        notices::removed(t, from, from_name, cookie)?;
        notices::added(t, to, to_name, new_cookie, target.is_some())?;
    }
    if t[moved].is_dir() && from != to {
        t[from].attr.nlink -= 1;
        t[to].attr.nlink += 1;
        t[moved].dir.as_mut().expect("a directory without its part").parent = to_dir;
    }
    Ok(outcome)
}

/// Whether the directories let the caller move an entry from one to the other, or would, were it there; but for the sticky bit.
fn check_move<K: KvWrite>(
    t: &Transaction<'_, K>,
    from: At,
    to: At,
    moved: Option<At>,
) -> Result<(), FsError> {
    let adds = |is_dir| permits(t.cred, &t[to].attr, Perm::to_add(is_dir));
    let may = match moved {
        Some(moved) => {
            let unlink = may_unlink(t.cred, &t[from].attr, &t[moved].attr);
            unlink != Unlink::Forbidden && adds(t[moved].is_dir())
        }
        None => may_delete_child(t.cred, &t[from].attr) && (adds(false) || adds(true)),
    };
    require(may, FsError::AccessDenied)
}

fn check_rename<K: KvWrite>(
    t: &Transaction<'_, K>,
    from: At,
    to: At,
    moved: At,
    victim: Option<At>,
) -> Step<()> {
    let is_dir = t[moved].is_dir();
    if is_dir && from != to {
        require(!is_within(t, to, t[moved].attr.ino)?, FsError::Invalid)?;
    }
    check_unlink(t, from, moved)?;
    if let Some(victim) = victim {
        check_unlink(t, to, victim)?;
        match (is_dir, t[victim].is_dir()) {
            (true, false) => return Err(FsError::NotDirectory.into()),
            (false, true) => return Err(FsError::IsDirectory.into()),
            _ => require(is_empty(t, victim), FsError::NotEmpty)?,
        }
    }
    if is_dir && from != to {
        require(permits(t.cred, &t[moved].attr, Perm::WRITE), FsError::AccessDenied)?;
        let room = t[to].attr.nlink < LINK_MAX || victim.is_some();
        require(room, FsError::TooManyLinks)?;
    }
    Ok(())
}

/// Whether `dir` is `ancestor` or below it.
fn is_within<K: KvWrite>(t: &Transaction<'_, K>, dir: At, ancestor: Ino) -> Step<bool> {
    let broken =
        |ino: Ino| Stop::Store(kv::KvError::Failed(format!("directory {ino}, a parent, does not exist")));
    let mut ino = t[dir].attr.ino;
    let mut parent = t[dir].dir.as_ref().map_or(ino, |d| d.parent);
    for _ in 0..DEPTH_MAX {
        if ino == ancestor {
            return Ok(true);
        }
        if parent == ino {
            return Ok(false);
        }
        ino = parent;
        parent = store::inode(t.kv, ino)?.and_then(|i| i.dir).ok_or_else(|| broken(ino))?.parent;
    }
    // Deeper than anything that can be named: refused as if it were a circle.
    Ok(true)
}
