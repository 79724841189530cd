//! What readers see: the newest state, and hot parts of it in memory, exactly in step.
//!
//! Publishing a batch has four steps, in this order: what the batch changed leaves the caches; the new view takes the
//! place of the old; new attributes go into the cache; answers are sent (by the caller). Until the second step every reader
//! sees the state before the batch, from then on the state after it; and who has an answer began after it.
//!
//! A read of one thing is consistent by that alone. A read put together from several cached things is not, if a
//! publication falls between: [`Published::steady`] tells, and then the view answers, which is one instant.

use super::file_maps::{self, FileMaps, Look};
use crate::state::View;
use arc_swap::{ArcSwap, ArcSwapOption};
use atoll_base::attr::{Attr, FileKind};
use atoll_base::clock_cache::{CacheStatus, ClockCache};
use atoll_base::id::Ino;
use atoll_base::time::Timestamp;
use atoll_meta::data::FileMap;
use atoll_meta::service::Found;
use atoll_meta::{Exports, FsError, OnceKey, Response};
use atoll_model::{KvError, OnceIndex, Touched, read};
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use tokio::sync::Notify;

/// A view with its number; each publication has the next.
pub(super) struct Current {
    pub(super) version: u64,
    pub(super) view: Arc<View>,
}

/// A directory entry in memory: known to exist or known not to.
struct Name {
    dir: Ino,
    name: Box<[u8]>,
    child: Option<Ino>,
}

/// An inode in memory.
#[derive(Clone)]
struct Known {
    attr: Attr,
    /// A version at which it was as it is; since then it has not changed. What else is known of the file as of the same
    /// version is true as long as this is found.
    version: u64,
}

/// Most entries of an access control list that is kept in memory, 16 bytes each: lists in use have fewer, and the cache's bound counts
/// inodes.
const LISTED_MAX: usize = 32;

/// Longest security label that is kept in memory: those of SELinux have some dozens of bytes.
const LABEL_KEPT_MAX: usize = 256;

/// Whether an inode may take a place among those in memory.
fn fits(attr: &Attr) -> bool {
    attr.acl.as_ref().is_none_or(|acl| acl.len() <= LISTED_MAX)
        && attr.label.as_ref().is_none_or(|label| label.data.len() <= LABEL_KEPT_MAX)
}

/// Sizes of the caches in memory.
#[derive(Clone, Copy, Debug)]
pub struct CacheSizes {
    /// Inodes; about 250 bytes each, 16 for each entry of an access control list, and the label.
    pub inodes: usize,
    /// Directory entries; about 120 bytes each, and the name.
    pub names: usize,
    /// Windows of file maps; see [`super::file_maps`] for their bytes.
    pub maps: usize,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self { inodes: 100_000, names: 100_000, maps: 2048 }
    }
}

/// How the caches are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachesStatus {
    /// Inodes.
    pub inodes: CacheStatus,
    /// Directory entries.
    pub names: CacheStatus,
    /// Windows of file maps.
    pub maps: CacheStatus,
}

/// What a batch changed, gathered over its commands.
#[derive(Default)]
pub(super) struct BatchChanges {
    /// Each inode with its attributes after the batch, where known.
    inodes: HashMap<Ino, Option<Attr>>,
    names: Vec<(Ino, Bytes)>,
    exports: bool,
    grants: bool,
    recalls: bool,
    notices: bool,
    offloads: bool,
    ended: bool,
    verifier: Option<u64>,
}

impl BatchChanges {
    /// Adds a command's; `attrs` are attributes after it, of any inodes.
    pub(super) fn add<'a>(&mut self, touched: Touched, attrs: impl Iterator<Item = &'a Attr>) {
        self.inodes.extend(touched.inos.iter().map(|ino| (*ino, None)));
        for attr in attrs {
            // One that the command did not touch is of the same value as before it; leave what is known.
            if let Some(after) = self.inodes.get_mut(&attr.ino)
                && touched.inos.contains(&attr.ino)
                && attr.nlink > 0
            {
                *after = Some(attr.clone());
            }
        }
        self.names.extend(touched.dirents);
        self.exports |= touched.exports;
        self.grants |= !touched.grants.is_empty();
        self.recalls |= touched.recalls;
        self.notices |= touched.notices;
        self.offloads |= touched.offloads;
        self.ended |= touched.ended;
        self.verifier = touched.verifier.or(self.verifier);
    }
}

/// The newest state.
pub(super) struct Published {
    current: ArcSwap<Current>,
    /// Odd while a publication is under way.
    sequence: AtomicU64,
    inodes: ClockCache<Known>,
    names: ClockCache<Name>,
    maps: FileMaps,
    hasher: RandomState,
    exports: ArcSwap<Exports>,
    /// Of the state machine whose states are published; there is none before the first.
    once: ArcSwapOption<OnceIndex>,
    verifier: AtomicU64,
    /// How often clients or sessions have ended.
    ended: AtomicU64,
    /// Latest time handed out, in nanoseconds since the epoch.
    time: AtomicU64,
    /// Blocked lock requests may have been granted.
    pub(super) grants: Notify,
    /// Delegations may have been recalled.
    pub(super) recalls: Notify,
    /// Holders of directory delegations may have to be told of changes. One waits, and finds what came before it did.
    pub(super) notices: Notify,
    /// There may be an offload more. As above.
    pub(super) offloads: Notify,
}

impl Published {
    /// Nothing but `view`.
    pub(super) fn new(view: Arc<View>, sizes: CacheSizes) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Current { version: 1, view }),
            sequence: AtomicU64::new(0),
            inodes: ClockCache::new(sizes.inodes),
            names: ClockCache::new(sizes.names),
            maps: FileMaps::new(sizes.maps),
            hasher: RandomState::new(),
            exports: ArcSwap::from_pointee(Exports::default()),
            once: ArcSwapOption::empty(),
            verifier: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            time: AtomicU64::new(0),
            grants: Notify::new(),
            recalls: Notify::new(),
            notices: Notify::new(),
            offloads: Notify::new(),
        })
    }

    // ---- the applier's side

    /// Publishes what a batch made of the state. By the applier alone.
    pub(super) fn publish(&self, view: Arc<View>, changes: BatchChanges) -> Result<(), KvError> {
        let version = self.current.load().version + 1;
        // Outside of the odd phase, which readers of several things wait out on the slow path.
        let exports = if changes.exports { Some(read::exports(view.reader())?) } else { None };
        let entered = self.begin();
        for ino in changes.inodes.keys() {
            self.inodes.invalidate(ino_key(*ino), version);
        }
        for (dir, name) in &changes.names {
            self.names.invalidate(self.name_key(*dir, name), version);
        }
        self.current.store(Arc::new(Current { version, view }));
        for (ino, attr) in changes.inodes {
            if let Some(attr) = attr.filter(fits) {
                self.inodes.put(ino_key(ino), Known { attr, version });
            }
        }
        self.end(entered);
        if changes.ended {
            // Behind the state: who sees this number sees no older one.
            self.ended.fetch_add(1, Ordering::Release);
        }
        if let Some(exports) = exports {
            self.exports.store(Arc::new(exports));
        }
        if let Some(verifier) = changes.verifier {
            self.verifier.store(verifier, Ordering::Release);
        }
        if changes.grants {
            self.grants.notify_waiters();
        }
        if changes.recalls {
            self.recalls.notify_waiters();
        }
        if changes.notices {
            self.notices.notify_one();
        }
        if changes.offloads {
            self.offloads.notify_one();
        }
        Ok(())
    }

    /// Takes the index of stored outcomes of the state that is published next.
    pub(super) fn set_once_index(&self, index: &Arc<OnceIndex>) {
        self.once.store(Some(index.clone()));
    }

    /// Publishes a state that has nothing to do with the former one.
    pub(super) fn replace(&self, view: Arc<View>) -> Result<(), KvError> {
        let kv = view.reader();
        let (exports, verifier, time) = (read::exports(kv)?, read::verifier(kv)?, read::now(kv)?);
        let version = self.current.load().version + 1;
        let entered = self.begin();
        self.inodes.clear(version);
        self.names.clear(version);
        self.current.store(Arc::new(Current { version, view: view.clone() }));
        self.end(entered);
        self.ended.fetch_add(1, Ordering::Release);
        self.exports.store(Arc::new(exports));
        self.verifier.store(verifier, Ordering::Release);
        self.advance_time(time);
        self.grants.notify_waiters();
        self.recalls.notify_waiters();
        self.notices.notify_one();
        self.offloads.notify_one();
        Ok(())
    }

    /// Reads what was flushed from the file and lets go of it in memory. May be called by anybody at any time: if
    /// a publication comes between, that stands.
    pub(super) fn refresh(&self) {
        let current = self.current.load();
        if let Some(view) = current.view.refreshed() {
            let refreshed = Current { version: current.version, view: Arc::new(view) };
            // Given back is what was there, either way.
            drop(self.current.compare_and_swap(&*current, Arc::new(refreshed)));
        }
    }

    fn begin(&self) -> u64 {
        let entered = self.sequence.load(Ordering::Relaxed) + 1;
        self.sequence.store(entered, Ordering::Relaxed);
        // No change of the caches may be seen before the odd number.
        fence(Ordering::SeqCst);
        entered
    }

    fn end(&self, entered: u64) {
        self.sequence.store(entered + 1, Ordering::Release);
    }

    // ---- the readers' side

    /// The newest view.
    pub(super) fn current(&self) -> arc_swap::Guard<Arc<Current>> {
        self.current.load()
    }

    /// Whether the first state of the cluster is there.
    pub(super) fn is_founded(&self) -> bool {
        // Its lower half counts from 1.
        self.verifier() != 0
    }

    /// Runs `f`, and gives its result only if no publication fell into it.
    fn steady<R>(&self, f: impl FnOnce() -> Option<R>) -> Option<R> {
        let before = self.sequence.load(Ordering::Acquire);
        if !before.is_multiple_of(2) {
            return None;
        }
        let result = f()?;
        fence(Ordering::SeqCst);
        (self.sequence.load(Ordering::Relaxed) == before).then_some(result)
    }

    /// Attributes of an inode.
    pub(super) fn getattr(&self, ino: Ino) -> Result<Result<Attr, FsError>, KvError> {
        if let Some(attr) = self.cached_attr(ino) {
            return Ok(Ok(attr));
        }
        let current = self.current();
        let found = read::getattr(current.view.reader(), ino)?;
        if let Ok(attr) = &found {
            self.fill_inode(attr, current.version);
        }
        Ok(found)
    }

    /// The same, if they are in memory.
    pub(super) fn cached_attr(&self, ino: Ino) -> Option<Attr> {
        self.inodes.get(ino_key(ino), |known| Some(known.attr.clone()))
    }

    fn fill_inode(&self, attr: &Attr, version: u64) {
        if !fits(attr) {
            return;
        }
        self.inodes.fill(ino_key(attr.ino), Known { attr: attr.clone(), version }, version);
    }

    /// Extents of a byte range of a regular file.
    pub(super) fn map(&self, ino: Ino, offset: u64, len: u64) -> Result<Result<FileMap, FsError>, KvError> {
        let exact = || read::map(self.current().view.reader(), ino, offset, len);
        let Some(window) = FileMaps::window(offset, len) else { return exact() };
        let known = self.inodes.get(ino_key(ino), |known| Some(known.clone()));
        let Some(Known { attr, version }) = known else {
            // The next look finds the inode.
            self.getattr(ino)?.ok();
            return exact();
        };
        match self.maps.look(ino, window, version, offset, len) {
            Look::Extents(extents) => Ok(Ok(FileMap { attr, extents, complete_to: offset + len })),
            Look::TooMuch => exact(),
            Look::First => {
                self.maps.seen(ino, window, version);
                exact()
            }
            Look::Again => {
                let current = self.current();
                // As long as the inode is known since the same version, this view's file is that version's; what became known
                // later may be of a change that the view has not.
                let steady = self.inodes.get(ino_key(ino), |known| Some(known.version == version));
                if version > current.version || steady != Some(true) {
                    return read::map(current.view.reader(), ino, offset, len);
                }
                match self.maps.load(current.view.reader(), ino, window, version) {
                    Ok(Some(whole)) => Ok(file_maps::part(whole, offset, len)),
                    // What of the window cannot be read may lie beside what was asked for.
                    Ok(None) | Err(_) => read::map(current.view.reader(), ino, offset, len),
                }
            }
        }
    }

    /// Looks a name up.
    pub(super) fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Result<Found, FsError>, KvError> {
        let key = self.name_key(dir, name);
        let cached = self.steady(|| {
            let attr = self.cached_attr(dir).filter(|attr| attr.kind == FileKind::Directory)?;
            let known = |n: &Name| (n.dir == dir && *n.name == *name).then_some(n.child);
            let child = match self.names.get(key, known)? {
                Some(ino) => Ok(self.cached_attr(ino)?),
                None => Err(FsError::NotFound),
            };
            Some(Found { dir: attr, child })
        });
        if let Some(found) = cached {
            return Ok(Ok(found));
        }
        let current = self.current();
        let found = read::lookup(current.view.reader(), dir, name)?;
        if let Ok(Found { dir: attr, child }) = &found {
            let version = current.version;
            self.fill_inode(attr, version);
            if let Ok(attr) = child {
                self.fill_inode(attr, version);
            }
            let child = child.as_ref().ok().map(|attr| attr.ino);
            self.names.fill(key, Name { dir, name: name.into(), child }, version);
        }
        Ok(found)
    }

    /// The stored response of a request.
    pub(super) fn outcome(&self, key: &OnceKey) -> Result<Option<Response>, KvError> {
        let index = self.once.load();
        let Some(index) = &*index else { return Ok(None) };
        let mut current = None;
        read::outcome(index, key, || current.insert(self.current()).view.reader())
    }

    /// The exports in force.
    pub(super) fn exports(&self) -> Arc<Exports> {
        self.exports.load_full()
    }

    /// See [`atoll_meta::MetadataService::ended`].
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// The write verifier in force.
    pub(super) fn verifier(&self) -> u64 {
        self.verifier.load(Ordering::Acquire)
    }

    /// The later of `clock` and the latest time handed out; the former never goes back below it.
    pub(super) fn advance_time(&self, clock: Timestamp) -> Timestamp {
        let nanos = u64::try_from(clock.as_nanos().max(0)).unwrap_or(u64::MAX);
        let latest = self.time.fetch_max(nanos, Ordering::AcqRel).max(nanos);
        Timestamp::from_nanos(i128::from(latest))
    }

    fn name_key(&self, dir: Ino, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir, name))
    }

    /// Figures of the caches.
    pub(super) fn cache_status(&self) -> CachesStatus {
        CachesStatus { inodes: self.inodes.status(), names: self.names.status(), maps: self.maps.status() }
    }
}

/// Spreads an inode number over all bits (the finalizer of splitmix64).
fn ino_key(ino: Ino) -> u64 {
    let mut x = ino.0;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
