//! All files that are dirty or in use, by inode; and the outcomes of the WRITEs whose data are not in the store yet.
//!
//! Lock order: shard, then a file's state. Nothing is awaited under either.

use super::file::{Covered, File};
use super::refused::Refused;
use atoll_base::attr::Attr;
use atoll_base::id::Ino;
use atoll_meta::{FsError, OnceKey, Response};
use std::collections::{HashMap, hash_map};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;

/// Most files whose loss is remembered until a COMMIT asks. The verifier tells of the others.
const LOST_MAX: usize = 4096;

#[derive(Debug)]
struct Entry {
    file: Arc<File>,
    pins: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Vec<Mutex<HashMap<Ino, Entry>>>,
    /// Files with a lease. Raised before a reply that shows anything of it.
    leased: AtomicUsize,
    /// Grows whenever a lease ends.
    ended: AtomicU64,
    outcomes: Vec<Mutex<HashMap<OnceKey, Arc<Response>>>>,
    lost: Mutex<HashMap<Ino, FsError>>,
    /// What was lost without moving the verifier.
    pub(crate) refused: Refused,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many leases had ended when a read of the store began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(u64);

impl Table {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            leased: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            outcomes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            lost: Mutex::default(),
            refused: Refused::default(),
        })
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, Entry>> {
        lock(&self.shards[ino.0 as usize % SHARDS])
    }

    fn outcomes(&self, key: &OnceKey) -> MutexGuard<'_, HashMap<OnceKey, Arc<Response>>> {
        lock(&self.outcomes[key.fingerprint as usize % SHARDS])
    }

    /// The file's entry, made if there is none, kept while the pin lives.
    pub(crate) fn pin(self: &Arc<Self>, ino: Ino) -> Pin {
        let mut shard = self.shard(ino);
        let entry = shard.entry(ino).or_insert_with(|| Entry { file: Arc::new(File::new(ino)), pins: 0 });
        entry.pins += 1;
        Pin { table: self.clone(), file: entry.file.clone() }
    }

    /// The entry of a file that has a lease.
    pub(crate) fn pin_leased(self: &Arc<Self>, ino: Ino) -> Option<Pin> {
        if !self.any() {
            return None;
        }
        let mut shard = self.shard(ino);
        let entry = shard.get_mut(&ino)?;
        if !entry.file.state().is_leased() {
            return None;
        }
        entry.pins += 1;
        Some(Pin { table: self.clone(), file: entry.file.clone() })
    }

    /// Looks at a leased file, if it is one.
    pub(crate) fn with_leased<R>(&self, ino: Ino, f: impl FnOnce(&super::file::State) -> R) -> Option<R> {
        if !self.any() {
            return None;
        }
        let shard = self.shard(ino);
        let state = shard.get(&ino)?.file.state();
        state.is_leased().then(|| f(&state))
    }

    /// Whether a file has a lease.
    pub(crate) fn is_leased(&self, ino: Ino) -> bool {
        self.with_leased(ino, |_| ()).is_some()
    }

    /// All files with a lease.
    pub(crate) fn leased(self: &Arc<Self>) -> Vec<Pin> {
        let mut all = Vec::new();
        if self.any() {
            for shard in &self.shards {
                for entry in lock(shard).values_mut().filter(|e| e.file.state().is_leased()) {
                    entry.pins += 1;
                    all.push(Pin { table: self.clone(), file: entry.file.clone() });
                }
            }
        }
        all
    }

    /// Whether any file has a lease.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.leased.load(Ordering::SeqCst) > 0
    }

    /// Number of files with a lease.
    pub(crate) fn count(&self) -> usize {
        self.leased.load(Ordering::SeqCst)
    }

    /// A file got a lease.
    pub(crate) fn lease_began(&self) {
        self.leased.fetch_add(1, Ordering::SeqCst);
    }

    /// A file's lease ended; its state says so already.
    pub(crate) fn lease_ended(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.leased.fetch_sub(1, Ordering::SeqCst);
    }

    /// To be asked before a read of the store whose attributes are then given to [`Table::overlay`].
    #[inline]
    pub(crate) fn look(&self) -> Seen {
        Seen(self.ended.load(Ordering::SeqCst))
    }

    /// Makes of what the store said what clients were shown. `false` if a lease ended meanwhile, so that what the store
    /// said may be older than what clients were shown: read again.
    #[inline]
    pub(crate) fn overlay(&self, seen: Seen, attr: &mut Attr) -> bool {
        if let Some(shown) = self.with_leased(attr.ino, |state| state.shown()) {
            shown.expect("leased").overlay(attr);
            return true;
        }
        self.ended.load(Ordering::SeqCst) == seen.0
    }

    /// The outcome of a WRITE whose data are not in the store yet.
    pub(crate) fn outcome(&self, key: &OnceKey) -> Option<Arc<Response>> {
        if !self.any() {
            return None;
        }
        self.outcomes(key).get(key).cloned()
    }

    pub(crate) fn remember(&self, key: OnceKey, response: Arc<Response>) {
        self.outcomes(&key).insert(key, response);
    }

    /// Forgets the outcome of a WRITE, but not that of the same request taken in again in a later life, which is in its place then.
    pub(crate) fn forget(&self, covered: &Covered) {
        if let hash_map::Entry::Occupied(known) = self.outcomes(&covered.key).entry(covered.key)
            && Arc::ptr_eq(known.get(), &covered.response)
        {
            known.remove();
        }
    }

    /// Data of this file were lost: the next COMMIT is told so.
    pub(crate) fn set_lost(&self, ino: Ino, error: FsError) {
        let mut lost = lock(&self.lost);
        if lost.len() < LOST_MAX || lost.contains_key(&ino) {
            lost.insert(ino, error);
        }
    }

    /// Whether data of this file were lost since the last time this was asked.
    pub(crate) fn take_lost(&self, ino: Ino) -> Option<FsError> {
        lock(&self.lost).remove(&ino)
    }
}

/// Keeps a file's entry in the table.
#[derive(Debug)]
pub(crate) struct Pin {
    table: Arc<Table>,
    file: Arc<File>,
}

impl std::ops::Deref for Pin {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut shard = self.table.shard(self.file.ino);
        let entry = shard.get_mut(&self.file.ino).expect("pinned");
        entry.pins -= 1;
        if entry.pins == 0 && !entry.file.state().is_leased() {
            shard.remove(&self.file.ino);
        }
    }
}
