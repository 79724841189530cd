//! `atoll volume`: volumes of a running server.

use crate::admin::client::Client;
use crate::admin::report::Volume;
use crate::status::bytes;
use anyhow::Result;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// The data directory of the server.
    #[arg(long, default_value = "./data", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the volumes.
    List,
    /// Make a volume. Export it with `atoll export add '/PATH=CLIENTS,volume=NAME'`.
    Create {
        /// 1 to 64 of letters, digits, `_`, `.` and `-`.
        name: String,
    },
}

/// Runs the subcommand.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut client = Client::connect(&options.dir).await?;
    match options.action {
        Action::List => {
            let volumes: Vec<Volume> = client.call(Method::GET, "/v1/volumes", None::<&()>).await?;
            for volume in volumes {
                println!("{}: {} inodes, {}", volume.name, volume.inodes, bytes(volume.bytes));
            }
        }
        Action::Create { name } => {
            let () = client.call(Method::POST, "/v1/volumes", Some(&json!({ "name": name }))).await?;
        }
    }
    Ok(())
}
