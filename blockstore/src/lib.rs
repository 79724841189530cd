//! Immutable checksummed blocks in segment files: the block store of one node.
//!
//! # What it promises
//!
//! - `put` returns when all its blocks are synced. After any crash they read back equal, or a read says `Damaged` or
//!   `Missing`; other bytes are never returned. Every read verifies the record's header and each chunk it touches.
//! - `delete` returns when a *tombstone* of each block is synced: a deleted block does not come back after a crash.
//!   A deletion that was not acknowledged may have happened or not, and can be repeated. A put that was not
//!   acknowledged may leave its blocks behind, whole; [`BlockStore::list`] shows them to the collector.
//! - A failed write or sync ends all writing until the store is opened again; `NoSpace` ends nothing.
//!
//! # How
//!
//! Segment files under `blocks/` are append-only (`format`, `segment`). One thread writes (`writer`): one write and one
//! sync for all that gathered meanwhile, past the page cache if it is much (`staging`). A segment that is full gets a footer that lists its records;
//! compaction (`compact`) copies what lives in mostly dead ones. What is dead is said by tombstones in the same
//! stream. Each names one record (segment and position), so it is forgotten with that segment.
//!
//! # The index
//!
//! Segments are the only truth; the index is in memory and built from the footers at open. A database (redb) beside
//! the segments was the alternative: its memory is bounded by a cache, but it is a second truth to keep consistent, it
//! grows on the same full disk (a failed growth poisons it), and every batch pays for a tree update of random keys.
//! Ids are nearly sequential, so the index in memory is small: 12 bytes a block, about 16 with slack when
//! written in order, at most about 120 when every block that lives is alone among 256 neighbours. A TB of 1 MiB
//! blocks takes 16 MB; a TB of 64 KiB blocks 250 MB.
//!
//! Opening reads two units and the footer of each segment: 24 bytes a record, about 1 ms a segment when nothing is
//! cached, so 4 s per TB of 256 MiB segments; after a crash it also scans the headers of one segment.
//!
//! # Measured
//!
//! On two cores, with a disk that takes 2 GB/s past the page cache and 380 MB/s through it (`examples/measure.rs`): puts of
//! 1 MiB reach 1.4 GB/s alone and 1.9 GB/s with 16 in flight; puts of 4 KiB 4300/s alone (one fdatasync each), 36 000/s
//! with 16 and 300 000/s with 256 in flight. From the page cache, on the caller's thread, a read of 4 KiB takes 3 to 6 us,
//! of 64 KiB 13 us, of 1 MiB 190 us (35 to 75 us of it checksums: 20 us more than with 64 KiB chunks, the price of cheap
//! small reads); what was written in large batches comes from the disk the first time.
//!
//! # Threads
//!
//! `block-write`, `block-stage`, `block-prepare`, and `block-read-N`. Compaction and scrub have none: a maintenance thread of the
//! owner calls [`BlockStore::compact_step`] and [`BlockStore::scrub_step`].

mod ahead;
mod buffers;
mod compact;
mod config;
mod files;
mod format;
mod hot;
mod index;
mod inspect;
mod lock;
mod metrics;
mod prepare;
mod read;
mod recover;
mod repeated;
mod segment;
mod shared;
mod space;
mod spare;
mod staging;
mod state;
mod store;
mod warm;
mod writer;

pub use ahead::AheadStatus;
pub use compact::CompactStep;
pub use config::{Config, OnProgress, Prepare, Progress};
pub use inspect::{CheckReport, Damage, Scrubbed, check};
pub use metrics::Metrics;
pub use recover::{OpenError, Recovery};
pub use repeated::RepeatedStatus;
pub use segment::{
    Gap, SITE_APPEND, SITE_CREATE, SITE_REMOVE, SITE_RESEAL, SITE_REUSE, SITE_ROOT, SITE_SEAL,
};
pub use store::BlockStore;
