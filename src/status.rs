//! `atoll status`: what a running node says of itself.

use crate::admin::client::Client;
use crate::admin::report::Report;
use anyhow::Result;
use hyper::Method;
use std::fmt::Write as _;
use std::path::Path;

/// Asks the server that uses `dir` and prints the answer.
pub(crate) async fn run(dir: &Path, json: bool) -> Result<()> {
    let report: Report = Client::connect(dir).await?.call(Method::GET, "/v1/status", None::<&()>).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", render(&report));
    }
    Ok(())
}

fn render(r: &Report) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: String| {
        let _infallible = writeln!(out, "{label:<12}{text}");
    };
    line("atoll", format!("{}, node {} of cluster {}", r.version, r.node_id, r.cluster_id));
    line("up", format!("{}, serving {}", duration(r.uptime_seconds), r.nfs));
    line("durability", r.durability.clone());
    line(
        "raft",
        format!(
            "{}, term {}, {} member{}, {} entries applied",
            r.raft.role,
            r.raft.term,
            r.raft.members,
            plural(r.raft.members),
            r.raft.applied
        ),
    );
    line(
        "log",
        format!(
            "{} in {} segments, {} syncs, the last took {} µs",
            bytes(r.log.bytes),
            r.log.segments,
            r.log.syncs,
            r.log.last_sync_microseconds
        ),
    );
    if !r.log.failure.is_empty() {
        line("", format!("FAILED: {}", r.log.failure));
    }
    line("metadata", bytes(r.store.bytes));
    line(
        "blocks",
        format!(
            "{} in {} blocks, {} to reclaim, {} segments, room for {}",
            bytes(r.blocks.live_bytes),
            r.blocks.blocks,
            bytes(r.blocks.dead_bytes),
            r.blocks.segments,
            bytes(r.blocks.available_bytes)
        ),
    );
    line(
        "read ahead",
        format!("{} of at most {}", bytes(r.blocks.read_ahead_bytes), bytes(r.blocks.read_ahead_limit_bytes)),
    );
    line(
        "read cache",
        format!("{} of at most {}", bytes(r.blocks.read_cache_bytes), bytes(r.blocks.read_cache_limit_bytes)),
    );
    line(
        "load",
        format!(
            "{:.0} ops/s, {} read, {} written, {} unstable, {} resident",
            r.ops_per_second,
            bytes(r.bytes_read),
            bytes(r.bytes_written),
            bytes(r.unstable_bytes),
            bytes(r.resident_bytes)
        ),
    );
    line(
        "outcomes",
        format!(
            "{} kept for retransmissions, the oldest for {} s (at least {} s)",
            r.outcomes.kept, r.outcomes.oldest_seconds, r.outcomes.kept_at_least_seconds
        ),
    );
    line(
        "delegations",
        format!(
            "{} granted, {} recalled, {} revoked",
            r.delegations.granted, r.delegations.recalled, r.delegations.revoked
        ),
    );
    for volume in &r.volumes {
        line("volume", format!("{}: {} inodes, {}", volume.name, volume.inodes, bytes(volume.bytes)));
    }
    for export in &r.exports {
        line("export", export.clone());
    }
    line("connections", r.connections.to_string());
    for client in &r.clients {
        line("client", format!("{}, last heard of {} s ago", client.address, client.idle_seconds));
    }
    let _infallible =
        writeln!(out, "\n{:<22}{:>12}{:>10}{:>12}{:>12}", "procedure", "calls", "errors", "p50 µs", "p99 µs");
    for p in &r.procedures {
        let _infallible = writeln!(
            out,
            "{:<22}{:>12}{:>10}{:>12}{:>12}",
            p.name, p.calls, p.errors, p.p50_microseconds, p.p99_microseconds
        );
    }
    out
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// Bytes in the largest binary unit that leaves at least one.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let exponent = (n.ilog2() / 10).min(6);
    format!("{:.1} {}", n as f64 / f64::from(1 << 10_u32).powi(exponent as i32), UNITS[exponent as usize - 1])
}

fn duration(seconds: f64) -> String {
    let s = seconds as u64;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(3_700.0), "1 h 1 min");
        assert_eq!(duration(90_000.0), "1 d 1 h");
    }

    #[test]
    fn a_report_renders_whole() {
        let text = render(&Report { exports: vec!["/=*,rw".into()], ..Report::default() });
        assert!(text.contains("export      /=*,rw"), "{text}");
    }
}
