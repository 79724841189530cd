//! Opens, locks and delegations with stateids (RFC 7530 §9; RFC 8881 §8, §9, §10): what changes them, and what is known of them.

use super::{ClientId, StateId, Stateid};
use crate::call::CreateHow;
use crate::delegation::{
    DelegationKind, DelegationOutcome, DelegationPhase, DelegationWish, Intrusion, NoticeKinds,
};
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::id::{ExportId, Ino};
use atoll_base::time::Timestamp;
use atoll_lockd::{ByteRange, Callback, Conflict, LockMode, Share};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What OPEN opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenTarget {
    /// CLAIM_NULL: a name in a directory, made if wanted.
    Name {
        /// Directory.
        dir: Ino,
        /// Name.
        name: Bytes,
        /// OPEN4_CREATE: how, and with which attributes. Of attributes that come with an exclusive creation (EXCLUSIVE4_1) too.
        create: Option<(CreateHow, SetAttr)>,
    },
    /// CLAIM_FH, CLAIM_PREVIOUS: the file itself.
    File {
        /// Inode.
        ino: Ino,
        /// Its generation.
        generation: u32,
    },
}

/// The owner of a lock state that LOCK makes or goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockState {
    /// `open_to_lock_owner4`: a new one under this open; the same owner's lock state of the file is taken if there is one.
    New {
        /// The open.
        open: Stateid,
        /// Opaque of the lock owner.
        owner: Bytes,
        /// In v4.0 where the lock owner's own sequence begins (`lock_seqid`); should the owner have one already, it must be the
        /// next (`BadSeqid`).
        seqid: u32,
    },
    /// `exist_lock_owner4`.
    Held(Stateid),
}

/// A change of opens and locks. The caller is `client`, which must be confirmed (else `StaleClient`, or `Expired` of one whose lease ran out lately): a
/// stateid of another one is `BadStateid`. What is left of a client that ended is freed in steps; who meets it is refused with `Delay`.
/// Where the file was removed, CLOSE, OPEN_DOWNGRADE, DELEGRETURN and FREE_STATEID still work, all else is `Stale`. A revoked delegation's stateid is
/// `DelegationRevoked` but to the last two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateOp {
    /// OPEN (RFC 8881 §18.16, RFC 7530 §16.16): checks the type (`IsDirectory`, `WrongType`) and the caller's permission, takes the share
    /// reservation, makes or upgrades the open of this owner and file. The owner of a file may open it whatever its mode if the file itself is named
    /// ([`OpenTarget::File`]); by a name only who makes it. Cutting an existing file off takes access to write (`Invalid`).
    /// Changes: the directory if by name, the file. Outcome: `Opened`.
    Open {
        /// Client.
        client: ClientId,
        /// Opaque of the open owner.
        owner: Bytes,
        /// Access (not none) and deny.
        share: Share,
        /// What.
        target: OpenTarget,
        /// A delegation to give if nothing is against it. A directory's is `Invalid`. With an open that must be confirmed none is given (RFC 7530
        /// §9.1.11).
        delegate: Option<DelegationWish>,
        /// CLAIM_DELEGATE_CUR and CLAIM_DELEG_CUR_FH: this open was made locally under this delegation of the client's, which must be of the file found
        /// (`BadStateid`; `DelegationRevoked`) and allow the access (`Invalid`). Permission is not checked again.
        under: Option<Stateid>,
    },
    /// OPEN_CONFIRM (RFC 7530 §16.18). Outcome: `State`.
    Confirm {
        /// Client.
        client: ClientId,
        /// The open.
        open: Stateid,
    },
    /// OPEN_DOWNGRADE (RFC 8881 §18.18). Outcome: `State`.
    Downgrade {
        /// Client.
        client: ClientId,
        /// The open.
        open: Stateid,
        /// What it keeps: one of the combinations that it was opened with.
        share: Share,
    },
    /// CLOSE (RFC 8881 §18.2). Frees the locks under it, too. Outcome: `State`.
    Close {
        /// Client.
        client: ClientId,
        /// The open.
        open: Stateid,
    },
    /// LOCK (RFC 8881 §18.10). Outcome: `Locked`, or `Denied`. The caller never waits here, but the file's lock table can remember a denied
    /// request: once free, the range is reserved for it as a pending grant, which the same request takes.
    Lock {
        /// Client.
        client: ClientId,
        /// The lock state.
        state: LockState,
        /// Range.
        range: ByteRange,
        /// Shared or exclusive; the open must allow it (`OpenMode`).
        mode: LockMode,
        /// How to tell the client when it can have what it is denied now (only in v4.1). With none, a request that was remembered is forgotten: the
        /// client does not wait any more (§9.6).
        wait: Option<Callback>,
    },
    /// LOCKU (RFC 8881 §18.12). Outcome: `State`.
    Unlock {
        /// Client.
        client: ClientId,
        /// The lock state.
        lock: Stateid,
        /// Range.
        range: ByteRange,
    },
    /// FREE_STATEID (RFC 8881 §18.38): `LocksHeld` if there is something under it. An open or a delegation can be freed if its file was removed, a
    /// delegation also if it was revoked. Outcome: `State`.
    Free {
        /// Client.
        client: ClientId,
        /// The state.
        state: Stateid,
    },
    /// RELEASE_LOCKOWNER (RFC 7530 §16.37): `LocksHeld` if it holds any. Outcome: `Released`.
    ReleaseOwner {
        /// Client.
        client: ClientId,
        /// Opaque of the lock owner.
        owner: Bytes,
    },
    /// WANT_DELEGATION and GET_DIR_DELEGATION (RFC 8881 §18.49, §18.39): a delegation without an open. Permission to read, and for a write delegation to write, is checked.
    /// Of files and directories only (`WrongType`, `IsDirectory`, `NotDirectory`). Who has one of a directory gets none a second time (`Contention`); of a file it is the
    /// same one, or a read delegation becomes one to write with the next version of its stateid.
    /// Outcome: `Delegation`.
    Delegate {
        /// Client.
        client: ClientId,
        /// File or directory.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// What is wanted.
        wish: DelegationWish,
    },
    /// DELEGRETURN (RFC 8881 §18.6); also of one that is revoked. Outcome: `State`.
    Return {
        /// Client.
        client: ClientId,
        /// The delegation.
        delegation: Stateid,
    },
    /// The delegations of an inode that are in the way of somebody's intention are wanted back: those that are `Held` become `Recalled`, and
    /// [`crate::MetadataService::recalled`] tells of them. From a frontend, on nobody's behalf. Outcome: `Released`.
    Recall {
        /// File or directory.
        ino: Ino,
        /// What is intended.
        intrusion: Intrusion,
        /// By whom: this client's own are not in the way.
        except: Option<ClientId>,
    },
    /// The holder did not return a delegation that was recalled: it becomes `Revoked`. One that is `Held`, or gone, is left alone. Outcome: `Released`.
    Revoke(StateId),
    /// SETATTR of `time_deleg_access` and `time_deleg_modify` by the holder of a delegation with authority over the times (RFC 9754 §3): the times
    /// that it kept. None goes back, nor beyond the server's time. `BadStateid` of one without such authority, `Invalid` for the mtime of a read delegation. Changes: the inode.
    /// Outcome: `Released`.
    DelegatedTimes {
        /// Client.
        client: ClientId,
        /// The delegation.
        delegation: Stateid,
        /// Last access.
        atime: Option<Timestamp>,
        /// Last change of data; ctime follows.
        mtime: Option<Timestamp>,
    },
    /// The holder of a write delegation told by CB_GETATTR that it has changed the file (RFC 8881 §10.4.3): size is not moved, but change, ctime and mtime move on once, so
    /// that others see that there is something new. Nothing happens if there is no such delegation any more. Changes: the inode. Outcome: `Released`.
    HolderChanged(StateId),
    /// The frontend refuses an operation of a v4.0 owner for reasons of its own: nothing happens, but the refusal counts
    /// in the owner's sequence (RFC 7530 §9.1.7) and is stored there. Refused with this error.
    Refuse(crate::FsError),
    /// GET_DIR_DELEGATION with notifications: as `Delegate`. Outcome: `Delegation`.
    DelegateDirectory {
        /// Client.
        client: ClientId,
        /// Directory.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// The export that the client sees it through.
        export: ExportId,
        /// What it is told of.
        notices: NoticeKinds,
    },
    /// The holder of a directory delegation was told of the changes up to this number, and they are forgotten. Outcome: `Released`.
    Noticed {
        /// The delegation; it may be gone.
        delegation: StateId,
        /// Number of the last that was told.
        upto: u64,
    },
    /// One delegation is wanted back, if it is `Held`. Outcome: `Released`.
    RecallOne(StateId),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateOutcome {
    /// The open.
    Opened {
        /// Its stateid.
        open: Stateid,
        /// The file.
        attr: Attr,
        /// Whether this call made it.
        created: bool,
        /// Whether the owner is new to a v4.0 client and must be confirmed (OPEN4_RESULT_CONFIRM).
        confirm: bool,
        /// What became of the delegation. If it was given, and wished for instead of the open, then `open` is its stateid, and there is no open.
        delegation: DelegationOutcome,
    },
    /// The state's new stateid; of a state that is gone, the last one.
    State(Stateid),
    /// The lock is held.
    Locked(Stateid),
    /// It is not: what stands in the way.
    Denied(Conflict),
    /// Done.
    Released,
    /// Of `Delegate`: never `NotAsked`.
    Delegation(DelegationOutcome),
}

/// What a stateid stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateKind {
    /// An open with its share reservation.
    Open {
        /// Access and deny in force.
        share: Share,
        /// Whether a v4.0 owner has confirmed it; always in v4.1.
        confirmed: bool,
    },
    /// Locks of one owner in one file.
    Lock {
        /// The open that it was made under.
        open: StateId,
        /// What that open allows.
        share: Share,
    },
    /// A delegation. It has no owner but its client.
    Delegation {
        /// What it allows.
        kind: DelegationKind,
        /// How far it is with it.
        phase: DelegationPhase,
        /// With authority over the times.
        timestamps: bool,
        /// The file's change counter when it was given: the holder answers CB_GETATTR with another one if it has changed the file (RFC 8881
        /// §10.4.3, `sc`).
        change: u64,
        /// The export that its holder sees the file through.
        export: ExportId,
        /// Changes of a directory that it is not in the way of, for the holder will be told.
        notices: NoticeKinds,
    },
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its stateid now.
    pub stateid: Stateid,
    /// Whose.
    pub client: ClientId,
    /// Opaque of the open or lock owner; empty of a delegation.
    pub owner: Bytes,
    /// File.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
    /// When it was made: seconds since 1970.
    pub since: i64,
    /// Which kind.
    pub kind: StateKind,
}
