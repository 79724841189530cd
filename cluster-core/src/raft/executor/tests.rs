#![allow(clippy::unwrap_used)]

use super::*;
use crate::raft::thread::Thread;
use std::sync::mpsc;
use std::thread::{ThreadId, current};
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Long enough for a loaded machine; nothing waits so long that works.
const PATIENCE: Duration = Duration::from_secs(60);

type Question = (u64, mpsc::Sender<(u64, ThreadId)>);

/// The executor and a thread that does nothing but run it: what wakes the group's thread otherwise would hide a lost wake-up.
struct Bare {
    executor: Arc<Executor>,
    thread: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Bare {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let executor = Executor::new(runtime.handle().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let runs = executor.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = runs.run() => {}
                }
            });
            runs.close();
        });
        Self { executor, thread: Some((stop, thread)) }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let (stop, thread) = self.thread.take().unwrap();
        drop(stop);
        thread.join().unwrap();
    }
}

/// A chain of tasks, each of which hands a question to the next; the last answers with the number and the thread it is on.
fn chain(spawn: impl Fn(Task), length: usize) -> UnboundedSender<Question> {
    let (first, mut questions) = unbounded_channel::<Question>();
    for _ in 1..length {
        let (next, later) = unbounded_channel();
        let mut here = std::mem::replace(&mut questions, later);
        spawn(Box::pin(async move {
            while let Some(question) = here.recv().await {
                let _ = next.send(question);
            }
        }));
    }
    spawn(Box::pin(async move {
        while let Some((number, answer)) = questions.recv().await {
            let _ = answer.send((number, current().id()));
        }
    }));
    first
}

/// See [`chain`].
fn chain_on(executor: &Executor, length: usize) -> UnboundedSender<Question> {
    chain(|task| drop(executor.spawn(task)), length)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_runs_what_it_needs_on_its_own_thread() {
    let bare = Bare::start();
    let executor = &bare.executor;
    let first = chain_on(executor, 4);
    let (tx, rx) = mpsc::channel();
    // Until the tasks have all been polled once, and the group's thread rests, it may be the one that acts.
    let begin = Instant::now();
    for number in 0.. {
        executor.run_here(|| first.send((number, tx.clone())).unwrap());
        let answered_here = rx.try_recv() == Ok((number, current().id()));
        if answered_here {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
        while rx.recv_timeout(Duration::from_millis(1)).is_ok() {}
    }
    // Otherwise the thread of the group.
    while rx.try_recv().is_ok() {}
    first.send((7, tx)).unwrap();
    let (number, by) = rx.recv_timeout(PATIENCE).unwrap();
    assert!(number == 7 && by != current().id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_is_left_however_callers_and_thread_take_turns() {
    let bare = Bare::start();
    let executor = &bare.executor;
    let first = chain_on(executor, 3);
    let (tx, rx) = mpsc::channel();
    const CALLERS: u64 = 4;
    const EACH: u64 = 5000;
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (executor, first, tx) = (executor.clone(), first.clone(), tx.clone());
            std::thread::spawn(move || {
                for n in 0..EACH {
                    let question = (caller * EACH + n, tx.clone());
                    // Some come from elsewhere, as the answers of the log's thread do.
                    if n % 3 == caller % 3 {
                        first.send(question).unwrap();
                    } else {
                        executor.run_here(|| first.send(question).unwrap());
                    }
                    if n % 16 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut seen = vec![false; (CALLERS * EACH) as usize];
    for _ in 0..seen.len() {
        let (number, _) = rx.recv_timeout(PATIENCE).expect("a wake-up was lost");
        assert!(!std::mem::replace(&mut seen[number as usize], true));
    }
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_panics_leaves_its_work_to_the_thread() {
    let bare = Bare::start();
    let executor = &bare.executor;
    let first = chain_on(executor, 2);
    for number in 0..100 {
        let (tx, rx) = mpsc::channel();
        let begin = || {
            first.send((number, tx)).unwrap();
            panic!("as told");
        };
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| executor.run_here(begin))).is_err());
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap().0, number);
        assert!(!is_caller());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_panics_ends_alone() {
    let bare = Bare::start();
    let executor = &bare.executor;
    let first = chain_on(executor, 2);
    let broken = executor.spawn(async { panic!("as told") });
    assert_eq!(broken.await, Err::<(), _>(JoinError::Panicked));
    let (tx, rx) = mpsc::channel();
    executor.run_here(|| first.send((1, tx)).unwrap());
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_spawn_beside_themselves_sleep_and_end_with_the_thread() {
    let thread = Thread::start(1).unwrap();
    let parent = async {
        let sleep = tokio::time::sleep(Duration::from_millis(1));
        let child = spawn(async {
            sleep.await;
            HERE.with_borrow(|here| here.len() == 1)
        });
        child.await
    };
    assert_eq!(thread.spawn(parent).await.unwrap(), Ok(true));
    let forever = thread.spawn(std::future::pending::<()>());
    thread.stop();
    assert_eq!(forever.await, Err(JoinError::Dropped));
    assert_eq!(thread.spawn(async {}).await, Err(JoinError::Dropped));
    thread.run_here(|| ());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_its_own_tasks_may_stop_the_thread() {
    // On either thread.
    for by_caller in [false, true] {
        let thread = Arc::new(Thread::start(1).unwrap());
        let (stop, wish) = oneshot::channel::<()>();
        let held = thread.clone();
        let stopper = thread.spawn(async move {
            let _ = wish.await;
            held.stop();
        });
        let stop = || stop.send(()).unwrap();
        if by_caller {
            thread.run_here(stop)
        } else {
            stop()
        }
        // Ended, or dropped right behind its last word.
        let _ = tokio::time::timeout(PATIENCE, stopper).await.unwrap();
        let ended = async {
            while thread.spawn(async {}).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_knows_whose_thread_it_is_on() {
    let bare = Bare::start();
    let executor = &bare.executor;
    let (ask, mut asked) = unbounded_channel::<mpsc::Sender<(ThreadId, bool)>>();
    drop(executor.spawn(async move {
        while let Some(answer) = asked.recv().await {
            let _ = answer.send((current().id(), is_caller()));
        }
    }));
    let (tx, rx) = mpsc::channel();
    for n in 0..1000 {
        let begin = || ask.send(tx.clone()).unwrap();
        if n % 2 == 0 {
            let rest = executor.run_here(begin);
            assert!(rest.is_none(), "nobody is through");
        } else {
            begin();
        }
        let (on, by_caller) = rx.recv_timeout(PATIENCE).unwrap();
        assert_eq!(by_caller, on == current().id());
        assert!(!is_caller());
    }
}

type Asking = mpsc::Sender<ThreadId>;

/// Two tasks that answer with the thread they are on: the first says that a caller is through, the second is behind it.
struct Two {
    bare: Bare,
    first: UnboundedSender<Asking>,
    second: UnboundedSender<Asking>,
}

impl Two {
    fn start() -> Self {
        let bare = Bare::start();
        let (first, mut asked) = unbounded_channel::<Asking>();
        let (second, mut left) = unbounded_channel::<Asking>();
        let behind = second.clone();
        drop(bare.executor.spawn(async move {
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(current().id());
                through();
                // Ready before this task waits.
                let _ = behind.send(answer);
            }
        }));
        drop(bare.executor.spawn(async move {
            while let Some(answer) = left.recv().await {
                let _ = answer.send(current().id());
            }
        }));
        Self { bare, first, second }
    }

    /// A caller's way through the first task, with what else it does when it has asked, until it was this thread that did so.
    fn pass(&self, also: impl Fn()) -> (Option<Rest>, mpsc::Receiver<ThreadId>) {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < PATIENCE);
            let (tx, rx) = mpsc::channel();
            let rest = self.bare.executor.run_here(|| {
                self.first.send(tx).unwrap();
                self.bare.executor.brought();
                also();
            });
            if rx.recv_timeout(PATIENCE) == Ok(current().id()) {
                return (rest, rx);
            }
            // The thread was there first, and does both.
            rx.recv_timeout(PATIENCE).unwrap();
        }
    }

    /// Another asks the second task.
    fn ask(&self) -> mpsc::Receiver<ThreadId> {
        let (tx, rx) = mpsc::channel();
        let (second, executor) = (self.second.clone(), self.bare.executor.clone());
        let other = std::thread::spawn(move || {
            second.send(tx).unwrap();
            executor.brought();
        });
        other.join().unwrap();
        rx
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_leaves_is_done_when_it_comes_back_or_by_the_thread() {
    let two = Two::start();
    let (mut came_back, mut dropped) = (0, 0);
    let begin = Instant::now();
    while came_back < 100 || dropped < 100 {
        assert!(begin.elapsed() < PATIENCE);
        let (rest, rx) = two.pass(|| ());
        let rest = rest.expect("nobody else is there");
        // The thread may come by in between, of an earlier wake-up.
        if came_back <= dropped {
            rest.run();
            came_back += u64::from(rx.recv_timeout(PATIENCE).unwrap() == current().id());
        } else {
            drop(rest);
            dropped += u64::from(rx.recv_timeout(PATIENCE).unwrap() != current().id());
        }
    }
}

/// The second task is ready already, and so does not hear that more has come for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_when_a_caller_has_left_does_not_wait_for_it() {
    let two = Two::start();
    for _ in 0..200 {
        let (rest, rx) = two.pass(|| ());
        let other = two.ask();
        assert_ne!(other.recv_timeout(PATIENCE).unwrap(), current().id());
        assert_ne!(rx.recv_timeout(PATIENCE).unwrap(), current().id());
        rest.expect("nobody else was there").run();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_leaves_nothing_of_who_came_meanwhile() {
    let two = Two::start();
    for _ in 0..200 {
        let others = RefCell::new(Vec::new());
        let (rest, rx) = two.pass(|| others.borrow_mut().push(two.ask()));
        assert!(rest.is_none());
        assert_eq!(rx.try_recv(), Ok(current().id()));
        for other in others.take() {
            other.recv_timeout(PATIENCE).unwrap();
        }
    }
}

/// As a completion does that proposes what waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_leaves_nothing_that_its_own_tasks_bring() {
    let two = Two::start();
    let (first, mut asked) = unbounded_channel::<Asking>();
    let (executor, second) = (Arc::downgrade(&two.bare.executor), two.second.clone());
    drop(two.bare.executor.spawn(async move {
        while let (Some(answer), Some(executor)) = (asked.recv().await, executor.upgrade()) {
            let _ = answer.send(current().id());
            let _ = second.send(answer);
            executor.brought();
            through();
        }
    }));
    let two = Two { first, ..two };
    for _ in 0..200 {
        let (rest, rx) = two.pass(|| ());
        assert!(rest.is_none());
        assert_eq!(rx.try_recv(), Ok(current().id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_always_ready_keeps_no_caller() {
    let bare = Bare::start();
    let executor = &bare.executor;
    let busy = executor.spawn(async {
        loop {
            let mut again = true;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::take(&mut again) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        #[allow(unreachable_code)]
        ()
    });
    let first = chain_on(executor, 3);
    for number in 0..1000 {
        let (tx, rx) = mpsc::channel();
        executor.run_here(|| first.send((number, tx)).unwrap());
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap().0, number);
    }
    drop(bare);
    assert_eq!(busy.await, Err(JoinError::Dropped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thread_ends_only_when_a_caller_has_left() {
    for _ in 0..20 {
        let thread = Arc::new(Thread::start(1).unwrap());
        let first = chain(|task| drop(thread.spawn(task)), 2);
        let ((begun, wait_begun), (go, wait_go)) = (mpsc::channel(), mpsc::channel());
        let (tx, rx) = mpsc::channel();
        let caller = {
            let thread = thread.clone();
            std::thread::spawn(move || {
                thread.run_here(|| {
                    begun.send(()).unwrap();
                    wait_go.recv_timeout(PATIENCE).unwrap();
                    let _ = first.send((1, tx));
                });
            })
        };
        wait_begun.recv_timeout(PATIENCE).unwrap();
        let stopper = std::thread::spawn(move || thread.stop());
        go.send(()).unwrap();
        caller.join().unwrap();
        stopper.join().unwrap();
        // Answered, or dropped with the task.
        let answer = rx.recv_timeout(PATIENCE).map(|(number, _)| number);
        assert!(matches!(answer, Ok(1) | Err(mpsc::RecvTimeoutError::Disconnected)), "{answer:?}");
    }
}

/// Of two threads the one that waited for timers and sockets is the one that is stuck, and the other sleeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_a_caller_is_stuck() {
    let thread = Arc::new(Thread::start(1).unwrap());
    let (tx, rx) = mpsc::channel();
    // What ends it comes by a timer of the same runtime.
    let other = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tx.send(Instant::now()).unwrap();
    });
    let stuck = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let mut ended = None;
        thread.run_here(|| ended = rx.recv_timeout(PATIENCE).ok());
        assert!(ended.is_some(), "nobody looked after the timers");
    });
    stuck.await.unwrap();
    other.await.unwrap();
}
