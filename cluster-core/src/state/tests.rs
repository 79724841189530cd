//! The state's file against a disk that loses its power, and snapshots against damage.

#![allow(clippy::unwrap_used)]

mod flush;
mod layers;
mod values;

use super::*;
use crate::raft::types::{LogId, StoredMembership};
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::{Disk, Open};
use atoll_model::kv::{KvRead, KvWrite, Table};
use openraft::impls::leader_id_adv::LeaderId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Much is flushed only when a test says so.
const SIZES: Config = Config { cache_bytes: 1 << 20, flush_bytes: usize::MAX };

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

fn open(disk: &SimDisk) -> Result<StateStore, StateError> {
    open_with(disk, SIZES)
}

fn open_with(disk: &SimDisk, sizes: Config) -> Result<StateStore, StateError> {
    StateStore::open(Arc::new(disk.clone()), Path::new(""), sizes, None)
}

/// Batch `i` sets key `i % 40` to `i`, with enough bytes to move pages about, or for a place beside redb's file.
fn batch(store: &StateStore, i: u64) -> Result<(), StateError> {
    store.write(|state| {
        state.put(
            Table::Inode,
            &(i % 40).to_be_bytes(),
            &[i.to_be_bytes().as_slice(), &[7; 5000][..if i.is_multiple_of(4) { 5000 } else { 600 }]]
                .concat(),
        )?;
        if i.is_multiple_of(3) {
            state.delete(Table::Inode, &((i + 7) % 40).to_be_bytes())?;
        }
        state.set_applied(log_id(i));
        Ok(())
    })
}

/// What batches 1 to `applied` leave.
fn expected(applied: u64) -> std::collections::BTreeMap<u64, u64> {
    let mut map = std::collections::BTreeMap::new();
    for i in 1..=applied {
        map.insert(i % 40, i);
        if i.is_multiple_of(3) {
            map.remove(&((i + 7) % 40));
        }
    }
    map
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

fn contents(view: &View) -> std::collections::BTreeMap<u64, u64> {
    let mut map = std::collections::BTreeMap::new();
    view.reader()
        .scan(Table::Inode, Bound::Unbounded, Bound::Unbounded, |key, value| {
            map.insert(number(key), number(value));
            ControlFlow::Continue(())
        })
        .unwrap();
    map
}

fn applied(view: &View) -> u64 {
    view.applied().map_or(0, |id| id.index)
}

/// Runs batches with a durable commit now and then until the power goes; says how far a commit was acknowledged.
fn run_until_cut(disk: &SimDisk, from: u64, rng: &mut SmallRng) -> u64 {
    // Sometimes the store flushes on its own, too, and batches wait for it.
    let flush_bytes = if rng.random() { 8 << 10 } else { usize::MAX };
    let Ok(store) = open_with(disk, Config { flush_bytes, ..SIZES }) else { return from };
    let mut durable = from;
    for i in from + 1..from + 200 {
        if batch(&store, i).is_err() {
            break;
        }
        if rng.random_ratio(1, 7) {
            match store.commit_durable() {
                Ok(id) => durable = id.unwrap().index,
                Err(_) => break,
            }
        }
    }
    durable
}

/// One life after another on one disk. `Err` tells what was lost.
fn campaign(seed: u64, skip: Option<&'static str>) -> Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut disk = SimDisk::new();
    skip.inspect(|site| disk.skip_site(site));
    let mut durable = 0;
    for _life in 0..6 {
        disk.cut_power_after(rng.random_range(0..250));
        durable = run_until_cut(&disk, durable, &mut rng);
        disk = disk.crash(rng.random());
        let store = open(&disk).map_err(|e| format!("does not open: {e}"))?;
        let view = store.view();
        let found = applied(&view);
        if found < durable {
            return Err(format!("batch {durable} was durable, {found} is found"));
        }
        if contents(&view) != expected(found) {
            return Err(format!("the contents are not those of batch {found}"));
        }
        durable = found;
    }
    Ok(())
}

#[test]
fn what_was_made_durable_survives_any_power_cut() {
    for seed in 0..60 {
        campaign(seed, None).unwrap();
    }
}

#[test]
fn each_sync_is_needed() {
    for site in [SYNC_STATE, SYNC_STATE_DIR, SYNC_VALUES] {
        // Damage may show as a panic inside the store, too.
        let found = (0..200)
            .any(|seed| !matches!(catch_unwind(AssertUnwindSafe(|| campaign(seed, Some(site)))), Ok(Ok(()))));
        assert!(found, "nothing was lost without the sync of {site}");
    }
}

#[test]
fn a_failed_batch_leaves_nothing() {
    let store = open(&SimDisk::new()).unwrap();
    batch(&store, 1).unwrap();
    let failed: Result<(), _> = store.write(|state| {
        state.put(Table::Inode, b"12345678", b"half")?;
        Err(StateError::Damaged("on purpose".into()))
    });
    assert!(failed.is_err());
    batch(&store, 2).unwrap();
    let view = store.view();
    assert_eq!(contents(&view), expected(2));
    assert_eq!(applied(&view), 2);
}

#[test]
fn tables_do_not_leak_into_each_other() {
    let store = open(&SimDisk::new()).unwrap();
    store
        .write(|state| {
            for table in Table::ALL {
                state.put(table, b"", table.name().as_bytes())?;
                state.put(table, &[0xff; 400], b"long")?;
            }
            Ok(())
        })
        .unwrap();
    let view = store.view();
    for table in Table::ALL {
        let mut seen = Vec::new();
        let collect = |key: &[u8], value: &[u8], seen: &mut Vec<(usize, Vec<u8>)>| {
            seen.push((key.len(), value.to_vec()));
            ControlFlow::Continue(())
        };
        view.reader()
            .scan(table, Bound::Unbounded, Bound::Unbounded, |k, v| collect(k, v, &mut seen))
            .unwrap();
        assert_eq!(seen, [(0, table.name().as_bytes().to_vec()), (400, b"long".to_vec())]);
        let mut back = Vec::new();
        view.reader()
            .scan_back(table, Bound::Unbounded, Bound::Unbounded, |k, v| collect(k, v, &mut back))
            .unwrap();
        back.reverse();
        assert_eq!(seen, back);
        let mut none = Vec::new();
        let (from, to): (&[u8], &[u8]) = (&[5], &[4]);
        view.reader()
            .scan(table, Bound::Excluded(from), Bound::Excluded(to), |k, v| collect(k, v, &mut none))
            .unwrap();
        assert!(none.is_empty());
    }
}

fn frames(store: &StateStore) -> Vec<bytes::Bytes> {
    Frames::new(Arc::new(store.view())).map(Result::unwrap).collect()
}

fn receive(store: &StateStore, frames: &[bytes::Bytes]) -> Result<Received, StateError> {
    let mut receiver = Receiver::new(store)?;
    for frame in frames {
        receiver.frame(frame)?;
    }
    receiver.finish()
}

#[test]
fn snapshot_brings_the_whole_state() {
    let source = open(&SimDisk::new()).unwrap();
    // Some of it comes from the file, some replaces that in memory.
    for i in 1..=30 {
        batch(&source, i).unwrap();
        if i == 20 {
            source.commit_durable().unwrap();
        }
    }
    source
        .write(|state| {
            for i in 0..3000u64 {
                state.put(Table::Extent, &i.to_be_bytes(), &[i as u8; 1000])?;
            }
            let members = openraft::Membership::new_with_defaults(vec![[1, 2].into()], []);
            state.set_membership(StoredMembership::new(Some(log_id(3)), members));
            Ok(())
        })
        .unwrap();
    let frames = frames(&source);
    assert!(frames.len() > 4 && frames.iter().all(|f| f.len() < 2 << 20), "bounded frames");

    let disk = SimDisk::new();
    let target = open(&disk).unwrap();
    batch(&target, 1).unwrap();
    let old = target.view();
    let received = receive(&target, &frames).unwrap();
    assert_eq!(*received.meta(), source.view().meta());
    target.install(SnapshotData::Received(received)).unwrap();
    assert_eq!(target.durable(), Some(log_id(30)));
    // A reader of the old state is not disturbed.
    assert_eq!(contents(&old), expected(1));
    drop((old, target));

    let again = open(&disk.crash(1)).unwrap();
    let view = again.view();
    assert_eq!(contents(&view), expected(30));
    assert_eq!(view.meta(), source.view().meta());
    let mut extents = 0;
    view.reader()
        .scan(Table::Extent, Bound::Unbounded, Bound::Unbounded, |key, value| {
            assert_eq!(value, [number(key) as u8; 1000]);
            extents += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(extents, 3000);
}

#[test]
fn damaged_or_incomplete_snapshots_are_refused() {
    let source = open(&SimDisk::new()).unwrap();
    for i in 1..=30 {
        batch(&source, i).unwrap();
    }
    let good = frames(&source);
    let target = open(&SimDisk::new()).unwrap();
    let mut rng = SmallRng::seed_from_u64(5);
    for _ in 0..100 {
        let mut bad = good.clone();
        let at = rng.random_range(0..bad.len());
        let mut frame = bad[at].to_vec();
        let byte = rng.random_range(0..frame.len());
        frame[byte] ^= 1 << rng.random_range(0..8);
        bad[at] = frame.into();
        assert!(receive(&target, &bad).is_err());
    }
    let mut receiver = Receiver::new(&target).unwrap();
    assert!(receiver.frame(&good[1]).is_err(), "pairs before the head");
    assert!(receiver.frame(&[]).is_err());
    assert!(!receiver.frame(&good[0]).unwrap());
    assert!(receiver.frame(good.last().unwrap()).is_err(), "an end that counts pairs that never came");
    assert!(Receiver::new(&target).unwrap().finish().is_err(), "no head");
    assert_eq!(applied(&target.view()), 0);
}

/// Whether the state found after power cuts during an installation is the old or the new one, whole.
fn install_campaign(seed: u64, skip: Option<&'static str>) -> Result<(), String> {
    let source = open(&SimDisk::new()).unwrap();
    for i in 1..=90 {
        batch(&source, i).unwrap();
    }
    let mut rng = SmallRng::seed_from_u64(seed);
    let disk = SimDisk::new();
    {
        let target = open(&disk).unwrap();
        batch(&target, 1).unwrap();
        target.commit_durable().unwrap();
        skip.inspect(|site| disk.skip_site(site));
        disk.cut_power_after(rng.random_range(0..60));
        let installed =
            receive(&target, &frames(&source)).and_then(|r| target.install(SnapshotData::Received(r)));
        let disk = disk.crash(rng.random());
        let again = open(&disk).map_err(|e| format!("does not open: {e}"))?;
        let view = again.view();
        let found = applied(&view);
        if !(found == 90 || found == 1 && installed.is_err()) {
            return Err(format!("found {found}"));
        }
        if contents(&view) != expected(found) {
            return Err(format!("the contents are not those of batch {found}"));
        }
        let mut leftovers = disk.list(Path::new("")).unwrap();
        leftovers.retain(|entry| !["state.redb", "state.values"].contains(&&*entry.name));
        if !leftovers.is_empty() {
            return Err(format!("files {leftovers:?}"));
        }
    }
    Ok(())
}

#[test]
fn installation_is_all_or_nothing() {
    for seed in 0..60 {
        install_campaign(seed, None).unwrap();
    }
    for site in [SYNC_STATE, SYNC_STATE_DIR] {
        let found = (0..200).any(|seed| {
            !matches!(catch_unwind(AssertUnwindSafe(|| install_campaign(seed, Some(site)))), Ok(Ok(())))
        });
        assert!(found, "nothing was lost without the sync of {site}");
    }
}
