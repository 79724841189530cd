//! Delegations (RFC 8881 §10.2, §10.4, §10.9; RFC 7530 §10; RFC 9754): a client may do locally what others would have to be asked for.
//!
//! A delegation is state of one file (or directory) and one client, with a stateid of its own ([`crate::nfs4::StateKind::Delegation`]):
//!
//! - **read**: nobody else opens the file for writing or changes it. Several clients may have one;
//! - **write**: nobody else opens the file or reads it. Nobody else has any;
//! - **directory**: nobody else changes the directory's entries or its attributes.
//!
//! While there is one, [`atoll_base::attr::Attr::delegated`] of the inode says so: who would do what a delegation forbids knows it
//! without another read. A call that meets one of another client (than [`crate::Call::client`]) is refused with
//! [`StateError::Delegated`](crate::nfs4::StateError::Delegated) and changes nothing. The frontend then recalls
//! ([`crate::nfs4::StateOp::Recall`]), waits some time for the return, and repeats the call or answers NFS4ERR_DELAY.
//! Reads are not calls, so the frontend looks at `delegated` itself: before it reads data for who is not the holder of a write delegation it recalls, and
//! for attributes it asks the holder by CB_GETATTR.
//!
//! A frontend that holds a file's write lease ([`crate::Op::BeginDirty`]) takes data without a call, and may hold some that the store does not know. So no new
//! delegation is given while there is a lease, whosever data they are: who wants to give one flushes with `release` first. Once there is one, only its holder can
//! get a lease begun; the frontend that has it looks at `delegated` before it takes data of anybody else.
//!
//! # Notifications
//!
//! The holder of a directory delegation may have asked to be told of entries that are added, removed or renamed (§18.39, §20.4). Such a change by anybody is not in the way of
//! its delegation, and leaves a [`Notice`] in the same step: so none is ever lost. The frontend takes them by [`crate::MetadataService::notices`], tells the
//! holder, and says so by [`crate::nfs4::StateOp::Noticed`]. Of one delegation there is a bounded number; beyond, changes are in its way as if it had not
//! asked. What was in force with notices when a frontend started may have been told or not, and is recalled ([`crate::nfs4::StateOp::RecallOne`]).
//!
//! Time is not part of the state: how long a holder may take is the frontend's business, and the end of its patience is a call
//! ([`crate::nfs4::StateOp::Revoke`]).

use crate::nfs4::{State, Stateid};
use atoll_base::id::{Cookie, ExportId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a delegation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DelegationKind {
    /// OPEN_DELEGATE_READ.
    Read,
    /// OPEN_DELEGATE_WRITE.
    Write,
    /// Of GET_DIR_DELEGATION (RFC 8881 §18.39).
    Directory,
}

/// What a client asks for, or a frontend thinks useful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationWish {
    /// The best that is wanted. For [`DelegationKind::Write`] a read delegation is not given instead.
    pub kind: DelegationKind,
    /// With authority over the times (RFC 9754 §3, OPEN_DELEGATE_READ_ATTRS_DELEG, OPEN_DELEGATE_WRITE_ATTRS_DELEG).
    pub timestamps: bool,
    /// OPEN4_SHARE_ACCESS_WANT_OPEN_XOR_DELEGATION (RFC 9754 §4): if the delegation is given there shall be no open.
    pub instead_of_open: bool,
    /// The export that the client sees the file through: kept with the delegation, since a callback names the file by the handle that the client knows.
    pub export: ExportId,
}

/// How far it is with a delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DelegationPhase {
    /// In force.
    Held,
    /// In force, and the holder is to give it back. Until it has, nobody gets one of this file.
    Recalled,
    /// Taken away from a holder that did not answer: it stands in nobody's way, and stays until FREE_STATEID or the end of the client
    /// (§10.2.1, SEQ4_STATUS_RECALLABLE_STATE_REVOKED).
    Revoked,
}

/// What OPEN says of a delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DelegationOutcome {
    /// None was asked for.
    NotAsked,
    /// Given; or had already, then this is it.
    Given {
        /// Its stateid.
        stateid: Stateid,
        /// What it allows.
        kind: DelegationKind,
        /// With authority over the times.
        timestamps: bool,
    },
    /// Others have the file open or locked, or one is being recalled (WND4_CONTENTION).
    Contention,
    /// A bound is reached (WND4_RESOURCE).
    Resource,
}

/// What somebody wants to do that a delegation of another may forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Intrusion {
    /// Reading data, or opening to read: forbidden by a write delegation.
    Read,
    /// Any change, or opening to write or denying something: forbidden by every delegation.
    Change,
    /// Of a directory: a new entry. As the two below, forbidden by every delegation whose holder is not told of it.
    Add,
    /// Of a directory: an entry less.
    Remove,
    /// Of a directory: an entry gets another name in it.
    Rename,
}

/// Changes of a directory's entries that the holder of a delegation is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NoticeKinds {
    /// NOTIFY4_ADD_ENTRY.
    pub adds: bool,
    /// NOTIFY4_REMOVE_ENTRY.
    pub removes: bool,
    /// NOTIFY4_RENAME_ENTRY.
    pub renames: bool,
}

impl NoticeKinds {
    /// Of none.
    pub const NONE: Self = Self { adds: false, removes: false, renames: false };

    /// Whether a holder who is told of these is told of such a change.
    pub fn cover(self, intrusion: Intrusion) -> bool {
        match intrusion {
            Intrusion::Read | Intrusion::Change => false,
            Intrusion::Add => self.adds,
            Intrusion::Remove => self.removes,
            Intrusion::Rename => self.renames,
        }
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticedEntry {
    /// Name.
    pub name: Bytes,
    /// What a listing shows with it.
    pub cookie: Cookie,
}

/// An entry that has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    /// The entry. One that replaces another keeps its name and cookie.
    pub entry: NoticedEntry,
    /// Whether there was another of this name.
    pub replaces: bool,
    /// The entry before it in a listing.
    pub previous: Option<NoticedEntry>,
    /// Whether it is the last in a listing.
    pub is_last: bool,
}

/// A change of a directory's entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Made, linked, or moved here.
    Added(NewEntry),
    /// Removed, or moved away.
    Removed(NoticedEntry),
    /// Renamed within the directory.
    Renamed {
        /// What it was.
        from: NoticedEntry,
        /// What it is.
        to: NewEntry,
    },
}

impl Notice {
    /// What this is to those that were not told.
    pub fn intrusion(&self) -> Intrusion {
        match self {
            Self::Added(_) => Intrusion::Add,
            Self::Removed(_) => Intrusion::Remove,
            Self::Renamed { .. } => Intrusion::Rename,
        }
    }
}

/// What the holder of a delegation is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// The delegation.
    pub state: State,
    /// Changes in their order, by number; at least one.
    pub notices: Vec<(u64, Notice)>,
}
