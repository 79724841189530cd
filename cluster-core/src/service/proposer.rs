//! From single calls to entries of the log, and back.
//!
//! There is no task and no timer in the way: the caller that finds a free place among the entries in flight proposes at once
//! what waits; when an entry was applied, the thread that applied it proposes the next, then answers. So one caller
//! alone waits for one sync, and many callers share each sync: while some entries are in flight, the next batch gathers until it has
//! as many calls as they have, or they are through. (At once whatever came, the first call back would take a sync for itself, and so would
//! the second; of 64 callers two batches of 32 take turns now.)
//!
//! A call that nobody waits for, a CLOSE that was answered before, begins no entry: it rides with the next call that somebody waits for, or goes
//! after [`ASIDE_DELAY`]. Else a client alone that opens and closes would wait for two syncs with each OPEN, the former CLOSE's and its own.
//!
//! Bounds: [`Limits`]. A full queue refuses with `Delay`; nothing is lost or reordered within a batch.

use crate::raft::group::Proposed;
use crate::raft::types::Completion;
use atoll_meta::service::Aside;
use atoll_meta::{FsError, Response};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Bounds of the queue and of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls that may wait for a place in a batch.
    pub queue_calls: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Calls in one batch.
    pub batch_calls: usize,
    /// Their bytes; a single larger call is a batch of its own.
    pub batch_bytes: usize,
    /// Batches in flight: more than one, so that the disk syncs one while another is applied.
    pub in_flight: usize,
    /// Bytes of one call.
    pub call_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_calls: 16 << 10,
            queue_bytes: 64 << 20,
            batch_calls: 512,
            batch_bytes: 4 << 20,
            in_flight: 3,
            call_bytes: 16 << 20,
        }
    }
}

/// How long a call that nobody waits for waits for others.
const ASIDE_DELAY: Duration = Duration::from_millis(20);

/// How many such calls wait at most.
const ASIDE_MAX: usize = 64;

/// Bytes that an entry of the log adds to each command.
const PER_COMMAND: usize = 4;

impl Limits {
    /// Within what one entry of the log takes. The log refusing an entry would stop the group.
    pub(super) fn within(mut self, entry_bytes: usize) -> Self {
        self.batch_bytes = self.batch_bytes.min(entry_bytes);
        self.call_bytes = self.call_bytes.min(entry_bytes.saturating_sub(PER_COMMAND));
        self
    }
}

/// Whatever takes batches; the Raft group.
pub(super) trait Propose: Send + Sync + 'static {
    /// As [`crate::raft::group::RaftGroup::propose`].
    fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>);
}

/// Where an answer goes.
enum Answer {
    Awaited(oneshot::Sender<Result<Response, FsError>>),
    /// Nobody waits for it.
    Aside(Aside),
}

impl Answer {
    fn is_aside(&self) -> bool {
        matches!(self, Self::Aside(_))
    }

    fn give(self, answer: Result<Response, FsError>) {
        match self {
            // A caller that went away does not care.
            Self::Awaited(caller) => drop(caller.send(answer)),
            Self::Aside(done) => done(answer),
        }
    }
}

/// Where an answer comes.
pub(super) type Awaited = oneshot::Receiver<Result<Response, FsError>>;

/// Waits for an answer.
pub(super) async fn answered(answer: Awaited) -> Result<Response, FsError> {
    // An entry's completion always answers, also when it is dropped.
    answer.await.unwrap_or(Err(FsError::Delay))
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Bytes, Answer)>,
    /// Of these, those whose answer nobody wants.
    aside: usize,
    /// Whether they will be overdue at a time that is set.
    timed: bool,
    /// Whether they are to go though nobody waits for them.
    overdue: bool,
    bytes: usize,
    in_flight: usize,
    /// Calls in them.
    calls_in_flight: usize,
}

impl Queue {
    /// Whether what waits is worth an entry of its own beside those in flight.
    fn is_due(&self, limits: &Limits) -> bool {
        if !self.overdue && self.aside == self.waiting.len() && self.aside < ASIDE_MAX {
            return false;
        }
        let full = self.waiting.len() >= limits.batch_calls || self.bytes >= limits.batch_bytes;
        let alone = self.in_flight == 0;
        !self.waiting.is_empty()
            && self.in_flight < limits.in_flight
            && (alone || full || self.waiting.len() >= self.calls_in_flight)
    }
}

struct Ready {
    commands: Vec<Bytes>,
    answers: Vec<Answer>,
}

/// How the proposer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProposerStatus {
    /// Calls that wait now.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Batches in flight now.
    pub in_flight: u64,
    /// Calls proposed since the start.
    pub calls: u64,
    /// Batches proposed since the start.
    pub batches: u64,
    /// Calls refused because the queue was full.
    pub refused: u64,
}

/// The queue. Shared by all callers.
pub(super) struct Proposer<P> {
    group: P,
    limits: Limits,
    queue: Mutex<Queue>,
    /// The group stopped by itself: no change will ever succeed.
    failed: AtomicBool,
    closed: AtomicBool,
    drained: Notify,
    calls: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
}

impl<P: Propose> Proposer<P> {
    pub(super) fn new(group: P, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            group,
            limits,
            queue: Mutex::default(),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            drained: Notify::new(),
            calls: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one encoded command. `Delay` if it was not taken, `Io` if the group has stopped. The answer is `Delay` if its effect
    /// is unknown because the group lost its leader or stopped meanwhile.
    pub(super) fn submit(self: &Arc<Self>, command: Bytes) -> Result<Awaited, FsError> {
        let (tx, rx) = oneshot::channel();
        self.enqueue(command, Answer::Awaited(tx)).map(|()| rx)
    }

    /// The same for a command whose answer nobody waits for: `done` is given it, if the command was taken. On a runtime with time.
    pub(super) fn submit_aside(self: &Arc<Self>, command: Bytes, done: Aside) -> Result<(), FsError> {
        self.enqueue(command, Answer::Aside(done))?;
        let begins = {
            let mut queue = self.queue();
            queue.aside > 0 && !std::mem::replace(&mut queue.timed, true)
        };
        if begins {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ASIDE_DELAY).await;
                this.queue().timed = false;
                this.hurry();
            });
        }
        Ok(())
    }

    /// Proposes what waits as soon as there is a place, also if nobody waits for it.
    fn hurry(self: &Arc<Self>) {
        let ready = {
            let mut queue = self.queue();
            queue.overdue = queue.aside > 0;
            self.take_batch(&mut queue)
        };
        self.send(ready);
    }

    fn enqueue(self: &Arc<Self>, command: Bytes, answer: Answer) -> Result<(), FsError> {
        if command.len() > self.limits.call_bytes {
            return Err(FsError::Invalid);
        }
        let ready = {
            let mut queue = self.queue();
            // Under the lock, so that whoever closes or fails the queue sees all that came before.
            if self.failed.load(Ordering::Acquire) {
                return Err(FsError::Io);
            }
            let full = queue.waiting.len() >= self.limits.queue_calls
                || queue.bytes + command.len() > self.limits.queue_bytes;
            if full || self.closed.load(Ordering::Acquire) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(FsError::Delay);
            }
            queue.bytes += command.len();
            queue.aside += usize::from(answer.is_aside());
            queue.waiting.push_back((command, answer));
            self.take_batch(&mut queue)
        };
        self.send(ready);
        Ok(())
    }

    fn take_batch(&self, queue: &mut Queue) -> Option<Ready> {
        if !queue.is_due(&self.limits) {
            return None;
        }
        let mut ready = Ready { commands: Vec::new(), answers: Vec::new() };
        let mut bytes = 0;
        while ready.commands.len() < self.limits.batch_calls
            && let Some((command, _)) = queue.waiting.front()
        {
            let size = command.len() + PER_COMMAND;
            if bytes > 0 && bytes + size > self.limits.batch_bytes {
                break;
            }
            bytes += size;
            queue.bytes -= command.len();
            if let Some((command, answer)) = queue.waiting.pop_front() {
                queue.aside -= usize::from(answer.is_aside());
                ready.commands.push(command);
                ready.answers.push(answer);
            }
        }
        queue.overdue &= queue.aside > 0;
        queue.in_flight += 1;
        queue.calls_in_flight += ready.commands.len();
        Some(ready)
    }

    fn send(self: &Arc<Self>, ready: Option<Ready>) {
        let Some(Ready { commands, answers }) = ready else { return };
        self.calls.fetch_add(commands.len() as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        let this = self.clone();
        let done = Completion::new(move |result| this.complete(answers, result));
        self.group.propose(commands, done);
    }

    /// The next batch first, so that its sync runs while the answers go out.
    fn complete(self: &Arc<Self>, answers: Vec<Answer>, result: Option<Proposed>) {
        if result.is_none() {
            self.fail();
        }
        let (ready, idle) = {
            let mut queue = self.queue();
            queue.in_flight -= 1;
            queue.calls_in_flight -= answers.len();
            let ready = self.take_batch(&mut queue);
            (ready, queue.in_flight == 0)
        };
        self.send(ready);
        match result {
            Some(Ok(response)) => {
                let responses = response.data.0;
                assert_eq!(responses.len(), answers.len(), "one response for each command of a batch");
                for (answer, response) in answers.into_iter().zip(responses) {
                    answer.give(Ok(response));
                }
            }
            // Another member leads; whether it takes the entry over is open.
            Some(Err(_)) | None => {
                for answer in answers {
                    answer.give(Err(FsError::Delay));
                }
            }
        }
        if idle {
            self.drained.notify_waiters();
        }
    }

    /// From now on every call is refused with `Io`.
    pub(super) fn fail(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) && !self.closed.load(Ordering::Acquire) {
            tracing::error!(
                "the metadata log or store failed: every change is refused from now on, reads go on"
            );
        }
    }

    /// Whether [`Proposer::fail`] was called.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Takes no more calls and waits until those taken are answered.
    pub(super) async fn close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        loop {
            let drained = self.drained.notified();
            self.hurry();
            let idle = {
                let queue = self.queue();
                queue.in_flight == 0 && queue.waiting.is_empty()
            };
            if idle {
                return;
            }
            drained.await;
        }
    }

    pub(super) fn status(&self) -> ProposerStatus {
        let queue = self.queue();
        ProposerStatus {
            waiting: queue.waiting.len() as u64,
            waiting_bytes: queue.bytes as u64,
            in_flight: queue.in_flight as u64,
            calls: self.calls.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Takes batches and keeps them until they are let go without a result.
    #[derive(Default)]
    struct Group(Mutex<VecDeque<(usize, Completion<Proposed>)>>);

    impl Propose for Arc<Group> {
        fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
            self.0.lock().unwrap().push_back((commands.len(), done));
        }
    }

    impl Group {
        fn sizes(&self) -> Vec<usize> {
            self.0.lock().unwrap().iter().map(|(size, _)| *size).collect()
        }
    }

    fn queued(calls: usize) -> (Arc<Group>, Arc<Proposer<Arc<Group>>>) {
        let group = Arc::new(Group::default());
        let proposer = Proposer::new(group.clone(), Limits::default());
        (0..calls).for_each(|_| drop(proposer.submit(Bytes::from_static(b"call")).unwrap()));
        (group, proposer)
    }

    /// As the end of the first batch does, but with the group still there.
    fn end_first(group: &Group, proposer: &Arc<Proposer<Arc<Group>>>) {
        let (size, done) = group.0.lock().unwrap().pop_front().unwrap();
        // It would fail the queue.
        std::mem::forget(done);
        let mut queue = proposer.queue();
        queue.in_flight -= 1;
        queue.calls_in_flight -= size;
        let ready = proposer.take_batch(&mut queue);
        drop(queue);
        proposer.send(ready);
    }

    #[test]
    fn a_call_alone_does_not_wait() {
        assert_eq!(queued(1).0.sizes(), [1]);
    }

    #[test]
    fn beside_others_calls_gather_until_they_are_as_many() {
        let (group, proposer) = queued(64);
        assert_eq!(group.sizes(), [1, 1, 2]);
        // The places are taken; the rest goes as one.
        end_first(&group, &proposer);
        assert_eq!(group.sizes(), [1, 2, 60]);
        (0..4).for_each(|_| drop(proposer.submit(Bytes::from_static(b"call")).unwrap()));
        end_first(&group, &proposer);
        end_first(&group, &proposer);
        assert_eq!(group.sizes(), [60], "four calls are not worth a sync beside sixty");
        (0..55).for_each(|_| drop(proposer.submit(Bytes::from_static(b"call")).unwrap()));
        assert_eq!(group.sizes(), [60]);
        drop(proposer.submit(Bytes::from_static(b"call")).unwrap());
        assert_eq!(group.sizes(), [60, 60]);
        // When nothing is in flight, what waits goes at once.
        drop(proposer.submit(Bytes::from_static(b"call")).unwrap());
        end_first(&group, &proposer);
        assert_eq!(group.sizes(), [60]);
        end_first(&group, &proposer);
        assert_eq!(group.sizes(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_rides_with_the_next_call() {
        let (group, proposer) = queued(0);
        let aside = |n| {
            for _ in 0..n {
                proposer.submit_aside(Bytes::from_static(b"call"), Box::new(drop)).unwrap();
            }
        };
        aside(2);
        assert_eq!(group.sizes(), []);
        drop(proposer.submit(Bytes::from_static(b"call")).unwrap());
        assert_eq!(group.sizes(), [3]);
        end_first(&group, &proposer);
        // Without another call they go by themselves,
        aside(2);
        tokio::time::sleep(ASIDE_DELAY * 2).await;
        assert_eq!(group.sizes(), [2]);
        end_first(&group, &proposer);
        // and again,
        aside(1);
        tokio::time::sleep(ASIDE_DELAY * 2).await;
        assert_eq!(group.sizes(), [1]);
        end_first(&group, &proposer);
        // and when they are many.
        aside(ASIDE_MAX);
        assert_eq!(group.sizes(), [ASIDE_MAX]);
    }

    #[tokio::test]
    async fn who_does_not_wait_is_told_what_came_of_a_call_that_was_taken() {
        let (group, proposer) = queued(0);
        let (told, tells) = std::sync::mpsc::channel();
        let aside = || {
            let told = told.clone();
            let done = move |answer: Result<Response, FsError>| told.send(answer.map(drop)).unwrap();
            proposer.submit_aside(Bytes::from_static(b"call"), Box::new(done))
        };
        aside().unwrap();
        proposer.hurry();
        // Lost, and all that come after are refused.
        drop(group.0.lock().unwrap().pop_front().unwrap());
        assert_eq!(tells.try_recv(), Ok(Err(FsError::Delay)));
        assert_eq!(aside(), Err(FsError::Io));
        assert!(tells.try_recv().is_err());
    }
}
