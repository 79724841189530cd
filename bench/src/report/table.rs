//! Markdown.

use std::fmt::{self, Display, Formatter};

use super::targets::part;
use super::{Figures, Report, Row};
use crate::peer::Peer;

/// Peers in the order of the table of ratios, with the heads of their columns.
const RATIOS: [(Peer, &str); 6] = [
    (Peer::Ganesha, "ops × Ganesha"),
    (Peer::GaneshaSync, "ops × Ganesha, sync ext4"),
    (Peer::Nfsserve, "ops × nfsserve"),
    (Peer::Nfs3Server, "ops × nfs3_server"),
    (Peer::TcpEcho, "ops of TCP echo"),
    (Peer::TcpAppend, "ops of TCP + fdatasync"),
];

/// A number with about three digits that matter, so that columns stay narrow.
pub(super) fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Part of the CPU that others may have in a benchmark that can be believed.
const QUIET: f64 = 0.1;

/// A cell without figures.
const NONE: &str = "–";

fn ratio(atoll: Option<&Figures>, peer: Option<&Figures>, of: fn(&Figures) -> f64) -> String {
    part(atoll.map(of), peer.map(of)).map_or(NONE.to_owned(), number)
}

fn line(f: &mut Formatter<'_>, cells: &[String]) -> fmt::Result {
    writeln!(f, "| {} |", cells.join(" | "))
}

fn head(f: &mut Formatter<'_>, names: &[&str], left: usize) -> fmt::Result {
    writeln!(f, "| {} |", names.join(" | "))?;
    let rules: Vec<_> = (0..names.len()).map(|n| if n < left { ":--" } else { "--:" }).collect();
    writeln!(f, "|{}|", rules.join("|"))
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.machine(f)?;
        self.ratios(f)?;
        self.failures(f)?;
        self.figures(f)?;
        self.limits(f)?;
        self.space(f)?;
        self.checklist(f)
    }
}

impl Report {
    fn machine(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let m = &self.machine;
        writeln!(f, "# Atoll beside its peers{}\n", if self.quick { " (quick form)" } else { "" })?;
        writeln!(f, "- machine: {} cores, {}, {} MiB", m.cores, m.processor, m.memory_mib)?;
        writeln!(f, "- kernel: {}; data on {}", m.kernel, m.file_system)?;
        writeln!(f, "- {}; load average at the start {}", m.pinning, m.load_at_start)?;
        if let Some((median, most)) = self.others() {
            let verdict =
                if median > QUIET { ": **not a quiet machine, compare nothing closely**" } else { "" };
            writeln!(
                f,
                "- others (kernel threads included) had {:.0} % of the CPU in the median measurement, {:.0} % in the worst{verdict}",
                100.0 * median,
                100.0 * most
            )?;
        }
        writeln!(
            f,
            "- {} s per measurement, {} rounds, servers in turn (A B A B); ops/s is the median of the rounds, percentiles \
             and CPU are over all of them",
            self.scale.duration.as_secs_f64(),
            self.scale.rounds
        )?;
        writeln!(
            f,
            "- CPU is that of the server's process; kernel threads (write-back, journal, loop device) are not in it\n"
        )?;
        head(f, &["server", "what its acknowledgement means"], 2)?;
        for peer in <Peer as clap::ValueEnum>::value_variants() {
            let present = self.rows.iter().any(|row| row.cells.contains_key(peer));
            if let Some(reason) = self.absent.get(peer) {
                line(f, &[peer.name().into(), format!("ABSENT: {reason}")])?;
            } else if present {
                line(f, &[peer.name().into(), peer.durability().into()])?;
            }
        }
        writeln!(f)
    }

    fn ratios(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Ratios\n")?;
        writeln!(f, "Atoll divided by the peer. More ops/s is better, less CPU and less p50 is better.\n")?;
        let mut names = vec!["workload", "in flight", "Atoll ops/s", "Atoll p50 µs"];
        names.extend(["CPU × Ganesha", "p50 × Ganesha"]);
        names.extend(RATIOS.iter().map(|(_, name)| *name));
        head(f, &names, 1)?;
        for row in &self.rows {
            let atoll = row.figures(Peer::Atoll);
            let atoll = atoll.as_ref();
            let ganesha = row.figures(Peer::Ganesha);
            let own = |of: fn(&Figures) -> f64| atoll.map_or(NONE.to_owned(), |figures| number(of(figures)));
            let mut cells = vec![row.work.name().to_owned(), shape(row), own(|f| f.ops_s), own(|f| f.p50_us)];
            cells.push(ratio(atoll, ganesha.as_ref(), |f| f.cpu_us));
            cells.push(ratio(atoll, ganesha.as_ref(), |f| f.p50_us));
            for (peer, _) in RATIOS {
                cells.push(ratio(atoll, row.figures(peer).as_ref(), |f| f.ops_s));
            }
            line(f, &cells)?;
        }
        writeln!(f)
    }

    fn failures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let failed = self.rows.iter().flat_map(|row| {
            row.cells.iter().filter_map(move |(peer, cell)| Some((row, peer, cell.error.as_ref()?)))
        });
        let failed: Vec<_> = failed.collect();
        if failed.is_empty() {
            return Ok(());
        }
        writeln!(f, "## FAILED\n")?;
        for (row, peer, error) in failed {
            writeln!(f, "- {} at {}, {}: **{error}**", row.work.name(), row.shape, peer.name())?;
        }
        writeln!(f)
    }

    fn figures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Figures\n")?;
        let names = [
            "workload",
            "in flight",
            "server",
            "ops/s",
            "MiB/s",
            "p50 µs",
            "p99 µs",
            "server CPU µs/op",
            "peak MiB",
            "ops: Atoll/it",
            "CPU: Atoll/it",
        ];
        head(f, &names, 3)?;
        for row in &self.rows {
            let atoll = row.figures(Peer::Atoll);
            for (peer, cell) in &row.cells {
                let mut cells = vec![row.work.name().to_owned(), shape(row), peer.name().to_owned()];
                match cell.figures() {
                    Some(it) => {
                        #[allow(clippy::cast_precision_loss)] // 1 MiB
                        let rate = row.work.bytes().map(|bytes| it.ops_s * bytes as f64 / f64::from(1 << 20));
                        cells.push(number(it.ops_s));
                        cells.push(rate.map_or(NONE.to_owned(), number));
                        cells.extend([it.p50_us, it.p99_us, it.cpu_us, it.peak_mib].map(number));
                        cells.push(ratio(atoll.as_ref(), Some(&it), |f| f.ops_s));
                        cells.push(ratio(atoll.as_ref(), Some(&it), |f| f.cpu_us));
                    }
                    None => {
                        cells.push("**FAILED**".to_owned());
                        cells.resize(names.len(), NONE.to_owned());
                    }
                }
                line(f, &cells)?;
            }
        }
        writeln!(f)
    }

    fn limits(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.log_limits.is_empty() {
            writeln!(f, "## Append + fdatasync, no network\n")?;
            writeln!(f, "Threads with one record each; preallocated file.\n")?;
            let names = [
                "record of",
                "bytes",
                "in flight",
                "grouped ops/s",
                "grouped p50 µs",
                "each its own ops/s",
                "its p50 µs",
            ];
            head(f, &names, 1)?;
            for l in &self.log_limits {
                let mut cells = vec![l.what.to_owned(), l.bytes.to_string(), l.in_flight.to_string()];
                cells.extend([l.grouped_ops_s, l.grouped_p50_us, l.naive_ops_s, l.naive_p50_us].map(number));
                line(f, &cells)?;
            }
            writeln!(f)?;
        }
        if let Some(disk) = &self.streaming {
            let read =
                disk.read_mib_s.map_or("not measured".to_owned(), |rate| format!("{} MiB/s", number(rate)));
            writeln!(
                f,
                "Streaming: direct write with fdatasync each 64 MiB {} MiB/s; cold read {read} (a hypervisor's cache may serve it)\n",
                number(disk.write_mib_s)
            )?;
        }
        Ok(())
    }

    fn space(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.overwriting.is_empty() {
            writeln!(f, "## Space of an overwritten file\n")?;
            let names = ["server", "file MiB", "written MiB", "overwritten MiB", "some seconds later MiB"];
            head(f, &names, 1)?;
            for o in &self.overwriting {
                let mut cells = vec![o.peer.name().to_owned()];
                cells.extend([o.file_mib, o.fresh_mib, o.at_once_mib, o.settled_mib].map(number));
                line(f, &cells)?;
            }
            writeln!(f)?;
        }
        if let Some(memory) = &self.memory {
            writeln!(
                f,
                "Atoll with {} files and {} idle connections: {} MiB resident\n",
                memory.files,
                memory.clients,
                number(memory.resident_mib)
            )?;
        }
        Ok(())
    }

    fn checklist(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Targets\n")?;
        head(f, &["", "target", "asked", "measured"], 4)?;
        for target in self.targets() {
            let mark = match target.met() {
                Some(true) => "met",
                Some(false) => "**MISSED**",
                None => "not measured",
            };
            let sign = if target.at_most { "≤" } else { "≥" };
            let measured = target.measured.map_or(NONE.to_owned(), number);
            line(
                f,
                &[mark.into(), target.name.clone(), format!("{sign} {}", number(target.bound)), measured],
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "For comparison, Ganesha 4.3 VFS measured earlier on this kind of machine, 4×16: GETATTR 49k/s at 25.6 µs CPU, LOOKUP \
             28.5 µs, READ 4 KiB 44.6 µs, READ 1 MiB 382 µs, WRITE 4 KiB unstable 44 µs and FILE_SYNC 17.4k/s at 82 µs, CREATE \
             18.3k/s at 79 µs with 16 in flight."
        )
    }
}

fn shape(row: &Row) -> String {
    row.shape.to_string()
}
