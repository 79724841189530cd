//! `atoll fsck`: checks a data directory that no server uses.
//!
//! First the segments as they lie there, without changing anything. Then it opens the directory as a start would, since the
//! metadata are only whole with the log applied: this replays the log, writes a few entries of its own (a
//! start's registration), removes what an interrupted last write left torn, and begins a new segment. Nothing that is damaged
//! is repaired or removed.

use crate::data_dir::DataDir;
use crate::node::{Line, Node, Options};
use crate::status::bytes;
use anyhow::{Result, bail};
use atoll_blockstore as blockstore;
use std::path::Path;
use std::sync::Arc;

/// Lines of findings that wait to be printed.
const QUEUE: usize = 64;

/// Checks and prints what is wrong; whether all was well.
pub(crate) async fn run(dir: &Path) -> Result<bool> {
    let data = DataDir::open(dir)?;
    let mut options = Options::for_disk(&data.identity, data.disk.as_ref())?;
    options.maintain = false;
    options.progress = Arc::new(|words| eprintln!("{words}"));
    let (disk, store_id) = (data.disk.clone(), options.blocks.store_id);
    // First as the last process left them: opening would put right what a crash may leave.
    let found = tokio::task::spawn_blocking(move || blockstore::check(disk.as_ref(), store_id)).await?;
    let mut problems = 0_u64;
    match found {
        Ok(report) => {
            for what in &report.structure {
                problems += 1;
                println!("block store: {what}");
            }
            println!("{} segments, {} blocks", report.segments, report.blocks.len());
            if report.torn > 0 {
                println!(
                    "{} torn records of a last write that nobody was told of; a start removes them",
                    report.torn
                );
            }
        }
        Err(error) => {
            println!("block store: {error}");
            problems += 1;
        }
    }
    println!("replaying the log as a start does; nothing is repaired");
    let node = Arc::new(Node::open(data.disk.clone(), options).await?);
    let (lines, mut received) = tokio::sync::mpsc::channel(QUEUE);
    let scrubbing = node.clone();
    let task = tokio::spawn(async move { scrubbing.scrub(lines).await });
    let mut end = None;
    while let Some(line) = received.recv().await {
        match line {
            Line::Finding(finding) => println!("{}: {}", finding.place, finding.what),
            other => end = Some(other),
        }
    }
    task.await?;
    node.close().await?;
    match end {
        Some(Line::Summary(s)) => {
            problems += s.findings;
            println!("{} of data verified: {problems} problems", bytes(s.bytes));
            Ok(problems == 0)
        }
        Some(Line::Stopped(reason)) => bail!("the check stopped: {reason}"),
        _ => bail!("the check did not end"),
    }
}
