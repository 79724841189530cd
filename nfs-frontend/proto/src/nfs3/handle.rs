//! File handles (RFC 1813 §2.3.3).

use crate::handle::Handle;

/// Longest handle in bytes (`NFS3_FHSIZE`).
pub const MAX_HANDLE: usize = 64;

/// `nfs_fh3`.
pub type FileHandle = Handle<MAX_HANDLE>;

/// `post_op_fh3`.
pub type PostOpHandle = Option<FileHandle>;
