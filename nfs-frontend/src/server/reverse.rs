//! Calls from the server to the client over a connection that the client made (RFC 8881 §2.10.3.1).
//!
//! The connection owns a [`Reverse`]; whoever has a [`Connection`], its weak handle, sends calls through it and waits for the replies.
//! A connection that was never asked to call holds a few words for it.
//!
//! Invariants: at most [`CALLS`] calls are on their way, each of at most [`LONGEST_CALL`] bytes; one whose caller has given up is
//! forgotten. A reply that nobody waits for, or that is longer than [`LONGEST_REPLY`], is dropped, so a client cannot make
//! memory grow by replies.

use atoll_xdr::Encoder;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use tokio::sync::oneshot;

/// Calls of one connection on their way: the slots of a few sessions.
pub(crate) const CALLS: usize = 64;

/// Longest call: what backchannels agree on is less.
const LONGEST_CALL: usize = 64 << 10;

/// Longest reply that is given to its caller.
const LONGEST_REPLY: usize = 64 << 10;

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReverseError {
    /// The connection was closed. Whether the client executed the call is not known.
    #[error("the connection was closed")]
    Closed,
    /// Too many calls are on their way; this one was not sent.
    #[error("too many calls on one connection")]
    Busy,
    /// The call is too long, and was not sent.
    #[error("the call is too long")]
    TooLong,
}

struct Calls {
    next_xid: u32,
    /// Not yet in the connection's output.
    unsent: VecDeque<(u32, Bytes)>,
    waiting: Vec<(u32, oneshot::Sender<Bytes>)>,
    /// Of the connection's task, once there is something for it to do.
    waker: Option<Waker>,
    stopped: bool,
}

struct Inner {
    calls: Mutex<Calls>,
    /// Whether there may be something in `unsent`: to look at it costs the connection no lock at each turn.
    any_unsent: AtomicBool,
    /// Whether any call was ever made.
    used: AtomicBool,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's side.
pub struct Reverse(Arc<Inner>);

impl Default for Reverse {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Reverse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reverse").finish_non_exhaustive()
    }
}

impl Reverse {
    /// Of a connection that nobody has called over yet.
    pub fn new() -> Self {
        let calls = Calls {
            // Transaction ids are the caller's own: the client's calls count apart from these.
            next_xid: 1,
            unsent: VecDeque::new(),
            waiting: Vec::new(),
            waker: None,
            stopped: false,
        };
        Self(Arc::new(Inner {
            calls: Mutex::new(calls),
            any_unsent: AtomicBool::new(false),
            used: AtomicBool::new(false),
        }))
    }

    /// A handle for others.
    pub fn handle(&self) -> Connection {
        Connection(Arc::downgrade(&self.0))
    }

    /// Whom to wake for a call. The waker of a task stays the same, so once is enough.
    pub fn register(&self, cx: &Context<'_>) {
        self.0.lock().waker = Some(cx.waker().clone());
    }

    /// The next call to send.
    pub fn next_call(&self) -> Option<Bytes> {
        if !self.0.any_unsent.load(Ordering::Acquire) {
            return None;
        }
        let mut calls = self.0.lock();
        let next = calls.unsent.pop_front();
        if calls.unsent.is_empty() {
            calls.unsent = VecDeque::new();
            self.0.any_unsent.store(false, Ordering::Release);
        }
        next.map(|(_, call)| call)
    }

    /// Gives a reply to whoever waits for it. False if nothing was ever asked here, so that it is no reply to anything.
    pub fn reply(&self, xid: u32, reply: Bytes) -> bool {
        if !self.0.used.load(Ordering::Relaxed) {
            return false;
        }
        let mut calls = self.0.lock();
        let Some(index) = calls.waiting.iter().position(|(waiting, _)| *waiting == xid) else { return true };
        let (_, to) = calls.waiting.swap_remove(index);
        if calls.waiting.is_empty() {
            calls.waiting = Vec::new();
        }
        drop(calls);
        if reply.len() <= LONGEST_REPLY {
            let _ = to.send(reply);
        }
        true
    }

    /// No more calls: the server stops, or the client has closed its side. Those on their way end.
    pub fn stop(&self) {
        let mut calls = self.0.lock();
        calls.stopped = true;
        calls.unsent = VecDeque::new();
        calls.waiting = Vec::new();
        self.0.any_unsent.store(false, Ordering::Release);
    }
}

/// A connection that a client made, as those see it who call the client over it. Does not keep it open.
#[derive(Clone)]
pub struct Connection(Weak<Inner>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("open", &self.is_open()).finish()
    }
}

impl Connection {
    /// Whether it was open just now.
    pub fn is_open(&self) -> bool {
        self.0.upgrade().is_some_and(|inner| !inner.lock().stopped)
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.0, &other.0)
    }

    /// Sends the call that `encode` writes for a transaction id, and waits for the whole reply, header included. Who wants to wait
    /// no longer drops the future.
    pub async fn call(&self, encode: impl FnOnce(u32) -> Encoder) -> Result<Bytes, ReverseError> {
        let (reply, _waits) = self.send(encode)?;
        // A connection that ends drops the other end.
        reply.await.map_err(|_| ReverseError::Closed)
    }

    fn send(
        &self,
        encode: impl FnOnce(u32) -> Encoder,
    ) -> Result<(oneshot::Receiver<Bytes>, Waits), ReverseError> {
        let inner = self.0.upgrade().ok_or(ReverseError::Closed)?;
        let mut calls = inner.lock();
        if calls.stopped {
            return Err(ReverseError::Closed);
        }
        if calls.waiting.len() >= CALLS {
            return Err(ReverseError::Busy);
        }
        let xid = calls.next_xid;
        let call = encode(xid).into_bytes();
        if call.len() > LONGEST_CALL {
            return Err(ReverseError::TooLong);
        }
        calls.next_xid = xid.wrapping_add(1);
        let (to, reply) = oneshot::channel();
        calls.waiting.push((xid, to));
        calls.unsent.push_back((xid, call));
        inner.used.store(true, Ordering::Relaxed);
        inner.any_unsent.store(true, Ordering::Release);
        let waker = calls.waker.clone();
        drop(calls);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok((reply, Waits { inner: self.0.clone(), xid }))
    }
}

/// Forgets the call when its caller does.
struct Waits {
    inner: Weak<Inner>,
    xid: u32,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let mut calls = inner.lock();
        calls.waiting.retain(|(xid, _)| *xid != self.xid);
        calls.unsent.retain(|(xid, _)| *xid != self.xid);
        if calls.waiting.is_empty() {
            calls.waiting = Vec::new();
        }
    }
}
