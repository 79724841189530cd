//! [`BlockStore`]: the parts put together.

use crate::compact::{CompactStep, Compactor};
use crate::config::Config;
use crate::format;
use crate::inspect::Scrubbed;
use crate::lock::{lock, read};
use crate::metrics::{Metrics, add, get};
use crate::prepare::Preparer;
use crate::read::Readers;
use crate::recover::{OpenError, Recovery, recover};
use crate::segment::{DIR, SITE_REMOVE, path_of};
use crate::shared::Shared;
use crate::space::Space;
use crate::writer::{Op, Ready, Request, Writer};
use atoll_base::block::{BlockError, BlockId, BlockService, BlockSpace};
use atoll_base::disk::Disk;
use atoll_base::id::Epoch;
use atoll_base::limits::BLOCK_MAX;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes that one permit of the writer's queue stands for; also what a request counts beside its data.
const QUEUE_UNIT: u64 = 4096;

/// Deletions that count as one unit of the queue.
const DELETES_PER_UNIT: u64 = 64;

/// A local block store. Clones are handles of the same store.
#[derive(Clone)]
pub struct BlockStore(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    readers: Readers,
    compactor: Compactor,
    queue: Arc<Semaphore>,
    queue_units: u32,
    sender: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    recovery: Recovery,
}

impl BlockStore {
    /// Opens the store in the directory `blocks` of `disk`, which is made if it does not exist. Blocks the calling
    /// thread; the disk's root must be locked against other processes by the caller.
    pub fn open(disk: Arc<dyn Disk>, config: Config) -> Result<Self, OpenError> {
        let opening = recover(&*disk, &config)?;
        let space = Space::new(&*disk, &config)?;
        let queue_units = (config.queue_bytes / QUEUE_UNIT).clamp(1, 1 << 20) as u32;
        let shared = Arc::new(Shared::new(disk, config, opening.state, space));
        // Before a segment is made, whose sync of the directory covers this.
        for number in opening.empty {
            shared.disk.remove(&path_of(number))?;
        }
        if !opening.spares.is_empty() {
            // A process may have died before it was durable that they are no segments.
            shared.disk.sync_dir(Path::new(DIR), SITE_REMOVE)?;
            shared.space.spares.find(&*shared.disk, &opening.spares)?;
        }
        let preparer = Preparer::start(shared.clone(), opening.next_segment)?;
        let mut writer = Writer::new(shared.clone(), preparer, opening.next_batch)?;
        writer.begin().map_err(|e| io::Error::other(e.to_string()))?;
        let (sender, inbox) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("block-write".into()).spawn(move || writer.run(&inbox))?;
        Ok(Self(Arc::new(Inner {
            readers: Readers::start(shared.clone())?,
            shared,
            compactor: Compactor::default(),
            queue: Arc::new(Semaphore::new(queue_units as usize)),
            queue_units,
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            recovery: opening.report,
        })))
    }

    /// Finishes what was accepted, seals the current segment so that the next open need not scan it, and ends the
    /// threads. Calls made afterwards fail. Blocks the calling thread; idempotent.
    pub fn close(&self) -> Result<(), BlockError> {
        let result = match self.0.submit(Op::Close, None) {
            Ok(answer) => answer.blocking_recv().unwrap_or_else(|_| Err(closed())),
            Err(_) => Ok(()),
        };
        self.0.stop();
        result
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Like `put`, for blocks that no reservation of the caller covers: fails with `NoSpace` rather than use room
    /// that others reserved.
    pub async fn put_unreserved(&self, blocks: Vec<(BlockId, Bytes)>) -> Result<(), BlockError> {
        let bytes = blocks.iter().map(|(_, b)| b.len() as u64).sum();
        self.reserve(bytes)?;
        let reserved = Reserved { store: self, bytes };
        let result = self.put(blocks).await;
        drop(reserved);
        result
    }

    /// Up to `limit` blocks with ids above `after` (from the first, if `None`) whose epoch is below `epoch_below`,
    /// in order of ids, with their lengths. The collector pages through with the last id it got.
    pub fn list(&self, after: Option<BlockId>, epoch_below: Epoch, limit: usize) -> Vec<(BlockId, u32)> {
        let from = match after {
            None => BlockId(0),
            Some(BlockId(u128::MAX)) => return Vec::new(),
            Some(BlockId(n)) => BlockId(n + 1),
        };
        let state = read(&self.0.shared.state);
        let below = state.index.range_from(from).take_while(|(id, _)| id.0 >> 64 < u128::from(epoch_below.0));
        below.take(limit).map(|(id, place)| (id, place.len)).collect()
    }

    /// Calls `f` with each block whose epoch is below `epoch_below`, in order of ids, without holding a lock
    /// meanwhile: blocks put or deleted during the walk may or may not be seen.
    pub fn for_each_block(&self, epoch_below: Epoch, mut f: impl FnMut(BlockId, u32)) {
        const PAGE: usize = 4096;
        let mut after = None;
        loop {
            let page = self.list(after, epoch_below, PAGE);
            for &(id, len) in &page {
                f(id, len);
            }
            match page.last() {
                Some((id, _)) if page.len() == PAGE => after = Some(*id),
                _ => return,
            }
        }
    }

    /// The length of a block, if it exists.
    pub fn length(&self, id: BlockId) -> Option<u32> {
        Some(self.0.shared.find(id)?.0.len)
    }

    /// Compacts a little: copies up to about `budget` bytes, or removes one segment. For a maintenance thread, which
    /// sets the rate by how often it calls; blocks, and must not be called from async code. Reads and writes go
    /// on meanwhile. A few segments of which blocks were deleted within `quiet` are left alone: if all of them die, nothing
    /// need be copied.
    pub fn compact_step(&self, budget: u64, quiet: Duration) -> Result<CompactStep, BlockError> {
        self.0.compactor.step(&self.0.shared, budget, quiet, |op| {
            self.0.submit(op, None)?.blocking_recv().unwrap_or_else(|_| Err(closed()))
        })
    }

    /// Gives the disk back a little of what was kept of segments that went, and was not used for `age`. Whether there was any. As [`BlockStore::compact_step`].
    pub fn trim_step(&self, age: Duration) -> Result<bool, BlockError> {
        let shared = &self.0.shared;
        if shared.failure().is_some() {
            return Ok(false);
        }
        let given = shared.space.spares.give_back(&*shared.disk, age);
        if !matches!(given, Ok(false)) {
            shared.space.invalidate();
        }
        given.map_err(|e| BlockError::Io { id: BlockId(0), detail: format!("a spare file: {e}").into() })
    }

    /// Verifies blocks against their checksums, from the disk, beginning at `cursor` (`None`: at the first block)
    /// until about `budget` bytes are read. Returns where to go on; `None` when all blocks were seen. Blocks the
    /// calling thread.
    pub fn scrub_step(&self, cursor: Option<BlockId>, budget: u64) -> (Option<BlockId>, Scrubbed) {
        self.0.shared.scrub_step(cursor.unwrap_or(BlockId(0)), budget)
    }

    /// Gives memory back that was for what nobody asked for within `unused`.
    pub fn forget_unused(&self, unused: Duration) {
        self.0.shared.repeated.forget(unused, Instant::now());
    }

    /// Counters and sizes.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.0.shared;
        let c = &shared.counters;
        let state = read(&shared.state);
        let live: u64 = state.segments.values().map(|s| s.live).sum();
        let size: u64 = state.segments.values().map(|s| s.size).sum();
        Metrics {
            blocks: state.index.blocks(),
            live_bytes: state.index.bytes(),
            dead_bytes: size - live,
            segments: state.segments.len() as u64,
            reserved_bytes: shared.space.reserved(),
            reads: get(&c.reads),
            reads_from_cache: get(&c.reads_from_cache),
            hot: shared.hot.status(),
            repeated: shared.repeated.status(),
            ahead: shared.ahead.status(),
            read_bytes: get(&c.read_bytes),
            damaged_reads: get(&c.damaged_reads),
            put_blocks: get(&c.put_blocks),
            put_bytes: get(&c.put_bytes),
            deleted_blocks: get(&c.deleted_blocks),
            writes: get(&c.writes),
            syncs: get(&c.syncs),
            compacted_bytes: get(&c.compacted_bytes),
            removed_segments: get(&c.removed_segments),
            failed: shared.failure().map(|f| f.to_string()),
        }
    }
}

fn closed() -> BlockError {
    BlockError::Failed("the block store is closed".into())
}

/// Gives room back also when the caller's future is dropped.
struct Reserved<'a> {
    store: &'a BlockStore,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.store.release(self.bytes);
    }
}

impl Inner {
    fn submit(
        &self,
        op: Op,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Result<(), BlockError>>, BlockError> {
        let (done, answer) = oneshot::channel();
        let sender = lock(&self.sender);
        let sender = sender.as_ref().ok_or_else(closed)?;
        sender.send(Request { op, done, _room: room }).map_err(|_| closed())?;
        Ok(answer)
    }

    async fn queue(&self, op: Op, bytes: u64) -> Result<(), BlockError> {
        self.shared.check_writable()?;
        let units = bytes.div_ceil(QUEUE_UNIT).clamp(1, u64::from(self.queue_units)) as u32;
        let room = self.queue.clone().acquire_many_owned(units).await.map_err(|_| closed())?;
        let answer = self.submit(op, Some(room))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn stop(&self) {
        *lock(&self.sender) = None;
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        self.shared.space.spares.close();
        self.readers.stop();
    }
}

impl Drop for Inner {
    /// Without [`BlockStore::close`], as after a crash: nothing is sealed, the next open scans the last segment.
    fn drop(&mut self) {
        self.stop();
    }
}

impl BlockService for BlockStore {
    async fn put_parts(&self, blocks: Vec<(BlockId, Vec<Bytes>)>) -> Result<(), BlockError> {
        let shared = &self.0.shared;
        let mut bytes = 0;
        let length = |parts: &[Bytes]| parts.iter().map(Bytes::len).sum::<usize>();
        for (_, parts) in &blocks {
            let len = length(parts);
            assert!((1..=BLOCK_MAX as usize).contains(&len), "a block has 1..=BLOCK_MAX bytes");
            bytes += len as u64;
        }
        let count = blocks.len() as u64;
        shared.check_writable()?;
        shared.space.check_put(&*shared.disk, bytes)?;
        // On the caller's thread: the checksums of many callers are computed side by side, not by the one writer. It copies what
        // is much, and makes the checksums of it meanwhile.
        let sums = bytes < shared.config.direct_bytes;
        let ready = |(id, data): (BlockId, Vec<Bytes>)| {
            let table = sums.then(|| format::crc_table(id, &data));
            Ready { id, len: length(&data) as u32, data, table }
        };
        let ready = blocks.into_iter().map(ready).collect();
        self.0.queue(Op::Put(ready), bytes + count * format::UNIT).await?;
        add(&shared.counters.put_blocks, count);
        add(&shared.counters.put_bytes, bytes);
        Ok(())
    }

    async fn get(&self, id: BlockId, offset: u32, len: u32) -> Result<Bytes, BlockError> {
        self.0.readers.get(id, offset, len).await
    }

    fn expect(&self, pieces: &[(BlockId, u32)]) {
        self.0.readers.expect(pieces);
    }

    async fn delete(&self, ids: Vec<BlockId>) -> Result<(), BlockError> {
        let bytes = (ids.len() as u64).div_ceil(DELETES_PER_UNIT) * QUEUE_UNIT;
        self.0.queue(Op::Delete(ids), bytes).await
    }

    fn reserve(&self, bytes: u64) -> Result<(), BlockError> {
        let shared = &self.0.shared;
        shared.check_writable()?;
        shared.space.reserve(&*shared.disk, bytes)
    }

    fn release(&self, bytes: u64) {
        self.0.shared.space.release(bytes);
    }

    fn space(&self) -> BlockSpace {
        let shared = &self.0.shared;
        shared.space.space(&*shared.disk, shared.live_bytes())
    }
}
