//! Reading blocks: always with the record's header and the checksums of every chunk that is touched.
//!
//! First from memory: small reads from what is [hot](crate::hot), large ones from what was [asked for repeatedly](crate::repeated). Then from the page cache on the caller's thread (no hand-over to another
//! thread, which costs more than a small read itself); what is not there goes to a small pool of threads that may wait for
//! the disk. Of streams, those threads read blocks [ahead](crate::ahead).

use crate::ahead::{Found, READ_MIN, Run};
use crate::buffers::{Buffer, Buffers};
use crate::format::{self, CHUNK, Header, Kind, UNIT, area_len};
use crate::hot::Hot;
use crate::index::Place;
use crate::lock::{lock, read};
use crate::metrics::add;
use crate::repeated::Repeated;
use crate::shared::Shared;
use crate::warm::Loan;
use atoll_base::block::{BlockError, BlockId};
use atoll_base::disk::File;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{Semaphore, oneshot};

/// Longest read that is tried on the caller's thread: copying and verifying 1 MiB takes about as long as two changes
/// of thread under load.
const INLINE_MAX: u32 = 1 << 20;

/// If the wanted chunks start within so many bytes of the header, both are fetched by one read.
const JOIN_MAX: usize = 8 << 10;

/// How often a reader follows a block that compaction moved under its feet before it gives up.
const CHASES: usize = 100;

/// Where bytes may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    PageCache,
    Disk,
}

fn damaged(id: BlockId, offset: usize, detail: impl Into<String>) -> BlockError {
    BlockError::Damaged { id, offset: offset as u64, detail: detail.into() }
}

/// Fills `buf`; `Ok(false)` if the page cache alone cannot.
fn fill(file: &dyn File, source: Source, buf: &mut [u8], offset: u64) -> io::Result<bool> {
    match source {
        Source::PageCache => Ok(file.read_cached_at(buf, offset)? == Some(buf.len())),
        Source::Disk => atoll_base::disk::read_exact_at(file, buf, offset).map(|()| true),
    }
}

fn read_error(id: BlockId, offset: usize, e: io::Error) -> BlockError {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        damaged(id, offset, "the segment file ends before it")
    } else {
        BlockError::Io { id, detail: e.to_string().into() }
    }
}

fn check_header(id: BlockId, place: Place, salt: u64, area: &[u8], at: usize) -> Result<(), BlockError> {
    let header = Header::decode(area, Some(salt), place.units).map_err(|e| damaged(id, at, e.to_string()))?;
    if header.kind == Kind::Block && header.id == id && header.len == place.len {
        Ok(())
    } else {
        Err(damaged(id, at, "the record is another block's"))
    }
}

/// Where bytes are put that a read finds.
#[derive(Clone, Copy)]
struct Memory<'m> {
    buffers: &'m Buffers,
    hot: &'m Hot,
    repeated: &'m Repeated,
}

impl Memory<'_> {
    /// The answer to a read: `range` of the block, which begins in `buffer` at `at`.
    fn answer(self, buffer: Buffer, at: usize, source: Source, id: BlockId, range: Range<usize>) -> Bytes {
        let held = buffer.held();
        let bytes = buffer.into_bytes().slice(at..at + range.len());
        // From the disk it came for the first time in a while.
        if source == Source::PageCache {
            self.repeated.keep(id, range.start as u32, &bytes, held, Instant::now());
        }
        bytes
    }
}

/// Reads a range of one block's record at a known place.
fn read_at(
    file: &dyn File,
    memory: Memory<'_>,
    source: Source,
    id: BlockId,
    place: Place,
    salt: u64,
    range: Range<usize>,
) -> Result<Option<Bytes>, BlockError> {
    let area_len = area_len(place.len);
    let record = u64::from(place.units) * UNIT;
    let first = range.start / CHUNK;
    let from = first * CHUNK;
    let to = range.end.next_multiple_of(CHUNK).min(place.len as usize);
    let damage = |n: usize| damaged(id, n * CHUNK, "the checksum of the chunk does not match");
    let io = |e| read_error(id, from, e);
    if from <= JOIN_MAX {
        let mut buf = memory.buffers.get(area_len + to);
        if !fill(file, source, buf.as_mut(), record).map_err(io)? {
            return Ok(None);
        }
        let (area, payload) = buf.as_ref().split_at(area_len);
        check_header(id, place, salt, area, from)?;
        let table = format::table_of(area, place.len);
        format::verify_chunks(id, table, first, &payload[from..]).map_err(damage)?;
        memory.hot.keep(id, &range, &payload[from..]);
        return Ok(Some(memory.answer(buf, area_len + range.start, source, id, range)));
    }
    let mut area = vec![0; area_len];
    let mut data = memory.buffers.get(to - from);
    if !fill(file, source, &mut area, record).map_err(io)?
        || !fill(file, source, data.as_mut(), record + area_len as u64 + from as u64).map_err(io)?
    {
        return Ok(None);
    }
    check_header(id, place, salt, &area, from)?;
    format::verify_chunks(id, format::table_of(&area, place.len), first, data.as_ref()).map_err(damage)?;
    memory.hot.keep(id, &range, data.as_ref());
    Ok(Some(memory.answer(data, range.start - from, source, id, range)))
}

impl Shared {
    /// Where a block is, and the salt of that segment.
    pub(crate) fn find(&self, id: BlockId) -> Option<(Place, u64)> {
        let state = read(&self.state);
        let place = state.index.get(id)?;
        Some((place, state.segments.get(&place.segment).expect("a block's segment is known").salt))
    }

    fn read_block(
        &self,
        source: Source,
        id: BlockId,
        offset: u32,
        len: u32,
    ) -> Result<Option<Bytes>, BlockError> {
        for _ in 0..CHASES {
            let (place, salt) = self.find(id).ok_or(BlockError::Missing(id))?;
            let range = offset as usize..offset as usize + len as usize;
            if range.end > place.len as usize {
                return Err(damaged(id, range.start, format!("the block is only {} bytes long", place.len)));
            }
            if range.is_empty() {
                return Ok(Some(Bytes::new()));
            }
            if let Some(bytes) = self.hot.get(id, range.clone()) {
                return Ok(Some(bytes));
            }
            if let Some(bytes) = self.repeated.get(id, offset, range.len(), Instant::now()) {
                return Ok(Some(bytes));
            }
            let file = match self.files.get(&*self.disk, place.segment) {
                Ok(file) => file,
                // Compaction moved the block and removed the segment between the two looks.
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.find(id) != Some((place, salt)) => {
                    continue;
                }
                Err(e) => return Err(BlockError::Io { id, detail: e.to_string().into() }),
            };
            let memory = Memory { buffers: &self.buffers, hot: &self.hot, repeated: &self.repeated };
            let result = read_at(&*file, memory, source, id, place, salt, range);
            // The file may be another segment by now.
            if result.is_err() && self.find(id) != Some((place, salt)) {
                continue;
            }
            if matches!(result, Err(BlockError::Damaged { .. })) {
                add(&self.counters.damaged_reads, 1);
            }
            return result;
        }
        Err(BlockError::Io { id, detail: "the block keeps moving".into() })
    }

    /// Reads the records of a run past the page cache into `memory`; gives each block's payload that is as it should be.
    fn read_run(&self, run: &Run, mut memory: Loan) -> io::Result<impl Iterator<Item = (BlockId, Bytes)>> {
        let range = run.range();
        let file = self.files.get(&*self.disk, run.blocks[0].1.segment)?;
        // Less at the end of the file: then the last record has to be whole, which its checksums tell.
        let len = (range.end - range.start) as usize;
        let len = file.read_direct_at(&mut memory.as_mut()[..len], range.start)?;
        let bytes = memory.into_bytes();
        Ok(run.blocks.iter().filter_map(move |&(id, place, _)| {
            let at = (u64::from(place.units) * UNIT - range.start) as usize;
            let (head, size) = (area_len(place.len), place.len as usize);
            let record = bytes[..len].get(at..at + head + size)?;
            let (area, payload) = record.split_at(head);
            check_header(id, place, run.salt, area, 0).ok()?;
            format::verify_chunks(id, format::table_of(area, place.len), 0, payload).ok()?;
            Some((id, bytes.slice(at + head..at + head + size)))
        }))
    }

    /// Reads the whole of a block as it is at `place`, with its table of checksums, from the disk.
    pub(crate) fn read_record(
        &self,
        id: BlockId,
        place: Place,
        salt: u64,
    ) -> Result<(Bytes, Vec<u8>), BlockError> {
        let io = |e: io::Error| BlockError::Io { id, detail: e.to_string().into() };
        let file = self.files.get(&*self.disk, place.segment).map_err(io)?;
        let area_len = area_len(place.len);
        let mut buf = vec![0; area_len + place.len as usize];
        fill(&*file, Source::Disk, &mut buf, u64::from(place.units) * UNIT)
            .map_err(|e| read_error(id, 0, e))?;
        check_header(id, place, salt, &buf[..area_len], 0)?;
        let table = format::table_of(&buf[..area_len], place.len).to_vec();
        format::verify_chunks(id, &table, 0, &buf[area_len..])
            .map_err(|n| damaged(id, n * CHUNK, "the checksum of the chunk does not match"))?;
        Ok((Bytes::from(buf).slice(area_len..), table))
    }
}

struct Job {
    id: BlockId,
    offset: u32,
    len: u32,
    done: oneshot::Sender<Result<Bytes, BlockError>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What is to be read ahead, when there are no jobs. Bounded by the memory that [`Ahead`] has.
    ahead: VecDeque<Promise>,
    closed: bool,
}

/// The reading threads and their queue, bounded by a semaphore.
pub(crate) struct Readers {
    shared: Arc<Shared>,
    queue: Arc<(Mutex<Queue>, Condvar)>,
    slots: Semaphore,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn closed(id: BlockId) -> BlockError {
    BlockError::Io { id, detail: "the block store is closed".into() }
}

impl Readers {
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let queue: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let readers = Self {
            slots: Semaphore::new(shared.config.read_queue.max(1)),
            shared,
            queue,
            threads: Mutex::default(),
        };
        for n in 0..readers.shared.config.read_threads.max(1) {
            let (shared, queue) = (readers.shared.clone(), readers.queue.clone());
            let thread = std::thread::Builder::new()
                .name(format!("block-read-{n}"))
                .spawn(move || serve(&shared, &queue));
            match thread {
                Ok(thread) => lock(&readers.threads).push(thread),
                Err(e) => {
                    readers.stop();
                    return Err(e);
                }
            }
        }
        Ok(readers)
    }

    /// Has blocks read ahead, as far as there is room and sense in it.
    pub(crate) fn expect(&self, pieces: &[(BlockId, u32)]) {
        let mut run = Run::default();
        for &(id, expected) in pieces {
            let Some((place, salt)) = self.shared.find(id) else { continue };
            if !self.shared.ahead.wants(id, place.len, expected) {
                continue;
            }
            if !run.add(id, place, salt, expected) {
                self.read_ahead(std::mem::take(&mut run));
                run.add(id, place, salt, expected);
            }
        }
        self.read_ahead(run);
    }

    fn read_ahead(&self, run: Run) {
        if run.blocks.is_empty() {
            return;
        }
        let Some(memory) = self.shared.ahead.begin(&run, Instant::now()) else { return };
        let promise = Promise { shared: self.shared.clone(), run, memory: Some(memory) };
        let mut queue = lock(&self.queue.0);
        if !queue.closed {
            queue.ahead.push_back(promise);
            drop(queue);
            self.queue.1.notify_one();
        }
    }

    /// A range that was read ahead, or is being.
    async fn get_ahead(&self, id: BlockId, offset: u32, len: u32) -> Option<Bytes> {
        let range = offset as usize..offset as usize + len as usize;
        loop {
            match self.shared.ahead.take(id, range.clone()) {
                // A block that was deleted meanwhile is no longer there for anybody.
                Found::Bytes(bytes) => return self.shared.find(id).map(|_| bytes),
                Found::Soon(soon) => drop(soon.await),
                Found::Nothing => return None,
            }
        }
    }

    pub(crate) async fn get(&self, id: BlockId, offset: u32, len: u32) -> Result<Bytes, BlockError> {
        let counters = &self.shared.counters;
        if let Some(bytes) = self.get_ahead(id, offset, len).await {
            add(&counters.reads, 1);
            add(&counters.read_bytes, u64::from(len));
            self.shared.ahead.saw(id);
            return Ok(bytes);
        }
        if len >= READ_MIN {
            self.shared.ahead.saw(id);
        }
        if len <= INLINE_MAX
            && let Some(bytes) = self.shared.read_block(Source::PageCache, id, offset, len)?
        {
            add(&counters.reads, 1);
            add(&counters.reads_from_cache, 1);
            add(&counters.read_bytes, u64::from(len));
            return Ok(bytes);
        }
        let _slot = self.slots.acquire().await.map_err(|_| closed(id))?;
        let (done, answer) = oneshot::channel();
        {
            let mut queue = lock(&self.queue.0);
            if queue.closed {
                return Err(closed(id));
            }
            queue.jobs.push_back(Job { id, offset, len, done });
        }
        self.queue.1.notify_one();
        let result = answer.await.unwrap_or_else(|_| Err(closed(id)));
        add(&counters.reads, 1);
        if result.is_ok() {
            add(&counters.read_bytes, u64::from(len));
        }
        result
    }

    /// Answers what is queued and ends the threads.
    pub(crate) fn stop(&self) {
        lock(&self.queue.0).closed = true;
        self.queue.1.notify_all();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

/// A run that is to be read ahead. Whoever waits for its blocks is told in the end, also if they cannot be read, or nobody reads them.
struct Promise {
    shared: Arc<Shared>,
    run: Run,
    memory: Option<Loan>,
}

impl Promise {
    fn keep(mut self) {
        let Some(memory) = self.memory.take() else { return };
        // A failure is found again, told and counted by whoever asks for the block.
        if let Ok(payloads) = self.shared.read_run(&self.run, memory) {
            payloads.for_each(|(id, payload)| self.shared.ahead.finish(id, payload, Instant::now()));
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        for (id, ..) in &self.run.blocks {
            self.shared.ahead.give_up(*id);
        }
    }
}

fn serve(shared: &Shared, queue: &(Mutex<Queue>, Condvar)) {
    loop {
        let job = {
            let mut guard = lock(&queue.0);
            loop {
                if let Some(job) = guard.jobs.pop_front() {
                    break job;
                }
                if let Some(promise) = guard.ahead.pop_front() {
                    let closed = guard.closed;
                    drop(guard);
                    if !closed {
                        promise.keep();
                    }
                    guard = lock(&queue.0);
                    continue;
                }
                if guard.closed {
                    return;
                }
                guard = queue.1.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        };
        if job.done.is_closed() {
            continue;
        }
        let result = shared
            .read_block(Source::Disk, job.id, job.offset, job.len)
            .map(|bytes| bytes.expect("the disk always has an answer"));
        let _ = job.done.send(result);
    }
}
