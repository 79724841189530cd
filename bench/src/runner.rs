//! Runs the benchmark: all servers up, one loaded at a time, in turn.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bed::Bed;
use crate::limits::{append, streaming};
use crate::load::{Limits, LoadError, Measured, Shape, Workload, run};
use crate::machine::{Busy, Machine, drop_caches};
use crate::peer::{Peer, Server, Site, ensure_rpcbind};
use crate::report::{Cell, LogLimit, Memory, Overwriting, Report, Row, Sample, Streaming};
use crate::scale::{REFERENCE, Scale};
use crate::workload::Work;
use crate::workload::raw::Raw;

/// Longest time without a reply before a row fails.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time for a workload that ends by itself.
const UNTIL_DONE: Duration = Duration::from_secs(600);
/// Bytes of a record in the log for a WRITE of 4 KiB, and for a CREATE: the size of the call.
const LOGGED: [(&str, usize); 2] = [("WRITE 4 KiB", 4096 + 160), ("CREATE", 192)];
/// Files and idle connections in the trial of memory.
const MEMORY_TRIAL: (u64, usize) = (1_000_000, 64);

/// Until a server counts as idle: what was changed last is on disk, and what is done every few seconds was done.
const IDLE: Duration = Duration::from_secs(15);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Workloads.
    pub works: Vec<Work>,
    /// Servers.
    pub peers: Vec<Peer>,
    /// Sizes and times.
    pub scale: Scale,
    /// Places.
    pub site: Site,
    /// Whether to make a million files and look at Atoll's memory.
    pub memory: bool,
    /// Whether this is the quick form.
    pub quick: bool,
}

/// Runs the plan. Progress goes to standard error.
pub fn run_plan(plan: &Plan) -> Result<Report> {
    let machine = Machine::look(&plan.site.root, &plan.site.pinning)?;
    let ganesha = plan.peers.iter().any(|peer| matches!(peer, Peer::Ganesha | Peer::GaneshaSync));
    let rpcbind = if ganesha { ensure_rpcbind(&plan.site.pinning) } else { Ok(None) };
    if let Err(error) = &rpcbind {
        eprintln!("{error:#}");
    }
    let mut runner = Runner { plan, beds: BTreeMap::new(), absent: BTreeMap::new() };
    for peer in &plan.peers {
        runner.start(*peer);
    }
    let mut rows = Vec::new();
    for work in plan.works.iter().copied().filter(|work| !work.of_overwriting()) {
        for shape in &plan.scale.shapes {
            rows.push(runner.row(work, *shape));
        }
    }
    let mut overwriting = Vec::new();
    if plan.works.iter().any(|work| work.of_overwriting()) {
        overwriting = runner.overwriting(&mut rows);
    }
    let log_limits = log_limits(plan)?;
    let streaming = streaming_limits(plan)?;
    let memory = if plan.memory { runner.memory() } else { None };
    let Runner { beds, absent, .. } = runner;
    for (peer, bed) in beds {
        match bed {
            Workbench::Files(bed) => bed.stop(),
            Workbench::Raw(server) => server.stop(),
        }
        .unwrap_or_else(|error| eprintln!("{}: {error:#}", peer.name()));
    }
    Ok(Report {
        machine,
        scale: plan.scale.clone(),
        quick: plan.quick,
        absent,
        rows,
        overwriting,
        log_limits,
        streaming,
        memory,
    })
}

/// A running server with what is on it.
#[derive(Debug)]
enum Workbench {
    Files(Box<Bed>),
    Raw(Server),
}

#[derive(Debug)]
struct Runner<'p> {
    plan: &'p Plan,
    beds: BTreeMap<Peer, Workbench>,
    absent: BTreeMap<Peer, String>,
}

impl Runner<'_> {
    /// Starts a server on an empty directory; one that does not start is absent, with the reason.
    fn start(&mut self, peer: Peer) {
        eprintln!("starting {}", peer.name());
        self.beds.remove(&peer);
        match start_bed(peer, self.plan) {
            Ok(bed) => {
                self.beds.insert(peer, bed);
                self.absent.remove(&peer);
            }
            Err(error) => {
                eprintln!("  {error:#}");
                self.absent.insert(peer, format!("{error:#}"));
            }
        }
    }

    fn row(&mut self, work: Work, shape: Shape) -> Row {
        let mut cells: BTreeMap<Peer, Cell> = BTreeMap::new();
        for _ in 0..self.plan.scale.rounds {
            for peer in self.plan.peers.iter().copied().filter(|peer| work.suits(*peer)) {
                if cells.get(&peer).is_some_and(|cell| cell.error.is_some()) || !self.beds.contains_key(&peer)
                {
                    continue;
                }
                // The raw peers repeat the sizes of the records of the row's first server of files.
                let model = cells.values().find_map(|cell| cell.samples.first()).map(Sample::record_sizes);
                let Some(result) = self.sample(peer, work, shape, model) else { continue };
                let cell = cells.entry(peer).or_default();
                match result {
                    Ok(sample) => cell.samples.push(sample),
                    Err(error) => {
                        cell.error = Some(format!("{error:#}"));
                        if is_lost(&error) {
                            self.start(peer);
                        }
                    }
                }
            }
        }
        let row = Row { work, shape, cells };
        eprint!("{}", row.progress_line());
        row
    }

    /// `None` if a raw peer has no model.
    fn sample(
        &mut self,
        peer: Peer,
        work: Work,
        shape: Shape,
        model: Option<(usize, usize)>,
    ) -> Option<Result<Sample>> {
        let plan = self.plan;
        let limits = Limits { duration: plan.scale.duration, silence: SILENCE };
        match self.beds.get_mut(&peer)? {
            Workbench::Raw(server) => {
                let (call, reply) = model?;
                Some(measure(server, plan, shape, limits, &mut Raw::new(call, reply)))
            }
            Workbench::Files(bed) => Some((|| {
                let mut workload = bed.prepare(work, shape).context("preparing")?;
                if work.writes() {
                    // What was written before is not this one's to wait for.
                    rustix::fs::sync();
                }
                measure(bed.server()?, plan, shape, limits, &mut *workload)
            })()),
        }
    }

    /// Fresh file, cold read; every page overwritten; cold read again; space before and after. On an empty server: what earlier
    /// rows left would be tidied up meanwhile and count as space saved.
    fn overwriting(&mut self, rows: &mut Vec<Row>) -> Vec<Overwriting> {
        let works = [Work::ReadFresh, Work::Overwrite, Work::ReadOverwritten];
        let mut new: Vec<Row> =
            works.iter().map(|work| Row { work: *work, shape: REFERENCE, cells: BTreeMap::new() }).collect();
        let mut spaces = Vec::new();
        for peer in self.plan.peers.iter().copied().filter(|peer| Work::Overwrite.suits(*peer)) {
            if self.beds.contains_key(&peer) {
                self.start(peer);
            }
            let Some(Workbench::Files(bed)) = self.beds.get_mut(&peer) else { continue };
            match overwrite(bed, self.plan) {
                Ok((samples, space)) => {
                    for (row, sample) in new.iter_mut().zip(samples) {
                        row.cells.entry(peer).or_default().samples.push(sample);
                    }
                    spaces.push(space);
                }
                Err(error) => {
                    let cell = Cell { samples: Vec::new(), error: Some(format!("{error:#}")) };
                    new[1].cells.insert(peer, cell);
                    if is_lost(&error) {
                        self.start(peer);
                    }
                }
            }
        }
        new.iter().for_each(|row| eprint!("{}", row.progress_line()));
        rows.extend(new);
        spaces
    }

    /// A million files, 64 idle connections, resident memory of Atoll.
    fn memory(&mut self) -> Option<Memory> {
        let (files, clients) = MEMORY_TRIAL;
        let Some(Workbench::Files(bed)) = self.beds.get_mut(&Peer::Atoll) else { return None };
        eprintln!("making {files} files");
        let mut trial = || -> Result<Memory> {
            bed.make_files(files)?;
            let connections: Vec<TcpStream> = (0..clients)
                .map(|_| TcpStream::connect(bed.server()?.nfs).map_err(Into::into))
                .collect::<Result<_>>()?;
            std::thread::sleep(IDLE);
            let resident = bed.server()?.process.memory()?;
            drop(connections);
            Ok(Memory { files, clients, resident_mib: mib(resident) })
        };
        trial().map_err(|error| eprintln!("memory: {error:#}")).ok()
    }
}

fn start_bed(peer: Peer, plan: &Plan) -> Result<Workbench> {
    let home = plan.site.root.join(format!("{peer:?}").to_lowercase());
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("emptying {}", home.display()))?;
    }
    let server = Server::start(peer, &plan.site)?;
    if !peer.serves_files() {
        return Ok(Workbench::Raw(server));
    }
    Ok(Workbench::Files(Box::new(Bed::new(server, &plan.site, plan.scale.clone())?)))
}

/// Whether the server is in a state that later rows should not inherit.
fn is_lost(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<LoadError>(),
        Some(LoadError::Io(_) | LoadError::Closed(_) | LoadError::Silence(..))
    )
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn measure(
    server: &Server,
    plan: &Plan,
    shape: Shape,
    limits: Limits,
    workload: &mut dyn Workload,
) -> Result<Sample> {
    server.process.reset_peak_memory()?;
    let before = server.process.cpu_time()?;
    let busy = Busy::now()?;
    let measured: Measured =
        plan.site.pinning.on_generators_core(|| run(server.nfs, shape, limits, workload))??;
    let cpu = server.process.cpu_time()?.since(&before);
    let others = Busy::now()?.others_since(&busy, cpu, plan.site.pinning.cores());
    let peak = server.process.peak_memory()?;
    anyhow::ensure!(measured.ops > 0, "not one operation was completed");
    Ok(Sample { measured, cpu, peak_mib: mib(peak), others })
}

fn overwrite(bed: &mut Bed, plan: &Plan) -> Result<(Vec<Sample>, Overwriting)> {
    let len = plan.scale.overwrite_bytes;
    let slots = REFERENCE.in_flight();
    let limits = Limits { duration: UNTIL_DONE, silence: SILENCE };
    rustix::fs::sync();
    let empty = bed.server()?.space_used()?;
    let file = bed.file(len)?;
    rustix::fs::sync();
    let fresh = bed.server()?.space_used()?.saturating_sub(empty);
    bed.restart_cold()?;
    let mut reads = bed.sequential_reads(file, len, slots);
    let first = measure(bed.server()?, plan, REFERENCE, limits, &mut reads)?;
    let mut writes = bed.overwrites(file, len, slots);
    let second = measure(bed.server()?, plan, REFERENCE, limits, &mut writes)?;
    let at_once = bed.server()?.space_used()?.saturating_sub(empty);
    std::thread::sleep(plan.scale.settle);
    rustix::fs::sync();
    let settled = bed.server()?.space_used()?.saturating_sub(empty);
    bed.restart_cold()?;
    let mut reads = bed.sequential_reads(file, len, slots);
    let third = measure(bed.server()?, plan, REFERENCE, limits, &mut reads)?;
    let space = Overwriting {
        peer: bed.server()?.peer,
        file_mib: mib(len),
        fresh_mib: mib(fresh),
        at_once_mib: mib(at_once),
        settled_mib: mib(settled),
    };
    Ok((vec![first, second, third], space))
}

/// What a log could do here, without network and file system.
fn log_limits(plan: &Plan) -> Result<Vec<LogLimit>> {
    let path = plan.site.root.join("log-limit");
    let duration = plan.scale.duration;
    let mut limits = Vec::new();
    if !plan.works.iter().any(|work| work.writes()) {
        return Ok(limits);
    }
    rustix::fs::sync();
    let log = append::Log::create(&path)?;
    for (what, len) in LOGGED {
        for shape in &plan.scale.shapes {
            let n = shape.in_flight();
            let grouped =
                plan.site.pinning.on_servers_cores(|| append::grouped(&log, len, n, duration))??;
            let naive = plan.site.pinning.on_servers_cores(|| append::naive(&log, len, n, duration))??;
            limits.push(LogLimit::new(what, len, n, &grouped, &naive));
        }
    }
    fs::remove_file(&path)?;
    Ok(limits)
}

fn streaming_limits(plan: &Plan) -> Result<Option<Streaming>> {
    let wanted = |work: &Work| matches!(work, Work::Write1m | Work::ReadCold) || work.of_overwriting();
    if !plan.works.iter().any(wanted) {
        return Ok(None);
    }
    let path = plan.site.root.join("streaming-limit");
    let blocks = plan.scale.stream_bytes >> 20;
    rustix::fs::sync();
    let rate = |time: Duration| mib(blocks << 20) / time.as_secs_f64();
    let written = streaming::write(&path, blocks)?;
    let cold = drop_caches();
    let read = match cold {
        Ok(()) => Some(rate(streaming::read(&path)?)),
        Err(error) => {
            eprintln!("no cold read: {error}");
            None
        }
    };
    fs::remove_file(&path)?;
    Ok(Some(Streaming { write_mib_s: rate(written), read_mib_s: read }))
}
