//! The watch channels of openraft: a value, those who set it, and those who want to know when it has changed.
//!
//! openraft publishes its progress and its metrics in a dozen of them, several times with each change; hardly ever does anybody
//! wait for one. tokio's goes through the eight lists of its waiting tasks each time. Here one atomic operation publishes a
//! new version and says whether anybody waits, and only then the list is looked at.
//!
//! No wake-up is lost, because version and [`WAITED_FOR`] are one atomic and so their changes have one order: who waits puts
//! its waker in the list, sets the flag, and in the same operation learns the version. Either it is new, then there is nothing to wait
//! for; or the version comes after the flag, then who publishes it sees the flag, and takes the waker from the list.
//!
//! Otherwise it is as tokio's; but a task that finds a new value each time it asks is never made to give way to others.

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll, Waker};

/// In [`Shared::state`]: the last sender is gone.
const CLOSED: u64 = 1;

/// In [`Shared::state`]: there may be wakers in the list. Always set while there are; changed only by who has locked the list.
const WAITED_FOR: u64 = 2;

/// In [`Shared::state`]: what counts the versions, above the flags.
const VERSION: u64 = 4;

fn version_of(state: u64) -> u64 {
    state & !(CLOSED | WAITED_FOR)
}

/// The kind of channel. See the module.
#[derive(Debug)]
pub struct GroupWatch;

/// Sets the value.
#[derive(Debug)]
pub struct GroupSender<T>(Arc<Shared<T>>);

/// Sees the value, and waits for new ones.
#[derive(Debug)]
pub struct GroupReceiver<T> {
    shared: Arc<Shared<T>>,
    /// The last that it saw.
    version: u64,
}

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    /// The version and two flags. A version is published while the value is locked: who has locked it knows its version.
    state: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_ticket: u64,
    /// Those who wait, each with its ticket.
    wakers: Vec<(u64, Waker)>,
}

impl<T> Shared<T> {
    // A closure that panics leaves what it has done to the value, and nothing else is half done: there is nothing to poison.

    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiver(self: &Arc<Self>, version: u64) -> GroupReceiver<T> {
        self.receivers.fetch_add(1, Ordering::Relaxed);
        GroupReceiver { shared: self.clone(), version }
    }

    /// To be called before `locked` is released, and [`Shared::tell`] with what it gives afterwards.
    fn publish(&self, _locked: &RwLockWriteGuard<'_, T>) -> u64 {
        self.state.fetch_add(VERSION, Ordering::AcqRel)
    }

    /// Wakes those who wait for what has just been published. `before`: the state until then.
    fn tell(&self, before: u64) {
        if before & WAITED_FOR != 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        let mut waiting = self.waiting();
        self.state.fetch_and(!WAITED_FOR, Ordering::AcqRel);
        // The usual case leaves the list its memory.
        let all = if waiting.wakers.len() > 1 { mem::take(&mut waiting.wakers) } else { Vec::new() };
        let one = waiting.wakers.pop();
        // What a waker does, or drops, may come back here.
        drop(waiting);
        for (_, waker) in one.into_iter().chain(all) {
            waker.wake();
        }
    }

    /// Has `waker` woken when the state changes from the one that it gives. `ticket`: of who waits, None if it has not waited yet.
    fn wait(&self, ticket: &mut Option<u64>, waker: &Waker) -> u64 {
        let mut waiting = self.waiting();
        let replaced = match ticket.and_then(|t| waiting.wakers.iter_mut().find(|(of, _)| *of == t)) {
            Some((_, known)) if known.will_wake(waker) => None,
            Some((_, known)) => Some(mem::replace(known, waker.clone())),
            None => {
                waiting.last_ticket += 1;
                let new = waiting.last_ticket;
                waiting.wakers.push((new, waker.clone()));
                *ticket = Some(new);
                None
            }
        };
        let state = self.state.fetch_or(WAITED_FOR, Ordering::AcqRel);
        // As in `wake`, a waker is not dropped while the list is locked.
        drop(waiting);
        drop(replaced);
        state
    }

    fn wait_no_more(&self, ticket: u64) {
        if self.state.load(Ordering::Acquire) & WAITED_FOR == 0 {
            return;
        }
        let mut waiting = self.waiting();
        let place = waiting.wakers.iter().position(|(of, _)| *of == ticket);
        let removed = place.map(|place| waiting.wakers.swap_remove(place));
        if waiting.wakers.is_empty() {
            self.state.fetch_and(!WAITED_FOR, Ordering::AcqRel);
        }
        drop(waiting);
        drop(removed);
    }
}

impl Watch for GroupWatch {
    type Sender<T: OptionalSend + OptionalSync> = GroupSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = GroupReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (GroupSender<T>, GroupReceiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            state: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            waiting: Mutex::default(),
        });
        let receiver = shared.receiver(0);
        (GroupSender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<GroupWatch, T> for GroupSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let shared = &*self.0;
        // Who drops the last receiver just now might have done it a moment later.
        if shared.receivers.load(Ordering::Relaxed) == 0 {
            return Err(SendError(value));
        }
        let mut locked = shared.write();
        let old = mem::replace(&mut *locked, value);
        let before = shared.publish(&locked);
        drop(locked);
        shared.tell(before);
        // Without a lock: it may hold anything.
        drop(old);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let shared = &*self.0;
        let mut locked = shared.write();
        if !modify(&mut locked) {
            return false;
        }
        let before = shared.publish(&locked);
        drop(locked);
        shared.tell(before);
        true
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> GroupReceiver<T> {
        self.0.receiver(version_of(self.0.state.load(Ordering::Acquire)))
    }
}

impl<T> Clone for GroupSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for GroupSender<T> {
    fn drop(&mut self) {
        let shared = &*self.0;
        if shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.tell(shared.state.fetch_or(CLOSED, Ordering::AcqRel));
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<GroupWatch, T> for GroupReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Changed { shared: &self.shared, version: &mut self.version, ticket: None }.await
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.read();
        self.version = version_of(self.shared.state.load(Ordering::Acquire));
        value
    }
}

impl<T> Clone for GroupReceiver<T> {
    fn clone(&self) -> Self {
        self.shared.receiver(self.version)
    }
}

impl<T> Drop for GroupReceiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until there is a version other than `version`, and makes it that one.
struct Changed<'a, T> {
    shared: &'a Shared<T>,
    version: &'a mut u64,
    /// See [`Shared::wait`].
    ticket: Option<u64>,
}

impl<T> Changed<'_, T> {
    /// `state`: as it was a moment ago.
    fn poll_after(&mut self, state: u64, waker: &Waker) -> Poll<Result<(), RecvError>> {
        let outcome = self.outcome(state);
        if outcome.is_ready() {
            return outcome;
        }
        let state = self.shared.wait(&mut self.ticket, waker);
        self.outcome(state)
    }

    fn outcome(&mut self, state: u64) -> Poll<Result<(), RecvError>> {
        let now = version_of(state);
        if *self.version != now {
            // Also after the last sender: its last value is not lost.
            *self.version = now;
            Poll::Ready(Ok(()))
        } else if state & CLOSED != 0 {
            Poll::Ready(Err(RecvError(())))
        } else {
            Poll::Pending
        }
    }
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = self.shared.state.load(Ordering::Acquire);
        self.poll_after(state, cx.waker())
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.wait_no_more(ticket);
        }
    }
}

#[cfg(test)]
mod tests;
