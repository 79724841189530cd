//! Files of segments that are gone, kept for a while to become new segments.
//!
//! To give a large file back is not cheap. A file system that tells its disk what it needs no more (mounted with `discard`, as is usual for
//! virtual machines) does that while it holds everybody else up: for a third of a second for 256 MiB on the machine of the benchmarks, as long as writing takes. A store that is overwritten
//! loses segments as fast as it fills others. So it takes the files again, and gives back in small steps, when there is nothing else to do, what it did not take.
//!
//! A spare file has a name of its own: for the store its segment is gone, durably, before anything is written into it. It gets the header of the new segment, and that is
//! synced, before it gets its name ([`crate::segment::reuse`]). What else is in it belongs to a former salt, and passes for no record.
//!
//! Bounds: [`Config::spare_segments`](crate::Config::spare_segments) files, and none while less than a tenth of the disk is free.

use crate::lock::lock;
use crate::segment::DIR;
use atoll_base::disk::{Disk, Open};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes that are given back in one step: some 10 ms of the disk's time.
const STEP: u64 = 8 << 20;

/// One part of the disk that is left alone, of so many.
const FREE_SHARE: u64 = 10;

const SUFFIX: &str = ".spare";

/// The name of the spare file that was a segment's.
pub(crate) fn path_of(segment: u32) -> PathBuf {
    Path::new(DIR).join(format!("{segment:010}{SUFFIX}"))
}

/// Of which segment a spare file was.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() == 10 { digits.parse().ok() } else { None }
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

/// The spare files of a store, the oldest first.
pub(crate) struct Spares {
    files: Mutex<VecDeque<Spare>>,
    most: usize,
    /// Bytes of a segment as a rule.
    usual: u64,
    bytes: AtomicU64,
}

impl Spares {
    pub(crate) fn new(most: usize, usual: u64) -> Self {
        Self { files: Mutex::default(), most, usual, bytes: AtomicU64::new(0) }
    }

    /// What has a good part of what a segment needs. To make the rest, or to remove less, is quick.
    fn fits(&self, len: u64, most: u64) -> bool {
        (self.usual / 2..=most).contains(&len)
    }

    /// Takes over those that lie there when a store is opened.
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
        self.fits(len, self.usual)
            && lock(&self.files).len() < self.most
            && disk.space().is_ok_and(|space| space.available >= space.total / FREE_SHARE)
    }

    /// The file of a segment that is gone, durably, is spare.
    pub(crate) fn keep(&self, number: u32, len: u64) {
        let mut files = lock(&self.files);
        files.push_back(Spare { number, len, since: Instant::now() });
        self.show(&files);
    }

    /// A file for a segment of at most so many bytes.
    pub(crate) fn take(&self, most: u64) -> Option<Spare> {
        let mut files = lock(&self.files);
        let at = files.iter().position(|spare| self.fits(spare.len, most))?;
        let spare = files.remove(at);
        self.show(&files);
        spare
    }

    fn show(&self, files: &VecDeque<Spare>) {
        self.bytes.store(files.iter().map(|spare| spare.len).sum(), Ordering::Relaxed);
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives a part of a file back that has been spare for `age`. Whether there was any.
    pub(crate) fn give_back(&self, disk: &dyn Disk, age: Duration) -> io::Result<bool> {
        let Some(mut spare) = self.take_old(age) else { return Ok(false) };
        let path = path_of(spare.number);
        spare.len = spare.len.saturating_sub(STEP);
        if spare.len == 0 {
            // If a crash brings it back, the next open finds it.
            disk.remove(&path)?;
            return Ok(true);
        }
        disk.open(&path, Open::ReadWrite)?.set_len(spare.len)?;
        let mut files = lock(&self.files);
        files.push_front(spare);
        self.show(&files);
        Ok(true)
    }

    fn take_old(&self, age: Duration) -> Option<Spare> {
        let mut files = lock(&self.files);
        files.front().filter(|spare| spare.since.elapsed() >= age)?;
        let spare = files.pop_front();
        self.show(&files);
        spare
    }
}
