//! Limits that more than one crate must agree on, each with its reason.

/// Longest name of a directory entry in bytes: what Linux, macOS and Windows clients accept (NAME_MAX).
pub const NAME_MAX: usize = 255;

/// Longest symbolic link target in bytes (PATH_MAX less its NUL).
pub const SYMLINK_MAX: usize = 4095;

/// Largest file size in bytes: what a signed `off_t` can address.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;

/// Most links to one inode. POSIX wants a bound; 32 bits of link count, kept well below.
pub const LINK_MAX: u32 = 1_000_000;

/// Largest READ or WRITE payload in bytes (`rtmax`, `wtmax`).
pub const IO_MAX: u32 = 1 << 20;

/// Largest immutable block in bytes.
pub const BLOCK_MAX: u32 = 4 << 20;

/// Data up to this many bytes ride inside the metadata command instead of taking a block-store round trip.
pub const INLINE_WRITE_MAX: usize = 64 << 10;

/// Supplementary groups that one credential may carry into a command: what Linux allows a process (NGROUPS_MAX
/// is 65536; a server-side look-up returns far fewer in practice, and the command must stay small).
pub const GROUPS_MAX: usize = 1024;

/// Longest extended attribute name in bytes (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_MAX: usize = 255;

/// Largest extended attribute value in bytes (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_MAX: usize = 64 << 10;

/// Largest security label in bytes: what Linux clients read (below NFS4_MAXLABELLEN).
pub const LABEL_MAX: usize = 2047;

/// Most bytes of all extended attributes of one inode (Linux XATTR_LIST_MAX for names; here names and values).
pub const XATTR_TOTAL_MAX: usize = 256 << 10;
