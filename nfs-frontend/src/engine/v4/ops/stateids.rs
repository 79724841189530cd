//! Stateids: between wire and numbers, and what they permit (RFC 8881 §8.2, §9.1.2; RFC 7530 §9.1.4).
//!
//! On the wire a stateid's `other` is the state's number (8 bytes, big-endian) and a mark of the cluster (4 bytes).

use crate::engine::resolve::Node;
use crate::engine::v4::compound::{Compound, Done};
use atoll_base::block::BlockService;
use atoll_lockd::ShareBits;
use atoll_meta::nfs4::{ClientId, State, StateError, StateId, StateKind, Stateid};
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs4::{NfsStat4, StateId4};

/// What a stateid is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// READ and its like.
    Read,
    /// WRITE, changes of size.
    Write,
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    fn mark(&self) -> [u8; 4] {
        ((self.engine.meta().verifier() >> 32) as u32).to_be_bytes()
    }

    /// The wire form.
    pub(crate) fn wire_stateid(&self, stateid: Stateid) -> StateId4 {
        let mut other = [0; 12];
        other[..8].copy_from_slice(&stateid.id.0.to_be_bytes());
        other[8..].copy_from_slice(&self.mark());
        StateId4 { seqid: stateid.seqid, other }
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
        if mark != self.mark() {
            // Of another cluster, or made up.
            return Err(if self.minor == 0 { NfsStat4::StaleStateId } else { NfsStat4::BadStateId });
        }
        if wire.seqid == 0 && self.minor == 0 {
            return Err(NfsStat4::BadStateId);
        }
        Ok(Stateid { id: StateId(u64::from_be_bytes([a, b, c, d, e, f, g, h])), seqid: wire.seqid })
    }

    /// The state that a stateid names, which must be the caller's and of the present version.
    pub(crate) async fn state(&self, stateid: Stateid) -> Done<State> {
        let state = self.engine.meta().state(stateid.id).await?;
        let state = state.ok_or(FsError::State(StateError::BadStateid))?;
        if self.client.is_some_and(|client| client != state.client) {
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
            if !bypass && self.engine.meta().is_denied(node.handle.ino, access).await? {
                return Err(NfsStat4::Locked.into());
            }
            return Ok(());
        }
        let state = self.state(self.stateid_of(&wire)?).await?;
        if state.ino != node.handle.ino || state.generation != node.handle.generation {
            return Err(NfsStat4::BadStateId.into());
        }
        let share = match state.kind {
            StateKind::Open { confirmed: false, .. } => return Err(NfsStat4::BadStateId.into()),
            StateKind::Open { share, .. } | StateKind::Lock { share, .. } => share,
        };
        let permitted = match what {
            // Who may write may read, too: clients fill pages before they write into them (RFC 8881 §18.22.3).
            Use::Read => true,
            Use::Write => share.access.contains(ShareBits::Write),
        };
        if permitted { Ok(()) } else { Err(NfsStat4::OpenMode.into()) }
    }

    /// The client of a request about opens and locks: the session's, or in v4.0 the one that is named.
    pub(crate) async fn acting(&self, named: u64) -> Done<ClientId> {
        if let Some(client) = self.client {
            return Ok(client);
        }
        let id = ClientId(named);
        match self.engine.meta().client(id).await? {
            Some(client) if client.confirmed && client.minor == 0 => {
                self.engine.v4.leases.renew(id);
                Ok(id)
            }
            _ => Err(NfsStat4::StaleClientId.into()),
        }
    }
}
