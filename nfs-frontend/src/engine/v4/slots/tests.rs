//! Slots as requests come, come again and are given up; and fewer of them, with clients that keep to what they are told.
#![allow(clippy::unwrap_used)]

use super::*;
use atoll_meta::Response;
use atoll_meta::nfs4::{ChannelLimits, SessionTerms};

impl Sessions {
    /// Forgets all that can be forgotten, as when there are too many.
    pub(crate) fn forget_all_idle(&self) {
        self.forget_idle(&mut self.lock());
    }
}

fn session(new: bool) -> Arc<Active> {
    of_slots(new, 2)
}

fn of_slots(new: bool, max_requests: u32) -> Arc<Active> {
    let limits = ChannelLimits {
        header_pad: 0,
        max_request: 1,
        max_response: 1,
        max_response_cached: 1,
        max_operations: 1,
        max_requests,
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
    first.finish(Some(Bytes::from_static(b"r")), false);
    assert!(matches!(s.begin(0, 1, 9, None), Ok(Begun::Replay(r)) if r == "r"));
    assert_eq!(s.begin(0, 1, 8, None).err(), Some(Refusal::FalseRetry));
    turn(s.begin(0, 2, 5, None)).finish(None, false);
    assert!(matches!(s.begin(0, 2, 5, None), Ok(Begun::Unknown)));
    assert!(matches!(s.begin(0, 2, 5, Some(None)), Ok(Begun::Uncached)));
    assert!(matches!(s.begin(0, 2, 5, Some(Some(stored(1)))), Ok(Begun::Uncached)));
    assert_eq!(s.begin(0, 1, 9, None).err(), Some(Refusal::Misordered));
    // The other slot has its own sequence.
    turn(s.begin(1, 1, 9, None)).finish(None, false);
}

#[test]
fn a_request_that_was_given_up_is_executed_when_it_comes_again() {
    let s = session(true);
    turn(s.begin(0, 1, 9, None)).finish(Some(Bytes::from_static(b"r")), false);
    drop(turn(s.begin(0, 2, 5, None)));
    assert!(matches!(s.begin(0, 1, 9, None), Ok(Begun::Replay(_))));
    turn(s.begin(0, 2, 5, None)).finish(None, false);
}

#[test]
fn a_reply_that_found_no_room_is_made_again_from_the_stored_outcome() {
    let s = session(true);
    s.room.store(3, Ordering::Relaxed);
    turn(s.begin(0, 1, 7, None)).finish(Some(Bytes::from_static(b"long")), false);
    assert!(matches!(s.begin(0, 1, 7, None), Ok(Begun::Unknown)));
    assert!(matches!(s.begin(0, 1, 7, Some(Some(stored(1)))), Ok(Begun::Resume(..))));
    turn(s.begin(0, 2, 7, None)).finish(Some(Bytes::from_static(b"r")), false);
    assert_eq!(s.room.load(Ordering::Relaxed), 2);
    turn(s.begin(0, 3, 7, None)).finish(None, false);
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
            turn.finish(Some(Bytes::from_static(b"r")), false);
        }
        _ => panic!("not resumed"),
    }
    assert!(matches!(s.begin(0, 5, 7, None), Ok(Begun::Replay(_))));
    turn(s.begin(0, 6, 7, None)).finish(None, false);
    // Requests that changed nothing left no record: a later number is accepted once.
    turn(s.begin(1, 1000, 7, Some(Some(stored(5))))).finish(None, false);
    assert_eq!(s.begin(1, 1002, 7, None).err(), Some(Refusal::Misordered));
}

#[test]
fn numbers_wrap_around() {
    let s = session(false);
    turn(s.begin(0, 1, 7, Some(Some(stored(u32::MAX))))).finish(None, false);
    let t = session(false);
    turn(t.begin(0, u32::MAX, 7, Some(None))).finish(None, false);
    turn(t.begin(0, 0, 7, None)).finish(None, false);
}

// ---- fewer slots

fn ask(s: &Arc<Active>, slot: u32, seqid: u32, highest: u32) -> Flow {
    turn(s.begin(slot, seqid, 0, Some(None))).finish(Some(Bytes::from_static(b"r")), false);
    s.flow(slot, seqid, highest, true)
}

#[test]
fn slots_go_when_the_client_has_let_go_of_them() {
    let s = of_slots(true, 8);
    assert_eq!(ask(&s, 0, 1, 0), Flow { target: 7, retire: None });
    ask(&s, 5, 1, 5);
    assert!(s.set_target(3));
    assert_eq!(s.to_recall(), Some((2, 1)));
    s.called(1);
    assert_eq!(s.to_recall(), None, "once for each fall");
    // It cannot know yet, whatever it uses.
    assert_eq!(ask(&s, 0, 2, 0), Flow { target: 2, retire: None });
    assert_eq!(ask(&s, 1, 1, 0), Flow { target: 2, retire: None });
    // It knows, and has one above under way; then not any more.
    assert_eq!(ask(&s, 0, 3, 5).retire, None);
    assert!(matches!(s.begin(5, 1, 0, None), Ok(Begun::Replay(_))));
    assert_eq!(ask(&s, 0, 4, 2), Flow { target: 2, retire: Some(3) });
    assert_eq!(ask(&s, 0, 5, 2).retire, None, "under way");
    assert_eq!(s.begin(3, 1, 0, Some(None)).err(), Some(Refusal::InProgress));
    s.retired(3, false);
    assert_eq!(ask(&s, 0, 6, 2).retire, Some(3), "it failed");
    s.retired(3, true);
    assert_eq!(ask(&s, 0, 7, 2).retire, None);
    // A copy of an old request is not executed.
    assert!(matches!(s.begin(5, 1, 0, Some(None)), Ok(Begun::Uncached)));
    // Used again, it goes again.
    assert_eq!(ask(&s, 5, 2, 5), Flow { target: 2, retire: None });
    assert_eq!(ask(&s, 0, 8, 2).retire, Some(3));
    s.retired(3, true);
    assert!(!s.set_target(8));
    assert_eq!(ask(&s, 7, 1, 7), Flow { target: 7, retire: None });
}

#[test]
fn a_reply_that_was_never_sent_tells_nothing() {
    let s = of_slots(true, 8);
    ask(&s, 0, 1, 0);
    s.set_target(2);
    let given_up = turn(s.begin(0, 2, 0, Some(None)));
    assert_eq!(s.flow(0, 2, 0, true).retire, None);
    drop(given_up);
    assert_eq!(ask(&s, 0, 2, 0).retire, None);
    assert_eq!(ask(&s, 0, 3, 0).retire, Some(2));
}

#[test]
fn a_request_above_keeps_its_slot() {
    let s = of_slots(true, 8);
    ask(&s, 0, 1, 0);
    s.set_target(2);
    ask(&s, 0, 2, 0);
    let above = turn(s.begin(6, 1, 0, Some(None)));
    assert_eq!(ask(&s, 0, 3, 0).retire, None);
    above.finish(None, false);
    assert_eq!(ask(&s, 0, 4, 0).retire, Some(2));
}

#[test]
fn a_session_that_comes_takes_from_those_that_are_there() {
    let sessions = Sessions::default();
    sessions.set_bounds(super::super::shares::Bounds { client: 12, all: 16 });
    let enter = |id: u64, client: u64| {
        let mut session = of_slots(true, 8).session.clone();
        (session.id, session.client) = (SessionId(id), ClientId(client));
        sessions.enter(session, true)
    };
    let target = |s: &Arc<Active>| s.slots().extent.target;
    let (a, b) = (enter(1, 1), enter(2, 1));
    assert_eq!((target(&a), target(&b), sessions.to_recall().len()), (6, 6, 2));
    assert_eq!((sessions.room_for(ClientId(1), 8), sessions.room_for(ClientId(2), 8)), (4, 5));
    let c = enter(3, 2);
    assert_eq!((target(&a), target(&b), target(&c)), (5, 5, 5));
    sessions.remove(SessionId(2));
    assert_eq!((target(&a), target(&c)), (8, 8));
    sessions.keep_of(|client| client == ClientId(2));
    sessions.remove_all(ClientId(1));
    assert_eq!((target(&c), sessions.to_recall().len()), (8, 0));
}

/// A client that keeps to the target it heard last, as Linux does, and its requests and replies on several connections, which come in any order.
struct Net {
    session: Arc<Active>,
    /// Of each slot: its last number, and whether a request is out.
    slots: Vec<(u32, bool)>,
    target: u32,
    /// Slot, number, highest slot, fingerprint.
    sent: Vec<(u32, u32, u32, u64)>,
    running: Vec<(Turn, u32)>,
    replies: Vec<(u32, Flow)>,
    retiring: Vec<u32>,
    fingerprints: u64,
}

impl Net {
    fn new() -> Self {
        Self {
            session: of_slots(true, 6),
            slots: vec![(0, false); 6],
            target: 5,
            sent: Vec::new(),
            running: Vec::new(),
            replies: Vec::new(),
            retiring: Vec::new(),
            fingerprints: 0,
        }
    }

    fn send(&mut self) {
        let free = self.slots.iter().take(self.target as usize + 1).position(|(_, out)| !out);
        let Some(slot) = free else { return };
        self.slots[slot] = (self.slots[slot].0 + 1, true);
        let highest = self.slots.iter().rposition(|(_, out)| *out).unwrap();
        self.fingerprints += 1;
        self.sent.push((slot as u32, self.slots[slot].0, highest as u32, self.fingerprints));
    }

    fn arrive(&mut self, which: usize) {
        if self.sent.is_empty() {
            return;
        }
        let (slot, seqid, highest, fingerprint) = self.sent.swap_remove(which % self.sent.len());
        let begun = self.session.begin(slot, seqid, fingerprint, Some(None));
        if begun.as_ref().is_err_and(|refusal| *refusal == Refusal::InProgress) {
            // Asked again later.
            self.sent.push((slot, seqid, highest, fingerprint));
            return;
        }
        let turn = turn(begun);
        let flow = self.session.flow(slot, seqid, highest, true);
        self.retiring.extend(flow.retire);
        assert!(self.retiring.len() <= 1);
        self.running.push((turn, slot));
        self.replies.push((slot, flow));
    }

    fn finish(&mut self, which: usize) {
        if self.running.is_empty() {
            return;
        }
        let (turn, _) = self.running.swap_remove(which % self.running.len());
        turn.finish(None, false);
    }

    fn hear(&mut self, which: usize) {
        let running = |slot: u32| self.running.iter().any(|(_, its)| *its == slot);
        let ready: Vec<_> = (0..self.replies.len()).filter(|i| !running(self.replies[*i].0)).collect();
        if ready.is_empty() {
            return;
        }
        let (slot, flow) = self.replies.swap_remove(ready[which % ready.len()]);
        self.slots[slot as usize].1 = false;
        self.target = flow.target;
    }

    fn retire(&mut self, done: bool) {
        if let Some(keep) = self.retiring.pop() {
            self.session.retired(keep, done);
        }
    }
}

proptest::proptest! {
    /// A client that keeps to what it was told is never refused, whatever comes late, and in the end no more is kept than shall be.
    #[test]
    fn clients_that_comply_are_never_refused(
        steps in proptest::collection::vec((0..12_u8, 0..8_usize), 1..300),
    ) {
        let mut net = Net::new();
        for (what, which) in steps {
            match what {
                0..=3 => net.send(),
                4..=6 => net.arrive(which),
                7 | 8 => net.finish(which),
                9 | 10 => net.hear(which),
                _ if which < 2 => net.retire(which == 0),
                _ => drop(net.session.set_target(which as u32 - 1)),
            }
        }
        for _ in 0..6 {
            net.send();
            for _ in 0..12 {
                net.arrive(0);
                net.finish(0);
                net.hear(0);
            }
            net.retire(true);
        }
        let extent = &net.session.slots().extent;
        proptest::prop_assert_eq!(extent.kept, extent.target);
    }
}

// ---- sessions that are forgotten

/// Forgets a session that nobody uses, and reads it again.
fn forgotten(sessions: &Sessions, s: Arc<Active>) -> Arc<Active> {
    let session = s.session.clone();
    drop(s);
    sessions.forget_idle(&mut sessions.lock());
    assert!(sessions.lock().by_id.is_empty());
    sessions.enter(session, false)
}

#[test]
fn a_session_that_was_forgotten_knows_its_numbers() {
    let sessions = Sessions::default();
    let s = sessions.enter(of_slots(true, 8).session.clone(), true);
    for (slot, seqid) in [(0, 1), (5, 1), (5, 2), (5, 3)] {
        ask(&s, slot, seqid, 5);
    }
    s.set_target(3);
    ask(&s, 0, 2, 5);
    assert_eq!(ask(&s, 0, 3, 2).retire, Some(3));
    s.retired(3, true);
    let s = forgotten(&sessions, s);
    // Old requests on the slot that was given back: of its last one the state keeps nothing, so that nobody knows whether it changed something.
    assert_eq!(s.begin(5, 2, 0, None).err(), Some(Refusal::Misordered));
    assert!(matches!(s.begin(5, 3, 0, None), Ok(Begun::Unknown)));
    for _ in 0..2 {
        assert!(matches!(s.begin(5, 3, 0, Some(None)), Ok(Begun::Uncached)));
    }
    assert_eq!(s.begin(5, 1, 0, None).err(), Some(Refusal::Misordered));
    // The client uses it again, where it was.
    ask(&s, 5, 4, 5);
    // On others the last request is answered from the stored outcome, or executed once more if it changed nothing.
    let stored = SlotOutcome { fingerprint: 0, ..stored(3) };
    assert!(matches!(s.begin(0, 3, 0, Some(Some(stored.clone()))), Ok(Begun::Resume(..))));
    let other = SlotOutcome { fingerprint: 1, ..stored };
    assert!(matches!(s.begin(0, 3, 0, Some(Some(other))), Ok(Begun::Uncached)));
    assert_eq!(s.begin(0, 2, 0, None).err(), Some(Refusal::Misordered));
    turn(s.begin(0, 3, 0, Some(Some(self::stored(2))))).finish(None, false);
    ask(&s, 0, 4, 5);
    // And those that were never used begin with the first.
    assert_eq!(s.begin(7, 2, 0, None).err(), Some(Refusal::Misordered));
    let s = forgotten(&sessions, s);
    ask(&s, 7, 1, 7);
}

#[test]
fn what_changed_something_is_not_executed_again_when_its_session_was_forgotten() {
    let sessions = Sessions::default();
    let s = sessions.enter(of_slots(true, 2).session.clone(), true);
    turn(s.begin(0, 1, 7, None)).finish(Some(Bytes::from_static(b"r")), true);
    let mut s = s;
    for _ in 0..2 {
        s = forgotten(&sessions, s);
        // No outcome, as of an UNSTABLE WRITE, or that of a request before it.
        assert!(matches!(s.begin(0, 1, 7, Some(None)), Ok(Begun::Uncached)));
        assert!(matches!(s.begin(0, 1, 7, Some(Some(stored(0)))), Ok(Begun::Uncached)));
        assert!(matches!(s.begin(0, 1, 7, Some(Some(stored(1)))), Ok(Begun::Resume(..))));
        // Nor is what no client may send, on a slot without a request.
        assert!(matches!(s.begin(1, 0, 7, Some(None)), Ok(Begun::Uncached)));
    }
    turn(s.begin(0, 2, 7, None)).finish(None, false);
    let s = forgotten(&sessions, s);
    turn(s.begin(0, 2, 7, Some(None))).finish(None, false);
}

#[test]
fn a_session_that_is_gone_leaves_no_numbers() {
    let sessions = Sessions::default();
    let s = sessions.enter(of_slots(true, 8).session.clone(), true);
    ask(&s, 0, 1, 0);
    drop(s);
    sessions.forget_idle(&mut sessions.lock());
    sessions.remove_all(ClientId(1));
    assert_eq!(sessions.lock().numbers.take(SessionId(1)).map(|slots| slots.len()), None);
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_waits_for_what_was_answered_early() {
    use std::time::Duration;
    let s = session(true);
    let waits = async |slot| tokio::time::timeout(Duration::from_secs(1), s.settled(slot)).await.is_err();
    let first = turn(s.begin(0, 1, 9, None));
    let (one, two) = (first.unsettled(), first.unsettled());
    first.finish(None, false);
    assert!(waits(0).await && !waits(1).await);
    drop(one);
    assert!(waits(0).await);
    let (_, ()) = tokio::join!(s.settled(0), async { drop(two) });
    // With the next request, the former is of no interest.
    let second = turn(s.begin(0, 2, 9, None));
    let late = second.unsettled();
    second.finish(None, false);
    let third = turn(s.begin(0, 3, 9, None));
    assert!(!waits(0).await);
    let of_third = third.unsettled();
    third.finish(None, false);
    drop(late);
    assert!(waits(0).await);
    // It settles while a later one runs, which is given up then.
    let fourth = turn(s.begin(0, 4, 9, None));
    drop(of_third);
    drop(fourth);
    assert!(!waits(0).await);
    // The same number, executed again.
    let given_up = turn(s.begin(0, 4, 9, None));
    let of_given_up = given_up.unsettled();
    drop(given_up);
    let fourth = turn(s.begin(0, 4, 9, None));
    let of_fourth = fourth.unsettled();
    fourth.finish(None, false);
    drop(of_given_up);
    assert!(waits(0).await);
    drop(of_fourth);
    assert!(!waits(0).await);
}
