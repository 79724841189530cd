//! NFSv4: clients, sessions, opens, locks, and their exactly-once keys.

mod clients;
mod delegation_ends;
mod delegations;
mod intrusions;
mod locks;
mod notices;
mod offloads;
mod opens;
mod owners;
mod random;

mod release;
mod sessions;
mod waits;
mod walks;
mod world;

use self::delegations::{READING, given};
use super::rig::{ROOT, Rig, rows_of};
use crate::Table;
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::id::ExportId;
use atoll_lockd::{ByteRange, LockMode, Share, ShareBits};
use atoll_meta::delegation::{Intrusion, NoticeKinds};
use atoll_meta::nfs4::{
    Callback40, ChannelLimits, ClientAbout, ClientId, ClientOp, ClientOutcome, LockState, OpenTarget,
    Principal, SessionId, SessionTerms, StateError, StateId, StateOp, StateOutcome, Stateid,
};
use atoll_meta::once::OwnerSequence;
use atoll_meta::{Call, FsError, Once, Op, Outcome, OwnerKey, Response, SlotKey};
use bytes::Bytes;

pub(super) const READ: Share = Share { access: ShareBits::Read, deny: ShareBits::None };
pub(super) const WRITE: Share = Share { access: ShareBits::Write, deny: ShareBits::None };
pub(super) const BOTH: Share = Share { access: ShareBits::Both, deny: ShareBits::None };

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn verifier(boot: u8) -> [u8; 8] {
    [boot; 8]
}

pub(super) fn callback(ident: u32) -> Callback40 {
    Callback40 { program: 0x4000_0000, netid: bytes("tcp"), address: bytes("10.0.0.1.3.0"), ident }
}

pub(super) fn terms(slots: u32) -> SessionTerms {
    let channel = ChannelLimits {
        header_pad: 0,
        max_request: 1 << 20,
        max_response: 1 << 20,
        max_response_cached: 4096,
        max_operations: 16,
        max_requests: slots,
    };
    SessionTerms {
        fore: channel,
        back: channel,
        persist: false,
        backchannel: true,
        callback_program: 7,
        callback_security: Bytes::new(),
    }
}

pub(super) fn range(first: u64, len: u64) -> ByteRange {
    ByteRange::finite(first, len).unwrap()
}

pub(super) fn refusal<T>(error: impl Into<FsError>) -> Result<T, FsError> {
    Err(error.into())
}

/// The newest version of a state.
pub(super) fn newest(id: StateId) -> Stateid {
    Stateid { id, seqid: 0 }
}

/// A v4.0 owner as a client keeps it: its next number.
pub(super) struct Owner40 {
    pub(super) client: ClientId,
    pub(super) name: Bytes,
    pub(super) seqid: u32,
}

impl Owner40 {
    pub(super) fn new(client: ClientId, name: &str, seqid: u32) -> Self {
        Self { client, name: bytes(name), seqid }
    }

    /// The key of the next step, by name.
    pub(super) fn by_name(&mut self) -> Once {
        self.step(OwnerSequence::Open(self.name.clone()))
    }

    /// The key of the next step, by a state.
    pub(super) fn of(&mut self, state: StateId) -> Once {
        self.step(OwnerSequence::Of(state))
    }

    fn step(&mut self, sequence: OwnerSequence) -> Once {
        let seqid = self.seqid;
        self.seqid += 1;
        OwnerKey { client: self.client, sequence, seqid, fingerprint: u64::from(seqid) }.into()
    }
}

impl Rig {
    pub(super) fn rows(&self, table: Table) -> usize {
        rows_of(&self.kv, table).len()
    }

    pub(super) fn on_client(&mut self, op: ClientOp) -> Result<ClientOutcome, FsError> {
        self.root(Op::Client(op)).map(|outcome| match outcome {
            Outcome::Client(outcome) => outcome,
            other => panic!("{other:?}"),
        })
    }

    pub(super) fn keyed(&mut self, cred: &Cred, once: Once, op: Op) -> Response {
        self.call(Call { origin: None, once: Some(once), cred: cred.clone(), client: None, op })
    }

    pub(super) fn on_state_by(&mut self, cred: &Cred, op: StateOp) -> Result<StateOutcome, FsError> {
        state_outcome(self.op(cred, Op::State(op)))
    }

    pub(super) fn on_state(&mut self, op: StateOp) -> Result<StateOutcome, FsError> {
        self.on_state_by(&Cred::root(), op)
    }

    pub(super) fn step(&mut self, once: Once, op: StateOp) -> Result<StateOutcome, FsError> {
        state_outcome(self.keyed(&Cred::root(), once, Op::State(op)))
    }

    pub(super) fn exchange(
        &mut self,
        name: &str,
        boot: u8,
        uid: u32,
        update: bool,
    ) -> Result<ClientOutcome, FsError> {
        self.on_client(ClientOp::ExchangeId {
            owner: bytes(name),
            verifier: verifier(boot),
            update,
            principal: Principal::Sys(uid),
            about: ClientAbout::default(),
        })
    }

    pub(super) fn create_session(
        &mut self,
        client: ClientId,
        sequence: u32,
        slots: u32,
    ) -> Result<ClientOutcome, FsError> {
        let (principal, terms) = (Principal::Sys(0), terms(slots));
        self.on_client(ClientOp::CreateSession { client, sequence, principal, terms })
    }

    /// A confirmed v4.1 client with a session of three slots.
    pub(super) fn v41(&mut self, name: &str) -> (ClientId, SessionId) {
        self.v41_boot(name, 1)
    }

    pub(super) fn v41_boot(&mut self, name: &str, boot: u8) -> (ClientId, SessionId) {
        let Ok(ClientOutcome::Exchanged { client, sequence, .. }) = self.exchange(name, boot, 0, false)
        else {
            panic!()
        };
        match self.create_session(client, sequence, 3) {
            Ok(ClientOutcome::Session { session, .. }) => (client, session),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn set_client_id(
        &mut self,
        name: &str,
        boot: u8,
        uid: u32,
        ident: u32,
    ) -> Result<ClientOutcome, FsError> {
        self.on_client(ClientOp::SetClientId {
            owner: bytes(name),
            verifier: verifier(boot),
            principal: Principal::Sys(uid),
            callback: callback(ident),
            about: ClientAbout::default(),
        })
    }

    pub(super) fn confirm(
        &mut self,
        client: ClientId,
        confirm: [u8; 8],
        uid: u32,
    ) -> Result<ClientOutcome, FsError> {
        self.on_client(ClientOp::Confirm { client, confirm, principal: Principal::Sys(uid) })
    }

    /// A confirmed v4.0 client.
    pub(super) fn v40(&mut self, name: &str) -> ClientId {
        self.v40_boot(name, 1)
    }

    pub(super) fn v40_boot(&mut self, name: &str, boot: u8) -> ClientId {
        match self.set_client_id(name, boot, 0, 1) {
            Ok(ClientOutcome::Set { client, confirm }) => {
                self.confirm(client, confirm, 0).unwrap();
                client
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn open(
        &mut self,
        client: ClientId,
        owner: &str,
        file: &Attr,
        share: Share,
    ) -> Result<Stateid, FsError> {
        let op = open_file(client, owner, file, share);
        self.on_state(op).map(|outcome| opened(&outcome))
    }

    pub(super) fn lock4(
        &mut self,
        client: ClientId,
        open: StateId,
        owner: &str,
        range: ByteRange,
        mode: LockMode,
    ) -> Result<StateOutcome, FsError> {
        let state = LockState::New { open: newest(open), owner: bytes(owner), seqid: 0 };
        self.on_state(StateOp::Lock { client, state, range, mode, wait: None })
    }

    pub(super) fn close(&mut self, client: ClientId, open: StateId) -> Result<Stateid, FsError> {
        self.on_state(StateOp::Close { client, open: newest(open) }).map(|outcome| stateid(&outcome))
    }

    /// Nothing is left of NFSv4 but what is remembered of expired clients.
    pub(super) fn check_nothing_left(&self) {
        let of_nfs4 =
            Table::ALL.into_iter().filter(|table| (Table::Client4..=Table::ClosedState).contains(table));
        let of_nfs4 = of_nfs4.chain([Table::FileDelegation, Table::Recalled, Table::Watch, Table::Notice]);
        let of_nfs4 = of_nfs4.chain([Table::Offload, Table::FileOffload, Table::ClientOffload]);
        for table in of_nfs4.filter(|table| *table != Table::ExpiredClient) {
            assert_eq!(self.rows(table), 0, "{}", table.name());
        }
        for table in [Table::Lock, Table::LockClient, Table::PendingGrant] {
            assert_eq!(self.rows(table), 0, "{}", table.name());
        }
    }
}

pub(super) fn open_file(client: ClientId, owner: &str, file: &Attr, share: Share) -> StateOp {
    let target = OpenTarget::File { ino: file.ino, generation: file.generation };
    StateOp::Open { client, owner: bytes(owner), share, target, delegate: None, under: None }
}

pub(super) fn open_name(client: ClientId, owner: &str, name: &str, share: Share) -> StateOp {
    let target = OpenTarget::Name { dir: ROOT, name: bytes(name), create: None };
    StateOp::Open { client, owner: bytes(owner), share, target, delegate: None, under: None }
}

pub(super) fn state_outcome(response: Response) -> Result<StateOutcome, FsError> {
    response.result.map(|outcome| match outcome {
        Outcome::State(outcome) => outcome,
        other => panic!("{other:?}"),
    })
}

pub(super) fn opened(outcome: &StateOutcome) -> Stateid {
    match outcome {
        StateOutcome::Opened { open, .. } => *open,
        other => panic!("{other:?}"),
    }
}

pub(super) fn stateid(outcome: &StateOutcome) -> Stateid {
    match outcome {
        StateOutcome::Opened { open: id, .. } | StateOutcome::State(id) | StateOutcome::Locked(id) => *id,
        other => panic!("{other:?}"),
    }
}

pub(super) const BAD_STATEID: FsError = FsError::State(StateError::BadStateid);
pub(super) const BAD_SEQID: FsError = FsError::State(StateError::BadSeqid);

/// Something in every table of NFSv4.
pub(super) fn fill(rig: &mut Rig) {
    let files: Vec<Attr> =
        (0..crate::limits::RELEASE_STATES_MAX + 1).map(|i| rig.file(&format!("open{i}"))).collect();
    let f = files[0].clone();
    let (gone, _) = rig.v41("gone");
    for file in &files {
        rig.open(gone, "o", file, READ).unwrap();
    }
    let old = rig.v40("old");
    let (client, session) = rig.v41("new");
    rig.exchange("waits", 1, 0, false).unwrap();
    let once = SlotKey { session, slot: 1, seqid: 1, fingerprint: 1, index: 0, before: bytes("b") };
    rig.keyed(&Cred::root(), once.into(), Op::State(open_file(client, "o", &f, BOTH))).result.unwrap();
    let open = rig.open(client, "o", &f, READ).unwrap();
    rig.lock4(client, open.id, "l", range(0, 10), LockMode::Shared).unwrap();
    let mut active = Owner40::new(old, "active", 1);
    let once = active.by_name();
    let open = opened(&rig.step(once, open_file(old, "active", &f, BOTH)).unwrap()).id;
    let once = active.of(open);
    rig.step(once, StateOp::Confirm { client: old, open: newest(open) }).unwrap();
    let once = active.of(open);
    let state = LockState::New { open: newest(open), owner: bytes("l"), seqid: 1 };
    rig.step(
        once,
        StateOp::Lock { client: old, state, range: range(20, 5), mode: LockMode::Exclusive, wait: None },
    )
    .unwrap();
    let mut idle = Owner40::new(old, "idle", 9);
    let once = idle.by_name();
    let open = opened(&rig.step(once, open_file(old, "idle", &f, READ)).unwrap()).id;
    let once = idle.of(open);
    rig.step(once, StateOp::Confirm { client: old, open: newest(open) }).unwrap();
    let once = idle.of(open);
    rig.step(once, StateOp::Close { client: old, open: newest(open) }).unwrap();
    for phase in 0..3 {
        let file = rig.file(&format!("delegated{phase}"));
        let delegation = given(&rig.delegate(client, &file, READING).unwrap()).id;
        if phase > 0 {
            rig.recall(&file, Intrusion::Change, None);
        }
        if phase > 1 {
            rig.on_state(StateOp::Revoke(delegation)).unwrap();
        }
    }
    let watched = rig.dir(ROOT, "watched");
    let watch = StateOp::DelegateDirectory {
        client,
        ino: watched,
        generation: rig.attr(watched).generation,
        export: ExportId(1),
        notices: NoticeKinds { adds: true, ..NoticeKinds::NONE },
    };
    rig.on_state(watch).unwrap();
    rig.dir(watched, "added");
    let (from, to) = (offloads::scattered(rig, "copied", 9), rig.file("copy"));
    offloads::begin(rig, client, (&from, 0), (&to, 0), 0, 1).unwrap();
    rig.on_client(ClientOp::Expire(gone)).unwrap();
}
