//! Counters for `atoll status`: without locks where every call passes.

use super::Engine;
use atoll_base::block::BlockService;
use atoll_base::time::Timestamp;
use atoll_meta::MetadataService;
use atoll_proto::nfs3::Proc;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets of a histogram: four to each power of two of nanoseconds, from 1 µs to beyond 60 s.
const BUCKETS: usize = 4 * 27;

/// Log2 of the upper bound of the first bucket, in nanoseconds.
const FIRST_LOG2: u32 = 10;

/// Most clients remembered; the one not seen for longest makes room.
const CLIENTS_MAX: usize = 4096;

/// Calls of one client between two updates of its entry: the table is locked for one call in so many.
const CLIENT_SAMPLE: u64 = 32;

/// A histogram of durations with fixed, logarithmically scaled buckets.
#[derive(Debug)]
pub struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Latency {
    fn bucket(nanos: u64) -> usize {
        let log = nanos.max(1).ilog2();
        if log < FIRST_LOG2 {
            return 0;
        }
        let quarter = (nanos >> (log - 2)) & 3;
        (((log - FIRST_LOG2) * 4) as usize + quarter as usize).min(BUCKETS - 1)
    }

    /// Upper bound of a bucket in nanoseconds.
    fn bound(bucket: usize) -> u64 {
        let (log, quarter) = (FIRST_LOG2 + bucket as u32 / 4, bucket as u64 % 4);
        (5 + quarter) << (log - 2)
    }

    /// Counts a duration.
    #[inline]
    pub fn record(&self, took: Duration) {
        self.0[Self::bucket(took.as_nanos() as u64)].fetch_add(1, Ordering::Relaxed);
    }

    /// The duration that the given share (0 to 1) of all calls stayed within; zero if there were none. Exact to a
    /// quarter of a power of two.
    pub fn percentile(&self, share: f64) -> Duration {
        let counts: Vec<u64> = self.0.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(Self::bound(bucket));
            }
        }
        Duration::ZERO
    }
}

#[derive(Debug, Default)]
struct Procedure {
    calls: AtomicU64,
    errors: AtomicU64,
    latency: Latency,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    last: Timestamp,
}

/// All counters of an engine.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    procedures: [Procedure; 22],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    clients: Mutex<HashMap<IpAddr, Seen>>,
    calls: AtomicU64,
    last_client: AtomicU64,
}

impl Stats {
    #[inline]
    pub(crate) fn call(&self, procedure: Proc, failed: bool, took: Duration) {
        let p = &self.procedures[procedure as usize];
        p.calls.fetch_add(1, Ordering::Relaxed);
        if failed {
            p.errors.fetch_add(1, Ordering::Relaxed);
        }
        p.latency.record(took);
    }

    #[inline]
    pub(crate) fn read(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn written(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A client was heard of. Most calls come from the client of the call before.
    #[inline]
    pub(crate) fn heard(&self, ip: IpAddr, now: impl FnOnce() -> Timestamp) {
        let tag = match ip {
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6) as u64 | 1 << 63,
        };
        let n = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.last_client.swap(tag, Ordering::Relaxed) == tag && !n.is_multiple_of(CLIENT_SAMPLE) {
            return;
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&ip) {
            let oldest = clients.iter().min_by_key(|(_, seen)| seen.last).map(|(ip, _)| *ip);
            oldest.map(|ip| clients.remove(&ip));
        }
        clients.insert(ip, Seen { last: now() });
    }
}

/// Figures of one procedure.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcedureStats {
    /// Name as in RFC 1813, without its prefix.
    pub name: &'static str,
    /// Calls answered.
    pub calls: u64,
    /// Of these, with a status other than NFS3_OK.
    pub errors: u64,
    /// Half of the calls took at most this long.
    pub p50: Duration,
    /// 99 of 100 calls took at most this long.
    pub p99: Duration,
}

/// All figures of an engine at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// NFSv3 by procedure, in order of number.
    pub nfs3: Vec<ProcedureStats>,
    /// Bytes of data written by clients.
    pub bytes_in: u64,
    /// Bytes of data read by clients.
    pub bytes_out: u64,
    /// Clients by address with the time they were last heard of, at most 4096.
    pub clients: Vec<(IpAddr, Timestamp)>,
    /// Memory of UNSTABLE data not flushed yet, in bytes.
    pub dirty_bytes: u64,
    /// Files that have such data.
    pub dirty_files: usize,
    /// Delegations given to NFSv4 clients.
    pub delegations_granted: u64,
    /// Of these, asked back because others needed the file.
    pub delegations_recalled: u64,
    /// Of these, taken away from holders that did not return them in time.
    pub delegations_revoked: u64,
}

const NAMES: [&str; 22] = [
    "NULL",
    "GETATTR",
    "SETATTR",
    "LOOKUP",
    "ACCESS",
    "READLINK",
    "READ",
    "WRITE",
    "CREATE",
    "MKDIR",
    "SYMLINK",
    "MKNOD",
    "REMOVE",
    "RMDIR",
    "RENAME",
    "LINK",
    "READDIR",
    "READDIRPLUS",
    "FSSTAT",
    "FSINFO",
    "PATHCONF",
    "COMMIT",
];

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Figures since the start of this engine.
    pub fn stats(&self) -> Snapshot {
        let stats = &self.stats;
        let nfs3 = NAMES.iter().zip(&stats.procedures).map(|(name, p)| ProcedureStats {
            name,
            calls: p.calls.load(Ordering::Relaxed),
            errors: p.errors.load(Ordering::Relaxed),
            p50: p.latency.percentile(0.5),
            p99: p.latency.percentile(0.99),
        });
        let mut clients: Vec<_> = {
            let clients = stats.clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients.iter().map(|(ip, seen)| (*ip, seen.last)).collect()
        };
        clients.sort_unstable();
        let delegations = &self.v4.delegations.counters;
        Snapshot {
            nfs3: nfs3.collect(),
            bytes_in: stats.bytes_in.load(Ordering::Relaxed),
            bytes_out: stats.bytes_out.load(Ordering::Relaxed),
            clients,
            dirty_bytes: self.budget.used(),
            dirty_files: self.dirty.count(),
            delegations_granted: delegations.granted.load(Ordering::Relaxed),
            delegations_recalled: delegations.recalled.load(Ordering::Relaxed),
            delegations_revoked: delegations.revoked.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_percentile_is_within_a_quarter_of_a_power_of_two() {
        for nanos in [1u64, 900, 1024, 5000, 123_456, 7_000_000, 3_000_000_000, 60_000_000_000] {
            let latency = Latency::default();
            latency.record(Duration::from_nanos(nanos));
            let told = latency.percentile(0.5).as_nanos() as u64;
            assert!(told >= nanos, "{told} for {nanos}");
            assert!(told <= nanos + nanos / 4 + 1 || told <= 1280, "{told} for {nanos}");
        }
        assert_eq!(Latency::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn percentiles_are_in_order() {
        let latency = Latency::default();
        (1..=1000u64).for_each(|i| latency.record(Duration::from_micros(i)));
        assert!(latency.percentile(0.5) >= Duration::from_micros(500));
        assert!(latency.percentile(0.5) < Duration::from_micros(640));
        assert!(latency.percentile(0.99) >= Duration::from_micros(990));
    }

    #[test]
    fn the_table_of_clients_is_bounded() {
        let stats = Stats::default();
        for i in 0..CLIENTS_MAX as u32 + 100 {
            stats.heard(IpAddr::V4(i.into()), || Timestamp { secs: i64::from(i), nanos: 0 });
        }
        let clients = stats.clients.lock().unwrap();
        assert_eq!(clients.len(), CLIENTS_MAX);
        assert!(!clients.contains_key(&IpAddr::V4(0.into())));
    }
}
