//! What `atoll status` shows, gathered.

use super::Service;
use crate::admin::report::{self, Report};
use anyhow::Result;
use atoll_base::block::BlockService;
use atoll_model::limits::OUTCOME_KEEP;
use atoll_nfs::server::Metrics;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Clients shown: those heard of last.
const CLIENTS_SHOWN: usize = 100;

/// Seconds over which the rate of calls is taken.
const RATE_SECONDS: usize = 10;

/// Numbers of calls at the last seconds.
pub(super) struct Rates(Arc<Mutex<VecDeque<u64>>>);

impl Rates {
    pub(super) fn start(metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        let samples = Arc::new(Mutex::new(VecDeque::from([0])));
        let kept = samples.clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(metrics.calls.load(Ordering::Relaxed));
                if kept.len() > RATE_SECONDS + 1 {
                    kept.pop_front();
                }
            }
        }));
        Self(samples)
    }

    fn per_second(&self) -> f64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (samples.front(), samples.back()) {
            (Some(first), Some(last)) if samples.len() > 1 => {
                (last - first) as f64 / (samples.len() - 1) as f64
            }
            _ => 0.0,
        }
    }
}

impl Service {
    /// The state of everything, now.
    pub(crate) async fn report(&self) -> Result<Report> {
        let meta = self.node.meta.status();
        let blocks = self.node.blocks.metrics();
        let engine = self.engine.stats();
        let state = meta.state;
        let now = self.node.clock.now();
        let seconds_since = |then| u64::try_from(now.since(then) / 1_000_000_000).unwrap_or(0);
        let mut clients: Vec<_> = engine.clients.iter().collect();
        clients.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.cluster_id.clone(),
            node_id: u64::from(self.node.frontend().0),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            nfs: self.address.to_string(),
            durability: "every stable reply is fsynced on a quorum (1 of 1 nodes) before it is sent"
                .to_owned(),
            lease_seconds: self.engine.lease_seconds(),
            raft: report::Raft {
                role: if meta.group.leadership.leads { "leader" } else { "follower" }.to_owned(),
                term: meta.group.leadership.term,
                members: meta.group.voters.len() as u64,
                applied: meta.group.applied,
            },
            log: report::Log {
                bytes: meta.log.disk_bytes,
                segments: meta.log.segments,
                syncs: meta.log.syncs,
                last_sync_microseconds: meta.log.last_sync.as_micros() as u64,
                failure: meta.log.failed.or(meta.group.failed).unwrap_or_default(),
            },
            store: report::Store { bytes: meta.state_bytes },
            blocks: report::Blocks {
                blocks: blocks.blocks,
                live_bytes: blocks.live_bytes,
                dead_bytes: blocks.dead_bytes,
                segments: blocks.segments,
                available_bytes: self.node.blocks.space().available,
                read_ahead_bytes: blocks.ahead.bytes,
                read_ahead_limit_bytes: blocks.ahead.limit,
                read_cache_bytes: blocks.repeated.bytes,
                read_cache_limit_bytes: blocks.repeated.limit,
            },
            volumes: self.node.volumes().await?,
            exports: self.node.exports().await?,
            connections: self.metrics.connections_now.load(Ordering::Relaxed),
            clients: clients
                .iter()
                .take(CLIENTS_SHOWN)
                .map(|(ip, last)| report::Client {
                    address: ip.to_string(),
                    idle_seconds: seconds_since(*last),
                })
                .collect(),
            ops_per_second: self.rates.per_second(),
            procedures: engine
                .nfs3
                .iter()
                .filter(|p| p.calls > 0)
                .map(|p| report::Procedure {
                    name: p.name.to_owned(),
                    calls: p.calls,
                    errors: p.errors,
                    p50_microseconds: p.p50.as_micros() as u64,
                    p99_microseconds: p.p99.as_micros() as u64,
                })
                .collect(),
            bytes_read: engine.bytes_out,
            bytes_written: engine.bytes_in,
            unstable_bytes: engine.dirty_bytes,
            outcomes: report::Outcomes {
                kept: state.map_or(0, |s| s.outcomes),
                oldest_seconds: state.and_then(|s| s.oldest_outcome).map_or(0, seconds_since),
                kept_at_least_seconds: OUTCOME_KEEP.as_secs(),
            },
            delegations: report::Delegations {
                granted: engine.delegations_granted,
                recalled: engine.delegations_recalled,
                revoked: engine.delegations_revoked,
            },
            resident_bytes: resident_bytes(),
        })
    }
}

/// Resident set of this process, bytes; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
