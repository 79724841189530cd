//! What opening reads, counted in bytes: clients wait while it does.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::wrap::{CountReads, WrapDisk};
use atoll_blockstore::{BlockStore, Config};
use std::sync::Arc;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn config() -> Config {
    Config { segment_bytes: 128 * MIB, read_threads: 1, ..Config::new(9) }
}

/// Bytes that opening reads after a store with these blocks, put one by one, was killed; and its blocks.
fn read_by_opening(blocks: u64, len: u64) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk = SimDisk::new();
    let store = BlockStore::open(Arc::new(disk.clone()), config()).unwrap();
    for n in 0..blocks {
        let data = vec![n as u8; len as usize].into();
        runtime.block_on(store.put(vec![(BlockId(u128::from(n)), data)])).unwrap();
    }
    drop(store);
    let disk = CountReads::new(Arc::new(disk.restart()));
    let store = BlockStore::open(Arc::new(WrapDisk(disk.clone())), config()).unwrap();
    (disk.bytes(), store.metrics().blocks)
}

#[test]
fn of_large_blocks_only_the_headers_are_read_and_of_empty_segments_nothing() {
    // Three quarters of a segment, so that the next one is prepared, too.
    let (bytes, blocks) = read_by_opening(96, MIB);
    assert_eq!(blocks, 96);
    // The headers, and what was written last: it is verified and written again.
    assert!(bytes < 96 * 16 * KIB + 4 * MIB, "{} KiB", bytes / KIB);
}

#[test]
fn of_small_blocks_all_that_was_written_is_read_once() {
    let (bytes, blocks) = read_by_opening(2000, 4 * KIB);
    assert_eq!(blocks, 2000);
    assert!(bytes < 2000 * 8 * KIB + 4 * MIB, "{} KiB", bytes / KIB);
}
