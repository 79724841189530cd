//! `atoll export`: exports of a running server. A change is in force when the command returns; mounted clients of
//! other exports notice nothing.

use crate::admin::client::Client;
use crate::export_syntax::ExportWords;
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
    /// Show the exports.
    List,
    /// Export a path, or change how it is exported: 'PATH=CLIENTS,OPTION,…'.
    Add {
        /// Such as '/media=10.0.0.0/8:host.example,rw,no_root_squash'.
        words: String,
    },
    /// Take an export back. Clients that have it mounted get ESTALE.
    Remove {
        /// The exported path.
        path: String,
    },
}

/// Runs the subcommand.
pub(crate) async fn run(options: Options) -> Result<()> {
    match options.action {
        Action::List => {
            let mut client = Client::connect(&options.dir).await?;
            let exports: Vec<String> = client.call(Method::GET, "/v1/exports", None::<&()>).await?;
            exports.iter().for_each(|words| println!("{words}"));
        }
        Action::Add { words } => {
            // A mistake in the words is answered here, with or without a server.
            let _checked: ExportWords = words.parse()?;
            let mut client = Client::connect(&options.dir).await?;
            let body = json!({ "words": words });
            let in_force: String = client.call(Method::PUT, "/v1/exports", Some(&body)).await?;
            println!("{in_force}");
        }
        Action::Remove { path } => {
            let mut client = Client::connect(&options.dir).await?;
            let path = format!("/v1/exports?path={}", percent_encode(&path));
            let () = client.call(Method::DELETE, &path, None::<&()>).await?;
        }
    }
    Ok(())
}

/// A path as the value of a query parameter.
pub(crate) fn percent_encode(path: &str) -> String {
    path.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_in_queries() {
        assert_eq!(super::percent_encode("/a b&c/ü"), "/a%20b%26c/%C3%BC");
    }
}
