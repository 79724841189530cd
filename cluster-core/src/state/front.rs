//! The newest state in memory, and who reads which.
//!
//! Batches have numbers. A view is the layers as of a batch; which batches have views is known here, so that the writer
//! keeps what they may ask for and no more.

use super::base::{Base, Place};
use super::layer::Layer;
use super::reader::{Layers, StateReader};
use crate::raft::types::{LogId, SnapshotMeta};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Held for moments only; never while anything waits for a disk.
pub(super) struct Front {
    now: Mutex<Now>,
    /// The active layer was replaced, or never will be.
    frozen: Condvar,
}

struct Now {
    layers: Layers,
    /// The last finished batch.
    batch: u64,
    place: Place,
    /// The last batch whose effects are in the base.
    base_batch: u64,
    /// How many views there are as of which batch.
    views: BTreeMap<u64, usize>,
}

impl Now {
    fn view(&mut self, front: &Arc<Front>, batch: u64, place: Place) -> View {
        *self.views.entry(batch).or_insert(0) += 1;
        let reader = StateReader { layers: self.layers.clone(), batch };
        View { reader, place, front: front.clone() }
    }
}

/// A layer to be flushed.
pub(super) struct Frozen {
    pub(super) layer: Arc<Layer>,
    pub(super) place: Place,
    pub(super) batch: u64,
}

impl Front {
    pub(super) fn new(base: Base, place: Place) -> Arc<Self> {
        let layers = Layers { active: Arc::default(), frozen: None, base: Arc::new(base) };
        let now = Now { layers, batch: 0, place, base_batch: 0, views: BTreeMap::new() };
        Arc::new(Self { now: Mutex::new(now), frozen: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as of the last finished batch.
    pub(super) fn view(self: &Arc<Self>) -> View {
        let mut now = self.lock();
        let (batch, place) = (now.batch, now.place.clone());
        now.view(self, batch, place)
    }

    /// What the next batch begins with. `live` gets the batches as of which somebody may read; those that come while it is
    /// written read as of the one before it. One batch at a time.
    pub(super) fn begin(&self, live: &mut Vec<u64>) -> (StateReader, Place) {
        let now = self.lock();
        live.clear();
        live.extend(now.views.keys());
        let reader = StateReader { layers: now.layers.clone(), batch: now.batch + 1 };
        let (place, newest) = (now.place.clone(), now.batch);
        drop(now);
        reader.layers.active.forget_gone(live.first().map_or(newest, |oldest| newest.min(*oldest)));
        (reader, place)
    }

    /// Shows what the batch has written.
    pub(super) fn finish(&self, place: Place) {
        let mut now = self.lock();
        now.batch += 1;
        now.place = place;
    }

    /// Bytes of the active layer.
    pub(super) fn active_bytes(&self) -> usize {
        self.lock().layers.active.bytes()
    }

    /// Waits while the active layer has `bytes` or more and `may_wait` says so.
    pub(super) fn wait_below(&self, bytes: usize, mut may_wait: impl FnMut() -> bool) {
        let mut now = self.lock();
        while now.layers.active.bytes() >= bytes && may_wait() {
            now = self.frozen.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes those who wait look again.
    pub(super) fn wake(&self) {
        drop(self.lock());
        self.frozen.notify_all();
    }

    /// Puts a new layer on top of the active one, unless nothing was written since the last flush. Not while a batch is
    /// being written.
    pub(super) fn freeze(&self) -> Option<Frozen> {
        let mut now = self.lock();
        if now.batch == now.base_batch {
            return None;
        }
        let layer = std::mem::take(&mut now.layers.active);
        now.layers.frozen = Some(layer.clone());
        let frozen = Frozen { layer, place: now.place.clone(), batch: now.batch };
        drop(now);
        self.frozen.notify_all();
        Some(frozen)
    }

    /// Reads from `base` what was frozen.
    pub(super) fn flushed(&self, frozen: &Frozen, base: Base) {
        let mut now = self.lock();
        let before = now.layers.clone();
        now.layers.base = Arc::new(base);
        now.layers.frozen = None;
        now.base_batch = frozen.batch;
        drop(now);
        // What goes with the last holder goes outside of the lock.
        drop(before);
    }

    /// Begins anew with another state. Not while a batch is being written.
    pub(super) fn replace(&self, base: Base, place: Place) {
        let mut now = self.lock();
        let layers = Layers { active: Arc::default(), frozen: None, base: Arc::new(base) };
        let before = std::mem::replace(&mut now.layers, layers);
        // A batch of its own, so that no view of the former state passes for one of this.
        now.batch += 1;
        now.base_batch = now.batch;
        now.place = place;
        drop(now);
        self.frozen.notify_all();
        drop(before);
    }
}

/// One consistent state and its place in the log.
pub struct View {
    reader: StateReader,
    place: Place,
    front: Arc<Front>,
}

impl View {
    /// The tables.
    pub fn reader(&self) -> &StateReader {
        &self.reader
    }

    /// The last entry of the log that is in it.
    pub fn applied(&self) -> Option<&LogId> {
        self.place.applied.as_ref()
    }

    /// Its place in the log and the membership then.
    pub fn meta(&self) -> SnapshotMeta {
        self.place.meta()
    }

    /// The same state on the layers of now, if there was a flush since and they still tell it: so that what was flushed
    /// need not stay in memory, nor replaced pages in the file, because of this view.
    pub fn refreshed(&self) -> Option<View> {
        let mut now = self.front.lock();
        let is_old = !Arc::ptr_eq(&self.reader.layers.base, &now.layers.base);
        let is_told = self.reader.batch >= now.base_batch;
        (is_old && is_told).then(|| now.view(&self.front, self.reader.batch, self.place.clone()))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut now = self.front.lock();
        if let Some(views) = now.views.get_mut(&self.reader.batch) {
            *views -= 1;
            if *views == 0 {
                now.views.remove(&self.reader.batch);
            }
        }
    }
}
