//! What was measured, and its two forms: tables for people, JSON for programs.

mod json;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::histogram::Histogram;
use crate::limits::append::Appended;
use crate::load::{Measured, Shape};
use crate::machine::Machine;
use crate::peer::Peer;
use crate::scale::Scale;
use crate::workload::Work;

pub use targets::Target;

/// One measurement.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What the load generator saw.
    pub measured: Measured,
    /// CPU time of the server.
    pub cpu: Duration,
    /// Peak of its resident memory, in MiB.
    pub peak_mib: f64,
    /// Part of the machine's CPU time that neither the server nor the load generator used.
    pub others: f64,
}

impl Sample {
    /// Mean bytes of a call and of a reply, record marks included.
    pub fn record_sizes(&self) -> (usize, usize) {
        let calls = self.measured.calls.max(1);
        let mean = |bytes: u64| usize::try_from(bytes.div_ceil(calls)).expect("a record is at most some MiB");
        (mean(self.measured.sent), mean(self.measured.received))
    }
}

/// All measurements of one server in one row, and why there are no more.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// One per round.
    pub samples: Vec<Sample>,
    /// The first failure; the row counts as failed.
    pub error: Option<String>,
}

/// The figures of a cell.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Figures {
    /// Operations per second: the median of the rounds.
    pub ops_s: f64,
    /// Operations per second of each round.
    pub rounds_ops_s: Vec<f64>,
    /// Latency of half of all operations, in µs.
    pub p50_us: f64,
    /// Latency of 99 % of all operations, in µs.
    pub p99_us: f64,
    /// CPU time of the server per operation, in µs.
    pub cpu_us: f64,
    /// Peak of resident memory, in MiB.
    pub peak_mib: f64,
}

impl Cell {
    /// The figures, unless the row failed.
    pub fn figures(&self) -> Option<Figures> {
        if self.error.is_some() || self.samples.is_empty() {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // operations are far below 2^52
        let rounds_ops_s: Vec<f64> =
            self.samples.iter().map(|s| s.measured.ops as f64 / s.measured.elapsed.as_secs_f64()).collect();
        let mut latency = Histogram::default();
        self.samples.iter().for_each(|sample| latency.merge(&sample.measured.latency));
        #[allow(clippy::cast_precision_loss)]
        let micros = |quantile| latency.quantile(quantile).unwrap_or(0) as f64 / 1000.0;
        let cpu: Duration = self.samples.iter().map(|sample| sample.cpu).sum();
        let ops: u64 = self.samples.iter().map(|sample| sample.measured.ops).sum();
        #[allow(clippy::cast_precision_loss)]
        let cpu_us = cpu.as_secs_f64() * 1e6 / ops as f64;
        let peak_mib = self.samples.iter().map(|sample| sample.peak_mib).fold(0.0, f64::max);
        Some(Figures {
            ops_s: median(&rounds_ops_s),
            rounds_ops_s,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            cpu_us,
            peak_mib,
        })
    }
}

/// The value in the middle; of an even number, the mean of the two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mid = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[mid - 1], sorted[mid]) } else { sorted[mid] }
}

/// A workload in a shape, on all servers.
#[derive(Debug, Clone)]
pub struct Row {
    /// The workload.
    pub work: Work,
    /// Calls in flight.
    pub shape: Shape,
    /// By server.
    pub cells: BTreeMap<Peer, Cell>,
}

impl Row {
    /// The figures of one server.
    pub fn figures(&self, peer: Peer) -> Option<Figures> {
        self.cells.get(&peer).and_then(Cell::figures)
    }

    /// A line for the terminal while the benchmark runs.
    pub fn progress_line(&self) -> String {
        let mut line = format!("{} at {}:", self.work.name(), self.shape);
        for (peer, cell) in &self.cells {
            match (cell.figures(), &cell.error) {
                (Some(f), _) => write!(line, " {} {:.0}/s {:.1} µs CPU;", peer.name(), f.ops_s, f.cpu_us),
                (None, Some(error)) => write!(line, " {} FAILED: {error};", peer.name()),
                (None, None) => Ok(()),
            }
            .expect("writing to a string does not fail");
        }
        line.push('\n');
        line
    }
}

/// Space of a file that was overwritten.
#[derive(Debug, Clone, Serialize)]
pub struct Overwriting {
    /// Whose.
    pub peer: Peer,
    /// Length of the file.
    pub file_mib: f64,
    /// Space on the disk after it was written.
    pub fresh_mib: f64,
    /// Space right after the overwriting.
    pub at_once_mib: f64,
    /// Space after the server had time to tidy up.
    pub settled_mib: f64,
}

/// What append + fdatasync gives at a number in flight.
#[derive(Debug, Clone, Serialize)]
pub struct LogLimit {
    /// Whose record it is.
    pub what: &'static str,
    /// Bytes of a record.
    pub bytes: usize,
    /// Threads with one record each.
    pub in_flight: usize,
    /// Records per second through one writer that groups them.
    pub grouped_ops_s: f64,
    /// Their median latency in µs.
    pub grouped_p50_us: f64,
    /// Records per second with an fdatasync by each thread.
    pub naive_ops_s: f64,
    /// Their median latency in µs.
    pub naive_p50_us: f64,
}

impl LogLimit {
    /// From what was measured.
    pub fn new(
        what: &'static str,
        bytes: usize,
        in_flight: usize,
        grouped: &Appended,
        naive: &Appended,
    ) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let rate = |a: &Appended| a.ops as f64 / a.elapsed.as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let p50 = |a: &Appended| a.latency.quantile(0.5).unwrap_or(0) as f64 / 1000.0;
        Self {
            what,
            bytes,
            in_flight,
            grouped_ops_s: rate(grouped),
            grouped_p50_us: p50(grouped),
            naive_ops_s: rate(naive),
            naive_p50_us: p50(naive),
        }
    }
}

/// What the disk streams.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Streaming {
    /// Writing with a sync each 64 MiB.
    pub write_mib_s: f64,
    /// Reading with an empty cache, where that is permitted.
    pub read_mib_s: Option<f64>,
}

/// Memory of Atoll at rest.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Files.
    pub files: u64,
    /// Idle connections.
    pub clients: usize,
    /// Resident memory.
    pub resident_mib: f64,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Sizes and times.
    pub scale: Scale,
    /// Whether this was the quick form.
    pub quick: bool,
    /// Servers that are missing, and why.
    pub absent: BTreeMap<Peer, String>,
    /// The measurements.
    pub rows: Vec<Row>,
    /// Space after overwriting.
    pub overwriting: Vec<Overwriting>,
    /// What a log could do.
    pub log_limits: Vec<LogLimit>,
    /// What the disk streams.
    pub streaming: Option<Streaming>,
    /// Memory at rest.
    pub memory: Option<Memory>,
}

impl Report {
    /// Whether something was to be measured and could not.
    pub fn has_failures(&self) -> bool {
        !self.absent.is_empty()
            || self.rows.iter().any(|row| row.cells.values().any(|cell| cell.error.is_some()))
    }

    /// The part of the CPU that others had, half of all measurements had more, and the most in any.
    pub fn others(&self) -> Option<(f64, f64)> {
        let cells = self.rows.iter().flat_map(|row| row.cells.values());
        let others: Vec<f64> = cells.flat_map(|cell| &cell.samples).map(|sample| sample.others).collect();
        let most = others.iter().copied().reduce(f64::max)?;
        Some((median(&others), most))
    }

    fn row(&self, work: Work, shape: Shape) -> Option<&Row> {
        self.rows.iter().find(|row| row.work == work && row.shape == shape)
    }
}

#[cfg(test)]
mod tests;
