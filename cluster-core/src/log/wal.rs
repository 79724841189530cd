//! The handle of the log.

use super::record::{Frame, Record};
use super::recovery::recover;
use super::state::{Location, State};
use super::writer::{Core, Shared, Turn};
use super::{Config, Entry, EntryId, Status, WalError};
use atoll_base::disk::Disk;
use bytes::Bytes;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Called once when the request is durable or has failed, from a thread of the log or from whoever appended early or waits in [`Wal::settle`]. It must not block.
pub type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// When a request is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Durable,
    /// See [`Wal::append_early`].
    Early,
}

/// An open log. Requests take effect in memory at once and in the order of the calls; they are durable when
/// `done` gets `Ok`. When it is dropped, all that was requested is written.
pub struct Wal {
    core: Arc<Core>,
    /// None in tests that drive the log by hand.
    threads: Option<[JoinHandle<()>; 2]>,
}

impl Wal {
    /// Opens the log in `dir` (made if missing; its parent must exist) and verifies all of it.
    ///
    /// # Errors
    /// [`WalError::Damaged`] with file and offset, or [`WalError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: Config) -> Result<Self, WalError> {
        let mut wal = Self::open_unattended(disk, dir, config)?;
        let spawn = |name: &str, run: fn(&Core)| {
            let core = wal.core.clone();
            let body = move || {
                // Without its threads the log would let everybody wait for ever.
                if catch_unwind(AssertUnwindSafe(|| run(&core))).is_err() {
                    core.fail("internal error", &std::io::Error::other("a thread of the log panicked"));
                }
            };
            let spawned = Builder::new().name(name.to_owned()).spawn(body);
            spawned.map_err(WalError::io(format!("start the thread {name}")))
        };
        let writer = spawn("wal-writer", Core::run_writer)?;
        let preparer = spawn("wal-preparer", Core::run_preparer);
        match preparer {
            Ok(preparer) => wal.threads = Some([writer, preparer]),
            Err(error) => {
                wal.shut(writer);
                return Err(error);
            }
        }
        Ok(wal)
    }

    /// Without threads: nothing is written but by [`Wal::step`].
    pub(super) fn open_unattended(disk: Arc<dyn Disk>, dir: &Path, config: Config) -> Result<Self, WalError> {
        let state = recover(&*disk, dir, &config)?;
        Ok(Self { core: Arc::new(Core::new(disk, dir.to_owned(), config, state)), threads: None })
    }

    /// Writes one group, if any is queued, and does one piece of maintenance. For logs without threads.
    #[cfg(test)]
    pub(super) fn step(&self) {
        self.core.write_group();
        self.core.maintain();
    }

    /// Whether nothing is written nor queued.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let shared = self.core.lock();
        matches!(shared.turn, Turn::Nobody) && shared.state.queue.is_empty()
    }

    /// The maintenance of [`Wal::step`] alone.
    #[cfg(test)]
    pub(super) fn maintain(&self) {
        self.core.maintain();
    }

    fn shut(&self, thread: JoinHandle<()>) {
        self.core.lock().closing = true;
        self.core.queued.notify_all();
        self.core.wanted.notify_all();
        // A panic there was reported by its thread.
        let _ = thread.join();
    }

    // Changes.

    /// Appends entries that follow the last one (any index if the log never had one). They are readable at once.
    ///
    /// Waits for a spare segment if none is ready, and while more than [`Config::queue_bytes`] are queued; to wait
    /// in a task instead, call [`Wal::room`] before.
    ///
    /// # Errors
    /// At once, with nothing done: [`WalError::NoSpace`], [`WalError::Failed`], [`WalError::Closed`],
    /// [`WalError::TooLarge`], [`WalError::Hole`]. `done` gets nothing but [`WalError::Failed`].
    pub fn append(&self, entries: Vec<Entry>, done: Done) -> Result<(), WalError> {
        self.append_by(When::Durable, entries, done)
    }

    /// As [`Wal::append`], for a member without others ([`Wal::set_alone`]): unless a group is being written, this thread gives the entries to the disk, and `done` is called
    /// **before they are durable**, when this returns at the latest. They are when [`Wal::settle`] returns, and nothing that follows from
    /// them may show before. So a caller who has to wait for the disk anyway can work meanwhile, and no thread is woken.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn append_early(&self, entries: Vec<Entry>, done: Done) -> Result<(), WalError> {
        self.append_by(When::Early, entries, done)
    }

    /// Waits until everything is durable that was called so by [`Wal::append_early`].
    ///
    /// # Errors
    /// [`WalError::Failed`]: it never will be.
    pub fn settle(&self) -> Result<(), WalError> {
        self.core.settle()
    }

    /// Says whether there is no other member, which [`Wal::append_early`] needs: others must not learn of what a crash may still take. Returns, if there is to be one, when
    /// everything is durable that was called so; waits for the disk.
    ///
    /// # Errors
    /// As [`Wal::settle`].
    pub fn set_alone(&self, alone: bool) -> Result<(), WalError> {
        self.core.lock().alone = alone;
        if alone { Ok(()) } else { self.settle() }
    }

    /// See [`Wal::set_alone`].
    pub fn is_alone(&self) -> bool {
        self.core.lock().alone
    }

    fn append_by(&self, when: When, entries: Vec<Entry>, done: Done) -> Result<(), WalError> {
        if entries.is_empty() {
            self.core.lock().usable()?;
            done(Ok(()));
            return Ok(());
        }
        let make = |state: &State| {
            let mut next = state.next_index();
            for entry in &entries {
                if let Some(expected) = next
                    && expected != entry.id.index
                {
                    return Err(WalError::Hole { expected, got: entry.id.index });
                }
                next = Some(entry.id.index + 1);
            }
            // The commit point goes to the log with the next entries.
            let committed =
                (state.committed != state.logged_committed).then_some(Record::Committed(state.committed));
            Ok(committed.into_iter().chain(entries.iter().cloned().map(Record::Entry)).collect())
        };
        self.submit(when, make, false, done)
    }

    /// Replaces the vote (at most 1 KiB, opaque).
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn save_vote(&self, vote: Bytes, done: Done) -> Result<(), WalError> {
        self.submit(When::Durable, |_| Ok(vec![Record::Vote(vote.clone())]), true, done)
    }

    /// Removes the entries after `last`; all if `None`.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn truncate_after(&self, last: Option<EntryId>, done: Done) -> Result<(), WalError> {
        self.submit(When::Durable, |state| Ok(vec![state.truncate_record(last)]), true, done)
    }

    /// Removes the entries up to `upto`, which may be beyond the last. Whole segments are removed from the disk
    /// some time after `done`.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn purge(&self, upto: EntryId, done: Done) -> Result<(), WalError> {
        self.submit(When::Durable, |state| Ok(vec![state.purge_record(upto)]), true, done)
    }

    /// Remembers the commit point. It costs no write: it goes to the log with the next append, or when the log
    /// is closed. So after a crash [`Wal::committed`] may be older than what was set, but was committed.
    pub fn set_committed(&self, committed: Option<EntryId>) {
        self.core.lock().state.committed = committed;
    }

    fn submit(
        &self,
        when: When,
        make: impl Fn(&State) -> Result<Vec<Record>, WalError>,
        is_control: bool,
        done: Done,
    ) -> Result<(), WalError> {
        let config = &self.core.config;
        let mut shared = self.core.lock();
        let records = loop {
            shared.usable()?;
            // Anew after each wait: another thread may have been first.
            let records = make(&shared.state)?;
            for record in &records {
                State::check_size(record, config)?;
            }
            let sizes: Vec<usize> = records.iter().map(Frame::size_of).collect();
            let is_queue_full = shared.state.queued_bytes >= config.queue_bytes;
            let needed = shared.state.spares_needed(&sizes, is_control, config);
            let missing = needed > shared.state.spares.len();
            if missing && shared.starved {
                shared.awaited_spares = 0;
                return Err(WalError::NoSpace);
            }
            if !missing && !is_queue_full {
                break records;
            }
            if missing && needed > shared.awaited_spares {
                shared.awaited_spares = needed;
                self.core.wanted.notify_all();
            }
            shared = self.make_progress(shared);
        };
        let spares = shared.state.spares.len();
        shared.awaited_spares = 0;
        shared.state.place(records, is_control, done, config);
        if shared.state.spares.len() < spares {
            self.core.wanted.notify_all();
        }
        if let Some(last) = shared.state.queue.back_mut() {
            last.is_early = when == When::Early;
        }
        let is_written = matches!(shared.turn, Turn::Thread);
        drop(shared);
        if is_written || (when == When::Early && self.core.begin_early()) {
            return Ok(());
        }
        self.core.queued.notify_all();
        Ok(())
    }

    /// Waits until a group was written or a spare made; without threads does it.
    fn make_progress<'a>(&'a self, shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        if self.threads.is_some() {
            return self.core.await_progress(shared);
        }
        drop(shared);
        self.core.write_group();
        self.core.maintain();
        self.core.lock()
    }

    /// How long the last group took the disk; nothing before the first.
    pub fn last_sync(&self) -> Duration {
        self.core.lock().last_sync
    }

    /// Waits until [`Wal::append`] of a segment's worth of entries would not wait, or would fail.
    pub async fn room(&self) {
        loop {
            let drained = self.core.drained.notified();
            tokio::pin!(drained);
            // Registered before the check, so that no notification is missed.
            drained.as_mut().enable();
            {
                let shared = self.core.lock();
                let has_spare = !shared.state.spares.is_empty() || shared.starved;
                if shared.usable().is_err()
                    || (has_spare && shared.state.queued_bytes < self.core.config.queue_bytes)
                {
                    return;
                }
            }
            drained.await;
        }
    }

    // What is there.

    /// The vote last saved.
    pub fn vote(&self) -> Option<Bytes> {
        self.core.lock().state.vote.clone()
    }

    /// The commit point last set, or, after opening, the last that the log holds.
    pub fn committed(&self) -> Option<EntryId> {
        self.core.lock().state.committed
    }

    /// The purge point and the last entry (or the purge point if there is none).
    pub fn bounds(&self) -> (Option<EntryId>, Option<EntryId>) {
        let shared = self.core.lock();
        (shared.state.purged, shared.state.last)
    }

    /// Entries in `range` that the log has, from the first on, until they exceed `max_bytes`; at least one if
    /// there is any. `None` if that takes reads from the disk.
    pub fn cached(&self, range: Range<u64>, max_bytes: usize) -> Option<Vec<Entry>> {
        let shared = self.core.lock();
        let range = present(&shared.state, range);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in range {
            if bytes > max_bytes {
                break;
            }
            let entry = shared.state.cached(index)?;
            bytes += super::record::entry_bytes(entry);
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// As [`Wal::cached`], but reads from the disk what is not in the cache.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if a record isn't what was written, [`WalError::Io`].
    pub fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, WalError> {
        enum Found {
            Here(Entry),
            OnDisk(Arc<super::segment::Segment>, Location),
        }
        // The whole range as of one moment; what is purged or truncated later stays readable through the
        // handles, because nothing is overwritten.
        let mut found = Vec::new();
        {
            let shared = self.core.lock();
            let mut bytes = 0;
            for index in present(&shared.state, range) {
                if bytes > max_bytes {
                    break;
                }
                let location = shared.state.location(index).expect("within the bounds");
                bytes += location.body_len as usize;
                found.push(match shared.state.cached(index) {
                    Some(entry) => Found::Here(entry.clone()),
                    None => {
                        let segment = &shared.state.segments[&location.segment];
                        Found::OnDisk(segment.clone(), location)
                    }
                });
            }
        }
        let read = |found| match found {
            Found::Here(entry) => Ok(entry),
            Found::OnDisk(segment, at) => match segment.read(at.offset, at.body_len)? {
                Record::Entry(entry) => Ok(entry),
                _ => Err(segment.damaged(at.offset, "not the entry that was written")),
            },
        };
        found.into_iter().map(read).collect()
    }

    /// Whether only the reserve of space is left: no further segment could be made, and at most one is spare.
    /// Whoever proposes entries should refuse those that take space, so that those that free some still go
    /// through.
    pub fn low_space(&self) -> bool {
        low_space(&self.core.lock())
    }

    /// Why the log has failed, if it has.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.core.lock().failed.clone()
    }

    /// Figures.
    pub fn status(&self) -> Status {
        let shared = self.core.lock();
        let state = &shared.state;
        let used: u64 = state.segments.values().map(|s| u64::from(s.len)).sum();
        let spare: u64 = state.spares.iter().chain(&shared.recycled).map(|s| u64::from(s.len)).sum();
        Status {
            disk_bytes: used + spare,
            segments: state.segments.len() as u64,
            spare_segments: (state.spares.len() + shared.recycled.len()) as u64,
            entries: state.locations.len() as u64,
            cache_bytes: state.cache_bytes as u64,
            queued_bytes: state.queued_bytes as u64,
            appends: shared.appends,
            syncs: shared.syncs,
            written_bytes: shared.written_bytes,
            last_sync: shared.last_sync,
            low_space: low_space(&shared),
            failed: shared.failed.as_deref().map(str::to_owned),
        }
    }
}

fn low_space(shared: &Shared) -> bool {
    shared.starved && shared.state.spares.len() < super::writer::SPARES
}

/// The part of `range` that the log has.
fn present(state: &State, range: Range<u64>) -> Range<u64> {
    let end = state.first + state.locations.len() as u64;
    range.start.max(state.first)..range.end.min(end)
}

impl Drop for Wal {
    fn drop(&mut self) {
        let Some(threads) = self.threads.take() else { return };
        // A last group tells the next opening that all before it was durable. It may not fit or the log may have
        // failed: then it is missing, as after a crash.
        let _ = self.submit_last();
        for thread in threads {
            self.shut(thread);
        }
    }
}

impl Wal {
    /// Queues the commit point, unless nothing was written since the log was opened.
    fn submit_last(&self) -> Result<(), WalError> {
        let mut shared = self.core.lock();
        shared.usable()?;
        let record = Record::Committed(shared.state.committed);
        let size = Frame::size_of(&record);
        let is_idle = shared.syncs == 0 && shared.state.queue.is_empty();
        if !is_idle && shared.state.spares_needed(&[size], true, &self.core.config) == 0 {
            shared.state.place(vec![record], true, Box::new(|_| {}), &self.core.config);
        }
        Ok(())
    }
}
