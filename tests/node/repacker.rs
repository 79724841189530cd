//! Repacking changes how files are stored, never what they hold.

use crate::rig::{Rig, eager, pattern};
use atoll::maintenance::Repacker;
use atoll_base::disk::RealDisk;
use atoll_base::disk::sim::SimDisk;
use atoll_meta::service::MetadataService;
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MIB: usize = 1 << 20;

fn tree_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| if e.path().is_dir() { tree_bytes(&e.path()) } else { e.metadata().unwrap().blocks() * 512 })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_overwritten_at_random_becomes_like_new() {
    const SIZE: usize = 32 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(Arc::new(RealDisk::new(dir.path()))).await;
    let file = rig.create("file").await;
    let mut model = pattern(1, SIZE);
    rig.write(&file, 0, &model).await;
    let mut rng = SmallRng::seed_from_u64(5);
    for _ in 0..SIZE / 4096 {
        let at = rng.random_range(0..SIZE / 4096) * 4096;
        rng.fill_bytes(&mut model[at..at + 4096]);
        rig.write_inline(&file, at as u64, &model[at..at + 4096]).await;
    }
    let change = rig.node.meta.getattr(file.ino).await.unwrap().change;
    assert!(rig.extents(file.ino).await.len() > 1000);
    let windows = (SIZE / (4 * MIB)) as u64;
    assert_eq!(rig.repack().await, windows);
    assert_eq!(rig.repack().await, 0, "a repacked file is left alone, also by a repacker that never saw it");
    let extents = rig.extents(file.ino).await;
    assert!(extents.len() as u64 == windows && extents.iter().all(|e| !e.2), "{extents:?}");
    rig.collect().await;
    rig.compact().await;
    assert_eq!(rig.node.blocks.metrics().live_bytes, SIZE as u64);
    assert_eq!(rig.read(file.ino).await, model);
    assert_eq!(rig.node.meta.getattr(file.ino).await.unwrap().change, change);
    assert_eq!(rig.scrub().await, []);
    // Beside the segment that is being written.
    let blocks = tree_bytes(&dir.path().join("blocks"));
    assert!(blocks <= (SIZE + SIZE / 2 + 16 * MIB) as u64, "{blocks} bytes of segments");
    rig.node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn splinters_of_blocks_do_not_keep_their_blocks() {
    let rig = Rig::open(Arc::new(SimDisk::new())).await;
    let mut files = Vec::new();
    for n in 0..20 {
        let file = rig.create(&format!("cut{n}")).await;
        rig.write(&file, 0, &pattern(n, MIB)).await;
        rig.truncate(&file, 5000).await;
        files.push((file, pattern(n, MIB)[..5000].to_vec()));
    }
    // Two large writes that leave a little of the first.
    let file = rig.create("splinter").await;
    let mut model = pattern(100, 8 * MIB);
    rig.write(&file, 0, &model).await;
    let newer = pattern(101, 4 * MIB - 4096);
    rig.write(&file, 4096, &newer).await;
    model[4096..4 * MIB].copy_from_slice(&newer);
    files.push((file, model));
    rig.collect().await;
    let held = rig.node.blocks.metrics().live_bytes;
    assert!(held > 30 * MIB as u64, "{held}");
    rig.repack().await;
    rig.collect().await;
    assert_eq!(rig.node.blocks.metrics().live_bytes, 20 * 5000 + 8 * MIB as u64);
    for (file, data) in &files {
        assert_eq!(&rig.read(file.ino).await, data);
    }
    assert_eq!(rig.repack().await, 0);
    assert_eq!(rig.scrub().await, []);
    rig.node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_stay_holes_and_the_largest_file_takes_no_longer() {
    let rig = Rig::open(Arc::new(SimDisk::new())).await;
    let file = rig.create("sparse").await;
    for n in 0..64_u64 {
        rig.write_inline(&file, n * 3 * 4096, &pattern(n, 4096)).await;
    }
    let top = i64::MAX as u64 - 4096;
    rig.write_inline(&file, top, &[7; 4096]).await;
    let used = rig.node.meta.getattr(file.ino).await.unwrap().used;
    assert_eq!(rig.repack().await, 2);
    let attr = rig.node.meta.getattr(file.ino).await.unwrap();
    assert_eq!((attr.used, attr.size), (used, i64::MAX as u64));
    let map = rig.node.meta.map(file.ino, 0, u64::MAX).await.unwrap();
    assert_eq!(map.extents.len(), 65);
    assert_eq!(map.extents[64].piece.offset, top);
    assert_eq!(rig.repack().await, 0, "as many extents as stretches of data: nothing to gain");
    rig.truncate(&file, 64 * 3 * 4096).await;
    let data = rig.read(file.ino).await;
    for (n, part) in data.chunks(3 * 4096).enumerate() {
        assert_eq!(part[..4096], pattern(n as u64, 4096));
        assert!(part[4096..].iter().all(|b| *b == 0));
    }
    rig.node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_are_never_undone_and_the_repacker_comes_through() {
    const SIZE: usize = 4 * MIB;
    let rig = Arc::new(Rig::open(Arc::new(SimDisk::new())).await);
    let file = rig.create("file").await;
    let mut model = pattern(1, SIZE);
    rig.write(&file, 0, &model).await;
    let stop = Arc::new(AtomicBool::new(false));
    let repacking = tokio::spawn({
        let (rig, stop) = (rig.clone(), stop.clone());
        async move {
            let mut repacker = Repacker::new(rig.node.ids.clone(), eager());
            let (mut conflicts, mut rewritten) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let round = repacker.round(&rig.node.meta, &rig.node.blocks).await.unwrap();
                conflicts += round.conflicts;
                rewritten += round.rewritten;
                rig.collect().await;
                tokio::task::yield_now().await;
            }
            (conflicts, rewritten)
        }
    });
    let mut rng = SmallRng::seed_from_u64(9);
    for n in 0..3000 {
        let at = rng.random_range(0..SIZE - 9000);
        let len = rng.random_range(1..9000);
        rng.fill_bytes(&mut model[at..at + len]);
        rig.write_inline(&file, at as u64, &model[at..at + len]).await;
        if n % 500 == 499 {
            assert!(rig.read(file.ino).await == model, "after {n} writes");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (conflicts, rewritten) = repacking.await.unwrap();
    assert!(conflicts + rewritten > 0);
    rig.repack().await;
    assert_eq!(rig.extents(file.ino).await.len(), 1);
    assert!(rig.read(file.ino).await == model);
    rig.collect().await;
    assert_eq!(rig.node.blocks.metrics().live_bytes, SIZE as u64);
    assert_eq!(rig.scrub().await, []);
    rig.node.close().await.unwrap();
}

/// What fails for one file or for lack of room does not keep the repacker from the others.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_improved_do_not_stand_in_the_way() {
    let disk = SimDisk::new();
    let rig = Rig::open(Arc::new(disk.clone())).await;
    // More files than one round looks at, that are listed for ever: every second page, in one block after the first time.
    for n in 0..300 {
        let file = rig.create(&format!("sparse{n}")).await;
        for page in 0..20_u64 {
            rig.write_inline(&file, page * 8192, &[n as u8; 4096]).await;
        }
    }
    let last = rig.create("last").await;
    let damaged = rig.create("damaged").await;
    let mut repacker = Repacker::new(rig.node.ids.clone(), eager());
    for _ in 0..6 {
        repacker.round(&rig.node.meta, &rig.node.blocks).await.unwrap();
    }
    rig.write(&damaged, 0, &pattern(1, MIB)).await;
    let place = rig.node.blocks.clone();
    let victim = {
        let mut newest = None;
        place.for_each_block(atoll_base::id::Epoch(u32::MAX), |id, _| newest = Some(id));
        newest.unwrap()
    };
    atoll_base::block::BlockService::delete(&rig.node.blocks, vec![victim]).await.unwrap();
    for page in 0..20_u64 {
        rig.write_inline(&damaged, page * 8192, &[1; 4096]).await;
        rig.write_inline(&last, page * 4096, &[2; 4096]).await;
    }
    for _ in 0..8 {
        repacker.round(&rig.node.meta, &rig.node.blocks).await.unwrap();
    }
    assert_eq!(rig.extents(last.ino).await, [(0, 20 * 4096, false)]);
    let found = rig.scrub().await;
    assert!(found.len() == 1 && found[0].0 == "root:/damaged", "{found:?}");
    rig.node.close().await.unwrap();
}
