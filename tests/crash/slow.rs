//! A disk that takes its time, so that what usually wins a race loses it, and work gathers as on a real disk; and that can
//! die in the midst of a write of the log.

use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::wrap::{AroundDisk, AroundFile, WrapFile};
use atoll_base::disk::{Disk, File, Open};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The preparation of a log segment begins with this file.
const UNFINISHED_SEGMENT: &str = "next.tmp";
/// Where the log is.
const LOG: &str = "meta/log";
/// Between two looks at whether the power has gone: nothing waits for a dead disk.
const LOOK: Duration = Duration::from_millis(5);
/// A write of the log from so many bytes on can be cut between pages so that whole records are left, and a torn one.
const GROUP: usize = 3 * 4096;

/// What takes longer than it must.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    /// Making a log segment.
    pub(crate) segment: Duration,
    /// A sync of a log segment.
    pub(crate) append: Duration,
}

/// The disk.
pub(crate) struct SlowDisk {
    pub(crate) disk: SimDisk,
    pub(crate) delays: Delays,
    /// Large writes of the log until the power goes during one; `None`: it does not.
    pub(crate) groups: Option<Arc<AtomicU64>>,
}

struct SlowFile {
    file: Arc<dyn File>,
    sync: Duration,
    disk: SimDisk,
    groups: Option<Arc<AtomicU64>>,
}

impl SlowFile {
    /// Cuts the power during this write if it is the one that was waited for.
    fn count(&self, bufs: &[io::IoSlice<'_>]) {
        let Some(groups) = &self.groups else { return };
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        // A segment is filled with zeros before it is used.
        let is_zeros = bufs.iter().flat_map(|b| b.iter()).take(64).all(|byte| *byte == 0);
        if len < GROUP || is_zeros {
            return;
        }
        if groups.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1) {
            self.disk.cut_power_after(0);
        }
    }
}

impl AroundDisk for SlowDisk {
    fn inner(&self) -> &dyn Disk {
        &self.disk
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::Create && path.ends_with(UNFINISHED_SEGMENT) {
            let end = std::time::Instant::now() + self.delays.segment;
            while std::time::Instant::now() < end && !self.disk.is_off() {
                std::thread::sleep(LOOK);
            }
        }
        let file = self.disk.open(path, how)?;
        if path.starts_with(LOG) && (!self.delays.append.is_zero() || self.groups.is_some()) {
            let (disk, groups) = (self.disk.clone(), self.groups.clone());
            return Ok(Arc::new(WrapFile(SlowFile { file, sync: self.delays.append, disk, groups })));
        }
        Ok(file)
    }
}

impl AroundFile for SlowFile {
    fn inner(&self) -> &dyn File {
        &*self.file
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.count(bufs);
        self.file.write_at(bufs, offset)
    }

    fn sync(&self, site: &'static str) -> io::Result<()> {
        std::thread::sleep(self.sync);
        self.file.sync(site)
    }
}
