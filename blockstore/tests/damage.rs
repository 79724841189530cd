//! Bits rot: each flipped bit of a block's record is found by reads, scrub and check, and never returned as data.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::{Disk, Open};
use atoll_blockstore::{BlockStore, CompactStep, Config, Prepare, check};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const STORE: u128 = 5;

fn config() -> Config {
    Config {
        segment_bytes: 64 << 10,
        read_threads: 1,
        prepare: Prepare::Inline,
        reserve_bytes: Some(0),
        // What was read before a bit flipped would be good.
        hot_bytes: 0,
        repeated_bytes: 0,
        ..Config::new(STORE)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn content(seed: u64, len: usize) -> Bytes {
    let mut data = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(&mut data[..]);
    data.into()
}

fn segment(n: u32) -> PathBuf {
    Path::new("blocks").join(format!("{n:010}.seg"))
}

/// A record's unit in a segment file, by the block's id in its header.
fn record_of(disk: &SimDisk, n: u32, id: BlockId) -> u64 {
    let file = disk.open(&segment(n), Open::Read).unwrap();
    let len = file.len().unwrap();
    let mut unit = [0; 512];
    (1..len / 512)
        .map(|u| u * 512)
        .find(|at| {
            file.read_at(&mut unit, *at).unwrap();
            unit[..4] == *b"ATRC" && unit[16..32] == id.0.to_le_bytes()
        })
        .unwrap()
}

#[test]
fn every_flipped_bit_of_a_record_is_found() {
    const LEN: usize = 5000;
    let rt = runtime();
    let disk = SimDisk::new();
    let store = BlockStore::open(Arc::new(disk.clone()), config()).unwrap();
    let blocks: Vec<_> = (1..=3).map(|n| (BlockId(n), content(n as u64, LEN))).collect();
    rt.block_on(store.put(blocks.clone())).unwrap();
    let at = record_of(&disk, 1, BlockId(2));
    let area = 512;
    // Every bit of the header, the table and its padding; one bit of each byte of the payload.
    let header = (0..area * 8).map(|bit| (bit / 8, 1u8 << (bit % 8)));
    let payload = (area..area + LEN as u64).map(|byte| (byte, 1u8 << (byte % 8)));
    for (byte, mask) in header.chain(payload) {
        disk.rot(&segment(1), at + byte, mask).unwrap();
        let chunk = if byte < area { 0 } else { (byte - area) / 4096 * 4096 };
        match rt.block_on(store.get(BlockId(2), 0, LEN as u32)) {
            Err(BlockError::Damaged { id, offset, .. }) => assert_eq!((id, offset), (BlockId(2), chunk)),
            other => panic!("byte {byte}: {other:?}"),
        }
        let (_, scrubbed) = store.scrub_step(None, u64::MAX);
        assert_eq!(scrubbed.blocks, 3);
        assert_eq!(scrubbed.damage.len(), 1);
        assert_eq!((scrubbed.damage[0].id, scrubbed.damage[0].offset), (BlockId(2), chunk));
        if byte >= area {
            // The other chunk is good and is returned.
            let (good, len) = if chunk == 0 { (4096, LEN - 4096) } else { (0, 4096) };
            let got = rt.block_on(store.get(BlockId(2), good, len as u32)).unwrap();
            assert_eq!(got, blocks[1].1.slice(good as usize..good as usize + len));
        }
        for n in [0, 2] {
            let (id, data) = &blocks[n];
            assert_eq!(rt.block_on(store.get(*id, 0, LEN as u32)).unwrap(), data);
        }
        disk.rot(&segment(1), at + byte, mask).unwrap();
    }
    assert_eq!(rt.block_on(store.get(BlockId(2), 0, LEN as u32)).unwrap(), blocks[1].1);
    assert!(store.metrics().damaged_reads > 0);
}

/// Flips bits all over a closed store. Whatever is hit: live blocks read back equal or fail, and if anything that is
/// needed was hit, the check says so.
#[test]
fn rot_anywhere_is_reported_and_never_returned() {
    let rt = runtime();
    for seed in 0..400 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = SimDisk::new();
        let store = BlockStore::open(Arc::new(disk.clone()), config()).unwrap();
        let mut blocks: Vec<_> =
            (1..=30).map(|n| (BlockId(n), content(n as u64, 500 + 300 * n as usize))).collect();
        for some in blocks.chunks(4) {
            rt.block_on(store.put(some.to_vec())).unwrap();
        }
        let dead: Vec<_> = blocks.extract_if(.., |(id, _)| id.0 % 3 == 0).map(|(id, _)| id).collect();
        rt.block_on(store.delete(dead.clone())).unwrap();
        let closed = seed % 2 == 0;
        if closed {
            store.close().unwrap();
        }
        drop(store);
        let files = disk.list(Path::new("blocks")).unwrap();
        let file = Path::new("blocks").join(&files[rng.random_range(0..files.len())].name);
        let len = disk.open(&file, Open::Read).unwrap().len().unwrap();
        disk.rot(&file, rng.random_range(0..len), 1 << rng.random_range(0..8)).unwrap();
        let report = check(&disk, STORE).unwrap();
        let store = BlockStore::open(Arc::new(disk.clone()), config()).unwrap();
        let mut hit = 0;
        for (id, data) in &blocks {
            match rt.block_on(store.get(*id, 0, data.len() as u32)) {
                Ok(got) => assert_eq!(got, data),
                Err(BlockError::Damaged { .. }) => {
                    hit += 1;
                    assert!(report.damage.iter().any(|d| d.id == *id), "seed {seed}");
                }
                Err(BlockError::Missing(_)) => {
                    hit += 1;
                    // Told by the structure, or, in a last batch that a crash left unsealed, as torn.
                    let told = !report.structure.is_empty() || (!closed && report.torn > 0);
                    let listed = report.blocks.iter().any(|b| b.0 == *id);
                    assert!(told || !closed, "seed {seed}: {id:?} is missing and the check is clean");
                    assert!(!listed, "seed {seed}: fsck compares this list with the references");
                }
                Err(e) => panic!("seed {seed}: {e}"),
            }
        }
        assert!(hit <= 4, "one bit hits a few blocks at most, not {hit} (seed {seed})");
        if closed {
            for id in &dead {
                assert!(matches!(rt.block_on(store.get(*id, 0, 1)), Err(BlockError::Missing(_))));
            }
        }
    }
}

#[test]
fn compaction_leaves_a_damaged_block_where_it_is() {
    let rt = runtime();
    let disk = SimDisk::new();
    let store = BlockStore::open(Arc::new(disk.clone()), config()).unwrap();
    for n in 1..=40 {
        rt.block_on(store.put(vec![(BlockId(n), content(n as u64, 5000))])).unwrap();
    }
    rt.block_on(store.delete((2..=40).map(BlockId).collect())).unwrap();
    disk.rot(&segment(1), record_of(&disk, 1, BlockId(1)) + 600, 1).unwrap();
    let mut stuck = 0;
    loop {
        match store.compact_step(1 << 20, Duration::ZERO).unwrap() {
            CompactStep::Idle => break,
            CompactStep::Stuck(segment, id) => {
                assert_eq!((segment, id), (1, BlockId(1)));
                stuck += 1;
            }
            _ => {}
        }
    }
    assert_eq!(stuck, 1);
    assert!(matches!(rt.block_on(store.get(BlockId(1), 0, 5000)), Err(BlockError::Damaged { .. })));
    rt.block_on(store.delete(vec![BlockId(1)])).unwrap();
    assert_eq!(store.metrics().blocks, 0);
}

#[test]
fn foreign_and_newer_segments_are_refused() {
    let disk = SimDisk::new();
    BlockStore::open(Arc::new(disk.clone()), config()).unwrap().close().unwrap();
    let other = BlockStore::open(Arc::new(disk.clone()), Config { store_id: 6, ..config() });
    assert!(other.err().unwrap().to_string().contains("belongs to store"));
    assert!(check(&disk, 6).is_err());
    disk.open(Path::new("blocks/notes.txt"), Open::CreateNew).unwrap();
    assert!(BlockStore::open(Arc::new(disk), config()).err().unwrap().to_string().contains("foreign file"));
}
