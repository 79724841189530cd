//! Segments whose blocks are being deleted are not copied.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_blockstore::{BlockStore, CompactStep, Config, Prepare};
use std::sync::Arc;
use std::time::Duration;

const LEN: usize = 8000;

/// Blocks that one segment takes.
const EACH: usize = 6;

const QUIET: Duration = Duration::from_secs(3600);

/// A store with so many sealed segments of blocks, and one more.
async fn store(segments: usize) -> BlockStore {
    let config = Config {
        segment_bytes: 64 << 10,
        read_threads: 1,
        prepare: Prepare::Inline,
        reserve_bytes: Some(0),
        compact_below_percent: 70,
        ..Config::new(5)
    };
    let store = BlockStore::open(Arc::new(SimDisk::new()), config).unwrap();
    for n in 0..segments * EACH + 1 {
        store.put_unreserved(vec![(BlockId(n as u128), vec![n as u8; LEN].into())]).await.unwrap();
    }
    store
}

/// Deletes some of the blocks of a segment.
async fn delete(store: &BlockStore, segment: usize, blocks: std::ops::Range<usize>) {
    let ids = blocks.map(|n| BlockId((segment * EACH + n) as u128)).collect();
    store.delete(ids).await.unwrap();
}

fn step(store: &BlockStore, quiet: Duration) -> CompactStep {
    let store = store.clone();
    std::thread::spawn(move || store.compact_step(1 << 20, quiet).unwrap()).join().unwrap()
}

#[tokio::test]
async fn what_dies_wholly_is_not_copied() {
    let store = store(2).await;
    delete(&store, 0, 0..3).await;
    assert_eq!(step(&store, QUIET), CompactStep::Idle, "the rest may follow");
    delete(&store, 0, 3..EACH).await;
    assert!(matches!(step(&store, QUIET), CompactStep::Removed(_)));
    assert_eq!(store.metrics().compacted_bytes, 0);
}

#[tokio::test]
async fn what_was_quiet_for_long_enough_is_copied() {
    let store = store(2).await;
    delete(&store, 0, 0..3).await;
    assert!(matches!(step(&store, Duration::ZERO), CompactStep::Removed(_)));
    assert_eq!(store.metrics().compacted_bytes, 3 * LEN as u64);
}

#[tokio::test]
async fn of_many_that_are_dying_some_are_copied() {
    let store = store(6).await;
    for segment in 0..4 {
        delete(&store, segment, 0..3).await;
        assert_eq!(step(&store, QUIET), CompactStep::Idle);
    }
    delete(&store, 4, 0..3).await;
    assert!(matches!(step(&store, QUIET), CompactStep::Removed(_)));
    assert_eq!(step(&store, QUIET), CompactStep::Idle, "as many as may wait");
}
