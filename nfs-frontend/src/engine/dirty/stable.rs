//! Entering a file as an operation of the store: what is dirty is flushed first, and nothing becomes dirty meanwhile.

use super::flush::InRoom;
use super::room::{Guard, Kind};
use super::table::Pin;
use crate::engine::Engine;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::nfs4::StateId;
use atoll_meta::{Change, MetadataService, Outcome, Response};

/// Keeps UNSTABLE writes away from a file.
#[derive(Debug)]
pub(crate) struct Settled {
    // Left before the entry is unpinned.
    _room: Guard,
    _file: Pin,
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Enters as stable. What could not be flushed is lost, and COMMIT will say so: the operation goes on.
    pub(crate) async fn settle(&self, ino: Ino) -> Settled {
        let file = self.dirty.pin(ino);
        let room = file.room.enter(Kind::Stable).await;
        if file.state().is_leased() {
            let _lost_is_told_by_commit = Box::pin(self.flush(&file, InRoom::Yes)).await;
        }
        Settled { _room: room, _file: file }
    }

    /// The same for what a name stands for, if that has anything to flush. The name may come to stand for something
    /// else before the operation on it runs; then the operation meets a file with a lease, which costs nobody data.
    pub(crate) async fn settle_name(&self, dir: Ino, name: &[u8]) -> Option<Settled> {
        if !self.dirty.any() {
            return None;
        }
        let found = self.meta.lookup(dir, name).await.ok()?;
        let child = found.child.ok()?;
        self.dirty.pin_leased(child.ino)?;
        Some(self.settle(child.ino).await)
    }

    /// For RENAME: the object that moves, and the one that it replaces. Rooms are entered in order of inode, and the same
    /// one only once: with somebody unstable waiting in between, two renames, or one of two names of one file,
    /// would else wait for each other.
    pub(crate) async fn settle_rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Vec<Settled> {
        if !self.dirty.any() {
            return Vec::new();
        }
        let mut objects = Vec::new();
        for ((dir, name), goes) in [(from, false), (to, true)] {
            if let Ok(found) = self.meta.lookup(dir, name).await
                && let Ok(child) = found.child
                && self.dirty.is_leased(child.ino)
            {
                objects.push((child.ino, !goes || self.stays(&child).await));
            }
        }
        objects.sort_unstable();
        // Of the same twice the latter is kept, which is flushed.
        objects.reverse();
        objects.dedup_by_key(|(ino, _)| *ino);
        objects.reverse();
        let mut settled = Vec::new();
        for (ino, flushed) in objects {
            settled.push(if flushed { self.settle(ino).await } else { self.keep_out(ino).await });
        }
        settled
    }

    /// Whether a file stays when it loses a name. Should it be opened after this, what is dirty stays with it.
    async fn stays(&self, file: &Attr) -> bool {
        let is_open = || async { self.meta.states_of(file.ino, StateId(0), 1).await };
        file.nlink > 1 || is_open().await.is_ok_and(|states| !states.is_empty())
    }

    /// The same for two files, which may be one: in order of inode, as [`Self::settle_rename`].
    pub(crate) async fn settle_both(&self, a: Ino, b: Ino) -> Vec<Settled> {
        let mut settled = vec![self.settle(a.min(b)).await];
        if a != b {
            settled.push(self.settle(a.max(b)).await);
        }
        settled
    }

    /// Enters as stable without flushing.
    async fn keep_out(&self, ino: Ino) -> Settled {
        let file = self.dirty.pin(ino);
        let room = file.room.enter(Kind::Stable).await;
        Settled { _room: room, _file: file }
    }

    /// The same for a name that is about to go. A file that has no other is not flushed: its data go with it. Should the
    /// removal be refused, they are still there, and dirty.
    pub(crate) async fn settle_linked(&self, dir: Ino, name: &[u8]) -> Option<Settled> {
        if !self.dirty.any() {
            return None;
        }
        let found = self.meta.lookup(dir, name).await.ok()?;
        let child = found.child.ok()?;
        if self.stays(&child).await {
            return self.settle_name(dir, name).await;
        }
        self.dirty.pin_leased(child.ino)?;
        Some(self.keep_out(child.ino).await)
    }

    /// Takes into account what a call changed about files that have a lease, and forgets what was dirty about files
    /// that are gone.
    pub(crate) fn note_changes(&self, response: &Response) {
        if self.dirty.refused.any() {
            let cut = response.changes.iter().filter(|change| change.after.size < change.before.size);
            cut.for_each(|Change { after, .. }| {
                self.dirty.refused.overwritten(after.ino, &(after.size..u64::MAX))
            });
        }
        if !self.dirty.any() {
            return;
        }
        for change in &response.changes {
            if let Some(file) = self.dirty.pin_leased(change.after.ino) {
                let is_gone = change.after.nlink == 0 && !matches!(response.result, Ok(Outcome::Unnamed));
                if is_gone {
                    // A flush that is under way finds the file stale and forgets the rest.
                    if let Ok(_turn) = file.flush.try_lock()
                        && let Some(lease) = { file.state().lease() }
                    {
                        self.forget_dirty(&file, lease.epoch);
                    }
                } else {
                    file.state().note(&change.after);
                }
            }
        }
    }
}
