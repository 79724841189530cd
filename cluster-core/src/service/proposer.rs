//! From single calls to entries of the log, and back.
//!
//! There is no task and no timer in the way: the caller that finds a free place among the entries in flight proposes at once
//! what waits; when an entry was applied, the thread that applied it proposes the next, then answers. So one caller
//! alone waits for one sync, and many callers share each sync: while some entries are in flight, the next batch gathers until it has
//! as many calls as they have, or they are through. (At once whatever came, the first call back would take a sync for itself, and so would
//! the second; of 64 callers two batches of 32 take turns now.)
//!
//! A caller that is alone and may wait does the group's work for its call itself, so that no thread is woken.
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
use tokio::runtime::Handle;
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

/// How often at most a gathering batch looks whether more has come. Between two looks everything that was ready to run on a thread of the
/// runtime has run, or 61 tasks.
const GATHER_LOOKS: usize = 32;

/// When it looks no more: the thread that looks may be busy with others' long calls, while another sees that the time is over.
const GATHER_TIME: Duration = Duration::from_millis(2);

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

    /// As [`crate::raft::group::RaftGroup::propose_here`].
    fn propose_here(&self, commands: Vec<Bytes>, done: Completion<Proposed>);
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
    /// Somebody waits for more to come, and then proposes.
    gathering: bool,
    /// Callers of the last batch.
    last_callers: usize,
}

/// What is to be done now with what waits.
enum Step<P: Propose> {
    Nothing,
    /// Not to be dropped while the queue is locked.
    Gather(Gathering<P>),
    Propose(Ready),
}

impl Queue {
    /// Whether what waits is worth an entry of its own beside those in flight.
    fn is_due(&self, limits: &Limits) -> bool {
        if !self.overdue && self.aside == self.waiting.len() && self.aside < ASIDE_MAX {
            return false;
        }
        let alone = self.in_flight == 0 && !self.gathering;
        let as_many = self.in_flight > 0 && self.waiting.len() >= self.calls_in_flight;
        !self.waiting.is_empty()
            && self.in_flight < limits.in_flight
            && (alone || as_many || self.is_full(limits))
    }

    fn is_full(&self, limits: &Limits) -> bool {
        self.waiting.len() >= limits.batch_calls || self.bytes >= limits.batch_bytes
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
    /// That of those who call.
    runtime: Handle,
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
    /// # Panics
    /// Outside a runtime.
    pub(super) fn new(group: P, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            group,
            limits,
            runtime: Handle::current(),
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
    /// is unknown because the group lost its leader or stopped meanwhile. `here`: this thread may do what is to be done for it, if no other call is in flight.
    pub(super) fn submit(self: &Arc<Self>, command: Bytes, here: bool) -> Result<Awaited, FsError> {
        let (tx, rx) = oneshot::channel();
        self.enqueue(command, Answer::Awaited(tx), here).map(|()| rx)
    }

    /// The same for a command whose answer nobody waits for: `done` is given it, if the command was taken. On a runtime with time.
    pub(super) fn submit_aside(self: &Arc<Self>, command: Bytes, done: Aside) -> Result<(), FsError> {
        self.enqueue(command, Answer::Aside(done), false)?;
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
        let step = {
            let mut queue = self.queue();
            queue.overdue = queue.aside > 0;
            self.step(&mut queue)
        };
        self.go(step, false);
    }

    fn enqueue(self: &Arc<Self>, command: Bytes, answer: Answer, here: bool) -> Result<(), FsError> {
        if command.len() > self.limits.call_bytes {
            return Err(FsError::Invalid);
        }
        let (step, here) = {
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
            let step = self.step(&mut queue);
            // What is to be proposed is in flight already.
            (step, here && queue.in_flight == 1)
        };
        self.go(step, here);
        Ok(())
    }

    fn step(self: &Arc<Self>, queue: &mut Queue) -> Step<P> {
        if !queue.is_due(&self.limits) {
            return Step::Nothing;
        }
        if queue.in_flight == 0 && queue.last_callers > 1 && !queue.is_full(&self.limits) {
            queue.gathering = true;
            return Step::Gather(Gathering(self.clone()));
        }
        Step::Propose(self.take_batch(queue))
    }

    /// `here` as for [`Proposer::send`].
    fn go(self: &Arc<Self>, step: Step<P>, here: bool) {
        match step {
            Step::Nothing => {}
            Step::Gather(gathering) => drop(self.runtime.spawn(gathering.until_idle())),
            Step::Propose(ready) => self.send(ready, here),
        }
    }

    fn take_batch(&self, queue: &mut Queue) -> Ready {
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
        queue.last_callers = ready.answers.iter().filter(|answer| !answer.is_aside()).count();
        ready
    }

    /// `here`: this thread does the group's work for it.
    fn send(self: &Arc<Self>, Ready { commands, answers }: Ready, here: bool) {
        self.calls.fetch_add(commands.len() as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        let this = self.clone();
        let done = Completion::new(move |result| this.complete(answers, result));
        if here {
            self.group.propose_here(commands, done);
        } else {
            self.group.propose(commands, done);
        }
    }

    /// The next batch first, if it goes at once, so that its sync runs while the answers go out.
    fn complete(self: &Arc<Self>, answers: Vec<Answer>, result: Option<Proposed>) {
        if result.is_none() {
            self.fail();
        }
        let (step, idle) = {
            let mut queue = self.queue();
            queue.in_flight -= 1;
            queue.calls_in_flight -= answers.len();
            let step = self.step(&mut queue);
            (step, queue.in_flight == 0)
        };
        let gather = match step {
            Step::Propose(ready) => {
                self.send(ready, false);
                Step::Nothing
            }
            later => later,
        };
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
        self.go(gather, false);
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

/// A batch that gathers. Proposed when this is dropped, so also if the runtime ends.
struct Gathering<P: Propose>(Arc<Proposer<P>>);

impl<P: Propose> Gathering<P> {
    /// Until two looks in a row find nothing new.
    async fn until_idle(self) {
        let looks = async {
            let (mut seen, mut quiet) = (0, 0);
            for _ in 0..GATHER_LOOKS {
                let waiting = self.0.queue().waiting.len();
                quiet = if waiting == seen { quiet + 1 } else { 0 };
                if quiet == 2 {
                    break;
                }
                seen = waiting;
                tokio::task::yield_now().await;
            }
        };
        let _either = tokio::time::timeout(GATHER_TIME, looks).await;
    }
}

impl<P: Propose> Drop for Gathering<P> {
    fn drop(&mut self) {
        let this = &self.0;
        let ready = {
            let mut queue = this.queue();
            queue.gathering = false;
            queue.is_due(&this.limits).then(|| this.take_batch(&mut queue))
        };
        if let Some(ready) = ready {
            this.send(ready, false);
        }
    }
}

#[cfg(test)]
mod tests;
