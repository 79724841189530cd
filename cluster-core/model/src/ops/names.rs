//! Names of directory entries.

use atoll_base::limits::NAME_MAX;
use atoll_meta::FsError;

/// What `.` and `..` are refused with, which differs by operation (fs/nfsd/vfs.c of Linux).
pub(crate) fn check(name: &[u8], dots: FsError) -> Result<(), FsError> {
    if name.len() > NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(FsError::Invalid);
    }
    if name == b"." || name == b".." {
        return Err(dots);
    }
    Ok(())
}
