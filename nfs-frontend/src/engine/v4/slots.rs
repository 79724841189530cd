//! Sessions and their slots as this frontend has them (RFC 8881 §2.10.6).
//!
//! A slot's sequence of numbers and its last reply are kept here; the outcome of its last *modifying* request is in the replicated
//! state too. After a start nothing is here: a slot then takes its beginning from the stored outcome, accepts as its first number
//! any that is not below, and from then on exactly the next one.
//!
//! Replies are kept within a bound over all sessions. One that found no room is made again from the stored outcome, if the
//! request changed something; otherwise the client is told that it is not kept.
//!
//! Invariant: of one slot at most one request runs. A request that is given up before it changed anything leaves the slot as it
//! was, so that its retransmission is executed.

use super::back::Backchannel;
use atoll_meta::nfs4::{ClientId, Session, SessionId};
use atoll_meta::once::SlotOutcome;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sessions kept here, of some KiB each; one that was forgotten is read again from the replicated state, and its slots begin anew.
const SESSIONS_MAX: usize = 1 << 14;

/// Bytes of replies that all slots keep together.
const KEPT_MAX: usize = 64 << 20;

/// Bytes of a reply that is kept, and what is left of the bound for all.
#[derive(Debug)]
struct Kept {
    reply: Bytes,
    room: Arc<AtomicUsize>,
}

impl Kept {
    /// Keeps a reply, if there is room.
    fn new(reply: Bytes, room: &Arc<AtomicUsize>) -> Option<Self> {
        let len = reply.len();
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(len)).ok()?;
        Some(Self { reply, room: room.clone() })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.fetch_add(self.reply.len(), Ordering::Relaxed);
    }
}

/// The last request of a slot.
#[derive(Debug, Default)]
struct Last {
    fingerprint: u64,
    /// The whole reply, if it is kept.
    reply: Option<Kept>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Number of the last request; unknown since the start of this frontend, before the first.
    seqid: Option<u32>,
    busy: bool,
    last: Last,
}

/// A session in use.
#[derive(Debug)]
pub(crate) struct Active {
    /// What was agreed.
    pub(crate) session: Session,
    /// Calls to the client.
    pub(crate) back: Backchannel,
    slots: Mutex<Vec<Slot>>,
    room: Arc<AtomicUsize>,
    /// That it is there was seen when so many clients and sessions had ended ([`atoll_meta::MetadataService::ended`]).
    seen: AtomicU64,
    /// Whether the client is known to have sent RECLAIM_COMPLETE, which cannot be taken back.
    reclaimed: AtomicBool,
}

/// Why a request is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// NFS4ERR_BADSLOT
    BadSlot,
    /// NFS4ERR_SEQ_MISORDERED
    Misordered,
    /// NFS4ERR_SEQ_FALSE_RETRY
    FalseRetry,
    /// NFS4ERR_DELAY: it is being executed.
    InProgress,
}

/// What to do with a request.
pub(crate) enum Begun {
    /// Execute it.
    Fresh(Turn),
    /// Answer with this reply: it was executed before.
    Replay(Bytes),
    /// It was executed before, and its reply is not kept (NFS4ERR_RETRY_UNCACHED_REP).
    Uncached,
    /// It was executed, at least up to the operation of the stored outcome, before this frontend knew the slot.
    Resume(Turn, Box<SlotOutcome>),
    /// What the replicated state keeps of the slot must be read first.
    Unknown,
}

impl Active {
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session was found, the number of ends having been asked before.
    pub(crate) fn saw(&self, ended: u64) {
        self.seen.store(ended, Ordering::Relaxed);
    }

    /// Whether its client has sent RECLAIM_COMPLETE, as far as this frontend knows.
    pub(crate) fn has_reclaimed(&self) -> bool {
        self.reclaimed.load(Ordering::Relaxed)
    }

    /// Its client has sent RECLAIM_COMPLETE.
    pub(crate) fn reclaimed(&self) {
        self.reclaimed.store(true, Ordering::Relaxed);
    }

    /// How many slots there are.
    pub(crate) fn slot_count(&self) -> u32 {
        self.session.terms.fore.max_requests
    }

    /// Begins a request. `stored` is what the replicated state keeps of the slot, if that was asked.
    pub(crate) fn begin(
        self: &Arc<Self>,
        slot: u32,
        seqid: u32,
        fingerprint: u64,
        stored: Option<Option<SlotOutcome>>,
    ) -> Result<Begun, Refusal> {
        let mut slots = self.slots();
        let index = slot as usize;
        let record = slots.get_mut(index).ok_or(Refusal::BadSlot)?;
        let Some(last) = record.seqid else {
            let Some(stored) = stored else { return Ok(Begun::Unknown) };
            if record.busy {
                return Err(Refusal::InProgress);
            }
            let Some(stored) = stored else {
                return Ok(Begun::Fresh(self.turn(record, index, seqid, fingerprint)));
            };
            if seqid == stored.seqid {
                if fingerprint != stored.fingerprint {
                    return Err(Refusal::FalseRetry);
                }
                return Ok(Begun::Resume(self.turn(record, index, seqid, fingerprint), Box::new(stored)));
            }
            // Numbers wrap around: below is what is less than half of the circle behind.
            if (seqid.wrapping_sub(stored.seqid) as i32) < 0 {
                return Err(Refusal::Misordered);
            }
            return Ok(Begun::Fresh(self.turn(record, index, seqid, fingerprint)));
        };
        if seqid == last {
            return match &record.last {
                _ if record.busy => Err(Refusal::InProgress),
                kept if kept.fingerprint != fingerprint => Err(Refusal::FalseRetry),
                Last { reply: Some(kept), .. } => Ok(Begun::Replay(kept.reply.clone())),
                Last { reply: None, .. } => match stored {
                    None => Ok(Begun::Unknown),
                    Some(Some(stored)) if stored.seqid == seqid && stored.fingerprint == fingerprint => {
                        Ok(Begun::Resume(self.turn(record, index, seqid, fingerprint), Box::new(stored)))
                    }
                    Some(_) => Ok(Begun::Uncached),
                },
            };
        }
        if seqid != last.wrapping_add(1) {
            return Err(Refusal::Misordered);
        }
        if record.busy {
            return Err(Refusal::InProgress);
        }
        Ok(Begun::Fresh(self.turn(record, index, seqid, fingerprint)))
    }

    fn turn(self: &Arc<Self>, slot: &mut Slot, index: usize, seqid: u32, fingerprint: u64) -> Turn {
        slot.busy = true;
        let former = slot.seqid.replace(seqid);
        let last = std::mem::replace(&mut slot.last, Last { fingerprint, reply: None });
        Turn { session: self.clone(), index, former: Some((former, last)) }
    }
}

/// The right to execute a request on its slot.
#[derive(Debug)]
pub(crate) struct Turn {
    session: Arc<Active>,
    index: usize,
    /// What the slot goes back to if the request is given up.
    former: Option<(Option<u32>, Last)>,
}

impl Turn {
    /// The session.
    pub(crate) fn session(&self) -> &Arc<Active> {
        &self.session
    }

    /// Ends the request; `reply` is kept for a retransmission.
    pub(crate) fn finish(mut self, reply: Option<Bytes>) {
        self.former = None;
        let mut slots = self.session.slots();
        if let Some(slot) = slots.get_mut(self.index) {
            slot.busy = false;
            slot.last.reply = reply.and_then(|reply| Kept::new(reply, &self.session.room));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((seqid, last)) = self.former.take() else { return };
        let mut slots = self.session.slots();
        if let Some(slot) = slots.get_mut(self.index) {
            *slot = Slot { seqid, busy: false, last };
        }
    }
}

/// All sessions in use at this frontend.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<SessionId, Arc<Active>>>,
    room: Arc<AtomicUsize>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { all: Mutex::default(), room: Arc::new(AtomicUsize::new(KEPT_MAX)) }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Active>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session in. One that was made just now has slots at 0; of others they are unknown.
    pub(crate) fn enter(&self, session: Session, new: bool) -> Arc<Active> {
        let mut all = self.lock();
        if let Some(known) = all.get(&session.id) {
            return known.clone();
        }
        if all.len() >= SESSIONS_MAX {
            // Those without a request in progress can be read again.
            all.retain(|_, active| Arc::strong_count(active) > 1);
        }
        let slot = || Slot { seqid: new.then_some(0), ..Slot::default() };
        let slots = (0..session.terms.fore.max_requests).map(|_| slot()).collect();
        let back = Backchannel::new(&session, new);
        let active = Arc::new(Active {
            session,
            back,
            slots: Mutex::new(slots),
            room: self.room.clone(),
            seen: AtomicU64::new(u64::MAX),
            reclaimed: AtomicBool::new(false),
        });
        all.insert(active.session.id, active.clone());
        active
    }

    /// A session that is there for certain, if no client or session has ended since it was seen last.
    pub(crate) fn seen(&self, id: SessionId, ended: u64) -> Option<Arc<Active>> {
        self.lock().get(&id).filter(|active| active.seen.load(Ordering::Relaxed) == ended).cloned()
    }

    /// Whether any session of a client has a path for callbacks.
    pub(crate) fn any_path(&self, client: ClientId) -> bool {
        self.lock().values().any(|active| active.session.client == client && active.back.has_path())
    }

    /// Forgets a session that is gone.
    pub(crate) fn remove(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    /// Forgets all sessions of a client that is gone.
    pub(crate) fn remove_all(&self, client: ClientId) {
        self.lock().retain(|_, active| active.session.client != client);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_meta::Response;
    use atoll_meta::nfs4::{ChannelLimits, SessionTerms};

    fn session(new: bool) -> Arc<Active> {
        let limits = ChannelLimits {
            header_pad: 0,
            max_request: 1,
            max_response: 1,
            max_response_cached: 1,
            max_operations: 1,
            max_requests: 2,
        };
        let terms = SessionTerms {
            fore: limits,
            back: limits,
            persist: true,
            backchannel: false,
            callback_program: 0,
            callback_security: Bytes::new(),
        };
        Sessions::default().enter(Session { id: SessionId(1), client: ClientId(1), terms }, new)
    }

    fn turn(begun: Result<Begun, Refusal>) -> Turn {
        match begun {
            Ok(Begun::Fresh(turn)) => turn,
            _ => panic!("not fresh"),
        }
    }

    fn stored(seqid: u32) -> SlotOutcome {
        let response = Response::refused(atoll_meta::FsError::Io);
        SlotOutcome { seqid, fingerprint: 7, index: 1, before: Bytes::new(), response }
    }

    #[test]
    fn a_new_session_counts_from_one() {
        let s = session(true);
        assert_eq!(s.begin(2, 1, 0, None).err(), Some(Refusal::BadSlot));
        assert_eq!(s.begin(0, 2, 0, None).err(), Some(Refusal::Misordered));
        let first = turn(s.begin(0, 1, 9, None));
        assert_eq!(s.begin(0, 1, 9, None).err(), Some(Refusal::InProgress));
        first.finish(Some(Bytes::from_static(b"r")));
        assert!(matches!(s.begin(0, 1, 9, None), Ok(Begun::Replay(r)) if r == "r"));
        assert_eq!(s.begin(0, 1, 8, None).err(), Some(Refusal::FalseRetry));
        turn(s.begin(0, 2, 5, None)).finish(None);
        assert!(matches!(s.begin(0, 2, 5, None), Ok(Begun::Unknown)));
        assert!(matches!(s.begin(0, 2, 5, Some(None)), Ok(Begun::Uncached)));
        assert!(matches!(s.begin(0, 2, 5, Some(Some(stored(1)))), Ok(Begun::Uncached)));
        assert_eq!(s.begin(0, 1, 9, None).err(), Some(Refusal::Misordered));
        // The other slot has its own sequence.
        turn(s.begin(1, 1, 9, None)).finish(None);
    }

    #[test]
    fn a_request_that_was_given_up_is_executed_when_it_comes_again() {
        let s = session(true);
        turn(s.begin(0, 1, 9, None)).finish(Some(Bytes::from_static(b"r")));
        drop(turn(s.begin(0, 2, 5, None)));
        assert!(matches!(s.begin(0, 1, 9, None), Ok(Begun::Replay(_))));
        turn(s.begin(0, 2, 5, None)).finish(None);
    }

    #[test]
    fn a_reply_that_found_no_room_is_made_again_from_the_stored_outcome() {
        let s = session(true);
        s.room.store(3, Ordering::Relaxed);
        turn(s.begin(0, 1, 7, None)).finish(Some(Bytes::from_static(b"long")));
        assert!(matches!(s.begin(0, 1, 7, None), Ok(Begun::Unknown)));
        assert!(matches!(s.begin(0, 1, 7, Some(Some(stored(1)))), Ok(Begun::Resume(..))));
        turn(s.begin(0, 2, 7, None)).finish(Some(Bytes::from_static(b"r")));
        assert_eq!(s.room.load(Ordering::Relaxed), 2);
        turn(s.begin(0, 3, 7, None)).finish(None);
        assert_eq!(s.room.load(Ordering::Relaxed), 3, "given back with the next request");
    }

    #[test]
    fn after_a_start_a_slot_begins_where_the_state_says() {
        let s = session(false);
        assert!(matches!(s.begin(0, 5, 7, None), Ok(Begun::Unknown)));
        assert_eq!(s.begin(0, 4, 7, Some(Some(stored(5)))).err(), Some(Refusal::Misordered));
        assert_eq!(s.begin(0, 5, 8, Some(Some(stored(5)))).err(), Some(Refusal::FalseRetry));
        match s.begin(0, 5, 7, Some(Some(stored(5)))) {
            Ok(Begun::Resume(turn, outcome)) => {
                assert_eq!(outcome.seqid, 5);
                turn.finish(Some(Bytes::from_static(b"r")));
            }
            _ => panic!("not resumed"),
        }
        assert!(matches!(s.begin(0, 5, 7, None), Ok(Begun::Replay(_))));
        turn(s.begin(0, 6, 7, None)).finish(None);
        // Requests that changed nothing left no record: a later number is accepted once.
        turn(s.begin(1, 1000, 7, Some(Some(stored(5))))).finish(None);
        assert_eq!(s.begin(1, 1002, 7, None).err(), Some(Refusal::Misordered));
    }

    #[test]
    fn numbers_wrap_around() {
        let s = session(false);
        turn(s.begin(0, 1, 7, Some(Some(stored(u32::MAX))))).finish(None);
        let t = session(false);
        turn(t.begin(0, u32::MAX, 7, Some(None))).finish(None);
        turn(t.begin(0, 0, 7, None)).finish(None);
    }
}
