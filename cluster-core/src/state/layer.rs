//! A layer in memory: what batches since some moment wrote, in versions.
//!
//! One writer at a time puts values with the number of its batch; readers ask as of a batch and see nothing newer. A reader
//! holds a table's lock only while it looks a key up or copies a handful of pairs, the writer only while it puts one.
//!
//! A key keeps those versions that some view can still ask for, the newest finished one, and the one of the batch under way. So
//! a key that every batch writes has two or three.
//!
//! A key that was *new*, so that nothing below has it, and was deleted again, goes from here when nobody can ask for it any more. What is there
//! for moments only, as an open, thus costs neither memory until the next flush nor a look into the file.

use super::base::Rows;
use super::error::StateError;
use super::key::Key;
use atoll_model::kv::Table;
use bytes::Bytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A value, or that the key is deleted. Nobody copies bytes under a lock.
#[derive(Clone)]
pub(super) enum Value {
    Deleted,
    Copied(Arc<[u8]>),
    /// In the memory that it came in.
    Shared(Arc<Bytes>),
}

impl Value {
    /// `None` if the key is deleted.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Deleted => None,
            Value::Copied(bytes) => Some(bytes),
            Value::Shared(bytes) => Some(bytes),
        }
    }

    /// A large value keeps the memory it is in, which must not be much larger.
    pub(super) fn shared(bytes: Bytes) -> Self {
        if bytes.len() < SHARED_MIN {
            Value::Copied((&bytes[..]).into())
        } else {
            Value::Shared(Arc::new(bytes))
        }
    }
}

/// Smaller values are copied: a command's memory holds more than them.
const SHARED_MIN: usize = 1024;

/// What an entry takes beside the bytes of its key: its share of a node, which is half full where keys come in order.
const ENTRY_BYTES: usize = 2 * (size_of::<Key>() + size_of::<Version>());
/// What a version takes beside the bytes of its value: the counters before them, the allocator's share, a box when it is old.
const VERSION_BYTES: usize = 56;

/// The newest version of a key, with those before it.
struct Version {
    batch: u64,
    /// Whether the key was not there before this layer.
    new: bool,
    value: Value,
    older: Option<Box<Version>>,
}

impl Version {
    fn bytes(&self) -> usize {
        VERSION_BYTES + self.value.bytes().map_or(0, <[u8]>::len)
    }

    /// Whether neither this layer nor any below has the key any more.
    fn is_gone(&self) -> bool {
        self.new && matches!(self.value, Value::Deleted)
    }

    /// The value as of `batch`, if it was written in this layer by then.
    fn at(&self, batch: u64) -> Option<&Value> {
        let mut version = self;
        while version.batch > batch {
            version = version.older.as_deref()?;
        }
        Some(&version.value)
    }

    /// Drops the versions before this one that none of the `live` batches (in order) can ask for. Returns the bytes given back, and one of
    /// the boxes that they were in.
    fn prune(&mut self, live: &[u64]) -> (usize, Option<Box<Version>>) {
        let (mut newer, mut freed, mut spare) = (self, 0, None);
        loop {
            while let Some(mut old) = newer.older.take() {
                let first = live.partition_point(|&batch| batch < old.batch);
                if live.get(first).is_some_and(|&batch| batch < newer.batch) {
                    newer.older = Some(old);
                    break;
                }
                freed += old.bytes();
                newer.older = old.older.take();
                spare = Some(old);
            }
            let Some(next) = newer.older.as_deref_mut() else { return (freed, spare) };
            newer = next;
        }
    }
}

type Entries = BTreeMap<Key, Version>;

/// The tables of a layer.
pub(super) struct Layer {
    tables: [RwLock<Entries>; Table::ALL.len()],
    /// Memory taken, about. Changed by the writer alone.
    bytes: AtomicUsize,
    /// Keys that were new and are deleted, with the batch that did it. Used by the writer alone.
    gone: Mutex<VecDeque<(u64, Table, Key)>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            tables: std::array::from_fn(|_| RwLock::default()),
            bytes: AtomicUsize::default(),
            gone: Mutex::default(),
        }
    }
}

impl Layer {
    fn read(&self, table: Table) -> RwLockReadGuard<'_, Entries> {
        self.tables[table as usize].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, table: Table) -> RwLockWriteGuard<'_, Entries> {
        self.tables[table as usize].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory taken, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn account(&self, more: usize, less: usize) {
        self.bytes.store((self.bytes() + more).saturating_sub(less), Ordering::Relaxed);
    }

    /// The value as of `batch`, if it was written here by then.
    pub(super) fn get(&self, table: Table, key: &[u8], batch: u64) -> Option<Value> {
        self.read(table).get(key)?.at(batch).cloned()
    }

    /// Puts the value of `batch`, which is newer than all before. `live` are the batches, in order, as of which anybody may
    /// still ask; the newest before this one may be left out.
    pub(super) fn put(&self, table: Table, key: &[u8], batch: u64, value: Value, live: &[u64]) {
        self.put_version(table, key, Version { batch, new: false, value, older: None }, live);
    }

    /// The same for a key that is not there.
    pub(super) fn put_new(&self, table: Table, key: &[u8], batch: u64, value: Value, live: &[u64]) {
        self.put_version(table, key, Version { batch, new: true, value, older: None }, live);
    }

    fn put_version(&self, table: Table, key: &[u8], version: Version, live: &[u64]) {
        let batch = version.batch;
        let (mut more, mut less) = (version.bytes(), 0);
        let mut gone = false;
        match self.write(table).entry(Key::from(key)) {
            Entry::Vacant(entry) => {
                more += ENTRY_BYTES + entry.key().extra_bytes();
                entry.insert(version);
            }
            Entry::Occupied(mut entry) => {
                let newest = entry.get_mut();
                let mut before = std::mem::replace(newest, version);
                // What was below when the key came here is still there.
                newest.new = before.new;
                gone = newest.is_gone();
                if before.batch == batch {
                    less = before.bytes();
                    newest.older = before.older;
                } else {
                    // The newest finished one; a view may come for it.
                    let spare;
                    (less, spare) = before.prune(live);
                    newest.older = Some(match spare {
                        Some(mut spare) => {
                            *spare = before;
                            spare
                        }
                        None => Box::new(before),
                    });
                }
            }
        }
        self.account(more, less);
        if gone {
            self.gone().push_back((batch, table, Key::from(key)));
        }
    }

    fn gone(&self) -> MutexGuard<'_, VecDeque<(u64, Table, Key)>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets keys that were new and are deleted as of `oldest`. Nobody asks as of an older batch any more.
    pub(super) fn forget_gone(&self, oldest: u64) {
        let (mut gone, mut less) = (self.gone(), 0);
        while gone.front().is_some_and(|(batch, ..)| *batch <= oldest)
            && let Some((_, table, key)) = gone.pop_front()
        {
            let mut entries = self.write(table);
            let Entry::Occupied(entry) = entries.entry(key) else { continue };
            // It may have come again since.
            if entry.get().batch <= oldest && entry.get().is_gone() {
                less += ENTRY_BYTES + entry.key().extra_bytes();
                let mut next = Some(Box::new(entry.remove()));
                while let Some(version) = next {
                    less += version.bytes();
                    next = version.older;
                }
            }
        }
        self.account(0, less);
    }

    /// Takes back what `batch`, the newest, has put.
    pub(super) fn take_back(&self, batch: u64) {
        let mut less = 0;
        for table in Table::ALL {
            self.write(table).retain(|key, newest| {
                if newest.batch != batch {
                    return true;
                }
                less += newest.bytes();
                let Some(before) = newest.older.take() else {
                    less += ENTRY_BYTES + key.extra_bytes();
                    return false;
                };
                *newest = *before;
                true
            });
        }
        self.account(0, less);
    }

    /// The pairs of a range that is not empty by its bounds alone, deleted ones among them, as of `batch`, from its end if
    /// `back`.
    pub(super) fn pairs<'a>(
        &'a self,
        table: Table,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
        back: bool,
        batch: u64,
    ) -> Pairs<'a> {
        let mut pairs = Pairs {
            layer: self,
            table,
            from,
            to,
            back,
            batch,
            copied: Vec::new(),
            at: 0,
            next: Some(None),
            piece: FIRST_PIECE,
        };
        pairs.fill();
        pairs
    }

    /// Writes the newest version of everything into the file, in order of keys. For a layer that is not written any more.
    pub(super) fn write_to(&self, rows: &mut Rows<'_>) -> Result<(), StateError> {
        let mut row = Vec::new();
        for table in Table::ALL {
            for (key, newest) in &*self.read(table) {
                row.clear();
                row.push(table as u8);
                row.extend_from_slice(key.as_slice());
                match newest.value.bytes() {
                    Some(value) => rows.put(&row, value)?,
                    None if newest.is_gone() => {}
                    None => rows.remove(&row)?,
                }
            }
        }
        Ok(())
    }
}

/// Pairs copied at first: most ranges are short, or left after the first pair.
const FIRST_PIECE: usize = 4;
/// Pairs copied at most under one lock.
const LARGEST_PIECE: usize = 256;
/// Entries looked at under one lock, per pair wanted: those newer than the reader are passed over.
const LOOKS_PER_PAIR: usize = 4;

/// Pairs of one table of a layer, in one direction, copied piece by piece.
pub(super) struct Pairs<'a> {
    layer: &'a Layer,
    table: Table,
    from: Bound<&'a [u8]>,
    to: Bound<&'a [u8]>,
    back: bool,
    batch: u64,
    copied: Vec<(Key, Value)>,
    at: usize,
    /// Where the next piece begins: after a key, at the beginning, or nowhere.
    next: Option<Option<Key>>,
    piece: usize,
}

impl Pairs<'_> {
    /// The pair it stands at.
    pub(super) fn peek(&self) -> Option<(&[u8], &Value)> {
        self.copied.get(self.at).map(|(key, value)| (key.as_slice(), value))
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
        if self.at >= self.copied.len() {
            self.fill();
        }
    }

    fn fill(&mut self) {
        self.copied.clear();
        self.at = 0;
        while self.copied.is_empty()
            && let Some(after) = self.next.take()
        {
            let after = after.as_ref().map(|key| Bound::Excluded(key.as_slice()));
            let (from, to) = if self.back {
                (self.from, after.unwrap_or(self.to))
            } else {
                (after.unwrap_or(self.from), self.to)
            };
            let entries = self.layer.read(self.table);
            let range = entries.range::<[u8], _>((from, to));
            self.next = if self.back {
                copy(range.rev(), self.batch, self.piece, &mut self.copied)
            } else {
                copy(range, self.batch, self.piece, &mut self.copied)
            }
            .map(Some);
            self.piece = (self.piece * 4).min(LARGEST_PIECE);
        }
    }
}

/// Copies up to `piece` pairs. Returns the last key looked at, if there may be more.
fn copy<'e>(
    entries: impl Iterator<Item = (&'e Key, &'e Version)>,
    batch: u64,
    piece: usize,
    copied: &mut Vec<(Key, Value)>,
) -> Option<Key> {
    for (looked, (key, newest)) in entries.enumerate() {
        if let Some(value) = newest.at(batch) {
            copied.push((key.clone(), value.clone()));
        }
        if copied.len() == piece || looked + 1 == piece * LOOKS_PER_PAIR {
            return Some(key.clone());
        }
    }
    None
}
