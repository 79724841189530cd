//! The bridge from the log to the replicated state: entries in order into the store, one batch for all that are ready.
//!
//! Order of a batch: apply every command to the state in memory (the log is the durable copy), wait until the log has it if openraft was told early
//! ([`Early`]), publish the new state, answer. So whoever has an answer reads the state that the answer tells of.
//!
//! A *snapshot* of this state machine costs nothing: it is the store itself once it was flushed to its file. It is
//! turned into bytes ([`crate::state::Frames`]) only when a member has to be sent one.

use super::executor;
use super::log_store::Early;
use super::types::{Batch, BatchOutcome, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::state::{SnapshotData, StateError, StateStore, StateWriter, View};
use atoll_base::panic;
use atoll_meta::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most entries that one batch takes, and bytes at which it takes no more: bound memory during a replay.
const ENTRIES_PER_COMMIT: usize = 64;
/// See [`ENTRIES_PER_COMMIT`].
const BYTES_PER_COMMIT: usize = 8 << 20;

/// What the commands mean. Deterministic: the same commands on the same state give the same state and responses.
pub trait Machine: Send + Sync + 'static {
    /// Takes over a state that was opened or installed, forgetting any former one.
    fn load(&mut self, view: Arc<View>) -> Result<(), StateError>;

    /// Applies one command. An error is a failure of the store, never of the command.
    fn apply(&mut self, state: &mut StateWriter<'_>, command: &Bytes) -> Result<Response, StateError>;

    /// Writes back what the machine held during the batch.
    fn end_batch(&mut self, state: &mut StateWriter<'_>) -> Result<(), StateError>;

    /// The batch is finished and `view` shows it; responses are sent when this returns.
    fn publish(&mut self, view: Arc<View>) -> Result<(), StateError>;
}

/// The state machine as openraft drives it.
pub struct StateMachine<M> {
    store: Arc<StateStore>,
    machine: M,
    log: Arc<dyn Early>,
    /// Whether a snapshot was built or installed since the start; before, there is none to speak of.
    has_snapshot: Arc<AtomicBool>,
}

impl<M: Machine> StateMachine<M> {
    /// Loads the state.
    pub fn new(store: Arc<StateStore>, mut machine: M, log: Arc<dyn Early>) -> Result<Self, StateError> {
        machine.load(Arc::new(store.view()))?;
        Ok(Self { store, machine, log, has_snapshot: Arc::default() })
    }

    /// Applies a batch and publishes it; what came of each entry.
    fn apply_entries(&mut self, entries: Vec<Entry>) -> Result<Vec<BatchOutcome>, StateError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        let (machine, log) = (&mut self.machine, &self.log);
        self.store.write(|state| {
            let mut last = None;
            for entry in entries {
                last = Some(entry.log_id());
                outcomes.push(match entry.payload {
                    EntryPayload::Blank => BatchOutcome::default(),
                    EntryPayload::Normal(Batch(commands)) => {
                        let responses = commands.iter().map(|command| machine.apply(state, command));
                        BatchOutcome(responses.collect::<Result<_, _>>()?)
                    }
                    EntryPayload::Membership(membership) => {
                        state.set_membership(StoredMembership::new(last, membership));
                        BatchOutcome::default()
                    }
                });
            }
            machine.end_batch(state)?;
            if let Some(last) = last {
                state.set_applied(last);
            }
            // Nothing of the batch shows before, and nothing of it remains if this fails.
            Ok(log.settle()?)
        })?;
        self.machine.publish(Arc::new(self.store.view()))?;
        Ok(outcomes)
    }
}

impl<M: Machine> RaftStateMachine<TypeConfig> for StateMachine<M> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let meta = self.store.view().meta();
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        loop {
            let (mut ready, mut responders, mut bytes) = (Vec::new(), Vec::new(), 0);
            while ready.len() < ENTRIES_PER_COMMIT
                && bytes < BYTES_PER_COMMIT
                && let Some(item) = entries.next().await
            {
                let (entry, responder) = item?;
                if let EntryPayload::Normal(Batch(commands)) = &entry.payload {
                    bytes += commands.iter().map(Bytes::len).sum::<usize>();
                }
                ready.push(entry);
                responders.push(responder);
            }
            if ready.is_empty() {
                return Ok(());
            }
            // openraft does not see its worker panic: the group would wait for this batch for ever, and all callers with it.
            // Callers are answered, or let go of, when the store is free again.
            let applied = catch_unwind(AssertUnwindSafe(|| self.apply_entries(ready)));
            // What is half-way done in the machine does not count: nothing is applied any more.
            let applied = applied.unwrap_or_else(|cause| {
                Err(StateError::store(format_args!("applying an entry panicked: {}", panic::text(&*cause))))
            });
            let outcomes = applied.inspect_err(|error| {
                tracing::error!(%error, "the metadata state cannot be changed any more");
            })?;
            for (responder, outcome) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
            executor::through();
        }
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        SnapshotBuilder {
            store: self.store.clone(),
            view: Arc::new(self.store.view()),
            has_snapshot: self.has_snapshot.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let store = self.store.clone();
        let installed = blocking(move || store.install(snapshot)).await?;
        if installed != *meta {
            return Err(StateError::Damaged(format!("snapshot {installed} came as {meta}")).into());
        }
        self.machine.load(Arc::new(self.store.view()))?;
        self.has_snapshot.store(true, Ordering::Release);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<SnapshotData>>, io::Error> {
        if !self.has_snapshot.load(Ordering::Acquire) {
            return Ok(None);
        }
        let view = Arc::new(self.store.view());
        Ok(Some(Snapshot { meta: view.meta(), snapshot: SnapshotData::View(view) }))
    }
}

/// Makes a state durable and calls it a snapshot.
pub struct SnapshotBuilder {
    store: Arc<StateStore>,
    view: Arc<View>,
    has_snapshot: Arc<AtomicBool>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot<SnapshotData>, io::Error> {
        let view = self.view.clone();
        // The log may be purged up to what is called a snapshot, so what the view shows must survive first.
        let store = self.store.clone();
        blocking(move || store.commit_durable()).await?;
        self.has_snapshot.store(true, Ordering::Release);
        Ok(Snapshot { meta: view.meta(), snapshot: SnapshotData::View(view) })
    }
}

/// Runs work that waits for the disk on a thread of its own, not where the tasks of the group run.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StateError> + Send + 'static,
) -> Result<R, StateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StateError::store(error)),
    }
}
