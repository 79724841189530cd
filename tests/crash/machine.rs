//! A whole server in this process, on a disk that loses power: from the data directory's identity to the sockets.

use crate::slow::{Delays, SlowDisk};
use crate::worker::{IsDead, Stop, Worker};
use atoll::data_dir::{Keys, refuse_foreign};
use atoll::maintenance::Pace;
use atoll::node::{Line, Node, Options as NodeOptions};
use atoll::service::{Options as ServiceOptions, Service};
use atoll_base::block::BlockId;
use atoll_base::disk::Disk;
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::wrap::WrapDisk;
use atoll_base::id::Epoch;
use atoll_base::time::{Clock, Timestamp};
use atoll_blockstore as blockstore;
use atoll_model::read;
use atoll_nfs::engine::Config as EngineConfig;
use atoll_nfs::portmap::Config as PortmapConfig;
use atoll_nfs::server::Limits;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A stop, however sick the disk is, takes no longer.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// A start takes no longer: the stores are tiny.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Nothing that the collector may take stays longer.
const COLLECT_LIMIT: Duration = Duration::from_secs(20);

/// Operations of the disk after which the power goes if the site that was waited for was not reached.
const AT_LATEST: u64 = 1500;

/// The time runs faster, so that what waits for seconds happens within a life.
const HASTE: u32 = 10;

struct HastyClock;

static BEGAN: LazyLock<(Instant, SystemTime)> = LazyLock::new(|| (Instant::now(), SystemTime::now()));

impl Clock for HastyClock {
    fn now(&self) -> Timestamp {
        let (instant, system) = *BEGAN;
        let began = system.duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_nanos((began + instant.elapsed() * HASTE).as_nanos() as i128)
    }
}

/// What panicked in this process, by whatever thread.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Lets panics of the server's threads be found; they are not printed.
pub(crate) fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(install_hook);
}

fn install_hook() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The tests' own threads are named after them.
        let thread = std::thread::current();
        if thread.name().is_some_and(|n| n.contains("::")) {
            return usual(info);
        }
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
    }));
}

pub(crate) fn take_panics() -> Vec<String> {
    std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How a life of the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After so many operations of the disk.
    Cut(u64),
    /// At the so many-th sync of a site; soon, if that does not come.
    At(&'static str, u64),
    /// In the midst of the so many-th large write of the log, counted from 1; soon, if that does not come.
    InGroup(u64),
    /// In peace, after so many operations of each client.
    Graceful(u64),
    /// The same, when maintenance has nothing more to do.
    Rested(u64),
}

/// Every block of a store, with its length.
pub(crate) type Blocks = Vec<(BlockId, u32)>;

fn node_options(keys: &Keys) -> NodeOptions {
    let cluster = keys.identity.cluster_id().unwrap();
    let mut options = NodeOptions::new(cluster, keys.identity.node_id);
    options.clock = Arc::new(HastyClock);
    options.pace =
        Pace { rest: Duration::from_millis(25), breath: Duration::from_millis(2), ..Pace::default() };
    options.meta.log.segment_bytes = 160 << 10;
    options.meta.log.cache_bytes = 64 << 10;
    options.meta.limits.batch_calls = 3;
    options.meta.limits.batch_bytes = 32 << 10;
    options.meta.limits.call_bytes = 96 << 10;
    options.meta.state.cache_bytes = 1 << 20;
    options.meta.state.flush_bytes = 64 << 10;
    options.meta.caches.inodes = 20;
    options.meta.caches.names = 20;
    options.meta.maintenance.durable_every = Duration::from_millis(40);
    options.meta.maintenance.look_every = Duration::from_millis(10);
    options.meta.maintenance.log_bytes = 320 << 10;
    options.blocks.segment_bytes = 1 << 20;
    options.blocks.batch_bytes = 512 << 10;
    options.blocks.direct_bytes = 16 << 10;
    options.blocks.stage_bytes = 32 << 10;
    options.blocks.read_threads = 1;
    options
}

fn service_options(keys: &Keys) -> ServiceOptions {
    let engine = EngineConfig {
        dirty_max: 4 << 20,
        early_bytes: 128 << 10,
        dirty_age: Duration::from_millis(300),
        tick: Duration::from_millis(50),
        patience: Duration::from_millis(300),
        ..EngineConfig::default()
    };
    // Whoever has no call beside its own at the moment does the group's work itself; the others share its thread.
    let limits = Limits { stop_timeout: Duration::from_millis(300), calls_alone: 0, ..Limits::default() };
    let portmap = PortmapConfig { listen: false, register: false, ..PortmapConfig::default() };
    ServiceOptions { nfs: ([127, 0, 0, 1], 0).into(), limits, engine, portmap, secret: keys.secret }
}

/// What a life of the server does.
pub(crate) struct Life {
    pub(crate) end: End,
    /// If the life before ended in peace: the blocks it left.
    pub(crate) after_peace: Option<Blocks>,
    /// Whether this is the last one: nothing may be left over at its end.
    pub(crate) last: bool,
    /// What takes longer than it must.
    pub(crate) delays: Delays,
}

fn wrong(disk: &SimDisk, what: String) -> Stop {
    if disk.is_off() { Stop::Dead } else { Stop::Wrong(what) }
}

/// Runs the server on `disk` until its life ends. If it ended in peace: the blocks it left.
pub(crate) fn live(disk: &SimDisk, workers: &mut [Worker], life: &Life) -> Result<Option<Blocks>, String> {
    match life.end {
        End::Cut(operations) => disk.cut_power_after(operations),
        End::At(site, n) => {
            disk.cut_power_at(site, n);
            disk.cut_power_after(AT_LATEST);
        }
        End::InGroup(_) => disk.cut_power_after(AT_LATEST),
        End::Graceful(_) | End::Rested(_) => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("server")
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(serve(disk, workers, life));
    runtime.shutdown_timeout(STOP_LIMIT);
    let panics = take_panics();
    if !panics.is_empty() {
        return Err(format!("panics: {}; {ended:?}", panics.join("; ")));
    }
    match ended.and_then(|()| blocks_on(disk)) {
        Ok(blocks) => Ok(blocks),
        Err(Stop::Dead) => Ok(None),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

async fn serve(disk: &SimDisk, workers: &mut [Worker], life: &Life) -> Result<(), Stop> {
    let found = blocks_on(disk)?;
    if let Some(left) = &life.after_peace {
        same_blocks(left, &found.unwrap_or_default())?;
    }
    let keys = refuse_foreign(Path::new("."), disk).and_then(|()| Keys::read_or_make(disk, &|_| Ok(())));
    let keys = keys.map_err(|e| wrong(disk, format!("identity: {e:#}")))?;
    let groups = match life.end {
        End::InGroup(n) => Some(Arc::new(AtomicU64::new(n))),
        _ => None,
    };
    let slow = SlowDisk { disk: disk.clone(), delays: life.delays, groups };
    let opening = Node::open(Arc::new(WrapDisk(slow)), node_options(&keys));
    let node = tokio::time::timeout(START_LIMIT, opening)
        .await
        .map_err(|_| Stop::Wrong("the node does not open".to_owned()))?
        .map_err(|e| wrong(disk, format!("the node does not open: {e:#}")))?;
    let node = Arc::new(node);
    if life.after_peace.is_some() {
        nothing_repeated(&node)?;
    }
    let ended = serve_on(disk, &node, &keys, workers, life).await;
    if let Err(Stop::Wrong(_)) = ended {
        // What is found now matters more than how the server stops.
        disk.cut_power();
    }
    ended
}

async fn serve_on(
    disk: &SimDisk,
    node: &Arc<Node>,
    keys: &Keys,
    workers: &mut [Worker],
    life: &Life,
) -> Result<(), Stop> {
    let closing_node = async |stop: Stop| {
        let closing = tokio::time::timeout(STOP_LIMIT, node.close()).await;
        if closing.is_err() { Stop::Wrong("the node does not close".to_owned()) } else { stop }
    };
    if let Err(e) = node.put_export("/=*,rw,no_root_squash,insecure".parse().unwrap()).await {
        return Err(closing_node(wrong(disk, format!("{e:#}"))).await);
    }
    let cluster = keys.identity.cluster_id.clone();
    let service = match Service::start(node.clone(), cluster, service_options(keys)).await {
        Ok(service) => service,
        Err(e) => return Err(closing_node(wrong(disk, format!("{e:#}"))).await),
    };
    let worked = work(disk, &service, workers, life).await;
    let stopping = tokio::time::timeout(STOP_LIMIT, service.stop()).await;
    let stopped = stopping.map_err(|_| Stop::Wrong("the service does not stop".to_owned()))?;
    worked?;
    stopped.map_err(|e| wrong(disk, format!("the service does not stop cleanly: {e:#}")))
}

async fn work(
    disk: &SimDisk,
    service: &Arc<Service>,
    workers: &mut [Worker],
    life: &Life,
) -> Result<(), Stop> {
    let is_dead: IsDead = {
        let disk = disk.clone();
        Arc::new(move || disk.is_off())
    };
    for worker in workers.iter_mut() {
        worker.point_at(service.address, is_dead.clone());
    }
    let peace = life.after_peace.is_some();
    each(workers, async move |w| w.verify(peace).await).await?;
    scrub(disk, &service.node).await?;
    let operations = match life.end {
        End::Cut(_) | End::At(..) | End::InGroup(_) => u64::MAX,
        End::Graceful(n) | End::Rested(n) => n,
    };
    each(workers, async move |w| w.load(operations).await).await?;
    if matches!(life.end, End::Rested(_)) {
        rest(disk, service).await;
    }
    if life.last {
        nothing_unreferenced(disk, service).await?;
        scrub(disk, &service.node).await?;
        each(workers, async |w| w.remove_all().await).await?;
        nothing_unreferenced(disk, service).await?;
        let left = service.node.blocks.metrics().blocks;
        if left > 0 {
            return Err(wrong(disk, format!("{left} blocks are left when all files are removed")));
        }
    }
    Ok(())
}

/// Lets all clients do the same at the same time. What is wrong with any counts more than that others were cut off.
pub(crate) async fn each<F>(workers: &mut [Worker], work: F) -> Result<(), Stop>
where
    F: for<'a> AsyncFn(&'a mut Worker) -> Result<(), Stop>,
{
    let running = workers.iter_mut().map(|w| work(w));
    let mut result = Ok(());
    for ended in futures_util::future::join_all(running).await {
        match (&result, ended) {
            (Err(Stop::Wrong(_)), _) | (_, Ok(())) => {}
            (_, Err(stop)) => result = Err(stop),
        }
    }
    result
}

/// The block store as `atoll fsck` looks at it, while nothing has it open. `None`: there is none yet.
fn blocks_on(disk: &SimDisk) -> Result<Option<Blocks>, Stop> {
    let entries = disk.list(Path::new("")).map_err(|e| wrong(disk, e.to_string()))?;
    let has = |name: &str| entries.iter().any(|e| e.name == name);
    if !has("blocks") || !has("atoll.json") {
        return Ok(None);
    }
    let keys = Keys::read_or_make(&disk.clone(), &|_| Ok(())).map_err(|e| wrong(disk, format!("{e:#}")))?;
    let store = node_options(&keys).blocks.store_id;
    match blockstore::check(disk, store) {
        Ok(report) if report.is_clean() => Ok(Some(report.blocks)),
        Ok(report) => Err(wrong(disk, format!("block store: {:?} {:?}", report.structure, report.damage))),
        Err(e) => Err(wrong(disk, format!("block store: {e}"))),
    }
}

/// What a graceful stop left is there, and what was deleted before is not there again.
fn same_blocks(left: &Blocks, found: &Blocks) -> Result<(), Stop> {
    let missing = |from: &Blocks, of: &Blocks| -> Vec<BlockId> {
        from.iter().filter(|block| !of.contains(block)).map(|(id, _)| *id).collect()
    };
    let (lost, back) = (missing(left, found), missing(found, left));
    if lost.is_empty() && back.is_empty() {
        return Ok(());
    }
    Err(Stop::Wrong(format!(
        "after a graceful stop blocks are lost: {lost:?}; deleted ones are there again: {back:?}"
    )))
}

/// Gives maintenance time until it changes nothing for a while. Nothing depends on it but the chance to see something.
async fn rest(disk: &SimDisk, service: &Service) {
    service.engine.flush_all().await;
    let (mut before, mut quiet) = (None, 0);
    let end = Instant::now() + COLLECT_LIMIT;
    while quiet < 10 && Instant::now() < end && !disk.is_off() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = service.node.blocks.metrics();
        let now = Some((now.segments, now.dead_bytes, now.deleted_blocks));
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
}

/// After a graceful stop there is nothing to recover.
fn nothing_repeated(node: &Node) -> Result<(), Stop> {
    // Applied, but not asked for in this life: it registers, and maintenance has begun its work.
    let status = node.meta.status();
    let repeated = status.commands.saturating_sub(status.proposer.calls);
    let scanned = node.blocks.recovery().scanned;
    if repeated > 0 || scanned > 0 {
        let what = format!("after a graceful stop {repeated} commands and {scanned} segments were repeated");
        return Err(Stop::Wrong(what));
    }
    Ok(())
}

async fn scrub(disk: &SimDisk, node: &Arc<Node>) -> Result<(), Stop> {
    let (lines, mut received) = tokio::sync::mpsc::channel(64);
    let scrubbing = node.clone();
    tokio::spawn(async move { scrubbing.scrub(lines).await });
    // One finding is enough.
    Err(wrong(
        disk,
        match received.recv().await {
            Some(Line::Summary(_)) => return Ok(()),
            Some(Line::Finding(finding)) => format!("scrub: {finding:?}"),
            Some(Line::Stopped(why)) => format!("the scrub stopped: {why}"),
            None => "the scrub did not end".to_owned(),
        },
    ))
}

/// The collector finds everything that nobody refers to.
async fn nothing_unreferenced(disk: &SimDisk, service: &Service) -> Result<(), Stop> {
    service.engine.flush_all().await;
    let node = &service.node;
    let end = Instant::now() + COLLECT_LIMIT;
    loop {
        let listed = node.blocks.list(None, Epoch(u32::MAX), usize::MAX);
        let left = node
            .meta
            .with_state(|kv| {
                let mut left = Vec::new();
                for (id, _) in &listed {
                    if !read::block_is_referenced(kv, *id)? {
                        left.push(*id);
                    }
                }
                Ok(left)
            })
            .await
            .map_err(|e| wrong(disk, format!("{e}")))?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end || disk.is_off() {
            return Err(wrong(disk, format!("unreferenced blocks stay: {left:?}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
