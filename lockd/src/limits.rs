//! Every bound of the tables, with its reason. Reaching one is [`crate::LockError::TooMany`] (NLM4_DENIED_NOLOCKS,
//! NFS4ERR_RESOURCE / NFS4ERR_DELAY), never an eviction: a lock once granted is never dropped to make room.

/// Longest NLM `caller_name`: LM_MAXSTRLEN of the protocol (RFC 1813 §6.1.2).
pub const MAX_CALLER_NAME: usize = 1024;

/// Longest NLM `oh` (a `netobj`, RFC 1813 §6.1.2 MAXNETOBJ_SZ) and v4 lock-owner (NFS4_OPAQUE_LIMIT, RFC 7530 §2.2).
pub const MAX_OWNER_OPAQUE: usize = 1024;

/// Longest stored owner: the opaque of the protocol and the 4 bytes of NLM's `svid`.
pub const MAX_OWNER_BYTES: usize = MAX_OWNER_OPAQUE + 4;

/// Longest callback description of a waiter: netid, address, program version, a file handle (≤ 64 bytes, RFC 1813 §2.4)
/// and a cookie (`netobj`, ≤ 1024 bytes) fit.
pub const MAX_CALLBACK_BYTES: usize = 1280;

/// Byte ranges held in one file by all owners. One file's record is loaded and stored whole: this keeps it below
/// about 200 KiB of ranges. (Databases that lock records hold some hundreds.) What can't be refused any more, granting a
/// queued request and acknowledging a grant, may exceed it, by some ranges per request of [`MAX_WAITERS_PER_OWNER`].
pub const MAX_RANGES_PER_FILE: usize = 8192;

/// Byte ranges held in one file by one owner: one process can't use up the file's share.
pub const MAX_RANGES_PER_OWNER: usize = 4096;

/// Blocked requests in one file, and grants whose callback is not acknowledged: more than the number of clients anyone mounts with, small enough that the
/// scan after an unlock stays cheap (1000 requests that wait for the same bytes: 0.1 ms).
pub const MAX_WAITERS_PER_FILE: usize = 1024;

/// Blocked requests and unacknowledged grants of one owner in one file: one per thread of a process that waits.
pub const MAX_WAITERS_PER_OWNER: usize = 64;

/// Share reservations of NLM in one file: one per open of a client's process.
pub const MAX_SHARES_PER_FILE: usize = 4096;

/// Opens of NFSv4 in one file. They are only counted here; the bound is for who goes through all of them, and to keep sums in 32 bits.
pub const MAX_OPENS_PER_FILE: u32 = 1 << 20;

/// Bytes of names (callers, owners, callbacks) in one file's record. The other bounds times the longest names would be
/// many megabytes that every operation on the file loads and stores; real names are some tens of bytes.
pub const MAX_IDENTITY_BYTES: usize = 1 << 20;
