//! What `atoll status` shows, as it travels.

use serde::{Deserialize, Serialize};

/// State of a node. Sizes are bytes, durations as their names say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    pub(crate) uptime_seconds: f64,
    pub(crate) nfs: String,
    /// What a stable reply stands for.
    pub(crate) durability: String,
    /// Of NFSv4 clients.
    pub(crate) lease_seconds: u32,
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) blocks: Blocks,
    pub(crate) volumes: Vec<Volume>,
    /// In the words of `--export`.
    pub(crate) exports: Vec<String>,
    pub(crate) connections: u64,
    pub(crate) clients: Vec<Client>,
    /// Over the last ten seconds.
    pub(crate) ops_per_second: f64,
    pub(crate) procedures: Vec<Procedure>,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    /// Acknowledged UNSTABLE data that wait for COMMIT.
    pub(crate) unstable_bytes: u64,
    pub(crate) outcomes: Outcomes,
    pub(crate) delegations: Delegations,
    pub(crate) resident_bytes: u64,
}

/// Of NFSv4, since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delegations {
    pub(crate) granted: u64,
    /// Because others needed the file.
    pub(crate) recalled: u64,
    /// From holders that did not return them in time.
    pub(crate) revoked: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Raft {
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) members: u64,
    pub(crate) applied: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Log {
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    pub(crate) syncs: u64,
    pub(crate) last_sync_microseconds: u64,
    /// Empty, or why the log takes no more entries.
    pub(crate) failure: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Store {
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Blocks {
    pub(crate) blocks: u64,
    pub(crate) live_bytes: u64,
    pub(crate) dead_bytes: u64,
    pub(crate) segments: u64,
    pub(crate) available_bytes: u64,
    /// Memory taken for blocks that are read ahead of streams.
    pub(crate) read_ahead_bytes: u64,
    /// Most of that.
    pub(crate) read_ahead_limit_bytes: u64,
    /// Memory taken for what large reads ask for repeatedly.
    pub(crate) read_cache_bytes: u64,
    /// Most of that.
    pub(crate) read_cache_limit_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) inodes: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) address: String,
    pub(crate) idle_seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Procedure {
    pub(crate) name: String,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) p50_microseconds: u64,
    pub(crate) p99_microseconds: u64,
}

/// Stored responses for exactly-once replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcomes {
    pub(crate) kept: u64,
    pub(crate) oldest_seconds: u64,
    pub(crate) kept_at_least_seconds: u64,
}
