//! Calls on their way to the log: which may be proposed, what is proposed instead, and their commands.

use super::machine::takes_space;
use super::proposer::answered;
use super::shared::{Shared, unreadable};
use atoll_base::leave;
use atoll_meta::once::Once;
use atoll_meta::service::Aside;
use atoll_meta::{Call, FsError, Op, Response};
use atoll_model::read::{self, Unreadable};
use atoll_model::{Command, KvError};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What one call rewrites in the state's file beside its own bytes, which count twice since pages are half full at worst: a
/// few pages, of which calls flushed together share most.
const PAGES_PER_CALL: u64 = 16 << 10;

/// The largest command that is written on its caller's thread: a WRITE of the largest size that rides in the log, and what belongs to it.
const HERE_BYTES: usize = 128 << 10;

/// A disk that took longer for its last sync is not waited for on a caller's thread.
const QUICK_SYNC: Duration = Duration::from_millis(1);

impl Shared {
    pub(super) fn execute(&self, call: &Call) -> impl Future<Output = Result<Response, FsError>> + use<> {
        // Encoded before anybody waits, so that the future holds no call.
        let ready = match self.has_bytes(call) {
            Ok(true) => self.encoded(call),
            Ok(false) => self.refusal(call),
            Err(error) => Err(error),
        };
        let answer = ready.and_then(|command| {
            let here = self.may_wait_here(command.len());
            self.proposer.submit(command, here)
        });
        async { answered(answer?).await }
    }

    /// Whether a caller with leave to wait may do so for a command of so many bytes: there is nothing else to wait for than one quick sync. Not other members, nor
    /// the flush of the state, for which batches wait when it does not keep up.
    fn may_wait_here(&self, bytes: usize) -> bool {
        leave::is_given()
            && bytes <= HERE_BYTES
            && self.group.reads_locally()
            && self.log.last_sync() <= QUICK_SYNC
            && self.store.keeps_up()
    }

    /// Has a call run that nobody waits for.
    pub(super) fn execute_aside(&self, call: &Call, done: Aside) -> Result<(), FsError> {
        self.proposer.submit_aside(self.encoded(call)?, done)
    }

    /// Whether a call may be proposed, or else is refused because it needs stored bytes which cannot be read here. From the log each member that finds them damaged would lose
    /// them for good, and one that fails to read them would stop; refused before, the call alone fails. Only who leads is asked: what others have, they look at when they lead.
    ///
    /// A repetition of what was executed before the bytes were damaged needs none of them: the state machine answers what it answered then.
    ///
    /// # Errors
    /// Not even that can be read. Nothing of the call may come into the log.
    fn has_bytes(&self, call: &Call) -> Result<bool, FsError> {
        if !read::may_need_bytes(&call.op, |ino| self.published.cached_attr(ino)) || !self.group.leads() {
            return Ok(true);
        }
        let current = self.published.current();
        let Err(Unreadable { ino, error }) = read::needed(current.view.reader(), &call.op) else {
            return Ok(true);
        };
        if self.is_answered(call.once.as_ref()).map_err(|error| unreadable(&error))? {
            return Ok(true);
        }
        if let Some(suppressed) = self.told_damage.at(Instant::now()) {
            tracing::error!(%ino, %error, suppressed, "a change of a damaged file is refused; `atoll fsck` tells its path");
        }
        Ok(false)
    }

    /// What is proposed instead of a refused call. A delayed duplicate must not be executed later either, when the bytes are whole again or were
    /// written over: so its key gets the refusal as its outcome.
    fn refusal(&self, call: &Call) -> Result<Bytes, FsError> {
        let error = FsError::Io;
        // Steps of owners need no bytes.
        let Some(once @ (Once::Request(_) | Once::Slot(_))) = &call.once else { return Err(error) };
        let Call { origin, cred, client, .. } = call;
        let (origin, once, client) = (*origin, Some(once.clone()), *client);
        self.encoded(&Call { origin, once, cred: cred.clone(), client, op: Op::Refused(error) })
    }

    /// Whether the outcome of a call, or of a later part of its request, is stored, so that it is not executed any more.
    fn is_answered(&self, once: Option<&Once>) -> Result<bool, KvError> {
        match once {
            Some(Once::Request(key)) => Ok(self.published.outcome(key)?.is_some()),
            Some(Once::Slot(key)) => {
                let current = self.published.current();
                let kept = read::slot(current.view.reader(), key.session, key.slot)?.ok().flatten();
                Ok(kept.is_some_and(|kept| kept.seqid == key.seqid && kept.index >= key.index))
            }
            Some(Once::Owner(_)) | None => Ok(false),
        }
    }

    /// The command of a call that may be proposed.
    fn encoded(&self, call: &Call) -> Result<Bytes, FsError> {
        if takes_space(&call.op) && self.is_low_on_space() {
            self.refused_for_space.fetch_add(1, Ordering::Relaxed);
            return Err(FsError::NoSpace);
        }
        if self.log.failed().is_some() {
            self.proposer.fail();
        }
        // No command may come before the genesis in the log; once that is applied here, it cannot.
        if !self.published.is_founded() {
            return Err(FsError::Delay);
        }
        let encoded = Command::encode_call(self.stamp(), call);
        self.taken_since_measured.fetch_add(encoded.len() as u64, Ordering::Relaxed);
        self.pending.fetch_add(2 * encoded.len() as u64 + PAGES_PER_CALL, Ordering::Relaxed);
        Ok(encoded)
    }

    fn is_low_on_space(&self) -> bool {
        self.low_space.load(Ordering::Relaxed)
            || self.pending.load(Ordering::Relaxed) >= self.room.load(Ordering::Relaxed)
            || self.log.low_space()
    }
}
