//! One Raft group as the rest of the program sees it: start, propose, read linearizably, watch, stop.
//!
//! The group's tasks run on a thread of its own ([`super::executor`]): they hand over to each other without waking threads, and
//! no connection's work stands in their way. Applying commands is work for the processor and the page cache, and happens there
//! too; what waits for the disk does not, but for the sync of a call that is alone. A caller that is alone can run the tasks on its own thread instead
//! ([`RaftGroup::propose_here`]).
//!
//! Reading. While this member is the *sole voter* and leads, nobody else can commit anything, so the published state
//! is the newest one there is: [`RaftGroup::reads_locally`]. Every change of membership goes through this module, which ends
//! that state before it proposes the change. With more voters a read asks openraft ([`RaftGroup::linearize`]): by the
//! leader's lease if it is fresh, else by a round of heartbeats.

use super::log_store::Early;
use super::state_machine::{Machine, StateMachine, blocking};
use super::thread::Thread;
use super::types::{Batch, BatchOutcome, Completion, LogId, Member, MemberId, TypeConfig};
use crate::state::{SnapshotData, StateError, StateStore};
use crate::waiting::while_waiting;
use bytes::Bytes;
use futures_util::FutureExt;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::ClientWriteError;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use openraft::network::NetSnapshot;
use openraft::raft::ClientWriteResponse;
use openraft::storage::RaftLogStorage;
use openraft::{LinearizerOption, Raft, RaftNetworkFactory, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How often it is looked at, and told, what a start waits for, in heartbeats: 5 s with the usual ones. Nothing in it takes so long but the disk, and a long log.
const LOOK_EVERY: u32 = 50;

/// How long it may take to find out that nobody applies any more; openraft waits for a second then, lest its core has stopped, too.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// How long purging waits for openraft to take note of the durable state; it comes back to it later.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(10);

/// Timing and identity of a group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// This member.
    pub id: MemberId,
    /// The cluster's name, for log lines.
    pub cluster: String,
    /// Voters of a new group; given to the one member that founds it, `None` to those that are added later.
    pub found: Option<BTreeMap<MemberId, Member>>,
    /// Interval of heartbeats. Elections start after 3 to 6 of them.
    pub heartbeat: Duration,
    /// Entries that stay in the log for members that lag, when there are other members.
    pub keep_entries: u64,
}

impl GroupOptions {
    /// A group whose only member is `id`.
    pub fn single(id: MemberId) -> Self {
        Self {
            id,
            cluster: "atoll".into(),
            found: Some(BTreeMap::from([(id, Member::default())])),
            heartbeat: Duration::from_millis(100),
            keep_entries: 1000,
        }
    }
}

/// Why a group could not start or a request to it failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// The group's log or state failed, or the group was stopped.
    #[error("the Raft group stopped: {0}")]
    Stopped(String),
    /// Another member leads, or none.
    #[error("this member does not lead the Raft group")]
    NotLeader,
    /// The thread of the group could not be made.
    #[error("the Raft group's thread: {0}")]
    Thread(Arc<io::Error>),
    /// The state's file failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The configuration makes no sense.
    #[error("configuration of the Raft group: {0}")]
    Config(String),
}

fn stopped(error: impl std::fmt::Display) -> GroupError {
    GroupError::Stopped(error.to_string())
}

/// Who leads, as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Current term.
    pub term: u64,
    /// The leader, if known.
    pub leader: Option<MemberId>,
    /// Whether it is this member.
    pub leads: bool,
}

/// A group's state in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads.
    pub leadership: Leadership,
    /// Voters.
    pub voters: Vec<MemberId>,
    /// Last entry of the log.
    pub last_log: u64,
    /// Last entry known to be on a quorum.
    pub committed: u64,
    /// Last entry applied.
    pub applied: u64,
    /// Last entry whose effects a crash cannot take from the state's file.
    pub durable: u64,
    /// Last entry purged from the log.
    pub purged: u64,
    /// Why the group stopped, if it did.
    pub failed: Option<String>,
}

/// Result of a proposal as it arrives at its [`Completion`].
pub type Proposed = Result<ClientWriteResponse<TypeConfig>, ClientWriteError<TypeConfig>>;

/// The responses of a proposal.
pub fn outcome(proposed: Proposed) -> Option<BatchOutcome> {
    proposed.ok().map(|response| response.data)
}

/// A running group.
pub struct RaftGroup<M: Machine> {
    raft: Raft<TypeConfig, StateMachine<M>>,
    store: Arc<StateStore>,
    id: MemberId,
    keep_entries: u64,
    /// Set while this member is the only voter, leads, and has applied what came before its term.
    sole: AtomicBool,
    log: Arc<dyn Early>,
    leadership: watch::Receiver<Leadership>,
    thread: Thread,
}

impl<M: Machine> RaftGroup<M> {
    /// Starts the group and, if this member is its sole voter, returns when it leads and everything in the log is
    /// applied.
    pub async fn start<L, N>(
        options: GroupOptions,
        log: L,
        network: N,
        store: Arc<StateStore>,
        machine: M,
    ) -> Result<Self, GroupError>
    where
        L: RaftLogStorage<TypeConfig> + Early + Clone,
        N: RaftNetworkFactory<TypeConfig>,
        N::Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotData>,
    {
        let config = config(&options)?;
        let early: Arc<dyn Early> = Arc::new(log.clone());
        let state_machine = StateMachine::new(store.clone(), machine, early.clone())?;
        let thread = Thread::start(options.id)?;
        let (id, every) = (options.id, options.heartbeat * LOOK_EVERY);
        let opening = thread.spawn(async move { Raft::new(id, config, network, log, state_machine).await });
        let raft = telling("its log to be read and applied", every, opening)
            .await
            .map_err(stopped)?
            .map_err(stopped)?;
        let mut electing = false;
        if let Some(members) = options.found
            && !telling("its first answer", every, raft.is_initialized()).await.map_err(stopped)?
        {
            telling("its first entry", every, raft.initialize(members)).await.map_err(stopped)?;
            electing = true;
        }
        // Asked of the core: the metrics may lag behind the membership just set.
        let members = raft.with_raft_state(move |state| {
            let membership = state.membership_state.effective();
            (membership.voter_ids().eq([id]), membership.nodes().map(|(id, _)| *id).eq([id]))
        });
        let (is_sole_voter, is_alone) = telling("its membership", every, members).await.map_err(stopped)?;
        let leadership = watch_leadership(&raft, &thread);
        let group = Self {
            raft,
            store,
            id,
            keep_entries: options.keep_entries,
            sole: AtomicBool::new(false),
            log: early,
            leadership,
            thread,
        };
        if is_sole_voter {
            group.lead_alone(electing, every).await?;
        }
        if is_sole_voter && is_alone {
            group.log.set_alone(true).map_err(stopped)?;
        }
        Ok(group)
    }

    async fn lead_alone(&self, electing: bool, every: Duration) -> Result<(), GroupError> {
        // Nobody else could win, so there is no reason to wait for the election timer.
        if !electing && !self.raft.is_leader() {
            self.raft.trigger().elect(false).await.map_err(stopped)?;
        }
        let (mut metrics, begin) = (self.raft.metrics(), Instant::now());
        let mut tell = begin + every;
        loop {
            let ready = {
                let now = metrics.borrow_and_update();
                if let Err(error) = &now.running_state {
                    return Err(stopped(error));
                }
                // The first entry of the own term is in the log when the leadership shows, and all before it
                // is settled when that one is applied.
                let settled = now.last_applied.is_some_and(|a| a.leader_id.term == now.current_term);
                now.state == ServerState::Leader
                    && settled
                    && index(&now.last_applied) >= now.last_log_index.unwrap_or(0)
            };
            if ready {
                break;
            }
            // They change with each tick, also when nothing gets on; not when the core itself waits.
            if let Ok(changed) = timeout_at(tell, metrics.changed()).await {
                changed.map_err(stopped)?;
            }
            if Instant::now() >= tell {
                tell_waiting(&metrics.borrow_watched(), begin.elapsed());
                // openraft's core does not see the state machine's task end by a panic, and would wait for it for ever.
                let lives = self.raft.external_state_machine_request(|_| std::future::ready(()).boxed());
                if let Ok(Err(error)) = timeout(SEEN_WITHIN, lives).await {
                    return Err(stopped(format!(
                        "{error}; nobody applies entries any more, and standard error has the panic"
                    )));
                }
                tell = Instant::now() + every;
            }
        }
        self.sole.store(true, Ordering::Release);
        Ok(())
    }

    /// Proposes a batch of encoded commands. `done` gets the responses when they are applied and published, an
    /// error if this member does not lead, or `None` if the group stopped and the effect is unknown. Does not wait.
    pub fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        let raft = self.raft.clone();
        let mut send = async move { raft.client_write_ff(Batch(commands), Some(done)).await }.boxed();
        // The group's queue nearly always has room, and then this costs no task. An error drops `done`, which
        // tells the caller.
        if (&mut send).now_or_never().is_none() {
            self.thread.spawn(send);
        }
        self.thread.brought();
    }

    /// As [`RaftGroup::propose`], for a caller who is alone and has leave to wait for the disk ([`atoll_base::leave`]): it runs the tasks of the group on this
    /// thread, and as a rule `done` is called before this returns. Later if others are there, too, or the log has no room.
    pub fn propose_here(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        self.thread.run_here(|| self.propose(commands, done));
    }

    /// Whether the published state may be read without asking anybody.
    pub fn reads_locally(&self) -> bool {
        self.sole.load(Ordering::Acquire)
    }

    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.reads_locally() || self.leadership.borrow().leads
    }

    /// Waits until the published state has everything that was answered before this call.
    pub async fn linearize(&self) -> Result<(), GroupError> {
        if self.reads_locally() {
            return Ok(());
        }
        match self.raft.ensure_linearizable(LinearizerOption::new(None, true)).await {
            Ok(_) => Ok(()),
            Err(error) if error.fatal().is_some() => Err(stopped(error)),
            Err(_) => Err(GroupError::NotLeader),
        }
    }

    /// Who leads; changes are announced.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Why the group stopped, if it did.
    pub fn failure(&self) -> Option<String> {
        self.raft.metrics().borrow_watched().running_state.as_ref().err().map(ToString::to_string)
    }

    /// The group in numbers.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        GroupStatus {
            leadership: *self.leadership.borrow(),
            voters: now.membership_config.membership().voter_ids().collect(),
            last_log: now.last_log_index.unwrap_or(0),
            committed: index(&now.local_committed),
            applied: index(&now.last_applied),
            durable: index(&self.store.durable()),
            purged: index(&now.purged),
            failed: now.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    fn voters(&self) -> impl Iterator<Item = MemberId> {
        self.raft.voter_ids()
    }

    /// Makes the applied state durable, if it is not, and returns the last entry in it.
    pub async fn commit_durable(&self) -> Result<Option<LogId>, GroupError> {
        let applied = self.raft.metrics().borrow_watched().last_applied;
        if self.store.durable() >= applied {
            return Ok(self.store.durable());
        }
        let store = self.store.clone();
        Ok(blocking(move || store.commit_durable()).await?)
    }

    /// Makes the state durable and drops from the log what is in it, but what lagging members may still need if
    /// `keep` says so. Returns when the log has been told.
    pub async fn purge(&self, keep: bool) -> Result<(), GroupError> {
        let Some(durable) = self.commit_durable().await? else { return Ok(()) };
        let others = self.voters().any(|id| id != self.id);
        let kept = if keep && others { self.keep_entries } else { 0 };
        let upto = durable.index.saturating_sub(kept);
        let mut metrics = self.raft.metrics();
        if index(&metrics.borrow_watched().snapshot) < upto {
            self.raft.trigger().snapshot().await.map_err(stopped)?;
            let seen = metrics.wait_until(|m| index(&m.snapshot) >= upto || m.running_state.is_err());
            match timeout(SNAPSHOT_WAIT, seen).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(stopped(error)),
                // Another snapshot is being built; the next round of maintenance comes back to it.
                Err(_) => return Ok(()),
            }
        }
        if index(&metrics.borrow_watched().purged) < upto {
            self.raft.trigger().purge_log(upto).await.map_err(stopped)?;
        }
        Ok(())
    }

    /// Before another member learns of anything: all that it may be told of is durable, from now on and as of now.
    async fn have_company(&self) -> Result<(), GroupError> {
        let log = self.log.clone();
        Ok(blocking(move || Ok(log.set_alone(false)?)).await?)
    }

    /// Adds a member that receives the log but does not vote, and waits until it has caught up.
    pub async fn add_learner(&self, id: MemberId, node: Member) -> Result<(), GroupError> {
        self.have_company().await?;
        self.raft.add_learner(id, node, true).await.map_err(stopped)?;
        Ok(())
    }

    /// Makes these members (already learners) the voters.
    pub async fn change_voters(&self, voters: BTreeSet<MemberId>) -> Result<(), GroupError> {
        // From here on another member may come to lead.
        self.sole.store(false, Ordering::Release);
        self.have_company().await?;
        self.raft.change_membership(voters, false).await.map_err(stopped)?;
        Ok(())
    }

    /// openraft's handle, for the network that brings other members' requests.
    pub fn raft(&self) -> &Raft<TypeConfig, StateMachine<M>> {
        &self.raft
    }

    /// Stops, after making the state durable, so that the next start has nothing to repeat. Proposals still under way
    /// get no answer; the caller waits for them first.
    pub async fn stop(&self) -> Result<(), GroupError> {
        self.raft.shutdown().await.map_err(stopped)?;
        let store = self.store.clone();
        let committed = blocking(move || store.commit_durable()).await;
        self.thread.stop();
        committed?;
        Ok(())
    }
}

/// Awaits `work` of a start and tells now and then that it is what is waited for.
async fn telling<R>(what: &str, every: Duration, work: impl Future<Output = R>) -> R {
    let begin = Instant::now();
    let tell = || {
        let seconds = begin.elapsed().as_secs();
        tracing::info!(seconds, "the start of the Raft group waits for {what}");
    };
    while_waiting(every, every, work, tell).await
}

/// Tells why the only voter does not lead yet.
fn tell_waiting(now: &RaftMetrics<TypeConfig>, waited: Duration) {
    tracing::warn!(
        seconds = waited.as_secs(),
        state = ?now.state,
        term = now.current_term,
        // The last that is durable.
        vote = %now.vote,
        last_log = now.last_log_index.unwrap_or(0),
        committed = index(&now.local_committed),
        applied = index(&now.last_applied),
        applied_term = now.last_applied.map_or(0, |id| id.leader_id.term),
        "the start of the Raft group waits for its only voter to lead and to apply the log"
    );
}

fn index(id: &Option<LogId>) -> u64 {
    id.as_ref().map_or(0, |id| id.index)
}

fn leadership_of(metrics: &RaftServerMetrics<TypeConfig>) -> Leadership {
    Leadership {
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader,
        leads: metrics.state == ServerState::Leader,
    }
}

fn config(options: &GroupOptions) -> Result<Arc<openraft::Config>, GroupError> {
    let heartbeat = options.heartbeat.as_millis() as u64;
    let config = openraft::Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: heartbeat,
        election_timeout_min: heartbeat * 3,
        election_timeout_max: heartbeat * 6,
        // A snapshot may be gigabytes; the network reports its own lack of progress.
        install_snapshot_timeout: 10 * 60 * 1000,
        // Entries are batches already: few of them are much.
        max_payload_entries: 64,
        replication_lag_threshold: options.keep_entries.max(1) * 5,
        // Purging is decided by bytes, in `purge`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        ..Default::default()
    };
    config.validate().map(Arc::new).map_err(|e| GroupError::Config(e.to_string()))
}

fn watch_leadership<M: Machine>(
    raft: &Raft<TypeConfig, StateMachine<M>>,
    thread: &Thread,
) -> watch::Receiver<Leadership> {
    // Not those that change with every entry.
    let mut metrics = raft.server_metrics();
    let (tx, rx) = watch::channel(leadership_of(&metrics.borrow_watched()));
    thread.spawn(async move {
        while metrics.changed().await.is_ok() {
            let now = leadership_of(&metrics.borrow_and_update());
            tx.send_if_modified(|last| std::mem::replace(last, now) != now);
        }
    });
    rx
}
