//! NFSv4's state as the metadata store keeps it: clients, sessions, opens and locks with stateids (RFC 7530 §9, RFC 8881 §2.4,
//! §2.10, §8, §9). All of it is replicated, so a client goes on with the same session and stateids whatever process dies.
//!
//! Identifiers here are numbers; a frontend dresses them as the wire's `sessionid4` and `stateid4`. Time is not part of this
//! state: leases run in the frontend that hears the client, and only their end is a call ([`ClientOp::Expire`]).

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

/// Who set a client up, for the rules that compare principals (RFC 8881 §2.4, RFC 7530 §9.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// AUTH_NONE.
    Nobody,
    /// AUTH_SYS with this uid.
    Sys(u32),
}

/// How a v4.0 client is called back (RFC 7530 §3.3.9 `cb_client4`), with the identifier it wants to see in each callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback40 {
    /// RPC program.
    pub program: u32,
    /// `tcp`, `tcp6` …
    pub netid: Bytes,
    /// Universal address.
    pub address: Bytes,
    /// `callback_ident`.
    pub ident: u32,
}

/// What a client says of itself (`nfs_impl_id4`, and its address), for those who administrate the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAbout {
    /// Address that it called from.
    pub address: Option<std::net::IpAddr>,
    /// Implementation's name, any bytes.
    pub implementation: Bytes,
}

/// Limits of one direction of a session, as agreed (RFC 8881 §18.36 `channel_attrs4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelLimits {
    /// Bytes of padding before data.
    pub header_pad: u32,
    /// Longest request, bytes.
    pub max_request: u32,
    /// Longest reply, bytes.
    pub max_response: u32,
    /// Longest reply that is kept for a retransmission, bytes.
    pub max_response_cached: u32,
    /// Most operations of one COMPOUND.
    pub max_operations: u32,
    /// Slots.
    pub max_requests: u32,
}

/// A session's terms, as the frontend agreed to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerms {
    /// From client to server.
    pub fore: ChannelLimits,
    /// From server to client.
    pub back: ChannelLimits,
    /// CREATE_SESSION4_FLAG_PERSIST: asked for and granted.
    pub persist: bool,
    /// CREATE_SESSION4_FLAG_CONN_BACK_CHAN: the connection that made the session is a backchannel.
    pub backchannel: bool,
    /// RPC program of callbacks.
    pub callback_program: u32,
    /// How to authenticate callbacks, as the client wrote it (`callback_sec_parms4<>`).
    pub callback_security: Bytes,
}

/// A change of clients and sessions. Changes of the response: none. Outcome: `Client`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientOp {
    /// SETCLIENTID (RFC 7530 §16.33). Outcome: `Set`, or `InUse`.
    SetClientId {
        /// `nfs_client_id4.id`.
        owner: Bytes,
        /// Which boot of the client.
        verifier: [u8; 8],
        /// Caller.
        principal: Principal,
        /// How to call it back.
        callback: Callback40,
        /// For administrators.
        about: ClientAbout,
    },
    /// SETCLIENTID_CONFIRM (RFC 7530 §16.34). Outcome: `Done`.
    Confirm {
        /// Client id of `Set`.
        client: ClientId,
        /// Verifier of `Set`.
        confirm: [u8; 8],
        /// Caller.
        principal: Principal,
    },
    /// EXCHANGE_ID (RFC 8881 §18.35) with SP4_NONE, all cases of §18.35.4. Outcome: `Exchanged`.
    ExchangeId {
        /// `co_ownerid`.
        owner: Bytes,
        /// Which boot of the client.
        verifier: [u8; 8],
        /// EXCHGID4_FLAG_UPD_CONFIRMED_REC_A.
        update: bool,
        /// Caller.
        principal: Principal,
        /// For administrators.
        about: ClientAbout,
    },
    /// CREATE_SESSION (RFC 8881 §18.36); confirms the client and ends its former boot. The same `sequence` as the last one gets the
    /// stored outcome. Outcome: `Session`.
    CreateSession {
        /// Client.
        client: ClientId,
        /// `csa_sequence`.
        sequence: u32,
        /// Caller.
        principal: Principal,
        /// Terms.
        terms: SessionTerms,
    },
    /// BIND_CONN_TO_SESSION and BACKCHANNEL_CTL: new terms for callbacks. Outcome: `Done`.
    SetCallback {
        /// Session.
        session: SessionId,
        /// RPC program of callbacks.
        program: u32,
        /// How to authenticate them.
        security: Bytes,
    },
    /// DESTROY_SESSION (RFC 8881 §18.37). Outcome: `Done`.
    DestroySession(SessionId),
    /// DESTROY_CLIENTID (RFC 8881 §18.50): refused with `ClientBusy` while it has sessions, opens, locks or delegations. Outcome: `Done`.
    DestroyClient(ClientId),
    /// RECLAIM_COMPLETE (RFC 8881 §18.51) for all file systems: once per client. Outcome: `Done`.
    ReclaimComplete(ClientId),
    /// The lease ran out and its state is in the way or too old, or an administrator evicts it: the client is forgotten with all it has. Outcome: `Done`.
    Expire(ClientId),
    /// A client has let go of the slots of a session from `keep` on (RFC 8881 §2.10.6.1): what is kept of them is removed, and each begins anew with any number. Outcome: `Done`.
    RetireSlots {
        /// Session.
        session: SessionId,
        /// The first slot of which nothing is kept.
        keep: u32,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientOutcome {
    /// Nothing more to say.
    Done,
    /// Of SETCLIENTID.
    Set {
        /// Client id.
        client: ClientId,
        /// To be repeated in SETCLIENTID_CONFIRM.
        confirm: [u8; 8],
    },
    /// Of SETCLIENTID: another principal has this name, from here (NFS4ERR_CLID_INUSE).
    InUse(Callback40),
    /// Of EXCHANGE_ID.
    Exchanged {
        /// Client id.
        client: ClientId,
        /// `eir_sequenceid`: what the next CREATE_SESSION must carry.
        sequence: u32,
        /// EXCHGID4_FLAG_CONFIRMED_R.
        confirmed: bool,
    },
    /// Of CREATE_SESSION.
    Session {
        /// Its number.
        session: SessionId,
        /// `csr_sequence`.
        sequence: u32,
        /// Terms.
        terms: SessionTerms,
    },
}

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

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Its name for itself.
    pub owner: Bytes,
    /// Which boot.
    pub verifier: [u8; 8],
    /// Who set it up.
    pub principal: Principal,
    /// 0 or 1: by SETCLIENTID or by EXCHANGE_ID.
    pub minor: u32,
    /// Whether it is confirmed.
    pub confirmed: bool,
    /// Whether it has sent RECLAIM_COMPLETE.
    pub reclaimed: bool,
    /// How to call back a v4.0 client.
    pub callback: Option<Callback40>,
    /// For administrators.
    pub about: ClientAbout,
    /// Sessions, opens and lock states that it has.
    pub sessions: u32,
    /// Opens, lock states and delegations.
    pub states: u64,
    /// Delegations among them that were revoked and not freed yet.
    pub revoked: u32,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Whose.
    pub client: ClientId,
    /// Terms.
    pub terms: SessionTerms,
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
