//! The replicated state on disk: redb, in one file.

mod redb_file;
mod redb_kv;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

pub use redb_file::{RedbFile, SYNC_STATE};
pub use redb_kv::{StateReader, StateWriter};
pub use snapshot::{Frames, Received, Receiver, SnapshotData};
pub use store::{RepairProgress, SYNC_STATE_DIR, StateError, StateStore, View};
