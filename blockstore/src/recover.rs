//! Opening: from the segment files to the state in memory.
//!
//! Sealed segments are known from their footers (24 bytes a record read, no payload); a segment without one (the last
//! one after a crash) is scanned by its record headers. Its records of the highest batch may be torn, are verified
//! whole, and dropped if they are not; then the segment is sealed, durably, before anything new is written.
//!
//! Segments are taken from the newest to the oldest: tombstones are always newer than what they bury, so each segment
//! is done in one pass, and the first copy of a block that is met is the one that counts.

use crate::config::{Config, Progress};
use crate::format::{self, BlockEntry, Kind, SegmentHeader, Tombstone, UNIT};
use crate::index::Place;
use crate::segment::{self, DIR, Gap, LoadError, Opened, SITE_RESEAL, SITE_ROOT, Scan};
use crate::spare;
use crate::state::{SegmentState, State};
use atoll_base::block::BlockId;
use atoll_base::disk::{Disk, Open};
use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("opening the block store: {0}")]
    Io(#[from] io::Error),
    /// A segment is not this store's, or of a newer version.
    #[error("segment {segment} of the block store cannot be used: {detail}")]
    Segment {
        /// Its number.
        segment: u32,
        /// Why.
        detail: String,
    },
    /// A foreign file lies in the directory of the segments.
    #[error("foreign file {0:?} in the block store's directory")]
    Foreign(String),
}

/// What recovery did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments.
    pub segments: u64,
    /// Segments without a good footer, which were scanned.
    pub scanned: u64,
    /// Records of the last batch that a crash tore; never acknowledged, unless they are also damaged.
    pub torn: u64,
    /// Stretches of scanned segments where records were lost to damage: the blocks in them are missing.
    pub lost: Vec<Gap>,
    /// Time that opening took.
    pub took: Duration,
}

/// One segment, read.
pub(crate) struct Loaded {
    pub(crate) opened: Opened,
    pub(crate) salt: u64,
    pub(crate) blocks: Vec<BlockEntry>,
    pub(crate) tombstones: Vec<Tombstone>,
    /// `Some`: there is no good footer.
    pub(crate) unsealed: Option<Unsealed>,
}

/// What a scan leaves to do.
pub(crate) struct Unsealed {
    /// End of the last good record.
    pub(crate) end: u64,
    /// Start of the first record that may have been written but not synced.
    pub(crate) unsure: u64,
    pub(crate) torn: u64,
    pub(crate) lost: Vec<Gap>,
    /// No batch in it is known to be synced, so its header need not be there either.
    pub(crate) young: bool,
}

fn load_error(segment: u32, e: LoadError) -> OpenError {
    match e {
        LoadError::Io(e) => OpenError::Io(e),
        other => OpenError::Segment { segment, detail: other.to_string() },
    }
}

/// What lies in the directory, by numbers, ascending.
pub(crate) struct Names {
    pub(crate) segments: Vec<u32>,
    pub(crate) spares: Vec<u32>,
}

/// Looks into the directory.
pub(crate) fn names(disk: &dyn Disk) -> Result<Names, OpenError> {
    let mut names = Names { segments: Vec::new(), spares: Vec::new() };
    for entry in disk.list(Path::new(DIR))? {
        let (segment, spare) = (segment::number_of(&entry.name), spare::number_of(&entry.name));
        match (segment, spare) {
            (Some(n), _) if !entry.is_dir => names.segments.push(n),
            (_, Some(n)) if !entry.is_dir => names.spares.push(n),
            _ => return Err(OpenError::Foreign(entry.name)),
        }
    }
    names.segments.sort_unstable();
    names.spares.sort_unstable();
    Ok(names)
}

/// The highest batch of the store, and the scans of all segments without a trailer.
pub(crate) struct Survey {
    pub(crate) batch: u64,
    scans: HashMap<u32, Scan>,
}

/// First pass: reads the ends of all segments, and scans those that are not sealed.
pub(crate) fn survey(
    disk: &dyn Disk,
    store_id: u128,
    numbers: &[u32],
    mut looked: impl FnMut(),
) -> Result<Survey, OpenError> {
    let mut survey = Survey { batch: 0, scans: HashMap::new() };
    for &n in numbers {
        looked();
        let opened = segment::open(disk, n, store_id, Open::Read).map_err(|e| load_error(n, e))?;
        let batch = match opened.trailer {
            Some(trailer) => trailer.batch,
            None => {
                let scan = opened.scan()?;
                let batch = scan.batch;
                survey.scans.insert(n, scan);
                batch
            }
        };
        survey.batch = survey.batch.max(batch);
    }
    Ok(survey)
}

/// Second pass, for one segment. `None`: the segment has nothing, not even a header.
pub(crate) fn load(
    disk: &dyn Disk,
    store_id: u128,
    number: u32,
    survey: &mut Survey,
    how: Open,
) -> Result<Option<Loaded>, OpenError> {
    let opened = segment::open(disk, number, store_id, how).map_err(|e| load_error(number, e))?;
    if let Some((blocks, tombstones)) = opened.footer()? {
        let salt = opened.header.expect("a footer implies a trailer").salt;
        return Ok(Some(Loaded { opened, salt, blocks, tombstones, unsealed: None }));
    }
    let scan = match survey.scans.remove(&number) {
        Some(scan) => scan,
        None => opened.scan()?,
    };
    let Some(salt) = scan.salt else { return Ok(None) };
    let mut loaded = Loaded { opened, salt, blocks: Vec::new(), tombstones: Vec::new(), unsealed: None };
    let mut unsealed = Unsealed { end: UNIT, unsure: scan.end, torn: 0, lost: Vec::new(), young: true };
    for found in &scan.records {
        let h = found.header;
        let newest = h.batch == survey.batch;
        unsealed.young &= newest;
        if newest {
            unsealed.unsure = unsealed.unsure.min(u64::from(h.units) * UNIT);
        }
        // A tombstone record must be read anyway; a block's only if a crash can have torn it.
        let payload =
            if newest || h.kind == Kind::Tombstones { loaded.opened.payload(&h)? } else { Some(Vec::new()) };
        let gap = Gap { segment: number, offset: u64::from(h.units) * UNIT, len: format::record_len(h.len) };
        match (h.kind, payload) {
            (Kind::Block, Some(_)) => {
                loaded.blocks.push(BlockEntry { id: h.id, units: h.units, len: h.len });
            }
            (Kind::Tombstones, Some(payload)) => match format::decode_tombstones(&payload) {
                Ok(list) => loaded.tombstones.extend(list),
                Err(_) => unsealed.lost.push(gap),
            },
            (_, None) if newest => unsealed.torn += 1,
            (_, None) => unsealed.lost.push(gap),
            (Kind::Footer, Some(_)) => {}
        }
        unsealed.end = gap.offset + gap.len;
    }
    unsealed.lost.extend(scan.gaps.iter().filter(|(_, next)| *next < survey.batch).map(|(gap, _)| *gap));
    loaded.unsealed = Some(unsealed);
    Ok(Some(loaded))
}

/// Enters segments, newest first, into a state.
pub(crate) struct Builder {
    pub(crate) state: State,
    /// Tombstones met so far whose segments are still to come.
    dead: HashMap<u32, HashSet<(BlockId, u32)>>,
}

impl Builder {
    pub(crate) fn new(numbers: &[u32]) -> Self {
        let mut state = State::default();
        for &n in numbers {
            state.segments.insert(n, SegmentState { sealed: true, ..SegmentState::default() });
        }
        Self { state, dead: HashMap::new() }
    }

    pub(crate) fn enter(&mut self, loaded: &Loaded) {
        let number = loaded.opened.number;
        let segment = self.state.segments.get_mut(&number).expect("all segments were announced");
        segment.salt = loaded.salt;
        segment.size = loaded.opened.len;
        self.state.buried(number, &loaded.tombstones);
        for t in &loaded.tombstones {
            if t.segment <= number && self.state.segments.contains_key(&t.segment) {
                self.dead.entry(t.segment).or_default().insert((t.id, t.units));
            }
        }
        let dead = self.dead.remove(&number).unwrap_or_default();
        for b in loaded.blocks.iter().rev() {
            if dead.contains(&(b.id, b.units)) {
                continue;
            }
            let place = Place { segment: number, units: b.units, len: b.len };
            if self.state.index.get(b.id).is_some() {
                self.state.shadow(b.id, place);
            } else {
                self.state.put(b.id, place);
            }
        }
    }
}

/// What opening yields.
pub(crate) struct Opening {
    pub(crate) state: State,
    pub(crate) next_segment: u32,
    pub(crate) next_batch: u64,
    pub(crate) report: Recovery,
    /// Segment files without any good record, to be removed before a new one is made.
    pub(crate) empty: Vec<u32>,
    /// Spare files.
    pub(crate) spares: Vec<u32>,
}

/// Tells about progress, not too often.
struct Teller<'a> {
    config: &'a Config,
    began: Instant,
    told: Option<Instant>,
    at: Progress,
}

impl Teller<'_> {
    fn step(&mut self) {
        self.at.done += 1;
        if let Some(tell) = &self.config.on_progress
            && self.began.elapsed() >= self.config.progress_after
            && self.told.is_none_or(|t| t.elapsed() >= Duration::from_millis(100))
        {
            tell(self.at);
            self.told = Some(Instant::now());
        }
    }
}

/// Reads the whole store and seals what a crash left unsealed.
pub(crate) fn recover(disk: &dyn Disk, config: &Config) -> Result<Opening, OpenError> {
    let began = Instant::now();
    match disk.create_dir(Path::new(DIR)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
        _ => disk.sync_dir(Path::new(""), SITE_ROOT)?,
    }
    let Names { segments: numbers, spares } = names(disk)?;
    let mut teller =
        Teller { config, began, told: None, at: Progress { done: 0, total: 2 * numbers.len() as u64 } };
    let mut survey = survey(disk, config.store_id, &numbers, || teller.step())?;
    let mut report = Recovery { segments: numbers.len() as u64, ..Recovery::default() };
    let mut builder = Builder::new(&numbers);
    let mut empty = Vec::new();
    for &number in numbers.iter().rev() {
        teller.step();
        let Some(mut loaded) = load(disk, config.store_id, number, &mut survey, Open::ReadWrite)? else {
            empty.push(number);
            continue;
        };
        if let Some(unsealed) = &loaded.unsealed {
            if loaded.blocks.is_empty() && loaded.tombstones.is_empty() && unsealed.lost.is_empty() {
                report.torn += unsealed.torn;
                empty.push(number);
                continue;
            }
            report.scanned += 1;
            report.torn += unsealed.torn;
            report.lost.extend_from_slice(&unsealed.lost);
            loaded.opened.len = seal(&loaded, unsealed, config.store_id, survey.batch)?;
        }
        builder.enter(&loaded);
    }
    for &n in &empty {
        builder.state.drop_segment(n);
    }
    report.took = began.elapsed();
    Ok(Opening {
        state: builder.state,
        // Of a spare file, too: it keeps the name of the segment that it was.
        next_segment: numbers.last().max(spares.last()).map_or(1, |n| n + 1),
        next_batch: survey.batch + 1,
        report,
        empty,
        spares,
    })
}

/// Seals a scanned segment, durably. What may not have been synced is written once more, so that the sync covers it
/// even where an earlier one had failed and the system only pretends to hold clean pages.
fn seal(loaded: &Loaded, unsealed: &Unsealed, store_id: u128, batch: u64) -> io::Result<u64> {
    let file = &*loaded.opened.file;
    let header = SegmentHeader { store_id, segment: loaded.opened.number, salt: loaded.salt };
    file.write_at(&[IoSlice::new(&header.encode())], 0)?;
    let mut at = unsealed.unsure.min(unsealed.end);
    let mut buf = Vec::new();
    while at < unsealed.end {
        buf.resize((unsealed.end - at).min(1 << 20) as usize, 0);
        atoll_base::disk::read_exact_at(file, &mut buf, at)?;
        file.write_at(&[IoSlice::new(&buf)], at)?;
        at += buf.len() as u64;
    }
    let (blocks, tombstones) = (&loaded.blocks, &loaded.tombstones);
    let end = segment::seal(file, &header, unsealed.end, batch, blocks, tombstones)?;
    file.sync(SITE_RESEAL)?;
    Ok(end)
}
