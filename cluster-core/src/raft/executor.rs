//! What runs the tasks of a Raft group: one thread at a time, but not always the same.
//!
//! Usually that is the group's own thread ([`Executor::run`]). A caller who alone wants something of the group may run the tasks on
//! its own thread until all of them wait again ([`Executor::run_here`]): then a change wakes no thread, neither the group's nor
//! its own afterwards.
//!
//! Whoever runs them polls whatever is ready. What becomes ready meanwhile is only noted; who runs them looks at the note before it
//! leaves, and so no wake-up is lost ([`Wakeup`]). A caller runs them for a bounded number of rounds and leaves the rest to the
//! group's thread.
//!
//! When the caller's call is answered ([`through`]), it leaves what the tasks still have to do for themselves, and gets a [`Rest`], to be run once its answer is
//! on its way. Until somebody polls again, the tasks' wakers reach nobody: those of the tasks that are left were used, and what all of them wake was told.
//! Therefore whoever brings calls says so ([`Executor::brought`]): a caller stays if that happened since it came, and the group's thread takes over if it happens
//! after it left. Anything else (ticks, changes of membership) waits for the `Rest`, which comes next on the caller's thread, or until the group's thread looks ([`Executor::watch`]).
//!
//! The caller's thread is one of a runtime whose other tasks it keeps waiting. What it may wait for is another's business
//! ([`atoll_base::leave`]). If it waits long nevertheless, the group's thread calls another thread of the caller's
//! runtime, if it has more, to take its place ([`Executor::watch`]).

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::task::AtomicWaker;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::unconstrained;

/// How many times at most it is looked, in one go, whether a task is ready. A change takes few.
const ROUNDS: usize = 32;

/// How often the group's thread looks whether a caller is stuck, or something was left that nobody comes for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The executors whose tasks this thread runs just now, the innermost last.
    static HERE: RefCell<Vec<Here>> = const { RefCell::new(Vec::new()) };
}

/// A thread runs tasks.
struct Here {
    executor: Arc<Executor>,
    by: By,
    /// What the caller brings itself is still to come.
    begins: Cell<bool>,
    /// How often others had brought something before this thread came.
    others: u64,
    /// The call is answered, and what is left is left.
    is_through: Cell<bool>,
}

impl Here {
    fn others_came(&self) -> bool {
        self.executor.wakeup.others.load(Ordering::SeqCst) != self.others
    }
}

/// Who runs tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The group's thread.
    Thread,
    /// A caller, for its call.
    Caller,
    /// A caller's thread, for what it left.
    Rest,
}

/// Whether it is a caller's thread that runs what runs here.
pub(super) fn is_caller() -> bool {
    HERE.with_borrow(|here| here.last().is_some_and(|here| here.by != By::Thread))
}

/// Says that calls are answered. If a caller runs this here, and nobody else has brought anything, it leaves when the task that says so waits.
pub(super) fn through() {
    HERE.with_borrow(|here| {
        if let Some(here) = here.last().filter(|here| here.by == By::Caller) {
            here.is_through.set(here.executor.wakeup.leave(here.others));
        }
    });
}

fn is_through() -> bool {
    HERE.with_borrow(|here| here.last().is_some_and(|here| here.is_through.get()))
}

/// Whether this thread has done its part: a caller that is through, or one that came back for its [`Rest`] when others have come. Theirs is the group's thread's,
/// which may wait for the disk.
fn stops() -> bool {
    HERE.with_borrow(|here| {
        here.last().is_some_and(|here| here.is_through.get() || here.by == By::Rest && here.others_came())
    })
}

/// Why a task gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It panicked.
    #[error("the task panicked")]
    Panicked,
    /// The group's thread ended first.
    #[error("the task was dropped")]
    Dropped,
}

/// The result of a task. The task goes on if this is dropped.
#[derive(Debug)]
pub struct JoinHandle<T>(oneshot::Receiver<Result<T, JoinError>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or(Err(JoinError::Dropped)))
    }
}

/// Runs `future` beside what runs on this thread: on the same executor, or in the same runtime where there is none.
pub(super) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let executor = HERE.with_borrow(|here| here.last().map(|here| here.executor.clone()));
    match executor {
        Some(executor) => executor.spawn(future),
        None => {
            let (task, result) = task(future);
            tokio::spawn(task);
            result
        }
    }
}

fn task<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> (Task, JoinHandle<T>) {
    let (tx, rx) = oneshot::channel();
    let task = async move {
        let result = {
            let mut future = pin!(AssertUnwindSafe(future).catch_unwind());
            poll_fn(|cx| {
                if stops() {
                    // Still ready, for who comes next.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                future.as_mut().poll(cx)
            })
            .await
        };
        // Nobody may be interested.
        let _ = tx.send(result.map_err(|_| JoinError::Panicked));
    };
    (Box::pin(task), JoinHandle(rx))
}

/// Tells whoever runs the tasks, or else the group's thread, that one is ready. Tasks hold it in their wakers.
///
/// `noted` is set before `running` is read, and `running` cleared before `noted` is read, all in one order (SeqCst). So either who notes
/// sees that nobody runs them, and wakes the thread; or who leaves sees the note, and wakes the thread.
///
/// In the same way `left` is set before `others` is read, and `others` counted before `left` is read: either who is through sees that others came, and stays; or
/// they see that ready tasks were left, and wake the thread.
#[derive(Default)]
struct Wakeup {
    noted: AtomicBool,
    running: AtomicBool,
    /// Ready tasks were left to a [`Rest`].
    left: AtomicBool,
    /// How often something was brought by others than who runs the tasks for it.
    others: AtomicU64,
    thread: AtomicWaker,
}

impl Wakeup {
    fn note(&self) {
        self.noted.store(true, Ordering::SeqCst);
        if !self.running.load(Ordering::SeqCst) {
            self.thread.wake();
        }
    }

    /// For who brings something to do.
    fn brought(&self) {
        self.others.fetch_add(1, Ordering::SeqCst);
        if self.left.swap(false, Ordering::SeqCst) {
            self.thread.wake();
        }
    }

    /// Whether ready tasks may be left: nobody came since there were so many `others`.
    fn leave(&self, others: u64) -> bool {
        self.left.store(true, Ordering::SeqCst);
        let may = self.others.load(Ordering::SeqCst) == others;
        if !may {
            self.left.store(false, Ordering::SeqCst);
        }
        may
    }

    /// Nobody runs them any more. `is_left`: a [`Rest`] comes for what is ready, unless others came.
    fn end(&self, is_left: bool) {
        self.running.store(false, Ordering::SeqCst);
        if !(is_left && self.left.load(Ordering::SeqCst)) {
            self.look();
        }
    }

    fn look(&self) {
        if self.noted.load(Ordering::SeqCst) {
            self.thread.wake();
        }
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.note();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note();
    }
}

/// The tasks of one group.
pub(super) struct Executor {
    /// That of the group's thread, in which the tasks' timers run.
    runtime: Handle,
    /// None when the thread has ended.
    tasks: Mutex<Option<FuturesUnordered<Task>>>,
    /// Those that came since the tasks were last polled. None as above.
    spawned: Mutex<Option<Vec<Task>>>,
    wakeup: Arc<Wakeup>,
    waker: Waker,
    /// Counts twice for each caller that runs them: odd while one does.
    visits: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    /// `runtime`: that of the thread that will [`Executor::run`].
    pub(super) fn new(runtime: Handle) -> Arc<Self> {
        let wakeup = Arc::<Wakeup>::default();
        Arc::new(Self {
            runtime,
            tasks: Mutex::new(Some(FuturesUnordered::new())),
            spawned: Mutex::new(Some(Vec::new())),
            waker: wakeup.clone().into(),
            wakeup,
            visits: AtomicU64::new(0),
        })
    }

    /// Adds a task.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (task, result) = task(future);
        let refused = match &mut *lock(&self.spawned) {
            Some(spawned) => {
                spawned.push(task);
                None
            }
            None => Some(task),
        };
        // Dropped without a lock: it may hold anything.
        drop(refused);
        self.wakeup.note();
        result
    }

    /// The part of the group's thread: runs the tasks whenever no caller does. Without end.
    pub(super) async fn run(self: &Arc<Self>) {
        poll_fn(|cx| {
            self.wakeup.thread.register(cx.waker());
            if let Some(mut running) = Running::begin(self, By::Thread) {
                running.run(|| ());
            }
            Poll::Pending
        })
        .await
    }

    /// The part of a caller: runs `begin`, which gives the tasks something to do, and then the tasks, until all of them wait, it
    /// has done its share, or its call is answered. Only `begin` if another thread runs them just now.
    pub(super) fn run_here(self: &Arc<Self>, begin: impl FnOnce()) -> Option<Rest> {
        let Some(mut running) = Running::begin(self, By::Caller) else {
            begin();
            return None;
        };
        running.run(begin);
        running.is_left.then(|| Rest(self.clone()))
    }

    /// Must be told when something was sent to a task that somebody waits for.
    pub(super) fn brought(&self) {
        let is_own = HERE.with_borrow(|here| {
            here.last().is_some_and(|here| std::ptr::eq(&*here.executor, self) && here.begins.take())
        });
        if !is_own {
            self.wakeup.brought();
        }
    }

    /// Polls what is ready, until nothing is.
    fn rounds(&self, tasks: &mut FuturesUnordered<Task>) {
        let cx = &mut Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            if stops() || !self.wakeup.noted.swap(false, Ordering::SeqCst) {
                return;
            }
            tasks.extend(lock(&self.spawned).as_mut().map(std::mem::take).unwrap_or_default());
            while let Poll::Ready(Some(())) = tasks.poll_next_unpin(cx) {}
        }
    }

    /// Looks now and then whether something was left that nobody comes for, and whether a caller is stuck; if so has another thread of its `runtime` called, if
    /// there is one. Without end; on the group's thread, beside [`Executor::run`].
    ///
    /// Of a runtime's idle threads one waits for sockets and timers. It may be the caller's, while the others sleep until they
    /// are told that there is work. (What the caller's thread itself woke just before cannot be taken from it: one task.)
    pub(super) async fn watch(&self, runtime: &Handle) {
        let mut last = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.wakeup.look();
            let now = self.visits.load(Ordering::Relaxed);
            if now % 2 == 1 && now == last {
                runtime.spawn(std::future::ready(()));
            }
            last = now;
        }
    }

    /// Whether this thread runs tasks of this executor just now.
    pub(super) fn is_here(&self) -> bool {
        HERE.with_borrow(|here| here.iter().any(|here| std::ptr::eq(&*here.executor, self)))
    }

    /// Drops all tasks, and from now on those that come. Waits for a caller that runs them.
    pub(super) fn close(&self) {
        let _in_runtime = self.runtime.enter();
        let spawned = lock(&self.spawned).take();
        let tasks = lock(&self.tasks).take();
        drop((tasks, spawned));
    }
}

/// What a caller that is through left of the tasks' work. Dropped, it is the group's thread's.
pub(super) struct Rest(Arc<Executor>);

impl Rest {
    /// Runs the tasks until all of them wait or others come, unless another thread does.
    pub(super) fn run(self) {
        if let Some(mut running) = Running::begin(&self.0, By::Rest) {
            running.run(|| ());
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.wakeup.look();
    }
}

/// Held by the one thread that runs the tasks.
struct Running<'a> {
    executor: &'a Arc<Executor>,
    by: By,
    others: u64,
    /// Somebody comes back for what is ready.
    is_left: bool,
}

impl<'a> Running<'a> {
    fn begin(executor: &'a Arc<Executor>, by: By) -> Option<Self> {
        // Before anybody relies on this thread to run them.
        let others = executor.wakeup.others.load(Ordering::SeqCst);
        if executor.wakeup.running.swap(true, Ordering::SeqCst) {
            return None;
        }
        executor.wakeup.left.store(false, Ordering::SeqCst);
        let running = Self { executor, by, others, is_left: false };
        running.count();
        Some(running)
    }

    fn count(&self) {
        if self.by != By::Thread {
            self.executor.visits.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn run(&mut self, begin: impl FnOnce()) {
        let executor = self.executor;
        let _in_runtime = executor.runtime.enter();
        let _entered = Entered::new(Here {
            executor: executor.clone(),
            by: self.by,
            begins: Cell::new(self.by == By::Caller),
            others: self.others,
            is_through: Cell::new(false),
        });
        begin();
        HERE.with_borrow(|here| {
            if let Some(here) = here.last() {
                here.begins.set(false);
            }
        });
        let mut tasks = lock(&executor.tasks);
        let Some(tasks) = tasks.as_mut() else { return };
        // tokio's budget is for one task: shared by all of these, they would stop half-way. Here are bounds of our own.
        let mut rounds = pin!(unconstrained(poll_fn(|_| {
            executor.rounds(tasks);
            Poll::Ready(())
        })));
        let _ready = rounds.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.is_left = is_through();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.count();
        self.executor.wakeup.end(self.is_left);
    }
}

/// What this thread runs until this is dropped.
struct Entered;

impl Entered {
    fn new(here: Here) -> Self {
        HERE.with_borrow_mut(|all| all.push(here));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let here = HERE.with_borrow_mut(Vec::pop);
        // It may be the last that holds the executor.
        drop(here);
    }
}

#[cfg(test)]
mod tests;
