//! redb on our disk trait, so that the simulated disk can cut its power too.
//!
//! redb keeps two commit slots and checksums and needs of its backend what [`atoll_base::disk::File`] promises:
//! positioned reads and writes, a length, and a sync. Locking is left out: the data directory has one lock for all
//! of its files.

use atoll_base::disk::{Disk, File, Open, read_exact_at};
use redb::{Builder, Database, DatabaseError, StorageBackend};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// A file of a [`Disk`] as redb's storage.
pub struct RedbFile {
    file: Arc<dyn File>,
    site: &'static str,
}

impl RedbFile {
    /// Wraps an open file; redb's syncs carry the label `site`.
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

/// Opens a redb database, made if it does not exist, with at most `cache_bytes` of page cache of its own. Syncs of the
/// file are labelled `file_site`; the entry of the file is made durable under the label `dir_site`.
pub fn open_redb(
    disk: &dyn Disk,
    path: &Path,
    cache_bytes: usize,
    file_site: &'static str,
    dir_site: &'static str,
) -> Result<Database, DatabaseError> {
    let io = |e: io::Error| DatabaseError::Storage(redb::StorageError::Io(e));
    let file = disk.open(path, Open::Create).map_err(io)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")), dir_site).map_err(io)?;
    Builder::new().set_cache_size(cache_bytes).create_with_backend(RedbFile::new(file, file_site))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::disk::sim::SimDisk;
    use redb::{Durability, ReadableDatabase, TableDefinition};

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

    /// Runs durable and lazy commits until the power goes; returns the last durable value.
    fn fill(disk: &SimDisk, from: u64) -> u64 {
        let mut durable = from;
        let Ok(db) = open_redb(disk, Path::new("db"), 1 << 20, "db.file", "db.dir") else { return durable };
        for n in from + 1..from + 40 {
            let Ok(mut tx) = db.begin_write() else { return durable };
            tx.set_durability(if n % 4 == 0 { Durability::Immediate } else { Durability::None }).unwrap();
            let done = tx.open_table(TABLE).map_err(|_| ()).and_then(|mut t| {
                t.insert(n % 7, n).map_err(|_| ())?;
                t.insert(100, n).map(|_| ()).map_err(|_| ())
            });
            if done.is_err() || tx.commit().is_err() {
                return durable;
            }
            if n % 4 == 0 {
                durable = n;
            }
        }
        durable
    }

    fn last(disk: &SimDisk) -> Option<u64> {
        let db = open_redb(disk, Path::new("db"), 1 << 20, "db.file", "db.dir").ok()?;
        let tx = db.begin_read().ok()?;
        let table = tx.open_table(TABLE).ok()?;
        Some(table.get(100).ok()??.value())
    }

    fn campaign(skip: Option<&str>) -> bool {
        (0..60).all(|seed| {
            let disk = SimDisk::new();
            if let Some(site) = skip {
                disk.skip_site(site);
            }
            disk.cut_power_after(20 + seed * 3);
            let durable = fill(&disk, 0);
            let disk = disk.crash(seed);
            durable == 0 || last(&disk).is_some_and(|n| n >= durable)
        })
    }

    #[test]
    fn durable_commits_survive_a_power_cut() {
        assert!(campaign(None));
    }

    #[test]
    fn each_sync_is_needed() {
        assert!(!campaign(Some("db.file")));
        assert!(!campaign(Some("db.dir")));
    }
}
