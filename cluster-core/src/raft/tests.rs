//! openraft's storage suite over log and state together, and three members in one process.

#![allow(clippy::unwrap_used)]

mod alone;

use super::group::{GroupError, GroupOptions, Leadership, RaftGroup, outcome};
use super::in_process::InProcess;
use super::log_store::LogStore;
use super::state_machine::{Machine, StateMachine};
use super::types::{BatchOutcome, Completion, Member, MemberId, TypeConfig};
use crate::log::Config;
use crate::state::{self, StateError, StateStore, StateWriter, View};
use atoll_base::disk::Disk;
use atoll_base::disk::sim::SimDisk;
use atoll_meta::{Outcome, Response};
use atoll_model::kv::{KvRead, KvWrite, Table};
use bytes::Bytes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Counts how often each command was applied.
#[derive(Default)]
struct Tally;

impl Machine for Tally {
    fn load(&mut self, _view: Arc<View>) -> Result<(), StateError> {
        Ok(())
    }

    fn apply(&mut self, state: &mut StateWriter<'_>, command: &Bytes) -> Result<Response, StateError> {
        let times = state.get(Table::Inode, command, |v| v.map_or(0, |v| v[0]))? + 1;
        state.put(Table::Inode, command, &[[times].as_slice(), &[0; 200]].concat())?;
        Ok(Response { result: Ok(Outcome::Written { verifier: u64::from(times) }), changes: Vec::new() })
    }

    fn end_batch(&mut self, _state: &mut StateWriter<'_>) -> Result<(), StateError> {
        Ok(())
    }

    fn publish(&mut self, _view: Arc<View>) -> Result<(), StateError> {
        Ok(())
    }
}

fn small() -> Config {
    Config { segment_bytes: 16 << 10, cache_bytes: 4 << 10, ..Config::default() }
}

fn stores(disk: &SimDisk) -> (LogStore, Arc<StateStore>) {
    stores_on(Arc::new(disk.clone()))
}

fn stores_on(disk: Arc<dyn Disk>) -> (LogStore, Arc<StateStore>) {
    let sizes = state::Config { cache_bytes: 1 << 20, flush_bytes: 16 << 10 };
    let state = StateStore::open(disk.clone(), Path::new(""), sizes, None).unwrap();
    (LogStore::open(disk, Path::new("log"), small()).unwrap(), Arc::new(state))
}

struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, StateMachine<Tally>> for Fresh {
    async fn build(&self) -> Result<((), LogStore, StateMachine<Tally>), StorageError<TypeConfig>> {
        let (log, state) = stores(&SimDisk::new());
        let machine = StateMachine::new(state, Tally, Arc::new(log.clone())).unwrap();
        Ok(((), log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Fresh).await.unwrap();
}

/// A member, running or not.
struct Node {
    id: MemberId,
    disk: SimDisk,
    running: Option<(RaftGroup<Tally>, Arc<StateStore>)>,
}

struct Cluster {
    net: InProcess<Tally>,
    nodes: BTreeMap<MemberId, Node>,
}

impl Cluster {
    /// Members 1 to 3; `found` are the voters that member 1 founds the group with.
    async fn start(found: &[MemberId]) -> Self {
        let mut cluster = Self { net: InProcess::default(), nodes: BTreeMap::new() };
        for id in [3, 2, 1] {
            cluster.nodes.insert(id, Node { id, disk: SimDisk::new(), running: None });
            let found = (id == 1).then(|| found.iter().map(|id| (*id, Member::default())).collect());
            cluster.run(id, found).await;
        }
        cluster
    }

    async fn run(&mut self, id: MemberId, found: Option<BTreeMap<MemberId, Member>>) {
        let node = self.nodes.get_mut(&id).unwrap();
        let options = GroupOptions {
            found,
            heartbeat: Duration::from_millis(50),
            keep_entries: 10,
            ..GroupOptions::single(node.id)
        };
        let (log, state) = stores(&node.disk);
        let group = RaftGroup::start(options, log, self.net.network(id), state.clone(), Tally).await.unwrap();
        self.net.connect(id, &group, state.clone());
        node.running = Some((group, state));
    }

    async fn stop(&mut self, id: MemberId) {
        self.net.disconnect(id);
        let (group, _state) = self.nodes.get_mut(&id).unwrap().running.take().unwrap();
        group.stop().await.unwrap();
    }

    /// Power cut: what was not synced is gone.
    fn crash(&mut self, id: MemberId, seed: u64) {
        self.net.disconnect(id);
        let node = self.nodes.get_mut(&id).unwrap();
        let after = node.disk.crash(seed);
        node.running = None;
        node.disk = after;
    }

    fn group(&self, id: MemberId) -> &RaftGroup<Tally> {
        &self.nodes[&id].running.as_ref().unwrap().0
    }

    fn running(&self) -> impl Iterator<Item = &RaftGroup<Tally>> {
        self.nodes.values().filter_map(|n| n.running.as_ref().map(|(group, _)| group))
    }

    /// Proposes through whoever leads until it is applied; elections may be under way. Each command is then applied at least once.
    async fn propose(&self, commands: std::ops::Range<u64>) {
        let commands: Vec<Bytes> = commands.map(|c| c.to_be_bytes().to_vec().into()).collect();
        let all = async {
            loop {
                for group in self.running() {
                    if group.leadership().borrow().leads
                        && let Some(BatchOutcome(responses)) = propose(group, commands.clone()).await
                    {
                        assert_eq!(responses.len(), commands.len());
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("no leader takes proposals");
    }

    fn contents(&self, id: MemberId) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let view = self.nodes[&id].running.as_ref().unwrap().1.view();
        let mut all = BTreeMap::new();
        view.reader()
            .scan(Table::Inode, Bound::Unbounded, Bound::Unbounded, |key, value| {
                all.insert(key.to_vec(), value.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        all
    }

    /// Waits until all running members hold commands `0..count`, and the same state.
    async fn converge(&self, count: usize) {
        let same = async {
            loop {
                let ids = self.nodes.values().filter(|n| n.running.is_some()).map(|n| n.id);
                let states: BTreeSet<_> = ids.map(|id| self.contents(id)).collect();
                if states.len() == 1 && states.first().unwrap().len() == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), same).await.expect("members do not converge");
    }

    async fn leader(&self) -> MemberId {
        let found = async {
            loop {
                for group in self.running() {
                    let Leadership { leads, leader, .. } = *group.leadership().borrow();
                    if let (true, Some(id)) = (leads, leader)
                        && group.linearize().await.is_ok()
                    {
                        return id;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.expect("no leader")
    }
}

async fn propose<M: Machine>(group: &RaftGroup<M>, commands: Vec<Bytes>) -> Option<BatchOutcome> {
    let (tx, rx) = oneshot::channel();
    group.propose(commands, Completion::new(move |result| drop(tx.send(result))));
    outcome(rx.await.unwrap()?)
}

/// Drops from the log everything that is durably in the state.
async fn purge(group: &RaftGroup<Tally>) {
    let durable = group.commit_durable().await.unwrap().unwrap().index;
    let purged = async {
        while group.status().purged < durable {
            group.purge(false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), purged).await.expect("the log is not purged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_elect_replicate_and_survive_each_other() {
    let mut cluster = Cluster::start(&[1, 2, 3]).await;
    cluster.propose(0..100).await;
    cluster.converge(100).await;

    // One follower down: the others go on; back, it catches up from the log.
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    cluster.stop(follower).await;
    for i in 0..10 {
        cluster.propose(100 + i * 10..110 + i * 10).await;
    }
    cluster.run(follower, None).await;
    cluster.converge(200).await;
    assert_eq!(cluster.net.snapshots_sent(), 0);

    // Down for longer than the log is kept: it catches up by a snapshot.
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    cluster.crash(follower, 7);
    for i in 0..40 {
        cluster.propose(200 + i * 10..210 + i * 10).await;
    }
    for group in cluster.running() {
        purge(group).await;
    }
    cluster.propose(600..601).await;
    cluster.run(follower, None).await;
    cluster.converge(601).await;
    assert!(cluster.net.snapshots_sent() >= 1);

    // The leader loses its power: another one is elected, nothing that was answered is lost.
    let leader = cluster.leader().await;
    cluster.crash(leader, 8);
    cluster.propose(601..700).await;
    assert_ne!(cluster.leader().await, leader);
    cluster.run(leader, None).await;
    cluster.converge(700).await;
    for id in [1, 2, 3] {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_no_reads() {
    let cluster = Cluster::start(&[1, 2, 3]).await;
    cluster.propose(0..10).await;
    let old = cluster.leader().await;
    cluster.net.cut(old);
    let others = async {
        loop {
            for group in cluster.running() {
                let now = *group.leadership().borrow();
                if now.leads && now.leader != Some(old) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), others).await.expect("no other leader");
    assert!(!cluster.group(old).reads_locally());
    let read = tokio::time::timeout(Duration::from_secs(30), cluster.group(old).linearize()).await.unwrap();
    assert!(matches!(read, Err(GroupError::NotLeader)), "{read:?}");
    cluster.net.mend(old);
    cluster.propose(10..20).await;
    cluster.converge(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_grows_to_three() {
    let cluster = Cluster::start(&[1]).await;
    assert!(cluster.group(1).reads_locally());
    for i in 0..20 {
        cluster.propose(i * 10..i * 10 + 10).await;
    }
    // New members do not get the whole log.
    purge(cluster.group(1)).await;
    for id in [2, 3] {
        cluster.group(1).add_learner(id, Member::default()).await.unwrap();
    }
    cluster.group(1).change_voters([1, 2, 3].into()).await.unwrap();
    assert!(!cluster.group(1).reads_locally());
    cluster.group(1).linearize().await.unwrap();
    cluster.net.cut(1);
    cluster.propose_to_others(200..210, 1).await;
    cluster.net.mend(1);
    cluster.converge(210).await;
    // Not before: a member counts as having caught up when little of the log is missing, though that may be all it has.
    assert!(cluster.net.snapshots_sent() >= 2);
}

impl Cluster {
    /// As [`Cluster::propose`], through any member but one.
    async fn propose_to_others(&self, commands: std::ops::Range<u64>, but: MemberId) {
        let commands: Vec<Bytes> = commands.map(|c| c.to_be_bytes().to_vec().into()).collect();
        let all = async {
            loop {
                for group in self.running() {
                    let now = *group.leadership().borrow();
                    if now.leads
                        && now.leader != Some(but)
                        && propose(group, commands.clone()).await.is_some()
                    {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("no other leader takes proposals");
    }
}
