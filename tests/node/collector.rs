//! Blocks that nothing refers to go, all others stay.

use crate::rig::{Rig, pattern};
use atoll::maintenance;
use atoll_base::block::BlockService;
use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::{Disk, RealDisk};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn overwritten_truncated_and_removed_data_give_their_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(Arc::new(RealDisk::new(dir.path()))).await;
    let (a, b) = (rig.create("a").await, rig.create("b").await);
    rig.write(&a, 0, &pattern(1, 24 * MIB)).await;
    rig.write(&b, 0, &pattern(2, 24 * MIB)).await;
    let kept = rig.create("kept").await;
    rig.write(&kept, 0, &pattern(3, 8 * MIB)).await;
    assert_eq!(rig.node.blocks.metrics().live_bytes, 56 * MIB as u64);

    // Too early for readers that fetched the extents before.
    rig.remove("a").await;
    assert_eq!(maintenance::collect(&rig.node.meta, &rig.node.blocks).await.unwrap(), 0);
    assert_eq!(rig.collect().await, 6);
    rig.write(&b, 0, &pattern(4, 24 * MIB)).await;
    assert_eq!(rig.collect().await, 6);
    rig.truncate(&b, 8 * MIB as u64).await;
    assert_eq!(rig.collect().await, 4);
    assert_eq!(rig.collect().await, 0);
    assert_eq!(rig.node.blocks.metrics().live_bytes, 16 * MIB as u64);

    let before = segment_bytes(dir.path());
    rig.compact().await;
    let after = segment_bytes(dir.path());
    // At most the current segment is more than what lives, by the share that compaction leaves alone.
    assert!(after < before && after <= 16 * MIB * 10 / 7 + 2 * 16 * MIB, "{before} to {after}");
    assert_eq!(rig.read(b.ino).await, pattern(4, 24 * MIB)[..8 * MIB]);
    assert_eq!(rig.read(kept.ino).await, pattern(3, 8 * MIB));
    assert_eq!(rig.scrub().await, []);
    rig.node.close().await.unwrap();
}

fn segment_bytes(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("blocks")).unwrap();
    files.map(|f| f.unwrap().metadata().unwrap().len() as usize).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_writer_left_goes_and_what_it_committed_stays() {
    let disk = SimDisk::new();
    let rig = Rig::open(Arc::new(disk.clone())).await;
    let file = rig.create("file").await;
    rig.write(&file, 0, &pattern(1, 5 * MIB)).await;
    let orphans: Vec<_> = (0..3000).map(|_| rig.node.ids.next()).collect();
    for some in orphans.chunks(500) {
        let blocks = some.iter().map(|id| (*id, Bytes::from_static(b"never committed"))).collect();
        rig.node.blocks.put(blocks).await.unwrap();
    }
    // Its own life is not over: a command that refers to them may be on its way.
    let epoch = rig.node.ids.origin().epoch;
    let found = maintenance::collect_orphans(&rig.node.meta, &rig.node.blocks, epoch).await.unwrap();
    assert_eq!(found, 0);

    disk.cut_power();
    drop(rig);
    let rig = Rig::open(Arc::new(disk.crash(7))).await;
    let epoch = rig.node.ids.origin().epoch;
    let before = rig.node.blocks.metrics().blocks;
    let found = maintenance::collect_orphans(&rig.node.meta, &rig.node.blocks, epoch).await.unwrap();
    assert_eq!(found as u64, before - 2);
    assert_eq!(found, 3000, "all were durable");
    for id in orphans {
        assert_eq!(rig.node.blocks.length(id), None);
    }
    assert_eq!(rig.read(file.ino).await, pattern(1, 5 * MIB));
    assert_eq!(rig.scrub().await, []);
    rig.node.close().await.unwrap();
}

/// Power goes at any instant of collecting: what is referred to is there, and in the end nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_while_collecting() {
    for cut in [1, 2, 3, 5, 8, 13, 21, 34] {
        let disk = SimDisk::new();
        let rig = Rig::open(Arc::new(disk.clone())).await;
        for n in 0..40 {
            let file = rig.create(&format!("f{n}")).await;
            rig.write(&file, 0, &pattern(n, 70_000)).await;
        }
        for n in 0..30 {
            rig.remove(&format!("f{n}")).await;
        }
        rig.pass(Duration::from_secs(2));
        disk.cut_power_after(cut);
        // It may or may not be through when the power goes.
        let _cut_short = maintenance::collect(&rig.node.meta, &rig.node.blocks).await;
        disk.cut_power();
        drop(rig);

        let rig = Rig::open(Arc::new(disk.crash(cut))).await;
        assert_eq!(rig.scrub().await, [], "after {cut} operations");
        rig.collect().await;
        assert_eq!(rig.node.blocks.metrics().blocks, 10, "after {cut} operations");
        let root = rig.root().await;
        for n in 30..40 {
            let name = format!("f{n}");
            let found = atoll_meta::MetadataService::lookup(&*rig.node.meta, root, name.as_bytes()).await;
            assert_eq!(rig.read(found.unwrap().child.unwrap().ino).await, pattern(n, 70_000));
        }
        rig.node.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_go_on_while_blocks_are_collected_and_moved() {
    let rig = Arc::new(Rig::open(Arc::new(SimDisk::new()) as Arc<dyn Disk>).await);
    let file = rig.create("file").await;
    rig.write(&file, 0, &vec![0; 2 * MIB]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let upkeep = tokio::spawn({
        let (rig, stop) = (rig.clone(), stop.clone());
        async move {
            let mut collected = 0;
            while !stop.load(Ordering::Relaxed) {
                collected += rig.collect().await;
                rig.compact().await;
                tokio::task::yield_now().await;
            }
            collected
        }
    });
    let reader = tokio::spawn({
        let (rig, stop) = (rig.clone(), stop.clone());
        async move {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let data = rig.read(file.ino).await;
                // Each half is written whole; the first is never older than seen before.
                assert!(data[..MIB].iter().all(|b| *b == data[0]) && data[0] >= last);
                last = data[0];
            }
        }
    });
    for round in 1..=100 {
        rig.write(&file, 0, &vec![round; MIB]).await;
        rig.write(&file, MIB as u64, &vec![round; MIB]).await;
    }
    stop.store(true, Ordering::Relaxed);
    reader.await.unwrap();
    assert!(upkeep.await.unwrap() > 0);
    rig.collect().await;
    assert_eq!(rig.node.blocks.metrics().live_bytes, 2 * MIB as u64);
    assert_eq!(rig.scrub().await, []);
    rig.node.close().await.unwrap();
}

/// A start without its metadata must not take the blocks for garbage.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_without_metadata_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(Arc::new(RealDisk::new(dir.path()))).await;
    let file = rig.create("file").await;
    rig.write(&file, 0, &pattern(1, MIB)).await;
    rig.node.close().await.unwrap();
    let aside = dir.path().join("aside");
    std::fs::rename(dir.path().join("meta"), &aside).unwrap();
    for _ in 0..2 {
        let opened =
            atoll::node::Node::open(Arc::new(RealDisk::new(dir.path())), crate::rig::options()).await;
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("metadata"), "{error}");
    }
    assert!(!dir.path().join("meta").exists(), "a refused start makes none");
    std::fs::rename(&aside, dir.path().join("meta")).unwrap();
    let rig = Rig::open(Arc::new(RealDisk::new(dir.path()))).await;
    assert_eq!(rig.read(file.ino).await, pattern(1, MIB));
    rig.node.close().await.unwrap();
}
