//! The types that the Raft group is made of.
//!
//! A log entry carries a *batch* of encoded commands, so that one fsync, one commit of the store and one trip through
//! openraft serve many calls, and so that the size of a batch (not openraft's own batching) decides throughput.

use atoll_meta::Response;
use bytes::Bytes;
use openraft::raft::responder::Responder;
use openraft::type_config::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf as RaftSnapshotOf, StoredMembershipOf, VoteOf,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a member of a group.
pub type MemberId = u64;

/// What one log entry proposes: encoded commands, applied in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Bytes>);

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} bytes", self.0.len(), self.0.iter().map(Bytes::len).sum::<usize>())
    }
}

/// The responses to a [`Batch`], in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome(pub Vec<Response>);

/// The type configuration of every group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = BatchOutcome;
    type NodeId = MemberId;
    type Node = openraft::BasicNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Batch, MemberId, openraft::BasicNode>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Completion<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// An entry of the log.
pub type LogEntry = EntryOf<TypeConfig>;
/// Place of an entry in the log.
pub type LogId = LogIdOf<TypeConfig>;
/// A member's vote.
pub type Vote = VoteOf<TypeConfig>;
/// Membership with the place of the entry that set it.
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
/// Which state a snapshot holds.
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A snapshot.
pub type Snapshot<D> = RaftSnapshotOf<TypeConfig, D>;

type Action<T> = Box<dyn FnOnce(Option<T>) + Send>;

/// Runs a function with the result of a proposal, on the thread that applied it: the shortest way back to the callers.
/// If the group stops without a result, the function runs with `None`.
pub struct Completion<T>(Option<Action<T>>);

impl<T> Completion<T> {
    /// Will run `action`, which must be short and must not block.
    pub fn new(action: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(action)))
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action(None);
        }
    }
}

impl<T: openraft::OptionalSend + 'static> Responder<TypeConfig, T> for Completion<T> {
    fn on_complete(mut self, result: T) {
        if let Some(action) = self.0.take() {
            action(Some(result));
        }
    }
}
