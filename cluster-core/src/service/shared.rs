//! What frontend and maintenance share: the parts of a member, what its calls have taken of its disk, and reads of its newest state.

use super::machine::{AppliedCounters, MetaMachine};
use super::proposer::{Propose, Proposer};
use super::published::Published;
use super::telling::Telling;
use crate::raft::group::{GroupError, Proposed, RaftGroup};
use crate::raft::log_store::LogStore;
use crate::raft::types::Completion;
use crate::state::{StateReader, StateStore};
use atoll_base::disk::Disk;
use atoll_base::seldom::Seldom;
use atoll_base::time::{Clock, Timestamp};
use atoll_meta::FsError;
use atoll_meta::service::Read;
use atoll_model::KvError;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// How often it is told that changes of damaged files are refused.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Propose for Arc<RaftGroup<MetaMachine>> {
    fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        RaftGroup::propose(self, commands, done);
    }

    fn propose_here(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        RaftGroup::propose_here(self, commands, done);
    }
}

/// What frontend and maintenance share.
pub(super) struct Shared {
    pub(super) cluster: [u8; 16],
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: LogStore,
    pub(super) store: Arc<StateStore>,
    pub(super) published: Arc<Published>,
    pub(super) group: Arc<RaftGroup<MetaMachine>>,
    pub(super) proposer: Arc<Proposer<Arc<RaftGroup<MetaMachine>>>>,
    pub(super) counters: Arc<AppliedCounters>,
    pub(super) clock: Arc<dyn Clock>,
    /// Little room is left on the disk, or in the log.
    pub(super) low_space: AtomicBool,
    /// Bytes that the disk has beyond the reserve, as of the last look.
    pub(super) room: AtomicU64,
    /// What the calls taken since the state was last made durable may still take of it: until then they are in memory,
    /// and the disk does not know of them.
    pub(super) pending: AtomicU64,
    pub(super) refused_for_space: AtomicU64,
    /// Bytes of calls since the state's file was measured.
    pub(super) taken_since_measured: AtomicU64,
    pub(super) telling: Telling,
    pub(super) told_damage: Seldom,
}

pub(super) struct Parts {
    pub(super) cluster: [u8; 16],
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: LogStore,
    pub(super) store: Arc<StateStore>,
    pub(super) published: Arc<Published>,
    pub(super) group: Arc<RaftGroup<MetaMachine>>,
    pub(super) counters: Arc<AppliedCounters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: super::Limits,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { cluster, disk, log, store, published, group, counters, clock, limits } = parts;
        let proposer = Proposer::new(group.clone(), limits);
        Arc::new(Self {
            cluster,
            disk,
            log,
            store,
            published,
            group,
            proposer,
            counters,
            clock,
            low_space: AtomicBool::new(false),
            room: AtomicU64::new(u64::MAX),
            pending: AtomicU64::new(0),
            refused_for_space: AtomicU64::new(0),
            taken_since_measured: AtomicU64::new(0),
            telling: Telling::default(),
            told_damage: Seldom::new(TELL_EVERY),
        })
    }

    /// Time for the next command, never behind an earlier one.
    pub(super) fn stamp(&self) -> Timestamp {
        self.published.advance_time(self.clock.now())
    }

    /// Waits until the published state is the newest there is.
    pub(super) async fn ready(&self) -> Result<(), FsError> {
        if self.group.reads_locally() {
            return Ok(());
        }
        // Boxed: the future is 3 KB, and would be in those of all reads, so of all requests.
        Box::pin(self.linearize()).await
    }

    #[cold]
    async fn linearize(&self) -> Result<(), FsError> {
        match self.group.linearize().await {
            Ok(()) if self.published.is_founded() => Ok(()),
            Ok(()) | Err(GroupError::NotLeader) => Err(FsError::Delay),
            Err(error) => {
                tracing::warn!(%error, "a read cannot be made sure to be the newest");
                Err(FsError::Delay)
            }
        }
    }

    /// Reads from the published view.
    pub(super) async fn read<R>(&self, f: impl FnOnce(&StateReader) -> Result<Read<R>, KvError>) -> Read<R> {
        self.ready().await?;
        f(self.published.current().view.reader()).unwrap_or_else(|error| Err(unreadable(&error)))
    }
}

#[cold]
pub(super) fn unreadable(error: &KvError) -> FsError {
    tracing::error!(%error, "the metadata store cannot be read");
    FsError::Io
}
