//! The backchannel of a session: calls from the server to the client (RFC 8881 §2.10.3, §20.9).
//!
//! Connections that the client bound are kept by weak handles; dead ones are forgotten and another is used. A connection that does not answer
//! in time counts as dead. After a start of this frontend none is bound; of a session that had asked for a backchannel SEQUENCE says so until
//! the client binds one. Otherwise it says so only if something is to be sent.
//!
//! # Slots
//!
//! Their numbers are kept here alone. A slot whose number is not known for sure, because this frontend was started after the session
//! was made or because a call remained without answer, is asked by a CB_SEQUENCE that stands alone: whatever the client says but
//! "misordered", it has then this number. One that is misordered is lost; without any left the channel is at fault, and the client makes a new
//! session (§18.46.3, SEQ4_STATUS_BACKCHANNEL_FAULT). What is sent again after a break of the connection has the same slot and number (§2.10.6.2).

use atoll_meta::nfs4::Session;
use atoll_proto::nfs4::callback::{
    CbArgOp4, CbCompound4Args, CbCompound4Res, CbResOp4, CbSequence4Args, encode_cb_call,
};
use atoll_proto::nfs4::{CbSecParms, CbSecParms4, NfsStat4, SessionId4, Tag, seq_status};
use atoll_proto::rpc::{Accepted, OpaqueAuth, ReplyBody, ReplyHeader};
use atoll_xdr::{Array, Decoder, Encoder};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::rpc::{Connection, ReverseError};

/// Connections of a session that may be used for callbacks; the newest are kept.
const PATHS_MAX: usize = 16;

/// Pause before a callback that the client cannot take now is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// Why a callback has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BackError {
    /// No connection is bound. Nothing was sent.
    #[error("no connection is bound")]
    NoPath,
    /// No answer in time; whether it was executed is not known.
    #[error("no answer in time")]
    Unanswered,
    /// The client does not take the callback, or answered nonsense.
    #[error("refused")]
    Refused,
    /// The channel cannot be used until the client makes a new session.
    #[error("the backchannel is at fault")]
    Fault,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Number of the last call; if not `sure`, the one to ask by.
    seqid: u32,
    sure: bool,
    busy: bool,
    lost: bool,
}

#[derive(Debug)]
struct State {
    program: u32,
    /// `None`: none of those that the client accepts is spoken.
    credential: Option<OpaqueAuth>,
    /// Minor version that the client binds by.
    minor: u32,
    paths: Vec<Connection>,
    slots: Vec<Slot>,
    /// Highest slot that the client wants used.
    highest: u32,
    /// Whether any was bound since this frontend knows the session.
    bound: bool,
    /// Something was to be sent, and there was no path.
    wanted: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Backchannel {
    /// The client asked for one when it made the session.
    asked: bool,
    max_request: usize,
    max_operations: u32,
    state: Mutex<State>,
    slot_free: Notify,
    path_bound: Notify,
}

/// The credential to use, of those that the client accepts (RFC 8881 §18.36.3 `csa_sec_parms`).
pub(crate) fn credential(security: &Bytes) -> Option<OpaqueAuth> {
    let accepted: CbSecParms = Decoder::new(security.clone()).decode().ok()?;
    accepted.iter().find_map(|one| match one {
        CbSecParms4::None => Some(OpaqueAuth::NONE),
        CbSecParms4::Sys(sys) => Some(OpaqueAuth::sys(sys)),
        CbSecParms4::Gss(_) => None,
    })
}

impl Backchannel {
    /// Of a session; one that was made just now has slots at 0.
    pub(crate) fn new(session: &Session, new: bool) -> Self {
        let terms = &session.terms;
        let slot = Slot { seqid: u32::from(!new), sure: new, busy: false, lost: false };
        let slots = terms.back.max_requests.min(super::BACK.max_requests);
        Self {
            asked: terms.backchannel,
            max_request: terms.back.max_request as usize,
            max_operations: terms.back.max_operations,
            state: Mutex::new(State {
                program: terms.callback_program,
                credential: credential(&terms.callback_security),
                minor: 1,
                paths: Vec::new(),
                slots: vec![slot; slots as usize],
                highest: u32::MAX,
                bound: false,
                wanted: false,
            }),
            slot_free: Notify::new(),
            path_bound: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds a connection for callbacks. False if none can be sent: no credential is spoken, or the limits leave no room.
    pub(crate) fn bind(&self, connection: &Connection, minor: u32) -> bool {
        let mut state = self.state();
        // CB_SEQUENCE and one more.
        if state.credential.is_none() || self.max_operations < 2 || state.slots.is_empty() {
            return false;
        }
        state.paths.retain(|path| path.is_open() && !path.is(connection));
        if state.paths.len() >= PATHS_MAX {
            state.paths.remove(0);
        }
        state.paths.push(connection.clone());
        state.minor = minor;
        state.bound = true;
        state.wanted = false;
        drop(state);
        self.path_bound.notify_waiters();
        true
    }

    /// BACKCHANNEL_CTL.
    pub(crate) fn set(&self, program: u32, credential: Option<OpaqueAuth>) {
        let mut state = self.state();
        state.program = program;
        state.credential = credential;
    }

    /// Whether the client asked for a backchannel when it made the session.
    pub(crate) fn was_asked_for(&self) -> bool {
        self.asked
    }

    /// Whether a callback could be sent now.
    pub(crate) fn has_path(&self) -> bool {
        let state = self.state();
        state.credential.is_some()
            && state.slots.iter().any(|slot| !slot.lost)
            && state.paths.iter().any(Connection::is_open)
    }

    /// Notes that something is to be sent, so that the client learns if there is no path.
    pub(crate) fn want(&self) {
        self.state().wanted = true;
    }

    /// What SEQUENCE says of it (`SEQ4_STATUS_*`).
    pub(crate) fn status_flags(&self) -> u32 {
        let state = self.state();
        if !state.slots.is_empty() && state.slots.iter().all(|slot| slot.lost) {
            return seq_status::BACKCHANNEL_FAULT;
        }
        let missed = state.wanted || self.asked && !state.bound;
        if missed && state.credential.is_some() && !state.paths.iter().any(Connection::is_open) {
            return seq_status::CB_PATH_DOWN_SESSION;
        }
        0
    }

    fn path(&self) -> Option<Connection> {
        let mut state = self.state();
        state.paths.retain(Connection::is_open);
        let newest = state.paths.last().cloned();
        state.wanted |= newest.is_none();
        newest
    }

    fn forget(&self, path: &Connection) {
        let mut state = self.state();
        state.paths.retain(|other| !other.is(path));
        state.wanted |= state.paths.is_empty();
    }

    /// Sends one operation and returns its result, which is RETRY_UNCACHED_REP if it was executed and its result is lost.
    pub(crate) async fn call(
        &self,
        session: SessionId4,
        op: CbArgOp4,
        patience: Duration,
    ) -> Result<CbResOp4, BackError> {
        let deadline = Instant::now() + patience;
        if self.path().is_none() {
            return Err(BackError::NoPath);
        }
        let mut slot = loop {
            let mut slot = timeout_at(deadline, self.slot()).await.map_err(|_| BackError::Unanswered)??;
            if slot.slot.sure {
                break slot;
            }
            // Alone, so nothing is executed twice or left out.
            let seqid = slot.slot.seqid;
            match self.exchange(&mut slot, session, seqid, None, deadline).await {
                Ok(_) => break slot,
                // Another may do.
                Err(_) if slot.slot.lost => {}
                Err(error) => return Err(error),
            }
        };
        let seqid = slot.slot.seqid.wrapping_add(1);
        let done = self.exchange(&mut slot, session, seqid, Some(op), deadline).await?;
        done.ok_or(BackError::Refused)
    }

    /// The next slot: the lowest whose number is known, else one of the others from the top, which are the least used.
    async fn slot(&self) -> Result<Taken<'_>, BackError> {
        loop {
            let freed = self.slot_free.notified();
            {
                let mut state = self.state();
                let most = (state.highest as usize).saturating_add(1).max(1);
                let usable = |slot: &Slot| !slot.busy && !slot.lost;
                let within = &state.slots[..state.slots.len().min(most)];
                let known = within.iter().position(|slot| usable(slot) && slot.sure);
                let index = known.or_else(|| within.iter().rposition(usable));
                if let Some(index) = index {
                    state.slots[index].busy = true;
                    return Ok(Taken { back: self, index, slot: state.slots[index] });
                }
                if within.iter().all(|slot| slot.lost) {
                    state.slots.iter_mut().for_each(|slot| slot.lost = true);
                    return Err(BackError::Fault);
                }
            }
            freed.await;
        }
    }

    /// Sends a CB_COMPOUND until it is answered: CB_SEQUENCE, and `op` if given, whose result is returned.
    async fn exchange(
        &self,
        slot: &mut Taken<'_>,
        session: SessionId4,
        seqid: u32,
        op: Option<CbArgOp4>,
        deadline: Instant,
    ) -> Result<Option<CbResOp4>, BackError> {
        let sequence = CbSequence4Args {
            sessionid: session,
            sequenceid: seqid,
            slotid: u32::try_from(slot.index).unwrap_or(u32::MAX),
            highest_slotid: self.highest_busy(),
            cachethis: false,
            referring_call_lists: Array::default(),
        };
        let ops: Vec<_> = [CbArgOp4::Sequence(sequence)].into_iter().chain(op).collect();
        let Ok(ops) = Array::new(ops) else { return Err(BackError::Refused) };
        let mut sent = false;
        loop {
            let bound = self.path_bound.notified();
            let Some(path) = self.path() else {
                if !sent {
                    return Err(BackError::NoPath);
                }
                timeout_at(deadline, bound).await.map_err(|_| BackError::Unanswered)?;
                continue;
            };
            let (program, minor, credential) = {
                let state = self.state();
                (state.program, state.minor, state.credential.clone().ok_or(BackError::Refused)?)
            };
            let args = CbCompound4Args {
                tag: Tag::default(),
                minorversion: minor,
                callback_ident: 0,
                ops: ops.clone(),
            };
            let mut size = Encoder::new();
            encode_cb_call(&mut size, 0, program, credential.clone(), &args);
            if size.len() > self.max_request {
                return Err(BackError::Refused);
            }
            slot.slot.seqid = seqid;
            slot.slot.sure = false;
            let call = path.call(|xid| {
                let mut e = Encoder::new();
                encode_cb_call(&mut e, xid, program, credential, &args);
                e
            });
            let reply = match timeout_at(deadline, call).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(ReverseError::Closed)) => {
                    sent = true;
                    self.forget(&path);
                    continue;
                }
                Ok(Err(ReverseError::Busy)) => {
                    timeout_at(deadline, sleep(RETRY)).await.map_err(|_| BackError::Unanswered)?;
                    continue;
                }
                Ok(Err(ReverseError::TooLong)) => return Err(BackError::Refused),
                Err(_) => {
                    self.forget(&path);
                    return Err(BackError::Unanswered);
                }
            };
            sent = true;
            match self.read(slot, session, reply)? {
                Answered::Later => {
                    timeout_at(deadline, sleep(RETRY)).await.map_err(|_| BackError::Unanswered)?;
                }
                Answered::Done(result) => return Ok(result),
            }
        }
    }

    fn highest_busy(&self) -> u32 {
        let highest = self.state().slots.iter().rposition(|slot| slot.busy);
        highest.and_then(|index| u32::try_from(index).ok()).unwrap_or(0)
    }

    fn read(&self, slot: &mut Taken<'_>, session: SessionId4, reply: Bytes) -> Result<Answered, BackError> {
        let mut d = Decoder::new(reply);
        let header: ReplyHeader = d.decode().map_err(|_| BackError::Refused)?;
        let ReplyBody::Accepted { stat: Accepted::Success, .. } = header.body else {
            tracing::debug!(?header, "a client refuses callbacks");
            return Err(BackError::Refused);
        };
        let res: CbCompound4Res = d.decode().map_err(|_| BackError::Refused)?;
        let mut results = res.ops.into_vec().into_iter();
        match results.next() {
            Some(CbResOp4::Sequence(Ok(ok)))
                if ok.sessionid == session && ok.sequenceid == slot.slot.seqid =>
            {
                slot.slot.sure = true;
                self.state().highest = ok.target_highest_slotid;
                Ok(Answered::Done(results.next()))
            }
            Some(CbResOp4::Sequence(Err(status))) => match status {
                NfsStat4::Delay => Ok(Answered::Later),
                // Both say that the slot's last number is this one.
                NfsStat4::RetryUncachedRep | NfsStat4::SeqFalseRetry => {
                    slot.slot.sure = true;
                    Ok(Answered::Done(None))
                }
                NfsStat4::SeqMisordered | NfsStat4::BadSlot => {
                    slot.slot.lost = true;
                    Err(BackError::Refused)
                }
                NfsStat4::BadSession => Err(BackError::Fault),
                _ => Err(BackError::Refused),
            },
            _ => Err(BackError::Refused),
        }
    }
}

enum Answered {
    /// The result behind CB_SEQUENCE, if there is one.
    Done(Option<CbResOp4>),
    /// The client wants to be asked again.
    Later,
}

/// A slot in use.
struct Taken<'a> {
    back: &'a Backchannel,
    index: usize,
    slot: Slot,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.back.state().slots.get_mut(self.index) {
            *slot = Slot { busy: false, ..self.slot };
        }
        self.back.slot_free.notify_one();
    }
}
