//! Cuts what a flush has to write into blocks and commands: pure, so that it can be tested against plain arrays.
//!
//! - Little data rides in the command itself.
//! - Contiguous data are cut at multiples of [`TARGET`] in the file, so that a sequential reader asking for aligned
//!   megabytes meets one block for each.
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

/// Parts that are shorter on average are joined.
const PART_MIN: usize = 512;

/// Bytes that one command brings in, and one put.
pub(crate) const BATCH_BYTES: u64 = 8 << 20;

/// Pieces of one command; the state machine takes 4096.
pub(crate) const BATCH_PIECES: usize = 2048;

const _: () = assert!(TARGET <= BLOCK_MAX as u64);

/// One put and one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// To be put first: the parts of each.
    pub(crate) blocks: Vec<(BlockId, Vec<Bytes>)>,
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
    len: usize,
    /// Of the plan's slices, so many.
    slices: usize,
}

/// The batches of a flush, made one by one.
#[derive(Debug)]
pub(crate) struct Plan {
    runs: std::vec::IntoIter<Run>,
    /// Of all runs that are left, in order.
    slices: std::vec::IntoIter<Bytes>,
    inline: bool,
}

/// Plans the writing of `segments`: in order of offset, not overlapping.
pub(crate) fn plan(segments: impl IntoIterator<Item = (u64, Bytes)>) -> Plan {
    let (mut runs, mut slices): (Vec<Run>, Vec<Bytes>) = Default::default();
    let mut total = 0;
    for (mut offset, mut data) in segments {
        total += data.len();
        while !data.is_empty() {
            let room = (TARGET - offset % TARGET) as usize;
            let part = data.split_to(room.min(data.len()));
            let len = part.len();
            match runs.last_mut() {
                Some(run) if run.offset + run.len as u64 == offset && offset % TARGET != 0 => {
                    run.slices += 1;
                    run.len += len;
                }
                _ => runs.push(Run { offset, len, slices: 1 }),
            }
            slices.push(part);
            offset += len as u64;
        }
    }
    Plan { runs: runs.into_iter(), slices: slices.into_iter(), inline: total <= INLINE_WRITE_MAX }
}

/// The parts of a piece as the block store gets them: as they are, without a copy, but not if they are tiny. What a part takes beside its bytes nobody
/// counts.
fn parts(slices: impl ExactSizeIterator<Item = Bytes>, len: usize) -> Vec<Bytes> {
    if slices.len() * PART_MIN > len { vec![joined(slices, len)] } else { slices.collect() }
}

/// One buffer of all parts; without a copy if it is one already.
fn joined(mut parts: impl ExactSizeIterator<Item = Bytes>, len: usize) -> Bytes {
    if parts.len() == 1 {
        return parts.next().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(len);
    parts.for_each(|part| all.extend_from_slice(&part));
    all.freeze()
}

impl Plan {
    /// Whether there is another batch.
    pub(crate) fn has_more(&self) -> bool {
        !self.runs.as_slice().is_empty()
    }

    /// Whether the next batch has blocks.
    pub(crate) fn needs_blocks(&self) -> bool {
        !self.inline && self.has_more()
    }

    /// The next batch; empty if there is none. `next_id` names new blocks.
    pub(crate) fn next(&mut self, mut next_id: impl FnMut() -> BlockId) -> Batch {
        let mut batch = Batch::default();
        let mut shared = Shared::default();
        while batch.pieces.len() < BATCH_PIECES
            && batch.bytes < BATCH_BYTES
            && let Some(run) = self.runs.next()
        {
            let (offset, len) = (run.offset, run.len);
            let slices = self.slices.by_ref().take(run.slices);
            let source = if self.inline {
                Source::Inline(joined(slices, len))
            } else if len >= OWN_BLOCK {
                let id = next_id();
                batch.blocks.push((id, parts(slices, len)));
                Source::Block { id, offset: 0 }
            } else {
                if shared.len + len > TARGET as usize {
                    batch.blocks.extend(shared.close());
                }
                let id = *shared.id.get_or_insert_with(&mut next_id);
                let at = shared.len as u32;
                shared.slices.extend(parts(slices, len));
                shared.len += len;
                Source::Block { id, offset: at }
            };
            batch.pieces.push(Piece { offset, len: len as u32, source });
            batch.bytes += len as u64;
        }
        batch.blocks.extend(shared.close());
        batch
    }
}

/// A block that small pieces share.
#[derive(Default)]
struct Shared {
    /// Its name, once there is a piece.
    id: Option<BlockId>,
    slices: Vec<Bytes>,
    len: usize,
}

impl Shared {
    /// Ends it; the next piece begins another.
    fn close(&mut self) -> Option<(BlockId, Vec<Bytes>)> {
        let Shared { id, slices, .. } = std::mem::take(self);
        Some((id?, slices))
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
            let blocks: HashMap<_, _> =
                batch.blocks.iter().map(|(id, parts)| (*id, Bytes::from(parts.concat()))).collect();
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
        let parts = &batches[0].blocks[0].1;
        assert_eq!((parts.len(), parts[0].as_ptr()), (1, data.as_ptr()));
    }

    #[test]
    fn tiny_parts_are_joined() {
        let bytes = |len: usize, step: usize| {
            (0..len).step_by(step).map(move |at| (at as u64, Bytes::from(vec![at as u8; step])))
        };
        for (len, step, parts) in
            [(1 << 20, 4096, 256), (1 << 20, 64, 1), (200 << 10, 4096, 50), (200 << 10, 1, 1)]
        {
            let batches = all(plan(bytes(len, step)));
            assert_eq!(batches[0].blocks[0].1.len(), parts, "{len} bytes by {step}");
        }
    }
}
