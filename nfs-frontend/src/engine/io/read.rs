//! Reading: extents, blocks, holes, and what is dirty over them (RFC 1813 §3.3.6).
//!
//! Every byte from a block was compared with its checksum below; damage is an error and a line in the log, never data.

use super::layers::{Layer, Part, complete, lay};
use crate::engine::{Engine, status};
use atoll_base::attr::Attr;
use atoll_base::block::{BlockError, BlockService};
use atoll_base::id::Ino;
use atoll_meta::data::{Extent, FileMap};
use atoll_meta::{FsError, MetadataService, Source};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::ops::Range;
use tracing::{error, warn};

/// How often extents are fetched again because a block they pointed at was gone, or the store moved past the
/// overlay: each time a flush or a repack of this file came in between.
const ATTEMPTS: usize = 6;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What a READ found.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The file.
    pub(crate) attr: Attr,
    /// The bytes in order.
    pub(crate) pieces: Vec<Bytes>,
    /// Whether they reach the end of the file.
    pub(crate) eof: bool,
    /// Which of them are in no extent: ranges of the file, in order.
    pub(crate) holes: Vec<Range<u64>>,
}

/// The holes among parts that begin at `offset`.
fn holes(parts: &[Part], offset: u64) -> Vec<Range<u64>> {
    let mut at = offset;
    let mut holes = Vec::new();
    for part in parts {
        if let Part::Hole(len) = part {
            holes.push(at..at + len);
        }
        at += part.len();
    }
    holes
}

fn push_zeros(pieces: &mut Vec<Bytes>, mut len: u64) {
    while len > 0 {
        let n = len.min(ZEROS.len() as u64);
        pieces.push(Bytes::from_static(&ZEROS[..n as usize]));
        len -= n;
    }
}

fn stored(map: FileMap, end: u64) -> Layer {
    let mut layer = Vec::with_capacity(map.extents.len());
    for extent in map.extents {
        let piece = extent.piece;
        if piece.offset >= end {
            break;
        }
        let len = (piece.end().min(end) - piece.offset) as u32;
        let part = match piece.source {
            Source::Inline(data) => Part::Data(data.slice(..len as usize)),
            Source::Block { id, offset } => Part::Block { id, offset, len },
        };
        layer.push((piece.offset, part));
    }
    layer
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Reads up to `count` bytes at `offset`. `check` decides by the file's attributes whether the caller may.
    pub(crate) async fn read_file(
        &self,
        ino: Ino,
        offset: u64,
        count: u32,
        check: impl Fn(&Attr) -> Result<(), FsError>,
    ) -> Result<Contents, (FsError, Option<Box<Attr>>)> {
        let asked_end = offset.saturating_add(u64::from(count));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let dirty = self.dirty.with_leased(ino, |s| (s.shown(), s.layers(offset, asked_end)));
            let map = self.meta.map(ino, offset, u64::from(count)).await.map_err(|e| (e, None))?;
            let mut attr = map.attr.clone();
            let (flushing, fresh) = match dirty {
                Some((Some(shown), layers)) => {
                    if attr.change > shown.change && attempt < ATTEMPTS {
                        // The store moved on since the overlay was taken: older bytes would lie over newer ones.
                        continue;
                    }
                    shown.overlay(&mut attr);
                    layers
                }
                _ => (Vec::new(), Vec::new()),
            };
            self.touches.overlay(&mut attr);
            check(&attr).map_err(|e| (e, Some(Box::new(attr.clone()))))?;
            let end = asked_end.min(attr.size);
            if offset >= end {
                let eof = offset >= attr.size;
                return Ok(Contents { attr, pieces: Vec::new(), eof, holes: Vec::new() });
            }
            // What lies behind an incomplete map is left to the client's next READ.
            let complete_to = if map.complete_to > offset { map.complete_to } else { asked_end };
            let end = if complete_to < asked_end { end.min(complete_to) } else { end };
            let data = |layer: Vec<(u64, Bytes)>| -> Layer {
                layer
                    .into_iter()
                    .filter(|(at, _)| *at < end)
                    .map(|(at, d)| (at, Part::Data(d.slice(..d.len().min((end - at) as usize)))))
                    .collect()
            };
            let layer = lay(data(fresh), lay(data(flushing), stored(map, end)));
            let parts = complete(layer, offset, end);
            let holes = holes(&parts, offset);
            if let Some(ahead) = self.streams.note(ino, offset..end, attr.size) {
                self.read_ahead(ino, ahead).await;
            }
            match self.fetch(parts).await {
                Ok(pieces) => {
                    let eof = end == attr.size;
                    return Ok(Contents { attr, pieces, eof, holes });
                }
                Err(BlockError::Missing(block)) if attempt < ATTEMPTS => {
                    warn!(%ino, offset, ?block, "a block is gone; fetching the extents again");
                }
                Err(e) => {
                    error!(%ino, offset, count, error = %e, "file data cannot be read");
                    return Err((status::of_blocks(&e), Some(Box::new(attr))));
                }
            }
        }
    }

    /// Tells the block store what a stream will ask for.
    async fn read_ahead(&self, ino: Ino, range: Range<u64>) {
        // Who reads there is told of any trouble.
        let Ok(map) = self.meta.map(ino, range.start, range.end - range.start).await else { return };
        let block = |extent: &Extent| match extent.piece.source {
            Source::Block { id, .. } => Some((id, (extent.piece.end() - extent.piece.offset) as u32)),
            Source::Inline(_) => None,
        };
        self.blocks.expect(&map.extents.iter().filter_map(block).collect::<Vec<_>>());
    }

    async fn fetch(&self, parts: Vec<Part>) -> Result<Vec<Bytes>, BlockError> {
        // The frequent case of one piece goes without the machinery for many.
        if let [Part::Block { id, offset, len }] = parts[..] {
            return Ok(vec![self.blocks.get(id, offset, len).await?]);
        }
        let blocks = parts.iter().filter_map(|part| match part {
            Part::Block { id, offset, len } => Some(self.blocks.get(*id, *offset, *len)),
            Part::Data(_) | Part::Hole(_) => None,
        });
        let mut fetched = try_join_all(blocks).await?.into_iter();
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Data(data) => pieces.push(data),
                Part::Block { .. } => pieces.push(fetched.next().expect("one for each block")),
                Part::Hole(len) => push_zeros(&mut pieces, len),
            }
        }
        Ok(pieces)
    }
}
