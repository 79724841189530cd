//! Measures a block store in a directory: streaming puts against a plain write and fdatasync of the same bytes, small
//! concurrent puts, reads from the page cache, and reopening.
//!
//! `cargo run --release -p atoll-blockstore --example measure -- DIR`
#![allow(clippy::unwrap_used)]

use atoll_base::block::{BlockId, BlockService};
use atoll_base::checksum;
use atoll_base::disk::{Disk, Open, RealDisk};
use atoll_blockstore::{BlockStore, Config};
use bytes::Bytes;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const MIB: u64 = 1 << 20;

/// `total` bytes in blocks of `len`, `flight` puts at a time.
async fn puts(store: &BlockStore, epoch: u128, total: u64, len: u64, flight: u64) {
    let data = Bytes::from((0..len).map(|n| (n * 7) as u8).collect::<Vec<_>>());
    let began = Instant::now();
    let tasks: Vec<_> = (0..flight)
        .map(|task| {
            let (store, data) = (store.clone(), data.clone());
            tokio::spawn(async move {
                for n in 0..total / len / flight {
                    let id = BlockId(epoch << 64 | u128::from(task * (total / len) + n));
                    store.put(vec![(id, data.clone())]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let s = began.elapsed().as_secs_f64();
    let (mb, ops) = (total as f64 / 1e6 / s, (total / len) as f64 / s);
    println!("put {len:>8} B, {flight:>3} in flight: {mb:>7.0} MB/s {ops:>9.0} /s");
}

/// Reads of `len` bytes all over the blocks of an epoch.
async fn gets(store: &BlockStore, epoch: u128, blocks: u64, block: u64, len: u64) {
    let count = (400 * MIB / len).min(200_000);
    let before = store.metrics();
    let began = Instant::now();
    let mut at = 1u64;
    for _ in 0..count {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = BlockId(epoch << 64 | u128::from((at >> 20) % blocks));
        let offset = (at >> 40) % (block / len) * len;
        store.get(id, offset as u32, len as u32).await.unwrap();
    }
    let us = began.elapsed().as_secs_f64() * 1e6 / count as f64;
    let m = store.metrics();
    let inline = 100 * (m.reads_from_cache - before.reads_from_cache) / (m.reads - before.reads);
    println!("get {len:>8} B of {block} B: {us:>8.2} us, {inline} % inline");
}

fn raw(disk: &RealDisk, total: u64, batch: u64) {
    let file = disk.open(Path::new("raw"), Open::Create).unwrap();
    file.allocate(0, total).unwrap();
    let data = vec![7; batch as usize];
    let began = Instant::now();
    for n in 0..total / batch {
        file.write_at(&[IoSlice::new(&data)], n * batch).unwrap();
        file.sync("raw").unwrap();
    }
    let s = began.elapsed().as_secs_f64();
    println!(
        "raw write + fdatasync of {batch} B: {:.0} MB/s {:.0} /s",
        total as f64 / 1e6 / s,
        (total / batch) as f64 / s
    );
    disk.remove(Path::new("raw")).unwrap();
}

/// The checksum alone, in pieces of `chunk` bytes.
fn crc(chunk: usize) {
    let data = vec![7; MIB as usize];
    let began = Instant::now();
    let sum = (0..1000).fold(0, |_, _| data.chunks(chunk).fold(0, |sum, c| sum ^ checksum::crc32c(c)));
    println!(
        "crc32c of 1 MiB in pieces of {chunk}: {:.0} us ({sum:08x})",
        began.elapsed().as_secs_f64() * 1e3
    );
}

fn main() {
    crc(4096);
    crc(65536);
    let dir = std::env::args().nth(1).expect("a directory");
    let disk = RealDisk::new(&dir);
    raw(&disk, 1024 * MIB, 16 * MIB);
    raw(&disk, 256 * MIB, MIB);
    raw(&disk, 16 * MIB, 4096);
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let open = || BlockStore::open(Arc::new(disk.clone()), Config::new(1)).unwrap();
    let store = open();
    rt.block_on(async {
        puts(&store, 1, 1024 * MIB, MIB, 1).await;
        puts(&store, 2, 1024 * MIB, MIB, 16).await;
        puts(&store, 3, 1024 * MIB, 4 * MIB, 8).await;
        puts(&store, 4, 16 * MIB, 4096, 1).await;
        puts(&store, 5, 64 * MIB, 4096, 16).await;
        puts(&store, 6, 128 * MIB, 4096, 256).await;
        gets(&store, 3, 30, 4 * MIB, 4096).await;
        gets(&store, 1, 1000, MIB, 4096).await;
        gets(&store, 1, 1000, MIB, 65536).await;
        gets(&store, 1, 1000, MIB, MIB).await;
        gets(&store, 3, 30, 4 * MIB, 4 * MIB).await;
    });
    println!("{:?}", store.metrics());
    drop(store);
    let began = Instant::now();
    let store = open();
    println!("reopened after a kill in {:?}: {:?}", began.elapsed(), store.recovery());
    store.close().unwrap();
    let began = Instant::now();
    let store = open();
    println!("reopened after close in {:?}", began.elapsed());
    store.close().unwrap();
}
