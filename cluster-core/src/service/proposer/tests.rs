//! Which calls go together, and when.

#![allow(clippy::unwrap_used)]

mod ends;

use super::*;

/// Takes batches and keeps them until they are let go without a result.
#[derive(Default)]
struct Group {
    batches: Mutex<VecDeque<(usize, Completion<Proposed>)>>,
    /// How many were to be done by the caller.
    here: AtomicU64,
}

impl Propose for Arc<Group> {
    fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        self.batches.lock().unwrap().push_back((commands.len(), done));
    }

    fn propose_here(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.propose(commands, done);
    }
}

impl Group {
    fn sizes(&self) -> Vec<usize> {
        self.batches.lock().unwrap().iter().map(|(size, _)| *size).collect()
    }
}

fn queued(calls: usize) -> (Arc<Group>, Arc<Proposer<Arc<Group>>>) {
    let group = Arc::new(Group::default());
    let proposer = Proposer::new(group.clone(), Limits::default());
    (0..calls).for_each(|_| drop(proposer.submit(Bytes::from_static(b"call"), false).unwrap()));
    (group, proposer)
}

/// As the end of the first batch does, but with the group still there.
fn end_first(group: &Group, proposer: &Arc<Proposer<Arc<Group>>>) {
    let (size, done) = group.batches.lock().unwrap().pop_front().unwrap();
    // It would fail the queue.
    std::mem::forget(done);
    let mut queue = proposer.queue();
    queue.in_flight -= 1;
    queue.calls_in_flight -= size;
    let step = proposer.step(&mut queue);
    drop(queue);
    proposer.go(step, false);
}

fn call(proposer: &Arc<Proposer<Arc<Group>>>, times: usize) {
    (0..times).for_each(|_| drop(proposer.submit(Bytes::from_static(b"call"), false).unwrap()));
}

#[tokio::test]
async fn a_call_alone_does_not_wait() {
    let (group, proposer) = queued(1);
    assert_eq!(group.sizes(), [1]);
    end_first(&group, &proposer);
    call(&proposer, 1);
    assert_eq!(group.sizes(), [1]);
}

#[tokio::test]
async fn who_is_alone_and_may_wait_does_the_work_itself() {
    let (group, proposer) = queued(0);
    let here = |times| {
        (0..times).for_each(|_| drop(proposer.submit(Bytes::from_static(b"call"), true).unwrap()));
        group.here.load(Ordering::Relaxed)
    };
    assert_eq!(here(1), 1);
    // Beside another batch, it would wait for more than its own.
    assert_eq!(here(1), 1);
    end_first(&group, &proposer);
    end_first(&group, &proposer);
    call(&proposer, 1);
    assert_eq!(here(0), 1);
    end_first(&group, &proposer);
    // One that nobody waits for rides with the call; the second call waits for that batch.
    proposer.submit_aside(Bytes::from_static(b"call"), Box::new(|_| ())).unwrap();
    assert_eq!(here(2), 2);
    assert_eq!(group.sizes(), [2]);
}

#[tokio::test]
async fn beside_others_calls_gather_until_they_are_as_many() {
    let (group, proposer) = queued(64);
    assert_eq!(group.sizes(), [1, 1, 2]);
    // The places are taken; the rest goes as one.
    end_first(&group, &proposer);
    assert_eq!(group.sizes(), [1, 2, 60]);
    call(&proposer, 4);
    end_first(&group, &proposer);
    end_first(&group, &proposer);
    assert_eq!(group.sizes(), [60], "four calls are not worth a sync beside sixty");
    call(&proposer, 55);
    assert_eq!(group.sizes(), [60]);
    call(&proposer, 1);
    assert_eq!(group.sizes(), [60, 60]);
}

#[tokio::test]
async fn after_a_batch_of_many_the_next_gathers_until_nothing_else_is_to_do() {
    let (group, proposer) = queued(64);
    (0..3).for_each(|_| end_first(&group, &proposer));
    assert_eq!(group.sizes(), [60]);
    // Two wait as it ends, and whatever ran on the runtime meanwhile brings three more, one after the other.
    call(&proposer, 2);
    end_first(&group, &proposer);
    assert_eq!(group.sizes(), []);
    for _ in 0..3 {
        tokio::task::yield_now().await;
        call(&proposer, 1);
    }
    assert_eq!(group.sizes(), []);
    for _ in 0..GATHER_LOOKS {
        tokio::task::yield_now().await;
    }
    assert_eq!(group.sizes(), [5]);
    end_first(&group, &proposer);
    // A full batch does not gather.
    call(&proposer, Limits::default().batch_calls);
    assert_eq!(group.sizes(), [Limits::default().batch_calls]);
}

#[test]
fn what_gathers_goes_when_its_runtime_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (group, proposer) = runtime.block_on(async {
        let (group, proposer) = queued(4);
        (0..3).for_each(|_| end_first(&group, &proposer));
        call(&proposer, 2);
        (group, proposer)
    });
    assert_eq!(group.sizes(), []);
    drop(runtime);
    assert_eq!(group.sizes(), [2]);
    drop(proposer);
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
    drop(proposer.submit(Bytes::from_static(b"call"), false).unwrap());
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
    drop(group.batches.lock().unwrap().pop_front().unwrap());
    assert_eq!(tells.try_recv(), Ok(Err(FsError::Delay)));
    assert_eq!(aside(), Err(FsError::Io));
    assert!(tells.try_recv().is_err());
}
