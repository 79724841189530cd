//! The numeric targets of the issue, against what was measured.

use serde::Serialize;

use super::{Figures, Report};
use crate::load::Shape;
use crate::peer::Peer;
use crate::scale::{ONE, REFERENCE};
use crate::workload::Work;

/// One target.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// What is compared.
    pub name: String,
    /// The bound.
    pub bound: f64,
    /// Whether the bound is an upper one.
    pub at_most: bool,
    /// What was measured; `None` if a part of it is missing.
    pub measured: Option<f64>,
}

impl Target {
    /// Whether it is met, if it was measured.
    pub fn met(&self) -> Option<bool> {
        self.measured.map(|value| if self.at_most { value <= self.bound } else { value >= self.bound })
    }
}

/// Most of Ganesha's CPU per operation that reading metadata and cached small blocks may cost.
const CPU_READ_ONLY: f64 = 0.2;
/// The same for UNSTABLE small WRITEs.
const CPU_WRITE: f64 = 1.0 / 3.0;
/// The same for operations of NFSv4.1: twice as many for a second of CPU.
const CPU_V41: f64 = 0.5;
/// Least part of a limit of the machine.
const OF_LIMIT: f64 = 0.7;
/// Most space of an overwritten file, of a fresh one.
const SPACE: f64 = 1.5;
/// Most resident memory at rest, in MiB.
const MEMORY_MIB: f64 = 150.0;

impl Report {
    /// All targets, in the order of the issue.
    pub fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let at_most = |name: String, bound, measured| Target { name, bound, at_most: true, measured };
        let at_least = |name: String, bound, measured| Target { name, bound, at_most: false, measured };
        for (work, bound) in [
            (Work::Getattr, CPU_READ_ONLY),
            (Work::Lookup, CPU_READ_ONLY),
            (Work::Access, CPU_READ_ONLY),
            (Work::Read4k, CPU_READ_ONLY),
            (Work::Write4k, CPU_WRITE),
        ] {
            let cpu = self.ratio(work, REFERENCE, Peer::Ganesha, |f| f.cpu_us);
            targets.push(at_most(
                format!("{}: CPU per op, of Ganesha's, at {REFERENCE}", work.name()),
                bound,
                cpu,
            ));
        }
        for work in Work::all().iter().filter(|work| work.of_v41()) {
            for shape in &self.scale.shapes {
                let cpu = self.ratio(*work, *shape, Peer::Ganesha, |f| f.cpu_us);
                let name = format!("{}: CPU per op, of Ganesha's, at {shape}", work.name());
                targets.push(at_most(name, CPU_V41, cpu));
            }
        }
        for (work, what) in [(Work::WriteSync4k, "WRITE 4 KiB"), (Work::Create, "CREATE")] {
            for shape in &self.scale.shapes {
                let n = shape.in_flight();
                let limit = self.log_limits.iter().find(|l| l.what == what && l.in_flight == n);
                let rate = self.rate(work, *shape);
                // A log of each caller's own, and what nobody can do better: one writer that does nothing else.
                let own = part(rate, limit.map(|limit| limit.naive_ops_s));
                let name = format!("{}: ops/s, of append + fdatasync by each, at {n} in flight", work.name());
                targets.push(at_least(name, OF_LIMIT, own));
                let grouped = part(rate, limit.map(|limit| limit.grouped_ops_s));
                let name =
                    format!("{}: ops/s, of append + fdatasync in groups, at {n} in flight", work.name());
                targets.push(at_least(name, OF_LIMIT, grouped));
                let part = self.ratio(work, *shape, Peer::TcpAppend, |f| f.ops_s);
                let name = format!("{}: the same behind TCP, at {shape}", work.name());
                targets.push(at_least(name, OF_LIMIT, part));
                let part = self.ratio(work, *shape, Peer::GaneshaSync, |f| f.ops_s);
                let name = format!("{}: ops/s, of Ganesha's on sync ext4, at {shape}", work.name());
                targets.push(at_least(name, 1.0, part));
            }
        }
        for work in [
            Work::Getattr,
            Work::Lookup,
            Work::Access,
            Work::Read4k,
            Work::Read1m,
            Work::ReadCold,
            Work::Readdirplus,
        ] {
            let p50 = self.ratio(work, ONE, Peer::Ganesha, |f| f.p50_us);
            targets.push(at_most(format!("{}: p50 at one in flight, of Ganesha's", work.name()), 1.0, p50));
        }
        let disk = self.streaming;
        for work in [Work::Read1m, Work::Write1m] {
            let part = self.ratio(work, REFERENCE, Peer::TcpEcho, |f| f.ops_s);
            targets.push(at_least(
                format!("{}: of the raw TCP peer, at {REFERENCE}", work.name()),
                OF_LIMIT,
                part,
            ));
        }
        // An operation is 1 MiB, so operations and MiB per second are the same number.
        let of_disk = part(self.rate(Work::Write1m, REFERENCE), disk.map(|d| d.write_mib_s));
        targets.push(at_least("WRITE 1 MiB UNSTABLE: of the streaming write".into(), OF_LIMIT, of_disk));
        let of_disk = part(self.rate(Work::ReadCold, REFERENCE), disk.and_then(|d| d.read_mib_s));
        targets.push(at_least("READ 1 MiB, cold: of the streaming read".into(), OF_LIMIT, of_disk));
        let (fresh, after) = (Work::ReadFresh, Work::ReadOverwritten);
        targets.push(at_least(
            "sequential READ after random overwrites, of a fresh file's".into(),
            OF_LIMIT,
            part(self.rate(after, REFERENCE), self.rate(fresh, REFERENCE)),
        ));
        let space = self.overwriting.iter().find(|o| o.peer == Peer::Atoll);
        let space = part(space.map(|o| o.settled_mib), space.map(|o| o.fresh_mib));
        targets.push(at_most("space after random overwrites, of a fresh file's".into(), SPACE, space));
        let memory = self.memory.map(|m| m.resident_mib);
        targets.push(at_most(
            "MiB resident with a million files and 64 idle clients".into(),
            MEMORY_MIB,
            memory,
        ));
        targets
    }

    /// Atoll's operations per second.
    fn rate(&self, work: Work, shape: Shape) -> Option<f64> {
        Some(self.row(work, shape)?.figures(Peer::Atoll)?.ops_s)
    }

    /// Atoll's figure divided by the peer's.
    pub(super) fn ratio(
        &self,
        work: Work,
        shape: Shape,
        peer: Peer,
        of: impl Fn(&Figures) -> f64,
    ) -> Option<f64> {
        let row = self.row(work, shape)?;
        part(row.figures(Peer::Atoll).as_ref().map(&of), row.figures(peer).as_ref().map(&of))
    }
}

/// `value / of`, if both were measured and there is something to divide by: otherwise the target counts as not measured.
pub(super) fn part(value: Option<f64>, of: Option<f64>) -> Option<f64> {
    let (value, of) = (value?, of?);
    (of > 0.0).then(|| value / of)
}
