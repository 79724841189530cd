//! Reading ahead: what is expected reads as what was put, whatever happens to it meanwhile, and nobody waits for ever.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::{Disk, Open, RealDisk};
use atoll_base::id::Epoch;
use atoll_blockstore::{BlockStore, Config};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LEN: u32 = 256 << 10;

fn id(n: u64) -> BlockId {
    BlockId::new(Epoch(1), n)
}

fn content(n: u64) -> Bytes {
    let mut bytes = vec![0; LEN as usize];
    SmallRng::seed_from_u64(n).fill_bytes(&mut bytes);
    bytes.into()
}

async fn close(store: BlockStore) {
    tokio::task::spawn_blocking(move || store.close()).await.unwrap().unwrap();
}

fn config() -> Config {
    Config { segment_bytes: 8 << 20, reserve_bytes: Some(0), read_threads: 3, ..Config::new(7) }
}

async fn filled(disk: Arc<dyn Disk>, config: Config, blocks: u64) -> BlockStore {
    let store = BlockStore::open(disk, config).unwrap();
    for batch in (0..blocks).collect::<Vec<_>>().chunks(8) {
        store.put(batch.iter().map(|n| (id(*n), content(*n))).collect()).await.unwrap();
    }
    store
}

fn pieces(numbers: std::ops::Range<u64>) -> Vec<(BlockId, u32)> {
    numbers.map(|n| (id(n), LEN)).collect()
}

async fn expected_reads_are_right(disk: Arc<dyn Disk>) {
    let store = filled(disk, config(), 60).await;
    store.expect(&pieces(0..24));
    for n in 0..60 {
        for part in 0..4 {
            let (at, len) = (part * LEN / 4, LEN / 4);
            let got = store.get(id(n), at, len).await.unwrap();
            assert!(got == content(n)[at as usize..(at + len) as usize], "{n} {part}");
        }
    }
    let ahead = store.metrics().ahead;
    assert_eq!((ahead.blocks, ahead.hits, ahead.wasted), (24, 96, 0));
    assert!(ahead.bytes <= ahead.limit);
    // What was read lately is for the page cache.
    store.expect(&pieces(0..60));
    assert!(store.get(id(3), 0, LEN).await.unwrap() == content(3));
    assert_eq!(store.metrics().ahead.blocks, 24);
    close(store).await;
}

#[tokio::test]
async fn what_was_expected_is_read_ahead_once() {
    expected_reads_are_right(Arc::new(SimDisk::new())).await;
    let dir = tempfile::tempdir().unwrap();
    expected_reads_are_right(Arc::new(RealDisk::new(dir.path()))).await;
}

#[tokio::test]
async fn damage_and_deletion_are_told_of_as_without_it() {
    let disk = SimDisk::new();
    let store = filled(Arc::new(disk.clone()), config(), 8).await;
    let name = disk.list(Path::new("blocks")).unwrap()[0].name.clone();
    let file = disk.open(&Path::new("blocks").join(name), Open::ReadWrite).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    let sought = content(2).slice(5000..5064);
    let at = bytes.windows(64).position(|w| *w == sought).unwrap();
    file.write_at(&[std::io::IoSlice::new(&[0xee; 64])], at as u64).unwrap();

    store.expect(&pieces(0..8));
    assert!(matches!(store.get(id(2), 0, LEN).await, Err(BlockError::Damaged { .. })));
    assert!(store.get(id(3), 0, LEN).await.unwrap() == content(3), "its neighbour is well");
    assert_eq!(store.metrics().damaged_reads, 1);
    store.delete(vec![id(4)]).await.unwrap();
    assert!(matches!(store.get(id(4), 0, LEN).await, Err(BlockError::Missing(_))));
    assert!(matches!(store.get(id(5), 1, LEN).await, Err(BlockError::Damaged { .. })), "past the end");
}

/// Streams that overtake each other, with room for one run, while blocks go and segments are compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { ahead_bytes: 5 << 20, ..config() };
    let store = filled(Arc::new(RealDisk::new(dir.path())), config, 120).await;
    let streams = (0..6_u64).map(|stream| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (0..120).map(|n| (n + stream * 3) % 120) {
                if n % 4 == 0 {
                    store.expect(&pieces(n + 1..(n + 9).min(120)));
                }
                match store.get(id(n), 0, LEN).await {
                    Ok(bytes) => assert!(bytes == content(n), "{n}"),
                    Err(BlockError::Missing(_)) => assert_eq!(n % 5, 0, "was not deleted"),
                    Err(e) => panic!("{n}: {e}"),
                }
            }
        })
    });
    let streams: Vec<_> = streams.collect();
    let compaction = tokio::task::spawn_blocking({
        let store = store.clone();
        move || (0..40).for_each(|_| _ = store.compact_step(1 << 20, Duration::ZERO).unwrap())
    });
    for n in (0..120).step_by(5) {
        store.delete(vec![id(n)]).await.unwrap();
    }
    for stream in streams {
        stream.await.unwrap();
    }
    compaction.await.unwrap();
    let ahead = store.metrics().ahead;
    assert!(ahead.bytes <= ahead.limit);
    close(store).await;
}

/// A stream that stops holds no answer back when the store closes.
#[tokio::test]
async fn closing_ends_what_is_expected() {
    let store = filled(Arc::new(SimDisk::new()), config(), 40).await;
    store.expect(&pieces(0..40));
    close(store.clone()).await;
    for n in 0..40 {
        match store.get(id(n), 0, LEN).await {
            Ok(bytes) => assert!(bytes == content(n)),
            Err(BlockError::Io { .. }) => {}
            Err(e) => panic!("{n}: {e}"),
        }
    }
}
