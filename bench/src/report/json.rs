//! The report as JSON: what the tables say, with the figures of each round.

use serde::Serialize;

use super::{Figures, LogLimit, Memory, Overwriting, Report, Streaming, Target};
use crate::load::Shape;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::scale::Scale;
use crate::workload::Work;

#[derive(Serialize)]
struct Json<'r> {
    machine: &'r Machine,
    scale: &'r Scale,
    quick: bool,
    /// Part of the CPU that neither server nor load generator had: median and most.
    others_cpu: Option<(f64, f64)>,
    absent: Vec<Absent<'r>>,
    results: Vec<Result<'r>>,
    overwriting: &'r [Overwriting],
    log_limits: &'r [LogLimit],
    streaming: Option<Streaming>,
    memory: Option<Memory>,
    targets: Vec<TargetAndVerdict>,
}

#[derive(Serialize)]
struct Absent<'r> {
    server: Peer,
    reason: &'r str,
}

#[derive(Serialize)]
struct Result<'r> {
    workload: Work,
    shape: Shape,
    server: Peer,
    durability: &'static str,
    figures: Option<Figures>,
    error: Option<&'r str>,
}

#[derive(Serialize)]
struct TargetAndVerdict {
    #[serde(flatten)]
    target: Target,
    met: Option<bool>,
}

impl Report {
    /// The whole report.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut results = Vec::new();
        for row in &self.rows {
            for (peer, cell) in &row.cells {
                results.push(Result {
                    workload: row.work,
                    shape: row.shape,
                    server: *peer,
                    durability: peer.durability(),
                    figures: cell.figures(),
                    error: cell.error.as_deref(),
                });
            }
        }
        let verdict = |target: Target| TargetAndVerdict { met: target.met(), target };
        serde_json::to_string_pretty(&Json {
            machine: &self.machine,
            scale: &self.scale,
            quick: self.quick,
            others_cpu: self.others(),
            absent: self.absent.iter().map(|(server, reason)| Absent { server: *server, reason }).collect(),
            results,
            overwriting: &self.overwriting,
            log_limits: &self.log_limits,
            streaming: self.streaming,
            memory: self.memory,
            targets: self.targets().into_iter().map(verdict).collect(),
        })
    }
}
