//! What goes into the table and what comes out of it: requests, outcomes, errors, effects.

use serde::{Deserialize, Serialize};

use crate::byte_ranges::LockMode;
use crate::owner::{Callback, LockOwner};
use crate::owner_locks::GrantId;
use crate::range::ByteRange;

/// A request for a byte-range lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRequest {
    /// Who asks.
    pub owner: LockOwner,
    /// The bytes.
    pub range: ByteRange,
    /// Shared (read) or exclusive (write).
    pub mode: LockMode,
    /// What to do if it can't be granted now.
    pub wait: Wait,
}

/// What to do with a lock request that can't be granted now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Deny it (NLM `block` false; NFSv4 READ_LT, WRITE_LT).
    No,
    /// Queue it and call back when it has been granted (NLM `block` true; NFSv4 READW_LT, WRITEW_LT).
    Queue(Callback),
}

/// What became of a lock request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockOutcome {
    /// The owner holds the range in this mode.
    Granted,
    /// Not granted, not queued. The holder that stands in the way.
    Denied(Conflict),
    /// Queued (or was queued before: a retransmission does not queue twice). What stands in the way: a holder, or a
    /// request that waits longer.
    Blocked(Conflict),
}

/// A lock of another owner that a request conflicts with: held, or (only in [`LockOutcome::Blocked`]) asked for earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Whose it is.
    pub owner: LockOwner,
    /// Its whole range, not only the part in common.
    pub range: ByteRange,
    /// Its mode.
    pub mode: LockMode,
}

/// What became of a cancelled request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelOutcome {
    /// It waited, and is taken from the queue.
    Cancelled,
    /// It had been granted but the client has not acknowledged: the grant is undone, as by
    /// [`crate::FileLocks::release_grant`].
    GrantUndone,
    /// No such request waits (never queued, cancelled before, or granted and acknowledged: then the lock stays until
    /// it is unlocked).
    NotFound,
}

/// What became of an answer to a granted callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantOutcome {
    /// The grant was pending and is settled now.
    Settled,
    /// No such grant is pending (settled before, unlocked, cancelled, released): nothing changed.
    NotPending,
}

/// Something for the world outside that an operation on the table causes. Computed by every member, carried out
/// only by the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// A queued request has been granted: its owner holds the lock from now on. Tell the client (NLM GRANTED,
    /// CB_NOTIFY_LOCK) until it answers; a new leader finds what is still to be told in
    /// [`crate::FileLocks::pending_grants`].
    Granted {
        /// By what to acknowledge or refuse it.
        grant: GrantId,
        /// Who holds it now.
        owner: LockOwner,
        /// The range that was asked for.
        range: ByteRange,
        /// The mode that was asked for.
        mode: LockMode,
        /// How to reach the client.
        callback: Callback,
    },
}

/// Why the table refuses an operation without a conflict; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// A bound of [`crate::limits`] is reached (NLM4_DENIED_NOLOCKS; NFS4ERR_RESOURCE in v4.0, NFS4ERR_DELAY in v4.1).
    #[error("too many {0} (limit {limit})", limit = .0.limit())]
    TooMany(Bound),
    /// To wait would close a circle of owners that wait for each other in this file (NLM4_DEADLCK, NFS4ERR_DEADLOCK).
    #[error("waiting would be a deadlock")]
    Deadlock,
}

/// The bounds that an operation can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`crate::limits::MAX_RANGES_PER_FILE`]
    RangesPerFile,
    /// [`crate::limits::MAX_RANGES_PER_OWNER`]
    RangesPerOwner,
    /// [`crate::limits::MAX_WAITERS_PER_FILE`]
    WaitersPerFile,
    /// [`crate::limits::MAX_WAITERS_PER_OWNER`]
    WaitersPerOwner,
    /// [`crate::limits::MAX_SHARES_PER_FILE`]
    SharesPerFile,
    /// [`crate::limits::MAX_OPENS_PER_FILE`]
    OpensPerFile,
    /// [`crate::limits::MAX_IDENTITY_BYTES`]
    IdentityBytes,
}

impl Bound {
    /// Its value.
    pub const fn limit(self) -> usize {
        use crate::limits::*;
        match self {
            Self::RangesPerFile => MAX_RANGES_PER_FILE,
            Self::RangesPerOwner => MAX_RANGES_PER_OWNER,
            Self::WaitersPerFile => MAX_WAITERS_PER_FILE,
            Self::WaitersPerOwner => MAX_WAITERS_PER_OWNER,
            Self::SharesPerFile => MAX_SHARES_PER_FILE,
            Self::OpensPerFile => MAX_OPENS_PER_FILE as usize,
            Self::IdentityBytes => MAX_IDENTITY_BYTES,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RangesPerFile => "lock ranges in this file",
            Self::RangesPerOwner => "lock ranges of this owner",
            Self::WaitersPerFile => "blocked requests in this file",
            Self::WaitersPerOwner => "blocked requests of this owner",
            Self::SharesPerFile => "share reservations in this file",
            Self::OpensPerFile => "opens of this file",
            Self::IdentityBytes => "bytes of owner names in this file",
        })
    }
}

/// One byte range that an owner holds, for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLock<'a> {
    /// Who.
    pub owner: &'a LockOwner,
    /// Which bytes.
    pub range: ByteRange,
    /// How.
    pub mode: LockMode,
    /// Since when, at least the first of the bytes: seconds since 1970.
    pub since: i64,
}
