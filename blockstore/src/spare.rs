//! Files of segments that are gone, kept for a while to become new segments.
//!
//! To give a large file back is not cheap. A file system that tells its disk what it needs no more (mounted with `discard`, as is usual for
//! virtual machines) does that while it holds everybody else up: for a third of a second for 256 MiB on the machine of the benchmarks, as long as writing takes. A store that is overwritten
//! loses segments as fast as it fills others. So it takes the files again, and gives back in small steps, when there is nothing else to do, what it did not take.
//!
//! A spare file has a name of its own: for the store its segment is gone, durably, before anything is written into it. It gets the header of the new segment, and that is
//! synced, before it gets its name ([`crate::segment::reuse`]). What else is in it belongs to a former salt, and passes for no record.
//!
//! Bounds: [`Config::spare_segments`](crate::Config::spare_segments) files. While less than a tenth of the disk is free there come no more, and those that are there go; who
//! finds no room for a segment has them removed at once.

use crate::format::UNIT;
use crate::lock::lock;
use crate::segment::{number_in, path_with};
use atoll_base::disk::{Disk, Open};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A file is given back in so many steps: of 256 MiB 8, some 10 ms of the disk's time.
const STEPS: u64 = 32;

/// One part of the disk that is left alone, of so many.
const FREE_SHARE: u64 = 10;

const SUFFIX: &str = ".spare";

/// The name of the spare file that was a segment's.
pub(crate) fn path_of(segment: u32) -> PathBuf {
    path_with(segment, SUFFIX)
}

/// Of which segment a spare file was.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    number_in(name, SUFFIX)
}

fn is_pressed(disk: &dyn Disk) -> bool {
    !disk.space().is_ok_and(|space| space.available >= space.total / FREE_SHARE)
}

/// A spare file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    /// The segment that it was.
    pub(crate) number: u32,
    /// Bytes.
    pub(crate) len: u64,
    since: Instant,
}

/// The spare files of a store, the oldest first. Whoever changes one of them holds the lock.
pub(crate) struct Spares {
    /// None when the store is closed.
    files: Mutex<Option<VecDeque<Spare>>>,
    most: usize,
    /// Bytes of a segment as a rule.
    usual: u64,
    bytes: AtomicU64,
}

impl Spares {
    pub(crate) fn new(most: usize, usual: u64) -> Self {
        Self { files: Mutex::new(Some(VecDeque::new())), most, usual, bytes: AtomicU64::new(0) }
    }

    /// Whether a file has a good part of what a segment needs. To make the rest, or to remove less, is quick.
    fn fits(&self, len: u64) -> bool {
        len >= self.usual / 2
    }

    /// Takes over those that lie there when a store is opened. That they do must be durable.
    pub(crate) fn find(&self, disk: &dyn Disk, numbers: &[u32]) -> io::Result<()> {
        for &number in numbers {
            let path = path_of(number);
            let len = disk.open(&path, Open::Read)?.len()?;
            if self.wants(disk, len) {
                self.keep(number, len);
            } else {
                disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether the file of a segment that goes, of `len` bytes, may become one.
    pub(crate) fn wants(&self, disk: &dyn Disk, len: u64) -> bool {
        let has_place = lock(&self.files).as_ref().is_some_and(|files| files.len() < self.most);
        has_place && self.fits(len) && len <= self.usual && !is_pressed(disk)
    }

    /// The file of a segment that is gone, durably, is spare.
    pub(crate) fn keep(&self, number: u32, len: u64) {
        if let Some(files) = &mut *lock(&self.files) {
            files.push_back(Spare { number, len: len / UNIT * UNIT, since: Instant::now() });
            self.show(files);
        }
    }

    /// A file for a segment.
    pub(crate) fn take(&self) -> Option<Spare> {
        let mut files = lock(&self.files);
        let files = files.as_mut()?;
        let at = files.iter().position(|spare| self.fits(spare.len))?;
        let spare = files.remove(at);
        self.show(files);
        spare
    }

    fn show(&self, files: &VecDeque<Spare>) {
        self.bytes.store(files.iter().map(|spare| spare.len).sum(), Ordering::Relaxed);
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives a part of a file back that has been spare for `age`, or for however long if the disk has little room. Whether there was any. A file that cannot be changed
    /// is left to the next open.
    pub(crate) fn give_back(&self, disk: &dyn Disk, age: Duration) -> io::Result<bool> {
        let mut files = lock(&self.files);
        let Some(files) = &mut *files else { return Ok(false) };
        let is_due = |spare: &Spare| spare.since.elapsed() >= age || is_pressed(disk);
        if !files.front().is_some_and(is_due) {
            return Ok(false);
        }
        let Some(mut spare) = files.pop_front() else { return Ok(false) };
        // What is given back is not counted before the disk has it.
        let (path, step) = (path_of(spare.number), (self.usual / STEPS).next_multiple_of(UNIT).max(UNIT));
        spare.len = spare.len.saturating_sub(step);
        self.bytes.fetch_sub(step.min(self.bytes()), Ordering::Relaxed);
        let done = if spare.len == 0 {
            // If a crash brings it back, the next open finds it.
            disk.remove(&path)
        } else {
            disk.open(&path, Open::ReadWrite).and_then(|file| file.set_len(spare.len))
        };
        if done.is_ok() && spare.len > 0 {
            files.push_front(spare);
        }
        self.show(files);
        done.map(|()| true)
    }

    /// Removes all of them at once; one that cannot be removed is left to the next open. Whether there was any.
    pub(crate) fn remove_all(&self, disk: &dyn Disk) -> bool {
        let mut files = lock(&self.files);
        let Some(files) = &mut *files else { return false };
        let any = !files.is_empty();
        while let Some(spare) = files.pop_front() {
            self.show(files);
            if let Err(error) = disk.remove(&path_of(spare.number)) {
                tracing::warn!(segment = spare.number, %error, "a spare file cannot be removed");
            }
        }
        any
    }

    /// From now on nothing is done to the files: they may be another store's.
    pub(crate) fn close(&self) {
        *lock(&self.files) = None;
        self.bytes.store(0, Ordering::Relaxed);
    }
}
