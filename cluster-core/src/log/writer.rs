//! The two threads of the log, each a loop around a function that tests call directly.
//!
//! The writer takes what was queued as one group: one durable write, then the callbacks. A caller that is alone may begin
//! a group itself and go on while the disk writes it ([`super::Wal::append_early`]). There is one group at a time. The
//! preparer keeps spare segments and removes the segments that a purge made superfluous.

use super::group::GroupBuffer;
use super::segment::{self, Segment};
use super::state::{Chunk, State};
use super::{Config, Done, WalError};
use atoll_base::disk::Disk;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spare segments that are kept: the next one and the reserve.
pub(super) const SPARES: usize = 2;
/// Superfluous segments that are kept to be used again: as many as a purge of the usual size frees.
const RECYCLED: usize = 2;
/// How often a preparation is tried again on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// Everything that the handle and the threads share.
pub(super) struct Core {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) config: Config,
    shared: Mutex<Shared>,
    /// Something was queued, or the log is closing.
    pub(super) queued: Condvar,
    /// A spare was taken, segments were retired, or the log is closing.
    pub(super) wanted: Condvar,
    /// A group is durable, a spare was made or refused, or the log has failed.
    pub(super) progress: Condvar,
    /// The same for tasks.
    pub(super) drained: tokio::sync::Notify,
}

/// What the mutex guards.
pub(super) struct Shared {
    pub(super) state: State,
    pub(super) failed: Option<Arc<str>>,
    pub(super) closing: bool,
    pub(super) turn: Turn,
    /// No other member has, or may have, a copy of what is appended.
    pub(super) alone: bool,
    /// Of the group that is being written it was said that it is durable ([`super::Wal::append_early`]).
    told_early: bool,
    /// Threads that wait for [`Core::progress`]. To notify nobody is a system call, too, with each group.
    pub(super) awaiting_progress: usize,
    /// Kept for the next group. The group under way has it.
    buffer: GroupBuffer,
    /// The last preparation found no space.
    pub(super) starved: bool,
    /// How many spares a request waits for that is larger than what is kept ready.
    pub(super) awaited_spares: usize,
    /// Segments that are not needed any more.
    pub(super) retired: Vec<Arc<Segment>>,
    /// Of these, those kept to be used again. Their files go when the log is opened.
    pub(super) recycled: Vec<Segment>,
    pub(super) appends: u64,
    pub(super) syncs: u64,
    pub(super) written_bytes: u64,
    pub(super) last_sync: Duration,
}

/// Who is writing.
pub(super) enum Turn {
    Nobody,
    /// A thread that lays a group out or waits for the disk. It looks at the queue again before it ends.
    Thread,
    /// The disk has a group, and nobody waits for it yet.
    Disk(Box<Group>),
}

/// What goes to the disk at once: to one place in one segment.
pub(super) struct Group {
    chunks: Vec<Chunk>,
    segment: Arc<Segment>,
    start: u32,
    bytes: u32,
    /// How many end in it.
    requests: u64,
    buffer: GroupBuffer,
    /// When the disk got it.
    begun: Instant,
}

impl Shared {
    fn wants_spare(&self) -> bool {
        self.state.spares.len() < SPARES.max(self.awaited_spares)
    }

    /// Whether anybody waits for what is written or queued, but those who settle.
    fn is_waited_for(&self, config: &Config) -> bool {
        let has_requests = |group: &Group| group.chunks.iter().any(|chunk| chunk.done.is_some());
        self.closing
            || self.failed.is_some()
            || !self.state.queue.is_empty()
            || self.state.queued_bytes >= config.queue_bytes
            || matches!(&self.turn, Turn::Disk(group) if has_requests(group))
    }

    pub(super) fn usable(&self) -> Result<(), WalError> {
        match &self.failed {
            Some(why) => Err(WalError::Failed(why.clone())),
            None if self.closing => Err(WalError::Closed),
            None => Ok(()),
        }
    }
}

impl Core {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, config: Config, state: State) -> Self {
        let shared = Shared {
            state,
            failed: None,
            closing: false,
            turn: Turn::Nobody,
            alone: false,
            told_early: false,
            awaiting_progress: 0,
            buffer: GroupBuffer::default(),
            starved: false,
            awaited_spares: 0,
            retired: Vec::new(),
            recycled: Vec::new(),
            appends: 0,
            syncs: 0,
            written_bytes: 0,
            last_sync: Duration::ZERO,
        };
        Self {
            disk,
            dir,
            config,
            shared: Mutex::new(shared),
            queued: Condvar::new(),
            wanted: Condvar::new(),
            progress: Condvar::new(),
            drained: tokio::sync::Notify::new(),
        }
    }

    /// A panic elsewhere doesn't make the state wrong: it is only changed in whole steps.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(&self, on: &Condvar, shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        on.wait(shared).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn await_progress<'a>(&self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        shared.awaiting_progress += 1;
        let mut shared = self.wait(&self.progress, shared);
        shared.awaiting_progress -= 1;
        shared
    }

    fn progressed(&self) {
        if self.lock().awaiting_progress > 0 {
            self.progress.notify_all();
        }
        self.drained.notify_waiters();
    }

    /// Fails the log for ever and tells all that wait.
    pub(super) fn fail(&self, what: &str, error: &io::Error) {
        let mut shared = self.lock();
        let why: Arc<str> = format!("{what}: {error}").into();
        if shared.failed.is_none() {
            tracing::error!(%why, "the log has failed; restart the server once the disk is sound");
        }
        let why = shared.failed.get_or_insert(why).clone();
        let waiting: Vec<Chunk> = shared.state.queue.drain(..).collect();
        shared.state.queued_bytes = 0;
        drop(shared);
        self.progressed();
        self.queued.notify_all();
        self.wanted.notify_all();
        answer(waiting, &Err(WalError::Failed(why)));
    }

    /// Writes one group, or waits for the one that the disk has. False if there is neither, or if another thread is writing.
    pub(super) fn write_group(&self) -> bool {
        let mut shared = self.lock();
        let (writing, group) = match std::mem::replace(&mut shared.turn, Turn::Thread) {
            Turn::Thread => return false,
            Turn::Disk(group) => {
                drop(shared);
                (Writing(self), Some(*group))
            }
            Turn::Nobody => {
                let Some((writing, group)) = self.take_group(shared) else { return false };
                (writing, self.begin(group))
            }
        };
        if let Some(group) = group {
            self.finish(writing, group);
        }
        true
    }

    /// Gives a group to the disk if nobody writes, and says of what was [appended early](super::Wal::append_early) that it is durable: it is when
    /// [`Core::settle`] returns. False if there is another member, or if another thread is writing.
    pub(super) fn begin_early(&self) -> bool {
        let mut shared = self.lock();
        if !shared.alone || !matches!(shared.turn, Turn::Nobody) {
            return false;
        }
        shared.turn = Turn::Thread;
        let Some((writing, group)) = self.take_group(shared) else { return false };
        if let Some(group) = self.begin(group) {
            writing.leave(group).into_iter().for_each(|done| done(Ok(())));
        }
        true
    }

    /// Waits until everything is durable of which that was said.
    pub(super) fn settle(&self) -> Result<(), WalError> {
        let mut shared = self.lock();
        while shared.told_early {
            if let Some(why) = &shared.failed {
                return Err(WalError::Failed(why.clone()));
            }
            if matches!(shared.turn, Turn::Thread) {
                shared = self.await_progress(shared);
            } else {
                drop(shared);
                self.write_group();
                shared = self.lock();
            }
        }
        Ok(())
    }

    /// What is queued for one place, for a thread that has just taken its turn; if there is nothing, it gives that back.
    fn take_group(&self, mut shared: MutexGuard<'_, Shared>) -> Option<(Writing<'_>, Group)> {
        let chunks = take_chunks(&mut shared.state, self.config.group_bytes);
        let Some(first) = chunks.first() else {
            shared.turn = Turn::Nobody;
            return None;
        };
        let group = Group {
            segment: first.segment.clone(),
            start: first.offset,
            bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
            requests: chunks.iter().filter(|chunk| chunk.done.is_some()).count() as u64,
            buffer: std::mem::take(&mut shared.buffer),
            begun: Instant::now(),
            chunks,
        };
        drop(shared);
        Some((Writing(self), group))
    }

    /// Gives a group to the disk. None if that failed, and everybody was told.
    fn begin(&self, mut group: Group) -> Option<Group> {
        let Group { chunks, segment, start, bytes, buffer, .. } = &mut group;
        if let Err(error) = buffer.begin(segment, *start, *bytes as usize) {
            self.fail_group(group, "read", &error);
            return None;
        }
        let mut offset = *start;
        for frame in chunks.iter().flat_map(|chunk| &chunk.frames) {
            frame.encode(segment.seal, *start, offset, buffer.bytes());
            offset += frame.size() as u32;
        }
        if let Err(error) = buffer.write(segment, offset) {
            self.fail_group(group, "write", &error);
            return None;
        }
        Some(group)
    }

    /// Waits for the disk, and tells everybody.
    fn finish(&self, writing: Writing<'_>, mut group: Group) {
        if let Err(error) = group.buffer.settle(&group.segment) {
            return self.fail_group(group, "sync", &error);
        }
        let Group { chunks, segment, start, bytes, requests, buffer, begun } = group;
        let mut shared = self.lock();
        shared.told_early = false;
        shared.last_sync = begun.elapsed();
        shared.syncs += 1;
        shared.written_bytes += u64::from(bytes);
        shared.appends += requests;
        shared.state.flushed = (segment.number, start + bytes);
        shared.state.queued_bytes = shared.state.queued_bytes.saturating_sub(bytes as usize);
        shared.state.evict(&self.config);
        shared.buffer = buffer;
        if let Some(below) = chunks.iter().filter_map(|chunk| chunk.retire_below).max() {
            let kept = shared.state.segments.split_off(&below);
            let retired = std::mem::replace(&mut shared.state.segments, kept);
            shared.retired.extend(retired.into_values());
            self.wanted.notify_all();
        }
        drop(shared);
        // Before the callbacks: the writer goes on with what was queued meanwhile.
        drop(writing);
        self.progressed();
        answer(chunks, &Ok(()));
    }

    fn fail_group(&self, group: Group, verb: &str, error: &io::Error) {
        let what = format!("{verb} {}", group.segment.path.display());
        self.fail(&what, error);
        answer(group.chunks, &Err(WalError::Failed(format!("{what}: {error}").into())));
    }

    /// Keeps or removes retired segments and makes at most one spare. False if there was nothing to do.
    pub(super) fn maintain(&self) -> bool {
        let mut shared = self.lock();
        let retired = std::mem::take(&mut shared.retired);
        let has_retired = !retired.is_empty();
        let mut superfluous = Vec::new();
        for segment in retired {
            let is_kept = shared.recycled.len() < RECYCLED && segment.len == self.config.segment_bytes;
            match Arc::try_unwrap(segment) {
                Ok(segment) if is_kept => shared.recycled.push(segment),
                Ok(segment) => superfluous.push(segment.path),
                // Somebody still reads it.
                Err(segment) => superfluous.push(segment.path.clone()),
            }
        }
        let wants_spare = shared.failed.is_none() && shared.wants_spare();
        let recycled = if wants_spare { shared.recycled.pop() } else { None };
        let number = shared.state.next_number;
        drop(shared);
        for path in superfluous {
            // It is tried again when the log is opened.
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, segment = %path.display(), "a purged log segment stays");
            }
        }
        if !wants_spare {
            return has_retired;
        }
        let spare = match recycled {
            Some(segment) => segment.recycle(&*self.disk, &self.dir, number),
            None => Segment::prepare(&*self.disk, &self.dir, number, self.config.segment_bytes),
        };
        match spare {
            Ok(spare) => {
                let mut shared = self.lock();
                shared.state.spares.push_back(spare);
                shared.state.next_number = number + 1;
                shared.starved = false;
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                let mut shared = self.lock();
                if !shared.starved {
                    tracing::error!("no space for a further log segment");
                }
                shared.starved = true;
                drop(shared);
                self.progressed();
                return has_retired;
            }
            Err(error) => self.fail(&format!("prepare {}", segment::name(number)), &error),
        }
        self.progressed();
        true
    }

    /// The writer's thread: until the log is closed and all is written, or it has failed.
    pub(super) fn run_writer(&self) {
        loop {
            while self.write_group() {}
            let shared = self.lock();
            match shared.turn {
                Turn::Nobody if !shared.state.queue.is_empty() => {}
                Turn::Nobody if shared.closing || shared.failed.is_some() => return,
                // Else whoever was told early waits for it.
                Turn::Disk(_) if shared.is_waited_for(&self.config) => {}
                _ => drop(self.wait(&self.queued, shared)),
            }
        }
    }

    /// The preparer's thread.
    pub(super) fn run_preparer(&self) {
        loop {
            while self.maintain() {}
            let shared = self.lock();
            if shared.closing || shared.failed.is_some() {
                return;
            }
            // As [`Core::maintain`] sees it: whoever asked for more than are kept did so before it waits here.
            let is_idle = shared.retired.is_empty() && (shared.starved || !shared.wants_spare());
            if !is_idle {
                continue;
            }
            if shared.starved {
                drop(self.wanted.wait_timeout(shared, RETRY).unwrap_or_else(PoisonError::into_inner));
            } else {
                drop(self.wait(&self.wanted, shared));
            }
        }
    }
}

/// Held by the one thread that writes.
struct Writing<'a>(&'a Core);

impl Writing<'_> {
    /// Leaves the group to the disk. Returns those to be told early, if there still is no other member.
    fn leave(self, mut group: Group) -> Vec<Done> {
        let mut shared = self.0.lock();
        let early = group.chunks.iter_mut().filter(|chunk| chunk.is_early && shared.alone);
        let told: Vec<_> = early.filter_map(|chunk| chunk.done.take()).collect();
        shared.told_early = !told.is_empty();
        self.pass_on(shared, Turn::Disk(Box::new(group)));
        std::mem::forget(self);
        told
    }

    fn pass_on(&self, mut shared: MutexGuard<'_, Shared>, turn: Turn) {
        shared.turn = turn;
        let is_waited_for = shared.is_waited_for(&self.0.config);
        drop(shared);
        if is_waited_for {
            self.0.queued.notify_all();
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The next group would go behind bytes that were never written.
            self.0.fail("internal error", &io::Error::other("a thread panicked while it wrote a group"));
        }
        self.pass_on(self.0.lock(), Turn::Nobody);
    }
}

/// Takes from the queue what goes to one place in one segment.
fn take_chunks(state: &mut State, limit: usize) -> Vec<Chunk> {
    let mut group: Vec<Chunk> = Vec::new();
    let mut bytes = 0;
    while let Some(next) = state.queue.front() {
        if let Some(last) = group.last()
            && (last.segment.number != next.segment.number || bytes + next.bytes as usize > limit)
        {
            break;
        }
        bytes += next.bytes as usize;
        group.extend(state.queue.pop_front());
    }
    group
}

fn answer(chunks: Vec<Chunk>, result: &Result<(), WalError>) {
    for done in chunks.into_iter().filter_map(|chunk| chunk.done) {
        done(result.clone());
    }
}
