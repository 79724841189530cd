//! Cuts what a flush has to write into blocks and commands: pure, so that it can be tested against plain arrays.
//!
//! - Little data rides in the command itself.
//! - Contiguous data are cut at multiples of [`TARGET`] in the file, so that a sequential reader asking for aligned
//!   megabytes meets one block for each, and a payload that is such a piece goes to disk without a copy.
//! - Small pieces share blocks: a random overwrite costs one put for many.
//!
//! Invariants: the pieces of all batches together are exactly the bytes given, in order of offset; no batch has more
//! than [`BATCH_PIECES`] pieces or much more than [`BATCH_BYTES`]; no block is longer than [`TARGET`].

use atoll_base::block::BlockId;
use atoll_base::limits::{BLOCK_MAX, INLINE_WRITE_MAX};
use atoll_meta::{Piece, Source};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Longest block made, and the alignment of cuts: one READ of the largest size.
pub(crate) const TARGET: u64 = 1 << 20;

/// Pieces from this length on get a block of their own.
const OWN_BLOCK: usize = 256 << 10;

/// Bytes that one command brings in: bounds what a batch holds twice while blocks are gathered.
pub(crate) const BATCH_BYTES: u64 = 8 << 20;

/// Pieces of one command; the state machine takes 4096.
pub(crate) const BATCH_PIECES: usize = 2048;

const _: () = assert!(TARGET <= BLOCK_MAX as u64);

/// One put and one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// To be put first.
    pub(crate) blocks: Vec<(BlockId, Bytes)>,
    /// In order of offset.
    pub(crate) pieces: Vec<Piece>,
    /// Bytes in the pieces.
    pub(crate) bytes: u64,
}

impl Batch {
    /// First byte behind the last piece.
    pub(crate) fn end(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    /// Takes bytes out, given in order.
    pub(crate) fn without(&mut self, ranges: &[Range<u64>]) {
        let mut rest = Vec::with_capacity(self.pieces.len() + ranges.len());
        for piece in std::mem::take(&mut self.pieces) {
            let (mut at, end) = (piece.offset, piece.end());
            for range in ranges.iter().filter(|range| range.start < end && piece.offset < range.end) {
                rest.extend(part(&piece, at, range.start));
                at = at.max(range.end);
            }
            rest.extend(part(&piece, at, end));
        }
        self.bytes = rest.iter().map(|piece| u64::from(piece.len)).sum();
        self.pieces = rest;
    }

    /// Whether a piece is in this block.
    pub(crate) fn uses(&self, block: BlockId) -> bool {
        self.pieces.iter().any(|piece| matches!(piece.source, Source::Block { id, .. } if id == block))
    }

    /// The byte ranges of the pieces.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        self.pieces.iter().map(|p| (p.offset, p.end())).collect()
    }
}

/// The bytes of a piece from `start` to `end`, which are within it; `None` if there are none.
fn part(piece: &Piece, start: u64, end: u64) -> Option<Piece> {
    let len = end.checked_sub(start).filter(|len| *len > 0)? as u32;
    let from = (start - piece.offset) as u32;
    let source = match &piece.source {
        Source::Inline(bytes) => Source::Inline(bytes.slice(from as usize..(from + len) as usize)),
        Source::Block { id, offset } => Source::Block { id: *id, offset: offset + from },
    };
    Some(Piece { offset: start, len, source })
}

/// Contiguous bytes within one aligned piece of the file.
#[derive(Debug)]
struct Run {
    offset: u64,
    slices: Vec<Bytes>,
    len: usize,
}

impl Run {
    /// As one buffer; without a copy if it is one already.
    fn gather(mut self) -> Bytes {
        if self.slices.len() == 1 {
            return self.slices.remove(0);
        }
        let mut all = BytesMut::with_capacity(self.len);
        self.slices.iter().for_each(|s| all.extend_from_slice(s));
        all.freeze()
    }
}

fn runs(segments: impl IntoIterator<Item = (u64, Bytes)>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for (mut offset, mut data) in segments {
        while !data.is_empty() {
            let room = (TARGET - offset % TARGET) as usize;
            let part = data.split_to(room.min(data.len()));
            let len = part.len();
            match all.last_mut() {
                Some(run) if run.offset + run.len as u64 == offset && offset % TARGET != 0 => {
                    run.slices.push(part);
                    run.len += len;
                }
                _ => all.push(Run { offset, slices: vec![part], len }),
            }
            offset += len as u64;
        }
    }
    all
}

/// The batches of a flush, made one by one: only the one at hand holds copies.
#[derive(Debug)]
pub(crate) struct Plan {
    runs: std::vec::IntoIter<Run>,
    inline: bool,
}

/// Plans the writing of `segments`: in order of offset, not overlapping.
pub(crate) fn plan(segments: impl IntoIterator<Item = (u64, Bytes)>) -> Plan {
    let runs = runs(segments);
    let total: usize = runs.iter().map(|r| r.len).sum();
    Plan { runs: runs.into_iter(), inline: total <= INLINE_WRITE_MAX }
}

impl Plan {
    /// Whether there is another batch.
    pub(crate) fn has_more(&self) -> bool {
        !self.runs.as_slice().is_empty()
    }

    /// The next batch; empty if there is none. `next_id` names new blocks.
    pub(crate) fn next(&mut self, mut next_id: impl FnMut() -> BlockId) -> Batch {
        let mut batch = Batch::default();
        let mut shared = BytesMut::new();
        let mut shared_id = None;
        while batch.pieces.len() < BATCH_PIECES
            && batch.bytes < BATCH_BYTES
            && let Some(run) = self.runs.next()
        {
            let (offset, len) = (run.offset, run.len);
            let source = if self.inline {
                Source::Inline(run.gather())
            } else if len >= OWN_BLOCK {
                let id = next_id();
                batch.blocks.push((id, run.gather()));
                Source::Block { id, offset: 0 }
            } else {
                if shared.len() + len > TARGET as usize {
                    close(&mut batch, &mut shared, &mut shared_id);
                }
                let id = *shared_id.get_or_insert_with(|| {
                    shared = BytesMut::with_capacity(shared_bytes(len, self.runs.as_slice()));
                    next_id()
                });
                let at = shared.len() as u32;
                run.slices.iter().for_each(|s| shared.extend_from_slice(s));
                Source::Block { id, offset: at }
            };
            batch.pieces.push(Piece { offset, len: len as u32, source });
            batch.bytes += len as u64;
        }
        close(&mut batch, &mut shared, &mut shared_id);
        batch
    }
}

/// Bytes of a block that is shared by a first small piece and those that follow: all at once, to grow would copy them twice over.
fn shared_bytes(first: usize, next: &[Run]) -> usize {
    let small = next.iter().take(BATCH_PIECES).map(|run| run.len).filter(|len| *len < OWN_BLOCK);
    let sums = small.scan(first, |sum, len| {
        *sum += len;
        (*sum <= TARGET as usize).then_some(*sum)
    });
    sums.last().unwrap_or(first)
}

/// Ends the block that small pieces share.
fn close(batch: &mut Batch, shared: &mut BytesMut, id: &mut Option<BlockId>) {
    if let Some(id) = id.take() {
        batch.blocks.push((id, shared.split().freeze()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ranges::RangeMap;
    use super::*;
    use atoll_base::id::Epoch;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn all(mut plan: Plan) -> Vec<Batch> {
        let mut seq = 0;
        let mut batches = Vec::new();
        while plan.has_more() {
            batches.push(plan.next(|| {
                seq += 1;
                BlockId::new(Epoch(1), seq)
            }));
        }
        batches
    }

    fn replay(batches: &[Batch], size: usize) -> Vec<Option<u8>> {
        let mut file = vec![None; size];
        let mut last = 0;
        for batch in batches {
            let blocks: HashMap<_, _> = batch.blocks.iter().cloned().collect();
            assert_eq!(blocks.len(), batch.blocks.len());
            assert!(batch.pieces.len() <= BATCH_PIECES && batch.bytes <= BATCH_BYTES + TARGET);
            assert_eq!(batch.bytes, batch.pieces.iter().map(|p| u64::from(p.len)).sum::<u64>());
            for block in blocks.values() {
                assert!(!block.is_empty() && block.len() as u64 <= TARGET);
            }
            for piece in &batch.pieces {
                assert!(piece.offset >= last && piece.len > 0);
                last = piece.end();
                let bytes = match &piece.source {
                    Source::Inline(b) => b.clone(),
                    Source::Block { id, offset } => {
                        blocks[id].slice(*offset as usize..(*offset + piece.len) as usize)
                    }
                };
                assert_eq!(bytes.len(), piece.len as usize);
                for (i, b) in bytes.iter().enumerate() {
                    file[piece.offset as usize + i] = Some(*b);
                }
            }
        }
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_are_exactly_the_bytes_given(
            writes in prop::collection::vec((0u64..6_000_000, prop_oneof![1usize..5000, 1usize..1_500_000], any::<u8>()), 0..30),
            cuts in prop::collection::btree_set(0u64..7_000_000, 0..10),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let without: Vec<Range<u64>> = cuts.chunks_exact(2).map(|ends| ends[0]..ends[1]).collect();
            let mut map = RangeMap::default();
            let mut model = vec![None; 8_000_000];
            for (o, l, b) in writes {
                map.insert(o, Bytes::from(vec![b; l]));
                model[o as usize..o as usize + l].fill(Some(b));
            }
            let batches = all(plan(map.iter().map(|(o, d)| (o, d.clone()))));
            prop_assert!(replay(&batches, model.len()) == model);
            let mut rest = batches;
            rest.iter_mut().for_each(|batch| batch.without(&without));
            for range in &without {
                model[range.start as usize..range.end as usize].fill(None);
            }
            for batch in &mut rest {
                let blocks = std::mem::take(&mut batch.blocks);
                batch.blocks = blocks.into_iter().filter(|(id, _)| batch.uses(*id)).collect();
            }
            prop_assert!(replay(&rest, model.len()) == model);
        }
    }

    #[test]
    fn many_small_pieces_share_blocks_and_keep_to_the_bound() {
        let segments = (0..5000u64).map(|i| (i * 8192, Bytes::from(vec![i as u8; 4096])));
        let batches = all(plan(segments));
        let blocks: Vec<usize> = batches.iter().map(|b| b.blocks.len()).collect();
        assert_eq!(blocks, [8, 8, 4], "256 pieces to a block");
    }

    #[test]
    fn an_aligned_megabyte_is_not_copied() {
        let data = Bytes::from(vec![1; 1 << 20]);
        let batches = all(plan([(1 << 20, data.clone())]));
        assert_eq!(batches[0].blocks[0].1.as_ptr(), data.as_ptr());
    }
}
