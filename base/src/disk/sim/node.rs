//! One simulated file: what is on the platter, what processes see, and the changes between the two.

use super::image::{CHUNK, Image};
use rand::Rng;
use rand::rngs::SmallRng;
use std::ops::Range;

/// The unit that a drive writes atomically, in bytes.
pub(super) const SECTOR: u64 = 512;

/// A change that no sync covers yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen { from: u64, to: u64 },
    Allocate(Range<u64>),
    Punch(Range<u64>),
}

/// How the unsynced changes of one crash fare; drawn once per crash so that seeds also cover the extremes
/// (nothing survives; all but one sector survives).
#[derive(Clone, Copy, Debug)]
pub(super) struct Luck {
    keep: f64,
    tear: f64,
    sector: f64,
}

impl Luck {
    pub(super) fn draw(rng: &mut SmallRng) -> Self {
        let keep = [0.0, 0.3, 0.6, 0.9][rng.random_range(0..4)];
        let tear = (1.0 - keep) * [0.0, 0.5, 1.0][rng.random_range(0..3)];
        Self { keep, tear, sector: [0.1, 0.5, 0.9][rng.random_range(0..3)] }
    }
}

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    live: Image,
    durable: Image,
    pending: Vec<Change>,
    /// A sync failed once: durable may lack bytes that live has, and no later sync brings them.
    diverged: bool,
}

impl Node {
    pub(super) fn live(&self) -> &Image {
        &self.live
    }

    pub(super) fn write(&mut self, data: Vec<u8>, offset: u64) {
        if data.is_empty() {
            return;
        }
        self.live.write(&data, offset);
        self.live.extend(offset + data.len() as u64);
        self.pending.push(Change::Write { offset, data });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.pending.push(Change::SetLen { from: self.live.len(), to: len });
        self.live.set_len(len);
    }

    pub(super) fn allocate(&mut self, range: Range<u64>) {
        self.live.allocate(range.clone());
        self.pending.push(Change::Allocate(range));
    }

    pub(super) fn punch(&mut self, range: Range<u64>) {
        self.live.punch(range.clone());
        self.pending.push(Change::Punch(range));
    }

    /// All changes so far become durable.
    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            if self.diverged {
                apply(&mut self.durable, &change);
                continue;
            }
            let range = match change {
                Change::Write { offset, data } => offset..offset + data.len() as u64,
                // The partial chunk at the cut is zeroed too.
                Change::SetLen { from, to } => from.min(to)..from.max(to).next_multiple_of(CHUNK),
                Change::Allocate(range) | Change::Punch(range) => range,
            };
            self.durable.copy_from(&self.live, range);
        }
    }

    /// What was written of `range` becomes durable, and nothing else. Of changes that are no writes all do, if one concerns the range.
    pub(super) fn sync_range(&mut self, range: Range<u64>) {
        let is_write = |change: &Change| matches!(change, Change::Write { .. });
        if !self.pending.iter().all(is_write) {
            return self.sync();
        }
        for change in std::mem::take(&mut self.pending) {
            let Change::Write { offset, data } = change else { continue };
            let end = offset + data.len() as u64;
            let (from, to) = (range.start.clamp(offset, end), range.end.clamp(offset, end));
            let cut = |part: Range<u64>| {
                data[(part.start - offset) as usize..(part.end - offset) as usize].to_vec()
            };
            if from < to {
                apply(&mut self.durable, &Change::Write { offset: from, data: cut(from..to) });
            }
            for part in [offset..from, from.max(to)..end] {
                if !part.is_empty() {
                    self.pending.push(Change::Write { offset: part.start, data: cut(part) });
                }
            }
        }
    }

    /// A sync failed: the system reports it once and forgets the dirty pages. Processes still see them.
    pub(super) fn lose_pending(&mut self) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.diverged = true;
        }
    }

    /// Inverts the bits of `mask` in the byte at `offset`, on the platter.
    pub(super) fn rot(&mut self, offset: u64, mask: u8) {
        for image in [&mut self.live, &mut self.durable] {
            let mut byte = [0];
            // A hole has no bits.
            if image.read(&mut byte, offset) == 1 && image.missing(offset..offset + 1) == 0 {
                image.write(&[byte[0] ^ mask], offset);
            }
        }
    }

    /// What the platter holds after a power cut: each unsynced change kept, dropped or torn by itself.
    pub(super) fn after_crash(&self, luck: Luck, rng: &mut SmallRng) -> Node {
        let mut image = self.durable.clone();
        for change in &self.pending {
            if rng.random_bool(luck.keep) {
                apply(&mut image, change);
            } else if rng.random_bool(luck.tear) {
                tear(&mut image, change, luck, rng);
            }
        }
        image.trim();
        Node { live: image.clone(), durable: image, pending: Vec::new(), diverged: false }
    }
}

fn apply(image: &mut Image, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            image.write(data, *offset);
            image.extend(offset + data.len() as u64);
        }
        Change::SetLen { to, .. } => image.set_len(*to),
        Change::Allocate(range) => image.allocate(range.clone()),
        Change::Punch(range) => image.punch(range.clone()),
    }
}

/// Applies any subset of the sectors of a change. The length that a write implies is metadata, which reaches
/// the platter or not regardless of the data.
fn tear(image: &mut Image, change: &Change, luck: Luck, rng: &mut SmallRng) {
    match change {
        Change::Write { offset, data } => {
            let end = offset + data.len() as u64;
            for_some_sectors(*offset..end, luck, rng, |part| {
                let within = (part.start - offset) as usize..(part.end - offset) as usize;
                image.write(&data[within], part.start);
            });
            if end > image.len() {
                match rng.random_range(0..3) {
                    0 => {}
                    1 => image.extend(end),
                    _ => image.extend(rng.random_range(image.len()..end)),
                }
            }
        }
        Change::Punch(range) => for_some_sectors(range.clone(), luck, rng, |part| image.punch(part)),
        Change::SetLen { from, to } if to > from => image.extend(rng.random_range(*from..*to)),
        // A shorter length is one number; an allocation that did not finish has no effect that can be seen.
        Change::SetLen { .. } | Change::Allocate(_) => {}
    }
}

fn for_some_sectors(range: Range<u64>, luck: Luck, rng: &mut SmallRng, mut f: impl FnMut(Range<u64>)) {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min((at / SECTOR + 1) * SECTOR);
        if rng.random_bool(luck.sector) {
            f(at..end);
        }
        at = end;
    }
}
