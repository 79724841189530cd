//! Full disks and failing writes.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_blockstore::{BlockStore, CompactStep, Config, Prepare, SITE_APPEND, check};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const STORE: u128 = 5;

fn config() -> Config {
    Config {
        segment_bytes: 256 << 10,
        direct_bytes: 16 << 10,
        stage_bytes: 12 << 10,
        read_threads: 1,
        prepare: Prepare::Inline,
        space_refresh: Duration::ZERO,
        ..Config::new(STORE)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn content(n: u128, len: usize) -> Bytes {
    vec![n as u8; len].into()
}

fn open(disk: &SimDisk) -> BlockStore {
    BlockStore::open(Arc::new(disk.clone()), config()).unwrap()
}

/// Puts blocks until there is no room; returns how many.
fn fill(rt: &Runtime, store: &BlockStore, from: u128, len: usize) -> u128 {
    let mut n = from;
    loop {
        match rt.block_on(store.put_unreserved(vec![(BlockId(n), content(n, len))])) {
            Ok(()) => n += 1,
            Err(BlockError::NoSpace) => return n - from,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_puts_and_goes_on() {
    let rt = runtime();
    let disk = SimDisk::new();
    disk.set_capacity(4 << 20);
    let store = open(&disk);
    let n = fill(&rt, &store, 1, 8000);
    assert!(n > 300, "most of the disk can be used: {n}");
    assert_eq!(store.metrics().failed, None);
    for i in 1..=n {
        assert_eq!(rt.block_on(store.get(BlockId(i), 0, 8000)).unwrap(), content(i, 8000));
    }
    // Deletions go on, compaction makes room, and it can be used again; over and over.
    let mut next = n + 1;
    let mut oldest = 1;
    for _ in 0..5 {
        let dead: Vec<_> = (oldest..next).filter(|i| i % 8 != 0).map(BlockId).collect();
        oldest = next;
        for some in dead.chunks(10) {
            rt.block_on(store.delete(some.to_vec())).unwrap();
        }
        while store.compact_step(1 << 20, Duration::ZERO).unwrap() != CompactStep::Idle {}
        let more = fill(&rt, &store, next, 8000);
        assert!(more > 100, "{more}");
        next += more;
    }
    let before = store.metrics();
    drop(store);
    let disk = disk.crash(1);
    assert!(check(&disk, STORE).unwrap().is_clean());
    assert_eq!(open(&disk).metrics().blocks, before.blocks);
}

#[test]
fn a_disk_filled_by_others_leaves_reads_and_deletions() {
    let rt = runtime();
    let disk = SimDisk::new();
    let store = open(&disk);
    for n in 1..=40 {
        rt.block_on(store.put(vec![(BlockId(n), content(n, 8000))])).unwrap();
    }
    disk.set_capacity(disk.used());
    assert!(store.space().available < 256 << 10, "only the rest of the current segment");
    let full = (100..200)
        .find_map(|n| rt.block_on(store.put_unreserved(vec![(BlockId(n), content(n, 8000))])).err())
        .unwrap();
    assert!(matches!(full, BlockError::NoSpace));
    assert!(matches!(store.reserve(1 << 20), Err(BlockError::NoSpace)));
    rt.block_on(store.delete((1..=39).map(BlockId).collect())).unwrap();
    assert_eq!(rt.block_on(store.get(BlockId(40), 0, 8000)).unwrap(), content(40, 8000));
    drop(store);
    // It opens on the full disk, too.
    let store = open(&disk.crash(3));
    assert_eq!(rt.block_on(store.get(BlockId(40), 0, 8000)).unwrap(), content(40, 8000));
    assert!(matches!(rt.block_on(store.get(BlockId(1), 0, 8000)), Err(BlockError::Missing(_))));
    while !matches!(
        store.compact_step(1 << 20, Duration::ZERO),
        Ok(CompactStep::Idle) | Err(BlockError::NoSpace)
    ) {}
    rt.block_on(store.put_unreserved(vec![(BlockId(300), content(300, 8000))])).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    /// What was reserved can be put, in whatever pieces, whatever others try in between.
    #[test]
    fn a_reservation_is_kept(
        capacity in 4u64..16,
        pieces in proptest::collection::vec(4096usize..200_000, 1..400),
        prefill in 0u128..200,
    ) {
        let rt = runtime();
        let disk = SimDisk::new();
        disk.set_capacity(capacity << 20);
        // A quarter of the reserve must take a segment for the longest piece: see `Space::segment_size`.
        let config = Config { reserve_bytes: Some(1 << 20), ..config() };
        let store = BlockStore::open(Arc::new(disk.clone()), config).unwrap();
        for n in 0..prefill {
            let _ = rt.block_on(store.put_unreserved(vec![(BlockId(1 << 40 | n), content(n, 9000))]));
        }
        let granted: Vec<usize> =
            pieces.into_iter().filter(|len| store.reserve(*len as u64).is_ok()).collect();
        fill(&rt, &store, 1 << 50, 5000);
        for (n, len) in granted.iter().enumerate() {
            let put = rt.block_on(store.put(vec![(BlockId(n as u128), content(n as u128, *len))]));
            prop_assert!(put.is_ok(), "piece {n} of {}: {put:?}", granted.len());
            store.release(*len as u64);
            if n % 3 == 0 {
                let _ = rt.block_on(store.put_unreserved(vec![(BlockId(1 << 60 | n as u128), content(1, 6000))]));
            }
        }
        prop_assert_eq!(store.metrics().reserved_bytes, 0);
    }
}

#[test]
fn room_comes_back_when_a_put_is_abandoned() {
    let rt = runtime();
    let store = open(&SimDisk::new());
    drop(store.put_unreserved(vec![(BlockId(1), content(1, 9000))]));
    rt.block_on(async {
        let put = store.put_unreserved(vec![(BlockId(1), content(1, 9000))]);
        tokio::select! {
            biased;
            _ = put => {}
            () = std::future::ready(()) => {}
        }
    });
    assert_eq!(store.metrics().reserved_bytes, 0);
}

fn is_failed(r: Result<(), BlockError>) -> bool {
    matches!(r, Err(BlockError::Failed(_)))
}

#[test]
fn a_failed_write_or_sync_ends_all_writing() {
    for sync in [true, false] {
        let rt = runtime();
        let disk = SimDisk::new();
        let store = open(&disk);
        rt.block_on(store.put(vec![(BlockId(1), content(1, 9000))])).unwrap();
        if sync {
            disk.fail_next_sync(SITE_APPEND);
        } else {
            disk.fail_next_writes(1);
        }
        assert!(is_failed(rt.block_on(store.put(vec![(BlockId(2), content(2, 9000))]))));
        // The disk is well again; the store does not pretend that nothing happened.
        assert!(is_failed(rt.block_on(store.put(vec![(BlockId(3), content(3, 9000))]))));
        assert!(is_failed(rt.block_on(store.delete(vec![BlockId(1)]))));
        assert!(is_failed(store.compact_step(1 << 20, Duration::ZERO).map(|_| ())));
        assert!(is_failed(store.reserve(1)));
        assert!(is_failed(store.close()));
        assert!(store.metrics().failed.is_some());
        assert_eq!(open(&disk).metrics().failed, None);
        // Reopened without a power cut: what it lists then is durable.
        let listed = {
            let store = open(&disk);
            rt.block_on(store.put(vec![(BlockId(4), content(4, 100))])).unwrap();
            store.metrics().blocks
        };
        for seed in 0..5 {
            let disk = disk.crash(seed);
            let report = check(&disk, STORE).unwrap();
            assert!(report.is_clean(), "{report:?}");
            assert_eq!(report.blocks.len() as u64, listed);
        }
    }
}

#[test]
fn reads_go_on_after_a_failure() {
    let rt = runtime();
    let disk = SimDisk::new();
    let store = open(&disk);
    rt.block_on(store.put(vec![(BlockId(1), content(1, 9000))])).unwrap();
    disk.fail_next_writes(1);
    assert!(is_failed(rt.block_on(store.put(vec![(BlockId(2), content(2, 9000))]))));
    assert_eq!(rt.block_on(store.get(BlockId(1), 0, 9000)).unwrap(), content(1, 9000));
    assert!(matches!(rt.block_on(store.get(BlockId(2), 0, 9000)), Err(BlockError::Missing(_))));
}
