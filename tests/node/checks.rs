//! `atoll fsck` and `atoll scrub` name what is wrong by its path, and nothing else.

use crate::process::{Server, atoll};
use crate::rig::{Rig, options, pattern};
use atoll::data_dir::DataDir;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::disk::sim::SimDisk;
use atoll_meta::Source;
use atoll_meta::service::MetadataService;
use redb::{ReadableTable, TableDefinition};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MIB: usize = 1 << 20;

/// A data directory with a few files, and no process that uses it.
async fn filled(dir: &Path) -> Vec<Attr> {
    let (data, rig) = open(dir).await;
    let mut files = Vec::new();
    for n in 0..4 {
        let file = rig.create(&format!("file {n}")).await;
        rig.write(&file, 0, &pattern(n, MIB + 5)).await;
        files.push(file);
    }
    let small = rig.create("small").await;
    rig.write_inline(&small, 0, b"in the metadata").await;
    rig.node.close().await.unwrap();
    drop(data);
    files
}

async fn open(dir: &Path) -> (DataDir, Rig) {
    let data = DataDir::open_or_create(dir).unwrap();
    let mut options = options();
    let fitted = atoll::node::Options::for_disk(&data.identity, data.disk.as_ref()).unwrap();
    (options.cluster_id, options.meta, options.blocks) = (fitted.cluster_id, fitted.meta, fitted.blocks);
    let rig = Rig::open_with(data.disk.clone(), options).await;
    (data, rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn rotten_bytes_of_small_files_are_told_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    {
        let (_data, rig) = open(dir.path()).await;
        for n in 0..3 {
            let file = rig.create(&format!("file {n}")).await;
            rig.write_inline(&file, 0, &pattern(n, 6000)).await;
            files.push(file.ino);
        }
        rig.node.close().await.unwrap();
    }
    assert_eq!(fsck(dir.path(), 0), [""; 0]);
    flip(dir.path(), &pattern(1, 6000)[3000..]);
    let found = fsck(dir.path(), 1);
    assert!(found.len() == 1 && found[0].starts_with("root:/file 1: "), "{found:?}");
    let (_data, rig) = open(dir.path()).await;
    assert!(rig.node.meta.map(files[1], 0, 6000).await.is_err(), "never returned as data");
    assert_eq!(rig.try_read(files[2]).await.unwrap(), pattern(2, 6000));
    rig.node.close().await.unwrap();
}

/// Runs fsck; the lines with findings.
fn fsck(dir: &Path, status: i32) -> Vec<String> {
    let done = atoll(&["fsck", dir.to_str().unwrap()]);
    assert_eq!(done.status, Some(status), "{}{}", done.stdout, done.stderr);
    let lines = done
        .stdout
        .lines()
        .filter(|l| l.starts_with("root:") || l.starts_with("block store:") || l.starts_with("metadata:"));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    let summary = done.stdout.lines().last().unwrap();
    assert!(summary.ends_with(&format!("{} problems", lines.len())), "{}", done.stdout);
    lines
}

/// Turns a bit where the segments, or the metadata's large values, hold these bytes.
fn flip(dir: &Path, bytes: &[u8]) {
    let segments = fs::read_dir(dir.join("blocks")).unwrap().map(|entry| entry.unwrap().path());
    for path in segments.chain([dir.join("meta/state/state.values")]) {
        let content = fs::read(&path).unwrap();
        if let Some(at) = content.windows(64).position(|w| w == &bytes[..64]) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[content[at] ^ 0x10], at as u64).unwrap();
            return;
        }
    }
    panic!("no segment holds these bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotten_and_lost_blocks_are_told_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path()).await;
    assert_eq!(fsck(dir.path(), 0), [""; 0]);
    flip(dir.path(), &pattern(1, MIB + 5)[300_000..]);
    let found = fsck(dir.path(), 1);
    assert!(found.len() == 1 && found[0].starts_with("root:/file 1: "), "{found:?}");
    {
        let (_data, rig) = open(dir.path()).await;
        let map = rig.node.meta.map(files[2].ino, 0, 1).await.unwrap();
        let Source::Block { id, .. } = map.extents[0].piece.source else { panic!("{map:?}") };
        rig.node.blocks.delete(vec![id]).await.unwrap();
        assert!(rig.try_read(files[2].ino).await.is_err());
        assert!(rig.try_read(files[1].ino).await.is_err(), "never returned as data");
        rig.node.close().await.unwrap();
    }
    let found = fsck(dir.path(), 1);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().any(|l| l.starts_with("root:/file 2: ") && l.contains("does not exist")),
        "{found:?}"
    );
    // A running server finds the same.
    let server = Server::start(dir.path(), &[]);
    let scrub = atoll(&["scrub", dir.path().to_str().unwrap()]);
    assert_eq!(scrub.status, Some(1), "{}", scrub.stderr);
    assert!(
        scrub.stdout.contains("root:/file 1: ") && scrub.stdout.contains("root:/file 2: "),
        "{}",
        scrub.stdout
    );
    assert!(scrub.stdout.contains(": 2 problems"), "{}", scrub.stdout);
    server.stop();
    // And what is wrong stays wrong: nothing was repaired or removed.
    assert_eq!(fsck(dir.path(), 1).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_metadata_are_told_by_path() {
    const STATE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("state");
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let state = dir.path().join("meta/state/state.redb");
    // The entry that leads to a file goes; its cookie stays.
    {
        let db = redb::Database::open(&state).unwrap();
        let transaction = db.begin_write().unwrap();
        {
            let mut table = transaction.open_table(STATE).unwrap();
            let mut keys = Vec::new();
            for row in table.iter().unwrap() {
                let key = row.unwrap().0.value().to_vec();
                if key.ends_with(b"file 3") {
                    keys.push(key);
                }
            }
            assert_eq!(keys.len(), 1);
            table.remove(&*keys[0]).unwrap();
        }
        transaction.commit().unwrap();
    }
    let found = fsck(dir.path(), 1);
    assert!(!found.is_empty() && found.iter().all(|l| l.starts_with("root:")), "{found:?}");
    println!("{}", found.join("\n"));
    // A record that does not decode.
    {
        let db = redb::Database::open(&state).unwrap();
        let transaction = db.begin_write().unwrap();
        {
            let mut table = transaction.open_table(STATE).unwrap();
            let inode = {
                let row = table.iter().unwrap().map(|r| r.unwrap()).find(|(key, value)| {
                    key.value().len() == 9 && value.value().len() > 40 && key.value()[0] == INODE
                });
                row.unwrap().0.value().to_vec()
            };
            table.insert(&*inode, &b"\0\x01nonsense"[..]).unwrap();
        }
        transaction.commit().unwrap();
    }
    let done = atoll(&["fsck", dir.path().to_str().unwrap()]);
    assert!(matches!(done.status, Some(1 | 2)), "{}{}", done.stdout, done.stderr);
    println!("{}{}", done.stdout, done.stderr);
}

/// The byte that keys of the inode table begin with.
const INODE: u8 = atoll_model::kv::Table::Inode as u8;

/// Files come and go under a scrub, and are overwritten and repacked: no false alarm.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_beside_writers_raises_no_alarm() {
    let rig = Arc::new(Rig::open(Arc::new(SimDisk::new())).await);
    let lasting = rig.create("lasting").await;
    rig.write(&lasting, 0, &pattern(1, 2 * MIB)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (rig, stop) = (rig.clone(), stop.clone());
        async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let name = format!("passing {n}");
                let file = rig.create(&name).await;
                rig.write(&file, 0, &pattern(n, 100_000)).await;
                rig.write_inline(&lasting, n % 500 * 4096, &[n as u8; 4096]).await;
                rig.remove(&name).await;
                rig.collect().await;
                rig.repack().await;
                rig.compact().await;
            }
            n
        }
    });
    for _ in 0..20 {
        assert_eq!(rig.scrub().await, []);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0);
    rig.node.close().await.unwrap();
}
