//! A flush part by part: the blocks of a batch are put, then a command points at them.
//!
//! The commands of a flush follow one another; blocks are put ahead of them, so that the disk is not idle while a command is
//! on its way. Blocks that were put for a command that is never sent are deleted: nothing points at them.

use super::file::{Covered, File, Flushed, Shown, Work};
use super::flush::{Failed, InRoom, Lease};
use super::plan::{Batch, Plan, plan};
use super::room::{Guard, Kind};
use crate::engine::{Engine, status};
use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_meta::{Flush, FsError, MetadataService, Op, Origin, Response};
use futures_util::future::{OptionFuture, join};
use std::collections::VecDeque;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tracing::error;

/// Outcomes that go along with one command; the state machine takes 4096.
const COVERED_PER_COMMAND: usize = 2048;

/// How often a refused batch is looked at for what of it is to be refused. More may be damaged meanwhile; or nothing, and reading failed.
const LOOKS_MAX: usize = 4;

/// Parts of a flush whose blocks are put at the same time: one that the store writes, and one that it goes on with.
const AHEAD: usize = 2;

/// One put and one command.
struct Part {
    batch: Batch,
    /// The blocks of the batch, while nothing points at them.
    ids: Vec<BlockId>,
    covered: Vec<Covered>,
    /// Of its flush.
    is_last: bool,
}

/// What of a flush is in no part yet.
struct Rest {
    plan: Plan,
    /// The last end first.
    covered: Vec<Covered>,
    is_over: bool,
}

impl Rest {
    fn of(work: &mut Work) -> Self {
        let mut covered = std::mem::take(&mut work.covered);
        covered.sort_unstable_by_key(|c| std::cmp::Reverse(c.end));
        Self { plan: plan(std::mem::take(&mut work.segments)), covered, is_over: false }
    }

    /// The next part, if it is not over; of nothing, too, there is one. Outcomes follow the batch that holds the end of their data, as far as one command takes
    /// them; surplus ones have commands without data behind.
    fn next(&mut self, next_id: impl FnMut() -> BlockId) -> Part {
        let batch = self.plan.next(next_id);
        let more_data = self.plan.has_more();
        let mut covered = Vec::new();
        while covered.len() < COVERED_PER_COMMAND
            && let Some(next) = self.covered.last()
            && (!more_data || next.end <= batch.end())
        {
            covered.extend(self.covered.pop());
        }
        self.is_over = !more_data && self.covered.is_empty();
        let ids = batch.blocks.iter().map(|(id, _)| *id).collect();
        Part { batch, ids, covered, is_last: self.is_over }
    }
}

/// A part that certainly, or perhaps, is not in the store, nor ever will be.
struct Undone {
    part: Part,
    error: FsError,
    /// If it was entered for this part.
    room: Option<Guard>,
}

/// A part whose blocks are being put.
struct Put {
    part: Part,
    done: Option<JoinHandle<Result<(), BlockError>>>,
}

impl Put {
    async fn end(self, file: &File) -> Result<Part, Undone> {
        let Self { part, done } = self;
        let Some(done) = done else { return Ok(part) };
        match done.await {
            Ok(Ok(())) => Ok(part),
            Ok(Err(e)) => {
                error!(ino = %file.ino, error = %e, "UNSTABLE data could not be stored");
                Err(Undone { part, error: status::of_blocks(&e), room: None })
            }
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_ended) => Err(Undone { part, error: FsError::Io, room: None }),
            },
        }
    }
}

/// How a flush goes on.
struct Way {
    origin: Origin,
    in_room: InRoom,
    lease: Lease,
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Flushes, and forgets what is in the store. Must run to its end.
    pub(super) async fn flush_work(
        &self,
        file: &File,
        mut work: Work,
        in_room: InRoom,
        lease: Lease,
    ) -> Result<(), FsError> {
        let origin = Origin { frontend: self.frontend, epoch: work.epoch };
        let way = Way { origin, in_room, lease };
        let mut rest = Rest::of(&mut work);
        let mut puts = VecDeque::new();
        let mut ready = None;
        let (undone, next) = loop {
            while puts.len() < AHEAD && !rest.is_over {
                let is_idle = puts.is_empty() && ready.is_none();
                let Some(slot) = self.slot(&rest, is_idle).await else { break };
                let part = rest.next(|| BlockId::new(origin.epoch, self.next_block()));
                puts.push_back(self.put(part, slot));
            }
            let command = ready.take().map(|part| self.command(file, &mut work, &way, part));
            let put = puts.pop_front().map(|put| put.end(file));
            let (sent, put) = join(OptionFuture::from(command), OptionFuture::from(put)).await;
            match (sent.unwrap_or(Ok(())), put) {
                (Ok(()), None) if rest.is_over => return Ok(()),
                (Ok(()), None) => {}
                (Ok(()), Some(Ok(part))) => ready = Some(part),
                (Ok(()), Some(Err(undone))) => break (undone, None),
                (Err(undone), put) => break (undone, put),
            }
        };
        // Nothing points at what was put ahead.
        let Undone { part, error, room } = undone;
        let mut parts = vec![Ok(part)];
        parts.extend(next);
        for put in puts {
            parts.push(put.end(file).await);
        }
        let (mut unused, mut covered) = (Vec::new(), rest.covered);
        for part in parts {
            let (Ok(part) | Err(Undone { part, .. })) = part;
            unused.extend(part.ids);
            covered.extend(part.covered);
        }
        self.delete_blocks(unused).await;
        let in_room = if room.is_some() { InRoom::Yes } else { in_room };
        self.lose(file, origin.epoch, error, covered, in_room).await
    }

    /// A place for the next part's blocks, if it has any: one large flush does not fill the store's queue before others. `None`: there is none now. Only
    /// who is idle waits for one, so a command does not.
    async fn slot(&self, rest: &Rest, is_idle: bool) -> Option<Option<OwnedSemaphorePermit>> {
        if !rest.plan.needs_blocks() {
            return Some(None);
        }
        let putting = self.putting.clone();
        if is_idle {
            return Some(Some(putting.acquire_owned().await.expect("nobody closes it")));
        }
        putting.try_acquire_owned().ok().map(Some)
    }

    /// Begins to put the blocks of a part.
    fn put(&self, mut part: Part, slot: Option<OwnedSemaphorePermit>) -> Put {
        let blocks = std::mem::take(&mut part.batch.blocks);
        if blocks.is_empty() {
            return Put { part, done: None };
        }
        let store = self.blocks.clone();
        // As a task: it goes on whatever the flush waits for.
        let done = tokio::spawn(async move {
            let stored = store.put_parts(blocks).await;
            drop(slot);
            stored
        });
        Put { part, done: Some(done) }
    }

    /// Has the store point at the blocks of a part, and forgets what it brought.
    async fn command(&self, file: &File, work: &mut Work, way: &Way, mut part: Part) -> Result<(), Undone> {
        let (release, room) = match way.in_room {
            _ if !part.is_last || way.lease == Lease::Stays => (false, None),
            InRoom::Yes => (true, None),
            InRoom::No if file.state().has_fresh() => (false, None),
            InRoom::No => {
                let room = file.room.enter_first(Kind::Stable).await;
                (!file.state().has_fresh(), Some(room))
            }
        };
        match self.send_part(file, work, way.origin, &mut part, release).await {
            Ok(response) => {
                self.settle_part(file, way.origin, &part, &response, release);
                Ok(())
            }
            Err(Failed { error, without_effect }) => {
                // A file that was removed points at nothing.
                if !(without_effect || error == FsError::Stale) {
                    part.ids.clear();
                }
                Err(Undone { part, error, room })
            }
        }
    }

    /// Sends the command, without what of it needs damaged bytes.
    async fn send_part(
        &self,
        file: &File,
        work: &mut Work,
        origin: Origin,
        part: &mut Part,
        release: bool,
    ) -> Result<Response, Failed> {
        let mut looks = 0;
        loop {
            let flush = Flush {
                mtime: work.shown.mtime,
                ctime: work.shown.ctime,
                change: work.shown.change,
                size: work.shown.size,
                release,
                covered: part.covered.iter().map(|c| (c.key, c.response.clone())).collect(),
            };
            let op = Op::Write {
                ino: file.ino,
                generation: work.generation,
                pieces: part.batch.pieces.clone(),
                flush: Some(flush),
            };
            let sent = self.surely(origin, op).await;
            let may_be_damaged = matches!(sent, Err(Failed { error: FsError::Io, without_effect: true }));
            looks += 1;
            if !may_be_damaged || looks > LOOKS_MAX {
                return sent;
            }
            let Ok(shown) = self.set_aside(file, origin, part).await else { return sent };
            work.shown = shown;
        }
    }

    /// Forgets what is in the store now.
    fn settle_part(&self, file: &File, origin: Origin, part: &Part, response: &Response, released: bool) {
        let ranges = part.batch.ranges();
        for (start, end) in &ranges {
            self.dirty.refused.overwritten(file.ino, &(*start..*end));
        }
        let flushed = Flushed {
            epoch: origin.epoch,
            ranges: &ranges,
            covered: part.covered.len(),
            after: response.change_of(file.ino).map(|change| change.after.clone()),
            released,
        };
        let (back, ended) = file.state().flushed(flushed, &self.budget);
        if ended {
            self.dirty.lease_ended();
        }
        self.blocks.release(back);
        part.covered.iter().for_each(|covered| self.dirty.forget(covered));
    }

    /// Takes out of a refused part what needs damaged bytes, and says how the file is shown without it. `Err` if it cannot be helped: then everything is
    /// lost.
    async fn set_aside(&self, file: &File, origin: Origin, part: &mut Part) -> Result<Shown, ()> {
        let refused = self.meta.refused_bytes(file.ino, &part.batch.pieces).await.map_err(drop)?;
        if refused.is_empty() {
            // It could be read this time.
            return file.state().shown().ok_or(());
        }
        // Before anything is dropped: a life to come knows of nothing else.
        self.surely(origin, Op::DataRefused).await.map_err(drop)?;
        if !self.dirty.refused.add(file.ino, self.meta.verifier(), &refused) {
            return Err(());
        }
        let shown = file.state().refuse(origin.epoch, &refused, &self.budget).ok_or(())?;
        let bytes: u64 = refused.iter().map(|range| range.end - range.start).sum();
        error!(ino = %file.ino, bytes, "UNSTABLE data that overwrite damaged ones in part are refused; COMMIT will say so");
        part.batch.without(&refused);
        let unused = part.ids.extract_if(.., |id| !part.batch.uses(*id)).collect();
        self.delete_blocks(unused).await;
        Ok(shown)
    }

    /// Deletes blocks that nothing points at, nor ever will. If this fails the collector finds them after the next start.
    async fn delete_blocks(&self, ids: Vec<BlockId>) {
        if !ids.is_empty() {
            let _collected_later = self.blocks.delete(ids).await;
        }
    }
}
