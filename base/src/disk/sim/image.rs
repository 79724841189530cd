//! The bytes of a simulated file: a sparse, copy-on-write array of chunks.
//!
//! The live and the durable image of a file share each chunk in which they agree, and an allocated chunk that
//! was never written costs one map entry, so a preallocated segment of 64 MiB takes a few hundred KiB.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Bytes per chunk, the unit in which space is counted.
pub(super) const CHUNK: u64 = 4096;

type Chunk = [u8; CHUNK as usize];

static ZEROS: LazyLock<Arc<Chunk>> = LazyLock::new(|| Arc::new([0; CHUNK as usize]));

/// A sparse byte array. A chunk that is absent reads as zeros and takes no space.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    len: u64,
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

/// Indices of the chunks that `range` touches.
fn touched(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / CHUNK..range.end.div_ceil(CHUNK) }
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many chunks take space.
    pub(super) fn allocated(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// How many chunks of `range` would have to be allocated before a write in it.
    pub(super) fn missing(&self, range: Range<u64>) -> u64 {
        let wanted = touched(&range);
        (wanted.end - wanted.start) - self.chunks.range(wanted).count() as u64
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        let mut at = offset;
        while at < end {
            let (index, within) = (at / CHUNK, at % CHUNK);
            let n = (CHUNK - within).min(end - at) as usize;
            let out = &mut buf[(at - offset) as usize..][..n];
            match self.chunks.get(&index) {
                Some(chunk) => out.copy_from_slice(&chunk[within as usize..][..n]),
                None => out.fill(0),
            }
            at += n as u64;
        }
        end.saturating_sub(offset) as usize
    }

    /// The chunks that were written, neighbours joined.
    pub(super) fn written(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (index, chunk) in &self.chunks {
            let (start, end) = (index * CHUNK, self.len.min((index + 1) * CHUNK));
            if Arc::ptr_eq(chunk, &ZEROS) || start >= end {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Writes without changing the length; see [`Image::extend`].
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let (index, within) = (at / CHUNK, at % CHUNK);
            let n = (CHUNK - within).min(end - at) as usize;
            let chunk = Arc::make_mut(self.chunks.entry(index).or_insert_with(|| ZEROS.clone()));
            chunk[within as usize..][..n].copy_from_slice(&data[(at - offset) as usize..][..n]);
            at += n as u64;
        }
    }

    /// Makes the length at least `len`.
    pub(super) fn extend(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            // Not only up to the old length: a write beyond a length that stayed old may have left chunks there.
            self.chunks.split_off(&len.div_ceil(CHUNK));
            self.zero(len..len.next_multiple_of(CHUNK));
        }
        self.len = len;
    }

    pub(super) fn allocate(&mut self, range: Range<u64>) {
        for index in touched(&range) {
            self.chunks.entry(index).or_insert_with(|| ZEROS.clone());
        }
        self.extend(range.end);
    }

    pub(super) fn punch(&mut self, range: Range<u64>) {
        for index in range.start.div_ceil(CHUNK)..range.end / CHUNK {
            self.chunks.remove(&index);
        }
        let first_whole = range.start.next_multiple_of(CHUNK).min(range.end);
        self.zero(range.start..first_whole);
        self.zero((range.end / CHUNK * CHUNK).max(first_whole)..range.end);
    }

    /// Overwrites with zeros what is allocated in a range that lies within one chunk.
    fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some(chunk) = self.chunks.get_mut(&(range.start / CHUNK)) {
            let start = (range.start % CHUNK) as usize;
            Arc::make_mut(chunk)[start..start + (range.end - range.start) as usize].fill(0);
        }
    }

    /// Takes over the length and the chunks of `range` from `other`, sharing their memory.
    pub(super) fn copy_from(&mut self, other: &Image, range: Range<u64>) {
        for index in touched(&range) {
            match other.chunks.get(&index) {
                Some(chunk) => self.chunks.insert(index, chunk.clone()),
                None => self.chunks.remove(&index),
            };
        }
        self.len = other.len;
    }

    /// Drops what a lost change of length left beyond the end.
    pub(super) fn trim(&mut self) {
        let len = self.len;
        self.chunks.split_off(&len.div_ceil(CHUNK));
        self.zero(len..len.next_multiple_of(CHUNK));
    }
}
