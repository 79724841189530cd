//! Why an operation on the file system was refused.
//!
//! The terms are POSIX's; each protocol version maps them to its own status in one place of its own.

use serde::{Deserialize, Serialize};

/// A refusal. Part of stored outcomes: append variants, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum FsError {
    /// Not the owner (EPERM).
    #[error("operation not permitted")]
    NotOwner,
    /// No such entry (ENOENT).
    #[error("no such file or directory")]
    NotFound,
    /// A disk or a block failed (EIO).
    #[error("input/output error")]
    Io,
    /// Mode bits or ACL forbid it (EACCES).
    #[error("permission denied")]
    AccessDenied,
    /// The name exists (EEXIST).
    #[error("file exists")]
    Exists,
    /// Across volumes (EXDEV).
    #[error("cross-volume link or rename")]
    CrossVolume,
    /// A component that must be a directory is not (ENOTDIR).
    #[error("not a directory")]
    NotDirectory,
    /// A directory where none may be (EISDIR).
    #[error("is a directory")]
    IsDirectory,
    /// An argument makes no sense (EINVAL).
    #[error("invalid argument")]
    Invalid,
    /// Beyond the largest file size (EFBIG).
    #[error("file too large")]
    TooLarge,
    /// No room for new data or metadata (ENOSPC).
    #[error("no space left")]
    NoSpace,
    /// Exported or mounted read-only (EROFS).
    #[error("read-only file system")]
    ReadOnly,
    /// Too many links to the inode (EMLINK).
    #[error("too many links")]
    TooManyLinks,
    /// Name or symlink target too long (ENAMETOOLONG).
    #[error("name too long")]
    NameTooLong,
    /// Directory not empty (ENOTEMPTY).
    #[error("directory not empty")]
    NotEmpty,
    /// Quota exceeded (EDQUOT).
    #[error("quota exceeded")]
    QuotaExceeded,
    /// The inode is gone, or the handle names another generation (ESTALE).
    #[error("stale file handle")]
    Stale,
    /// SETATTR's guard did not match (NFS3ERR_NOT_SYNC).
    #[error("the object changed since the guard was read")]
    NotSync,
    /// The type does not fit the operation (e.g. data of a fifo).
    #[error("wrong type of file for the operation")]
    WrongType,
    /// Not supported.
    #[error("operation not supported")]
    NotSupported,
    /// Cannot be answered right now; the client should try again (NFS3ERR_JUKEBOX, NFS4ERR_DELAY).
    #[error("temporarily unavailable")]
    Delay,
    /// The sending frontend's epoch is over: it must drop what it holds and register again.
    #[error("the frontend was fenced")]
    Fenced,
    /// A table that bounds memory is full (locks, waiters, exports).
    #[error("too many records of this kind")]
    TableFull,
    /// What a repack or a conditional change expected was no longer there; nothing changed.
    #[error("changed meanwhile")]
    Conflict,
    /// Waiting for the lock would close a circle of waiting owners (EDEADLK).
    #[error("deadlock")]
    Deadlock,
    /// No such extended attribute (ENODATA).
    #[error("no such attribute")]
    NoXattr,
    /// A refusal that only NFSv4 knows.
    #[error(transparent)]
    State(#[from] crate::nfs4::StateError),
}
