//! The state's file: opened, written batch by batch, made durable now and then, replaced whole by a snapshot.
//!
//! Invariants:
//! - What a batch changed and how far the log is applied are in the same transaction, so after a crash the file holds
//!   exactly the effects of a prefix of the log and names that prefix.
//! - Batches are committed without durability. [`StateStore::commit_durable`] alone tells what a crash leaves, and only up to there may
//!   the log be purged ([`StateStore::durable`]).
//! - `state.redb` is always a whole state: a received one is built beside it and renamed over it.

use super::redb_file::{RedbFile, SYNC_STATE};
use super::redb_kv::{RAFT_PREFIX, STATE, StateReader, StateWriter};
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership};
use atoll_base::disk::{Disk, Open};
use atoll_model::kv::KvError;
use redb::{Database, Durability, ReadableDatabase, ReadableTable};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The state's file within its directory.
const FILE: &str = "state.redb";
/// Begins the names of states being received; a number follows.
const INCOMING: &str = "state.incoming.";
/// Size of redb's pages; part of its format.
const PAGE: u64 = 4096;
/// Site of the directory sync that makes the state's file, or its replacement, survive.
pub const SYNC_STATE_DIR: &str = "state.dir";

const KEY_APPLIED: [u8; 2] = [RAFT_PREFIX, b'a'];
const KEY_MEMBERSHIP: [u8; 2] = [RAFT_PREFIX, b'm'];

/// A failure of the state's file. The member that meets it applies nothing more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// The store or the disk below failed.
    #[error("metadata store: {0}")]
    Store(Arc<str>),
    /// What was read makes no sense.
    #[error("metadata store is damaged: {0}")]
    Damaged(String),
}

impl StateError {
    fn store(error: impl std::fmt::Display) -> Self {
        StateError::Store(error.to_string().into())
    }
}

impl From<KvError> for StateError {
    fn from(error: KvError) -> Self {
        StateError::Store(error.0.into())
    }
}

impl From<io::Error> for StateError {
    fn from(error: io::Error) -> Self {
        StateError::store(error)
    }
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> Self {
        io::Error::other(error)
    }
}

/// One consistent state and its place in the log.
pub struct View {
    reader: StateReader,
    applied: Option<LogId>,
}

impl View {
    /// The tables.
    pub fn reader(&self) -> &StateReader {
        &self.reader
    }

    /// The last entry of the log that is in it.
    pub fn applied(&self) -> Option<&LogId> {
        self.applied.as_ref()
    }

    /// Its place in the log and the membership then.
    pub fn meta(&self) -> Result<SnapshotMeta, StateError> {
        Ok(SnapshotMeta { last_log_id: self.applied, last_membership: read_membership(&self.reader.table)? })
    }
}

/// Tells how far a repair after a crash is, 0.0 to 1.0.
pub type RepairProgress = Arc<dyn Fn(f64) + Send + Sync>;

/// The state on disk.
pub struct StateStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cache_bytes: usize,
    db: RwLock<Database>,
    durable: Mutex<Option<LogId>>,
    next_incoming: AtomicU64,
    /// Most bytes that were in use when it was measured.
    fullest: AtomicU64,
}

impl StateStore {
    /// Opens the state in `dir` (which exists), or makes an empty one. `cache_bytes` bounds redb's page cache.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cache_bytes: usize,
        repair: Option<RepairProgress>,
    ) -> Result<Self, StateError> {
        let mut exists = false;
        for entry in disk.list(dir)? {
            exists |= entry.name == FILE;
            if entry.name.starts_with(INCOMING) {
                disk.remove(&dir.join(entry.name))?;
            }
        }
        let path = dir.join(FILE);
        let db = if exists {
            open_file(&*disk, &path, Open::ReadWrite, cache_bytes, repair)?
        } else {
            // redb writes its header in several steps: made under another name, a half made file is never opened.
            let made = dir.join(format!("{INCOMING}0"));
            let db = open_file(&*disk, &made, Open::CreateNew, cache_bytes, None)?;
            commit_durable(&db)?;
            disk.rename(&made, &path)?;
            db
        };
        // The file's entry must outlive a crash before anything in it is counted on; also one that was found, whose
        // rename may not have been synced.
        disk.sync_dir(dir, SYNC_STATE_DIR)?;
        let store = Self {
            disk,
            dir: dir.to_owned(),
            cache_bytes,
            db: RwLock::new(db),
            durable: Mutex::new(None),
            next_incoming: AtomicU64::new(0),
            fullest: AtomicU64::new(0),
        };
        store.commit_durable()?;
        Ok(store)
    }

    /// The state as of the last batch.
    pub fn view(&self) -> Result<View, StateError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let table =
            db.begin_read().map_err(StateError::store)?.open_table(STATE).map_err(StateError::store)?;
        let applied = read_applied(&table)?;
        Ok(View { reader: StateReader { table }, applied })
    }

    /// Runs `f` in one transaction, visible to later views, durable with the next [`StateStore::commit_durable`]. On an error nothing of it
    /// remains.
    pub fn write<R>(
        &self,
        f: impl FnOnce(&mut StateWriter<'_>) -> Result<R, StateError>,
    ) -> Result<R, StateError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        write_to(&db, f)
    }

    /// Makes everything written so far durable and returns the last entry of the log in it. Blocks for the disk, and
    /// batches wait meanwhile.
    pub fn commit_durable(&self) -> Result<Option<LogId>, StateError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let applied = commit_durable(&db)?;
        *self.durable_lock() = applied;
        Ok(applied)
    }

    /// The last entry of the log whose effects a crash cannot take.
    pub fn durable(&self) -> Option<LogId> {
        *self.durable_lock()
    }

    fn durable_lock(&self) -> MutexGuard<'_, Option<LogId>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the state's file that deleted records have left since it was measured at its fullest. (What is free beyond may
    /// never have been written, and takes room on the disk when it is.) Walks the whole state while batches wait: for
    /// when it is needed to know, not for every day.
    pub fn freed_bytes(&self) -> Result<u64, StateError> {
        // Pages go back to be used again only with a durable commit, and those at the peak must have been written.
        self.commit_durable()?;
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let txn = db.begin_write().map_err(StateError::store)?;
        let stats = txn.stats().map_err(StateError::store)?;
        let used = stats.allocated_pages() * stats.page_size() as u64;
        txn.abort().map_err(StateError::store)?;
        Ok(self.fullest.fetch_max(used, Ordering::Relaxed).saturating_sub(used))
    }

    /// Bytes of the state's file.
    pub fn file_len(&self) -> Result<u64, StateError> {
        Ok(self.disk.open(&self.dir.join(FILE), Open::Read)?.len()?)
    }

    /// An empty state to receive a snapshot into.
    pub(super) fn create_incoming(&self) -> Result<Incoming, StateError> {
        let number = self.next_incoming.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{INCOMING}{number}"));
        let db = open_file(&*self.disk, &path, Open::CreateNew, self.cache_bytes, None)?;
        Ok(Incoming { db: Some(db), path, disk: self.disk.clone() })
    }

    /// Puts a received state, already durable, in the place of the present one.
    pub(super) fn replace(&self, mut incoming: Incoming) -> Result<(), StateError> {
        let Some(new) = incoming.db.take() else { return Ok(()) };
        let applied = {
            let txn = new.begin_read().map_err(StateError::store)?;
            read_applied(&txn.open_table(STATE).map_err(StateError::store)?)?
        };
        // No batch may go into the old file once the new one has its name.
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        self.disk.rename(&incoming.path, &self.dir.join(FILE))?;
        self.disk.sync_dir(&self.dir, SYNC_STATE_DIR)?;
        *db = new;
        *self.durable_lock() = applied;
        Ok(())
    }
}

/// A state being received, in a file of its own that goes when this is dropped.
pub(super) struct Incoming {
    db: Option<Database>,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Incoming {
    /// The state.
    pub(super) fn db(&self) -> Result<&Database, StateError> {
        self.db.as_ref().ok_or_else(|| StateError::store("the received state is in place already"))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.db.take().is_some()
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a half received state stays until the next start");
        }
    }
}

/// Runs `f` in one transaction without durability.
pub(super) fn write_to<R>(
    db: &Database,
    f: impl FnOnce(&mut StateWriter<'_>) -> Result<R, StateError>,
) -> Result<R, StateError> {
    let mut txn = db.begin_write().map_err(StateError::store)?;
    txn.set_durability(Durability::None).map_err(StateError::store)?;
    let result = {
        let mut writer = StateWriter { table: txn.open_table(STATE).map_err(StateError::store)? };
        f(&mut writer)
    };
    match result {
        Ok(value) => {
            txn.commit().map_err(StateError::store)?;
            Ok(value)
        }
        Err(error) => {
            txn.abort().map_err(StateError::store)?;
            Err(error)
        }
    }
}

/// Makes everything in `db` durable and returns the last entry of the log in it.
pub(super) fn commit_durable(db: &Database) -> Result<Option<LogId>, StateError> {
    let mut txn = db.begin_write().map_err(StateError::store)?;
    txn.set_durability(Durability::Immediate).map_err(StateError::store)?;
    // Saves the allocator's state too: opening after a crash must not walk the whole file.
    txn.set_quick_repair(true);
    let applied = {
        let table = txn.open_table(STATE).map_err(StateError::store)?;
        read_applied(&table)?
    };
    txn.commit().map_err(StateError::store)?;
    Ok(applied)
}

fn open_file(
    disk: &dyn Disk,
    path: &Path,
    how: Open,
    cache_bytes: usize,
    repair: Option<RepairProgress>,
) -> Result<Database, StateError> {
    let file = disk.open(path, how)?;
    // redb refuses a file that doesn't end on a page. One that was growing when the power went may, and what is beyond
    // the last whole page is beyond anything that was ever made durable.
    let len = file.len()?;
    if !len.is_multiple_of(PAGE) {
        file.set_len(len - len % PAGE)?;
    }
    let file = RedbFile::new(file, SYNC_STATE);
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    if let Some(repair) = repair {
        builder.set_repair_callback(move |session| repair(session.progress()));
    }
    let db = builder.create_with_backend(file).map_err(StateError::store)?;
    write_to(&db, |_| Ok(()))?;
    Ok(db)
}

type Raw = &'static [u8];

fn read_applied(table: &impl ReadableTable<Raw, Raw>) -> Result<Option<LogId>, StateError> {
    decode(table, &KEY_APPLIED)
}

fn read_membership(table: &impl ReadableTable<Raw, Raw>) -> Result<StoredMembership, StateError> {
    Ok(decode(table, &KEY_MEMBERSHIP)?.unwrap_or_default())
}

fn decode<T: serde::de::DeserializeOwned>(
    table: &impl ReadableTable<Raw, Raw>,
    key: &[u8],
) -> Result<Option<T>, StateError> {
    let Some(bytes) = table.get(key).map_err(StateError::store)? else { return Ok(None) };
    postcard::from_bytes(bytes.value())
        .map(Some)
        .map_err(|e| StateError::Damaged(format!("record {key:?} of the Raft group: {e}")))
}

impl StateWriter<'_> {
    /// Records the last entry of the log whose effects are in the state.
    pub fn set_applied(&mut self, applied: &LogId) -> Result<(), StateError> {
        self.set(&KEY_APPLIED, applied)
    }

    /// Records the membership in force.
    pub fn set_membership(&mut self, membership: &StoredMembership) -> Result<(), StateError> {
        self.set(&KEY_MEMBERSHIP, membership)
    }

    fn set(&mut self, key: &[u8], value: &impl serde::Serialize) -> Result<(), StateError> {
        let bytes = postcard::to_stdvec(value).map_err(StateError::store)?;
        self.table.insert(key, bytes.as_slice()).map_err(StateError::store)?;
        Ok(())
    }
}
