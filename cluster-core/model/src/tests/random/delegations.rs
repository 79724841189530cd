//! Steps that give and end delegations.

use super::super::world::delegations::{Delegation, Fate};
use super::Run;
use crate::limits::CLIENT_DELEGATIONS_MAX;
use crate::read;
use atoll_base::attr::FileKind;
use atoll_base::id::ExportId;
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationWish, Intrusion};
use atoll_meta::nfs4::{StateId, StateOp, StateOutcome, Stateid};

impl Run {
    fn on_state(&mut self, op: StateOp) -> StateOutcome {
        let outcome = self.rig.on_state(op).unwrap();
        self.world.now = self.rig.model.now();
        outcome
    }

    pub(super) fn delegate(&mut self, ino: u8, who: u8, writes: bool) {
        // Mostly files.
        let kind = if ino.is_multiple_of(4) { FileKind::Directory } else { FileKind::Regular };
        let (ino, generation) = self.pick_kind(ino / 4, kind);
        let Some(node) = self.world.nodes.get(&ino).filter(|node| node.generation == generation) else {
            return;
        };
        let kind = match node.kind {
            FileKind::Directory => DelegationKind::Directory,
            FileKind::Regular if writes => DelegationKind::Write,
            FileKind::Regular => DelegationKind::Read,
            _ => return,
        };
        let who = usize::from(who);
        let wish = DelegationWish { kind, timestamps: false, instead_of_open: false, export: ExportId(1) };
        let fate = self.world.fate(who, ino, wish, CLIENT_DELEGATIONS_MAX);
        let client = self.clients[who];
        let outcome = self.on_state(StateOp::Delegate { client, ino, generation, wish });
        match (fate, outcome) {
            (Fate::Given, StateOutcome::Delegation(DelegationOutcome::Given { stateid, kind, .. })) => {
                let delegation = Delegation { id: stateid.id, kind, recalled: false };
                let had = self.world.delegations.insert((who, ino), delegation);
                assert!(had.is_none_or(|had| had.id == stateid.id));
            }
            (Fate::Contention, StateOutcome::Delegation(DelegationOutcome::Contention))
            | (Fate::Resource, StateOutcome::Delegation(DelegationOutcome::Resource)) => {}
            other => panic!("{other:?}"),
        }
        self.compare();
    }

    pub(super) fn give_back(&mut self, which: u8) {
        let Some(last) = self.world.delegations.len().checked_sub(1) else { return };
        let ((who, ino), had) = self
            .world
            .delegations
            .iter()
            .nth(usize::from(which) % (last + 1))
            .map(|(k, d)| (*k, *d))
            .unwrap();
        let delegation = Stateid { id: had.id, seqid: 0 };
        let client = self.clients[who];
        if had.recalled && which.is_multiple_of(2) {
            // Taken away instead, which frees it all the same.
            self.on_state(StateOp::Revoke(had.id));
        }
        self.on_state(StateOp::Return { client, delegation });
        self.world.undelegate(who, ino);
        self.compare();
    }

    pub(super) fn recall(&mut self, which: u8, change: bool) {
        let Some(last) = self.world.delegations.len().checked_sub(1) else { return };
        let (_, ino) = *self.world.delegations.keys().nth(usize::from(which) % (last + 1)).unwrap();
        let intrusion = if change { Intrusion::Change } else { Intrusion::Read };
        self.on_state(StateOp::Recall { ino, intrusion, except: None });
        for ((_, at), delegation) in &mut self.world.delegations {
            if *at == ino && (change || delegation.kind == DelegationKind::Write) {
                delegation.recalled = true;
            }
        }
        let recalled = self.world.delegations.values().filter(|delegation| delegation.recalled).count();
        assert_eq!(read::recalled(&self.rig.kv, StateId(0), 100).unwrap().len(), recalled);
        self.compare();
    }
}
