//! Delegations: who is given one, what it forbids, how it ends.

use super::super::rig::{ROOT, Rig, rows_of};
use super::{
    BAD_STATEID, BOTH, READ, WRITE, bytes, newest, open_file, open_name, opened, range, refusal,
    state_outcome, stateid,
};
use crate::limits::{CLIENT_DELEGATIONS_MAX, DELEGATION_LOOK_MAX, FILE_DELEGATIONS_MAX, STATES_MAX};
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, Delegated};
use atoll_base::id::Ino;
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationPhase, DelegationWish, Intrusion};
use atoll_meta::nfs4::{ClientId, StateError, StateKind, StateOp, StateOutcome, Stateid};
use atoll_meta::{Call, FsError, Op, Outcome};

const fn wish(kind: DelegationKind) -> DelegationWish {
    DelegationWish { kind, timestamps: false, instead_of_open: false }
}

pub(super) const READING: DelegationWish = wish(DelegationKind::Read);
pub(super) const WRITING: DelegationWish = wish(DelegationKind::Write);

pub(super) fn given(outcome: &DelegationOutcome) -> Stateid {
    match outcome {
        DelegationOutcome::Given { stateid, .. } => *stateid,
        other => panic!("{other:?}"),
    }
}

impl Rig {
    pub(super) fn delegate(
        &mut self,
        client: ClientId,
        file: &Attr,
        wish: DelegationWish,
    ) -> Result<DelegationOutcome, FsError> {
        let (ino, generation) = (file.ino, file.generation);
        match self.on_state(StateOp::Delegate { client, ino, generation, wish })? {
            StateOutcome::Delegation(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn recall(&mut self, file: &Attr, intrusion: Intrusion, except: Option<ClientId>) {
        let ino = file.ino;
        self.on_state(StateOp::Recall { ino, intrusion, except }).unwrap();
    }
}
