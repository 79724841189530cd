//! Large reads of the same bytes again and again: the same as before, from memory, until the block goes.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::RealDisk;
use atoll_base::id::Epoch;
use atoll_blockstore::{BlockStore, Config};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const LEN: u32 = 1 << 20;
/// How often a block is read until it surely is in memory: first from the disk, then from the page cache.
const READS: u64 = 4;

fn content(n: u64) -> Bytes {
    (0..LEN).map(|at| (u64::from(at / 7) * (n + 3)) as u8).collect()
}

#[tokio::test]
async fn repeated_reads_come_from_memory_until_the_block_goes() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { segment_bytes: 8 << 20, reserve_bytes: Some(0), repeated_bytes: 4 << 20, ..Config::new(7) };
    let store = BlockStore::open(Arc::new(RealDisk::new(dir.path())), config).unwrap();
    let id = |n| BlockId::new(Epoch(1), n);
    for n in 0..6 {
        store.put(vec![(id(n), content(n))]).await.unwrap();
    }
    let read = async |n, at: u32, len: u32| {
        let got = store.get(id(n), at, len).await.unwrap();
        assert!(got == content(n)[at as usize..(at + len) as usize], "{n} {at} {len}");
    };
    for _ in 0..READS {
        read(0, 0, LEN).await;
        read(1, LEN / 2, LEN / 2).await;
    }
    let before = store.metrics().repeated;
    assert!(before.bytes > 0 && before.bytes <= before.limit, "{before:?}");
    read(0, 0, LEN).await;
    read(0, 0, LEN / 2).await;
    read(1, LEN / 2, LEN / 2).await;
    assert_eq!(store.metrics().repeated.hits, before.hits + 3);
    // Beyond what is here, and small: read elsewhere.
    read(1, LEN / 2 - 1, LEN / 2).await;
    read(0, 5, 4096).await;
    assert_eq!(store.metrics().repeated.hits, before.hits + 3);
    // More than there is room for.
    for n in (0..6).cycle().take(60) {
        read(n, 0, LEN).await;
        let now = store.metrics().repeated;
        assert!(now.bytes <= now.limit);
    }
    store.delete(vec![id(0)]).await.unwrap();
    assert!(matches!(store.get(id(0), 0, LEN).await, Err(BlockError::Missing(_))));
    store.forget_unused(Duration::ZERO);
    assert_eq!(store.metrics().repeated.bytes, 0);
    read(1, 0, LEN).await;
    tokio::task::spawn_blocking(move || store.close()).await.unwrap().unwrap();
}
