//! Records of NFSv4's clients, sessions, states and owners.

use atoll_base::access::Cred;
use atoll_base::id::{ExportId, Ino, VolumeId};
use atoll_lockd::{Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationPhase, NoticeKinds};
use atoll_meta::nfs4::{
    Callback40, ClientAbout, ClientId, ClientOutcome, Principal, SessionTerms, StateId, Stateid,
};
use atoll_meta::offload::CopyPlace;
use atoll_meta::{FsError, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The singletons of NFSv4. Counters are the last number given out; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta4 {
    /// Lower half of the last client id.
    pub last_client: u32,
    /// Last session.
    pub last_session: u64,
    /// Last open, lock state or delegation.
    pub last_state: u64,
    /// Confirmed clients.
    pub confirmed: u64,
    /// Rows of `Unconfirmed`.
    pub unconfirmed: u64,
    /// Rows of `ExpiredClient`.
    pub expired: u64,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Its name for itself.
    pub owner: Bytes,
    /// Which boot.
    pub verifier: [u8; 8],
    /// Who set it up.
    pub principal: Principal,
    /// Whether it is confirmed.
    pub confirmed: bool,
    /// Whether it has sent RECLAIM_COMPLETE.
    pub reclaimed: bool,
    /// For administrators.
    pub about: ClientAbout,
    /// What depends on the minor version.
    pub minor: MinorRecord,
}

/// What depends on the minor version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinorRecord {
    /// v4.0
    V40 {
        /// How to call it back.
        callback: Callback40,
        /// What SETCLIENTID_CONFIRM must repeat, or has repeated.
        confirm: [u8; 8],
        /// A new callback that waits for its confirmation.
        update: Option<CallbackUpdate>,
    },
    /// v4.1 and later.
    V41 {
        /// `csa_sequence` of the last CREATE_SESSION.
        sequence: u32,
        /// What came of it; `None` before the first.
        created: Option<ClientOutcome>,
    },
}

/// SETCLIENTID of a client that is confirmed already (RFC 7530 §16.33.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackUpdate {
    /// How to call it back.
    pub callback: Callback40,
    /// What SETCLIENTID_CONFIRM must repeat.
    pub confirm: [u8; 8],
    /// For administrators.
    pub about: ClientAbout,
}

impl ClientRecord {
    /// 0 or 1.
    pub fn minor(&self) -> u8 {
        match self.minor {
            MinorRecord::V40 { .. } => 0,
            MinorRecord::V41 { .. } => 1,
        }
    }
}

/// How much a client has. Apart from its record, because it changes with each OPEN and CLOSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sessions.
    pub sessions: u32,
    /// Opens, lock states and delegations.
    pub states: u32,
    /// Delegations among them, in whatever phase.
    pub delegations: u32,
    /// Delegations among these that are revoked.
    pub revoked: u32,
    /// Rows of `IdleOwner`.
    pub idle_owners: u32,
}

/// The clients of one name: at most one of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The confirmed one.
    pub confirmed: Option<ClientId>,
    /// The one that waits for confirmation.
    pub unconfirmed: Option<ClientId>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose.
    pub client: ClientId,
    /// Its terms.
    pub terms: SessionTerms,
}

/// Whose sequence or state: an open owner or a lock owner, which are different even if their opaques are the same; or nobody but the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OwnerKind {
    /// Open owner.
    Open = 1,
    /// Lock owner.
    Lock = 2,
    /// The client itself, for its delegations: the opaque is empty, and there is no sequence.
    Delegation = 3,
}

/// An open, lock state or delegation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Whose.
    pub client: ClientId,
    /// Opaque of the open or lock owner; empty of a delegation.
    pub owner: Bytes,
    /// File.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
    /// The stateid's version.
    pub seqid: u32,
    /// When it was made: seconds since 1970.
    pub since: i64,
    /// Which kind.
    pub held: Held,
}

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// An open.
    Open {
        /// In force.
        share: Share,
        /// The access and deny that it was opened with, for OPEN_DOWNGRADE.
        opened: Opened,
        /// Whether the owner has confirmed it.
        confirmed: bool,
    },
    /// Locks; the ranges are in the file's lock table.
    Lock {
        /// The open that it was made under.
        open: StateId,
    },
    /// A delegation.
    Delegation(Delegation),
}

/// A delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// What it allows.
    pub kind: DelegationKind,
    /// How far it is with it.
    pub phase: DelegationPhase,
    /// With authority over the times.
    pub timestamps: bool,
    /// The export that its holder sees the file through.
    pub export: ExportId,
    /// The file's change counter when it was given: what the holder compares with (RFC 8881 §10.4.3, `sc`).
    pub change: u64,
}

/// What the holder of a directory delegation is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Which changes.
    pub kinds: NoticeKinds,
    /// Number of the first that it was not told of, and of the next that comes: there is a row of `Notice` for each between.
    pub first: u64,
    /// See `first`.
    pub next: u64,
}

impl StateRecord {
    /// Kind of its owner.
    pub fn kind(&self) -> OwnerKind {
        match self.held {
            Held::Open { .. } => OwnerKind::Open,
            Held::Lock { .. } => OwnerKind::Lock,
            Held::Delegation(_) => OwnerKind::Delegation,
        }
    }

    /// What it allows, if it is a delegation.
    pub fn delegation(&self) -> Option<Delegation> {
        match self.held {
            Held::Delegation(delegation) => Some(delegation),
            Held::Open { .. } | Held::Lock { .. } => None,
        }
    }

    /// Whether it is a delegation that was revoked.
    pub fn is_revoked(&self) -> bool {
        self.delegation().is_some_and(|delegation| delegation.phase == DelegationPhase::Revoked)
    }

    /// Its stateid.
    pub fn stateid(&self, id: StateId) -> Stateid {
        Stateid { id, seqid: self.seqid }
    }
}

/// The values of access and of deny that the OPENs in effect were made with: bit n for the value n. RFC 8881 §18.18.3 asks of a
/// downgrade that its access is a union of some of the former, its deny one of some of the latter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    access: u8,
    deny: u8,
}

impl Opened {
    /// With one more OPEN.
    #[must_use]
    pub fn with(self, share: Share) -> Self {
        Self {
            access: self.access | 1 << share.access.to_wire(),
            deny: self.deny | 1 << share.deny.to_wire(),
        }
    }

    /// What is left of the OPENs if only `to` stays; `None` if that is no union of them.
    pub fn downgraded(self, to: Share) -> Option<Self> {
        fn within(opened: u8, to: ShareBits) -> Option<u8> {
            let mut union = 0;
            let mut left = 0;
            for value in 0..4_u32 {
                if opened & 1 << value != 0 && value & !to.to_wire() == 0 {
                    union |= value;
                    left |= 1 << value;
                }
            }
            // Nothing at all is the union of no OPEN.
            (union == to.to_wire()).then_some(left)
        }
        Some(Self { access: within(self.access, to.access)?, deny: within(self.deny, to.deny)? })
    }
}

/// An NFSv4.0 owner (RFC 7530 §9.1.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The last step of its sequence; `None` of a lock owner of which none was counted yet.
    pub last: Option<OwnerStep>,
    /// Of an open owner: whether OPEN_CONFIRM came.
    pub confirmed: bool,
    /// States that it has.
    pub states: u32,
    /// The state that its last step closed; it has a row in `ClosedState`.
    pub closed: Option<StateId>,
    /// Its number in `IdleOwner`.
    pub idle: Option<u64>,
}

/// A step of an owner's sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerStep {
    /// Its number.
    pub seqid: u32,
    /// Of operation and arguments.
    pub fingerprint: u64,
    /// What was answered.
    pub response: Response,
}

/// A copy that goes on behind its COPY ([`atoll_meta::offload`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffloadRecord {
    /// Whose.
    pub client: ClientId,
    /// On whose behalf.
    pub cred: Cred,
    /// The export that the client sees the target through.
    pub export: ExportId,
    /// The volume of both files.
    pub volume: VolumeId,
    /// What is copied next.
    pub from: CopyPlace,
    /// Where it goes.
    pub to: CopyPlace,
    /// Bytes still to copy.
    pub left: u64,
    /// Bytes copied.
    pub count: u64,
    /// The write verifier of its COPY.
    pub verifier: u64,
    /// When it was begun: seconds since 1970.
    pub since: i64,
    /// How it ended, if it has.
    pub ended: Option<Result<(), FsError>>,
}
