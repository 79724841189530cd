//! The state as the model sees it: layers in memory over the file.
//!
//! The newest layer that has a key says what its value is. A layer in memory may say that it is deleted; then nothing
//! below counts.

use super::base::{Base, Place};
use super::layer::{Layer, Value};
use crate::raft::types::{LogId, StoredMembership};
use atoll_model::kv::{KvError, KvRead, KvWrite, Table};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// The layers of a state, from the top.
#[derive(Clone)]
pub(super) struct Layers {
    /// What batches write now.
    pub(super) active: Arc<Layer>,
    /// What is being flushed, and written no more.
    pub(super) frozen: Option<Arc<Layer>>,
    /// What the last flush left.
    pub(super) base: Arc<Base>,
}

/// One consistent state, for reading: the layers as of a batch.
pub struct StateReader {
    pub(super) layers: Layers,
    pub(super) batch: u64,
}

/// Whether no key lies between the bounds; ordered maps disagree on whether such a range is an error.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

impl KvRead for StateReader {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        let Layers { active, frozen, base } = &self.layers;
        let value = active
            .get(table, key, self.batch)
            .or_else(|| frozen.as_ref().and_then(|frozen| frozen.get(table, key, self.batch)));
        match value {
            Some(value) => Ok(f(value.bytes())),
            None => base.get(table, key, f),
        }
    }

    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, KvError> {
        let Layers { active, frozen, base } = &self.layers;
        let value = active
            .get(table, key, self.batch)
            .or_else(|| frozen.as_ref().and_then(|frozen| frozen.get(table, key, self.batch)));
        match value {
            Some(value) => Ok(value.bytes().map(<[u8]>::len)),
            None => base.value_len(table, key),
        }
    }

    fn walk(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.merge(table, bounds, back, true, f)
    }

    fn keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        mut f: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.merge(table, (from, to), false, false, |key, _| f(key))
    }
}

impl StateReader {
    /// Walks over all layers at once. Without `values`, those of the file are not read, and empty instead.
    fn merge(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        values: bool,
        mut f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        if is_empty(from, to) {
            return Ok(());
        }
        let Layers { active, frozen, base } = &self.layers;
        let mut active = active.pairs(table, from, to, back, self.batch);
        let mut frozen = frozen.as_ref().map(|layer| layer.pairs(table, from, to, back, self.batch));
        let mut base = base.pairs(table, from, to, back)?;
        loop {
            let (upper, middle) = (active.peek(), frozen.as_ref().and_then(|pairs| pairs.peek()));
            let keys = [upper.map(|p| p.0), middle.map(|p| p.0), base.key()];
            let present = keys.into_iter().flatten();
            let Some(key) = (if back { present.max() } else { present.min() }) else { return Ok(()) };
            let at = keys.map(|other| other == Some(key));
            let left = match (upper, middle) {
                (Some((_, value)), _) if at[0] => value.bytes().is_some_and(|value| f(key, value).is_break()),
                (_, Some((_, value))) if at[1] => value.bytes().is_some_and(|value| f(key, value).is_break()),
                _ if !values => f(key, &[]).is_break(),
                _ => base.pair()?.is_some_and(|(key, value)| f(key, value).is_break()),
            };
            if left {
                return Ok(());
            }
            if at[0] {
                active.advance();
            }
            if at[1]
                && let Some(frozen) = &mut frozen
            {
                frozen.advance();
            }
            if at[2] {
                base.advance()?;
            }
        }
    }
}

/// The state within one batch. What it writes nobody else sees before the batch is finished; dropped unfinished, nothing of
/// it remains.
pub struct StateWriter<'b> {
    /// As of this batch.
    pub(super) reader: StateReader,
    pub(super) place: Place,
    /// Batches as of which somebody may still read, in order.
    pub(super) live: &'b [u64],
    pub(super) finished: bool,
}

impl StateWriter<'_> {
    /// Records the last entry of the log whose effects are in the state.
    pub fn set_applied(&mut self, applied: LogId) {
        self.place.applied = Some(applied);
    }

    /// Records the membership in force.
    pub fn set_membership(&mut self, membership: StoredMembership) {
        self.place.membership = Arc::new(membership);
    }

    fn write(&mut self, table: Table, key: &[u8], value: Value) {
        self.reader.layers.active.put(table, key, self.reader.batch, value, self.live);
    }
}

impl Drop for StateWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.reader.layers.active.take_back(self.reader.batch);
        }
    }
}

impl KvRead for StateWriter<'_> {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        self.reader.get(table, key, f)
    }

    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, KvError> {
        self.reader.value_len(table, key)
    }

    fn walk(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.reader.walk(table, bounds, back, f)
    }

    fn keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.reader.keys(table, from, to, f)
    }
}

impl KvWrite for StateWriter<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.write(table, key, Value::Copied(value.into()));
        Ok(())
    }

    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        debug_assert!(
            self.get(table, key, |value| value.is_none())?,
            "a new row of {} was there",
            table.name()
        );
        let StateReader { layers, batch } = &self.reader;
        layers.active.put_new(table, key, *batch, Value::Copied(value.into()), self.live);
        Ok(())
    }

    fn put_shared(&mut self, table: Table, key: &[u8], value: Bytes) -> Result<(), KvError> {
        self.write(table, key, Value::shared(value));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        self.write(table, key, Value::Deleted);
        Ok(())
    }
}
