//! Chunks that small reads asked for lately, verified, in memory: a read of a hot page of a database then costs neither a
//! system call nor a checksum.
//!
//! Blocks never change and their ids are never used again, so nothing in here can be out of date. Large reads go by: for them the
//! page cache does as well, and they would wash out what is small and hot.

use crate::format::CHUNK;
use atoll_base::block::BlockId;
use atoll_base::clock_cache::{CacheStatus, ClockCache};
use bytes::{Bytes, BytesMut};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// Chunks that a read may touch to be looked up here.
const CHUNKS_MAX: usize = 4;

struct Chunk {
    id: BlockId,
    number: usize,
    bytes: Bytes,
}

pub(crate) struct Hot {
    /// Off, if `None`.
    chunks: Option<ClockCache<Chunk>>,
    hasher: RandomState,
}

/// The chunks that a range of a block touches; `None` if they are too many (or none).
fn touched(range: &Range<usize>) -> Option<Range<usize>> {
    let chunks = range.start / CHUNK..range.end.div_ceil(CHUNK);
    (1..=CHUNKS_MAX).contains(&chunks.len()).then_some(chunks)
}

impl Hot {
    /// Holds about `bytes` of chunks; with 0, nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { chunks: (bytes > 0).then(|| ClockCache::new(bytes / CHUNK)), hasher: RandomState::new() }
    }

    fn key(&self, id: BlockId, number: usize) -> u64 {
        self.hasher.hash_one((id, number))
    }

    fn chunk(&self, id: BlockId, number: usize) -> Option<Bytes> {
        self.chunks.as_ref()?.get(self.key(id, number), |chunk| {
            (chunk.id == id && chunk.number == number).then(|| chunk.bytes.clone())
        })
    }

    /// The bytes `range` of a block that reaches at least so far, if all of them are here.
    pub(crate) fn get(&self, id: BlockId, range: Range<usize>) -> Option<Bytes> {
        let numbers = touched(&range)?;
        let start = numbers.start * CHUNK;
        let within = range.start - start..range.end - start;
        if numbers.len() == 1 {
            return Some(self.chunk(id, numbers.start)?.slice(within));
        }
        let mut all = BytesMut::with_capacity(numbers.len() * CHUNK);
        for number in numbers {
            all.extend_from_slice(&self.chunk(id, number)?);
        }
        Some(all.freeze().slice(within))
    }

    /// Keeps the chunks that a read of `range` touched. `payload` are their bytes, verified.
    pub(crate) fn keep(&self, id: BlockId, range: &Range<usize>, payload: &[u8]) {
        let (Some(chunks), Some(numbers)) = (&self.chunks, touched(range)) else { return };
        for (number, bytes) in numbers.zip(payload.chunks(CHUNK)) {
            // A copy: a slice would keep the whole buffer of the read.
            let chunk = Chunk { id, number, bytes: Bytes::copy_from_slice(bytes) };
            chunks.put(self.key(id, number), chunk);
        }
    }

    pub(crate) fn status(&self) -> CacheStatus {
        self.chunks.as_ref().map(ClockCache::status).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::id::Epoch;

    #[test]
    fn gives_what_was_kept_and_nothing_else() {
        let hot = Hot::new(1 << 20);
        let id = BlockId::new(Epoch(1), 1);
        let block: Vec<u8> = (0..3 * CHUNK + 100).map(|i| (i % 251) as u8).collect();
        hot.keep(id, &(CHUNK + 5..3 * CHUNK + 50), &block[CHUNK..]);
        for range in [CHUNK..2 * CHUNK, CHUNK + 1..CHUNK + 2, CHUNK + 9..3 * CHUNK + 100] {
            assert_eq!(hot.get(id, range.clone()).unwrap(), block[range]);
        }
        assert_eq!(hot.get(id, 0..10), None, "was not touched");
        assert_eq!(hot.get(BlockId::new(Epoch(1), 2), CHUNK..CHUNK + 10), None);
        assert_eq!(hot.get(id, CHUNK..CHUNK), None);

        hot.keep(id, &(0..5 * CHUNK), &[0; 5 * CHUNK]);
        assert_eq!(hot.get(id, 0..10), None, "a large read goes by");
    }

    #[test]
    fn stays_bounded() {
        let hot = Hot::new(64 * CHUNK);
        for n in 0..1000 {
            hot.keep(BlockId::new(Epoch(1), n), &(0..CHUNK), &[1; CHUNK]);
        }
        assert!(hot.status().entries <= hot.status().capacity);
        assert_eq!(hot.status().capacity, 64);
    }
}
