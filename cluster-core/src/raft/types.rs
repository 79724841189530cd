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

/// Encoded commands that become durable and are applied together, in order.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Bytes>);

// Contents may be file data: they have no place in messages.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({self})")
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} bytes", self.0.len(), self.0.iter().map(Bytes::len).sum::<usize>())
    }
}

/// A member of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it listens for other members, `host:port`.
    pub addr: String,
}

/// The responses to a [`Batch`], in its order. Not encoded: they go to callers in the same process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome(pub Vec<Response>);

/// The type configuration of every group. A leader id is a term and a node, so that two candidates of one term
/// needn't both lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = BatchOutcome;
    type NodeId = MemberId;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Batch, MemberId, Member>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = super::runtime::GroupRuntime;
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
pub type Entry = EntryOf<TypeConfig>;
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
