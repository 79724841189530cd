//! What writes and truncations have in common.

use crate::extents;
use crate::kv::KvWrite;
use crate::transaction::{At, Step, Transaction, require};
use atoll_base::access::{Perm, may_write, permits};
use atoll_base::attr::FileKind;
use atoll_base::limits::FILE_SIZE_MAX;
use atoll_meta::FsError;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;

/// Permission to change a file's data: by its mode bits, or for its owner, who may have opened it before he took the bits
/// away (as NFS servers grant, RFC 1813 §4.4).
pub(crate) fn check_write_permission<K: KvWrite>(t: &Transaction<'_, K>, at: At) -> Result<(), FsError> {
    let attr = &t[at].attr;
    require(permits(t.cred, attr, Perm::WRITE) || t.cred.owns(attr), FsError::AccessDenied)
}

/// Permission to put data at an offset: behind the end it takes less than elsewhere.
pub(crate) fn check_write_at<K: KvWrite>(t: &Transaction<'_, K>, at: At, offset: u64) -> Result<(), FsError> {
    let attr = &t[at].attr;
    require(t.cred.owns(attr) || may_write(t.cred, attr, offset), FsError::AccessDenied)
}

/// Permission to add data at the end, at least.
pub(crate) fn check_append_permission<K: KvWrite>(t: &Transaction<'_, K>, at: At) -> Result<(), FsError> {
    check_write_at(t, at, u64::MAX)
}

/// The mode without what a change of data by this caller takes away: set-uid, and set-gid if the group may execute
/// (without that it marks mandatory locking, not privilege).
pub(crate) fn mode_after_write(cred: &atoll_base::access::Cred, mode: u32) -> u32 {
    if cred.is_superuser() { mode } else { without_privileges(mode) }
}

/// The mode without set-uid, and without set-gid if the group may execute.
pub(crate) fn without_privileges(mode: u32) -> u32 {
    let set_gid = if mode & GROUP_EXEC != 0 { SET_GID } else { 0 };
    mode & !(SET_UID | set_gid)
}

/// Notes that this caller has changed a file's data.
pub(crate) fn data_written<K: KvWrite>(t: &mut Transaction<'_, K>, at: At) -> Step<()> {
    t.data_changed(at)?;
    let mode = mode_after_write(t.cred, t[at].attr.mode);
    t[at].attr.mode = mode;
    Ok(())
}

/// Truncates or extends. Permission and times are the caller's business. May refuse, having changed nothing.
pub(crate) fn set_size<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, size: u64) -> Step<()> {
    match t[at].attr.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(FsError::IsDirectory.into()),
        _ => return Err(FsError::Invalid.into()),
    }
    require(size <= FILE_SIZE_MAX, FsError::TooLarge)?;
    if size < t[at].attr.size {
        extents::truncate(t, at, size)?;
    }
    t[at].attr.size = size;
    Ok(())
}
