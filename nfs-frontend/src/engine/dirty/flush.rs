//! From the dirty map into the store, or, for good, into the loss epoch: when, and who. How is in [`super::parts`].

use super::file::{Covered, File};
use super::plan::TARGET;
use super::room::Kind;
use super::table::Pin;
use crate::engine::Engine;
use crate::pause::Pause;
use atoll_base::access::Cred;
use atoll_base::block::BlockService;
use atoll_base::id::Epoch;
use atoll_meta::{Call, FsError, MetadataService, OnceKey, Op, Origin, Response};
use std::sync::Arc;
use tracing::{error, warn};

/// An operation of the frontend itself that failed for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) error: FsError,
    /// Whether it certainly has no effect, nor ever will.
    pub(super) without_effect: bool,
}

/// Whether the one who flushes is in the file's room as a stable operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InRoom {
    Yes,
    No,
}

/// What a flush leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// Ends, if nothing has come meanwhile.
    Ends,
    /// Stays: more is coming.
    Stays,
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Flushes what was accepted before this call. `Err` if some of it was lost; then the verifier has moved.
    ///
    /// Must run to its end: call it from a task of its own, or shielded.
    pub(crate) async fn flush(&self, file: &Pin, in_room: InRoom) -> Result<(), FsError> {
        let _turn = file.flush.lock().await;
        self.flush_holding(file, in_room).await
    }

    /// The same, if nobody is flushing the file already.
    pub(crate) async fn flush_if_idle(&self, file: &Pin) -> Result<(), FsError> {
        match file.flush.try_lock() {
            Ok(_turn) => self.flush_holding(file, InRoom::No).await,
            Err(_) => Ok(()),
        }
    }

    /// Puts the whole blocks of a stream into the store while more of it is coming, so that the disk is not idle until
    /// COMMIT, and COMMIT finds little left. A loss is told by COMMIT.
    pub(crate) async fn flush_early(&self, file: &Pin) {
        let unit = (self.config.early_bytes / 8).clamp(1, TARGET);
        // The turn is given up each time: a COMMIT does not wait for the end of a stream.
        while let Ok(_turn) = file.flush.try_lock() {
            let work = file.state().begin_early_flush(unit, self.config.early_bytes / 2);
            let Some(work) = work else { return };
            if self.flush_work(file, work, InRoom::No, Lease::Stays).await.is_err() {
                return;
            }
        }
    }

    async fn flush_holding(&self, file: &File, in_room: InRoom) -> Result<(), FsError> {
        let work = file.state().begin_flush();
        match work {
            Some(work) => self.flush_work(file, work, in_room, Lease::Ends).await,
            None => Ok(()),
        }
    }

    /// Runs an operation of the frontend itself, again and again until its outcome is known.
    pub(super) async fn surely(&self, origin: Origin, op: Op) -> Result<Response, Failed> {
        // Whether an answer was missed: a copy may still be executed, or was. Under the present key, and under a former one.
        let (mut missed, mut missed_before) = (false, false);
        let mut pause = Pause::of_calls();
        let mut once = self.own_key(origin.epoch);
        loop {
            let call = Call {
                origin: Some(origin),
                once: Some(once.into()),
                cred: Cred::root(),
                client: None,
                op: op.clone(),
            };
            match self.meta.execute(call).await {
                Ok(response) => match response.result {
                    // Refused without effect: a new request.
                    Err(FsError::Delay) => {
                        missed_before |= std::mem::take(&mut missed);
                        once = self.own_key(origin.epoch);
                    }
                    // Who is fenced is not asked for his key.
                    Err(error @ FsError::Fenced) => {
                        return Err(Failed { error, without_effect: !missed && !missed_before });
                    }
                    // A refusal for damage is stored under the key: no other copy with it is executed. Others may be because a copy was executed, long ago, and its
                    // outcome is forgotten.
                    Err(error) => {
                        let is_first = !missed || error == FsError::Io;
                        return Err(Failed { error, without_effect: is_first && !missed_before });
                    }
                    Ok(_) => return Ok(response),
                },
                Err(FsError::Delay) => missed = true,
                Err(error) => return Err(Failed { error, without_effect: !missed && !missed_before }),
            }
            pause.rest().await;
        }
    }

    /// A key for the frontend's own requests, so that one whose outcome is unknown can be sent again.
    fn own_key(&self, epoch: Epoch) -> OnceKey {
        let n = self.own_requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut client = [0xff; 16];
        client[8..12].copy_from_slice(&self.frontend.0.to_be_bytes());
        client[12..].copy_from_slice(&epoch.0.to_be_bytes());
        OnceKey { client, xid: n as u32, fingerprint: n }
    }

    /// A flush failed for good. The data are kept, and shown, until the verifier has moved.
    ///
    /// `covered` are the requests whose outcomes the flush had taken on. Another life may have begun since the flush did: `epoch` is that of the flush,
    /// and what the file holds of a later one stays.
    pub(super) async fn lose(
        &self,
        file: &File,
        epoch: Epoch,
        error: FsError,
        covered: Vec<Covered>,
        in_room: InRoom,
    ) -> Result<(), FsError> {
        let _room = match in_room {
            InRoom::Yes => None,
            InRoom::No => Some(file.room.enter_first(Kind::Stable).await),
        };
        match error {
            // The file is gone and its data with it: nothing that anybody could miss.
            FsError::Stale => {}
            // Whoever fenced us has moved the verifier.
            FsError::Fenced => self.fenced(epoch).await,
            _ => {
                error!(ino = %file.ino, %error, "UNSTABLE data are lost; clients will be told to send them again");
                let origin = Origin { frontend: self.frontend, epoch };
                let told = self.surely(origin, Op::DataLost { inos: vec![file.ino] }).await;
                match told.map_err(|failed| failed.error) {
                    Ok(_) => {}
                    Err(FsError::Fenced) => self.fenced(epoch).await,
                    Err(refused) => {
                        warn!(ino = %file.ino, %refused, "the loss could not be recorded");
                        // So the verifier does not tell; nor will it move before a restart.
                        self.dirty.refused.add_untold(file.ino, self.meta.verifier());
                    }
                }
                self.dirty.set_lost(file.ino, error);
            }
        }
        covered.iter().for_each(|covered| self.dirty.forget(covered));
        self.forget_dirty(file, epoch);
        Err(error)
    }

    /// Forgets what is dirty about a file, unless it became so in a later life than `epoch`: that was acknowledged with another verifier.
    pub(crate) fn forget_dirty(&self, file: &File, epoch: Epoch) {
        let (room, covered) = {
            let mut state = file.state();
            if state.lease().is_none_or(|lease| lease.epoch > epoch) {
                return;
            }
            state.forget(&self.budget)
        };
        self.dirty.lease_ended();
        self.blocks.release(room);
        covered.iter().for_each(|covered| self.dirty.forget(covered));
    }

    /// Flushes every dirty file, a few at a time. Returns the number of files of which data were lost; a file that is gone has lost nothing.
    pub async fn flush_all(self: &Arc<Self>) -> usize {
        let mut lost = 0;
        let is_lost = |done| usize::from(!matches!(done, Ok(Ok(()) | Err(FsError::Stale))));
        let mut running = tokio::task::JoinSet::new();
        for file in self.dirty.leased() {
            if running.len() >= self.config.flushes
                && let Some(done) = running.join_next().await
            {
                lost += is_lost(done);
            }
            let engine = self.clone();
            running.spawn(async move { engine.flush(&file, InRoom::No).await });
        }
        while let Some(done) = running.join_next().await {
            lost += is_lost(done);
        }
        self.send_touches().await;
        lost
    }

    /// Flushes what is old, and, when memory is short, what is large, until it is not.
    pub(crate) async fn flush_due(self: &Arc<Self>) {
        let mut due: Vec<_> = self
            .dirty
            .leased()
            .into_iter()
            .map(|file| {
                let (since, bytes) = file.state().age().unwrap_or_else(|| (tokio::time::Instant::now(), 0));
                let idle = !file.state().has_fresh();
                (file, since.elapsed(), bytes, idle)
            })
            .collect();
        let due_age = self.config.dirty_age;
        due.sort_by_key(|(_, age, bytes, _)| std::cmp::Reverse((*age >= due_age, *bytes)));
        let mut running = tokio::task::JoinSet::new();
        for (file, age, _, idle) in due {
            if age < due_age && !idle && !self.budget.is_high() {
                continue;
            }
            if running.len() >= self.config.flushes {
                running.join_next().await;
            }
            let engine = self.clone();
            running.spawn(async move {
                // Who is flushing the file may be at a stream's whole blocks for long: what is overdue takes its turn between two of them.
                if age >= due_age * 2 {
                    engine.flush(&file, InRoom::No).await
                } else {
                    engine.flush_if_idle(&file).await
                }
            });
        }
        while running.join_next().await.is_some() {}
    }
}
