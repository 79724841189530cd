//! The metadata service in numbers, for `atoll status`.

use super::published::CachesStatus;
use super::{LocalMetadata, ProposerStatus};
use crate::log;
use crate::raft::group::GroupStatus;
use atoll_model::read::{self, Counters};
use std::sync::atomic::Ordering;

/// All figures. Those of the state are `None` before the first state is there.
#[derive(Clone, Debug, Default)]
pub struct MetadataStatus {
    /// Raft.
    pub group: GroupStatus,
    /// The log.
    pub log: log::Status,
    /// Bytes of the state's file.
    pub state_bytes: u64,
    /// What is held in memory of the state.
    pub caches: CachesStatus,
    /// The queue of changes.
    pub proposer: ProposerStatus,
    /// Commands applied since the start, replayed ones included.
    pub commands: u64,
    /// Commits of the state since the start; `commands / commits` is the gain of batching.
    pub commits: u64,
    /// Commands that were refused, since the start.
    pub refusals: u64,
    /// Calls refused for want of room on the disk, since the start.
    pub refused_for_space: u64,
    /// Whether calls that take space are refused now.
    pub low_space: bool,
    /// Whether every change is refused, because log or store failed.
    pub failed: bool,
    /// Figures of the state: inodes, bytes, outcomes kept and the oldest of them, garbage, leases.
    pub state: Option<Counters>,
}

impl LocalMetadata {
    /// The figures of this moment.
    pub fn status(&self) -> MetadataStatus {
        let shared = &self.shared;
        MetadataStatus {
            group: shared.group.status(),
            log: shared.log.status(),
            state_bytes: shared.store.file_len().unwrap_or(0),
            caches: shared.published.cache_status(),
            proposer: shared.proposer.status(),
            commands: shared.counters.commands.load(Ordering::Relaxed),
            commits: shared.counters.commits.load(Ordering::Relaxed),
            refusals: shared.counters.refusals.load(Ordering::Relaxed),
            refused_for_space: shared.refused_for_space.load(Ordering::Relaxed),
            low_space: shared.low_space.load(Ordering::Relaxed) || shared.log.low_space(),
            failed: shared.proposer.has_failed(),
            state: read::counters(shared.published.current().view.reader()).ok(),
        }
    }
}
