//! redb's storage on a file of our [`Disk`](atoll_base::disk::Disk), so that the simulated disk can stop its power too.

use atoll_base::disk::{File, read_exact_at};
use redb::StorageBackend;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Site of every sync of the metadata store, see [`atoll_base::disk`].
pub const SYNC_STATE: &str = "state.commit";

/// A file as redb wants it.
///
/// It takes no lock: the directory is locked against a second process as a whole.
pub struct RedbFile {
    file: Arc<dyn File>,
    site: &'static str,
}

impl RedbFile {
    /// All syncs carry `site`.
    pub fn new(file: Arc<dyn File>, site: &'static str) -> Self {
        Self { file, site }
    }
}

impl fmt::Debug for RedbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbFile").field("site", &self.site).finish_non_exhaustive()
    }
}

impl StorageBackend for RedbFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exact_at(&*self.file, out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync(self.site)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(&[IoSlice::new(data)], offset)
    }
}
