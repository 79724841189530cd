//! Background work of a member: durable commits, purging the log, sweeping, watching the room on the disk.

use super::open::found;
use super::shared::Shared;
use atoll_base::access::Cred;
use atoll_meta::{Call, Op, Outcome, Response};
use atoll_model::read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// When maintenance does what.
#[derive(Clone, Debug)]
pub struct MaintenanceOptions {
    /// How often the state is made durable, unless nothing changed: bounds what a start after a crash must repeat.
    pub durable_every: Duration,
    /// How often log and disk are looked at.
    pub look_every: Duration,
    /// Bytes of segments with entries at which the log is purged.
    pub log_bytes: u64,
    /// Bytes of the same from which on members that lag get a snapshot instead of entries.
    pub log_bytes_max: u64,
    /// Below this much room on the disk, calls that take space are refused.
    pub reserve_bytes: u64,
    /// How often, at most, the state's file is measured when the disk is nearly full.
    pub measure_every: Duration,
    /// Whether to sweep. Tests of single steps do without.
    pub sweep: bool,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            durable_every: Duration::from_secs(1),
            look_every: Duration::from_millis(250),
            log_bytes: 64 << 20,
            log_bytes_max: 128 << 20,
            reserve_bytes: 256 << 20,
            measure_every: Duration::from_secs(30),
            sweep: true,
        }
    }
}

/// Most steps of sweeping in one round; the next round goes on.
const SWEEPS_PER_ROUND: usize = 1000;

/// Measuring the state's file takes at most one part in so many of the time: it walks the file, and nothing is flushed meanwhile.
const MEASURING_SHARE: u32 = 50;
/// Bytes of state that one byte of a call may need, generously: records, their tables' pages, the stored outcome.
const STATE_PER_CALL_BYTE: u64 = 16;

/// The running task.
pub(super) struct Maintenance {
    stop: Arc<AtomicBool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Maintenance {
    pub(super) fn start(shared: Arc<Shared>, options: MaintenanceOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(shared, options, stop.clone()));
        Self { stop, task: Mutex::new(Some(task)) }
    }

    /// Ends it and waits until it is through with what it is doing.
    pub(super) async fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "metadata maintenance died");
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>, options: MaintenanceOptions, stop: Arc<AtomicBool>) {
    let mut last_commit = Instant::now();
    let mut room = Room { measured: None };
    while !stop.load(Ordering::Acquire) {
        room.watch(&shared, &options).await;
        if shared.group.failure().is_some() {
            shared.proposer.fail();
            return;
        }
        if shared.group.leadership().borrow().leads
            && !shared.published.is_founded()
            && let Err(error) = found(&shared.group, shared.cluster, &*shared.clock).await
        {
            tracing::warn!(%error, "tried again soon");
        }
        let mut result = Ok(());
        let pending = shared.pending.load(Ordering::Relaxed);
        let is_tight = pending > 0 && pending >= shared.room.load(Ordering::Relaxed) / 4;
        if last_commit.elapsed() >= options.durable_every || is_tight {
            result = shared.group.commit_durable().await.map(drop);
            last_commit = Instant::now();
            // In this order: until the next look both count, and nothing is missed.
            room.watch(&shared, &options).await;
            shared.pending.fetch_sub(pending, Ordering::Relaxed);
        }
        // A publication that began before a flush ended may have come after it, with what the flush wrote still in memory.
        shared.published.refresh();
        let log = log_bytes(&shared);
        if result.is_ok() && log >= options.log_bytes {
            result = shared.group.purge(log < options.log_bytes_max).await;
        }
        if let Err(error) = result
            && !stop.load(Ordering::Acquire)
        {
            tracing::error!(%error, "the metadata state cannot be made durable");
            shared.proposer.fail();
            return;
        }
        if options.sweep {
            sweep(&shared, &stop).await;
        }
        tokio::time::sleep(options.look_every).await;
    }
}

/// Bytes of the log's segments that hold entries; all segments are of one size.
fn log_bytes(shared: &Shared) -> u64 {
    let log = shared.log.status();
    log.disk_bytes / (log.segments + log.spare_segments).max(1) * log.segments
}

/// Watches the room that is left: on the disk, and, when that is little, within the state's file, where deleted records leave
/// theirs.
struct Room {
    /// When the file was last measured, how long that took, and what had been freed in it.
    measured: Option<(Instant, Duration, u64)>,
}

impl Room {
    async fn watch(&mut self, shared: &Shared, options: &MaintenanceOptions) {
        let available = match shared.disk.space() {
            Ok(space) => space.available,
            Err(error) => {
                tracing::warn!(%error, "room on the metadata disk is unknown");
                return;
            }
        };
        let (low, inside) = if available >= options.reserve_bytes {
            self.measured = None;
            (false, 0)
        } else {
            let inside = self.inside(shared, options).await;
            // However much is free within: log and file must be able to grow a little.
            let low = available < options.reserve_bytes / 8
                || available.saturating_add(inside) < options.reserve_bytes;
            (low, inside)
        };
        let room = available.saturating_add(inside).saturating_sub(options.reserve_bytes);
        shared.room.store(room, Ordering::Relaxed);
        if shared.low_space.swap(low, Ordering::Relaxed) != low {
            if low {
                tracing::error!("the metadata disk is nearly full: only calls that free space are taken");
            } else {
                tracing::info!("the metadata disk has room again");
            }
        }
    }

    /// What is still free within the file, on the safe side.
    async fn inside(&mut self, shared: &Shared, options: &MaintenanceOptions) -> u64 {
        let due = match self.measured {
            None => true,
            Some((when, took, _)) => when.elapsed() > options.measure_every.max(took * MEASURING_SHARE),
        };
        if due {
            let (store, start) = (shared.store.clone(), Instant::now());
            shared.taken_since_measured.store(0, Ordering::Relaxed);
            let free = match tokio::task::spawn_blocking(move || store.freed_bytes()).await {
                Ok(Ok(free)) => free,
                Ok(Err(_)) | Err(_) => 0,
            };
            self.measured = Some((Instant::now(), start.elapsed(), free));
        }
        let taken = shared.taken_since_measured.load(Ordering::Relaxed).saturating_mul(STATE_PER_CALL_BYTE);
        self.measured.map_or(0, |(_, _, free)| free).saturating_sub(taken)
    }
}

/// Bounded steps until nothing is left; each is a command like any other, so others go in between.
async fn sweep(shared: &Shared, stop: &AtomicBool) {
    for _ in 0..SWEEPS_PER_ROUND {
        let leads = shared.group.leadership().borrow().leads;
        let due = read::has_work(shared.published.current().view.reader());
        if !leads || stop.load(Ordering::Acquire) || !matches!(due, Ok(true)) {
            return;
        }
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::Sweep };
        match shared.execute(&call).await {
            Ok(Response { result: Ok(Outcome::More(true)), .. }) => tokio::task::yield_now().await,
            _ => return,
        }
    }
}
