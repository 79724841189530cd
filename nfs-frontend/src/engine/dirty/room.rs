//! The room of a file: UNSTABLE writes and operations of the metadata store take turns in it, each kind with any
//! number at a time.
//!
//! Order: who comes first goes first; one of the kind that is inside joins at once if nobody waits. A flush that must
//! end the lease goes ahead of the queue: those in the queue may be waiting for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Who may be in a room together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Adds UNSTABLE data under the write lease.
    Unstable,
    /// Reads or changes the file in the metadata store as if there were no UNSTABLE data.
    Stable,
}

#[derive(Debug, Default)]
struct Inner {
    /// Who is inside; the kind means nothing if there is nobody.
    inside: usize,
    kind: Option<Kind>,
    queue: VecDeque<(Kind, oneshot::Sender<Guard>)>,
}

/// A file's room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Arc<Mutex<Inner>>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters, after those who came before.
    pub(crate) async fn enter(&self, kind: Kind) -> Guard {
        self.enter_at(kind, false).await
    }

    /// Enters ahead of the queue.
    pub(crate) async fn enter_first(&self, kind: Kind) -> Guard {
        self.enter_at(kind, true).await
    }

    async fn enter_at(&self, kind: Kind, ahead: bool) -> Guard {
        loop {
            let turn = {
                let mut inner = self.lock();
                let open = inner.inside == 0 || inner.kind == Some(kind);
                if open && (ahead || inner.queue.is_empty()) {
                    inner.inside += 1;
                    inner.kind = Some(kind);
                    return Guard(Some(self.clone()));
                }
                let (tell, turn) = oneshot::channel();
                if ahead {
                    inner.queue.push_front((kind, tell));
                } else {
                    inner.queue.push_back((kind, tell));
                }
                turn
            };
            // The guard is made by who leaves. Should its sender be lost, asking again is right.
            if let Ok(guard) = turn.await {
                return guard;
            }
        }
    }

    fn leave(&self) {
        let mut unwanted = Vec::new();
        let mut inner = self.lock();
        inner.inside -= 1;
        if inner.inside == 0 {
            while let Some((kind, _)) = inner.queue.front() {
                let kind = *kind;
                if inner.inside > 0 && inner.kind != Some(kind) {
                    break;
                }
                let (_, tell) = inner.queue.pop_front().expect("there is a front");
                inner.inside += 1;
                inner.kind = Some(kind);
                if let Err(guard) = tell.send(Guard(Some(self.clone()))) {
                    inner.inside -= 1;
                    unwanted.push(guard);
                }
            }
        }
        drop(inner);
        // Guards that nobody waited for were never inside: they must not leave.
        unwanted.into_iter().for_each(Guard::disarm);
    }
}

/// Being in a room; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Guard(Option<Room>);

impl Guard {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(room) = self.0.take() {
            room.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn one_kind_at_a_time_in_order() {
        let room = Room::default();
        let a = room.enter(Kind::Unstable).now_or_never().unwrap();
        let b = room.enter(Kind::Unstable).now_or_never().unwrap();
        let mut s1 = Box::pin(room.enter(Kind::Stable));
        let mut s2 = Box::pin(room.enter(Kind::Stable));
        let mut u = Box::pin(room.enter(Kind::Unstable));
        assert!((&mut s1).now_or_never().is_none());
        assert!((&mut s2).now_or_never().is_none());
        assert!((&mut u).now_or_never().is_none(), "does not overtake those who wait");
        drop(a);
        assert!((&mut s1).now_or_never().is_none());
        drop(b);
        let s1 = s1.now_or_never().unwrap();
        let s2 = s2.now_or_never().unwrap();
        assert!((&mut u).now_or_never().is_none());
        let ahead = room.enter_first(Kind::Stable).now_or_never().expect("same kind, ahead of the queue");
        drop((s1, s2));
        assert!((&mut u).now_or_never().is_none());
        drop(ahead);
        assert!(u.now_or_never().is_some());
    }

    #[test]
    fn who_gives_up_waiting_does_not_block_the_rest() {
        let room = Room::default();
        let a = room.enter(Kind::Stable).now_or_never().unwrap();
        let mut gone = Box::pin(room.enter(Kind::Unstable));
        let mut stays = Box::pin(room.enter(Kind::Stable));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut stays).now_or_never().is_none());
        drop(gone);
        drop(a);
        let stays = stays.now_or_never().expect("next in line");
        drop(stays);
        assert_eq!(room.lock().inside, 0);
    }

    #[test]
    fn a_turn_that_was_given_and_never_taken_is_passed_on() {
        let room = Room::default();
        let a = room.enter(Kind::Stable).now_or_never().unwrap();
        let mut u = Box::pin(room.enter(Kind::Unstable));
        assert!((&mut u).now_or_never().is_none());
        drop(a);
        drop(u);
        assert!(room.enter(Kind::Stable).now_or_never().is_some());
    }
}
