//! The model as the Raft group's state machine.
//!
//! The first command of a group's life is its *genesis*: cluster id and time of the first state, so that every member that
//! applies the log from its beginning holds the same bytes.

use super::published::{BatchChanges, Published};
use crate::raft::state_machine::Machine;
use crate::state::{StateError, StateWriter, View};
use atoll_base::time::Timestamp;
use atoll_meta::{Outcome, Response};
use atoll_model::{Command, Model};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins a genesis. A command begins with its format version, which stays below.
const GENESIS: &[u8; 8] = b"\xffGENESIS";

/// The genesis command.
pub(super) fn genesis(cluster: [u8; 16], stamp: Timestamp) -> Bytes {
    let mut bytes = GENESIS.to_vec();
    bytes.extend_from_slice(&cluster);
    bytes.extend_from_slice(&stamp.secs.to_le_bytes());
    bytes.extend_from_slice(&stamp.nanos.to_le_bytes());
    bytes.into()
}

fn parse_genesis(command: &[u8]) -> Option<([u8; 16], Timestamp)> {
    let body = command.strip_prefix(GENESIS)?;
    let (cluster, rest) = body.split_first_chunk::<16>()?;
    let (secs, nanos) = rest.split_first_chunk::<8>()?;
    let nanos = u32::from_le_bytes(nanos.try_into().ok()?);
    Some((*cluster, Timestamp { secs: i64::from_le_bytes(*secs), nanos }))
}

/// Counts what was applied since the start.
#[derive(Default)]
pub(super) struct AppliedCounters {
    pub(super) commands: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) refusals: AtomicU64,
}

/// The state machine of the metadata group.
pub struct MetaMachine {
    /// `None` before the genesis.
    model: Option<Model>,
    published: Arc<Published>,
    changes: BatchChanges,
    counters: Arc<AppliedCounters>,
}

impl MetaMachine {
    pub(super) fn new(published: Arc<Published>, counters: Arc<AppliedCounters>) -> Self {
        Self { model: None, published, changes: BatchChanges::default(), counters }
    }

    fn begin(&mut self, state: &mut StateWriter<'_>, command: &[u8]) -> Result<Response, StateError> {
        let (cluster, stamp) = parse_genesis(command)
            .ok_or_else(|| StateError::Damaged("the log does not begin with a genesis".into()))?;
        if self.model.is_none() {
            Model::bootstrap(state, cluster, stamp)?;
            let model = Model::load(state)?;
            self.published.set_once_index(model.once_index());
            // As if everything had been touched: there was nothing that a cache could hold.
            self.changes.add(first_touch(&model), std::iter::empty());
            self.published.advance_time(stamp);
            self.model = Some(model);
        }
        // A second one comes from a founder that stopped before it saw the first applied.
        Ok(Response { result: Ok(Outcome::Done), changes: Vec::new() })
    }
}

fn first_touch(model: &Model) -> atoll_model::Touched {
    atoll_model::Touched { exports: true, verifier: Some(model.verifier()), ..Default::default() }
}

impl Machine for MetaMachine {
    fn load(&mut self, view: Arc<View>) -> Result<(), StateError> {
        self.changes = BatchChanges::default();
        self.model = None;
        if Model::is_bootstrapped(view.reader())? {
            let model = Model::load(view.reader())?;
            self.published.set_once_index(model.once_index());
            self.model = Some(model);
            self.published.replace(view)?;
        }
        Ok(())
    }

    fn apply(&mut self, state: &mut StateWriter<'_>, command: &Bytes) -> Result<Response, StateError> {
        let model = match &mut self.model {
            Some(model) if !command.starts_with(GENESIS) => model,
            _ => return self.begin(state, command),
        };
        let command = Command::decode(command)
            .map_err(|e| StateError::Damaged(format!("a command of the log: {e}")))?;
        let applied = model.apply(state, model.last_txn() + 1, &command)?;
        self.published.advance_time(model.now());
        let response = applied.response;
        // What was refused changed nothing.
        for (ino, error) in applied.touched.lost.iter().filter(|_| response.result.is_ok()) {
            tracing::error!(%ino, %error, "a change needed bytes that are damaged here: they are lost; `atoll fsck` tells the file's path");
        }
        self.counters.commands.fetch_add(1, Ordering::Relaxed);
        if response.result.is_err() {
            self.counters.refusals.fetch_add(1, Ordering::Relaxed);
        }
        let made = match &response.result {
            Ok(Outcome::Created { attr, .. }) => Some(attr),
            _ => None,
        };
        self.changes.add(applied.touched, response.changes.iter().map(|c| &c.after).chain(made));
        Ok(response)
    }

    fn end_batch(&mut self, state: &mut StateWriter<'_>) -> Result<(), StateError> {
        if let Some(model) = &mut self.model {
            model.end_batch(state)?;
        }
        Ok(())
    }

    fn publish(&mut self, view: Arc<View>) -> Result<(), StateError> {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.published.publish(view, std::mem::take(&mut self.changes))?;
        Ok(())
    }
}

/// Whether a call takes room that is not given back by itself. Such calls are refused when there is little left; those that
/// give room back, and those that finish what was promised (flushes, lock state), go on.
pub(super) fn takes_space(op: &atoll_meta::Op) -> bool {
    use atoll_meta::Op;
    use atoll_meta::lock::LockOp;
    use atoll_meta::nfs4::{OpenTarget, StateOp};
    use atoll_meta::offload::OffloadOp;
    match op {
        Op::Create { .. }
        | Op::Link { .. }
        | Op::BeginDirty { .. }
        | Op::Repack { .. }
        | Op::Touch(_)
        | Op::CreateVolume { .. } => true,
        // They may add rows, if fewer bytes.
        Op::Clone { .. } | Op::Extend { .. } => true,
        Op::Offload(op) => matches!(op, OffloadOp::Copy { .. } | OffloadOp::Step { .. }),
        Op::Write { flush, .. } => flush.is_none(),
        Op::SetXattr { value, .. } => value.is_some(),
        Op::Lock(op) => matches!(op, LockOp::Lock { .. } | LockOp::Share { .. }),
        Op::State(StateOp::Open { target, .. }) => {
            matches!(target, OpenTarget::Name { create: Some(_), .. })
        }
        // As with clients.
        Op::State(_) => false,
        Op::SetAttr { .. }
        | Op::Punch { .. }
        | Op::Remove { .. }
        | Op::Rename { .. }
        | Op::RegisterFrontend { .. }
        | Op::DataLost { .. }
        // Few, and who can mount decides whether anybody can make room.
        | Op::PutExport(_)
        | Op::RemoveExport(_)
        | Op::Collected(_)
        | Op::Sweep
        | Op::Refused(_)
        | Op::DataRefused
        // Bounded by client, given back when the client ends.
        | Op::Client(_) => false,
    }
}
