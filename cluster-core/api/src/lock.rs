//! Lock operations: lockd's tables, addressed by inode and carried by the log.

use atoll_base::id::Ino;
use atoll_lockd::{
    Callback, CancelOutcome, ClientMatch, GrantId, GrantOutcome, LockMode, LockOwner, LockRequest, Share,
    ShareConflict,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use atoll_lockd::{ByteRange, Conflict};

/// A change of lock state. Changes of the response: none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockOp {
    /// LOCK (NLM, NFSv4). Outcome: `Lock`.
    Lock {
        /// Regular file.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Owner, range, mode, and whether to wait.
        request: LockRequest,
        /// NSM state number that came with an NLM request; 0 if unknown. Remembered for the client, so that a late or
        /// repeated notification of an older reboot does not free locks of its present life.
        client_state: i32,
    },
    /// UNLOCK; unlocking what is not locked succeeds. Outcome: `Unlocked`.
    Unlock {
        /// File.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Owner.
        owner: LockOwner,
        /// Range.
        range: ByteRange,
    },
    /// NLM CANCEL of a blocked request. Outcome: `Cancel`.
    Cancel {
        /// File.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Owner.
        owner: LockOwner,
        /// Range as it was asked for.
        range: ByteRange,
        /// Mode as it was asked for.
        mode: LockMode,
    },
    /// The client's answer to a granted callback: taken, or refused (then the lock is given back). Outcome: `Settled`.
    Settle {
        /// File.
        ino: Ino,
        /// Which grant.
        grant: GrantId,
        /// Whether the client took it.
        accepted: bool,
    },
    /// NLM SHARE; the owner's former reservation is replaced. Outcome: `Share`.
    Share {
        /// File.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Owner.
        owner: LockOwner,
        /// Access and deny bits.
        share: Share,
        /// As in `Lock`.
        client_state: i32,
    },
    /// NLM UNSHARE. Outcome: `Unlocked`.
    Unshare {
        /// File.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Owner.
        owner: LockOwner,
    },
    /// Frees everything of a client: NLM FREE_ALL, or an administrator. Outcome: `Released`.
    ReleaseClient(ClientMatch),
    /// NSM notify: the host `name` (calling from `address`) has rebooted and is now in `state`. Frees what it held in an earlier state; the
    /// same notification again, or one older than the last lock request's state, does nothing. Outcome: `Released`.
    ClientRebooted {
        /// Host name as in NLM's `caller_name`.
        name: Bytes,
        /// Source address of the notification.
        address: Option<std::net::IpAddr>,
        /// Its new NSM state number.
        state: i32,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockOutcome {
    /// Of a lock request.
    Lock(atoll_lockd::LockOutcome),
    /// Done.
    Unlocked,
    /// Of a cancellation.
    Cancel(CancelOutcome),
    /// Of a callback's answer.
    Settled(GrantOutcome),
    /// Of a share request: taken, or what stands in the way.
    Share(Result<(), ShareConflict>),
    /// Number of files in which something was freed at once; if a client had very many, the rest follows in the background.
    Released(u64),
}

/// A question whether a lock could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockTest {
    /// File.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
    /// Who would lock.
    pub owner: LockOwner,
    /// Range.
    pub range: ByteRange,
    /// Mode.
    pub mode: LockMode,
}

/// A blocked request that has been granted; its client is to be told until it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedWaiter {
    /// File.
    pub ino: Ino,
    /// By what to settle it.
    pub grant: GrantId,
    /// New holder.
    pub owner: LockOwner,
    /// Range as it was asked for.
    pub range: ByteRange,
    /// Mode.
    pub mode: LockMode,
    /// How to reach the client, as the frontend wrote it.
    pub callback: Callback,
}
