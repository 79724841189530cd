//! Entries that are called durable when the disk has them, and are when the log was settled.

use super::*;
use atoll_base::disk::wrap::{HoldWrites, WrapDisk};
use std::sync::atomic::{AtomicBool, Ordering};

const SEEDS: u64 = 40;

fn until_idle(wal: &Wal) {
    while !wal.is_idle() {
        std::thread::yield_now();
    }
}

/// Goes through a first group, which is followed by a sync of the whole file.
fn begun(wal: &Wal) {
    wal.append(vec![entry(1, 1, &[10])], Box::new(|result| result.unwrap())).unwrap();
    until_idle(wal);
    wal.set_alone(true).unwrap();
}

fn by_hand(sim: &SimDisk) -> Wal {
    let wal = Wal::open_unattended(disk(sim), dir(), config()).unwrap();
    wal.append(vec![entry(1, 1, &[10])], Box::new(|result| result.unwrap())).unwrap();
    wal.step();
    wal.set_alone(true).unwrap();
    wal
}

/// Appends the entry early; whether that it is durable was said by the time this returned.
fn append_early(wal: &Wal, index: u64) -> bool {
    let told = Arc::<AtomicBool>::default();
    let done = told.clone();
    wal.append_early(
        vec![entry(1, index, &[10])],
        Box::new(move |r| done.store(r.is_ok(), Ordering::SeqCst)),
    )
    .unwrap();
    told.load(Ordering::SeqCst)
}

fn last(sim: &SimDisk) -> u64 {
    Wal::open_unattended(disk(sim), dir(), config()).unwrap().bounds().1.unwrap().index
}

#[test]
fn it_is_told_at_once_and_durable_when_settled() {
    let found = |settle: bool| -> Vec<u64> {
        let life = |seed| {
            let sim = SimDisk::new();
            let wal = by_hand(&sim);
            assert!(append_early(&wal, 2));
            assert_eq!(wal.entries(2..3, usize::MAX).unwrap().len(), 1);
            if settle {
                wal.settle().unwrap();
            }
            let crashed = sim.crash(seed);
            drop(wal);
            last(&crashed)
        };
        (0..SEEDS).map(life).collect()
    };
    assert!(found(true).iter().all(|last| *last == 2));
    let unsettled = found(false);
    assert!(unsettled.contains(&1) && unsettled.contains(&2), "{unsettled:?}");
}

#[test]
fn a_log_with_company_tells_nothing_early() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    wal.set_alone(false).unwrap();
    assert!(!append_early(&wal, 2));
    wal.settle().unwrap();
    wal.step();
    let crashed = sim.crash(0);
    drop(wal);
    assert_eq!(last(&crashed), 2);
}

#[test]
fn a_failure_is_found_by_who_settles_and_nothing_more_is_taken() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    sim.fail_next_sync("wal.append");
    assert!(append_early(&wal, 2));
    for _ in 0..2 {
        assert!(matches!(wal.settle(), Err(WalError::Failed(_))));
    }
    let refused = wal.append_early(vec![entry(1, 3, &[10])], Box::new(|_| ()));
    assert!(matches!(refused, Err(WalError::Failed(_))), "{refused:?}");
}

/// Nobody settles: those who come later must not wait for ever, nor the end of the log.
#[test]
fn what_comes_later_does_not_depend_on_who_was_told() {
    for later in [false, true] {
        let sim = SimDisk::new();
        let wal = Wal::open(disk(&sim), dir(), config()).unwrap();
        begun(&wal);
        assert!(append_early(&wal, 2));
        if later {
            // Also one that would be early itself, had the disk nothing to do.
            append_early(&wal, 3);
            wait(|done| wal.append(vec![entry(1, 4, &[10])], done)).unwrap();
        } else {
            drop(wal);
        }
        assert_eq!(last(&sim.crash(0)), if later { 4 } else { 2 });
    }
}

#[test]
fn company_comes_when_all_is_durable_and_others_settle_meanwhile() {
    let sim = SimDisk::new();
    let held = HoldWrites::new(disk(&sim));
    let wal = Wal::open(Arc::new(WrapDisk(held.clone())), dir(), config()).unwrap();
    begun(&wal);
    held.wait.shut(true);
    assert!(append_early(&wal, 2));
    let came = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wal.set_alone(false).unwrap();
            came.store(true, Ordering::SeqCst);
        });
        held.wait.until_somebody_waits();
        // One waits for the disk, and one for that one.
        let settled = scope.spawn(|| wal.settle());
        assert!(!came.load(Ordering::SeqCst));
        held.wait.shut(false);
        settled.join().unwrap().unwrap();
    });
    held.wait.shut(true);
    assert!(!append_early(&wal, 3), "told early in company");
    held.wait.shut(false);
    wait(|done| wal.append(vec![entry(1, 4, &[10])], done)).unwrap();
    drop(wal);
    assert_eq!(last(&sim.crash(0)), 4);
}

#[test]
fn who_has_company_by_the_time_the_disk_has_the_entry_is_not_told() {
    let sim = SimDisk::new();
    let held = HoldWrites::new(disk(&sim));
    let wal = Wal::open(Arc::new(WrapDisk(held.clone())), dir(), config()).unwrap();
    begun(&wal);
    held.begin.shut(true);
    held.wait.shut(true);
    std::thread::scope(|scope| {
        let told = scope.spawn(|| append_early(&wal, 2));
        held.begin.until_somebody_waits();
        // Nothing was said yet.
        wal.set_alone(false).unwrap();
        held.begin.shut(false);
        assert!(!told.join().unwrap());
        held.wait.shut(false);
    });
    // It is written without anybody who settles.
    until_idle(&wal);
    let crashed = sim.crash(0);
    drop(wal);
    assert_eq!(last(&crashed), 2);
}

#[test]
fn an_entry_that_fills_the_queue_does_not_keep_others_out() {
    let sim = SimDisk::new();
    let config = Config { queue_bytes: 100, ..config() };
    let wal = Wal::open(disk(&sim), dir(), config).unwrap();
    begun(&wal);
    for index in 2..20 {
        wal.append_early(vec![entry(1, index, &[200])], Box::new(|result| result.unwrap())).unwrap();
    }
    drop(wal);
    assert_eq!(last(&sim.crash(0)), 19);
}
