//! The writer: one thread that owns the current segment and appends to it.
//!
//! It takes what has gathered in its queue, lays out one *frame* (records side by side), syncs it once, enters it in the
//! index and answers. Nothing is acknowledged or visible to readers before its sync. A frame is one batch and lies in one
//! segment. A small one is written by one vectored write straight from the callers' buffers, behind the one before; a
//! large one past the page cache ([`crate::staging`]), from an aligned position to an aligned position.
//!
//! A write that fails for lack of room (segments are preallocated, so hardly ever) is answered `NoSpace`, and the
//! segment is sealed at once: its synced footer ends before the bytes of that write. If they stayed, torn records of
//! a batch that is no longer the highest could be found there. Any other failure of a write, sync or segment's making
//! ends all writing ([`Shared::fail`]).

use crate::format::{self, BlockEntry, Header, Kind, TOMBSTONES_MAX, Tombstone, UNIT, record_len};
use crate::index::Place;
use crate::lock::{read, write};
use crate::metrics::add;
use crate::prepare::{Preparer, put_room};
use crate::segment::{self, Fresh, SITE_APPEND, SITE_SEAL};
use crate::shared::Shared;
use crate::space::Purpose;
use crate::staging::{Staging, align};
use crate::state::SegmentState;
use atoll_base::block::{BlockError, BlockId};
use atoll_base::disk::DIRECT_ALIGN;
use bytes::Bytes;
use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::iter::once;
use std::sync::{Arc, mpsc};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Zeros to pad payloads and pages with.
static ZEROS: [u8; DIRECT_ALIGN] = [0; DIRECT_ALIGN];

/// A block ready to be written.
pub(crate) struct Ready {
    pub(crate) id: BlockId,
    pub(crate) len: u32,
    /// Its bytes, in parts.
    pub(crate) data: Vec<Bytes>,
    /// Its checksums, unless they are made when it is laid out.
    pub(crate) table: Option<Vec<u8>>,
}

/// What the writer is asked to do.
pub(crate) enum Op {
    Put(Vec<Ready>),
    Delete(Vec<BlockId>),
    /// Copies of blocks, each of which counts only if the block is still at the place it was copied from.
    Move(Vec<(Place, Ready)>),
    /// Tombstones carried over from a segment that is about to go.
    Bury(Vec<Tombstone>),
    /// The last op: seals the current segment.
    Close,
}

pub(crate) type Answer = oneshot::Sender<Result<(), BlockError>>;

pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) done: Answer,
    /// The bytes that the request holds in the queue; returned when the request is dropped.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

impl Request {
    fn bytes(&self) -> u64 {
        match &self.op {
            Op::Put(blocks) => blocks.iter().map(|b| u64::from(b.len)).sum(),
            Op::Move(blocks) => blocks.iter().map(|(_, b)| u64::from(b.len)).sum(),
            Op::Delete(_) | Op::Bury(_) | Op::Close => 0,
        }
    }
}

struct Active {
    number: u32,
    fresh: Fresh,
    /// Where the next frame goes. A multiple of the unit.
    tail: u64,
    blocks: Vec<BlockEntry>,
    tombstones: Vec<Tombstone>,
}

impl Active {
    /// Bytes that sealing appends once this frame is written.
    fn seal_len(&self, frame: &Frame) -> u64 {
        let former = self.blocks.len() + self.tombstones.len();
        format::seal_len(former + frame.blocks.len() + frame.tombstones.len())
    }
}

enum Effect {
    Put(BlockId, Place),
    Delete(BlockId),
}

/// A record of a frame.
pub(crate) struct Record {
    pub(crate) header: Header,
    /// As in [`Ready`].
    pub(crate) table: Option<Vec<u8>>,
    pub(crate) data: Vec<Bytes>,
}

impl Record {
    fn area(&self) -> Vec<u8> {
        match &self.table {
            Some(table) => self.header.encode(table),
            None => self.header.encode(&format::crc_table(self.header.id, &self.data)),
        }
    }
}

/// Positions are relative to the frame's until it is written.
#[derive(Default)]
struct Frame {
    records: Vec<Record>,
    bytes: u64,
    blocks: Vec<BlockEntry>,
    effects: Vec<Effect>,
    /// Go into one record at the end of the frame.
    tombstones: Vec<Tombstone>,
    /// Blocks whose index entries the frame will change.
    touched: HashSet<BlockId>,
}

impl Frame {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.tombstones.is_empty()
    }

    /// Puts the frame at its place in the segment.
    fn place(&mut self, units: u32) {
        self.records.iter_mut().for_each(|r| r.header.units += units);
        self.blocks.iter_mut().for_each(|b| b.units += units);
        for effect in &mut self.effects {
            match effect {
                Effect::Put(_, place) => place.units += units,
                Effect::Delete(_) => {}
            }
        }
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    preparer: Preparer,
    active: Option<Active>,
    /// Number of the next batch.
    batch: u64,
    frame: Frame,
    staging: Staging,
    /// Requests that are wholly in flushed frames and the current one. They are kept until the answer, so that
    /// the queue's bound counts them.
    waiting: Vec<(Answer, Option<OwnedSemaphorePermit>)>,
}

impl Writer {
    /// A writer that continues after batch `batch - 1`, with no current segment yet.
    pub(crate) fn new(shared: Arc<Shared>, preparer: Preparer, batch: u64) -> io::Result<Self> {
        let (frame, staging, waiting) =
            (Frame::default(), Staging::start(shared.config.stage_bytes)?, Vec::new());
        Ok(Self { shared, preparer, active: None, batch, frame, staging, waiting })
    }

    /// Makes the first segment. With no room for one, the store opens for reading all the same.
    pub(crate) fn begin(&mut self) -> Result<(), BlockError> {
        match self.roll(Purpose::Put, 0) {
            Err(BlockError::NoSpace) => match self.roll(Purpose::Upkeep, 0) {
                Err(BlockError::NoSpace) => Ok(()),
                other => other,
            },
            other => other,
        }
    }

    /// Serves until told to close, or until all senders are gone (then without sealing).
    pub(crate) fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        while let Ok(first) = inbox.recv() {
            let mut closing = None;
            let mut gathered = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                gathered += request.bytes();
                if matches!(request.op, Op::Close) {
                    closing = Some(request.done);
                    break;
                }
                self.handle(request);
                next = if gathered < self.shared.config.batch_bytes { inbox.try_recv().ok() } else { None };
            }
            // On failure everybody who waits has been told.
            let _ = self.flush();
            if let Some(done) = closing {
                let result = self.seal(true);
                self.preparer.stop();
                let _ = done.send(result);
                return;
            }
        }
        self.preparer.stop();
    }

    fn handle(&mut self, request: Request) {
        let Request { op, done, _room } = request;
        let result = self.shared.check_writable().and_then(|()| match op {
            Op::Put(blocks) => blocks.into_iter().try_for_each(|b| self.append(b, Purpose::Put)),
            Op::Delete(ids) => ids.into_iter().try_for_each(|id| self.delete(id)),
            Op::Move(blocks) => blocks.into_iter().try_for_each(|(from, b)| self.copy(from, b)),
            Op::Bury(tombstones) => tombstones.into_iter().try_for_each(|t| self.bury(&[t])),
            Op::Close => unreachable!("the caller keeps it back"),
        });
        match result {
            Ok(()) => self.waiting.push((done, _room)),
            Err(e) => {
                let _ = done.send(Err(e));
            }
        }
    }

    fn append(&mut self, block: Ready, purpose: Purpose) -> Result<(), BlockError> {
        let len = block.len;
        self.room_for(record_len(len), 1, 0, purpose)?;
        let active = self.active.as_ref().expect("room was made in it");
        let units = (self.frame.bytes / UNIT) as u32;
        let place = Place { segment: active.number, units, len };
        let salt = active.fresh.header.salt;
        self.frame.effects.push(Effect::Put(block.id, place));
        self.frame.touched.insert(block.id);
        self.frame.blocks.push(BlockEntry { id: block.id, units, len });
        self.lay(Kind::Block, salt, block);
        Ok(())
    }

    fn lay(&mut self, kind: Kind, salt: u64, block: Ready) {
        let len = block.len;
        let units = (self.frame.bytes / UNIT) as u32;
        let header = Header { kind, salt, id: block.id, len, batch: self.batch, units };
        self.frame.records.push(Record { header, table: block.table, data: block.data });
        self.frame.bytes += record_len(len);
    }

    fn delete(&mut self, id: BlockId) -> Result<(), BlockError> {
        self.settle(id)?;
        let tombstones = read(&self.shared.state).tombstones(id);
        if tombstones.is_empty() {
            return Ok(());
        }
        self.bury(&tombstones)?;
        self.frame.touched.insert(id);
        self.frame.effects.push(Effect::Delete(id));
        Ok(())
    }

    fn copy(&mut self, from: Place, block: Ready) -> Result<(), BlockError> {
        self.settle(block.id)?;
        if read(&self.shared.state).index.get(block.id) != Some(from) {
            return Ok(());
        }
        let bytes = u64::from(block.len);
        self.append(block, Purpose::Upkeep)?;
        add(&self.shared.counters.compacted_bytes, bytes);
        Ok(())
    }

    /// Flushes if the frame is about to change what the index says of this block.
    fn settle(&mut self, id: BlockId) -> Result<(), BlockError> {
        if self.frame.touched.contains(&id) { self.flush() } else { Ok(()) }
    }

    fn bury(&mut self, tombstones: &[Tombstone]) -> Result<(), BlockError> {
        if self.frame.tombstones.len() + tombstones.len() > TOMBSTONES_MAX {
            self.flush()?;
        }
        self.room_for(0, 0, tombstones.len(), Purpose::Upkeep)?;
        self.frame.tombstones.extend_from_slice(tombstones);
        Ok(())
    }

    /// Bytes that the current segment must have from its tail on, to take the frame with so much more.
    fn wanted(&self, active: Option<&Active>, record: u64, blocks: usize, tombstones: usize) -> u64 {
        let entries = active.map_or(0, |a| a.blocks.len() + a.tombstones.len());
        let buried = self.frame.tombstones.len() + tombstones;
        let grave = if buried == 0 { 0 } else { record_len((buried * format::ENTRY) as u32) };
        self.frame.bytes
            + record
            + grave
            + format::seal_len(entries + self.frame.blocks.len() + blocks + buried)
    }

    /// Makes room in the current segment for one more record, by going over to a new one if need be.
    fn room_for(
        &mut self,
        record: u64,
        blocks: usize,
        tombstones: usize,
        purpose: Purpose,
    ) -> Result<(), BlockError> {
        let fits = |w: &Self| {
            w.active.as_ref().is_some_and(|a| {
                let limit = match purpose {
                    Purpose::Put => put_room(a.fresh.capacity),
                    Purpose::Upkeep => a.fresh.capacity,
                };
                a.tail + w.wanted(Some(a), record, blocks, tombstones) <= limit
            })
        };
        if !fits(self) {
            self.flush()?;
            // Room beside the part that is kept for upkeep, whose share of the whole is below 1/8.
            let need = (UNIT + self.wanted(None, record, blocks, tombstones)) * 8 / 7;
            self.roll(purpose, need.next_multiple_of(UNIT))?;
            assert!(fits(self), "a new segment takes at least the record it was made for");
        }
        Ok(())
    }

    /// Goes over to a new segment of at least `need` bytes. On failure the current one stays.
    fn roll(&mut self, purpose: Purpose, need: u64) -> Result<(), BlockError> {
        let fresh = self.preparer.take(purpose, need)?;
        self.seal(true)?;
        let number = fresh.header.segment;
        let state = SegmentState { salt: fresh.header.salt, size: fresh.capacity, ..SegmentState::default() };
        write(&self.shared.state).segments.insert(number, state);
        self.active = Some(Active { number, fresh, tail: UNIT, blocks: Vec::new(), tombstones: Vec::new() });
        self.show_room();
        Ok(())
    }

    /// Writes the footer of the current segment, if there is one, durably, and lets go of it.
    /// `clean`: no write after the last acknowledged one was begun.
    fn seal(&mut self, clean: bool) -> Result<(), BlockError> {
        self.shared.check_writable()?;
        let Some(a) = self.active.take() else { return Ok(()) };
        let file = &*a.fresh.file;
        // The highest number used so far, so that any higher one proves that this footer was synced.
        let batch = self.batch - 1;
        let sealed = segment::seal(file, &a.fresh.header, a.tail, batch, &a.blocks, &a.tombstones);
        let size = match sealed {
            Ok(end) => end,
            // Without a footer the segment is scanned at the next open; that is enough if all behind the tail is
            // zeros, another salt's records or a torn footer.
            Err(e) if segment::is_full(&e) && clean => a.fresh.capacity,
            Err(e) => return Err(self.shared.fail("sealing a segment", &e)),
        };
        file.sync(SITE_SEAL).map_err(|e| self.shared.fail("syncing a sealed segment", &e))?;
        let mut state = write(&self.shared.state);
        let segment = state.segments.get_mut(&a.number).expect("the current segment is known");
        segment.size = size;
        segment.sealed = true;
        drop(state);
        self.shared.space.set_current_room(0);
        self.shared.space.invalidate();
        Ok(())
    }

    fn show_room(&self) {
        let room = self.active.as_ref().map_or(0, |a| {
            let used = a.tail + format::seal_len(a.blocks.len() + a.tombstones.len());
            put_room(a.fresh.capacity).saturating_sub(used)
        });
        self.shared.space.set_current_room(room);
    }

    /// Writes and syncs the frame, makes it visible, and answers all who wait.
    fn flush(&mut self) -> Result<(), BlockError> {
        let result = if self.frame.is_empty() { Ok(()) } else { self.write_frame() };
        for (done, _room) in self.waiting.drain(..) {
            let _ = done.send(result.clone());
        }
        result
    }

    fn write_frame(&mut self) -> Result<(), BlockError> {
        self.shared.check_writable()?;
        let active = self.active.as_ref().expect("a frame is laid out in a segment");
        if !self.frame.tombstones.is_empty() {
            let salt = active.fresh.header.salt;
            let data = Bytes::from(format::encode_tombstones(&self.frame.tombstones));
            let (id, len) = (BlockId(0), data.len() as u32);
            self.lay(Kind::Tombstones, salt, Ready { id, len, data: vec![data], table: None });
        }
        let mut frame = std::mem::take(&mut self.frame);
        self.batch += 1;
        let active = self.active.as_mut().expect("a frame is laid out in a segment");
        // What alignment adds is not promised to anybody: where there is no room for it, it is left out.
        let aligned = align(active.tail)..align(align(active.tail) + frame.bytes);
        let (capacity, seal) = (active.fresh.capacity, active.seal_len(&frame));
        let for_puts = active.tail + frame.bytes + seal <= put_room(capacity);
        let limit = if for_puts { put_room(capacity) } else { capacity };
        let large = frame.bytes >= self.shared.config.direct_bytes && aligned.end + seal <= limit;
        let (begin, end) =
            if large { (aligned.start, aligned.end) } else { (active.tail, active.tail + frame.bytes) };
        frame.place((begin / UNIT) as u32);
        add(&self.shared.counters.writes, 1);
        let file = &active.fresh.file;
        let written = if large {
            self.staging.write(file, begin, frame.records.iter())
        } else {
            // Former records would pass for damaged ones before an aligned batch, and of a page that is written in part the rest would be read.
            let behind = match active.fresh.is_reused {
                true => align(end).min(capacity - UNIT).saturating_sub(end),
                false => 0,
            };
            let areas: Vec<_> = frame.records.iter().map(Record::area).collect();
            let parts = areas.iter().zip(&frame.records).flat_map(|(area, r)| {
                let data = r.data.iter().map(|part| &part[..]);
                once(&area[..]).chain(data).chain(once(&ZEROS[..format::padding(r.header.len)]))
            });
            let parts = parts.chain(once(&ZEROS[..behind as usize]));
            file.write_at(&parts.filter(|p| !p.is_empty()).map(IoSlice::new).collect::<Vec<_>>(), begin)
        };
        if let Err(e) = written {
            if segment::is_full(&e) {
                self.seal(false)?;
                return Err(BlockError::NoSpace);
            }
            return Err(self.shared.fail("writing blocks", &e));
        }
        add(&self.shared.counters.syncs, 1);
        active.fresh.file.sync(SITE_APPEND).map_err(|e| self.shared.fail("syncing blocks", &e))?;
        active.tail = end;
        active.blocks.extend_from_slice(&frame.blocks);
        active.tombstones.extend_from_slice(&frame.tombstones);
        let now = Instant::now();
        let mut state = write(&self.shared.state);
        for effect in frame.effects {
            match effect {
                Effect::Put(id, place) => state.put(id, place),
                Effect::Delete(id) => {
                    state.delete(id, now);
                    add(&self.shared.counters.deleted_blocks, 1);
                }
            }
        }
        state.buried(active.number, &frame.tombstones);
        drop(state);
        if active.tail > active.fresh.capacity / 2 {
            self.preparer.request();
        }
        self.show_room();
        Ok(())
    }
}
