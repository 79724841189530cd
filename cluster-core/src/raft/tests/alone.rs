//! A group of one member never stands still: it leads however slow its log is, and who waits for it hears when it ends.

use super::*;
use crate::raft::log_store::Early;
use crate::raft::types::{Entry, LogId, Vote};
use atoll_base::disk::wrap::{HoldWrites, WrapDisk};
use atoll_base::leave;
use futures_util::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

/// Breaks down over a command, which it has half done by then.
struct Breaks;

impl Machine for Breaks {
    fn load(&mut self, _view: Arc<View>) -> Result<(), StateError> {
        Ok(())
    }

    fn apply(&mut self, state: &mut StateWriter<'_>, command: &Bytes) -> Result<Response, StateError> {
        let response = Tally.apply(state, command);
        assert!(command != "break", "as told");
        response
    }

    fn end_batch(&mut self, _state: &mut StateWriter<'_>) -> Result<(), StateError> {
        Ok(())
    }

    fn publish(&mut self, _view: Arc<View>) -> Result<(), StateError> {
        Ok(())
    }
}

/// A log that is slow with all that it has to make durable, or does not let the state machine read.
#[derive(Clone)]
struct Slow {
    log: LogStore,
    pause: Duration,
    breaks: bool,
}

impl RaftLogReader<TypeConfig> for Slow {
    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend {
        assert!(!self.breaks, "as told");
        self.log.entries_stream(range).await
    }

    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        self.log.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.log.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for Slow {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.log.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        tokio::time::sleep(self.pause).await;
        self.log.save_vote(vote).await?;
        tokio::time::sleep(self.pause).await;
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (tx, rx) = TypeConfig::oneshot();
        self.log.append(entries, IOFlushed::signal(tx)).await?;
        let pause = self.pause;
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            callback.io_completed(rx.await.unwrap());
        });
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.log.read_committed().await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log.purge(upto).await
    }
}

impl Early for Slow {
    fn settle(&self) -> io::Result<()> {
        self.log.settle()
    }

    fn set_alone(&self, alone: bool) -> io::Result<()> {
        self.log.set_alone(alone)
    }
}

/// Ends, or the test hangs.
async fn in_time<R>(what: &str, work: impl Future<Output = R>) -> R {
    tokio::time::timeout(Duration::from_secs(60), work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

fn usual(log: LogStore) -> Slow {
    Slow { log, pause: Duration::ZERO, breaks: false }
}

async fn alone<M: Machine>(
    disk: &SimDisk,
    machine: M,
    heartbeat: Duration,
    slow: impl FnOnce(LogStore) -> Slow,
) -> Result<(RaftGroup<M>, Arc<StateStore>), GroupError> {
    let (log, state) = stores(disk);
    let options = GroupOptions { heartbeat, ..GroupOptions::single(1) };
    let network = InProcess::<M>::default().network(1);
    let start = RaftGroup::start(options, slow(log), network, state.clone(), machine);
    Ok((in_time("the start", start).await?, state))
}

async fn failure<M: Machine>(group: &RaftGroup<M>) {
    while group.failure().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How often a command was applied, as far as a state shows.
fn times(state: &StateStore, command: &str) -> u8 {
    state.view().reader().get(Table::Inode, command.as_bytes(), |v| v.map_or(0, |v| v[0])).unwrap()
}

#[tokio::test]
async fn a_panic_while_applying_ends_the_group_and_not_the_patience_of_callers() {
    let disk = SimDisk::new();
    let heartbeat = Duration::from_millis(50);
    let (group, state) = alone(&disk, Breaks, heartbeat, usual).await.unwrap();
    assert!(in_time("an answer", propose(&group, vec!["before".into()])).await.is_some());
    let lost = [vec!["beside", "break"], vec!["after"]]
        .map(|commands| propose(&group, commands.into_iter().map(Bytes::from).collect()));
    assert_eq!(in_time("an answer", futures_util::future::join_all(lost)).await, [None, None]);
    in_time("the group's end", failure(&group)).await;
    assert_eq!(in_time("another answer", propose(&group, vec!["more".into()])).await, None);
    // What was half done is neither seen nor written.
    let seen =
        |state: &StateStore| ["before", "beside", "break", "after"].map(|command| times(state, command));
    assert_eq!(seen(&state), [1, 0, 0, 0]);
    state.commit_durable().unwrap();
    drop((group, state));
    assert_eq!(seen(&stores(&disk.crash(0)).1), [1, 0, 0, 0]);
    // It is in the log and meets the next life, too.
    let again = alone(&disk.crash(1), Breaks, heartbeat, usual).await;
    assert!(matches!(again, Err(GroupError::Stopped(_))), "{:?}", again.err());
}

#[tokio::test]
async fn a_start_ends_when_nobody_applies_any_more() {
    let breaks = |log| Slow { breaks: true, ..usual(log) };
    let started = alone(&SimDisk::new(), Tally, Duration::from_millis(5), breaks).await;
    assert!(matches!(started, Err(GroupError::Stopped(_))), "{:?}", started.err());
}

#[tokio::test]
async fn the_only_voter_leads_however_slow_its_log_is() {
    // Each step takes many times what an election does.
    let heartbeat = Duration::from_millis(5);
    let slow = |log| Slow { log, pause: Duration::from_millis(150), breaks: false };
    let mut disk = SimDisk::new();
    let mut term = 0;
    for life in 0..4 {
        let (group, _state) = alone(&disk, Tally, heartbeat, slow).await.unwrap();
        assert!(group.reads_locally());
        // One election of its own, and perhaps one that a tick began before.
        let now = group.leadership().borrow().term;
        assert!(now <= term + 2, "term {now} after {term} in life {life}");
        term = now;
        assert!(in_time("an answer", propose(&group, vec!["call".into()])).await.is_some());
        drop(group);
        disk = disk.crash(life);
    }
}

/// Says on which thread it applies.
struct Placed(std::sync::mpsc::Sender<std::thread::ThreadId>);

impl Machine for Placed {
    fn load(&mut self, _view: Arc<View>) -> Result<(), StateError> {
        Ok(())
    }

    fn apply(&mut self, state: &mut StateWriter<'_>, command: &Bytes) -> Result<Response, StateError> {
        let _ = self.0.send(std::thread::current().id());
        Tally.apply(state, command)
    }

    fn end_batch(&mut self, _state: &mut StateWriter<'_>) -> Result<(), StateError> {
        Ok(())
    }

    fn publish(&mut self, _view: Arc<View>) -> Result<(), StateError> {
        Ok(())
    }
}

/// A group whose callers may sync themselves, as the service's.
async fn with_callers<M: Machine>(disk: &SimDisk, machine: M) -> (RaftGroup<M>, Arc<StateStore>) {
    let (log, state) = stores(disk);
    let network = InProcess::<M>::default().network(1);
    let start = RaftGroup::start(GroupOptions::single(1), log, network, state.clone(), machine);
    (in_time("the start", start).await.unwrap(), state)
}

/// Proposes as a caller that may run the group itself.
fn propose_here<M: Machine>(group: &RaftGroup<M>) -> oneshot::Receiver<Option<BatchOutcome>> {
    let (done, answer) = oneshot::channel();
    let done = Completion::new(move |proposed: Option<_>| drop(done.send(proposed.and_then(outcome))));
    group.propose_here(vec!["call".into()], done);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_alone_has_its_answer_without_another_thread() {
    let disk = SimDisk::new();
    let (tx, applied_on) = std::sync::mpsc::channel();
    let (group, state) = with_callers(&disk, Placed(tx)).await;
    let (group, calls) = tokio::spawn(async move {
        let (mut at_once, mut calls) = (0, 0);
        // A tick of the group may be under way just when one is proposed.
        while at_once < 20 {
            let (mut answer, waited) = leave::with(true, || propose_here(&group));
            let applied_here = applied_on.try_recv() == Ok(std::thread::current().id());
            match answer.try_recv() {
                Ok(answer) => {
                    assert!(answer.is_some());
                    at_once += u32::from(applied_here && waited);
                }
                Err(_) => assert!(in_time("an answer", answer).await.unwrap().is_some()),
            }
            while applied_on.try_recv().is_ok() {}
            calls += 1;
            // As many as the machine counts.
            assert!(calls < 255, "{at_once} of {calls} at once");
            // What it left is done before the next, as it is while a client gets its answer.
            tokio::task::yield_now().await;
        }
        // Without leave, it is not waited here for the disk.
        assert!(in_time("an answer", propose_here(&group)).await.unwrap().is_some());
        (group, calls + 1)
    })
    .await
    .unwrap();
    // As durable as any other: the power goes while it runs, before a log that ends in peace syncs what is left.
    let after = disk.crash(0);
    drop((group, state));
    let (group, state) = alone(&after, Tally, Duration::from_millis(50), usual).await.unwrap();
    assert_eq!(u32::from(times(&state, "call")), calls);
    drop(group);
}

/// A failing sync on a caller's thread ends the group as one anywhere else does, and whoever calls hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_under_a_caller_ends_the_group() {
    let disk = SimDisk::new();
    let (group, _state) = with_callers(&disk, Tally).await;
    let _after = disk.crash(0);
    for _ in 0..3 {
        let (answer, _) = leave::with(true, || propose_here(&group));
        assert_eq!(in_time("an answer", answer).await.unwrap(), None);
    }
    in_time("the group's end", failure(&group)).await;
}

/// Executed while the disk writes it, but seen and answered when it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_executed_before_and_seen_after_it_is_durable() {
    let sim = SimDisk::new();
    let held = HoldWrites::new(Arc::new(sim.clone()));
    let (log, state) = stores_on(Arc::new(WrapDisk(held.clone())));
    let (tx, applied_on) = std::sync::mpsc::channel();
    let network = InProcess::<Placed>::default().network(1);
    let start = RaftGroup::start(GroupOptions::single(1), log, network, state.clone(), Placed(tx));
    let group = Arc::new(in_time("the start", start).await.unwrap());
    // The first ones may go to a segment that was not synced yet as a whole.
    for _ in 0..3 {
        let (answer, _) = leave::with(true, || propose_here(&group));
        assert!(in_time("an answer", answer).await.unwrap().is_some());
        applied_on.try_recv().unwrap();
    }
    let mut calls = 3;
    let mut is_early = false;
    while !is_early {
        held.wait.shut(true);
        let (caller, told) = (group.clone(), oneshot::channel());
        let call = tokio::task::spawn_blocking(move || {
            let (answer, _) = leave::with(true, || propose_here(&caller));
            told.0.send(answer).unwrap();
        });
        // Nobody has it durable yet. It has been applied, unless somebody without leave to wait for the disk ran the group's tasks just then.
        held.wait.until_somebody_waits();
        is_early = applied_on.try_recv().is_ok();
        // (Whether the caller or the group's thread waits: nothing shows.)
        assert_eq!(times(&state, "call"), calls);
        held.wait.shut(false);
        let answer = in_time("the call", told.1).await.unwrap();
        assert!(in_time("an answer", answer).await.unwrap().is_some());
        calls += 1;
        assert_eq!(times(&state, "call"), calls);
        in_time("the call", call).await.unwrap();
        while applied_on.try_recv().is_ok() {}
        // As many as the machine counts.
        assert!(calls < 255, "it is never executed early");
    }
    let after = sim.crash(0);
    drop((group, state));
    let (_group, state) = alone(&after, Tally, Duration::from_millis(50), usual).await.unwrap();
    assert_eq!(times(&state, "call"), calls);
}

/// What was executed and did not become durable is not seen, and nobody is told that it was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_become_durable_is_not_seen() {
    let sim = SimDisk::new();
    let (group, state) = with_callers(&sim, Tally).await;
    let mut seen = 0;
    // Until it is one of those that are executed early: others fail before.
    for _ in 0..3 {
        let (answer, _) = leave::with(true, || propose_here(&group));
        assert!(in_time("an answer", answer).await.unwrap().is_some());
        seen += 1;
    }
    sim.fail_next_sync("wal.append");
    let (answer, _) = leave::with(true, || propose_here(&group));
    assert_eq!(in_time("an answer", answer).await.unwrap(), None);
    assert_eq!(times(&state, "call"), seen);
    in_time("the group's end", failure(&group)).await;
    state.commit_durable().unwrap();
    assert_eq!(times(&state, "call"), seen);
}
