//! The write-ahead log: Raft entries, the vote and the markers, in preallocated segment files.
//!
//! Invariants, on which Raft relies:
//!
//! - what was acknowledged (its callback got `Ok`) is found by every later [`Wal::open`], after any power cut;
//! - each record is found whole or not at all, and records that were not acknowledged are found only as a
//!   contiguous continuation of those that were;
//! - damage to an acknowledged record is an error that names file and offset, never a shorter log. The one
//!   exception: damage to the very last group of records, when the log was not closed, looks like a write
//!   that the power cut tore;
//! - after an error of a write or sync the log is failed for ever ([`WalError::Failed`]) and nothing is retried:
//!   the system may have dropped the pages while it still shows them.
//!
//! How: `segment.rs` has the file format and `record.rs` the records. One thread writes (`writer.rs`) whatever was
//! submitted meanwhile as one *group* (`group.rs`): one durable write past the page cache, then the callbacks. A record tells where its
//! group began, and a group is written only when the one before it is durable; so a valid record proves that all
//! bytes before its group are durable, and `recovery.rs` can tell a torn tail from damage.
//!
//! Memory: 16 bytes per retained entry for the index, plus the cache of recent entries
//! ([`Config::cache_bytes`]), plus what waits to be written ([`Config::queue_bytes`]), plus a copy of the group that is being written ([`Config::group_bytes`], or one larger
//! request within a segment; 1 MiB of it is kept). A cached entry shares the
//! buffers of the caller, so a small slice of a large buffer keeps the large one alive.

mod group;
mod record;
mod recovery;
mod segment;
mod state;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

pub use wal::{Done, Wal};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The identity of an entry: the leader that proposed it and its place. Ordered by term, leader, index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId {
    /// Term of the leader.
    pub term: u64,
    /// Node number of the leader.
    pub leader: u64,
    /// Position; consecutive.
    pub index: u64,
}

/// An entry. The log treats its contents as opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub id: EntryId,
    /// A short description of the parts.
    pub head: Bytes,
    /// The contents.
    pub parts: Vec<Bytes>,
}

/// Sizes. The defaults are for production; tests use small segments.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a segment file, a multiple of 4096, at least 16 KiB and below 4 GiB. An entry must fit into one,
    /// with [`Config::max_entry_bytes`].
    pub segment_bytes: u32,
    /// Bound of the cache of recent entries. Entries that are not durable yet are held regardless, up to
    /// `queue_bytes`.
    pub cache_bytes: usize,
    /// Bound of what waits to be written; a submission waits while more does.
    pub queue_bytes: usize,
    /// Largest group: bounds the latency of the first callback in it. A single larger entry is its own group.
    pub group_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, cache_bytes: 32 << 20, queue_bytes: 16 << 20, group_bytes: 4 << 20 }
    }
}

impl Config {
    /// The largest entry: head, parts and 4 bytes per part.
    pub fn max_entry_bytes(&self) -> usize {
        self.segment_bytes as usize - state::SEGMENT_OVERHEAD as usize - record::ENTRY_OVERHEAD
    }

    fn check(&self) -> Result<(), WalError> {
        if self.segment_bytes < 16 << 10 || !self.segment_bytes.is_multiple_of(4096) {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("log segments of {} bytes", self.segment_bytes),
            );
            return Err(WalError::Io { what: "configuration".into(), source: Arc::new(error) });
        }
        Ok(())
    }
}

/// What the log answers instead of success.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The disk is full. Nothing of the request was written or will be; the log is usable again when there is
    /// room.
    #[error("no space for the log: the file system holding it is full; nothing was written")]
    NoSpace,
    /// A write or a sync failed before. The log takes nothing more until the process starts again.
    #[error("the log has failed and takes no more writes: {0}")]
    Failed(Arc<str>),
    /// The entry is larger than [`Config::max_entry_bytes`] (or a vote than 1 KiB).
    #[error("a record of {bytes} bytes, above the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The entry doesn't follow the last.
    #[error("entry {got} appended where {expected} is next")]
    Hole {
        /// The index that is next.
        expected: u64,
        /// The index that came.
        got: u64,
    },
    /// Bytes that were durable are not what they were. The log must be restored from another member.
    #[error("the log is damaged: {file} at byte {offset}: {what}")]
    Damaged {
        /// Path of the file, relative to the disk.
        file: String,
        /// Byte in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The system refused an operation while the log was opened or read.
    #[error("log: {what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: Arc::new(source) }
    }
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> Self {
        let kind = match &error {
            WalError::NoSpace => io::ErrorKind::StorageFull,
            WalError::TooLarge { .. } | WalError::Hole { .. } => io::ErrorKind::InvalidInput,
            WalError::Damaged { .. } => io::ErrorKind::InvalidData,
            WalError::Io { source, .. } => source.kind(),
            WalError::Failed(_) | WalError::Closed => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Figures for `atoll status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes of all segment files, spare ones included.
    pub disk_bytes: u64,
    /// Segment files that hold records.
    pub segments: u64,
    /// Prepared segment files without records.
    pub spare_segments: u64,
    /// Entries retained.
    pub entries: u64,
    /// Bytes in the cache of recent entries.
    pub cache_bytes: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Requests acknowledged since the log was opened.
    pub appends: u64,
    /// Groups written and synced since the log was opened; `appends / syncs` is the gain of group commit.
    pub syncs: u64,
    /// Bytes written in groups since the log was opened.
    pub written_bytes: u64,
    /// How long the last sync took.
    pub last_sync: Duration,
    /// Only the reserve is left; see [`Wal::low_space`].
    pub low_space: bool,
    /// Why the log has failed, if it has.
    pub failed: Option<String>,
}
