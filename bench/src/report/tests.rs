#![allow(clippy::unwrap_used)]
use super::*;
use crate::scale::{ONE, REFERENCE};

fn machine() -> Machine {
    Machine {
        cores: 2,
        processor: "P".into(),
        kernel: "Linux 6".into(),
        memory_mib: 1024,
        file_system: "ext4 on /dev/x (rw)".into(),
        pinning: "shared".into(),
        load_at_start: "0.00 0.00 0.00".into(),
    }
}

/// One second of `ops` operations of 100 µs at `cpu_us` of CPU each.
fn sample(ops: u32, cpu_us: u32) -> Sample {
    let mut latency = Histogram::default();
    (0..ops).for_each(|_| latency.record(100_000));
    let ops64 = u64::from(ops);
    let measured = Measured {
        ops: ops64,
        calls: ops64,
        elapsed: Duration::from_secs(1),
        latency,
        sent: 128 * ops64,
        received: 116 * ops64,
    };
    Sample { measured, cpu: Duration::from_micros(u64::from(cpu_us)) * ops, peak_mib: 10.0, others: 0.02 }
}

fn row(work: Work, shape: Shape, cells: Vec<(Peer, Cell)>) -> Row {
    Row { work, shape, cells: cells.into_iter().collect() }
}

fn cell(samples: Vec<Sample>) -> Cell {
    Cell { samples, error: None }
}

fn report(rows: Vec<Row>) -> Report {
    Report {
        machine: machine(),
        scale: Scale::quick(),
        quick: true,
        absent: BTreeMap::new(),
        rows,
        overwriting: Vec::new(),
        log_limits: Vec::new(),
        streaming: None,
        memory: None,
    }
}

#[test]
fn figures_are_medians_of_rounds_and_totals_of_cpu() {
    let figures = cell(vec![sample(100, 10), sample(300, 20), sample(500, 20)]).figures().unwrap();
    assert!((figures.ops_s - 300.0).abs() < 1e-9);
    assert!((figures.cpu_us - (100.0 * 10.0 + 800.0 * 20.0) / 900.0).abs() < 1e-9);
    assert!((figures.p50_us - 100.0).abs() < 2.0);
    assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
}

#[test]
fn record_sizes_are_those_of_a_call() {
    assert_eq!(sample(7, 1).record_sizes(), (128, 116));
}

#[test]
fn a_row_with_an_error_has_no_figures_and_is_shouted() {
    let failed = Cell { samples: vec![sample(100, 10)], error: Some("REMOVE: NoEnt".into()) };
    let report = report(vec![row(
        Work::Remove,
        ONE,
        vec![(Peer::Atoll, cell(vec![sample(10, 1)])), (Peer::Ganesha, failed)],
    )]);
    assert!(report.has_failures());
    let text = report.to_string();
    assert!(text.contains("## FAILED"));
    assert!(text.contains("REMOVE at 1×1, Ganesha: **REMOVE: NoEnt**"));
    assert!(text.contains("| REMOVE | 1×1 | Ganesha | **FAILED** |"));
}

#[test]
fn ratios_are_atoll_over_the_peer() {
    let cells = vec![
        (Peer::Atoll, cell(vec![sample(1000, 5)])),
        (Peer::Ganesha, cell(vec![sample(400, 25)])),
        (Peer::TcpEcho, cell(vec![sample(2000, 2)])),
    ];
    let report = report(vec![row(Work::Getattr, REFERENCE, cells)]);
    let text = report.to_string();
    // Ops, p50, CPU and p50 of Ganesha's, ops of Ganesha's, three absent ones, TCP echo, no log.
    let expected = "| GETATTR | 4×16 | 1000 | 100 | 0.20 | 1.00 | 2.50 | – | – | – | 0.50 | – |";
    assert!(text.contains(expected), "{text}");
    let target = &report.targets()[0];
    assert_eq!(target.met(), Some(true), "a fifth is met exactly");
    assert!(!report.has_failures());
}

#[test]
fn every_line_of_a_table_has_the_columns_of_its_head() {
    let cells =
        vec![(Peer::Atoll, cell(vec![sample(1000, 5)])), (Peer::GaneshaSync, cell(vec![sample(4, 25)]))];
    let mut report = report(vec![row(Work::Create, REFERENCE, cells)]);
    report.overwriting.push(Overwriting {
        peer: Peer::Atoll,
        file_mib: 64.0,
        fresh_mib: 64.0,
        at_once_mib: 130.0,
        settled_mib: 80.0,
    });
    report.streaming = Some(Streaming { write_mib_s: 500.0, read_mib_s: None });
    report.absent.insert(Peer::Nfsserve, "not built".into());
    let mut columns = None;
    for line in report.to_string().lines() {
        columns = line.starts_with('|').then(|| {
            let here = line.matches('|').count();
            assert_eq!(here, columns.unwrap_or(here), "{line}");
            here
        });
    }
}

#[test]
fn a_target_without_its_parts_is_not_measured_and_one_beyond_its_bound_is_missed() {
    let report = report(vec![row(Work::Create, REFERENCE, vec![(Peer::Atoll, cell(vec![sample(10, 1)]))])]);
    assert!(report.targets().iter().all(|target| target.met().is_none()));
    let missed = Target { name: String::new(), bound: 0.7, at_most: false, measured: Some(0.69) };
    assert_eq!(missed.met(), Some(false));
    let missed = Target { name: String::new(), bound: 0.2, at_most: true, measured: Some(0.21) };
    assert_eq!(missed.met(), Some(false));
}

#[test]
fn a_ratio_with_nothing_to_divide_by_is_not_measured() {
    let mut report = report(Vec::new());
    let space = |fresh_mib, settled_mib| Overwriting {
        peer: Peer::Atoll,
        file_mib: 64.0,
        fresh_mib,
        at_once_mib: 67.0,
        settled_mib,
    };
    let met = |report: &Report| {
        let targets = report.targets();
        targets.iter().find(|target| target.name.starts_with("space")).unwrap().met()
    };
    for (fresh, settled, verdict) in
        [(0.0, 0.0, None), (0.0, 7.0, None), (64.0, 96.0, Some(true)), (64.0, 97.0, Some(false))]
    {
        report.overwriting = vec![space(fresh, settled)];
        assert_eq!(met(&report), verdict, "{settled} of {fresh}");
        let text = report.to_string();
        assert!(!text.contains("NaN") && !text.contains("inf |"), "{text}");
    }
    // The same for what the limits of the machine are divided by.
    let cells = vec![(Peer::Atoll, cell(vec![sample(10, 1)])), (Peer::TcpAppend, cell(vec![sample(0, 1)]))];
    report.rows = vec![row(Work::Write1m, REFERENCE, vec![(Peer::Atoll, cell(vec![sample(10, 1)]))])];
    report.rows.push(row(Work::Create, REFERENCE, cells));
    report.streaming = Some(Streaming { write_mib_s: 0.0, read_mib_s: Some(0.0) });
    report.log_limits = vec![LogLimit {
        what: "CREATE",
        bytes: 192,
        in_flight: REFERENCE.in_flight(),
        grouped_ops_s: 0.0,
        grouped_p50_us: 0.0,
        naive_ops_s: 0.0,
        naive_p50_us: 0.0,
    }];
    for target in report.targets() {
        let wanted = target.name.starts_with("space");
        assert_eq!(target.measured.is_some(), wanted, "{target:?}");
    }
}

#[test]
fn json_holds_figures_errors_and_verdicts() {
    let cells =
        vec![(Peer::Atoll, cell(vec![sample(1000, 5)])), (Peer::Ganesha, cell(vec![sample(400, 50)]))];
    let json = report(vec![row(Work::Getattr, REFERENCE, cells)]).to_json().unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["results"][0]["server"], "atoll");
    assert_eq!(value["results"][1]["figures"]["ops_s"], 400.0);
    assert_eq!(value["targets"][0]["met"], true);
}
