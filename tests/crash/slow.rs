//! A disk that takes its time to make some files, so that what usually wins a race loses it.

use atoll_base::disk::sim::SimDisk;
use atoll_base::disk::{Disk, Entry, File, Open, Space};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The preparation of a log segment begins with this file.
const UNFINISHED_SEGMENT: &str = "next.tmp";
/// Between two looks at whether the power has gone: nothing waits for a dead disk.
const LOOK: Duration = Duration::from_millis(5);

/// The disk; making a log segment takes `delay` longer.
pub(crate) struct SlowDisk {
    pub(crate) disk: SimDisk,
    pub(crate) delay: Duration,
}

impl Disk for SlowDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::Create && path.ends_with(UNFINISHED_SEGMENT) {
            let end = std::time::Instant::now() + self.delay;
            while std::time::Instant::now() < end && !self.disk.is_off() {
                std::thread::sleep(LOOK);
            }
        }
        self.disk.open(path, how)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path, site: &'static str) -> io::Result<()> {
        self.disk.sync_dir(dir, site)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}
