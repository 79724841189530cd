//! The state machine's ordered key-value store, on redb.
//!
//! All tables of the model share **one** redb table, whose keys begin with the byte of the model's table. A view or a
//! batch then opens one table instead of twenty, a commit writes back one root, and a snapshot is one scan. Keys of the
//! model stay in order within their table; a range without a bound ends at the neighbouring byte.

use atoll_model::kv::{KvError, KvRead, KvWrite, Table};
use redb::{ReadOnlyTable, ReadableTable, TableDefinition};
use std::ops::{Bound, ControlFlow};

/// The redb table.
pub(super) const STATE: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("state");

/// First byte of keys that belong to the Raft group itself, above all tables of the model.
pub(super) const RAFT_PREFIX: u8 = 0xff;

/// Keys up to this length are composed on the stack: prefix, two integers and a name of 255 bytes fit.
const KEY_ON_STACK: usize = 320;

/// Calls `f` with the key's place in the redb table.
fn with_key<R>(table: Table, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
    let len = key.len() + 1;
    if len <= KEY_ON_STACK {
        let mut buf = [0; KEY_ON_STACK];
        buf[0] = table as u8;
        buf[1..len].copy_from_slice(key);
        f(&buf[..len])
    } else {
        let mut buf = Vec::with_capacity(len);
        buf.push(table as u8);
        buf.extend_from_slice(key);
        f(&buf)
    }
}

fn prefixed(table: Table, bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    bound.map(|key| with_key(table, key, <[u8]>::to_vec))
}

fn failed(error: redb::StorageError) -> KvError {
    KvError(error.to_string())
}

fn get<R>(
    state: &impl ReadableTable<Raw, Raw>,
    table: Table,
    key: &[u8],
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R, KvError> {
    let found = with_key(table, key, |key| state.get(key)).map_err(failed)?;
    Ok(f(found.as_ref().map(|v| v.value())))
}

type Raw = &'static [u8];

fn range<'a>(
    state: &'a impl ReadableTable<Raw, Raw>,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> Result<Option<redb::Range<'a, Raw, Raw>>, KvError> {
    let from = match prefixed(table, from) {
        Bound::Unbounded => Bound::Included(vec![table as u8]),
        bound => bound,
    };
    let to = match prefixed(table, to) {
        Bound::Unbounded => Bound::Excluded(vec![table as u8 + 1]),
        bound => bound,
    };
    if is_empty(&from, &to) {
        return Ok(None);
    }
    let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
    state.range::<&[u8]>(bounds).map(Some).map_err(failed)
}

/// Whether no key lies between the bounds; ordered maps disagree on whether such a range is an error.
fn is_empty(from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

fn scan(
    state: &impl ReadableTable<Raw, Raw>,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    back: bool,
    mut f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), KvError> {
    let Some(mut pairs) = range(state, table, from, to)? else { return Ok(()) };
    while let Some(pair) = if back { pairs.next_back() } else { pairs.next() } {
        let (key, value) = pair.map_err(failed)?;
        if f(&key.value()[1..], value.value()).is_break() {
            break;
        }
    }
    Ok(())
}

/// One consistent state, for reading. Cheap to share; while it lives, redb keeps its pages.
pub struct StateReader {
    pub(super) table: ReadOnlyTable<Raw, Raw>,
}

impl KvRead for StateReader {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        get(&self.table, table, key, f)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        scan(&self.table, table, from, to, false, f)
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        scan(&self.table, table, from, to, true, f)
    }
}

/// The state within one write transaction.
pub struct StateWriter<'t> {
    pub(super) table: redb::Table<'t, Raw, Raw>,
}

impl KvRead for StateWriter<'_> {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        get(&self.table, table, key, f)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        scan(&self.table, table, from, to, false, f)
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        scan(&self.table, table, from, to, true, f)
    }
}

impl KvWrite for StateWriter<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        with_key(table, key, |key| self.table.insert(key, value).map(drop)).map_err(failed)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        with_key(table, key, |key| self.table.remove(key).map(drop)).map_err(failed)
    }
}
