//! Calls in progress: where their futures live and what happens when one panics.

use super::peers::Charge;
use crate::rpc::Answer;
use atoll_base::panic::text;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The handler panicked.
#[derive(Debug)]
pub(super) struct Panicked;

/// What the handler says, if it could.
pub(super) type Done = Result<Answer, Panicked>;

/// Place for a handler's future. It is filled and emptied again and again, so that a call allocates none.
pub(super) struct Slot<F>(Pin<Box<Option<F>>>);

impl<F: Future<Output = Answer>> Slot<F> {
    pub(super) fn new() -> Self {
        Self(Box::pin(None))
    }

    /// Puts a future in and polls it for the first time.
    pub(super) fn start(&mut self, xid: u32, cx: &mut Context<'_>, future: F) -> Poll<Done> {
        self.0.as_mut().set(Some(future));
        self.poll(xid, cx)
    }

    /// A panic of the handler concerns this call alone: it is answered with SYSTEM_ERR. Engine state is behind locks of its own, or
    /// in the replicated state where a call is one transaction, so no half-made change is seen by others.
    fn poll(&mut self, xid: u32, cx: &mut Context<'_>) -> Poll<Done> {
        let slot = &mut self.0;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let future = slot.as_mut().as_pin_mut().expect("a slot is polled only while it has a future");
            let answer = ready!(future.poll(cx));
            slot.as_mut().set(None);
            Poll::Ready(Ok(answer))
        }));
        polled.unwrap_or_else(|panic| {
            tracing::error!(xid, panic = text(&*panic), "a call's handler panicked");
            // Dropping what is left of it may panic again; then the slot is empty all the same.
            if catch_unwind(AssertUnwindSafe(|| self.0.as_mut().set(None))).is_err() {
                tracing::error!(xid, "and again while it was dropped");
            }
            Poll::Ready(Err(Panicked))
        })
    }
}

/// A call that was not ready at once.
pub(super) struct Flight<F> {
    pub(super) xid: u32,
    pub(super) slot: Option<Slot<F>>,
    pub(super) charge: Option<Charge>,
}

/// A call that is done.
pub(super) struct Landed<F> {
    pub(super) xid: u32,
    pub(super) done: Done,
    pub(super) slot: Slot<F>,
}

impl<F: Future<Output = Answer>> Future for Flight<F> {
    type Output = Landed<F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed<F>> {
        let xid = self.xid;
        let slot = self.slot.as_mut().expect("not polled after it was ready");
        let done = ready!(slot.poll(xid, cx));
        self.charge = None;
        let slot = self.slot.take().expect("just polled");
        Poll::Ready(Landed { xid, done, slot })
    }
}
