//! Opening a log: which segments count, where the last one ends, what the records say.
//!
//! 1. The *last* segment is the highest-numbered one that begins with a valid checkpoint. Those above it were
//!    prepared and hold nothing that was acknowledged; they are renewed as spares.
//! 2. The last segment ends at its first invalid frame. A frame of a later group beyond that is damage. If
//!    anything else is there, a torn write, the segment takes no more records, so that what is torn can't become
//!    valid later.
//! 3. The last group is written again and synced before anything of it counts: if only the process died, or a
//!    sync failed, the bytes may be in the page cache or the disk's own alone. So may a header that was renewed before the first group.
//! 4. All segments from the oldest needed one are replayed. Each has to be valid up to exactly where the checkpoint
//!    of its successor says; anything else is damage.
//! 5. Segments below are removed. That needs no sync: if one comes back, the next opening removes it again.

use super::record::Record;
use super::segment::{self, HEADER, Segment, UNFINISHED, Window};
use super::state::{Cursor, Location, State};
use super::{Config, WalError};
use atoll_base::disk::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(super) fn recover(disk: &dyn Disk, dir: &Path, config: &Config) -> Result<State, WalError> {
    config.check()?;
    match disk.create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(WalError::io(format!("create {}", dir.display()))(e));
        }
        _ => {}
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    disk.sync_dir(parent, "wal.recover.parent").map_err(WalError::io("sync the directory of the log"))?;
    let numbers = list(disk, dir)?;
    let mut spares = Vec::new();
    let mut last = None;
    for number in numbers.iter().rev() {
        let segment = Segment::open(disk, dir, *number)?;
        if is_used(&segment)? {
            last = Some(segment);
            break;
        }
        spares.push(segment);
    }
    spares.reverse();
    let mut state = match last {
        Some(last) => replay(disk, dir, config, last, &numbers)?,
        None => State::default(),
    };
    // A segment that only the page cache names must not take records.
    disk.sync_dir(dir, "wal.recover.dir").map_err(WalError::io(format!("sync {}", dir.display())))?;
    adopt_spares(disk, &mut state, spares, config)?;
    for number in numbers.range(..state.keep_from) {
        let path = dir.join(segment::name(*number));
        disk.remove(&path).map_err(WalError::io(format!("remove {}", path.display())))?;
    }
    Ok(state)
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<BTreeSet<u64>, WalError> {
    let mut numbers = BTreeSet::new();
    for entry in disk.list(dir).map_err(WalError::io(format!("list {}", dir.display())))? {
        if entry.name == UNFINISHED {
            disk.remove(&dir.join(UNFINISHED)).map_err(WalError::io("remove an unfinished segment"))?;
        } else if let Some(number) = segment::parse_name(&entry.name) {
            numbers.insert(number);
        } else {
            return Err(WalError::Damaged {
                file: dir.join(&entry.name).display().to_string(),
                offset: 0,
                what: "not a file of the log".to_owned(),
            });
        }
    }
    Ok(numbers)
}

fn is_used(segment: &Segment) -> Result<bool, WalError> {
    let mut window = Window::default();
    match segment.frame(&mut window, HEADER)?.map(|f| f.record) {
        Some(Record::Checkpoint(_)) => Ok(true),
        Some(_) => Err(segment.damaged(HEADER, "the first record is not a checkpoint")),
        None => {
            segment.inspect_tail(&mut window, HEADER)?;
            Ok(false)
        }
    }
}

/// Where the last segment ends, where its last group begins, and what it needs.
struct Survey {
    end: u32,
    last_group: u32,
    keep_from: u64,
}

fn survey(segment: &Segment) -> Result<Survey, WalError> {
    let mut window = Window::default();
    let mut survey = Survey { end: HEADER, last_group: HEADER, keep_from: segment.number };
    while let Some(frame) = segment.frame(&mut window, survey.end)? {
        survey.end = frame.next;
        survey.last_group = frame.group;
        match frame.record {
            Record::Checkpoint(c) => survey.keep_from = c.keep_from,
            Record::Purge { keep_from, .. } => survey.keep_from = keep_from,
            _ => {}
        }
    }
    Ok(survey)
}

fn replay(
    disk: &dyn Disk,
    dir: &Path,
    config: &Config,
    last: Segment,
    numbers: &BTreeSet<u64>,
) -> Result<State, WalError> {
    let Survey { end, last_group, keep_from } = survey(&last)?;
    let sealed = last.inspect_tail(&mut Window::default(), end)?;
    // The first group of a segment was to make the header durable as well.
    last.settle(if last_group == HEADER { 0 } else { last_group }, end)?;

    let last = Arc::new(last);
    let mut segments = BTreeMap::from([(last.number, last.clone())]);
    for number in keep_from..last.number {
        if !numbers.contains(&number) {
            return Err(WalError::Damaged {
                file: dir.join(segment::name(number)).display().to_string(),
                offset: 0,
                what: "the segment is missing".to_owned(),
            });
        }
        segments.insert(number, Arc::new(Segment::open(disk, dir, number)?));
    }
    // All that is read here is durable.
    let mut state = State { flushed: (last.number, end), ..State::default() };
    let mut before: Option<(&Segment, u32)> = None;
    for segment in segments.values() {
        let stop = (segment.number == last.number).then_some(end);
        let segment_end = replay_segment(&mut state, segment, before, stop, config)?;
        before = Some((segment, segment_end));
    }
    state.keep_from = keep_from;
    state.next_number = last.number + 1;
    state.cursor = Some(Cursor { segment: last, offset: end, sealed });
    state.segments = segments;
    state.committed = state.logged_committed;
    Ok(state)
}

/// Applies the records of a segment and returns where they end: at `stop`, or, in an earlier segment, where
/// there is no valid frame; the successor's checkpoint decides whether that is right.
fn replay_segment(
    state: &mut State,
    segment: &Segment,
    before: Option<(&Segment, u32)>,
    stop: Option<u32>,
    config: &Config,
) -> Result<u32, WalError> {
    let mut window = Window::default();
    let mut at = HEADER;
    while stop.is_none_or(|stop| at < stop) {
        let Some(frame) = segment.frame(&mut window, at)? else { break };
        let location = Location { segment: segment.number, offset: at, body_len: frame.body_len };
        match frame.record {
            Record::Checkpoint(c) if at == HEADER => match before {
                Some((previous, end)) => {
                    let expected = state.checkpoint(end);
                    if c.previous_end > end {
                        return Err(previous.damaged(end, "no valid record"));
                    }
                    if (c.previous_end, &c.vote, c.committed, c.purged, c.last)
                        != (end, &expected.vote, expected.committed, expected.purged, expected.last)
                    {
                        return Err(segment.damaged(at, "the checkpoint contradicts the segments before"));
                    }
                }
                None => {
                    state.vote = c.vote;
                    state.logged_committed = c.committed;
                    state.purged = c.purged;
                    state.last = c.last;
                    // Entries before this segment are below the purge point.
                    state.first = c.last.map_or(0, |id| id.index + 1);
                }
            },
            Record::Checkpoint(_) => {
                return Err(segment.damaged(at, "a checkpoint within a segment"));
            }
            Record::Entry(entry) => {
                if let Some(next) = state.next_index()
                    && next != entry.id.index
                {
                    let what = format!("entry {} where {next} is next", entry.id.index);
                    return Err(segment.damaged(at, what));
                }
                state.append(entry, location, config);
            }
            Record::Vote(vote) => state.vote = Some(vote),
            Record::Committed(id) => state.logged_committed = id,
            Record::Truncate(id) => state.truncate(id),
            Record::Purge { upto, .. } => state.purge(upto),
        }
        at = frame.next;
    }
    if at == HEADER {
        return Err(segment.damaged(at, "no valid checkpoint"));
    }
    Ok(at)
}

fn adopt_spares(
    disk: &dyn Disk,
    state: &mut State,
    spares: Vec<Segment>,
    config: &Config,
) -> Result<(), WalError> {
    for mut spare in spares {
        if spare.number == state.next_number && spare.len == config.segment_bytes {
            spare.renew().map_err(WalError::io(format!("write {}", spare.path.display())))?;
            state.next_number = spare.number + 1;
            state.spares.push_back(spare);
        } else {
            // Made under another configuration, or what is before it is gone.
            disk.remove(&spare.path).map_err(WalError::io(format!("remove {}", spare.path.display())))?;
        }
    }
    Ok(())
}
