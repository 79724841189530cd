//! A directory of a disk, as a disk of its own.

use super::{Disk, Entry, File, Open, Space};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tree below one directory of another disk.
#[derive(Clone)]
pub struct Subdir {
    disk: Arc<dyn Disk>,
    at: PathBuf,
}

impl Subdir {
    /// Makes the directory `at` if it does not exist, durably, and gives what is below it.
    pub fn create(disk: Arc<dyn Disk>, at: &str, site: &'static str) -> io::Result<Self> {
        let at = PathBuf::from(at);
        match disk.create_dir(&at) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            // Also if it exists: an earlier start may have made it and lost power before the sync.
            _ => disk.sync_dir(at.parent().unwrap_or(Path::new("")), site)?,
        }
        Ok(Self { disk, at })
    }
}

impl Disk for Subdir {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.disk.open(&self.at.join(path), how)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(&self.at.join(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(&self.at.join(from), &self.at.join(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(&self.at.join(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(&self.below(dir))
    }

    fn sync_dir(&self, dir: &Path, site: &'static str) -> io::Result<()> {
        self.disk.sync_dir(&self.below(dir), site)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

impl Subdir {
    /// Joining an empty path would append a slash, which is another path to a simulated disk.
    fn below(&self, dir: &Path) -> PathBuf {
        if dir.as_os_str().is_empty() { self.at.clone() } else { self.at.join(dir) }
    }
}
