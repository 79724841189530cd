//! What the log knows in memory, and where the next record goes. Pure: no file is touched here.
//!
//! Submission and recovery change it by the same functions, so that recovery finds what submission left.

use super::record::{Checkpoint, Frame, Record, entry_bytes};
use super::segment::{HEADER, Segment};
use super::{Config, Done, Entry, EntryId, WalError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A vote is a term, a node and a flag; this leaves room for other encodings.
pub(super) const MAX_VOTE: usize = 1024;
/// Bound of a checkpoint's frame: a vote, three entry ids of at most 30 bytes, two numbers.
const CHECKPOINT_BOUND: u32 = 1536;
/// The end of each segment that only votes, truncations and purges may use, so that entries can be purged
/// when there is no further segment.
const CONTROL_ROOM: u32 = 2048;
/// What of a segment is not for entries.
pub(super) const SEGMENT_OVERHEAD: u32 = HEADER + CHECKPOINT_BOUND + CONTROL_ROOM;
/// What a cached entry takes beside its bytes.
const CACHED_OVERHEAD: usize = 128;

/// Where an entry's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) body_len: u32,
}

/// The segment that is being filled.
pub(super) struct Cursor {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    /// Its tail holds torn records: nothing more goes here.
    pub(super) sealed: bool,
}

/// Consecutive frames for one segment, waiting to be written.
pub(super) struct Chunk {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) frames: Vec<Frame>,
    /// Told when this chunk is durable; on the last chunk of a request.
    pub(super) done: Option<Done>,
    /// It may be told so when the disk has the chunk ([`super::Wal::append_early`]).
    pub(super) is_early: bool,
    /// Segments before it are not needed once this chunk is durable.
    pub(super) retire_below: Option<u64>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<EntryId>,
    /// The value of `committed` that the log holds.
    pub(super) logged_committed: Option<EntryId>,
    pub(super) purged: Option<EntryId>,
    /// The last entry, or `purged` if there is none.
    pub(super) last: Option<EntryId>,
    pub(super) keep_from: u64,
    /// Index of the entry at the front of `locations`.
    pub(super) first: u64,
    pub(super) locations: VecDeque<Location>,
    /// The last entries.
    pub(super) cache: VecDeque<Entry>,
    pub(super) cache_bytes: usize,
    /// Segments with records.
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    /// Empty segments, numbered after those with records.
    pub(super) spares: VecDeque<Segment>,
    pub(super) next_number: u64,
    pub(super) cursor: Option<Cursor>,
    pub(super) queue: VecDeque<Chunk>,
    pub(super) queued_bytes: usize,
    /// All before this place in this segment is durable.
    pub(super) flushed: (u64, u32),
}

fn cost(entry: &Entry) -> usize {
    CACHED_OVERHEAD + entry.head.len() + entry.parts.iter().map(|p| p.len() + 32).sum::<usize>()
}

impl State {
    // What records mean.

    pub(super) fn append(&mut self, entry: Entry, location: Location, config: &Config) {
        if self.locations.is_empty() {
            self.first = entry.id.index;
        }
        self.last = Some(entry.id);
        self.locations.push_back(location);
        self.cache_bytes += cost(&entry);
        self.cache.push_back(entry);
        self.evict(config);
    }

    /// Voids entries after `last`, which is an entry or the purge point. (In a replay the entry itself may be in
    /// a segment that is no longer needed.)
    pub(super) fn truncate(&mut self, last: Option<EntryId>) {
        let next = last.map_or(0, |id| id.index + 1);
        if self.next_index().is_none_or(|current| next >= current) {
            return;
        }
        while !self.locations.is_empty() && self.first + self.locations.len() as u64 > next {
            self.locations.pop_back();
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= cost(&entry);
            }
        }
        self.last = last;
    }

    /// The record of a truncation after `last`.
    pub(super) fn truncate_record(&self, last: Option<EntryId>) -> Record {
        let is_there = last.is_some_and(|id| self.location(id.index).is_some());
        let is_beyond = last.is_some_and(|id| self.last.is_none_or(|l| id.index >= l.index));
        Record::Truncate(if is_there || is_beyond { last } else { self.purged })
    }

    /// Voids entries up to `upto`.
    pub(super) fn purge(&mut self, upto: EntryId) {
        if self.purged.is_some_and(|p| p.index >= upto.index) {
            return;
        }
        while self.first <= upto.index && self.locations.pop_front().is_some() {
            if self.cache.len() > self.locations.len()
                && let Some(entry) = self.cache.pop_front()
            {
                self.cache_bytes -= cost(&entry);
            }
            self.first += 1;
        }
        self.purged = Some(upto);
        // Not: if there is no entry. In a replay, entries may be in segments that are no longer needed.
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
    }

    /// Index of the next entry; `None` if it may be any.
    pub(super) fn next_index(&self) -> Option<u64> {
        self.last.map(|id| id.index + 1)
    }

    pub(super) fn location(&self, index: u64) -> Option<Location> {
        self.locations.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    pub(super) fn cached(&self, index: u64) -> Option<&Entry> {
        let first_cached = self.first + (self.locations.len() - self.cache.len()) as u64;
        self.cache.get(usize::try_from(index.checked_sub(first_cached)?).ok()?)
    }

    /// Shrinks the cache to its bound, but keeps what can't be read from the file yet.
    pub(super) fn evict(&mut self, config: &Config) {
        while self.cache_bytes > config.cache_bytes
            && let Some(location) = self.locations.get(self.locations.len() - self.cache.len())
            && (location.segment, location.offset) < self.flushed
            && let Some(entry) = self.cache.pop_front()
        {
            self.cache_bytes -= cost(&entry);
        }
    }

    // Where records go.

    /// How many spare segments frames of these sizes take.
    pub(super) fn spares_needed(&self, sizes: &[usize], is_control: bool, config: &Config) -> usize {
        let mut room = self.cursor.as_ref().map_or(0, |c| room(c, is_control));
        let mut needed = 0;
        for size in sizes {
            if *size > room {
                needed += 1;
                room = (config.segment_bytes - SEGMENT_OVERHEAD) as usize;
            }
            room = room.saturating_sub(*size);
        }
        needed
    }

    /// Queues at least one record, for which [`State::spares_needed`] spares are there, and applies them.
    pub(super) fn place(&mut self, records: Vec<Record>, is_control: bool, done: Done, config: &Config) {
        let mut chunk: Option<Chunk> = None;
        for record in records {
            let frame = Frame::new(record.clone());
            let size = frame.size() as u32;
            if self.cursor.as_ref().is_none_or(|c| size as usize > room(c, is_control)) {
                self.queue.extend(chunk.take());
                chunk = Some(self.roll());
            }
            let cursor = self.cursor.as_mut().expect("there is a segment after a roll");
            let location = Location {
                segment: cursor.segment.number,
                offset: cursor.offset,
                body_len: frame.body_len() as u32,
            };
            let chunk = chunk.get_or_insert_with(|| Chunk {
                segment: cursor.segment.clone(),
                offset: cursor.offset,
                bytes: 0,
                frames: Vec::new(),
                done: None,
                is_early: false,
                retire_below: None,
            });
            chunk.frames.push(frame);
            chunk.bytes += size;
            cursor.offset += size;
            self.queued_bytes += size as usize;
            if let Record::Purge { keep_from, .. } = record {
                chunk.retire_below = Some(keep_from);
            }
            self.apply(record, location, config);
        }
        if let Some(chunk) = &mut chunk {
            chunk.done = Some(done);
        }
        self.queue.extend(chunk);
    }

    fn apply(&mut self, record: Record, location: Location, config: &Config) {
        match record {
            Record::Checkpoint(_) => {}
            Record::Entry(entry) => self.append(entry, location, config),
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(id) => self.logged_committed = id,
            Record::Truncate(last) => self.truncate(last),
            Record::Purge { upto, keep_from } => {
                self.purge(upto);
                self.keep_from = keep_from;
            }
        }
    }

    /// Goes to the next segment, with a checkpoint as its first record.
    fn roll(&mut self) -> Chunk {
        let spare = self.spares.pop_front().expect("the spares were counted");
        let segment = Arc::new(spare);
        let previous_end = self.cursor.as_ref().map_or(0, |c| c.offset);
        if self.cursor.is_none() {
            self.keep_from = segment.number;
        }
        let frame = Frame::new(Record::Checkpoint(self.checkpoint(previous_end)));
        let bytes = frame.size() as u32;
        assert!(bytes <= CHECKPOINT_BOUND, "a checkpoint of {bytes} bytes");
        self.segments.insert(segment.number, segment.clone());
        self.cursor = Some(Cursor { segment: segment.clone(), offset: HEADER + bytes, sealed: false });
        self.queued_bytes += bytes as usize;
        Chunk {
            segment,
            offset: HEADER,
            bytes,
            frames: vec![frame],
            done: None,
            is_early: false,
            retire_below: None,
        }
    }

    pub(super) fn checkpoint(&self, previous_end: u32) -> Checkpoint {
        Checkpoint {
            previous_end,
            keep_from: self.keep_from,
            vote: self.vote.clone(),
            committed: self.logged_committed,
            purged: self.purged,
            last: self.last,
        }
    }

    /// The record of a purge up to `upto`, with the oldest segment that is needed afterwards.
    pub(super) fn purge_record(&self, upto: EntryId) -> Record {
        let oldest = self.location(upto.index + 1).or_else(|| match self.location(self.first) {
            Some(location) if self.first > upto.index => Some(location),
            _ => None,
        });
        // Without entries only the segment with this record is needed: the current one, or the next.
        let current = self.cursor.as_ref().map_or(0, |c| c.segment.number);
        Record::Purge { upto, keep_from: oldest.map_or(current, |l| l.segment) }
    }

    /// A size check before anything is queued.
    pub(super) fn check_size(record: &Record, config: &Config) -> Result<(), WalError> {
        let (bytes, limit) = match record {
            Record::Entry(entry) => (entry_bytes(entry), config.max_entry_bytes()),
            Record::Vote(vote) => (vote.len(), MAX_VOTE),
            _ => return Ok(()),
        };
        if bytes > limit { Err(WalError::TooLarge { bytes, limit }) } else { Ok(()) }
    }
}

fn room(cursor: &Cursor, is_control: bool) -> usize {
    let reserved = if is_control { 0 } else { CONTROL_ROOM };
    let end = cursor.segment.len - reserved;
    if cursor.sealed { 0 } else { end.saturating_sub(cursor.offset) as usize }
}
