//! Rewrites how fragmented files are stored, never what they hold.
//!
//! A file that is overwritten in small pieces gathers inline extents and splinters of blocks, and each splinter keeps its whole
//! block alive. The repacker takes such a file in windows of one block's size, reads each window and stores it as one new
//! block, through a command that is refused if the window's extents changed meanwhile.

use super::{BlockIds, MaintenanceError, execute};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_base::limits::BLOCK_MAX;
use atoll_blockstore::BlockStore;
use atoll_core::service::LocalMetadata;
use atoll_meta::data::{Extent, FileMap, Piece, Source};
use atoll_meta::service::MetadataService;
use atoll_meta::{FsError, Op};
use atoll_model::read::{self, RepackCandidate};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes that one round rewrites at most: a second's work of a slow disk.
const ROUND_BYTES: u64 = 64 << 20;

/// Candidates looked at in one round.
const CANDIDATES: usize = 256;

/// A file that changed within this time is left alone: it is being written, in nanoseconds.
const QUIET_NANOS: i128 = 2_000_000_000;

/// A window with at most so many extents, all in blocks, is good enough.
const GOOD_EXTENTS: usize = 4;

/// Files remembered as not improvable; when there are more, they are forgotten and tried again.
const SETTLED_MAX: usize = 65_536;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Files looked into.
    pub files: u64,
    /// Windows rewritten.
    pub rewritten: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Its memory between rounds.
pub struct Repacker {
    ids: Arc<BlockIds>,
    /// Where the next round goes on.
    after: Option<Ino>,
    /// Files that were gone through, by change counter: nothing more to gain while it stays.
    settled: BTreeMap<Ino, u64>,
}

impl Repacker {
    /// A repacker that takes its block ids from `ids`.
    pub fn new(ids: Arc<BlockIds>) -> Self {
        Self { ids, after: None, settled: BTreeMap::new() }
    }

    /// Works on the next candidates, up to a bound of bytes.
    pub async fn round(
        &mut self,
        meta: &LocalMetadata,
        blocks: &BlockStore,
    ) -> Result<Round, MaintenanceError> {
        let mut done = Round::default();
        let after = self.after;
        let candidates = meta.with_state(|kv| read::repack_candidates(kv, after, CANDIDATES)).await?;
        if candidates.len() < CANDIDATES {
            self.after = None;
        }
        for candidate in candidates {
            if self.settled.get(&candidate.ino) == Some(&candidate.change) {
                continue;
            }
            match self.file(meta, blocks, &candidate, &mut done).await {
                Ok(true) => self.settle(&candidate),
                Ok(false) => {}
                // Removed or replaced since it was listed.
                Err(MaintenanceError::Metadata(FsError::Stale | FsError::Conflict)) => {}
                Err(error) => return Err(error),
            }
            self.after = Some(candidate.ino);
            if done.bytes >= ROUND_BYTES {
                break;
            }
        }
        Ok(done)
    }

    fn settle(&mut self, candidate: &RepackCandidate) {
        if self.settled.len() >= SETTLED_MAX {
            self.settled.clear();
        }
        self.settled.insert(candidate.ino, candidate.change);
    }

    /// Goes through one file; `false` if it is to be looked at again.
    async fn file(
        &self,
        meta: &LocalMetadata,
        blocks: &BlockStore,
        candidate: &RepackCandidate,
        done: &mut Round,
    ) -> Result<bool, MaintenanceError> {
        let attr = meta.getattr(candidate.ino).await?;
        if meta.now().since(attr.ctime) < QUIET_NANOS {
            return Ok(false);
        }
        done.files += 1;
        let mut at = 0;
        while at < attr.size {
            let window_end = (at / u64::from(BLOCK_MAX) + 1) * u64::from(BLOCK_MAX);
            let map = meta.map(candidate.ino, at, window_end - at).await?;
            let end = map.complete_to.min(window_end);
            if !is_good(&map) {
                let bytes = self.window(meta, blocks, &map, at, end - at).await?;
                done.rewritten += 1;
                done.bytes += bytes;
                if done.bytes >= ROUND_BYTES {
                    return Ok(false);
                }
            }
            at = end;
        }
        Ok(true)
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
        let mut data = BytesMut::new();
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
        match execute(meta, Some(self.ids.origin()), op).await {
            Ok(_) => Ok(bytes),
            Err(error) => {
                // Certainly not referenced, unless the answer itself is unknown: then the orphan search of the next
                // start finds it.
                if error != FsError::Delay {
                    blocks.delete(vec![id]).await?;
                }
                Err(error.into())
            }
        }
    }
}

/// Whether rewriting the window would gain nothing.
fn is_good(map: &FileMap) -> bool {
    let inline = map.extents.iter().any(|e| matches!(e.piece.source, Source::Inline(_)));
    map.extents.len() <= if inline { 0 } else { GOOD_EXTENTS }
}

/// The bytes of one extent.
async fn read_extent(blocks: &BlockStore, extent: &Extent) -> Result<Bytes, MaintenanceError> {
    Ok(match &extent.piece.source {
        Source::Inline(bytes) => bytes.clone(),
        Source::Block { id, offset } => blocks.get(*id, *offset, extent.piece.len).await?,
    })
}
