//! A network between members that live in one process: for tests and simulations of a whole cluster.
//!
//! Links can be cut and mended per member. A snapshot goes through the same frames as it would over a wire.

use super::group::RaftGroup;
use super::state_machine::{Machine, StateMachine};
use super::types::{Member, MemberId, Snapshot, TypeConfig, Vote};
use crate::state::{Frames, Receiver, SnapshotData, StateError, StateStore};
use futures_util::FutureExt;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Handle<M> = Raft<TypeConfig, StateMachine<M>>;

struct Peer<M: Machine> {
    raft: Handle<M>,
    store: Arc<StateStore>,
}

struct Links<M: Machine> {
    peers: BTreeMap<MemberId, Arc<Peer<M>>>,
    cut: BTreeSet<MemberId>,
    snapshots: u64,
}

/// All links.
pub struct InProcess<M: Machine>(Arc<Mutex<Links<M>>>);

impl<M: Machine> Clone for InProcess<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> Default for InProcess<M> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Links { peers: BTreeMap::new(), cut: BTreeSet::new(), snapshots: 0 })))
    }
}

impl<M: Machine> InProcess<M> {
    fn links(&self) -> MutexGuard<'_, Links<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects a member that was started; replaces its former life.
    pub fn connect(&self, id: MemberId, group: &RaftGroup<M>, store: Arc<StateStore>) {
        let peer = Arc::new(Peer { raft: group.raft().clone(), store });
        let mut links = self.links();
        links.peers.insert(id, peer);
        links.cut.remove(&id);
    }

    /// Forgets a member that stopped.
    pub fn disconnect(&self, id: MemberId) {
        self.links().peers.remove(&id);
    }

    /// Cuts a member off: nothing reaches it and nothing comes from it.
    pub fn cut(&self, id: MemberId) {
        self.links().cut.insert(id);
    }

    /// Undoes [`InProcess::cut`].
    pub fn mend(&self, id: MemberId) {
        self.links().cut.remove(&id);
    }

    /// How many snapshots were sent whole.
    pub fn snapshots_sent(&self) -> u64 {
        self.links().snapshots
    }
}

/// The network as one member sees it.
pub struct InProcessNetwork<M: Machine> {
    from: MemberId,
    links: InProcess<M>,
}

impl<M: Machine> InProcess<M> {
    /// The network of the member `from`.
    pub fn network(&self, from: MemberId) -> InProcessNetwork<M> {
        InProcessNetwork { from, links: self.clone() }
    }
}

impl<M: Machine> RaftNetworkFactory<TypeConfig> for InProcessNetwork<M> {
    type Network = InProcessLink<M>;

    async fn new_client(&mut self, to: MemberId, _node: &Member) -> InProcessLink<M> {
        InProcessLink { from: self.from, to, links: self.links.clone() }
    }
}

/// One direction between two members.
pub struct InProcessLink<M: Machine> {
    from: MemberId,
    to: MemberId,
    links: InProcess<M>,
}

impl<M: Machine> InProcessLink<M> {
    fn peer(&self) -> Result<Arc<Peer<M>>, Unreachable<TypeConfig>> {
        let links = self.links.links();
        let cut = links.cut.contains(&self.from) || links.cut.contains(&self.to);
        match links.peers.get(&self.to) {
            Some(peer) if !cut => Ok(peer.clone()),
            _ => Err(Unreachable::new(&AnyError::error(format!("member {} cannot be reached", self.to)))),
        }
    }

    fn failed(error: impl std::error::Error + 'static) -> NetworkError<TypeConfig> {
        NetworkError::new(&error)
    }
}

impl<M: Machine> RaftNetworkV2<TypeConfig> for InProcessLink<M> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let response = self.peer()?.raft.append_entries(rpc).await.map_err(Self::failed)?;
        // A link that was cut meanwhile loses the answer.
        self.peer()?;
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let response = self.peer()?.raft.vote(rpc).await.map_err(Self::failed)?;
        self.peer()?;
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let response = self.peer()?.raft.pre_vote(rpc).await.map_err(Self::failed)?;
        self.peer()?;
        Ok(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::View(view) = snapshot.snapshot else {
            let error = StateError::Damaged("a received snapshot cannot be sent on".into());
            return Err(Self::failed(error).into());
        };
        let mut cancel = Box::pin(cancel);
        let mut receiver = Receiver::new(&self.peer()?.store).map_err(Self::failed)?;
        for frame in Frames::new(view) {
            receiver.frame(&frame.map_err(Self::failed)?).map_err(Self::failed)?;
            self.peer()?;
            if let Some(closed) = (&mut cancel).now_or_never() {
                return Err(closed.into());
            }
            tokio::task::yield_now().await;
        }
        let received = receiver.finish().map_err(Self::failed)?;
        // Before it takes effect, so that who sees the effect sees the count.
        self.links.links().snapshots += 1;
        let snapshot = Snapshot { meta: snapshot.meta, snapshot: SnapshotData::Received(received) };
        let response = self.peer()?.raft.install_full_snapshot(vote, snapshot).await.map_err(Self::failed)?;
        Ok(response)
    }
}
