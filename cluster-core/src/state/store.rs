//! The state: written batch by batch in memory, flushed to its file now and then, replaced whole by a snapshot.
//!
//! A batch goes into the active layer, in memory. A *flush* freezes that layer, puts an empty one on top, and writes the
//! frozen one into the file, in one durable transaction, while batches go on above it. Readers read all layers
//! ([`super::reader`]).
//!
//! Invariants:
//! - A layer is frozen between two batches and goes into the file whole, together with its place in the log. So the file
//!   holds exactly the effects of a prefix of the log and names that prefix.
//! - Batches are not durable. A flush alone tells what a crash leaves, and only up to there may the log be purged
//!   ([`StateStore::durable`]).
//! - A flush that failed is not tried again: from then on batches and flushes are refused.
//! - `state.redb`, with the [large values](super::values) it refers to, is always a whole state: a received one is built beside it, refers to none,
//!   and is renamed over it.

use super::base::{self, Base, Place, RepairProgress, Rows, open_file, transact};
use super::error::StateError;
use super::front::{Front, View};
use super::reader::StateWriter;
use super::values::{self, Values};
use crate::raft::types::LogId;
use atoll_base::disk::{Disk, Open};
use redb::{Database, Durability};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// The state's file within its directory.
const FILE: &str = "state.redb";
/// Begins the names of states being received; a number follows.
const INCOMING: &str = "state.incoming.";
/// Site of the directory sync that makes the state's file, or its replacement, survive.
pub const SYNC_STATE_DIR: &str = "state.dir";

/// With less room on the disk, flushes fill the smallest gaps before the file of large values grows.
const TIGHT: u64 = 1 << 30;

/// Sizes of the state in memory.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Bytes of what batches have written, overhead included, at which the store flushes it without being told to. When
    /// twice as much has gathered because a flush still runs, batches wait. So at worst four times this is in memory, half of
    /// it being flushed, and what the last batches wrote beyond.
    pub flush_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, flush_bytes: 8 << 20 }
    }
}

/// The state.
pub struct StateStore {
    inner: Arc<Inner>,
    flusher: Flusher,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: Config,
    front: Arc<Front>,
    /// Held while a batch is written. Within: room for the batches that are still read.
    writing: Mutex<Vec<u64>>,
    /// Held while the file is written or replaced. Taken before `writing` by whoever needs both.
    db: Mutex<OnDisk>,
    values: Arc<Values>,
    durable: Mutex<Option<LogId>>,
    failed: OnceLock<StateError>,
    on_flush: OnceLock<Box<dyn Fn() + Send + Sync>>,
    next_incoming: AtomicU64,
    /// Most bytes that were in use when it was measured.
    fullest: AtomicU64,
}

/// What a flush writes.
struct OnDisk {
    redb: Arc<Database>,
    values: values::Writer,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore {
    /// Opens the state in `dir` (which exists), or makes an empty one.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: Config,
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
        // redb writes its header in several steps: made under another name, a half made file is never opened.
        let made = dir.join(format!("{INCOMING}0"));
        let (name, how) = if exists { (&path, Open::ReadWrite) } else { (&made, Open::CreateNew) };
        let db = open_file(&*disk, name, how, config.cache_bytes, repair)?;
        // Also one that was found: a process that was killed may have left what never reached the disk.
        base::sync(&db)?;
        let values = Values::open(&*disk, dir)?;
        if !exists {
            disk.rename(&made, &path)?;
        }
        // The files' entries must outlive a crash before anything in it is counted on; also one that was found, whose
        // rename may not have been synced.
        disk.sync_dir(dir, SYNC_STATE_DIR)?;
        let base = Base::open(&db, values.pin())?;
        let place = base.place()?;
        let writer = values::Writer::new(values.clone(), base.slot_rows()?)?;
        let inner = Arc::new(Inner {
            disk,
            dir: dir.to_owned(),
            config: Config { flush_bytes: config.flush_bytes.max(1), ..config },
            durable: Mutex::new(place.applied),
            front: Front::new(base, place),
            writing: Mutex::default(),
            db: Mutex::new(OnDisk { redb: db, values: writer }),
            values,
            failed: OnceLock::new(),
            on_flush: OnceLock::new(),
            next_incoming: AtomicU64::new(0),
            fullest: AtomicU64::new(0),
        });
        Ok(Self { flusher: Flusher::start(inner.clone())?, inner })
    }

    /// The state as of the last batch.
    pub fn view(&self) -> View {
        self.inner.front.view()
    }

    /// Runs `f` as one batch, visible to later views, durable with the next flush. On an error nothing of it remains. Waits if
    /// flushing does not keep up.
    pub fn write<R>(
        &self,
        f: impl FnOnce(&mut StateWriter<'_>) -> Result<R, StateError>,
    ) -> Result<R, StateError> {
        let (inner, front) = (&*self.inner, &*self.inner.front);
        front.wait_below(inner.config.flush_bytes.saturating_mul(2), || {
            self.flusher.ask();
            inner.failed.get().is_none()
        });
        let mut live = lock(&inner.writing);
        inner.check()?;
        let (reader, place) = front.begin(&mut live);
        let mut writer = StateWriter { reader, place, live: &live, finished: false };
        let value = f(&mut writer)?;
        writer.finished = true;
        front.finish(writer.place.clone());
        if writer.reader.layers.active.bytes() >= inner.config.flush_bytes {
            self.flusher.ask();
        }
        Ok(value)
    }

    /// Whether the next batch will not wait for a flush, unless it comes after megabytes of others.
    pub fn keeps_up(&self) -> bool {
        self.inner.front.active_bytes() < self.inner.config.flush_bytes
    }

    /// Makes everything written so far durable and returns the last entry of the log in it. Blocks for the disk; batches go on.
    pub fn commit_durable(&self) -> Result<Option<LogId>, StateError> {
        self.inner.flush(0)
    }

    /// The last entry of the log whose effects a crash cannot take.
    pub fn durable(&self) -> Option<LogId> {
        *lock(&self.inner.durable)
    }

    /// Has `f` called at the end of each flush, from then on; only the first call counts. To let go of views that hold what
    /// was flushed ([`View::refreshed`]); it must not flush.
    pub fn on_flush(&self, f: impl Fn() + Send + Sync + 'static) {
        self.inner.on_flush.get_or_init(|| Box::new(f));
    }

    /// Bytes of the state's files that deleted records have left since it was measured at its fullest. (What is free beyond may
    /// never have been written, and takes room on the disk when it is.) Walks the whole file, and no flush runs meanwhile: for
    /// when it is needed to know, not for every day.
    pub fn freed_bytes(&self) -> Result<u64, StateError> {
        let inner = &*self.inner;
        inner.flush(0)?;
        let mut db = lock(&inner.db);
        inner.check()?;
        // Pages go back to be used again only with the transaction after the one that freed them.
        let redb = &db.redb;
        let used =
            base::sync(redb).and_then(|()| base::used_bytes(redb)).map_err(|error| inner.fail(error))?;
        let freed = inner.fullest.fetch_max(used, Ordering::Relaxed).saturating_sub(used);
        Ok(freed + db.values.free_bytes()?)
    }

    /// Bytes of the state's files.
    pub fn file_len(&self) -> Result<u64, StateError> {
        let redb = self.inner.disk.open(&self.inner.dir.join(FILE), Open::Read)?.len()?;
        Ok(redb + self.inner.values.file_len()?)
    }

    /// An empty state to receive a snapshot into.
    pub(super) fn create_incoming(&self) -> Result<Incoming, StateError> {
        let inner = &*self.inner;
        let number = inner.next_incoming.fetch_add(1, Ordering::Relaxed);
        let path = inner.dir.join(format!("{INCOMING}{number}"));
        let db = open_file(&*inner.disk, &path, Open::CreateNew, inner.config.cache_bytes, None)?;
        Ok(Incoming { db: Some(db), path, disk: inner.disk.clone() })
    }

    /// Puts a received state, already durable, in the place of the present one.
    pub(super) fn replace(&self, mut incoming: Incoming) -> Result<(), StateError> {
        let inner = &*self.inner;
        let Some(new) = incoming.db.take() else { return Ok(()) };
        let base = Base::open(&new, inner.values.pin())?;
        let place = base.place()?;
        // Nothing may be flushed into the old file once the new one has its name.
        let mut db = lock(&inner.db);
        let _no_batch = lock(&inner.writing);
        inner.check()?;
        inner.disk.rename(&incoming.path, &inner.dir.join(FILE))?;
        // From here on the former file has no name: nothing may be made durable in it.
        inner.disk.sync_dir(&inner.dir, SYNC_STATE_DIR).map_err(|error| inner.fail(error.into()))?;
        *lock(&inner.durable) = place.applied;
        db.values.replaced();
        inner.front.replace(base.pinned_anew(inner.values.pin()), place);
        db.redb = new;
        Ok(())
    }
}

impl Inner {
    fn check(&self) -> Result<(), StateError> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Refuses batches and flushes from now on.
    fn fail(&self, error: StateError) -> StateError {
        let error = self.failed.get_or_init(|| error).clone();
        self.front.wake();
        error
    }

    /// Makes everything written so far durable, if it is at least so many bytes. Returns the last entry of the log that is durable.
    fn flush(&self, at_least: usize) -> Result<Option<LogId>, StateError> {
        let mut db = lock(&self.db);
        self.check()?;
        if self.front.active_bytes() < at_least {
            return Ok(*lock(&self.durable));
        }
        let frozen = {
            let _no_batch = lock(&self.writing);
            self.front.freeze()
        };
        let Some(frozen) = frozen else { return Ok(*lock(&self.durable)) };
        let unfinished = Unfinished(self);
        let tight = self.disk.space().is_ok_and(|space| space.available < TIGHT);
        let write = |rows: &mut Rows<'_>| {
            frozen.layer.write_to(rows)?;
            rows.set_place(&frozen.place)
        };
        let OnDisk { redb, values } = &mut *db;
        let base = values
            .begin(tight)
            .and_then(|()| transact(redb, Some(values), Durability::Immediate, write))
            .and_then(|()| Base::open(redb, self.values.pin()))
            .map_err(|error| self.fail(error))?;
        let Place { applied, .. } = frozen.place;
        *lock(&self.durable) = applied;
        self.front.flushed(&frozen, base);
        std::mem::forget(unfinished);
        if let Some(f) = self.on_flush.get() {
            f();
        }
        drop(db);
        // The layer goes here, mostly, and not where a batch would wait for it.
        drop(frozen);
        Ok(applied)
    }
}

/// A flush under way. One that ends by a panic has failed, too: its layer is neither here nor there.
struct Unfinished<'i>(&'i Inner);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.fail(StateError::store("a flush ended before its time"));
    }
}

/// The thread that flushes when much has gathered.
struct Flusher {
    /// Room for one: asked more often than it can, it has been asked.
    asked: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    fn start(inner: Arc<Inner>) -> Result<Self, StateError> {
        let (asked, asks) = sync_channel(1);
        let thread = std::thread::Builder::new().name("state-flush".into());
        let thread = thread.spawn(move || Self::run(&inner, &asks)).map_err(StateError::store)?;
        Ok(Self { asked: Some(asked), thread: Some(thread) })
    }

    fn run(inner: &Inner, asks: &Receiver<()>) {
        while asks.recv().is_ok() {
            if let Err(error) = inner.flush(inner.config.flush_bytes) {
                tracing::error!(%error, "the metadata state cannot be made durable");
            }
        }
    }

    fn ask(&self) {
        if let Some(asked) = &self.asked {
            // Full: it is asked already. Without its other end, the thread has panicked.
            let _full = asked.try_send(());
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(self.asked.take());
        // Nobody may write the file when the store is gone.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metadata store's flushing thread panicked");
        }
    }
}

/// A state being received, in a file of its own that goes when this is dropped.
pub(super) struct Incoming {
    db: Option<Arc<Database>>,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Incoming {
    /// Runs `f` in one transaction.
    pub(super) fn write<R>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Rows<'_>) -> Result<R, StateError>,
    ) -> Result<R, StateError> {
        let gone = || StateError::store("the received state is in place already");
        transact(self.db.as_ref().ok_or_else(gone)?, None, durability, f)
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
