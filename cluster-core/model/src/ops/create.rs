//! CREATE, MKDIR, SYMLINK, MKNOD (RFC 1813 §3.3.8 to §3.3.11), with the checks of Linux (`may_create`, `inode_init_owner`,
//! `mode_strip_sgid`; fs/nfsd/nfs3proc.c):
//!
//! - search permission on the directory, then whether the name exists, then permission to write;
//! - of the initial attributes, owner and group are taken from the superuser only and otherwise passed over; the
//!   group of a set-gid directory goes to what is made in it, and its set-gid bit to directories;
//! - without a mode: 0600, of directories 0700; of symbolic links always 0777;
//! - what the directory's access control list passes on is inherited ([`atoll_base::acl::created`]);
//! - devices are for the superuser only.

use super::attributes::{check_label, refusal, stored};
use super::nfs4::{delegations, notices};
use super::{data, names};
use crate::kv::{KvWrite, Table};
use crate::limits::DIRECTORY_SIZE;
use crate::record::{Dir, File, Inode};
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, store};
use atoll_base::access::{Perm, permits};
use atoll_base::acl::{self, Acl, change::Creation};
use atoll_base::attr::{Attr, Delegated, Device, FileKind, SetAttr, SetTime};
use atoll_base::id::{Cookie, Ino};
use atoll_base::limits::{FILE_SIZE_MAX, LINK_MAX, SYMLINK_MAX};
use atoll_base::time::Timestamp;
use atoll_meta::delegation::Intrusion;
use atoll_meta::{CreateHow, FsError, NewNode, Outcome};
use bytes::Bytes;
use std::sync::Arc;

const SET_GID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;

/// What is to be made, checked as far as it can be without the directory.
struct Plan<'a> {
    kind: FileKind,
    device: Device,
    target: Option<&'a Bytes>,
    default_mode: u32,
}

fn plan(node: &NewNode) -> Result<Plan<'_>, FsError> {
    let plan = |kind, default_mode| Plan { kind, device: Device::default(), target: None, default_mode };
    Ok(match node {
        NewNode::Regular => plan(FileKind::Regular, 0o600),
        NewNode::Directory => plan(FileKind::Directory, 0o700),
        NewNode::Symlink(target) => {
            require(!target.is_empty(), FsError::NotFound)?;
            require(target.len() <= SYMLINK_MAX, FsError::NameTooLong)?;
            require(!target.contains(&0), FsError::Invalid)?;
            Plan { target: Some(target), ..plan(FileKind::Symlink, 0o777) }
        }
        NewNode::Special(kind @ (FileKind::BlockDevice | FileKind::CharDevice), device) => {
            Plan { device: *device, ..plan(*kind, 0o600) }
        }
        NewNode::Special(kind @ (FileKind::Fifo | FileKind::Socket), _) => plan(*kind, 0o600),
        NewNode::Special(FileKind::Regular | FileKind::Directory | FileKind::Symlink, _) => {
            return Err(FsError::Invalid);
        }
    })
}

/// Makes an inode and its name, or finds that it is there.
pub(crate) fn create<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: Ino,
    name: &Bytes,
    node: &NewNode,
    how: CreateHow,
    attrs: &SetAttr,
) -> Step<Outcome> {
    let plan = plan(node)?;
    check_label(attrs)?;
    let dir = t.load_dir(dir)?;
    names::check(name, FsError::Exists)?;
    let is_file = plan.kind == FileKind::Regular;
    require(is_file || how == CreateHow::Guarded, FsError::Invalid)?;
    require(permits(t.cred, &t[dir].attr, Perm::EXEC), FsError::AccessDenied)?;
    if let Some((ino, _)) = store::dirent(t.kv, t[dir].attr.ino, name)? {
        let at = t.follow(ino, "a directory entry")?;
        return existing(t, at, how, attrs);
    }
    let is_dir = plan.kind == FileKind::Directory;
    require(permits(t.cred, &t[dir].attr, Perm::to_add(is_dir)), FsError::AccessDenied)?;
    let is_device = matches!(plan.kind, FileKind::BlockDevice | FileKind::CharDevice);
    require(!is_device || t.cred.is_superuser(), FsError::NotOwner)?;
    require(!is_dir || t[dir].attr.nlink < LINK_MAX, FsError::TooManyLinks)?;
    let size = attrs.size.unwrap_or(0);
    require(!is_file || size <= FILE_SIZE_MAX, FsError::TooLarge)?;
    let access = access(t, dir, &plan, how, attrs)?;
    delegations::check(t, dir, Intrusion::Add)?;

    // Nothing refuses from here on.
    let now = t.data_changed(dir).map(|()| t[dir].attr.ctime)?;
    let inode = new_inode(t, dir, &plan, how, attrs, access, now);
    let attr = inode.attr.clone();
    t.add(inode);
    if let Some(target) = plan.target {
        t.kv.put(Table::Symlink, &keys::ino(attr.ino), target)?;
    }
    if is_dir {
        t[dir].attr.nlink += 1;
    }
    let cookie = add_name(t, dir, name, attr.ino)?;
    notices::added(t, dir, name, cookie, false)?;
    Ok(Outcome::Created { attr, new: true })
}

/// Adds an entry to a directory whose times the caller has moved; who is told of it is told by the caller.
pub(crate) fn add_name<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: At,
    name: &Bytes,
    ino: Ino,
) -> Step<Cookie> {
    let dir_ino = t[dir].attr.ino;
    let record = t[dir].dir.as_mut().expect("a directory without its part");
    let cookie = Cookie(record.next_cookie);
    record.next_cookie += 1;
    record.entries += 1;
    store::put_dirent(t.kv, dir_ino, name, ino, cookie)?;
    t.touch_name(dir_ino, name);
    Ok(cookie)
}

fn existing<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    at: At,
    how: CreateHow,
    attrs: &SetAttr,
) -> Step<Outcome> {
    require(t[at].attr.kind == FileKind::Regular, FsError::Exists)?;
    match how {
        CreateHow::Guarded => return Err(FsError::Exists.into()),
        CreateHow::Exclusive(verifier) => {
            require(t.file(at).verifier == Some(verifier), FsError::Exists)?;
        }
        CreateHow::Unchecked => {
            if let Some(size) = attrs.size {
                data::check_write_permission(t, at)?;
                delegations::check(t, at, Intrusion::Change)?;
                data::set_size(t, at, size)?;
                data::data_written(t, at)?;
            }
        }
    }
    Ok(Outcome::Created { attr: t[at].attr.clone(), new: false })
}

/// Mode and access control list of a new inode.
fn access<K: KvWrite>(
    t: &Transaction<'_, K>,
    dir: At,
    plan: &Plan<'_>,
    how: CreateHow,
    attrs: &SetAttr,
) -> Result<(u32, Option<Acl>), FsError> {
    if plan.kind == FileKind::Symlink {
        return Ok((0o777, None));
    }
    let new = Creation {
        is_dir: plan.kind == FileKind::Directory,
        mode: attrs.mode.map(|mode| mode & 0o7777),
        default_mode: plan.default_mode,
        umask: attrs.umask,
        acl: attrs.acl.as_deref(),
        exclusive: matches!(how, CreateHow::Exclusive(_)),
    };
    acl::created(t[dir].attr.acl.as_deref(), new).map_err(refusal)
}

fn new_inode<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: At,
    plan: &Plan<'_>,
    how: CreateHow,
    attrs: &SetAttr,
    (mut mode, acl): (u32, Option<Acl>),
    now: Timestamp,
) -> Inode {
    let parent = t[dir].attr.clone();
    let (ino, generation) = t.model.new_ino(t.txn);
    let superuser = t.cred.is_superuser();
    let inherits = parent.mode & SET_GID != 0;
    let uid = attrs.uid.filter(|_| superuser).unwrap_or(t.cred.uid);
    let default_gid = if inherits { parent.gid } else { t.cred.gid };
    let gid = attrs.gid.filter(|_| superuser).unwrap_or(default_gid);
    match plan.kind {
        FileKind::Symlink => {}
        FileKind::Directory if inherits => mode |= SET_GID,
        FileKind::Directory => {}
        _ => {
            let foreign = inherits && !superuser && !t.cred.in_group(gid);
            if foreign && mode & (SET_GID | GROUP_EXEC) == SET_GID | GROUP_EXEC {
                mode &= !SET_GID;
            }
        }
    }
    let time = |set| match set {
        SetTime::Client(time) => time,
        SetTime::Keep | SetTime::Server => now,
    };
    let is_dir = plan.kind == FileKind::Directory;
    let is_file = plan.kind == FileKind::Regular;
    let size = match plan.kind {
        FileKind::Regular => attrs.size.unwrap_or(0),
        FileKind::Directory => DIRECTORY_SIZE,
        FileKind::Symlink => plan.target.map_or(0, |target| target.len() as u64),
        _ => 0,
    };
    let attr = Attr {
        ino,
        volume: parent.volume,
        generation,
        kind: plan.kind,
        mode,
        nlink: if is_dir { 2 } else { 1 },
        uid,
        gid,
        size,
        used: 0,
        device: plan.device,
        atime: time(attrs.atime),
        mtime: time(attrs.mtime),
        ctime: now,
        btime: attrs.btime.unwrap_or(now),
        change: 1,
        acl: acl.map(Arc::new),
        label: stored(attrs.label.as_deref()),
        delegated: Delegated::No,
    };
    let verifier = match how {
        CreateHow::Exclusive(verifier) => Some(verifier),
        CreateHow::Unchecked | CreateHow::Guarded => None,
    };
    Inode {
        attr,
        dir: is_dir.then_some(Dir { parent: parent.ino, next_cookie: Cookie::FIRST_ENTRY.0, entries: 0 }),
        file: is_file.then(|| File { verifier, ..File::default() }),
        xattrs: 0,
        xattr_bytes: 0,
        acl: false,
        label: false,
    }
}
