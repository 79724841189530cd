//! SETATTR (RFC 1813 §3.3.2), access times, extended attributes (RFC 8276).
//!
//! SETATTR follows Linux (`setattr_prepare`, `chown_common`, `setattr_should_drop_sgid`; fs/nfsd/vfs.c): a change of owner
//! or group takes set-uid and set-gid from what is no directory, whoever makes it, before a mode in the same call is
//! set; a mode set by who is not in the file's group loses set-gid; a mode for a symbolic link is passed over;
//! explicit times are the owner's, the server's time also of who may write. A call that sets nothing changes nothing.

use super::data;
use super::nfs4::delegations;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{TOUCH_MAX, XATTR_COMPARED_MAX, XATTRS_MAX};
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, store};
use atoll_base::access::{Perm, may_take, may_write_acl, may_write_attributes, permits};
use atoll_base::acl::change::SetMode;
use atoll_base::acl::{self, Acl, AclError};
use atoll_base::attr::{FileKind, SetAttr, SetTime};
use atoll_base::id::Ino;
use atoll_base::label::Label;
use atoll_base::limits::{FILE_SIZE_MAX, LABEL_MAX, XATTR_NAME_MAX, XATTR_TOTAL_MAX, XATTR_VALUE_MAX};
use atoll_base::time::{NANOS_PER_SEC, Timestamp};
use atoll_meta::delegation::Intrusion;
use atoll_meta::{FsError, Outcome, XattrHow};
use bytes::Bytes;
use std::sync::Arc;

const SET_GID: u32 = 0o2000;
/// `(uid_t) -1`: "leave it" in chown(2), and no one's.
const NOBODY: u32 = u32::MAX;

pub(crate) fn is_time(time: Timestamp) -> bool {
    time.nanos < NANOS_PER_SEC
}

fn check_set<K: KvWrite>(t: &Transaction<'_, K>, at: At, set: &SetAttr) -> Result<(), FsError> {
    let (cred, attr) = (t.cred, &t[at].attr);
    let is_owner = cred.owns(attr);
    require(set.uid != Some(NOBODY) && set.gid != Some(NOBODY), FsError::Invalid)?;
    if let Some(size) = set.size {
        match attr.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(FsError::IsDirectory),
            _ => return Err(FsError::Invalid),
        }
        require(size <= FILE_SIZE_MAX, FsError::TooLarge)?;
        data::check_write_permission(t, at)?;
    }
    if let Some(uid) = set.uid {
        let may = is_owner && uid == attr.uid || uid == cred.uid && may_take(cred, attr);
        require(cred.is_superuser() || may, FsError::NotOwner)?;
    }
    if let Some(gid) = set.gid {
        let own = is_owner && gid == attr.gid;
        let may = own || cred.in_group(gid) && (is_owner || may_take(cred, attr));
        require(cred.is_superuser() || may, FsError::NotOwner)?;
    }
    let access = set.mode.is_some() || set.acl.is_some();
    require(!access || may_write_acl(cred, attr), FsError::NotOwner)?;
    require(set.acl.is_none() || attr.kind != FileKind::Symlink, FsError::NotSupported)?;
    check_label(set)?;
    require(set.label.is_none() || is_owner, FsError::NotOwner)?;
    require(set.btime.is_none_or(is_time), FsError::Invalid)?;
    require(set.btime.is_none() || is_owner, FsError::NotOwner)?;
    for time in [set.atime, set.mtime] {
        match time {
            SetTime::Keep => {}
            SetTime::Server => {
                let may = may_write_attributes(cred, attr) || permits(cred, attr, Perm::WRITE);
                require(may, FsError::AccessDenied)?;
            }
            SetTime::Client(time) => {
                require(is_time(time), FsError::Invalid)?;
                require(may_write_attributes(cred, attr), FsError::NotOwner)?;
            }
        }
    }
    Ok(())
}

/// Whether a label can be stored.
pub(super) fn check_label(set: &SetAttr) -> Result<(), FsError> {
    let len = set.label.as_ref().map_or(0, |label| label.data.len());
    require(len <= LABEL_MAX, FsError::Invalid)
}

/// A label as it is stored: an empty one is none.
pub(super) fn stored(label: Option<&Label>) -> Option<Arc<Label>> {
    label.filter(|label| !label.data.is_empty()).cloned().map(Arc::new)
}

/// How a list is refused that cannot be set.
pub(super) fn refusal(error: AclError) -> FsError {
    match error {
        AclError::Invalid => FsError::Invalid,
        AclError::TooLong => FsError::NoSpace,
    }
}

/// Mode and access control list after a SETATTR.
struct Access {
    mode: u32,
    /// Bits of the mode that were given.
    given: u32,
    acl: Option<Arc<Acl>>,
}

/// What this caller makes of mode and access control list. Bits that would lend the owner's identity to others are the owner's to set.
fn access<K: KvWrite>(t: &Transaction<'_, K>, at: At, set: &SetAttr) -> Result<Option<Access>, FsError> {
    if set.mode.is_none() && set.acl.is_none() {
        return Ok(None);
    }
    let attr = &t[at].attr;
    let mask = set.mode_mask.unwrap_or(0o7777) & 0o7777;
    let mask = if t.cred.owns(attr) { mask } else { mask & 0o777 };
    let mode = set.mode.map(|mode| SetMode { mode, mask });
    let is_dir = attr.kind == FileKind::Directory;
    let (after, acl) = acl::change::changed(attr.acl.as_deref(), attr.mode, is_dir, mode, set.acl.as_deref())
        .map_err(refusal)?;
    let given = mode.map_or(0, |set| set.mask);
    Ok(Some(Access { mode: after, given, acl: acl.map(Arc::new) }))
}

/// SETATTR.
pub(crate) fn set<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    generation: u32,
    set: &SetAttr,
    guard: Option<Timestamp>,
) -> Step<Outcome> {
    let at = t.load_generation(ino, generation)?;
    require(guard.is_none_or(|ctime| t[at].attr.ctime == ctime), FsError::NotSync)?;
    let mut set = set.clone();
    if t[at].attr.kind == FileKind::Symlink {
        set.mode = None;
    }
    if set.is_empty() {
        return Ok(Outcome::Done);
    }
    check_set(t, at, &set)?;
    let access = access(t, at, &set)?;
    delegations::check(t, at, Intrusion::Change)?;
    if let Some(size) = set.size {
        data::set_size(t, at, size)?;
    }

    let ctime = t.changed(at)?;
    if let Some(file) = &mut t[at].file {
        file.verifier = None;
    }
    let cred = t.cred;
    let attr = &mut t[at].attr;
    let former_mode = attr.mode;
    if set.uid.is_some() || set.gid.is_some() {
        if attr.kind != FileKind::Directory {
            attr.mode = data::without_privileges(attr.mode);
            if !cred.is_superuser() && !cred.in_group(attr.gid) {
                attr.mode &= !SET_GID;
            }
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
    }
    if set.size.is_some() {
        attr.mode = data::mode_after_write(cred, attr.mode);
        attr.mtime = ctime;
    }
    if let Some(access) = access {
        let lost = former_mode & !attr.mode & !access.given;
        attr.mode = access.mode & !lost;
        attr.acl = access.acl;
        if !cred.is_superuser() && !cred.in_group(attr.gid) {
            attr.mode &= !SET_GID;
        }
    }
    let time = |set, now| match set {
        SetTime::Keep => now,
        SetTime::Server => ctime,
        SetTime::Client(time) => time,
    };
    attr.atime = time(set.atime, attr.atime);
    attr.mtime = time(set.mtime, attr.mtime);
    attr.btime = set.btime.unwrap_or(attr.btime);
    if set.label.is_some() {
        attr.label = stored(set.label.as_deref());
    }
    Ok(Outcome::Done)
}

/// Access times.
pub(crate) fn touch<K: KvWrite>(t: &mut Transaction<'_, K>, times: &[(Ino, Timestamp)]) -> Step<Outcome> {
    require(times.len() <= TOUCH_MAX, FsError::Invalid)?;
    require(times.iter().all(|(_, time)| is_time(*time)), FsError::Invalid)?;
    for (ino, time) in times {
        let Some(mut inode) = store::inode(t.kv, *ino)? else { continue };
        if *time > inode.attr.atime {
            inode.attr.atime = *time;
            store::put_inode(t.kv, &inode)?;
            t.touch(*ino);
        }
    }
    Ok(Outcome::Done)
}

/// Length of an extended attribute, if it is there, and whether `value` is known to be the same. What is too long to be compared is replaced unseen,
/// and may be damaged: caches are then invalidated more often than need be (RFC 8276 §8.4.2.3), but on every member.
pub(crate) fn former_xattr(
    kv: &impl KvRead,
    key: &[u8],
    value: Option<&Bytes>,
) -> Result<Option<(usize, bool)>, KvError> {
    let Some(len) = kv.value_len(Table::Xattr, key)? else { return Ok(None) };
    let same = match value {
        Some(value) if value.len() == len && len <= XATTR_COMPARED_MAX => {
            kv.get(Table::Xattr, key, |former| former == Some(&value[..]))?
        }
        _ => false,
    };
    Ok(Some((len, same)))
}

/// Sets or removes an extended attribute. As Linux's `user.` attributes: of regular files and directories only, with permission
/// to write; of a sticky directory by its owner only.
pub(crate) fn set_xattr<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    generation: u32,
    name: &Bytes,
    value: Option<&Bytes>,
    how: XattrHow,
) -> Step<Outcome> {
    let at = t.load_generation(ino, generation)?;
    require(name.len() <= XATTR_NAME_MAX, FsError::NameTooLong)?;
    require(!name.is_empty() && !name.contains(&0), FsError::Invalid)?;
    let attr = &t[at].attr;
    require(matches!(attr.kind, FileKind::Regular | FileKind::Directory), FsError::NotOwner)?;
    let sticky = attr.kind == FileKind::Directory && attr.mode & 0o1000 != 0;
    require(!sticky || t.cred.owns(attr), FsError::NotOwner)?;
    require(permits(t.cred, attr, Perm::WRITE), FsError::AccessDenied)?;
    let key = keys::named(ino, name);
    let former = former_xattr(t.kv, &key, value)?;
    match how {
        XattrHow::Either => {}
        XattrHow::Create => require(former.is_none(), FsError::Exists)?,
        XattrHow::Replace => require(former.is_some(), FsError::NoXattr)?,
    }
    let cost = |value: usize| (name.len() + value) as u32;
    let (count, bytes) = match former {
        // RFC 8276 §8.4.2.3: what caches hold stays right.
        Some((_, true)) => return Ok(Outcome::Done),
        Some((len, false)) => (t[at].xattrs - 1, t[at].xattr_bytes - cost(len)),
        None => (t[at].xattrs, t[at].xattr_bytes),
    };
    match value {
        None => {
            require(former.is_some(), FsError::NoXattr)?;
            delegations::check(t, at, Intrusion::Change)?;
            t.changed(at)?;
            t.kv.delete(Table::Xattr, &key)?;
            t[at].xattrs = count;
            t[at].xattr_bytes = bytes;
        }
        Some(value) => {
            require(value.len() <= XATTR_VALUE_MAX, FsError::TooLarge)?;
            let total = bytes + cost(value.len());
            // The size of all together is a size, too (§8.3.2).
            require(total as usize <= XATTR_TOTAL_MAX, FsError::TooLarge)?;
            require(count < XATTRS_MAX, FsError::NoSpace)?;
            delegations::check(t, at, Intrusion::Change)?;
            t.changed(at)?;
            t.kv.put(Table::Xattr, &key, value)?;
            t[at].xattrs = count + 1;
            t[at].xattr_bytes = total;
        }
    }
    Ok(Outcome::Done)
}
