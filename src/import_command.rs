//! The command around [`crate::import`].

use crate::data_dir::DataDir;
use crate::import::import;
use crate::node::{Node, Options as NodeOptions};
use crate::status::bytes;
use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args)]
pub(crate) struct Options {
    /// The directory whose content is copied.
    source: PathBuf,
    /// The data directory; made if it does not exist. No server may be using it.
    #[arg(long, value_name = "DIR", default_value = "./data")]
    into: PathBuf,
    /// Where the content goes within the root volume; made if it does not exist.
    #[arg(long, value_name = "PATH", default_value = "/")]
    at: String,
}

/// Runs the subcommand. What was interrupted goes on where it was when the same command is given again.
pub(crate) async fn run(options: Options) -> Result<()> {
    let data = DataDir::open_or_create(&options.into)?;
    let node = NodeOptions::new(data.identity.cluster_id()?, data.identity.node_id);
    let node = Node::open(data.disk.clone(), node).await?;
    let bar = ProgressBar::new(0);
    let blocks = Arc::new(node.blocks.clone());
    let result = import(node.meta.clone(), blocks, node.ids.clone(), &options.source, &options.at, bar).await;
    node.close().await?;
    let summary = result?;
    println!(
        "{} entries copied ({}), {} were there already",
        summary.copied,
        bytes(summary.bytes),
        summary.skipped
    );
    Ok(())
}
