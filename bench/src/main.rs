//! `atoll-bench`: measures Atoll beside its peers and prints one report.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use atoll_bench::limits::append::GroupLog;
use atoll_bench::limits::reply_server;
use atoll_bench::machine::Pinning;
use atoll_bench::peer::{Peer, Site};
use atoll_bench::runner::{Plan, run_plan};
use atoll_bench::scale::Scale;
use atoll_bench::workload::Work;
use clap::{Parser, Subcommand, ValueEnum};

/// Measures Atoll beside NFS-Ganesha, demo servers and the limits of the machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// The form that takes at most three minutes.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    work: Vec<Work>,
    /// Only these servers.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Only these numbers of calls in flight, of 1, 16, 64 (4×16, the issue's) and 256.
    #[arg(long, value_delimiter = ',')]
    in_flight: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long)]
    seconds: Option<f64>,
    /// Measurements of each server in a row.
    #[arg(long)]
    rounds: Option<usize>,
    /// Let servers and load generator share all cores. Otherwise, with two cores or more, the load generator has the last one
    /// and the servers the others.
    #[arg(long)]
    no_pin: bool,
    /// Also make a million files and look at Atoll's memory (part of the full form).
    #[arg(long)]
    memory: bool,
    /// Directory for data, on the file system that is to be measured. A new directory is made in it and removed at the end.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// The binary of Atoll.
    #[arg(long, default_value = "target/release/atoll")]
    atoll: PathBuf,
    /// Directory of the binaries of the demo servers.
    #[arg(long, default_value = "target/bench-peers/release")]
    demos: PathBuf,
    /// Also write the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answers raw records: the limit of the network. Started by the benchmark.
    #[command(hide = true)]
    ReplyServer {
        /// Append every record to this file and sync it before it is answered.
        #[arg(long)]
        log: Option<PathBuf>,
    },
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    match &args.role {
        Some(Role::ReplyServer { log }) => {
            let log = log.as_deref().map(GroupLog::start).transpose()?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            println!("ready nfs={}", listener.local_addr()?);
            reply_server::serve(&listener, log)?;
            Ok(ExitCode::SUCCESS)
        }
        None => benchmark(&args),
    }
}

fn benchmark(args: &Args) -> Result<ExitCode> {
    // Not the process id: in namespaces of their own two runs have the same.
    let number = getrandom::u32().map_err(|error| anyhow::anyhow!("random numbers: {error}"))?;
    let root = args.dir.join(format!("bench-data-{number:08x}"));
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    let root = fs::canonicalize(root)?;
    let plan = plan(args, root.clone())?;
    let report = run_plan(&plan);
    if let Err(error) = fs::remove_dir_all(&root) {
        eprintln!("{} is left: {error}", root.display());
    }
    let report = report?;
    print!("{report}");
    if let Some(path) = &args.json {
        fs::write(path, report.to_json()?).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn plan(args: &Args, root: PathBuf) -> Result<Plan> {
    let mut scale = if args.quick { Scale::quick() } else { Scale::full() };
    if let Some(seconds) = args.seconds {
        scale.duration = Duration::try_from_secs_f64(seconds)?;
    }
    if let Some(rounds) = args.rounds {
        anyhow::ensure!(rounds > 0, "at least one round");
        scale.rounds = rounds;
    }
    if !args.in_flight.is_empty() {
        scale.shapes = Scale::full().shapes;
        scale.shapes.retain(|shape| args.in_flight.contains(&shape.in_flight()));
        anyhow::ensure!(!scale.shapes.is_empty(), "in flight may be 1, 16, 64 and 256");
    }
    let works = if args.work.is_empty() { Work::all().to_vec() } else { args.work.clone() };
    // In the order of the declaration: the raw peers, which repeat what files cost, come last.
    let mut peers = if args.peers.is_empty() { Peer::value_variants().to_vec() } else { args.peers.clone() };
    peers.sort_unstable();
    let memory = args.memory || (!args.quick && args.work.is_empty());
    let site = Site {
        root,
        atoll: args.atoll.clone(),
        demos: args.demos.clone(),
        pinning: Pinning::new(!args.no_pin)?,
    };
    Ok(Plan { works, peers, scale, site, memory, quick: args.quick })
}
