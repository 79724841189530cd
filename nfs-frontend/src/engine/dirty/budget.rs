//! The bound on the memory of UNSTABLE data: who wants some waits his turn while there is none.
//!
//! Waiting happens before a write enters its file's room, so that nobody who holds what a flush needs waits for a
//! flush. The bound is exceeded only by what cutting segments apart adds (below half a segment per cut), and by a
//! single claim above the whole bound.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Bytes of memory in use, and who waits for some.
#[derive(Debug)]
pub(crate) struct Budget {
    max: u64,
    inner: Mutex<Inner>,
    /// Told when flushing should start.
    pub(crate) pressure: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    used: u64,
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Inner {
    fn fits(&self, claim: u64, max: u64) -> bool {
        self.used == 0 || self.used + claim <= max
    }
}

impl Budget {
    pub(crate) fn new(max: u64) -> Self {
        Self { max, inner: Mutex::default(), pressure: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.lock().used
    }

    /// Whether flushing should make room.
    pub(crate) fn is_high(&self) -> bool {
        self.used() > self.max / 2
    }

    /// Claims memory; waits, in order of arrival, until there is some. A claim dropped while waiting takes nothing.
    pub(crate) async fn claim(&self, bytes: u64) -> Claim<'_> {
        let turn = {
            let mut inner = self.lock();
            if inner.waiting.is_empty() && inner.fits(bytes, self.max) {
                inner.used += bytes;
                if inner.used > self.max / 2 {
                    self.pressure.notify_one();
                }
                return Claim { budget: self, bytes };
            }
            let (tell, turn) = oneshot::channel();
            inner.waiting.push_back((bytes, tell));
            turn
        };
        self.pressure.notify_one();
        let mut waiting = Waiting { budget: self, bytes, turn: Some(turn) };
        if let Some(turn) = &mut waiting.turn {
            // The sender lives in the queue until it is used.
            let _told = turn.await;
        }
        waiting.turn = None;
        Claim { budget: self, bytes }
    }

    /// Corrects the account: `was` bytes were claimed, `is` are in use.
    pub(crate) fn settle(&self, was: u64, is: u64) {
        let mut inner = self.lock();
        inner.used = (inner.used + is).checked_sub(was).expect("what is given back was claimed before");
        while let Some((bytes, tell)) = inner.waiting.front() {
            let bytes = *bytes;
            if !tell.is_closed() && !inner.fits(bytes, self.max) {
                break;
            }
            let (_, tell) = inner.waiting.pop_front().expect("there is a front");
            // A waiter that went away is passed over.
            if tell.send(()).is_ok() {
                inner.used += bytes;
            }
        }
    }
}

/// A place in the queue. If it is dropped when the turn has come but was not taken, the memory goes back.
struct Waiting<'a> {
    budget: &'a Budget,
    bytes: u64,
    turn: Option<oneshot::Receiver<()>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut turn) = self.turn.take() {
            turn.close();
            let had = if turn.try_recv().is_ok() { self.bytes } else { 0 };
            // Also without having had it: others may have waited behind.
            self.budget.settle(had, 0);
        }
    }
}

/// Claimed memory, given back when dropped unless it is kept.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Claim<'_> {
    /// Turns the claim into use: of what was claimed and `was` used before, `is` are used now. They are given back
    /// through [`Budget::settle`].
    pub(crate) fn exchange(self, was: u64, is: u64) {
        self.budget.settle(self.bytes + was, is);
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.budget.settle(self.bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn claims_wait_in_order_and_those_who_left_are_passed_over() {
        let budget = Budget::new(100);
        let first = budget.claim(80).now_or_never().unwrap();
        let mut large = Box::pin(budget.claim(60));
        let mut small = Box::pin(budget.claim(10));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "a small one does not overtake");
        drop(large);
        let small = small.now_or_never().expect("its turn now");
        assert_eq!(budget.used(), 90);
        first.exchange(0, 5);
        assert_eq!(budget.used(), 15);
        drop(small);
        assert_eq!(budget.used(), 5);
    }

    #[test]
    fn a_turn_that_was_never_taken_goes_back() {
        let budget = Budget::new(100);
        let first = budget.claim(100).now_or_never().unwrap();
        let mut second = Box::pin(budget.claim(50));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(budget.used(), 50);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_claim_above_the_bound_gets_its_turn_alone() {
        let budget = Budget::new(100);
        let first = budget.claim(1).now_or_never().unwrap();
        let mut huge = Box::pin(budget.claim(1000));
        assert!((&mut huge).now_or_never().is_none());
        drop(first);
        assert!(huge.now_or_never().is_some());
        assert_eq!(budget.used(), 0);
    }
}
