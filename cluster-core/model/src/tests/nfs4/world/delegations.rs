//! Delegations: who may have one, and whom it stands in the way of.

use super::super::{newest, stateid};
use super::{Delegation, World};
use crate::limits::{CLIENT_DELEGATIONS_MAX, DELEGATION_LOOK_MAX, FILE_DELEGATIONS_MAX, STATES_MAX};
use atoll_base::access::Cred;
use atoll_lockd::{LockMode, Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationPhase, DelegationWish, Intrusion};
use atoll_meta::nfs4::{StateError, StateOp, StateOutcome};
use atoll_meta::{Call, FsError, Op, RemoveKind};
use bytes::Bytes;

/// What must become of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Same,
    Upgraded,
    New,
    Contention,
    Resource,
    /// That depends on how much of a client that ended is left: any of these but what a living client forbids.
    Open,
}

pub(super) fn intrusion_of(share: Share) -> Intrusion {
    match share {
        Share { access: ShareBits::Read, deny: ShareBits::None } => Intrusion::Read,
        _ => Intrusion::Change,
    }
}

/// Whether who has this need not ask for such an open.
pub(super) fn covers(kind: DelegationKind, share: Share) -> bool {
    kind == DelegationKind::Write
        || share.access == ShareBits::Read && matches!(share.deny, ShareBits::None | ShareBits::Write)
}

fn forbids(kind: DelegationKind, intrusion: Intrusion) -> bool {
    (kind, intrusion) != (DelegationKind::Read, Intrusion::Read)
}

fn writes_or_denies_reading(share: Share) -> bool {
    share.access != ShareBits::Read || share.deny.contains(ShareBits::Read)
}

impl World {
    /// Those of others than `client` that are in force.
    fn others_delegations(&self, client: Option<usize>, file: usize) -> Vec<Delegation> {
        let lives = self.clients.iter().enumerate().filter(|(other, _)| Some(*other) != client);
        let its = lives.filter_map(|(_, life)| life.as_ref()?.delegations.get(&file));
        its.filter(|delegation| delegation.phase != DelegationPhase::Revoked).copied().collect()
    }

    pub(super) fn intrudes(&self, client: Option<usize>, file: usize, intrusion: Intrusion) -> bool {
        self.others_delegations(client, file).iter().any(|delegation| forbids(delegation.kind, intrusion))
    }

    pub(super) fn intrudes_on_dead(&self, file: usize, intrusion: Intrusion) -> bool {
        let ino = self.files[file].ino;
        self.dead_delegations.iter().any(|(at, kind)| *at == ino && forbids(*kind, intrusion))
    }

    /// What must become of a wish; `owner` if it comes with an OPEN.
    pub(super) fn fate(
        &self,
        client: usize,
        file: usize,
        wish: DelegationWish,
        owner: Option<usize>,
    ) -> Fate {
        let writes = wish.kind == DelegationKind::Write;
        let life = self.clients[client].as_ref().unwrap();
        let own = life.delegations.get(&file);
        match own {
            Some(own) if own.phase != DelegationPhase::Held => return Fate::Contention,
            Some(own) if own.kind == wish.kind || !writes => return Fate::Same,
            _ => {}
        }
        let others = self.others_delegations(Some(client), file);
        let is_free = |delegation: &Delegation| {
            let reads = delegation.kind == DelegationKind::Read && delegation.phase == DelegationPhase::Held;
            reads && !writes
        };
        let mut is_contended = !others.iter().all(is_free);
        let (mut states, mut suspects) = (0, 0);
        for (other, life) in self.clients.iter().enumerate() {
            let Some(life) = life else { continue };
            for (_, open) in life.opens.iter().filter(|((_, f), _)| *f == file) {
                let hinders = writes || writes_or_denies_reading(open.share);
                is_contended |= hinders && other != client;
                suspects += usize::from(hinders);
                states += 1;
            }
            for (_, lock) in life.locks.iter().filter(|((_, f), _)| *f == file) {
                let hinders = |mode: &LockMode| writes || *mode == LockMode::Exclusive;
                is_contended |= other != client && lock.held.iter().flatten().any(hinders);
                states += 1;
            }
            let delegation = life.delegations.get(&file);
            states += usize::from(delegation.is_some_and(|d| d.phase != DelegationPhase::Revoked));
        }
        is_contended |= suspects > 0 && states > DELEGATION_LOOK_MAX;
        let ino = self.files[file].ino;
        if is_contended {
            return Fate::Contention;
        }
        if self.dead.iter().any(|(at, ..)| *at == ino)
            || self.dead_delegations.iter().any(|(at, _)| *at == ino)
        {
            return Fate::Open;
        }
        if own.is_some() {
            return Fate::Upgraded;
        }
        let opens = usize::from(owner.is_some_and(|owner| !life.opens.contains_key(&(owner, file))));
        let full = others.len() >= FILE_DELEGATIONS_MAX
            || life.delegations.len() >= CLIENT_DELEGATIONS_MAX as usize
            || life.states() + opens >= STATES_MAX as usize;
        if full { Fate::Resource } else { Fate::New }
    }

    /// Takes notice of what became of a wish; whether the client has one now.
    pub(super) fn settle(
        &mut self,
        client: usize,
        file: usize,
        wish: DelegationWish,
        fate: Fate,
        outcome: &DelegationOutcome,
    ) -> bool {
        let its = &mut self.life(client).delegations;
        let had = its.get(&file).copied();
        let (stateid, kind, timestamps) = match (fate, outcome) {
            (Fate::Contention | Fate::Open, DelegationOutcome::Contention)
            | (Fate::Resource | Fate::Open, DelegationOutcome::Resource) => return false,
            (_, DelegationOutcome::Given { stateid, kind, timestamps }) => (*stateid, *kind, *timestamps),
            other => panic!("{other:?}"),
        };
        let expected = match (fate, had) {
            (Fate::Same, Some(had)) => had,
            (Fate::Upgraded | Fate::Open, Some(had)) => {
                Delegation { seqid: had.seqid + 1, kind: wish.kind, timestamps: wish.timestamps, ..had }
            }
            (Fate::New | Fate::Open, None) => {
                let (phase, timestamps) = (DelegationPhase::Held, wish.timestamps);
                Delegation { id: stateid.id, seqid: 1, kind: wish.kind, phase, timestamps }
            }
            other => panic!("{other:?}: {outcome:?}"),
        };
        let Delegation { id, seqid, .. } = expected;
        assert_eq!(
            (stateid.id, stateid.seqid, kind, timestamps),
            (id, seqid, expected.kind, expected.timestamps)
        );
        its.insert(file, expected);
        true
    }

    pub(super) fn delegate(&mut self, client: usize, file: usize, wish: DelegationWish) {
        let id = self.life(client).id;
        let fate = self.fate(client, file, wish, None);
        let (ino, generation) = (self.files[file].ino, self.files[file].generation);
        let outcome = self.rig.on_state(StateOp::Delegate { client: id, ino, generation, wish }).unwrap();
        let StateOutcome::Delegation(outcome) = outcome else { panic!("{outcome:?}") };
        self.settle(client, file, wish, fate, &outcome);
    }

    /// DELEGRETURN, or of a revoked one now and then FREE_STATEID.
    pub(super) fn give_back(&mut self, client: usize, file: usize) {
        let life = self.life(client);
        let (id, Some(had)) = (life.id, life.delegations.get(&file).copied()) else { return };
        let (delegation, state) = (newest(had.id), newest(had.id));
        let is_revoked = had.phase == DelegationPhase::Revoked;
        if had.id.0.is_multiple_of(2) {
            let answer = self.rig.on_state(StateOp::Free { client: id, state });
            if is_revoked {
                assert_eq!(stateid(&answer.unwrap()).seqid, had.seqid + 1);
                self.life(client).delegations.remove(&file);
                return;
            }
            assert_eq!(answer, Err(StateError::LocksHeld.into()));
        }
        let answer = self.rig.on_state(StateOp::Return { client: id, delegation }).unwrap();
        assert_eq!(stateid(&answer).seqid, had.seqid + 1);
        self.life(client).delegations.remove(&file);
    }

    /// `client` intends something.
    pub(super) fn recall(&mut self, client: usize, file: usize, intrusion: Intrusion) {
        let (ino, except) = (self.files[file].ino, Some(self.life(client).id));
        self.rig.on_state(StateOp::Recall { ino, intrusion, except }).unwrap();
        let told = self.rig.applied.as_ref().unwrap().touched.recalls;
        let mut any = false;
        for (other, life) in self.clients.iter_mut().enumerate() {
            let Some(life) = life.as_mut().filter(|_| other != client) else { continue };
            let Some(delegation) = life.delegations.get_mut(&file) else { continue };
            if delegation.phase == DelegationPhase::Held && forbids(delegation.kind, intrusion) {
                delegation.phase = DelegationPhase::Recalled;
                any = true;
            }
        }
        assert_eq!(told, any);
    }

    pub(super) fn revoke(&mut self, client: usize, file: usize) {
        let Some(had) = self.life(client).delegations.get_mut(&file) else { return };
        if had.phase == DelegationPhase::Recalled {
            had.phase = DelegationPhase::Revoked;
        }
        let id = had.id;
        self.rig.on_state(StateOp::Revoke(id)).unwrap();
    }

    /// A change of the file.
    pub(super) fn write(&mut self, client: usize, file: usize) {
        let id = self.life(client).id;
        let (ino, generation) = (self.files[file].ino, self.files[file].generation);
        let pieces = vec![self.rig.inline(0, b"changed")];
        let op = Op::Write { ino, generation, pieces, flush: None };
        let call = Call { origin: None, once: None, cred: Cred::root(), client: Some(id), op };
        match self.rig.call(call).result {
            Err(FsError::State(StateError::Delegated)) => {
                assert!(self.intrudes(Some(client), file, Intrusion::Change));
            }
            Err(FsError::Delay) => assert!(self.intrudes_on_dead(file, Intrusion::Change)),
            other => {
                other.unwrap();
                assert!(!self.intrudes(Some(client), file, Intrusion::Change), "changed under a delegation");
            }
        }
    }

    /// Nobody has a delegation of a file any more; until then it cannot be removed.
    pub(super) fn undelegate(&mut self, file: usize, name: &Bytes) {
        if self.intrudes(None, file, Intrusion::Change) {
            let remove = Op::Remove { dir: super::ROOT, name: name.clone(), kind: RemoveKind::Any };
            assert_eq!(self.rig.root(remove), Err(StateError::Delegated.into()));
        }
        for client in 0..self.clients.len() {
            if self.clients[client].is_some() {
                self.give_back(client, file);
            }
        }
        if self.intrudes_on_dead(file, Intrusion::Change) {
            self.rig.sweep();
        }
    }
}
