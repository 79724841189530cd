//! Files of segments that went become segments again, and are given back where nobody takes them.
#![allow(clippy::unwrap_used, missing_docs)]

use atoll_base::block::{BlockError, BlockId, BlockService};
use atoll_base::disk::Disk;
use atoll_base::disk::sim::SimDisk;
use atoll_blockstore::{BlockStore, CompactStep, Config, Prepare, SITE_REMOVE, check};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const STORE: u128 = 5;
const LEN: usize = 8000;

fn config() -> Config {
    Config {
        segment_bytes: 64 << 10,
        direct_bytes: 16 << 10,
        stage_bytes: 12 << 10,
        read_threads: 1,
        prepare: Prepare::Inline,
        reserve_bytes: Some(0),
        space_refresh: Duration::ZERO,
        ..Config::new(STORE)
    }
}

struct Rig {
    rt: Runtime,
    disk: SimDisk,
    store: BlockStore,
}

fn open(disk: &SimDisk) -> BlockStore {
    BlockStore::open(Arc::new(disk.clone()), config()).unwrap()
}

impl Rig {
    fn new() -> Self {
        let disk = SimDisk::new();
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { rt, store: open(&disk), disk }
    }

    /// Blocks 0 to 39 were there, and the files of their segments are spare.
    fn with_spares() -> Self {
        let rig = Self::new();
        rig.put(0..40).unwrap();
        rig.delete(0..40);
        rig.compact();
        rig
    }

    fn content(n: u128) -> Bytes {
        vec![n as u8; LEN].into()
    }

    fn put(&self, ids: std::ops::Range<u128>) -> Result<(), BlockError> {
        ids.into_iter().try_for_each(|n| {
            self.rt.block_on(self.store.put_unreserved(vec![(BlockId(n), Self::content(n))]))
        })
    }

    fn delete(&self, ids: std::ops::Range<u128>) {
        self.rt.block_on(self.store.delete(ids.map(BlockId).collect())).unwrap();
    }

    fn get(&self, n: u128) -> Result<Bytes, BlockError> {
        self.rt.block_on(self.store.get(BlockId(n), 0, LEN as u32))
    }

    fn compact(&self) {
        while self.store.compact_step(1 << 20, Duration::ZERO).unwrap() != CompactStep::Idle {}
    }

    fn reopen(self, disk: SimDisk) -> Self {
        let Self { rt, store, .. } = self;
        drop(store);
        Self { rt, store: open(&disk), disk }
    }

    /// Names in the directory that end so.
    fn names(&self, end: &str) -> Vec<String> {
        let mut names: Vec<_> =
            self.disk.list(Path::new("blocks")).unwrap().into_iter().map(|e| e.name).collect();
        names.retain(|name| name.ends_with(end));
        names.sort();
        names
    }

    fn spares(&self) -> usize {
        self.names(".spare").len()
    }
}

#[test]
fn segments_are_made_of_spare_files_and_the_rest_is_given_back() {
    let rig = Rig::with_spares();
    assert_eq!(rig.spares(), 4);
    let before = rig.disk.used();
    rig.put(100..112).unwrap();
    assert!(rig.spares() < 4);
    // Of small and large batches, side by side.
    let large = (200..206).map(|n| (BlockId(n), Rig::content(n))).collect();
    rig.rt.block_on(rig.store.put(large)).unwrap();
    assert!(rig.disk.used() < before + (64 << 10), "what was there was used");
    // Not at once, and not all at once.
    assert!(!rig.store.trim_step(Duration::from_secs(3600)).unwrap());
    let mut steps = 0;
    while rig.store.trim_step(Duration::ZERO).unwrap() {
        steps += 1;
    }
    assert!(rig.spares() == 0 && steps > 8, "{steps}");
    let disk = rig.disk.crash(7);
    assert!(check(&disk, STORE).unwrap().is_clean());
    let rig = rig.reopen(disk);
    for n in (100..112).chain(200..206) {
        assert_eq!(rig.get(n).unwrap(), Rig::content(n));
    }
}

#[test]
fn spare_files_outlast_a_restart() {
    let rig = Rig::with_spares();
    rig.store.close().unwrap();
    let disk = rig.disk.crash(3);
    let rig = rig.reopen(disk);
    // The first segment was made of one.
    assert_eq!(rig.spares(), 3);
    rig.put(100..130).unwrap();
    assert_eq!(rig.spares(), 0);
    assert!(matches!(rig.get(3), Err(BlockError::Missing(_))));
}

#[test]
fn their_room_is_room() {
    let rig = Rig::with_spares();
    rig.disk.set_capacity(rig.disk.used());
    // The disk has nothing left beside them. In segments as small as these a good part is lost at their ends.
    let room = rig.store.space().available;
    assert!(room > 100 << 10, "{room}");
    rig.put(100..100 + u128::from(room) * 3 / 4 / LEN as u128).unwrap();
    // One that was cut is too short for a segment, but it makes room for one.
    let rig = Rig::with_spares();
    for _ in 0..20 {
        assert!(rig.store.trim_step(Duration::ZERO).unwrap());
    }
    rig.disk.set_capacity(rig.disk.used());
    rig.put(100..118).unwrap();
}

/// The first unit of a segment rots, in which nothing of its own was written: what the file was before does not count.
#[test]
fn a_rotten_header_brings_nothing_back() {
    let rig = Rig::with_spares();
    rig.store.close().unwrap();
    let rig = {
        let disk = rig.disk.clone();
        rig.reopen(disk)
    };
    let made = rig.names(".seg").pop().unwrap();
    rig.disk.rot(&Path::new("blocks").join(made), 20, 1).unwrap();
    let disk = rig.disk.crash(1);
    let rig = rig.reopen(disk);
    for n in 0..40 {
        assert!(matches!(rig.get(n), Err(BlockError::Missing(_))));
    }
    assert_eq!(rig.store.metrics().blocks, 0);
}

/// A process dies when a segment got its spare name and before that is durable; the next one uses the file; then the power goes.
#[test]
fn what_is_not_durably_spare_is_not_written() {
    for seed in 0..200 {
        let rig = Rig::new();
        rig.put(0..40).unwrap();
        rig.delete(0..40);
        rig.disk.fail_next_sync(SITE_REMOVE);
        while rig.store.compact_step(1 << 20, Duration::ZERO).is_ok() {}
        assert_eq!(rig.spares(), 1);
        rig.disk.cut_power_after(1 + seed % 40);
        let disk = rig.disk.clone();
        let Rig { rt, store, .. } = rig;
        drop(store);
        if let Ok(store) = BlockStore::open(Arc::new(disk.clone()), config()) {
            let rig = Rig { rt, store, disk: disk.clone() };
            let _ = rig.put(100..120);
        }
        let disk = disk.crash(seed);
        assert!(check(&disk, STORE).unwrap().is_clean());
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rig = Rig { rt, store: open(&disk), disk };
        for n in 0..40 {
            assert!(matches!(rig.get(n), Err(BlockError::Missing(_))), "{n}");
        }
    }
}
