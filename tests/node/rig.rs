//! A node with small sizes over a directory or a simulated disk, and what tests do with it.

use atoll::maintenance::{self, Pace, Repacker};
use atoll::node::{Line, Node, Options};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::block::{BlockError, BlockService};
use atoll_base::disk::Disk;
use atoll_base::id::{Ino, ROOT_VOLUME};
use atoll_base::limits::BLOCK_MAX;
use atoll_base::time::{Clock, SystemClock, Timestamp};
use atoll_blockstore::{CompactStep, Prepare};
use atoll_meta::service::MetadataService;
use atoll_meta::{Call, CreateHow, FsError, NewNode, Op, Outcome, Piece, RemoveKind, Source};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The system's time, and as much later as a test wants.
#[derive(Default)]
pub(crate) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_nanos(self.0.load(Ordering::Relaxed))
    }
}

pub(crate) struct Rig {
    pub(crate) node: Arc<Node>,
    clock: Arc<TestClock>,
}

pub(crate) fn options() -> Options {
    let mut options = Options::new([3; 16], 1);
    options.maintain = false;
    options.blocks.segment_bytes = 16 << 20;
    options.blocks.prepare = Prepare::Inline;
    options.blocks.reserve_bytes = Some(0);
    options.blocks.space_refresh = Duration::ZERO;
    options.meta.log.segment_bytes = 4 << 20;
    options.meta.maintenance.log_bytes = 8 << 20;
    options.meta.maintenance.log_bytes_max = 16 << 20;
    options.meta.maintenance.reserve_bytes = 0;
    options
}

/// Everything at once: nothing waits for files to be quiet.
pub(crate) fn eager() -> Pace {
    Pace { quiet: Duration::ZERO, walk_every: Duration::ZERO, ..Pace::default() }
}

impl Rig {
    pub(crate) async fn open(disk: Arc<dyn Disk>) -> Self {
        Self::open_with(disk, options()).await
    }

    pub(crate) async fn open_with(disk: Arc<dyn Disk>, options: Options) -> Self {
        let clock = Arc::new(TestClock::default());
        let options = Options { clock: clock.clone(), ..options };
        Self { node: Arc::new(Node::open(disk, options).await.unwrap()), clock }
    }

    /// Lets time pass for all that looks at the node's clock.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(time.as_nanos() as i64, Ordering::Relaxed);
    }

    pub(crate) async fn run(&self, op: Op) -> Result<Outcome, FsError> {
        let origin = Some(self.node.ids.origin());
        self.node
            .meta
            .execute(Call { origin, once: None, cred: Cred::root(), client: None, op })
            .await?
            .result
    }

    pub(crate) async fn root(&self) -> Ino {
        self.node.meta.volume(ROOT_VOLUME).await.unwrap().root
    }

    pub(crate) async fn create(&self, name: &str) -> Attr {
        let (dir, name) = (self.root().await, Bytes::copy_from_slice(name.as_bytes()));
        let attrs = SetAttr { mode: Some(0o644), ..SetAttr::default() };
        let op = Op::Create { dir, name, node: NewNode::Regular, how: CreateHow::Guarded, attrs };
        match self.run(op).await.unwrap() {
            Outcome::Created { attr, .. } => attr,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn remove(&self, name: &str) {
        let (dir, name) = (self.root().await, Bytes::copy_from_slice(name.as_bytes()));
        self.run(Op::Remove { dir, name, kind: RemoveKind::NonDirectory }).await.unwrap();
    }

    pub(crate) async fn truncate(&self, file: &Attr, size: u64) {
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let op = Op::SetAttr { ino: file.ino, generation: file.generation, set, guard: None };
        self.run(op).await.unwrap();
    }

    async fn write_piece(&self, file: &Attr, offset: u64, len: usize, source: Source) {
        let pieces = vec![Piece { offset, len: len as u32, source }];
        let op = Op::Write { ino: file.ino, generation: file.generation, pieces, flush: None };
        self.run(op).await.unwrap();
    }

    /// A small stable write.
    pub(crate) async fn write_inline(&self, file: &Attr, offset: u64, data: &[u8]) {
        self.write_piece(file, offset, data.len(), Source::Inline(Bytes::copy_from_slice(data))).await;
    }

    /// A large write: a block of its own for each aligned 4 MiB.
    pub(crate) async fn write(&self, file: &Attr, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let room = BLOCK_MAX as usize - (offset % u64::from(BLOCK_MAX)) as usize;
            let (part, rest) = data.split_at(room.min(data.len()));
            let id = self.node.ids.next();
            self.node.blocks.put(vec![(id, Bytes::copy_from_slice(part))]).await.unwrap();
            self.write_piece(file, offset, part.len(), Source::Block { id, offset: 0 }).await;
            offset += part.len() as u64;
            data = rest;
        }
    }

    /// The file's bytes, as a server reads them: blocks that went meanwhile are looked up again.
    pub(crate) async fn read(&self, ino: Ino) -> Vec<u8> {
        for _ in 0..100 {
            match self.try_read(ino).await {
                Ok(data) => return data,
                Err(BlockError::Missing(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a file of blocks that do not exist");
    }

    pub(crate) async fn try_read(&self, ino: Ino) -> Result<Vec<u8>, BlockError> {
        let mut data = vec![0; self.node.meta.getattr(ino).await.unwrap().size as usize];
        let mut at = 0;
        while at < data.len() as u64 {
            let map = self.node.meta.map(ino, at, data.len() as u64 - at).await.unwrap();
            for extent in &map.extents {
                let (from, len) = (extent.piece.offset as usize, extent.piece.len);
                let bytes = match &extent.piece.source {
                    Source::Inline(bytes) => bytes.clone(),
                    Source::Block { id, offset } => self.node.blocks.get(*id, *offset, len).await?,
                };
                data[from..from + len as usize].copy_from_slice(&bytes);
            }
            at = map.complete_to.min(data.len() as u64);
        }
        Ok(data)
    }

    /// The bytes of one extent.
    pub(crate) async fn read_extent(&self, extent: &atoll_meta::data::Extent) -> Bytes {
        match &extent.piece.source {
            Source::Inline(bytes) => bytes.clone(),
            Source::Block { id, offset } => {
                self.node.blocks.get(*id, *offset, extent.piece.len).await.unwrap()
            }
        }
    }

    /// All extents of a file: offset, length, whether inline.
    pub(crate) async fn extents(&self, ino: Ino) -> Vec<(u64, u64, bool)> {
        let size = self.node.meta.getattr(ino).await.unwrap().size;
        let (mut at, mut all) = (0, Vec::new());
        while at < size {
            let map = self.node.meta.map(ino, at, size - at).await.unwrap();
            let row = |e: &atoll_meta::data::Extent| {
                (e.piece.offset, u64::from(e.piece.len), matches!(e.piece.source, Source::Inline(_)))
            };
            all.extend(map.extents.iter().map(row));
            at = map.complete_to;
        }
        all
    }

    /// Collects until nothing is left, a while after everything else.
    pub(crate) async fn collect(&self) -> usize {
        self.pass(Duration::from_secs(2));
        let mut all = 0;
        loop {
            match maintenance::collect(&self.node.meta, &self.node.blocks).await.unwrap() {
                0 => return all,
                some => all += some,
            }
        }
    }

    /// Compacts until nothing is worth it.
    pub(crate) async fn compact(&self) {
        let store = self.node.blocks.clone();
        tokio::task::spawn_blocking(move || {
            while !matches!(store.compact_step(16 << 20, Duration::ZERO).unwrap(), CompactStep::Idle) {}
            while store.trim_step(Duration::ZERO).unwrap() {}
        })
        .await
        .unwrap();
    }

    /// Repacks until a few rounds in a row find nothing to do; returns the windows rewritten.
    pub(crate) async fn repack(&self) -> u64 {
        let mut repacker = Repacker::new(self.node.ids.clone(), eager());
        let (mut rewritten, mut idle) = (0, 0);
        while idle < 4 {
            let round = repacker.round(&self.node.meta, &self.node.blocks).await.unwrap();
            idle = if round.rewritten == 0 { idle + 1 } else { 0 };
            rewritten += round.rewritten;
        }
        rewritten
    }

    /// What a scrub finds: place and fault.
    pub(crate) async fn scrub(&self) -> Vec<(String, String)> {
        let (lines, mut received) = tokio::sync::mpsc::channel(8);
        let node = self.node.clone();
        let scrub = tokio::spawn(async move { node.scrub(lines).await });
        let mut found = Vec::new();
        let mut ended = false;
        while let Some(line) = received.recv().await {
            match line {
                Line::Finding(f) => found.push((f.place, f.what)),
                Line::Summary(s) => {
                    assert_eq!(s.findings, found.len() as u64);
                    ended = true;
                }
                Line::Stopped(why) => panic!("{why}"),
            }
        }
        scrub.await.unwrap();
        assert!(ended);
        found
    }
}

/// Bytes that depend on a seed and on where they are.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut data = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}
