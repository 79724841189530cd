//! Settings of a block store, each with the reason for its default.

use crate::staging::DIRECT_MIN;
use std::sync::Arc;
use std::time::Duration;

/// How far recovery has come. Each segment is looked at twice: its ends, then its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Looks so far.
    pub done: u64,
    /// Looks in all.
    pub total: u64,
}

/// Called on the opening thread, at most once per 100 ms, once opening has taken [`Config::progress_after`].
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Where new segment files are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// By a thread of its own, one segment ahead, so that a put does not wait for the preallocation.
    Background,
    /// By the writer when it needs one: the order of disk operations is then a function of the calls, as the
    /// crash campaign wants it.
    Inline,
}

/// Settings.
#[derive(Clone)]
pub struct Config {
    /// Identity of the store, in each segment header: a segment copied in from another store is refused.
    pub store_id: u128,
    /// Size of a segment file in bytes. 256 MiB: large enough that a directory of 10 TB has 40 000 files and that
    /// preallocation and footers cost nothing; small enough that compacting one is a matter of seconds.
    pub segment_bytes: u64,
    /// Bytes that puts and deletes may hold in the writer's queue before callers wait.
    pub queue_bytes: u64,
    /// Most bytes that go into one write and sync.
    pub batch_bytes: u64,
    /// Batches of at least so many bytes are written past the page cache. Smaller ones are cheaper through it, are often
    /// read soon, and would waste too much room when both their ends are aligned.
    pub direct_bytes: u64,
    /// Bytes of such a batch that are laid out in memory before they are written, while the next are laid out; more if a record is longer, at most 4 MiB. 2 MiB and a
    /// little, two records of a megabyte: enough for a fast disk to stream at its full rate, and few beside a batch, of which the first are not written while others
    /// are laid out.
    pub stage_bytes: usize,
    /// Threads that read what is not in the page cache: the disk's queue depth for random reads.
    pub read_threads: usize,
    /// Reads that may wait for those threads before callers wait.
    pub read_queue: usize,
    /// Bytes of chunks that small reads asked for, kept in memory; 0 for none.
    pub hot_bytes: usize,
    /// Bytes of what large reads asked for repeatedly, kept in memory; 0 for none. 256 MiB: what a department reads again and
    /// again of a few large files, and little beside what the page cache takes.
    pub repeated_bytes: usize,
    /// Bytes of memory for blocks that are read ahead of streams, past the page cache; 0 for none. Taken when first needed.
    /// 32 MiB: full windows of two or three streams and the answers on their way out; the first use of each page is not cheap.
    pub ahead_bytes: usize,
    /// Segment files that are kept open for reading, each with up to two descriptors.
    pub open_files: usize,
    /// A sealed segment whose live share is below this many percent is compacted.
    pub compact_below_percent: u8,
    /// Bytes kept from puts for deletions, compaction and the log; `None` means min(256 MiB, 5 % of the total).
    pub reserve_bytes: Option<u64>,
    /// Age at which the cached answer of the disk about its room is asked for again.
    pub space_refresh: Duration,
    /// Files of segments that are gone, kept to become new ones; those that go while there are so many are removed at once. 4: what the collector empties at a time where
    /// as much is overwritten as the disk takes, and 1 GiB of it at most.
    pub spare_segments: usize,
    /// Where new segment files are made.
    pub prepare: Prepare,
    /// Opening quicker than this tells nobody about its progress.
    pub progress_after: Duration,
    /// Told about the progress of a long recovery.
    pub on_progress: Option<OnProgress>,
}

impl Config {
    /// The defaults, for the store with this identity.
    pub fn new(store_id: u128) -> Self {
        Self {
            store_id,
            segment_bytes: 256 << 20,
            queue_bytes: 64 << 20,
            batch_bytes: 32 << 20,
            direct_bytes: DIRECT_MIN,
            stage_bytes: (2 << 20) + (8 << 10),
            read_threads: 8,
            read_queue: 256,
            hot_bytes: 64 << 20,
            repeated_bytes: 256 << 20,
            ahead_bytes: 32 << 20,
            open_files: 512,
            compact_below_percent: 50,
            reserve_bytes: None,
            space_refresh: Duration::from_secs(1),
            spare_segments: 4,
            prepare: Prepare::Background,
            progress_after: Duration::from_secs(1),
            on_progress: None,
        }
    }
}
