//! The command around [`crate::import`].

use crate::data_dir::DataDir;
use crate::import::{What, import};
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
    /// Do not go into other file systems that are mounted below the source (such as /proc below /).
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Keep the labels of SELinux, which exports with the option security_label show.
    #[arg(long)]
    security_labels: bool,
}

/// Runs the subcommand. What was interrupted goes on where it was when the same command is given again.
///
/// Whether everything was copied.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let data = DataDir::open_or_create(&options.into)?;
    let node = NodeOptions::for_disk(&data.identity, data.disk.as_ref())?;
    let node = Node::open(data.disk.clone(), node).await?;
    let bar = ProgressBar::new(0);
    let blocks = Arc::new(node.blocks.clone());
    let what = What {
        source: options.source,
        except: Some(options.into),
        one_file_system: options.one_file_system,
        labels: options.security_labels,
    };
    let result = import(node.meta.clone(), blocks, node.ids.clone(), &what, &options.at, bar).await;
    node.close().await?;
    let summary = result?;
    println!(
        "{} entries copied ({}), {} were there already",
        summary.copied,
        bytes(summary.bytes),
        summary.skipped
    );
    if summary.stripped > 0 {
        eprintln!(
            "{} entries have attributes that NFS does not carry; these were left out",
            summary.stripped
        );
    }
    if summary.failed > 0 {
        eprintln!("{} entries could not be copied; the same command tries them again", summary.failed);
    }
    Ok(summary.failed == 0)
}
