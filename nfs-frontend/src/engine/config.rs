//! What can be set about an engine, with defaults and their reasons.

use std::time::Duration;

/// Settings of an engine. All bounds are per engine, that is per frontend process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most bytes of memory that UNSTABLE data may take before it is flushed, backing buffers and records of
    /// requests included. At half of it flushing starts; above, WRITEs wait.
    pub dirty_max: u64,
    /// Bytes that come to a file before it is looked at for whole blocks, which are then put without waiting for COMMIT:
    /// several, since each time costs a command, and few enough that COMMIT of a stream finds little left. (What counts as
    /// whole is an eighth of this, or the longest block.)
    pub early_bytes: u64,
    /// UNSTABLE data older than this is flushed though nobody asked: what a crash can cost a client that never
    /// sends COMMIT stays small, and so does what its verifier makes it send again.
    pub dirty_age: Duration,
    /// How often ages are looked at, and access times sent.
    pub tick: Duration,
    /// Files flushed at the same time by the engine itself, and batches (of 8 MiB) put at the same time by
    /// all flushes.
    pub flushes: usize,
    /// Longest wait for the look-up of a host name or of a user's groups.
    pub lookup_timeout: Duration,
    /// For how long a host's addresses are believed.
    pub host_ttl: Duration,
    /// For how long a user's groups are believed.
    pub groups_ttl: Duration,
    /// Lease time of NFSv4 clients (RFC 8881 §8.3): how often they must be heard to be sure of what they have.
    pub lease: Duration,
    /// Domain by which NFSv4 names users and groups (`name@domain`); none: by numbers.
    pub idmap_domain: Option<String>,
    /// How long a call is held whose outcome is not known (the metadata service has no leader, say) before it is
    /// dropped; the client sends it again, and its key makes that safe.
    pub patience: Duration,
    /// Stored extents that one COPY looks at before it is answered; of a file with more, the rest is copied in the background, or the answer is short. What one command may look at at most.
    pub copy_extents: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dirty_max: 256 << 20,
            early_bytes: 8 << 20,
            dirty_age: Duration::from_secs(5),
            tick: Duration::from_millis(500),
            flushes: 4,
            lookup_timeout: Duration::from_secs(5),
            host_ttl: Duration::from_secs(60),
            groups_ttl: Duration::from_secs(300),
            lease: Duration::from_secs(60),
            idmap_domain: None,
            patience: Duration::from_secs(20),
            copy_extents: 8192,
        }
    }
}
