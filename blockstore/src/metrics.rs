//! Counters of a block store.

use crate::ahead::AheadStatus;
use crate::repeated::RepeatedStatus;
use atoll_base::clock_cache::CacheStatus;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the store was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) reads_from_cache: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) damaged_reads: AtomicU64,
    pub(crate) put_blocks: AtomicU64,
    pub(crate) put_bytes: AtomicU64,
    pub(crate) deleted_blocks: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) compacted_bytes: AtomicU64,
    pub(crate) removed_segments: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A snapshot of the store for `atoll status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Live blocks.
    pub blocks: u64,
    /// Their payload bytes.
    pub live_bytes: u64,
    /// Bytes in segment files that hold nothing alive: dead records, headers, and preallocated room not yet used.
    pub dead_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes reserved by callers.
    pub reserved_bytes: u64,
    /// Reads answered.
    pub reads: u64,
    /// Of these, answered from the page cache without a change of thread.
    pub reads_from_cache: u64,
    /// Chunks in memory.
    pub hot: CacheStatus,
    /// What large reads asked for repeatedly, in memory.
    pub repeated: RepeatedStatus,
    /// Blocks read ahead.
    pub ahead: AheadStatus,
    /// Bytes returned by reads.
    pub read_bytes: u64,
    /// Reads that found damage.
    pub damaged_reads: u64,
    /// Blocks put.
    pub put_blocks: u64,
    /// Their bytes.
    pub put_bytes: u64,
    /// Blocks deleted.
    pub deleted_blocks: u64,
    /// Vectored writes of batches.
    pub writes: u64,
    /// Syncs of batches.
    pub syncs: u64,
    /// Bytes copied by compaction.
    pub compacted_bytes: u64,
    /// Segments removed.
    pub removed_segments: u64,
    /// Why the store takes no more writes, if it failed.
    pub failed: Option<String>,
}
