//! Stateids: between wire and numbers, and what they permit (RFC 8881 §8.2, §9.1.2; RFC 7530 §9.1.4).
//!
//! On the wire a stateid's `other` is the state's number (8 bytes, big-endian) and whose it is (4 bytes): both halves of the client id,
//! combined. One of them marks the cluster, so that stateids of another one are told; the other is found again when the state
//! itself has gone with its client, for in v4.0 the stateid alone must tell that (RFC 7530 §13.1.5.3).

use crate::engine::Met;
use crate::engine::resolve::Node;
use crate::engine::v4::compound::{Compound, Done, Halt};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_lockd::{Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationPhase, Intrusion};
use atoll_meta::nfs4::{ClientId, State, StateError, StateId, StateKind, Stateid};
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs4::{ArgOp4, Locker4, NfsStat4, StateId4};

/// What a stateid is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// READ and its like.
    Read,
    /// WRITE, changes of size.
    Write,
}

/// What stands for a client in its stateids.
fn whose(client: ClientId) -> [u8; 4] {
    ((client.0 >> 32) as u32 ^ client.0 as u32).to_be_bytes()
}

/// The wire form of a client's stateid.
pub(crate) fn wire_stateid(stateid: Stateid, client: Option<ClientId>) -> StateId4 {
    let mut other = [0; 12];
    other[..8].copy_from_slice(&stateid.id.0.to_be_bytes());
    other[8..].copy_from_slice(&client.map_or([0; 4], whose));
    StateId4 { seqid: stateid.seqid, other }
}

/// The stateid by which an operation of v4.0 names its caller's state.
fn named(op: &ArgOp4) -> Option<&StateId4> {
    match op {
        ArgOp4::Close(args) => Some(&args.open_stateid),
        ArgOp4::DelegReturn(args) => Some(&args.deleg_stateid),
        ArgOp4::Lock(args) => Some(match &args.locker {
            Locker4::Exist(owner) => &owner.lock_stateid,
            Locker4::New(owner) => &owner.open_stateid,
        }),
        ArgOp4::LockU(args) => Some(&args.lock_stateid),
        ArgOp4::OpenConfirm(args) => Some(&args.open_stateid),
        ArgOp4::OpenDowngrade(args) => Some(&args.open_stateid),
        ArgOp4::Read(args) => Some(&args.stateid),
        ArgOp4::SetAttr(args) => Some(&args.stateid),
        ArgOp4::Write(args) => Some(&args.stateid),
        _ => None,
    }
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// The wire form.
    pub(crate) fn wire_stateid(&self, stateid: Stateid) -> StateId4 {
        wire_stateid(stateid, self.asking())
    }

    /// The current stateid in the place of its alias.
    pub(crate) fn actual(&self, wire: &StateId4) -> Result<StateId4, NfsStat4> {
        if self.minor > 0 && *wire == StateId4::CURRENT {
            return self.stateid.ok_or(NfsStat4::BadStateId);
        }
        Ok(*wire)
    }

    /// A stateid that names a state.
    pub(crate) fn stateid_of(&self, wire: &StateId4) -> Result<Stateid, NfsStat4> {
        let wire = self.actual(wire)?;
        if wire.is_special() {
            return Err(NfsStat4::BadStateId);
        }
        let [a, b, c, d, e, f, g, h, mark @ ..] = wire.other;
        if self.client.is_some_and(|client| whose(client) != mark) {
            return Err(NfsStat4::BadStateId);
        }
        if wire.seqid == 0 && self.minor == 0 {
            return Err(NfsStat4::BadStateId);
        }
        Ok(Stateid { id: StateId(u64::from_be_bytes([a, b, c, d, e, f, g, h])), seqid: wire.seqid })
    }

    /// The client that a stateid of v4.0 names, which is heard by that, and the state. It may have been closed by its owner's last
    /// step.
    pub(crate) async fn holder(&self, wire: &StateId4) -> Done<(ClientId, StateId)> {
        let stateid = self.stateid_of(wire)?;
        match self.engine.meta().client_of(stateid.id).await? {
            Some(client) if wire.other.ends_with(&whose(client)) => {
                self.engine.v4.leases.renew(client);
                Ok((client, stateid.id))
            }
            _ => Err(self.gone(wire).await?.into()),
        }
    }

    /// Why there is no state of this stateid.
    async fn gone(&self, wire: &StateId4) -> Done<NfsStat4> {
        if self.minor > 0 {
            return Ok(NfsStat4::BadStateId);
        }
        let [.., a, b, c, d] = wire.other;
        let cluster = (self.engine.meta().verifier() >> 32) as u32;
        let number = u32::from_be_bytes([a, b, c, d]) ^ cluster;
        let client = ClientId(u64::from(cluster) << 32 | u64::from(number));
        match self.engine.meta().standing(client, 0).await {
            Ok(()) => Ok(NfsStat4::BadStateId),
            Err(FsError::State(StateError::Expired)) => Ok(NfsStat4::Expired),
            // Of another cluster, or made up.
            Err(FsError::State(StateError::StaleClient)) => Ok(NfsStat4::StaleStateId),
            Err(e) => Err(e.into()),
        }
    }

    /// The state that a stateid names, which must be the caller's and of the present version.
    pub(crate) async fn state(&self, wire: &StateId4) -> Done<State> {
        let stateid = self.stateid_of(wire)?;
        let state = match self.engine.meta().state(stateid.id).await? {
            Some(state) if self.client.is_some_and(|client| client != state.client) => {
                return Err(NfsStat4::BadStateId.into());
            }
            Some(state) if self.actual(wire)?.other.ends_with(&whose(state.client)) => state,
            _ => return Err(self.gone(wire).await?.into()),
        };
        if self.engine.v4.closing.has(state.stateid) {
            return Err(NfsStat4::BadStateId.into());
        }
        let ahead = stateid.seqid.wrapping_sub(state.stateid.seqid) as i32;
        match stateid.seqid {
            0 => {}
            _ if ahead < 0 => return Err(NfsStat4::OldStateId.into()),
            _ if ahead > 0 => return Err(NfsStat4::BadStateId.into()),
            _ => {}
        }
        if self.minor == 0 {
            self.engine.v4.leases.renew(state.client);
        }
        Ok(state)
    }

    /// In v4.0, where there is no session, the client whose state a COMPOUND names is the one that asks, from its beginning: Linux asks for attributes before it
    /// returns a delegation or closes a file. Taken for another's, the question would wait for the very return that comes behind it.
    pub(crate) async fn learn_client(&mut self, ops: &[ArgOp4]) {
        if self.minor == 0
            && let Some(wire) = ops.iter().filter_map(named).find(|wire| !wire.is_special())
            && let Ok(stateid) = self.stateid_of(wire)
            && let Ok(Some(client)) = self.engine.meta().client_of(stateid.id).await
            && wire.other.ends_with(&whose(client))
        {
            self.acts_for = Some(client);
        }
    }

    /// Whether somebody denies access to whoever has no open, after lapsed clients have made way.
    pub(crate) async fn is_denied_to_all(&self, ino: Ino, access: ShareBits) -> Done<bool> {
        let meta = self.engine.meta();
        if !meta.is_denied(ino, access).await? {
            return Ok(false);
        }
        let share = Share { access, deny: ShareBits::None };
        let freed = self.engine.make_way(ino, self.client.unwrap_or(ClientId(0)), share).await?;
        Ok(!freed || meta.is_denied(ino, access).await?)
    }

    /// Whether a stateid allows its use on a file. The caller's permission is another matter.
    pub(crate) async fn check_use(&self, wire: &StateId4, node: &Node, what: Use) -> Done<()> {
        let wire = self.actual(wire)?;
        if wire == StateId4::ANONYMOUS || wire == StateId4::READ_BYPASS {
            let access = match what {
                Use::Read => ShareBits::Read,
                Use::Write => ShareBits::Write,
            };
            // §9.1.2: reads past locks are past share reservations too.
            let bypass = wire == StateId4::READ_BYPASS && what == Use::Read;
            if !bypass && self.is_denied_to_all(node.handle.ino, access).await? {
                return Err(NfsStat4::Locked.into());
            }
            // A change is refused by the store itself.
            if what == Use::Read {
                let attr = self.node_attr(node).await?;
                if self.engine.may_be_elsewhere(&attr, self.asking()).await? {
                    return Err(Halt::Delegated(Met::new(attr.ino, Intrusion::Read)));
                }
            }
            return Ok(());
        }
        let state = self.state(&wire).await?;
        if state.ino != node.handle.ino || state.generation != node.handle.generation {
            return Err(NfsStat4::BadStateId.into());
        }
        let share = match state.kind {
            StateKind::Open { confirmed: false, .. } => return Err(NfsStat4::BadStateId.into()),
            StateKind::Open { share, .. } | StateKind::Lock { share, .. } => share,
            StateKind::Delegation { phase: DelegationPhase::Revoked, .. } => {
                return Err(self.revoked().into());
            }
            StateKind::Delegation { kind: DelegationKind::Directory, .. } => {
                return Err(NfsStat4::BadStateId.into());
            }
            StateKind::Delegation { kind: DelegationKind::Read, .. } => {
                Share { access: ShareBits::Read, deny: ShareBits::None }
            }
            StateKind::Delegation { kind: DelegationKind::Write, .. } => {
                Share { access: ShareBits::Both, deny: ShareBits::None }
            }
        };
        let permitted = match what {
            // Who may write may read, too: clients fill pages before they write into them (RFC 8881 §18.22.3).
            Use::Read => true,
            Use::Write => share.access.contains(ShareBits::Write),
        };
        if permitted { Ok(()) } else { Err(NfsStat4::OpenMode.into()) }
    }

    /// What a stateid of a revoked delegation is refused with; v4.0 has no word for it.
    pub(crate) fn revoked(&self) -> NfsStat4 {
        if self.minor == 0 { NfsStat4::BadStateId } else { NfsStat4::DelegRevoked }
    }

    /// The client of a request about opens and locks: the session's, or in v4.0 the one that is named.
    pub(crate) async fn acting(&self, named: u64) -> Done<ClientId> {
        if let Some(client) = self.client {
            return Ok(client);
        }
        let id = ClientId(named);
        self.engine.meta().standing(id, 0).await?;
        self.engine.v4.leases.renew(id);
        Ok(id)
    }
}
