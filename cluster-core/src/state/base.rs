//! The layer at the bottom: the state's file as of the last flush, in redb.
//!
//! All tables of the model share **one** redb table, whose keys begin with the byte of the model's table. A flush then
//! opens one table instead of twenty and writes back one root. Keys of the model stay in order within their table; a range
//! without a bound ends at the neighbouring byte.
//!
//! A row of the model begins with a byte that says whether its value follows, or where it is among the [large ones](super::values).
//!
//! What changes and goes at once, opens and locks above all, is looked for here again and again and nearly never found. So the first
//! and the last key of each table are remembered when they are asked for first: what lies beyond is known not to be here.

use super::error::StateError;
use super::redb_file::{RedbFile, SYNC_STATE};
use super::values::{self, Pin, VALUE_MIN};
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership};
use atoll_base::disk::{Disk, Open};
use atoll_model::kv::{KvError, Table};
use redb::{AccessGuard, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, OnceLock};

type Raw = &'static [u8];

/// The redb table.
const STATE: TableDefinition<'static, Raw, Raw> = TableDefinition::new("state");
/// Size of redb's pages; part of its format.
const PAGE: u64 = 4096;

/// First byte of keys that belong to the Raft group itself, above all tables of the model.
pub(super) const RAFT_PREFIX: u8 = 0xff;
const KEY_APPLIED: [u8; 2] = [RAFT_PREFIX, b'a'];
const KEY_MEMBERSHIP: [u8; 2] = [RAFT_PREFIX, b'm'];
/// Begins the keys of rows that tell which slots of the large values are used; the row's number (8 bytes, big-endian) follows.
const SLOTS_PREFIX: [u8; 2] = [RAFT_PREFIX, b'v'];

/// First byte of a row whose value follows.
const HERE: u8 = 0;
/// First byte of a row whose value is among the large ones; where, follows.
const ELSEWHERE: u8 = 1;

/// Keys up to this length are composed on the stack: prefix, two integers and a name of 255 bytes fit.
const KEY_ON_STACK: usize = 320;

/// Tells how far a repair after a crash is, 0.0 to 1.0.
pub type RepairProgress = Arc<dyn Fn(f64) + Send + Sync>;

/// A state's place in the log, and the membership there.
#[derive(Clone, Default)]
pub(super) struct Place {
    pub(super) applied: Option<LogId>,
    pub(super) membership: Arc<StoredMembership>,
}

impl Place {
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: (*self.membership).clone() }
    }
}

/// Calls `f` with the key's place in the redb table.
fn with_key<R>(table: Table, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
    let len = key.len() + 1;
    if len <= KEY_ON_STACK {
        let mut buf = [0; KEY_ON_STACK];
        buf[0] = table as u8;
        buf[1..len].copy_from_slice(key);
        f(&buf[..len])
    } else {
        f(&whole_key(table, key))
    }
}

/// The key's place in the redb table.
fn whole_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(key.len() + 1);
    whole.push(table as u8);
    whole.extend_from_slice(key);
    whole
}

fn failed(error: redb::StorageError) -> KvError {
    KvError::Failed(error.to_string())
}

/// What a row holds.
enum Row<'r> {
    Here(&'r [u8]),
    Elsewhere(&'r [u8]),
}

impl<'r> Row<'r> {
    fn of(row: &'r [u8]) -> Result<Self, KvError> {
        match row.split_first() {
            Some((&HERE, value)) => Ok(Row::Here(value)),
            Some((&ELSEWHERE, reference)) => Ok(Row::Elsewhere(reference)),
            _ => Err(KvError::Failed("a row begins with no known byte".into())),
        }
    }
}

/// One state of the file. While it lives, redb keeps its pages, and large values their slots.
pub(super) struct Base {
    table: ReadOnlyTable<Raw, Raw>,
    pin: Pin,
    /// Of each table of the model.
    spans: [OnceLock<Option<Span>>; Table::ALL.len()],
    /// The file stays open for those who read it, also when another has taken its place.
    _db: Arc<Database>,
}

/// The first and the last key of a table, the table's byte included.
struct Span {
    first: Box<[u8]>,
    last: Box<[u8]>,
}

impl Base {
    /// The newest one. `pin` is as of now.
    pub(super) fn open(db: &Arc<Database>, pin: Pin) -> Result<Self, StateError> {
        let txn = db.begin_read().map_err(StateError::store)?;
        let table = txn.open_table(STATE).map_err(StateError::store)?;
        Ok(Self { table, pin, spans: [const { OnceLock::new() }; Table::ALL.len()], _db: db.clone() })
    }

    /// Of a state that took another's place: `pin` is as of after that.
    pub(super) fn pinned_anew(self, pin: Pin) -> Self {
        Self { pin, ..self }
    }

    /// The rows that tell which slots are used, by number.
    pub(super) fn slot_rows(&self) -> Result<Vec<(u64, Vec<u8>)>, StateError> {
        let end = [RAFT_PREFIX, SLOTS_PREFIX[1] + 1];
        let mut rows = Vec::new();
        for pair in self.table.range::<&[u8]>(&SLOTS_PREFIX[..]..&end[..]).map_err(StateError::store)? {
            let (key, bytes) = pair.map_err(StateError::store)?;
            let number = key.value().strip_prefix(&SLOTS_PREFIX).and_then(|key| key.try_into().ok());
            let number = number.ok_or_else(|| StateError::Damaged("a row of slots has no number".into()))?;
            rows.push((u64::from_be_bytes(number), bytes.value().to_vec()));
        }
        Ok(rows)
    }

    /// Where the keys of a table are; `None` if it has none.
    fn span(&self, table: Table) -> Result<Option<&Span>, KvError> {
        let known = &self.spans[table as usize];
        if let Some(span) = known.get() {
            return Ok(span.as_ref());
        }
        let (from, to) = ([table as u8], [table as u8 + 1]);
        let mut range = self.table.range::<&[u8]>(&from[..]..&to[..]).map_err(failed)?;
        let key = |pair: Option<Result<(AccessGuard<'_, Raw>, _), _>>| -> Result<Option<Box<[u8]>>, KvError> {
            Ok(pair
                .transpose()
                .map_err(failed)?
                .map(|(key, _): (_, AccessGuard<'_, Raw>)| key.value().into()))
        };
        let span = match key(range.next())? {
            Some(first) => {
                let last = key(range.next_back())?.unwrap_or_else(|| first.clone());
                Some(Span { first, last })
            }
            None => None,
        };
        Ok(known.get_or_init(|| span).as_ref())
    }

    fn find(&self, table: Table, key: &[u8]) -> Result<Option<AccessGuard<'static, Raw>>, KvError> {
        let Some(span) = self.span(table)? else { return Ok(None) };
        let found = with_key(table, key, |key| match *span.first <= *key && *key <= *span.last {
            true => self.table.get(key),
            false => Ok(None),
        });
        found.map_err(failed)
    }

    /// Length of a value. One among the large ones is not looked at.
    pub(super) fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, KvError> {
        let found = self.find(table, key)?;
        match found.as_ref().map(|row| Row::of(row.value())).transpose()? {
            None => Ok(None),
            Some(Row::Here(value)) => Ok(Some(value.len())),
            Some(Row::Elsewhere(reference)) => values::len(reference).map(Some),
        }
    }

    pub(super) fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R, KvError> {
        let found = self.find(table, key)?;
        match found.as_ref().map(|row| Row::of(row.value())).transpose()? {
            None => Ok(f(None)),
            Some(Row::Here(value)) => Ok(f(Some(value))),
            Some(Row::Elsewhere(reference)) => {
                let value = self.pin.read(reference)?;
                drop(found);
                Ok(f(Some(&value)))
            }
        }
    }

    /// The pairs of a range that is not empty by its bounds alone, from its end if `back`.
    pub(super) fn pairs(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        back: bool,
    ) -> Result<BasePairs<'_>, KvError> {
        if !self.may_have(table, from, to)? {
            return Ok(BasePairs { range: None, back, pin: &self.pin, head: None });
        }
        let prefixed = |bound: Bound<&[u8]>| bound.map(|key| whole_key(table, key));
        let from = match prefixed(from) {
            Bound::Unbounded => Bound::Included(vec![table as u8]),
            bound => bound,
        };
        let to = match prefixed(to) {
            Bound::Unbounded => Bound::Excluded(vec![table as u8 + 1]),
            bound => bound,
        };
        let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let range = self.table.range::<&[u8]>(bounds).map_err(failed)?;
        let mut pairs = BasePairs { range: Some(range), back, pin: &self.pin, head: None };
        pairs.advance()?;
        Ok(pairs)
    }

    /// Whether keys of a table may lie in a range.
    fn may_have(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<bool, KvError> {
        let Some(span) = self.span(table)? else { return Ok(false) };
        let begins = match from {
            Bound::Included(from) => from <= &span.last[1..],
            Bound::Excluded(from) => from < &span.last[1..],
            Bound::Unbounded => true,
        };
        let ends = match to {
            Bound::Included(to) => to >= &span.first[1..],
            Bound::Excluded(to) => to > &span.first[1..],
            Bound::Unbounded => true,
        };
        Ok(begins && ends)
    }

    /// What the file says of its place in the log.
    pub(super) fn place(&self) -> Result<Place, StateError> {
        Ok(Place {
            applied: self.decode(&KEY_APPLIED)?,
            membership: Arc::new(self.decode(&KEY_MEMBERSHIP)?.unwrap_or_default()),
        })
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.table.get(key).map_err(StateError::store)? else { return Ok(None) };
        postcard::from_bytes(bytes.value())
            .map(Some)
            .map_err(|e| StateError::Damaged(format!("record {key:?} of the Raft group: {e}")))
    }
}

/// A key, without its table's byte, and its value.
pub(super) type Pair<'p> = (&'p [u8], &'p [u8]);

/// Pairs of one table of the file, in one direction.
pub(super) struct BasePairs<'b> {
    /// None if there is nothing.
    range: Option<redb::Range<'static, Raw, Raw>>,
    back: bool,
    pin: &'b Pin,
    head: Option<Head>,
}

struct Head {
    key: AccessGuard<'static, Raw>,
    row: AccessGuard<'static, Raw>,
    /// The value, if it was asked for and is not in the row.
    read: Option<Vec<u8>>,
}

impl BasePairs<'_> {
    /// The key it stands at.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.head.as_ref().map(|head| &head.key.value()[1..])
    }

    /// The pair it stands at. Large values are read only here.
    pub(super) fn pair(&mut self) -> Result<Option<Pair<'_>>, KvError> {
        let Some(Head { key, row, read }) = &mut self.head else { return Ok(None) };
        let value = match Row::of(row.value())? {
            Row::Here(value) => value,
            Row::Elsewhere(reference) => read.insert(self.pin.read(reference)?),
        };
        Ok(Some((&key.value()[1..], value)))
    }

    pub(super) fn advance(&mut self) -> Result<(), KvError> {
        let Some(range) = &mut self.range else { return Ok(()) };
        let next = if self.back { range.next_back() } else { range.next() };
        self.head = next.transpose().map_err(failed)?.map(|(key, row)| Head { key, row, read: None });
        Ok(())
    }
}

/// The file's rows within one write transaction.
pub(super) struct Rows<'t> {
    table: redb::Table<'t, Raw, Raw>,
    /// Takes large values. Without it, they are rows like others.
    values: Option<&'t mut values::Writer>,
    /// A row being put together.
    row: Vec<u8>,
}

impl Rows<'_> {
    /// Sets a value by its whole key, the table's byte included.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.row.clear();
        match &mut self.values {
            Some(values) if value.len() >= VALUE_MIN => {
                self.row.push(ELSEWHERE);
                self.row.extend_from_slice(&values.put(value)?);
            }
            _ => {
                self.row.push(HERE);
                self.row.extend_from_slice(value);
            }
        }
        let before = self.table.insert(key, &*self.row).map_err(StateError::store)?;
        Self::gone(&mut self.values, before)
    }

    /// Removes a key, if it is there.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), StateError> {
        let before = self.table.remove(key).map_err(StateError::store)?;
        Self::gone(&mut self.values, before)
    }

    /// Lets go the large value that a former row refers to.
    fn gone(
        values: &mut Option<&mut values::Writer>,
        before: Option<AccessGuard<'_, Raw>>,
    ) -> Result<(), StateError> {
        if let Some(before) = before
            && let Row::Elsewhere(reference) = Row::of(before.value())?
        {
            let nobody = || StateError::Damaged("a received state refers to large values".into());
            values.as_mut().ok_or_else(nobody)?.drop(reference)?;
        }
        Ok(())
    }

    /// Makes large values durable, and tells which slots are used.
    fn finish(&mut self) -> Result<(), StateError> {
        let Some(values) = &mut self.values else { return Ok(()) };
        for (number, bytes) in values.sync()? {
            let key = [&SLOTS_PREFIX[..], &number.to_be_bytes()].concat();
            self.insert(&key, &bytes)?;
        }
        Ok(())
    }

    /// A row that is not of the model.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.table.insert(key, value).map(drop).map_err(StateError::store)
    }

    /// Records which state this is.
    pub(super) fn set_place(&mut self, place: &Place) -> Result<(), StateError> {
        if let Some(applied) = &place.applied {
            self.insert(&KEY_APPLIED, &postcard::to_stdvec(applied).map_err(StateError::store)?)?;
        }
        self.insert(&KEY_MEMBERSHIP, &postcard::to_stdvec(&*place.membership).map_err(StateError::store)?)
    }
}

/// Runs `f` in one transaction, of which nothing remains on an error. [`Durability::Immediate`] waits for the disk and makes
/// everything before durable, too. With `values`, whose flush has [begun](values::Writer::begin), large values go there; after an error that is
/// not to be used any more.
pub(super) fn transact<R>(
    db: &Database,
    mut values: Option<&mut values::Writer>,
    durability: Durability,
    f: impl FnOnce(&mut Rows<'_>) -> Result<R, StateError>,
) -> Result<R, StateError> {
    let mut txn = db.begin_write().map_err(StateError::store)?;
    txn.set_durability(durability).map_err(StateError::store)?;
    // Saves the allocator's state too: opening after a crash must not walk the whole file.
    txn.set_quick_repair(matches!(durability, Durability::Immediate));
    let result = {
        let table = txn.open_table(STATE).map_err(StateError::store)?;
        let mut rows = Rows { table, values: values.as_deref_mut(), row: Vec::new() };
        f(&mut rows).and_then(|value| rows.finish().map(|()| value))
    };
    match result {
        Ok(value) => {
            txn.commit().map_err(StateError::store)?;
            if let Some(values) = values {
                values.committed();
            }
            Ok(value)
        }
        Err(error) => {
            txn.abort().map_err(StateError::store)?;
            Err(error)
        }
    }
}

/// Makes durable whatever is in the file.
pub(super) fn sync(db: &Database) -> Result<(), StateError> {
    transact(db, None, Durability::Immediate, |_| Ok(()))
}

/// Bytes of the file's pages that are in use.
pub(super) fn used_bytes(db: &Database) -> Result<u64, StateError> {
    let txn = db.begin_write().map_err(StateError::store)?;
    let stats = txn.stats().map_err(StateError::store)?;
    txn.abort().map_err(StateError::store)?;
    Ok(stats.allocated_pages() * stats.page_size() as u64)
}

/// Opens the file, or makes it, with a page cache of `cache_bytes`.
pub(super) fn open_file(
    disk: &dyn Disk,
    path: &Path,
    how: Open,
    cache_bytes: usize,
    repair: Option<RepairProgress>,
) -> Result<Arc<Database>, StateError> {
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
    builder.create_with_backend(file).map(Arc::new).map_err(StateError::store)
}
