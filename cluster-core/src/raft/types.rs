//! The type configuration of every Raft group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    /// Commands come in batches, opaque here; a leader id is a term and a node, so that two candidates of one
    /// term needn't both lose.
    pub TypeConfig:
        D = Batch,
        R = BatchOutcome,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<Self::Term, Self::NodeId>,
        Vote = openraft::impls::Vote<Self::LeaderId>,
);

/// Identity of an entry.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;

/// Encoded commands that become durable and are applied together, in order.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Bytes>);

/// The encoded outcome of each command of a [`Batch`], in the same order.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome(pub Vec<Bytes>);

/// A member of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it listens for other members, `host:port`.
    pub addr: String,
}

fn describe(f: &mut fmt::Formatter<'_>, what: &str, items: &[Bytes]) -> fmt::Result {
    let bytes: usize = items.iter().map(Bytes::len).sum();
    write!(f, "{} {what} of {bytes} bytes", items.len())
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, "commands", &self.0)
    }
}

// Contents may be file data: they have no place in messages.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({self})")
    }
}

impl fmt::Debug for BatchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchOutcome(")?;
        describe(f, "outcomes", &self.0)?;
        f.write_str(")")
    }
}
