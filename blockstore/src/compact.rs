//! Compaction: copies what lives in mostly dead segments to the current one, and removes segments with nothing alive.
//!
//! Order is what makes it safe at any instant: copies are synced and visible, then the file is removed, or made a spare one ([`crate::spare`]), then the
//! directory is synced, and only then is the segment forgotten: until then deletions bury its copies too, and the
//! tombstones of its records are carried over from segments that go. A crash in between leaves copies of the
//! same bytes; the newest counts. Readers with the old place hold the file open, or look again.

use crate::format::{self, BlockEntry, Tombstone};
use crate::index::Place;
use crate::lock::{lock, read, write};
use crate::metrics::add;
use crate::segment::{self, DIR, SITE_REMOVE};
use crate::shared::Shared;
use crate::spare;
use crate::state::SegmentState;
use crate::writer::{Op, Ready};
use atoll_base::block::{BlockError, BlockId};
use atoll_base::disk::Open;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactStep {
    /// Nothing is worth compacting.
    Idle,
    /// So many payload bytes were copied; there is more to do.
    Copied(u64),
    /// A segment was removed.
    Removed(u32),
    /// A segment was left alone because this live block in it is damaged.
    Stuck(u32, BlockId),
}

/// So many small segments (left by restarts) are merged into one.
const SMALL_SEGMENTS: usize = 8;

/// So many segments are left alone at most because blocks of them are being deleted just now.
const DYING_MAX: usize = 4;

/// Tombstones carried over by one request.
const BURY_MAX: usize = 4096;

struct Work {
    segment: u32,
    blocks: Vec<BlockEntry>,
    tombstones: Vec<Tombstone>,
    /// Entries of `blocks` that are done.
    done: usize,
}

/// The state of compaction between steps.
#[derive(Default)]
pub(crate) struct Compactor(Mutex<Option<Work>>);

impl Compactor {
    /// Copies up to about `budget` bytes, or removes one segment. `submit` hands an op to the writer and waits. For `quiet` see [`choose`].
    pub(crate) fn step(
        &self,
        shared: &Shared,
        budget: u64,
        quiet: Duration,
        submit: impl Fn(Op) -> Result<(), BlockError>,
    ) -> Result<CompactStep, BlockError> {
        shared.check_writable()?;
        let mut slot = lock(&self.0);
        let mut work = match slot.take() {
            Some(work) => work,
            None => match choose(shared, quiet) {
                Some(segment) => begin(shared, segment)?,
                None => return Ok(CompactStep::Idle),
            },
        };
        let step = advance(shared, &mut work, budget, submit);
        // After an error the choice is made again: without room, a segment that needs no copying comes first.
        if matches!(step, Ok(CompactStep::Copied(_))) {
            *slot = Some(work);
        }
        step
    }
}

/// The segment that gives back most for what it costs, if any is worth it.
///
/// Where a large file is removed, or written over, the segments of its blocks die one after the other, and what lives in one now is dead a moment later.
/// So a few of which something was deleted within `quiet` are left alone. Where more are dying, at random, waiting does not help.
fn choose(shared: &Shared, quiet: Duration) -> Option<u32> {
    let now = Instant::now();
    let state = read(&shared.state);
    let sealed = || state.segments.iter().filter(|(_, s)| s.sealed && !s.pinned);
    let percent = u64::from(shared.config.compact_below_percent);
    let is_worth = |s: &SegmentState| s.blocks == 0 || s.needed() * 100 < s.size * percent;
    let dying = sealed().filter(|(_, s)| s.is_dying(quiet, now) && is_worth(s));
    let waits = dying.take(DYING_MAX + 1).count() <= DYING_MAX;
    let sealed = || sealed().filter(|(_, s)| !(waits && s.is_dying(quiet, now)));
    let best = sealed().filter(|(_, s)| is_worth(s)).min_by_key(|(_, s)| s.needed() * 1000 / s.size.max(1));
    if let Some((number, _)) = best {
        return Some(*number);
    }
    let small = |s: &SegmentState| s.size < shared.config.segment_bytes / 8;
    if sealed().filter(|(_, s)| small(s)).count() >= SMALL_SEGMENTS {
        return sealed().find(|(_, s)| small(s)).map(|(number, _)| *number);
    }
    None
}

fn begin(shared: &Shared, number: u32) -> Result<Work, BlockError> {
    let dead = {
        let state = read(&shared.state);
        state.segments.get(&number).is_none_or(|s| s.needed() == 0)
    };
    let mut work = Work { segment: number, blocks: Vec::new(), tombstones: Vec::new(), done: 0 };
    if dead {
        return Ok(work);
    }
    let fail = |e: &dyn std::fmt::Display| BlockError::Io {
        id: BlockId(0),
        detail: format!("reading the footer of segment {number}: {e}").into(),
    };
    let opened = segment::open(&*shared.disk, number, shared.config.store_id, Open::Read);
    match opened.map_err(|e| fail(&e))?.footer().map_err(|e| fail(&e))? {
        Some((blocks, tombstones)) => {
            work.blocks = blocks;
            work.tombstones = tombstones;
            Ok(work)
        }
        None => {
            // Damaged, or never written for lack of room: the next open scans the segment and writes it anew.
            pin(shared, number);
            Err(fail(&"it does not verify"))
        }
    }
}

fn pin(shared: &Shared, number: u32) {
    if let Some(segment) = write(&shared.state).segments.get_mut(&number) {
        segment.pinned = true;
    }
}

fn advance(
    shared: &Shared,
    work: &mut Work,
    budget: u64,
    submit: impl Fn(Op) -> Result<(), BlockError>,
) -> Result<CompactStep, BlockError> {
    let mut copies = Vec::new();
    let mut bytes = 0;
    let mut done = work.done;
    while done < work.blocks.len() && bytes < budget.max(1) {
        let b = work.blocks[done];
        done += 1;
        let place = Place { segment: work.segment, units: b.units, len: b.len };
        let Some((current, salt)) = shared.find(b.id) else { continue };
        if current != place {
            continue;
        }
        match shared.read_record(b.id, place, salt) {
            Ok((data, table)) => {
                bytes += data.len() as u64;
                copies.push((place, Ready { id: b.id, len: b.len, data: vec![data], table: Some(table) }));
            }
            // Deleted since; its bytes do not matter.
            Err(_) if shared.find(b.id).map(|f| f.0) != Some(place) => {}
            Err(e @ BlockError::Damaged { .. }) => {
                tracing::error!(segment = work.segment, error = %e, "compaction leaves a segment with a damaged block");
                pin(shared, work.segment);
                return Ok(CompactStep::Stuck(work.segment, b.id));
            }
            Err(e) => return Err(e),
        }
    }
    if !copies.is_empty() {
        submit(Op::Move(copies))?;
    }
    work.done = done;
    if done < work.blocks.len() {
        return Ok(CompactStep::Copied(bytes));
    }
    carry_over(shared, work, &submit)?;
    remove(shared, work.segment)?;
    Ok(CompactStep::Removed(work.segment))
}

/// Writes again the tombstones that still bury records of other segments.
fn carry_over(
    shared: &Shared,
    work: &Work,
    submit: &impl Fn(Op) -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    let needed: Vec<Tombstone> = {
        let state = read(&shared.state);
        let needed = |t: &&Tombstone| t.segment != work.segment && state.segments.contains_key(&t.segment);
        work.tombstones.iter().filter(needed).copied().collect()
    };
    for some in needed.chunks(BURY_MAX.min(format::TOMBSTONES_MAX)) {
        submit(Op::Bury(some.to_vec()))?;
    }
    Ok(())
}

/// Removes a segment with nothing alive. Its file may stay as a spare one.
fn remove(shared: &Shared, number: u32) -> Result<(), BlockError> {
    let (live, len) = read(&shared.state).segments.get(&number).map_or((0, 0), |s| (s.blocks, s.size));
    assert_eq!(live, 0, "segment {number} is removed with live blocks");
    let (disk, spares) = (&*shared.disk, &shared.space.spares);
    let is_spare = spares.wants(disk, len);
    let path = segment::path_of(number);
    let gone = if is_spare { disk.rename(&path, &spare::path_of(number)) } else { disk.remove(&path) };
    gone.map_err(|e| shared.fail("removing a segment", &e))?;
    disk.sync_dir(Path::new(DIR), SITE_REMOVE).map_err(|e| shared.fail("removing a segment", &e))?;
    write(&shared.state).drop_segment(number);
    shared.files.forget(number);
    // From now on it may be written.
    if is_spare {
        spares.keep(number, len);
    }
    shared.space.invalidate();
    add(&shared.counters.removed_segments, 1);
    Ok(())
}
