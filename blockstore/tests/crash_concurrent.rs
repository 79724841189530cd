//! Power cuts while many callers and the background threads are at work, and writes that fail half-way for lack of
//! room. What happens when is up to the scheduler; the promises hold for every order.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::wrap::{AroundDisk, AroundFile, WrapDisk, WrapFile};
use atoll_base::disk::{Disk, File, Open};
use atoll_base::id::Epoch;
use atoll_blockstore::{BlockStore, Config, check};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const STORE: u128 = 77;

fn config() -> Config {
    Config {
        segment_bytes: 64 << 10,
        direct_bytes: 8 << 10,
        stage_bytes: 12 << 10,
        read_threads: 2,
        reserve_bytes: Some(0),
        ..Config::new(STORE)
    }
}

/// A disk on which one write in so many fails for lack of room after a part of it was written.
struct Tight {
    disk: SimDisk,
    one_in: Arc<AtomicU32>,
    rng: Arc<Mutex<SmallRng>>,
    failures: Arc<AtomicU64>,
}

struct TightFile {
    file: Arc<dyn File>,
    one_in: Arc<AtomicU32>,
    rng: Arc<Mutex<SmallRng>>,
    failures: Arc<AtomicU64>,
}

impl AroundDisk for Tight {
    fn inner(&self) -> &dyn Disk {
        &self.disk
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, how)?;
        let (rng, failures, one_in) = (self.rng.clone(), self.failures.clone(), self.one_in.clone());
        Ok(Arc::new(WrapFile(TightFile { file, one_in, rng, failures })))
    }
}

impl AroundFile for TightFile {
    fn inner(&self) -> &dyn File {
        &*self.file
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let whole: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        // Batches only, not headers and footers of segments.
        let batch = offset > 0 && whole[5] != 3;
        let cut = {
            let mut rng = self.rng.lock().unwrap();
            let one_in = self.one_in.load(Ordering::Relaxed);
            let fails = batch && one_in > 0 && rng.random_range(0..one_in) == 0;
            fails.then(|| rng.random_range(0..=whole.len()))
        };
        let Some(cut) = cut else { return self.file.write_at(bufs, offset) };
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.file.write_at(&[IoSlice::new(&whole[..cut])], offset)?;
        Err(io::ErrorKind::StorageFull.into())
    }
}

/// What one caller may rely on for its own blocks: `true` if it must be there, `false` if it may be.
type Mine = BTreeMap<BlockId, (Bytes, bool)>;

async fn caller(store: BlockStore, epoch: u32, mut rng: SmallRng, mut mine: Mine) -> Mine {
    let mut next = mine.last_key_value().map_or(0, |(id, _)| id.seq() + 1);
    for _ in 0..10_000 {
        if rng.random_bool(0.65) {
            let blocks: Vec<_> = (0..rng.random_range(1..4))
                .map(|_| {
                    next += 1;
                    let mut data = vec![0; rng.random_range(1..9000)];
                    rng.fill(&mut data[..]);
                    (BlockId::new(Epoch(epoch), next), Bytes::from(data))
                })
                .collect();
            let done = store.put(blocks.clone()).await;
            mine.extend(blocks.into_iter().map(|(id, data)| (id, (data, done.is_ok()))));
            if matches!(done, Err(BlockError::Failed(_))) {
                break;
            }
        } else {
            let ids: Vec<_> = mine.keys().copied().filter(|_| rng.random_bool(0.3)).take(6).collect();
            let done = store.delete(ids.clone()).await;
            for id in ids {
                if done.is_ok() {
                    mine.remove(&id);
                } else {
                    mine.get_mut(&id).unwrap().1 = false;
                }
            }
            if matches!(done, Err(BlockError::Failed(_))) {
                break;
            }
        }
        if let Some((id, (data, true))) = mine.iter().nth(rng.random_range(0..8)) {
            match store.get(*id, 0, data.len() as u32).await {
                Ok(got) => assert_eq!(got, data),
                Err(BlockError::Io { .. }) => break,
                Err(e) => panic!("{e}"),
            }
        }
    }
    mine
}

fn campaign(seed: u64, one_in: u32) -> u64 {
    const CALLERS: u32 = 4;
    let mut rng = SmallRng::seed_from_u64(seed);
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut disk = SimDisk::new();
    let failures = Arc::new(AtomicU64::new(0));
    let mut all: Vec<Mine> = vec![Mine::new(); CALLERS as usize];
    for _ in 0..3 {
        // Not during recovery.
        let switch = Arc::new(AtomicU32::new(0));
        let tight = Tight {
            disk: disk.clone(),
            one_in: switch.clone(),
            rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(rng.random()))),
            failures: failures.clone(),
        };
        let store = BlockStore::open(Arc::new(WrapDisk(tight)), config()).unwrap();
        switch.store(one_in, Ordering::Relaxed);
        disk.cut_power_after(rng.random_range(20..400));
        let stop = Arc::new(AtomicBool::new(false));
        let compaction = std::thread::spawn({
            let (store, stop) = (store.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed)
                    && !matches!(store.compact_step(20_000, Duration::ZERO), Err(BlockError::Failed(_)))
                {
                    std::thread::yield_now();
                }
            }
        });
        let tasks: Vec<_> = std::mem::take(&mut all)
            .into_iter()
            .enumerate()
            .map(|(n, mine)| {
                rt.spawn(caller(store.clone(), n as u32, SmallRng::seed_from_u64(rng.random()), mine))
            })
            .collect();
        all = tasks.into_iter().map(|t| rt.block_on(t).unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        compaction.join().unwrap();
        assert!(disk.is_off(), "the callers work until the power goes");
        drop(store);

        disk = disk.crash(rng.random());
        let report = check(&disk, STORE).unwrap();
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        let store = BlockStore::open(Arc::new(disk.clone()), config()).unwrap();
        assert!(store.recovery().lost.is_empty(), "seed {seed}");
        let mut found = BTreeMap::new();
        store.for_each_block(Epoch(u32::MAX), |id, len| {
            found.insert(id, len);
        });
        for mine in &mut all {
            mine.retain(|id, (data, sure)| match rt.block_on(store.get(*id, 0, data.len() as u32)) {
                Ok(got) => {
                    assert_eq!(got, *data, "seed {seed}");
                    found.remove(id);
                    *sure = true;
                    true
                }
                Err(BlockError::Missing(_)) if !*sure => false,
                Err(e) => panic!("seed {seed}: {e}"),
            });
        }
        assert!(found.is_empty(), "seed {seed}: deleted blocks came back: {found:?}");
        let report = check(&disk, STORE).unwrap();
        assert!(report.is_clean(), "seed {seed}: {report:?}");
    }
    failures.load(Ordering::Relaxed)
}

fn rounds(default: u64) -> u64 {
    std::env::var("ATOLL_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn promises_hold_for_many_callers() {
    for seed in 0..rounds(25) {
        campaign(seed, 0);
    }
}

#[test]
fn promises_hold_when_writes_fail_half_way_for_lack_of_room() {
    let failures: u64 = (0..rounds(25)).map(|seed| campaign(seed, 6)).sum();
    assert!(failures > 0);
}
