//! Reading and writing past the page cache (`O_DIRECT`).
//!
//! A second descriptor of the same file does it, so that others go on through the cache. The kernel
//! keeps the two in step: a direct write first writes back, and then drops, what the cache has of its range; a direct read first writes it back. What
//! makes either durable is `fdatasync` of the file, through any descriptor: it empties the disk's own cache and
//! commits the changes of the file's extents. A write through a descriptor with `O_DSYNC` does that for its own range.

use super::aio::Queue;
use super::{Begun, DIRECT_ALIGN};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The way past the cache into one file, opened at the first use.
pub(super) struct Direct {
    writes: bool,
    opened: OnceLock<Option<fs::File>>,
    /// For writes that go on beside their thread; made at the first.
    queue: OnceLock<Option<Arc<Queue>>>,
    /// The file system does not take what we can offer.
    refused: AtomicBool,
}

/// Whether bytes may go past the cache as they lie.
pub(super) fn aligned(data: &[u8], offset: u64) -> bool {
    data.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
        && data.len().is_multiple_of(DIRECT_ALIGN)
        && offset.is_multiple_of(DIRECT_ALIGN as u64)
}

/// `None` where there is no such way. By the descriptor, not by a path: the file may have got another name.
fn open(writes: bool, flags: OFlags, file: &fs::File) -> Option<fs::File> {
    let direct = fs::OpenOptions::new()
        .read(true)
        .write(writes)
        .custom_flags((OFlags::DIRECT | flags).bits() as i32)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()?;
    // That it is this file is up to whoever mounted /proc.
    let (a, b) = (file.metadata().ok()?, direct.metadata().ok()?);
    ((a.dev(), a.ino()) == (b.dev(), b.ino())).then_some(direct)
}

impl Direct {
    /// The way into a file; for writing too, if `writes`.
    pub(super) fn new(writes: bool) -> Self {
        Self { writes, opened: OnceLock::new(), queue: OnceLock::new(), refused: AtomicBool::new(false) }
    }

    /// Writes as much of `data` as goes this way, from its front on, and returns how much that was. What is not
    /// aligned, or refused by the file system before anything was written, does not.
    pub(super) fn write(&self, file: &fs::File, data: &[u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < data.len()
            && aligned(&data[done..], offset + done as u64)
            && !self.refused.load(Ordering::Relaxed)
        {
            let Some(direct) = self.opened.get_or_init(|| open(self.writes, OFlags::empty(), file)) else {
                break;
            };
            match rustix::io::pwrite(direct.as_fd(), &data[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                // Nothing was written: larger sectors than ours, or a file system that says so only now.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.refused.store(true, Ordering::Relaxed),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(done)
    }

    /// See [`super::File::begin_synced_write`].
    pub(super) fn begin_synced_write(
        &self,
        file: &fs::File,
        data: Vec<u8>,
        part: Range<usize>,
        offset: u64,
    ) -> Begun {
        if !aligned(&data[part.clone()], offset) || self.refused.load(Ordering::Relaxed) {
            return Err(data);
        }
        let queue = || open(self.writes, OFlags::DSYNC, file).and_then(Queue::new);
        match self.queue.get_or_init(queue) {
            Some(queue) => queue.begin(data, part, offset),
            None => Err(data),
        }
    }

    /// Fills as much of `buf` as comes this way, from its front on, and returns how much that was. Stops at the end of
    /// the file too.
    pub(super) fn read(&self, file: &fs::File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len()
            && aligned(&buf[done..], offset + done as u64)
            && !self.refused.load(Ordering::Relaxed)
        {
            let direct = self.opened.get_or_init(|| open(self.writes, OFlags::empty(), file));
            let Some(direct) = direct else { break };
            match rustix::io::pread(direct.as_fd(), &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.refused.store(true, Ordering::Relaxed),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::OFlags;
    use crate::disk::{DIRECT_ALIGN, Disk, Open, RealDisk};
    use std::io::IoSlice;
    use std::path::Path;

    /// Whether the file system has a direct way or not, the bytes are there, mixed with buffered ones, aligned or not.
    #[test]
    fn direct_and_buffered_writes_mix() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let file = disk.open(Path::new("f"), Open::CreateNew).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        let memory: Vec<u8> = (0..DIRECT_ALIGN * 12).map(|n| (n / 100) as u8 | 1).collect();
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
        let mut want = vec![0; 1 << 20];
        let writes = [
            (start, DIRECT_ALIGN * 4, DIRECT_ALIGN * 2),
            (start, DIRECT_ALIGN * 2 + 5, DIRECT_ALIGN * 20),
            (start + 1, DIRECT_ALIGN, DIRECT_ALIGN * 30),
            (start, DIRECT_ALIGN, DIRECT_ALIGN * 40 + 512),
            (start, DIRECT_ALIGN * 3, DIRECT_ALIGN * 3),
        ];
        for (from, len, at) in writes {
            let data = &memory[from..from + len];
            file.write_at(&[IoSlice::new(&[7; 900])], at as u64 - 450).unwrap();
            want[at - 450..at + 450].fill(7);
            file.write_direct_at(data, at as u64).unwrap();
            want[at..at + len].copy_from_slice(data);
        }
        file.sync("test").unwrap();
        let mut got = vec![0; 1 << 20];
        assert_eq!(file.read_at(&mut got, 0).unwrap(), got.len());
        assert!(got == want);
    }

    #[test]
    fn direct_reads_give_what_was_written_up_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let file = disk.open(Path::new("f"), Open::CreateNew).unwrap();
        let want: Vec<u8> = (0..DIRECT_ALIGN * 5 + 77).map(|n| (n / 100) as u8 | 1).collect();
        file.write_at(&[IoSlice::new(&want)], 0).unwrap();
        for how in [Open::Read, Open::ReadWrite] {
            let file = disk.open(Path::new("f"), how).unwrap();
            for (skew, at) in [(0, 0), (0, DIRECT_ALIGN * 4), (1, 0), (0, 5), (0, DIRECT_ALIGN * 6)] {
                let mut memory = vec![0; DIRECT_ALIGN * 10];
                let start = memory.as_ptr().align_offset(DIRECT_ALIGN) + skew;
                let buf = &mut memory[start..start + DIRECT_ALIGN * 8];
                let n = file.read_direct_at(buf, at as u64).unwrap();
                assert!(buf[..n] == want[at.min(want.len())..], "{how:?} {skew} {at}");
            }
        }
    }

    #[test]
    fn a_file_is_found_whatever_its_name_has_become() {
        let dir = tempfile::tempdir().unwrap();
        let memory = vec![5; DIRECT_ALIGN * 2];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
        let page = &memory[start..start + DIRECT_ALIGN];
        let has_way =
            super::open(true, OFlags::empty(), &std::fs::File::create_new(dir.path().join("any")).unwrap())
                .is_some();
        for removed in [false, true] {
            let file = std::fs::File::create_new(dir.path().join("f")).unwrap();
            std::fs::rename(dir.path().join("f"), dir.path().join("renamed")).unwrap();
            std::fs::write(dir.path().join("f"), b"another").unwrap();
            if removed {
                std::fs::remove_file(dir.path().join("renamed")).unwrap();
            }
            let direct = super::Direct::new(true);
            let done = direct.write(&file, page, 0).unwrap();
            assert_eq!(done, if has_way { DIRECT_ALIGN } else { 0 });
            assert_eq!(file.metadata().unwrap().len(), done as u64);
            assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"another");
            std::fs::remove_file(dir.path().join("f")).unwrap();
        }
    }
}
