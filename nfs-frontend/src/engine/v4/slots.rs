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
//!
//! # Fewer slots, and more again
//!
//! A session may use as many of its slots as its share is ([`super::shares`]): its *target*, which every SEQUENCE tells. When the target falls, what is kept
//! for the slots above stays until the client has shown that it has let go of them: by a new request whose `sa_highest_slotid` is below the target, on a slot whose
//! last reply told that target, so the client had it when it sent this (§2.10.6.1). Then their outcomes and replies are removed, and the numbers alone remain: an old request
//! that comes once more is not executed, but told that its reply is not kept. They outlast the session's place in memory ([`numbers`]). After a start such a slot takes any number, for then no old request is on its way.
//!
//! The other number that SEQUENCE tells, the highest slot that is accepted, stays as it was agreed. Clients take targets from replies in whatever order these come, so one
//! that has complied may use a slot above all the same, and has it again; and a client that heard late that a slot is gone would begin it anew, at 1, which nobody could
//! tell from an old request. What cannot be exceeded is what was agreed, and with new sessions it is agreed upon with the bounds in view.

mod kept;
mod numbers;
mod unsettled;

use self::kept::{KEPT_MAX, Kept};
pub(crate) use self::unsettled::Unsettled;
use self::unsettled::Unsettling;
use super::back::Backchannel;
use super::shares::{Moved, Shares};
use atoll_meta::nfs4::{ClientId, Session, SessionId};
use atoll_meta::once::SlotOutcome;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Sessions kept here, of some KiB each; one that was forgotten is read again from the replicated state, and its slots go on from [`numbers`].
const SESSIONS_MAX: usize = 1 << 14;

/// The last request of a slot.
#[derive(Debug, Default)]
struct Last {
    /// Unknown if the session was forgotten since.
    fingerprint: Option<u64>,
    /// The whole reply, if it is kept.
    reply: Option<Kept>,
    /// Even if no outcome of it is stored, it may have changed something: the outcome was removed, or there never was one, as of an UNSTABLE WRITE.
    /// So it is not executed again. Outlasts the session's place in memory, as the number does.
    changed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Number of the last request; unknown since the start of this frontend, before the first.
    seqid: Option<u32>,
    busy: bool,
    last: Last,
    /// What of the last request was answered and is not in the replicated state yet.
    unsettled: Unsettling,
    /// The request whose reply told the target last, and which target that was, by its number.
    told: Option<(u32, u32)>,
}

impl Slot {
    /// One that has seen no request.
    fn new() -> Self {
        // A request of number 0 is never executed, neither now nor when the session was forgotten.
        let last = Last { fingerprint: Some(0), changed: true, ..Last::default() };
        Self { seqid: Some(0), last, ..Self::default() }
    }
}

/// How many slots a session has.
#[derive(Debug)]
struct Extent {
    /// From here on, nothing is kept, and the client has no use of it as far as it has said.
    kept: u32,
    /// Below this, they are wanted.
    target: u32,
    /// Counts each time that the target fell.
    number: u32,
    /// The one that the client was called about.
    called: u32,
    /// Slots from here on are being removed from the replicated state; they take no requests meanwhile.
    retiring: Option<u32>,
}

#[derive(Debug)]
struct Slots {
    all: Vec<Slot>,
    extent: Extent,
}

/// What a client is told of its slots, and what follows of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// `sr_target_highest_slotid`
    pub(crate) target: u32,
    /// The client has let go of the slots from this one on: they are to be removed from the replicated state ([`Active::retired`]).
    pub(crate) retire: Option<u32>,
}

/// A session in use.
#[derive(Debug)]
pub(crate) struct Active {
    /// What was agreed.
    pub(crate) session: Session,
    /// Calls to the client.
    pub(crate) back: Backchannel,
    slots: Mutex<Slots>,
    room: Arc<AtomicUsize>,
    /// Told when something that was answered early is in the state.
    settled: Notify,
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
    /// NFS4ERR_DELAY: it is being executed, or the slot is being removed.
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
    fn slots(&self) -> MutexGuard<'_, Slots> {
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

    /// What the reply to a request tells of slots. A `new` request, which has begun, may show that its client has let go of some.
    pub(crate) fn flow(&self, slot: u32, seqid: u32, highest: u32, new: bool) -> Flow {
        let mut slots = self.slots();
        let Slots { all, extent } = &mut *slots;
        let target = extent.retiring.unwrap_or(u32::MAX).min(extent.target);
        let mut retire = None;
        if let Some(record) = all.get_mut(slot as usize).filter(|_| new) {
            let heard = record.told == Some((seqid.wrapping_sub(1), extent.number));
            record.told = Some((seqid, extent.number));
            let above = all.get(target as usize..).unwrap_or_default();
            if heard && highest < target && target < extent.kept && !above.iter().any(|slot| slot.busy) {
                // Of those that are gone or going already there is nothing to say.
                retire = extent.retiring.is_none().then_some(target);
                extent.retiring = extent.retiring.or(retire);
            }
        }
        Flow { target: target.max(1) - 1, retire }
    }

    /// The slots from `keep` on have been removed from the replicated state, or could not be: then the client is believed anew.
    pub(crate) fn retired(&self, keep: u32, done: bool) {
        let mut slots = self.slots();
        let Slots { all, extent } = &mut *slots;
        extent.retiring = None;
        if !done {
            extent.kept = extent.kept.max(extent.target);
            return;
        }
        for slot in all.iter_mut().take(extent.kept as usize).skip(keep as usize) {
            (slot.last.reply, slot.last.changed) = (None, true);
        }
        // The target may have risen meanwhile.
        extent.kept = keep.max(extent.target);
    }

    /// How many slots are wanted from now on.
    fn set_target(&self, target: u32) -> bool {
        let mut slots = self.slots();
        let extent = &mut slots.extent;
        let falls = target < extent.target;
        extent.number = extent.number.wrapping_add(falls.into());
        extent.target = target;
        if extent.retiring.is_none() {
            extent.kept = extent.kept.max(target);
        }
        falls
    }

    /// What CB_RECALL_SLOT is to say, if the client may have more slots than are wanted and was not called about it: `rsa_target_highest_slotid`, and
    /// the number of this target.
    pub(crate) fn to_recall(&self) -> Option<(u32, u32)> {
        let extent = &self.slots().extent;
        let is_news = extent.kept > extent.target && extent.called != extent.number;
        is_news.then(|| (extent.target.max(1) - 1, extent.number))
    }

    /// The client has heard CB_RECALL_SLOT, or refuses it.
    pub(crate) fn called(&self, number: u32) {
        self.slots().extent.called = number;
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
        let Slots { all, extent } = &mut *slots;
        let index = slot as usize;
        let record = all.get_mut(index).ok_or(Refusal::BadSlot)?;
        if extent.retiring.is_some_and(|keep| slot >= keep) {
            return Err(Refusal::InProgress);
        }
        extent.kept = extent.kept.max(slot + 1);
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
                kept if kept.fingerprint.is_some_and(|its| its != fingerprint) => Err(Refusal::FalseRetry),
                Last { reply: Some(kept), .. } => Ok(Begun::Replay(kept.reply.clone())),
                Last { reply: None, fingerprint: its, changed } => match stored {
                    None => Ok(Begun::Unknown),
                    // It changed nothing, and its reply was forgotten with its session.
                    Some(stored)
                        if its.is_none() && !changed && stored.as_ref().is_none_or(|s| s.seqid != seqid) =>
                    {
                        Ok(Begun::Fresh(self.turn(record, index, seqid, fingerprint)))
                    }
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
        let last = Last { fingerprint: Some(fingerprint), ..Last::default() };
        let unsettled = Unsettling::default();
        let taken = Slot { seqid: Some(seqid), busy: true, last, unsettled, told: slot.told };
        let former = std::mem::replace(slot, taken);
        Turn { session: self.clone(), index, former: Some(former) }
    }
}

/// The right to execute a request on its slot.
#[derive(Debug)]
pub(crate) struct Turn {
    session: Arc<Active>,
    index: usize,
    /// What the slot goes back to if the request is given up.
    former: Option<Slot>,
}

impl Turn {
    /// The session.
    pub(crate) fn session(&self) -> &Arc<Active> {
        &self.session
    }

    /// Ends the request; `reply` is kept for a retransmission. `changed`: it may have changed something, be it unstable data alone.
    pub(crate) fn finish(mut self, reply: Option<Bytes>, changed: bool) {
        self.former = None;
        let mut slots = self.session.slots();
        if let Some(slot) = slots.all.get_mut(self.index) {
            slot.busy = false;
            slot.last.changed = changed;
            slot.last.reply = reply.and_then(|reply| Kept::new(reply, &self.session.room));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(former) = self.former.take() else { return };
        let mut slots = self.session.slots();
        if let Some(slot) = slots.all.get_mut(self.index) {
            // What it was told of slots, the client has not heard.
            *slot = Slot { busy: false, ..former };
        }
    }
}

#[derive(Debug, Default)]
struct All {
    by_id: HashMap<SessionId, Arc<Active>>,
    shares: Shares,
    numbers: numbers::Numbers,
}

/// All sessions in use at this frontend.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: Mutex<All>,
    room: Arc<AtomicUsize>,
    /// Told when a target has fallen, or a client that was to be called can be.
    pub(crate) fallen: Arc<Notify>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { all: Mutex::default(), room: Arc::new(AtomicUsize::new(KEPT_MAX)), fallen: Arc::default() }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn set_bounds(&self, bounds: super::shares::Bounds) {
        self.lock().shares.set_bounds(bounds);
    }

    /// How many slots a new session of a client gets of those that it asks for.
    pub(crate) fn room_for(&self, client: ClientId, asked: u32) -> u32 {
        self.lock().shares.room(client, asked)
    }

    /// Takes a session in. One that was made just now has slots at 0; of others they are unknown.
    pub(crate) fn enter(&self, session: Session, new: bool) -> Arc<Active> {
        let mut all = self.lock();
        if let Some(known) = all.by_id.get(&session.id) {
            return known.clone();
        }
        if all.by_id.len() >= SESSIONS_MAX {
            self.forget_idle(&mut all);
        }
        let count = session.terms.fore.max_requests;
        let slot = || if new { Slot::new() } else { Slot::default() };
        let slots = all.numbers.take(session.id);
        let slots = Slots {
            all: slots.unwrap_or_else(|| (0..count).map(|_| slot()).collect()),
            extent: Extent { kept: count, target: count, number: 0, called: 0, retiring: None },
        };
        let back = Backchannel::new(&session, new);
        let active = Arc::new(Active {
            session,
            back,
            slots: Mutex::new(slots),
            room: self.room.clone(),
            settled: Notify::new(),
            seen: AtomicU64::new(u64::MAX),
            reclaimed: AtomicBool::new(false),
        });
        all.by_id.insert(active.session.id, active.clone());
        let moved = all.shares.joined(active.session.client, count);
        self.share_out(&all, active.session.client, moved);
        active
    }

    /// Tells sessions their targets.
    fn share_out(&self, all: &All, client: ClientId, moved: Moved) {
        if moved == Moved::Nobodys {
            return;
        }
        let mut falls = false;
        for active in all.by_id.values() {
            let session = &active.session;
            if moved == Moved::All || session.client == client {
                falls |=
                    active.set_target(all.shares.target(session.client, session.terms.fore.max_requests));
            }
        }
        if falls {
            self.fallen.notify_one();
        }
    }

    /// Forgets the sessions without a request in progress, but for their numbers: they can be read again.
    fn forget_idle(&self, all: &mut All) {
        let idle = all.by_id.iter().filter(|(_, active)| Arc::strong_count(active) == 1);
        let idle: Vec<_> = idle.map(|(id, _)| *id).collect();
        for active in idle.iter().filter_map(|id| all.by_id.get(id)) {
            all.numbers.keep(active);
        }
        self.forget(all, &idle);
    }

    fn forget(&self, all: &mut All, gone: &[SessionId]) {
        let mut moves = Moved::Nobodys;
        let mut client = None;
        for active in gone.iter().filter_map(|id| all.by_id.remove(id)) {
            let session = &active.session;
            moves = moves.max(all.shares.left(session.client, session.terms.fore.max_requests));
            if client.replace(session.client).is_some_and(|other| other != session.client) {
                moves = moves.max(Moved::All);
            }
        }
        if let Some(client) = client {
            self.share_out(all, client, moves);
        }
    }

    /// Sessions whose clients are to be called for slots.
    pub(crate) fn to_recall(&self) -> Vec<Arc<Active>> {
        let all = self.lock();
        all.by_id.values().filter(|active| active.to_recall().is_some()).cloned().collect()
    }

    /// A session that is there for certain, if no client or session has ended since it was seen last.
    pub(crate) fn seen(&self, id: SessionId, ended: u64) -> Option<Arc<Active>> {
        self.lock().by_id.get(&id).filter(|active| active.seen.load(Ordering::Relaxed) == ended).cloned()
    }

    /// Whether any session of a client has a path for callbacks.
    pub(crate) fn any_path(&self, client: ClientId) -> bool {
        self.lock().by_id.values().any(|active| active.session.client == client && active.back.has_path())
    }

    /// Forgets a session that is gone.
    pub(crate) fn remove(&self, id: SessionId) {
        let mut all = self.lock();
        all.numbers.remove(id);
        self.forget(&mut all, &[id]);
    }

    /// Forgets all sessions of a client that is gone.
    pub(crate) fn remove_all(&self, client: ClientId) {
        self.keep_of(|other| other != client);
    }

    /// Forgets sessions of all clients but of these.
    pub(crate) fn keep_of(&self, is_there: impl Fn(ClientId) -> bool) {
        let mut all = self.lock();
        let gone = all.by_id.iter().filter(|(_, active)| !is_there(active.session.client));
        let gone: Vec<_> = gone.map(|(id, _)| *id).collect();
        self.forget(&mut all, &gone);
        all.numbers.keep_of(is_there);
    }
}

#[cfg(test)]
mod tests;
