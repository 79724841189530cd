//! NFSv4's state as the metadata store keeps it: clients, sessions, opens and locks with stateids (RFC 7530 §9, RFC 8881 §2.4,
//! §2.10, §8, §9). All of it is replicated, so a client goes on with the same session and stateids whatever process dies.
//!
//! Identifiers here are numbers; a frontend dresses them as the wire's `sessionid4` and `stateid4`. Time is not part of this
//! state: leases run in the frontend that hears the client, and only their end is a call ([`ClientOp::Expire`]).

mod client;
mod state;

pub use client::{
    Callback40, ChannelLimits, Client, ClientAbout, ClientOp, ClientOutcome, Principal, Session, SessionTerms,
};
pub use state::{LockState, OpenTarget, State, StateKind, StateOp, StateOutcome};

use serde::{Deserialize, Serialize};

/// An NFSv4 client id, as on the wire (`clientid4`). Its upper half marks the cluster, so that one of another cluster is known as stale.
/// Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// A session's number (RFC 8881 §2.10). Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// The number of an open, a lock state, a delegation or an offload ([`crate::offload`]): what a stateid's `other` stands for. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateId(pub u64);

/// A stateid as a client sends it, special ones excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stateid {
    /// Which state.
    pub id: StateId,
    /// Its version. 0 means "the newest", which v4.1 allows (RFC 8881 §8.2.2) and the frontend refuses in v4.0.
    pub seqid: u32,
}

/// Why an operation on state was refused. Part of stored outcomes: append variants, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum StateError {
    /// NFS4ERR_STALE_CLIENTID
    #[error("no such client id")]
    StaleClient,
    /// NFS4ERR_CLID_INUSE
    #[error("the client's name belongs to another principal")]
    ClientInUse,
    /// NFS4ERR_NOT_SAME, of an EXCHANGE_ID that updates with another verifier.
    #[error("the client has another verifier")]
    NotSame,
    /// NFS4ERR_CLIENTID_BUSY
    #[error("the client still has state")]
    ClientBusy,
    /// NFS4ERR_SEQ_MISORDERED, of CREATE_SESSION or a slot.
    #[error("out of sequence")]
    Misordered,
    /// NFS4ERR_SEQ_FALSE_RETRY: the slot's stored request was another one.
    #[error("a retransmission that differs from the request")]
    FalseRetry,
    /// NFS4ERR_BADSESSION
    #[error("no such session")]
    BadSession,
    /// NFS4ERR_COMPLETE_ALREADY
    #[error("reclaim is complete already")]
    CompleteAlready,
    /// NFS4ERR_BAD_SEQID, of a v4.0 owner.
    #[error("the owner's sequence number is wrong")]
    BadSeqid,
    /// NFS4ERR_BAD_STATEID
    #[error("no such state")]
    BadStateid,
    /// NFS4ERR_OLD_STATEID
    #[error("an older version of the state")]
    OldStateid,
    /// NFS4ERR_EXPIRED: the state's client is gone.
    #[error("the client's lease ran out")]
    Expired,
    /// NFS4ERR_SHARE_DENIED
    #[error("denied by a share reservation")]
    ShareDenied,
    /// NFS4ERR_OPENMODE
    #[error("not opened for this")]
    OpenMode,
    /// NFS4ERR_LOCKS_HELD
    #[error("locks are held")]
    LocksHeld,
    /// An `nfsstat4` that a frontend refused with by its own checks ([`StateOp::Refuse`]).
    #[error("refused by the frontend with NFSv4 status {0}")]
    Wire(u32),
    /// A delegation of another client is in the way: to be recalled ([`StateOp::Recall`]), then the call may be repeated. No record of it is made for
    /// replay, as of [`crate::FsError::Delay`].
    #[error("delegated to another client")]
    Delegated,
    /// NFS4ERR_DELEG_REVOKED
    #[error("the delegation was revoked")]
    DelegationRevoked,
}
