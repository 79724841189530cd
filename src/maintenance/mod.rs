//! What a node does for its data when nobody asks: collects unreferenced blocks, repacks fragmented files, compacts segments.

mod collector;
mod repacker;

pub use collector::{collect, collect_orphans};
pub use repacker::{Repacker, Round};

use atoll_base::access::Cred;
use atoll_base::block::BlockError;
use atoll_blockstore::{BlockStore, CompactStep};
use atoll_core::service::LocalMetadata;
use atoll_meta::call::Origin;
use atoll_meta::service::MetadataService;
use atoll_meta::{Call, FsError, Op, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How briskly maintenance goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long it rests when there was nothing to do.
    pub rest: Duration,
    /// How long it rests between steps while there is: it must not take the disk from clients.
    pub breath: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rest: Duration::from_secs(1), breath: Duration::from_millis(20) }
    }
}

/// Bytes that one step of compaction may copy.
const COMPACT_BYTES: u64 = 16 << 20;

/// Why a step of maintenance was not done. It is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The metadata store refused.
    #[error("metadata: {0}")]
    Metadata(#[from] FsError),
    /// The block store refused.
    #[error("blocks: {0}")]
    Blocks(#[from] BlockError),
}

/// Ids for blocks that this node makes in one epoch; shared by all that put blocks.
#[derive(Debug)]
pub struct BlockIds {
    origin: Origin,
    next: AtomicU64,
}

impl BlockIds {
    /// Ids of this origin's epoch, from `first` on.
    pub fn new(origin: Origin, first: u64) -> Self {
        Self { origin, next: AtomicU64::new(first) }
    }

    /// An id never used before.
    pub fn next(&self) -> atoll_base::block::BlockId {
        atoll_base::block::BlockId::new(self.origin.epoch, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Who makes them.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

/// Runs until `stop`.
pub async fn run(
    meta: Arc<LocalMetadata>,
    blocks: BlockStore,
    ids: Arc<BlockIds>,
    pace: Pace,
    stop: CancellationToken,
) {
    let orphans = collect_orphans(&meta, &blocks, ids.origin().epoch);
    match stop.run_until_cancelled(orphans).await {
        None => return,
        Some(Ok(0)) => {}
        Some(Ok(found)) => {
            tracing::info!(found, "deleted blocks that an interrupted writer left unreferenced")
        }
        Some(Err(error)) => {
            tracing::warn!(%error, "unreferenced blocks of earlier epochs were not all deleted")
        }
    }
    let mut repacker = Repacker::new(ids);
    while !stop.is_cancelled() {
        let step = stop.run_until_cancelled(round(&meta, &blocks, &mut repacker)).await;
        let pause = match step {
            None => return,
            Some(Ok(true)) => pace.breath,
            Some(Ok(false)) => pace.rest,
            Some(Err(error)) => {
                tracing::warn!(%error, "maintenance is interrupted and will be tried again");
                pace.rest
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// One step of each kind; whether there was anything to do.
async fn round(
    meta: &LocalMetadata,
    blocks: &BlockStore,
    repacker: &mut Repacker,
) -> Result<bool, MaintenanceError> {
    let collected = collect(meta, blocks).await? > 0;
    let repacked = repacker.round(meta, blocks).await?.rewritten > 0;
    let store = blocks.clone();
    let compaction = tokio::task::spawn_blocking(move || store.compact_step(COMPACT_BYTES)).await;
    let compacted = match compaction {
        Ok(step) => match step? {
            CompactStep::Idle => false,
            CompactStep::Copied(_) | CompactStep::Removed(_) => true,
            CompactStep::Stuck(segment, id) => {
                tracing::error!(segment, block = ?id, "a segment with a damaged block is not compacted; run `atoll scrub`");
                false
            }
        },
        Err(error) => {
            tracing::error!(%error, "a step of compaction died");
            false
        }
    };
    Ok(collected || repacked || compacted)
}

/// Runs an operation on the node's own behalf.
async fn execute(meta: &LocalMetadata, origin: Option<Origin>, op: Op) -> Result<Outcome, FsError> {
    meta.execute(Call { origin, once: None, cred: Cred::root(), op }).await?.result
}
