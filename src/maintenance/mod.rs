//! What a node does for its data when nobody asks: collects unreferenced blocks, repacks fragmented files, compacts segments.

mod collector;
mod repacker;
mod splinters;

pub use collector::{collect, collect_orphans};
pub use repacker::{Pace, Repacker, Round};

use atoll_base::access::Cred;
use atoll_base::block::{BlockError, BlockService};
use atoll_blockstore::{BlockStore, CompactStep};
use atoll_core::service::LocalMetadata;
use atoll_meta::call::Origin;
use atoll_meta::service::MetadataService;
use atoll_meta::{Call, FsError, Op, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Bytes that one step of compaction may copy.
const COMPACT_BYTES: u64 = 16 << 20;

/// Segments of which blocks are being deleted are compacted when they have been quiet for so long, or when less than one in [`ROOM_SHARE`] bytes is free.
const QUIET: Duration = Duration::from_secs(2);

/// See [`QUIET`].
const ROOM_SHARE: u64 = 4;

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

/// Blocks kept in memory because they were read repeatedly go when nobody read them for so long.
const UNUSED: Duration = Duration::from_secs(60);

/// For so long the file of a segment that went stays for another.
const SPARE_AGE: Duration = Duration::from_secs(5);

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
    let mut repacker = Repacker::new(ids, pace);
    while !stop.is_cancelled() {
        let began = Instant::now();
        let Some(busy) = stop.run_until_cancelled(round(&meta, &blocks, &mut repacker)).await else { return };
        // As long as the step took: half of the disk's time at most, and less while clients make its own steps slow.
        let pause = if busy { began.elapsed().clamp(pace.breath, pace.rest) } else { pace.rest };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// One step of each kind; whether there was anything to do. What fails does not keep the others from their work: with no room
/// left the repacker cannot work, and compaction must.
async fn round(meta: &LocalMetadata, blocks: &BlockStore, repacker: &mut Repacker) -> bool {
    blocks.forget_unused(UNUSED);
    let collected = note("collecting blocks", collect(meta, blocks).await.map(|n| n > 0));
    let compacted = note("compaction", compact(blocks).await);
    let repacked = note("repacking", repacker.round(meta, blocks).await.map(|r| r.rewritten > 0));
    let busy = collected || compacted || repacked;
    // While there is something to do, only what the disk needs soon.
    let age = if busy { Duration::MAX } else { SPARE_AGE };
    let trimmed = note("giving room back", trim(blocks, age).await);
    busy || trimmed
}

fn note(what: &str, result: Result<bool, MaintenanceError>) -> bool {
    result.unwrap_or_else(|error| {
        tracing::warn!(%error, "{what} is interrupted and will be tried again");
        false
    })
}

/// One step of compaction; whether there is more to do.
async fn compact(blocks: &BlockStore) -> Result<bool, MaintenanceError> {
    let space = blocks.space();
    let quiet = if space.available < space.total / ROOM_SHARE { Duration::ZERO } else { QUIET };
    let step = blocking("compaction", blocks, move |store| store.compact_step(COMPACT_BYTES, quiet));
    Ok(match step.await? {
        None | Some(CompactStep::Idle) => false,
        Some(CompactStep::Copied(_) | CompactStep::Removed(_)) => true,
        Some(CompactStep::Stuck(segment, id)) => {
            tracing::error!(segment, block = ?id, "a segment with a damaged block is not compacted; run `atoll scrub`");
            true
        }
    })
}

/// Gives back a little of the room that the store keeps for segments to come.
async fn trim(blocks: &BlockStore, age: Duration) -> Result<bool, MaintenanceError> {
    Ok(blocking("giving room back", blocks, move |store| store.trim_step(age)).await?.unwrap_or(false))
}

/// One step of the block store, which blocks; `None` if it died.
async fn blocking<T: Send + 'static>(
    what: &str,
    blocks: &BlockStore,
    step: impl FnOnce(BlockStore) -> Result<T, BlockError> + Send + 'static,
) -> Result<Option<T>, MaintenanceError> {
    let store = blocks.clone();
    match tokio::task::spawn_blocking(move || step(store)).await {
        Ok(step) => Ok(Some(step?)),
        Err(error) => {
            tracing::error!(%error, "a step of {what} died");
            Ok(None)
        }
    }
}

/// Runs an operation on the node's own behalf.
pub(crate) async fn execute(
    meta: &LocalMetadata,
    origin: Option<Origin>,
    op: Op,
) -> Result<Outcome, FsError> {
    execute_once(meta, origin, op).await?
}

/// The same, with the state machine's own refusal (certainly nothing happened) apart from errors on the way to it.
async fn execute_once(
    meta: &LocalMetadata,
    origin: Option<Origin>,
    op: Op,
) -> Result<Result<Outcome, FsError>, FsError> {
    Ok(meta.execute(Call { origin, once: None, cred: Cred::root(), client: None, op }).await?.result)
}
