//! Rewrites how fragmented files are stored, never what they hold.
//!
//! A file that is overwritten in small pieces gathers inline extents and splinters of blocks, and each splinter keeps its whole
//! block alive. The repacker takes such a file in windows of one block's size, reads each window and stores it as one new
//! block, through a command that is refused if the window's extents changed meanwhile.
//!
//! Candidates are the files that the state machine lists (many extents or inline bytes for their size), and those in
//! which the walk of [`super::splinters`] found blocks that are mostly unused. Whether a window gains by being rewritten
//! follows from its extents alone, so that what is good is left alone also after a restart.

use super::splinters::{Splinters, Wasteful};
use super::{BlockIds, MaintenanceError, execute_once};
use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::id::Ino;
use atoll_base::limits::{BLOCK_MAX, FILE_SIZE_MAX};
use atoll_blockstore::BlockStore;
use atoll_core::service::LocalMetadata;
use atoll_meta::data::{Extent, FileMap, Piece, Source};
use atoll_meta::service::MetadataService;
use atoll_meta::{FsError, Op};
use atoll_model::read;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Candidates looked at in one round.
const CANDIDATES: usize = 256;

/// A window with at most so many extents, all in blocks, is good enough.
const GOOD_EXTENTS: usize = 4;

/// Files remembered as gone through; when there are more, they are forgotten and looked at again.
const SETTLED_MAX: usize = 65_536;

/// Wasteful files that wait; the walk that finds them goes on when there are fewer.
const WASTEFUL_MAX: usize = 64;

/// How eagerly maintenance works.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long it rests when there was nothing to do.
    pub rest: Duration,
    /// How long it rests at least between steps while there is: it must not take the disk from clients.
    pub breath: Duration,
    /// Bytes that one round rewrites at most.
    pub round_bytes: u64,
    /// A file that changed within this time is left alone: it is being written.
    pub quiet: Duration,
    /// But not if it has so many inline bytes, which would otherwise grow as long as it is written.
    pub urgent_inline: u64,
    /// Rest between two walks that look for splinters.
    pub walk_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rest: Duration::from_secs(1),
            breath: Duration::from_millis(20),
            round_bytes: 16 << 20,
            quiet: Duration::from_secs(2),
            urgent_inline: 128 << 20,
            walk_every: Duration::from_secs(60),
        }
    }
}

/// Rows read at once while looking for the next data.
const LOOK_ROWS: usize = 256;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Files looked into.
    pub files: u64,
    /// Windows rewritten.
    pub rewritten: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Windows that changed while they were being rewritten, and stay as they are for now.
    pub conflicts: u64,
    /// Windows that could not be read.
    pub unreadable: u64,
}

/// A file to be gone through.
struct Job {
    ino: Ino,
    /// Its change counter when it was listed.
    change: Option<u64>,
    inline_bytes: u64,
    sparse: BTreeSet<BlockId>,
}

/// Its memory between rounds.
pub struct Repacker {
    ids: Arc<BlockIds>,
    pace: Pace,
    /// Where the next round goes on.
    after: Option<Ino>,
    /// Files that were gone through, by change counter: nothing more to gain while it stays.
    settled: BTreeMap<Ino, u64>,
    splinters: Splinters,
    wasteful: VecDeque<Wasteful>,
}

/// How going through a file ended.
enum End {
    /// All windows were looked at and none is to be looked at again.
    Settled,
    /// Something is left to do.
    Again,
}

impl Repacker {
    /// A repacker that takes its block ids from `ids`.
    pub fn new(ids: Arc<BlockIds>, pace: Pace) -> Self {
        Self {
            ids,
            pace,
            after: None,
            settled: BTreeMap::new(),
            splinters: Splinters::new(pace.walk_every),
            wasteful: VecDeque::new(),
        }
    }

    /// Works on the next candidates, up to a bound of bytes.
    pub async fn round(
        &mut self,
        meta: &LocalMetadata,
        blocks: &BlockStore,
    ) -> Result<Round, MaintenanceError> {
        let mut done = Round::default();
        for job in self.listed(meta).await? {
            if done.bytes >= self.pace.round_bytes {
                return Ok(done);
            }
            self.after = Some(job.ino);
            if job.change.is_some() && self.settled.get(&job.ino) == job.change.as_ref() {
                continue;
            }
            if let End::Settled = self.job(meta, blocks, &job, &mut done).await?
                && let Some(change) = job.change
            {
                self.settle(job.ino, change);
            }
        }
        if self.wasteful.len() < WASTEFUL_MAX {
            self.wasteful.extend(self.splinters.step(meta, blocks).await?);
        }
        while done.bytes < self.pace.round_bytes
            && let Some(Wasteful { ino, sparse }) = self.wasteful.pop_front()
        {
            let job = Job { ino, change: None, inline_bytes: 0, sparse };
            // If it is not through, the next walk finds it again.
            self.job(meta, blocks, &job, &mut done).await?;
        }
        Ok(done)
    }

    /// The next files that the state machine lists.
    async fn listed(&mut self, meta: &LocalMetadata) -> Result<Vec<Job>, FsError> {
        let after = self.after;
        let candidates = meta.with_state(|kv| read::repack_candidates(kv, after, CANDIDATES)).await?;
        if candidates.is_empty() {
            self.after = None;
        }
        let job = |c: read::RepackCandidate| Job {
            ino: c.ino,
            change: Some(c.change),
            inline_bytes: c.inline_bytes,
            sparse: BTreeSet::new(),
        };
        Ok(candidates.into_iter().map(job).collect())
    }

    fn settle(&mut self, ino: Ino, change: u64) {
        if self.settled.len() >= SETTLED_MAX {
            self.settled.clear();
        }
        self.settled.insert(ino, change);
    }

    /// Goes through one file. An error is one that others would meet as well.
    async fn job(
        &self,
        meta: &LocalMetadata,
        blocks: &BlockStore,
        job: &Job,
        done: &mut Round,
    ) -> Result<End, MaintenanceError> {
        let attr = match meta.getattr(job.ino).await {
            Ok(attr) => attr,
            // Removed since it was listed.
            Err(FsError::Stale) => return Ok(End::Settled),
            Err(error) => return Err(error.into()),
        };
        let age = meta.now().since(attr.ctime);
        if age < self.pace.quiet.as_nanos() as i128 && job.inline_bytes < self.pace.urgent_inline {
            return Ok(End::Again);
        }
        done.files += 1;
        let mut end = End::Settled;
        let mut at = 0;
        while let Some(start) = next_data(meta, job.ino, at).await? {
            let window_end = (start / u64::from(BLOCK_MAX) + 1) * u64::from(BLOCK_MAX);
            let window_end = window_end.min(FILE_SIZE_MAX);
            let map = match meta.map(job.ino, start, window_end - start).await {
                Ok(map) => map,
                Err(FsError::Stale) => return Ok(End::Settled),
                // Of bytes in rows the store knows itself, and has said so. What is behind the window may be sound.
                Err(FsError::Io) if !meta.status().failed => {
                    done.unreadable += 1;
                    at = window_end;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            at = map.complete_to.min(window_end);
            if is_good(&map, &job.sparse) {
                // Maps are read without waiting for anything: others get their turn here.
                tokio::task::yield_now().await;
                continue;
            }
            match self.window(meta, blocks, &map, start, at - start).await {
                Ok(bytes) => {
                    done.rewritten += 1;
                    done.bytes += bytes;
                }
                Err(MaintenanceError::Metadata(FsError::Stale)) => return Ok(End::Settled),
                // Bytes beside the window, which its change would need.
                Err(MaintenanceError::Metadata(FsError::Io)) if !meta.status().failed => {
                    done.unreadable += 1;
                }
                Err(MaintenanceError::Metadata(FsError::Conflict | FsError::Delay)) => {
                    done.conflicts += 1;
                    end = End::Again;
                }
                Err(MaintenanceError::Blocks(BlockError::Missing(_))) => {
                    // Collected since the map was read, or lost: the next time tells, and scrub.
                    done.unreadable += 1;
                    end = End::Again;
                }
                Err(MaintenanceError::Blocks(
                    error @ (BlockError::Damaged { .. } | BlockError::Io { .. }),
                )) => {
                    tracing::error!(ino = %job.ino, %error, "a damaged file is not repacked; run `atoll scrub`");
                    done.unreadable += 1;
                }
                Err(error) => return Err(error),
            }
            if done.bytes >= self.pace.round_bytes {
                return Ok(End::Again);
            }
        }
        Ok(end)
    }

    /// Stores one window anew; returns its bytes.
    async fn window(
        &self,
        meta: &LocalMetadata,
        blocks: &BlockStore,
        map: &FileMap,
        offset: u64,
        len: u64,
    ) -> Result<u64, MaintenanceError> {
        let id = self.ids.next();
        // To grow would copy them twice over.
        let all: u64 = map.extents.iter().map(|extent| u64::from(extent.piece.len)).sum();
        let mut data = BytesMut::with_capacity(all as usize);
        let mut pieces: Vec<Piece> = Vec::new();
        for extent in &map.extents {
            let bytes = read_extent(blocks, extent).await?;
            match pieces.last_mut() {
                Some(last) if last.end() == extent.piece.offset => last.len += extent.piece.len,
                _ => pieces.push(Piece {
                    offset: extent.piece.offset,
                    len: extent.piece.len,
                    source: Source::Block { id, offset: data.len() as u32 },
                }),
            }
            data.extend_from_slice(&bytes);
        }
        let bytes = data.len() as u64;
        blocks.put_unreserved(vec![(id, data.freeze())]).await?;
        let expect = map.extents.iter().map(|e| (e.birth, e.piece.offset)).collect();
        let op = Op::Repack { ino: map.attr.ino, offset, len, expect, pieces };
        let error = match execute_once(meta, Some(self.ids.origin()), op).await {
            Ok(Ok(_)) => return Ok(bytes),
            // What became of it is not known: if nothing, the search for orphans of the next start finds the block.
            Err(FsError::Delay) => return Err(FsError::Delay.into()),
            Ok(Err(refused)) => refused,
            Err(not_taken) => not_taken,
        };
        blocks.delete(vec![id]).await?;
        Err(error.into())
    }
}

/// Where the file's first data at or after `from` begin: a hole of any size costs one look.
async fn next_data(meta: &LocalMetadata, ino: Ino, from: u64) -> Result<Option<u64>, FsError> {
    // An extent that began before reaches at most one block's length.
    let reach = from.saturating_sub(u64::from(BLOCK_MAX));
    meta.with_state(|kv| {
        let mut look = reach;
        loop {
            let rows = read::extent_rows(kv, (ino, look), LOOK_ROWS)?;
            let own = rows.iter().take_while(|row| row.ino == ino);
            if let Some(row) = own.clone().find(|row| row.offset + u64::from(row.len) > from) {
                return Ok(Some(row.offset.max(from)));
            }
            match own.last() {
                Some(last) if rows.len() == LOOK_ROWS => look = last.offset + 1,
                _ => return Ok(None),
            }
        }
    })
    .await
}

/// Whether rewriting the window would gain nothing.
fn is_good(map: &FileMap, sparse: &BTreeSet<BlockId>) -> bool {
    let mut runs = 0;
    let mut end = None;
    for extent in &map.extents {
        match extent.piece.source {
            Source::Inline(_) => return false,
            Source::Block { id, .. } if sparse.contains(&id) => return false,
            Source::Block { .. } => {}
        }
        // Each stretch of data between holes has an extent of its own at least.
        runs += usize::from(end != Some(extent.piece.offset));
        end = Some(extent.piece.end());
    }
    map.extents.len() <= runs.max(GOOD_EXTENTS)
}

/// The bytes of one extent.
async fn read_extent(blocks: &BlockStore, extent: &Extent) -> Result<Bytes, MaintenanceError> {
    Ok(match &extent.piece.source {
        Source::Inline(bytes) => bytes.clone(),
        Source::Block { id, offset } => blocks.get(*id, *offset, extent.piece.len).await?,
    })
}
