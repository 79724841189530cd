//! Stable writing: blocks first, then the command that points at them.

use crate::engine::dirty::plan::plan;
use crate::engine::dirty::{InRoom, Taken, UnstableWrite};
use crate::engine::resolve::Node;
use crate::engine::v4::delegations::Intent;
use crate::engine::{Engine, Interrupt, Met, Refused, status};
use atoll_base::access::{Cred, may_write};
use atoll_base::attr::FileKind;
use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::id::Ino;
use atoll_base::limits::INLINE_WRITE_MAX;
use atoll_base::seldom::Seldom;
use atoll_meta::delegation::Intrusion;
use atoll_meta::nfs4::{ClientId, StateError};
use atoll_meta::once::Once;
use atoll_meta::{Call, Change, FsError, MetadataService, OnceKey, Op, Outcome, Response};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A client whose writes are refused goes on trying, as fast as it can.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is told of data that could not be stored: a full disk does not hide a sick one.
#[derive(Debug)]
pub(crate) struct Refusals {
    full: Seldom,
    failed: Seldom,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { full: Seldom::new(TELL_EVERY), failed: Seldom::new(TELL_EVERY) }
    }
}

impl Refusals {
    /// Tells the administrator that data for `ino` were refused, unless that was just told of others.
    fn tell(&self, ino: Ino, error: &BlockError) {
        let now = Instant::now().into_std();
        if matches!(error, BlockError::NoSpace) {
            if let Some(suppressed) = self.full.at(now) {
                tracing::error!(%ino, suppressed, "the disk is full: WRITEs are refused until files are removed");
            }
        } else if let Some(suppressed) = self.failed.at(now) {
            tracing::error!(%ino, suppressed, %error, "data could not be stored");
        }
    }
}

/// What a stable operation replaces, if that is told by the operation alone. (What is cut off, the file's size tells.)
fn overwrites(op: &Op) -> Option<(Ino, Range<u64>)> {
    match op {
        Op::Write { ino, pieces, flush: None, .. } => {
            let connected = pieces.windows(2).all(|two| two[0].end() == two[1].offset);
            let (first, last) = (pieces.first()?, pieces.last()?);
            connected.then(|| (*ino, first.offset..last.end()))
        }
        Op::Punch { ino, offset, len, .. } => Some((*ino, *offset..offset.saturating_add(*len))),
        Op::Clone { to, to_offset, len, partial: false, .. } if *len > 0 => {
            Some((*to, *to_offset..to_offset.saturating_add(*len)))
        }
        _ => None,
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// A WRITE without bytes checks permission and changes nothing, not even times.
    pub(crate) async fn write_nothing(&self, node: &Node, cred: &Cred) -> Result<Arc<Response>, Refused> {
        let verifier = self.meta.verifier();
        let attr = self.node_attr(node).await?;
        let result = match attr.kind {
            FileKind::Regular if cred.uid == attr.uid || may_write(cred, &attr, u64::MAX) => {
                Ok(Outcome::Written { verifier })
            }
            FileKind::Regular => Err(FsError::AccessDenied),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        };
        Ok(Arc::new(Response { result, changes: vec![Change { before: attr.before(), after: attr }] }))
    }

    /// Takes UNSTABLE data, or writes through what is too little to be worth a lease. Of data in the dirty map an outcome is kept that is
    /// known by the request; what a session's slot needs, the frontend has.
    pub(crate) async fn write_unstable(
        self: &Arc<Self>,
        node: &Node,
        cred: &Cred,
        client: Option<ClientId>,
        offset: u64,
        data: Bytes,
        once: Once,
    ) -> Result<Arc<Response>, Refused> {
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let stream = self.recent.note(ino, self.meta.now().secs);
        let through = !stream && data.len() <= INLINE_WRITE_MAX && !self.dirty.is_leased(ino);
        if !through {
            let key = match &once {
                Once::Request(key) => Some(*key),
                Once::Slot(_) | Once::Owner(_) => None,
            };
            let write = UnstableWrite { ino, generation, cred, client, offset, data: &data, key };
            match self.take_unstable(write).await? {
                Taken::Settled(response) if response.result == Err(FsError::State(StateError::Delegated)) => {
                    let met = Met::new(ino, Intrusion::Change);
                    return Err(Refused::Interrupt(Interrupt::Delegated(met)));
                }
                Taken::Settled(response) => return Ok(response),
                Taken::WriteThrough => {}
            }
        }
        self.write_stable(ino, generation, cred, client, offset, data, once).await.map(Arc::new)
    }

    /// Makes all UNSTABLE data of a file stable, and returns the write verifier. An error if some were lost, or some of the range refused. A `count`
    /// of 0 is all from `offset` on (RFC 1813 §3.3.21, RFC 8881 §18.3.3).
    pub(crate) async fn commit_file(&self, ino: Ino, offset: u64, count: u32) -> Result<u64, FsError> {
        // The whole file is flushed, whatever the range: more than asked is allowed.
        let flushed = match self.dirty.pin_leased(ino) {
            Some(file) => Box::pin(self.flush(&file, InRoom::No)).await,
            None => Ok(()),
        };
        let lost = self.dirty.take_lost(ino);
        if let Some(e) = flushed.err().filter(|e| *e != FsError::Stale).or(lost) {
            return Err(e);
        }
        let end = if count == 0 { u64::MAX } else { offset.saturating_add(count.into()) };
        // The verifier is read after the flush: whatever was lost until now has moved it, or was refused.
        self.dirty.refused.committed(ino, &(offset..end), || self.meta.verifier()).ok_or(FsError::Io)
    }

    /// Writes through to stable storage on the caller's behalf.
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn write_stable(
        &self,
        ino: Ino,
        generation: u32,
        cred: &Cred,
        client: Option<ClientId>,
        offset: u64,
        data: Bytes,
        once: Once,
    ) -> Result<Response, Refused> {
        let _settled = self.settle(ino).await;
        let origin = self.origin().await;
        let mut plan = plan([(offset, data)]);
        let batch = plan.next(|| BlockId::new(origin.epoch, self.next_block()));
        assert!(!plan.has_more(), "one WRITE is below the size of a batch");
        let ids: Vec<BlockId> = batch.blocks.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            // The state machine checks again; here it keeps those who may not write from filling the disk.
            let attr = self.attr(ino).await?;
            if cred.uid != attr.uid && !may_write(cred, &attr, offset) {
                let change = Change { before: attr.before(), after: attr };
                return Ok(Response { result: Err(FsError::AccessDenied), changes: vec![change] });
            }
            // Reserving keeps this write out of the room that UNSTABLE data were promised.
            let stored = match self.blocks.reserve(batch.bytes) {
                Ok(()) => {
                    let stored = self.blocks.put_parts(batch.blocks).await;
                    self.blocks.release(batch.bytes);
                    stored
                }
                Err(e) => Err(e),
            };
            if let Err(e) = stored {
                self.refusals.tell(ino, &e);
                let change = Change { before: attr.before(), after: attr };
                return Ok(Response { result: Err(status::of_blocks(&e)), changes: vec![change] });
            }
        }
        let op = Op::Write { ino, generation, pieces: batch.pieces, flush: None };
        let call = Box::new(Call { origin: Some(origin), once: Some(once), cred: cred.clone(), client, op });
        let mut missed = false;
        let answer = self.execute_noting(call, &mut missed).await;
        let is_refused = match &answer {
            Ok(response) => response.result.is_err(),
            Err(Refused::Status(_) | Refused::Interrupt(Interrupt::Delegated(_))) => true,
            Err(Refused::Interrupt(_)) => false,
        };
        // If an answer was missed, a copy of the command may be in the log, and point at the blocks when it is read again.
        if is_refused && !missed && !ids.is_empty() {
            // Nothing points at the blocks. If this fails, or is not done, the collector finds them after the next start.
            let _collected_later = self.blocks.delete(ids).await;
        }
        answer
    }

    /// Runs an operation of a version-3 request.
    pub(crate) async fn execute_request(
        &self,
        key: OnceKey,
        cred: Cred,
        op: Op,
    ) -> Result<Response, Refused> {
        let origin = Some(self.origin().await);
        self.execute_known(Box::new(Call { origin, once: Some(key.into()), cred, client: None, op })).await
    }

    /// Runs a call that carries a client's key. If its outcome cannot be known, the client gets no answer: it sends
    /// the request again and gets the outcome then.
    pub(crate) async fn execute_known(&self, call: Box<Call>) -> Result<Response, Refused> {
        self.execute_noting(call, &mut false).await
    }

    /// The same, noting whether an answer was missed ([`Self::execute_repeatable`]).
    async fn execute_noting(&self, call: Box<Call>, missed: &mut bool) -> Result<Response, Refused> {
        let (intended, client) = (Intent::of(&call.op), call.client);
        let written = if self.dirty.refused.any() { overwrites(&call.op) } else { None };
        match self.execute_repeatable(call, missed).await {
            Ok(response) => {
                if response.result == Err(FsError::State(StateError::Delegated)) {
                    let met = Box::pin(self.met(intended, client, &response)).await;
                    return Err(Refused::Interrupt(Interrupt::Delegated(met)));
                }
                if let Some((ino, range)) = written.filter(|_| response.result.is_ok()) {
                    self.dirty.refused.overwritten(ino, &range);
                }
                self.note_changes(&response);
                Ok(response)
            }
            Err(FsError::Delay) => Err(Refused::Interrupt(Interrupt::Drop)),
            Err(e) => Err(Refused::Status(status::of(e))),
        }
    }
}
