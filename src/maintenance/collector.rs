//! Deletes blocks that nothing references.
//!
//! Two ways lead to such a block, and each has a reason why no writer can be about to reference it:
//!
//! - the state machine counted its references down to zero. Only the writer that put a block ever names it in a command
//!   for the first time, and ids are never reused, so a count that fell to zero stays there;
//! - its writer put it and never committed it. Such blocks are deleted only if their epoch is over: since the frontend
//!   registered anew, the state machine refuses every command of the old epoch.
//!
//! A reader that fetched its extents before may miss a block; it then fetches the extents again.

use super::{MaintenanceError, execute};
use atoll_base::block::{BlockId, BlockService};
use atoll_base::id::Epoch;
use atoll_blockstore::BlockStore;
use atoll_core::service::LocalMetadata;
use atoll_meta::Op;
use atoll_meta::service::MetadataService;
use atoll_model::read;

/// Blocks deleted at a time: bounds the size of the command that forgets them.
const PAGE: usize = 1024;

/// For so long readers that fetched their map before may still find a block, in nanoseconds.
const READERS_NANOS: i128 = 1_000_000_000;

/// One step: deletes up to a page of blocks whose last reference is gone. Returns how many. Can be repeated at any time:
/// a block is forgotten only after its deletion is durable, and deleting it again does nothing.
pub async fn collect(meta: &LocalMetadata, blocks: &BlockStore) -> Result<usize, MaintenanceError> {
    let now = meta.now();
    let garbage = meta.with_state(|kv| read::garbage(kv, None, PAGE)).await?;
    let ids: Vec<BlockId> =
        garbage.iter().filter(|(_, g)| now.since(g.since) >= READERS_NANOS).map(|(id, _)| *id).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    blocks.delete(ids.clone()).await?;
    let count = ids.len();
    execute(meta, None, Op::Collected(ids)).await?;
    Ok(count)
}

/// Deletes all blocks of epochs before `current` that the metadata do not know. Returns how many.
pub async fn collect_orphans(
    meta: &LocalMetadata,
    blocks: &BlockStore,
    current: Epoch,
) -> Result<usize, MaintenanceError> {
    let mut after = None;
    let mut deleted = 0;
    loop {
        let page = blocks.list(after, current, PAGE);
        let Some((last, _)) = page.last() else { return Ok(deleted) };
        after = Some(*last);
        let orphans = meta
            .with_state(|kv| {
                let mut orphans = Vec::new();
                for (id, _) in &page {
                    if !read::block_is_referenced(kv, *id)? {
                        orphans.push(*id);
                    }
                }
                Ok(orphans)
            })
            .await?;
        deleted += orphans.len();
        if !orphans.is_empty() {
            blocks.delete(orphans).await?;
        }
        tokio::task::yield_now().await;
    }
}
