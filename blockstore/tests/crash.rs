//! The power goes at any operation; whatever was acknowledged must be there afterwards, whatever was deleted with
//! acknowledgement must not, whatever was under way is whole or absent. And: without any one of the syncs this fails.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::sim::SimDisk;
use atoll_base::id::Epoch;
use atoll_blockstore::{
    BlockStore, CompactStep, Config, Prepare, SITE_APPEND, SITE_CREATE, SITE_REMOVE, SITE_RESEAL, SITE_REUSE,
    SITE_ROOT, SITE_SEAL, check,
};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const STORE: u128 = 77;

fn config() -> Config {
    Config {
        segment_bytes: 32 << 10,
        direct_bytes: 8 << 10,
        stage_bytes: 12 << 10,
        read_threads: 1,
        prepare: Prepare::Inline,
        reserve_bytes: Some(0),
        ..Config::new(STORE)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// What a caller may rely on.
#[derive(Default)]
struct Model {
    live: BTreeMap<BlockId, Bytes>,
    /// Acknowledged deletions.
    dead: BTreeSet<BlockId>,
    /// Puts or deletions under way when the power went: whole or absent.
    unsure: BTreeMap<BlockId, Bytes>,
    next: u64,
}

impl Model {
    fn fresh(&mut self, rng: &mut SmallRng) -> (BlockId, Bytes) {
        self.next += 1;
        let len = if rng.random_bool(0.1) { rng.random_range(1..40_000) } else { rng.random_range(1..6_000) };
        let mut data = vec![0; len];
        rng.fill(&mut data[..]);
        (BlockId::new(Epoch(1), self.next), data.into())
    }

    fn some_live(&self, rng: &mut SmallRng, n: usize) -> Vec<BlockId> {
        let ids: Vec<_> = self.live.keys().copied().collect();
        // Mostly neighbours, so that whole segments die.
        let start = if ids.is_empty() { 0 } else { rng.random_range(0..ids.len()) };
        ids.into_iter().skip(start).take(n).collect()
    }
}

/// One operation; false once the power is off.
fn operate(rt: &Runtime, store: &BlockStore, model: &mut Model, rng: &mut SmallRng) -> Result<bool, String> {
    match rng.random_range(0..10) {
        0..=4 => {
            let n = rng.random_range(1..5);
            let blocks: Vec<_> = (0..n).map(|_| model.fresh(rng)).collect();
            match rt.block_on(store.put(blocks.clone())) {
                Ok(()) => model.live.extend(blocks),
                Err(BlockError::Failed(_)) => {
                    model.unsure.extend(blocks);
                    return Ok(false);
                }
                Err(e) => return Err(format!("put: {e}")),
            }
        }
        5..=6 => {
            let n = rng.random_range(1..8);
            let ids = model.some_live(rng, n);
            let done = rt.block_on(store.delete(ids.clone()));
            for id in ids {
                let data = model.live.remove(&id).unwrap();
                if done.is_ok() {
                    model.dead.insert(id);
                } else {
                    model.unsure.insert(id, data);
                }
            }
            if let Err(e) = done {
                return if matches!(e, BlockError::Failed(_)) {
                    Ok(false)
                } else {
                    Err(format!("delete: {e}"))
                };
            }
        }
        _ if rng.random_bool(0.1) => match store.trim_step(Duration::ZERO) {
            Ok(_) => {}
            // The power is off, as the next step is told.
            Err(BlockError::Io { .. }) => {}
            Err(BlockError::Failed(_)) => return Ok(false),
            Err(e) => return Err(format!("giving room back: {e}")),
        },
        _ => match store.compact_step(rng.random_range(1..20_000), Duration::ZERO) {
            Ok(CompactStep::Stuck(segment, id)) => return Err(format!("damage in {segment}: {id:?}")),
            Ok(_) => {}
            Err(BlockError::Failed(_)) => return Ok(false),
            Err(e) => return Err(format!("compaction: {e}")),
        },
    }
    Ok(true)
}

fn verify(rt: &Runtime, disk: &SimDisk, store: &BlockStore, model: &mut Model) -> Result<(), String> {
    let lost = &store.recovery().lost;
    if !lost.is_empty() {
        return Err(format!("records lost: {lost:?}"));
    }
    for (id, data) in std::mem::take(&mut model.unsure) {
        match rt.block_on(store.get(id, 0, data.len() as u32)) {
            Ok(got) if got == data => {
                model.live.insert(id, data);
            }
            Ok(_) => return Err(format!("{id:?} has other bytes")),
            Err(BlockError::Missing(_)) => {
                model.dead.insert(id);
            }
            Err(e) => return Err(format!("under way: {e}")),
        }
    }
    for (id, data) in &model.live {
        match rt.block_on(store.get(*id, 0, data.len() as u32)) {
            Ok(got) if got == *data => {}
            Ok(_) => return Err(format!("{id:?} has other bytes")),
            Err(e) => return Err(format!("acknowledged: {e}")),
        }
    }
    let want: Vec<_> = model.live.iter().map(|(id, data)| (*id, data.len() as u32)).collect();
    let got = store.list(None, Epoch(u32::MAX), usize::MAX);
    if let Some((id, _)) = got.iter().find(|(id, _)| model.dead.contains(id)) {
        return Err(format!("{id:?} came back to life"));
    }
    if got != want {
        return Err("the list is not the model's".into());
    }
    let report = check(disk, STORE).map_err(|e| e.to_string())?;
    if !report.is_clean() || report.blocks != want {
        return Err(format!("check: {:?} {:?}", report.damage, report.structure));
    }
    Ok(())
}

/// Several power cuts in a row on one disk.
fn campaign(seed: u64, skip: Option<&str>) -> Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let rt = runtime();
    let mut disk = SimDisk::new();
    if let Some(site) = skip {
        disk.skip_site(site);
    }
    let mut model = Model::default();
    let mut going_on = None;
    for _ in 0..6 {
        let operations = if rng.random_bool(0.3) { rng.random_range(0..8) } else { rng.random_range(8..300) };
        disk.cut_power_after(operations);
        let store = going_on.take().or_else(|| BlockStore::open(Arc::new(disk.clone()), config()).ok());
        if let Some(store) = store {
            while operate(&rt, &store, &mut model, &mut rng)? {
                if rng.random_bool(0.005) {
                    let _ = store.close();
                    break;
                }
            }
        }
        disk = disk.crash(rng.random());
        // The check is clean before anything is repaired, too.
        if let Ok(report) = check(&disk, STORE)
            && !report.is_clean()
        {
            return Err(format!("check before opening: {:?} {:?}", report.damage, report.structure));
        }
        let store = BlockStore::open(Arc::new(disk.clone()), config()).map_err(|e| e.to_string())?;
        verify(&rt, &disk, &store, &mut model)?;
        if rng.random_bool(0.5) {
            going_on = Some(store);
        }
    }
    Ok(())
}

fn rounds(default: u64) -> u64 {
    std::env::var("ATOLL_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn acknowledged_survives_and_deleted_stays_deleted() {
    for seed in 0..rounds(60) {
        campaign(seed, None).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

fn fails_without(site: &str) {
    let failed = (0..rounds(60)).find_map(|seed| Some((seed, campaign(seed, Some(site)).err()?)));
    match failed {
        Some((seed, why)) => println!("without {site}: seed {seed}: {why}"),
        None => panic!("the campaign passes without the sync at {site}"),
    }
}

#[test]
fn the_sync_of_the_root_is_needed() {
    fails_without(SITE_ROOT);
}

#[test]
fn the_sync_of_a_new_segment_is_needed() {
    fails_without(SITE_CREATE);
}

#[test]
fn the_sync_of_a_batch_is_needed() {
    fails_without(SITE_APPEND);
}

#[test]
fn the_sync_of_a_full_segment_is_needed() {
    fails_without(SITE_SEAL);
}

#[test]
fn the_sync_of_a_recovered_segment_is_needed() {
    fails_without(SITE_RESEAL);
}

#[test]
fn the_sync_of_a_spare_file_is_needed() {
    fails_without(SITE_REUSE);
}

#[test]
fn the_sync_of_a_removal_is_needed() {
    fails_without(SITE_REMOVE);
}
