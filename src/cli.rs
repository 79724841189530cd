//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// An NFS server whose acknowledged work survives.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a data directory over NFS; an empty or missing one is made ready.
    Serve(crate::serve::Options),
    /// Show what the server of a data directory is doing.
    Status {
        /// The data directory.
        #[arg(default_value = "./data")]
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show or change the exports of a running server.
    Export(crate::export::Options),
    /// Show NFSv4 clients of a running server, or end one.
    Client(crate::states::ClientOptions),
    /// Show which files are open: NFSv4's opens and NLM's share reservations.
    Open(crate::states::ListOptions),
    /// Show byte ranges that are locked or waited for, of NFSv4 and NLM.
    Lock(crate::states::ListOptions),
    /// Show which files and directories are delegated to NFSv4 clients.
    Delegation(crate::states::ListOptions),
    /// Show files that NFSv4.2 clients have the server copy in the background.
    Copy(crate::states::ListOptions),
    /// Show or make volumes of a running server.
    Volume(crate::volume::Options),
    /// Copy a tree of this machine into a data directory that no server uses.
    Import(crate::import_command::Options),
    /// Check a data directory that no server uses: replays its log as a start does, and repairs nothing. Exit status 1 if
    /// anything is wrong, 2 if it could not be checked.
    Fsck {
        /// The data directory.
        #[arg(default_value = "./data")]
        dir: PathBuf,
    },
    /// Let a running server read and verify all it stores. Exit status 1 if anything is wrong, 2 if it could not be verified.
    Scrub {
        /// The data directory.
        #[arg(default_value = "./data")]
        dir: PathBuf,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    crate::logging::start();
    // The files of a data directory hold everybody's data: whatever is made is for the owner alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("atoll: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let clean = match cli.command {
            Command::Serve(options) => crate::serve::run(options).await.map(|()| true),
            Command::Status { dir, json } => crate::status::run(&dir, json).await.map(|()| true),
            Command::Export(options) => crate::export::run(options).await.map(|()| true),
            Command::Client(options) => crate::states::client(options).await.map(|()| true),
            Command::Open(options) => crate::states::open(options).await.map(|()| true),
            Command::Lock(options) => crate::states::lock(options).await.map(|()| true),
            Command::Delegation(options) => crate::states::delegation(options).await.map(|()| true),
            Command::Copy(options) => crate::states::copy(options).await.map(|()| true),
            Command::Volume(options) => crate::volume::run(options).await.map(|()| true),
            Command::Import(options) => crate::import_command::run(options).await,
            Command::Fsck { dir } => crate::fsck::run(&dir).await,
            Command::Scrub { dir } => crate::scrub::run(&dir).await,
        }?;
        Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}
