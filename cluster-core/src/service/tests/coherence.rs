//! Readers and writers at once: a read that began after a response never sees anything older, and what one look-up says
//! of a directory and a name in it is of one instant.

use super::*;
use atoll_meta::{FsError, RemoveKind};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const FILES: usize = 24;
const WRITERS: usize = 3;
const READERS: usize = 3;
const CHANGES: usize = 1500;

/// A name that one writer makes and removes in turn. Even counts: it is not there.
struct Toggle {
    dir: Ino,
    started: AtomicU64,
    finished: AtomicU64,
    /// Whether the name was there at each change of the directory.
    history: Mutex<HashMap<u64, bool>>,
}

struct World {
    meta: LocalMetadata,
    files: Vec<(Ino, u32)>,
    /// Newest answered change value of each file.
    newest: Vec<AtomicU64>,
    toggles: Vec<Toggle>,
    over: AtomicBool,
}

impl World {
    async fn found() -> Arc<Self> {
        let mut options = options();
        // So small that entries come and go all the time.
        options.caches = CacheSizes { inodes: 64, names: 64, maps: 64 };
        let meta =
            open(Arc::new(SimDisk::new()), options, Arc::new(SystemClock), Arc::new(|_| {})).await.unwrap();
        let root = root(&meta).await;
        let mut files = Vec::new();
        for i in 0..FILES {
            done(meta.execute(call(create(root, &format!("file{i}")), None)).await);
            let attr = meta.lookup(root, format!("file{i}").as_bytes()).await.unwrap().child.unwrap();
            files.push((attr.ino, attr.generation));
        }
        let mut toggles = Vec::new();
        for i in 0..WRITERS {
            let name = format!("dir{i}");
            let (node, how, attrs) = (NewNode::Directory, CreateHow::Guarded, SetAttr::default());
            let op = Op::Create { dir: root, name: name.clone().into(), node, how, attrs };
            done(meta.execute(call(op, None)).await);
            let attr = meta.lookup(root, name.as_bytes()).await.unwrap().child.unwrap();
            toggles.push(Toggle {
                dir: attr.ino,
                started: AtomicU64::new(0),
                finished: AtomicU64::new(0),
                history: Mutex::new(HashMap::from([(attr.change, false)])),
            });
        }
        let newest = (0..FILES).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { meta, files, newest, toggles, over: AtomicBool::new(false) })
    }

    async fn write(&self, writer: usize) {
        for i in 0..CHANGES {
            let at = (i * 7 + writer * 11) % FILES;
            let (ino, generation) = self.files[at];
            let set = SetAttr { mode: Some((i % 0o777) as u32), ..SetAttr::default() };
            let response =
                done(self.meta.execute(call(Op::SetAttr { ino, generation, set, guard: None }, None)).await);
            self.newest[at].fetch_max(response.changes[0].after.change, Ordering::SeqCst);

            let toggle = &self.toggles[writer];
            let count = toggle.started.fetch_add(1, Ordering::SeqCst) + 1;
            let op = if count.is_multiple_of(2) {
                Op::Remove { dir: toggle.dir, name: "x".into(), kind: RemoveKind::NonDirectory }
            } else {
                create(toggle.dir, "x")
            };
            let response = done(self.meta.execute(call(op, None)).await);
            let change = response.change_of(toggle.dir).unwrap().after.change;
            toggle.history.lock().unwrap().insert(change, !count.is_multiple_of(2));
            toggle.finished.store(count, Ordering::SeqCst);
        }
    }

    /// Reads until the writers are through; returns what look-ups said of each directory.
    async fn read(&self, reader: usize) -> Vec<(usize, u64, bool)> {
        let (mut seen, mut i) = (Vec::new(), reader);
        let mut last = [0; FILES];
        while !self.over.load(Ordering::SeqCst) {
            i += 1;
            let at = i % FILES;
            let floor = self.newest[at].load(Ordering::SeqCst).max(last[at]);
            let attr = self.meta.getattr(self.files[at].0).await.unwrap();
            assert!(attr.change >= floor, "file {at}: {} after {floor}", attr.change);
            last[at] = attr.change;

            let dir = i % WRITERS;
            let toggle = &self.toggles[dir];
            let before = toggle.finished.load(Ordering::SeqCst);
            let found = self.meta.lookup(toggle.dir, b"x").await.unwrap();
            let after = toggle.started.load(Ordering::SeqCst);
            let there = match found.child {
                Ok(_) => true,
                Err(FsError::NotFound) => false,
                Err(error) => panic!("{error}"),
            };
            if before == after {
                assert_eq!(there, !before.is_multiple_of(2), "directory {dir} after {before} changes");
            }
            seen.push((dir, found.dir.change, there));
            if i.is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_are_never_older_than_answers() {
    let world = World::found().await;
    let readers: Vec<_> = (0..READERS)
        .map(|i| {
            let world = world.clone();
            tokio::spawn(async move { world.read(i).await })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|i| {
            let world = world.clone();
            tokio::spawn(async move { world.write(i).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    world.over.store(true, Ordering::SeqCst);
    let mut pairs = 0;
    for reader in readers {
        for (dir, change, there) in reader.await.unwrap() {
            let history = world.toggles[dir].history.lock().unwrap();
            assert_eq!(history.get(&change), Some(&there), "directory {dir} at change {change}");
            pairs += 1;
        }
    }
    let status = world.meta.status();
    assert!(pairs > 1000 && status.caches.inodes.hits > 1000 && status.caches.names.hits > 100, "{status:?}");
    world.meta.stop().await.unwrap();
}
