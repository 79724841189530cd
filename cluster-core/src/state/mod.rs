//! The replicated state: newest writes in memory, the rest in one redb file, but for large values, which have a file of their own.

mod base;
mod error;
mod front;
mod key;
mod layer;
mod reader;
mod redb_file;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod values;

pub use base::RepairProgress;
pub use error::StateError;
pub use front::View;
pub use reader::{StateReader, StateWriter};
pub use redb_file::{RedbFile, SYNC_STATE};
pub use snapshot::{Frames, Received, Receiver, SnapshotData};
pub use store::{Config, SYNC_STATE_DIR, StateStore};
pub use values::SYNC_VALUES;
