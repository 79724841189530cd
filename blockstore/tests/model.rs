//! The store against a map in memory, with reopening, compaction and scrub in between; and many callers at once.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::{Disk, RealDisk, sim::SimDisk};
use atoll_base::id::Epoch;
use atoll_base::limits::BLOCK_MAX;
use atoll_blockstore::{BlockStore, CompactStep, Config, check};
use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const STORE: u128 = 5;

fn config(segment_bytes: u64) -> Config {
    Config {
        segment_bytes,
        direct_bytes: 8 << 10,
        stage_bytes: 12 << 10,
        hot_bytes: 64 << 10,
        repeated_bytes: 2 << 20,
        read_threads: 2,
        open_files: 3,
        reserve_bytes: Some(0),
        ..Config::new(STORE)
    }
}

fn id(n: u64) -> BlockId {
    BlockId::new(Epoch((n / 100) as u32), n % 100)
}

/// Bytes that differ between blocks and between chunks.
fn content(seed: u64, len: usize) -> Bytes {
    let mut data = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(&mut data[..]);
    data.into()
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<(u64, usize)>),
    Get { n: u64, offset: usize, len: usize },
    Delete(Vec<u64>),
    Compact(u64),
    Reopen { clean: bool },
    List { after: Option<u64>, below: u32, limit: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0u64..300;
    let len = prop_oneof![1usize..600, 4000usize..4200, 1usize..30_000, 60_000usize..140_000];
    prop_oneof![
        4 => proptest::collection::vec((n.clone(), len), 1..5).prop_map(Op::Put),
        4 => (n.clone(), 0usize..140_000, 0usize..140_000).prop_map(|(n, offset, len)| Op::Get { n, offset, len }),
        2 => proptest::collection::vec(n.clone(), 1..20).prop_map(Op::Delete),
        2 => (1u64..100_000).prop_map(Op::Compact),
        1 => any::<bool>().prop_map(|clean| Op::Reopen { clean }),
        1 => (proptest::option::of(n), 0u32..5, 0usize..50)
            .prop_map(|(after, below, limit)| Op::List { after, below, limit }),
    ]
}

fn run(disk: Arc<dyn Disk>, ops: Vec<Op>) {
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut store = BlockStore::open(disk.clone(), config(64 << 10)).unwrap();
    let mut model: BTreeMap<BlockId, Bytes> = BTreeMap::new();
    for (step, op) in ops.into_iter().enumerate() {
        match op {
            Op::Put(blocks) => {
                // Also of ids that exist or existed: the newest bytes count.
                let blocks: Vec<_> = blocks
                    .into_iter()
                    .map(|(n, len)| (id(n), content(n * 1000 + step as u64, len)))
                    .collect();
                rt.block_on(store.put(blocks.clone())).unwrap();
                model.extend(blocks);
            }
            Op::Get { n, offset, len } => {
                let got = rt.block_on(store.get(id(n), offset as u32, len as u32));
                match model.get(&id(n)) {
                    None => assert!(matches!(got, Err(BlockError::Missing(_)))),
                    Some(data) if offset + len > data.len() => {
                        assert!(matches!(got, Err(BlockError::Damaged { .. })));
                        let offset = offset % data.len();
                        let rest = rt.block_on(store.get(id(n), offset as u32, (data.len() - offset) as u32));
                        assert_eq!(rest.unwrap(), data.slice(offset..));
                    }
                    Some(data) => assert_eq!(got.unwrap(), data.slice(offset..offset + len)),
                }
            }
            Op::Delete(ids) => {
                rt.block_on(store.delete(ids.iter().map(|n| id(*n)).collect())).unwrap();
                ids.iter().for_each(|n| drop(model.remove(&id(*n))));
            }
            Op::Compact(budget) => drop(store.compact_step(budget, Duration::ZERO).unwrap()),
            Op::Reopen { clean } => {
                if clean {
                    store.close().unwrap();
                }
                drop(store);
                assert!(check(&*disk, STORE).unwrap().is_clean());
                store = BlockStore::open(disk.clone(), config(64 << 10)).unwrap();
            }
            Op::List { after, below, limit } => {
                let after = after.map(id);
                let want: Vec<_> = model
                    .iter()
                    .filter(|(id, _)| after.is_none_or(|a| **id > a) && id.epoch().0 < below)
                    .map(|(id, data)| (*id, data.len() as u32))
                    .take(limit)
                    .collect();
                assert_eq!(store.list(after, Epoch(below), limit), want);
            }
        }
    }
    let mut seen = Vec::new();
    store.for_each_block(Epoch(2), |id, len| seen.push((id, len)));
    let old = model.range(..BlockId::new(Epoch(2), 0));
    assert_eq!(seen, old.map(|(id, data)| (*id, data.len() as u32)).collect::<Vec<_>>());
    let mut left = 10_000;
    while store.compact_step(1 << 20, Duration::ZERO).unwrap() != CompactStep::Idle {
        left -= 1;
        assert!(left > 0, "compaction comes to an end");
    }
    let metrics = store.metrics();
    assert_eq!(metrics.blocks, model.len() as u64);
    assert_eq!(metrics.live_bytes, model.values().map(|d| d.len() as u64).sum::<u64>());
    let (next, scrubbed) = store.scrub_step(None, u64::MAX);
    assert_eq!((next, scrubbed.blocks, scrubbed.damage.len()), (None, model.len() as u64, 0));
    store.close().unwrap();
    let report = check(&*disk, STORE).unwrap();
    assert!(report.is_clean());
    let want: Vec<_> = model.iter().map(|(id, data)| (*id, data.len() as u32)).collect();
    assert_eq!(report.blocks, want);
    let store = BlockStore::open(disk, config(64 << 10)).unwrap();
    assert_eq!(store.recovery().scanned, 0, "a closed store is not scanned");
    for (id, data) in &model {
        assert_eq!(rt.block_on(store.get(*id, 0, data.len() as u32)).unwrap(), data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_map(ops in proptest::collection::vec(op(), 1..80)) {
        run(Arc::new(SimDisk::new()), ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_map_on_the_real_disk(ops in proptest::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(Arc::new(RealDisk::new(dir.path())), ops);
    }
}

#[test]
fn blocks_of_every_size_and_all_borders_of_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(Arc::new(RealDisk::new(dir.path())), config(1 << 20)).unwrap();
    let rt = tokio::runtime::Runtime::new().unwrap();
    let max = BLOCK_MAX as usize;
    for (n, len) in
        [1, 511, 512, 4095, 4096, 4097, 65_535, 65_537, 1 << 20, max - 1, max].into_iter().enumerate()
    {
        let (id, data) = (id(n as u64), content(n as u64, len));
        rt.block_on(store.put(vec![(id, data.clone())])).unwrap();
        for at in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 69_632, len / 2, len - 1, len] {
            for take in [0, 1, 2, 4095, 4096, 4097, 8192, 65_536, len] {
                if at + take <= len {
                    let got = rt.block_on(store.get(id, at as u32, take as u32)).unwrap();
                    assert_eq!(got, data.slice(at..at + take));
                }
            }
        }
        assert!(matches!(rt.block_on(store.get(id, 0, len as u32 + 1)), Err(BlockError::Damaged { .. })));
        assert!(matches!(rt.block_on(store.get(id, u32::MAX, u32::MAX)), Err(BlockError::Damaged { .. })));
    }
}

/// Writers, readers, deleters and compaction at once: every block that is not yet deleted reads back equal at any time.
#[test]
fn many_callers_at_once() {
    const WRITERS: u64 = 8;
    const BLOCKS: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(dir.path()));
    let store =
        BlockStore::open(disk.clone(), Config { queue_bytes: 256 << 10, ..config(256 << 10) }).unwrap();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let compaction = std::thread::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        move || {
            let mut removed = 0;
            while !stop.load(Ordering::Relaxed) {
                match store.compact_step(64 << 10, Duration::ZERO).unwrap() {
                    CompactStep::Removed(_) => removed += 1,
                    CompactStep::Idle => std::thread::yield_now(),
                    _ => {}
                }
                let (_, scrubbed) = store.scrub_step(None, 1 << 20);
                assert!(scrubbed.damage.is_empty(), "{:?}", scrubbed.damage);
            }
            removed
        }
    });
    let keeps = |n: u64| n.is_multiple_of(5);
    let data = |w: u64, n: u64| content(w * 1000 + n, 1 + ((w * 7919 + n * 104_729) % 30_000) as usize);
    rt.block_on(async {
        let mut tasks = Vec::new();
        for w in 0..WRITERS {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let id = |n| BlockId::new(Epoch(w as u32), n);
                for n in 0..BLOCKS {
                    store.put(vec![(id(n), data(w, n))]).await.unwrap();
                    let back = n - n % 10;
                    for m in back..=n {
                        let want = data(w, m);
                        assert_eq!(store.get(id(m), 0, want.len() as u32).await.unwrap(), want);
                    }
                    if n % 10 == 9 {
                        let dead: Vec<_> = (back..=n).filter(|m| !keeps(*m)).map(id).collect();
                        store.delete(dead.clone()).await.unwrap();
                        for id in dead {
                            assert!(matches!(store.get(id, 0, 1).await, Err(BlockError::Missing(_))));
                        }
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    stop.store(true, Ordering::Relaxed);
    assert!(compaction.join().unwrap() > 0, "compaction had something to do");
    let metrics = store.metrics();
    assert!(metrics.syncs < metrics.put_blocks + WRITERS * BLOCKS / 10, "callers share syncs: {metrics:?}");
    store.close().unwrap();
    assert!(check(&*disk, STORE).unwrap().is_clean());
    let store = BlockStore::open(disk, config(256 << 10)).unwrap();
    for w in 0..WRITERS {
        for n in (0..BLOCKS).filter(|n| keeps(*n)) {
            let want = data(w, n);
            let got = rt.block_on(store.get(BlockId::new(Epoch(w as u32), n), 0, want.len() as u32)).unwrap();
            assert_eq!(got, want);
        }
    }
    assert_eq!(store.metrics().blocks, WRITERS * BLOCKS / 5);
}

#[test]
fn a_closed_store_refuses_work() {
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = BlockStore::open(Arc::new(SimDisk::new()), config(64 << 10)).unwrap();
    rt.block_on(store.put(vec![(id(1), content(1, 10))])).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(rt.block_on(store.put(vec![(id(2), content(1, 10))])), Err(BlockError::Failed(_))));
    assert!(matches!(rt.block_on(store.get(id(1), 0, 1)), Err(BlockError::Io { .. })));
    assert!(matches!(rt.block_on(store.delete(vec![id(1)])), Err(BlockError::Failed(_))));
}

#[test]
fn opening_tells_about_its_progress() {
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk = SimDisk::new();
    let store = BlockStore::open(Arc::new(disk.clone()), config(64 << 10)).unwrap();
    for n in 0..40 {
        rt.block_on(store.put(vec![(id(n), content(n, 10_000))])).unwrap();
    }
    store.close().unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = told.clone();
    let config = Config {
        progress_after: std::time::Duration::ZERO,
        on_progress: Some(Arc::new(move |p| sink.lock().unwrap().push(p))),
        ..config(64 << 10)
    };
    let store = BlockStore::open(Arc::new(disk), config).unwrap();
    let told = told.lock().unwrap();
    assert!(!told.is_empty());
    assert!(told.iter().all(|p| p.done <= p.total && p.total == 2 * store.recovery().segments));
}
