//! `atoll scrub`: lets a running server verify all it stores.

use crate::admin::client::Client;
use crate::node::Line;
use crate::status::bytes;
use anyhow::{Result, bail};
use hyper::Method;
use std::path::Path;

/// Asks the server that uses `dir`, prints what it finds; whether all was well.
pub(crate) async fn run(dir: &Path) -> Result<bool> {
    let mut client = Client::connect(dir).await?;
    let mut end = None;
    client
        .stream(Method::POST, "/v1/scrub", |line| match line {
            Line::Finding(finding) => println!("{}: {}", finding.place, finding.what),
            other => end = Some(other),
        })
        .await?;
    match end {
        Some(Line::Summary(s)) => {
            println!("{} blocks, {} verified: {} problems", s.blocks, bytes(s.bytes), s.findings);
            Ok(s.findings == 0)
        }
        Some(Line::Stopped(reason)) => bail!("the scrub stopped: {reason}"),
        _ => bail!("the server stopped before the scrub was through"),
    }
}
