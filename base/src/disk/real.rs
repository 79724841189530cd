//! The system's own file system, below one directory.

use super::direct::Direct;
use super::{Begun, Disk, Entry, File, Open, Space};
use std::fs;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of the machine's file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The tree below `root`, which must exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => &mut options,
            Open::ReadWrite => options.write(true),
            Open::Create => options.write(true).create(true).truncate(false),
            Open::CreateNew => options.write(true).create_new(true),
        };
        let file = options.open(self.root.join(path))?;
        Ok(Arc::new(RealFile { file, direct: Direct::new(how != Open::Read) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(self.root.join(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("foreign file {name:?} in {}", dir.display()),
                )
            })?;
            entries.push(Entry { name, is_dir: entry.file_type()?.is_dir() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path, _site: &'static str) -> io::Result<()> {
        fs::File::open(self.root.join(dir))?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(Space { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }
}

struct RealFile {
    file: fs::File,
    direct: Direct,
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let len = buf.len();
        match preadv2(self.file.as_fd(), &mut [io::IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(n) if n == len => Ok(Some(n)),
            // Cut short by the end of the file or of the cached part; the caller's slow path finds out which.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn read_direct_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let done = self.direct.read(&self.file, buf, offset)?;
        // Also at the end of the file, which this meets again.
        Ok(done + self.read_at(&mut buf[done..], offset + done as u64)?)
    }

    fn written(&self) -> io::Result<Vec<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        // Moves the descriptor's own place in the file, which nothing here goes by.
        let (mut ranges, mut at) = (Vec::new(), 0);
        loop {
            let start = match seek(self.file.as_fd(), SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(ranges),
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => at,
                Err(e) => return Err(e.into()),
            };
            at = match seek(self.file.as_fd(), SeekFrom::Hole(start)) {
                Ok(end) => end,
                Err(Errno::NXIO) => return Ok(ranges),
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => self.len()?,
                Err(e) => return Err(e.into()),
            };
            if at <= start {
                return Ok(ranges);
            }
            ranges.push(start..at);
        }
    }

    fn forget_cached(&self, offset: u64, len: u64) {
        let advice = rustix::fs::Advice::DontNeed;
        // A hint: where it is not supported, the cache's copy is read.
        let _ = rustix::fs::fadvise(self.file.as_fd(), offset, std::num::NonZeroU64::new(len), advice);
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = bufs.iter().map(|b| IoSlice::new(b)).collect();
        let mut rest = slices.as_mut_slice();
        let mut at = offset;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            // The kernel takes at most IOV_MAX (1024) slices a call.
            let batch = &rest[..rest.len().min(1024)];
            match rustix::io::pwritev(self.file.as_fd(), batch, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn write_direct_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let done = self.direct.write(&self.file, data, offset)?;
        if done == data.len() {
            return Ok(());
        }
        self.write_at(&[IoSlice::new(&data[done..])], offset + done as u64)
    }

    fn begin_synced_write(
        &self,
        data: Vec<u8>,
        part: Range<usize>,
        offset: u64,
        _site: &'static str,
    ) -> Begun {
        self.direct.begin_synced_write(&self.file, data, part, offset)
    }

    fn sync(&self, _site: &'static str) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        rustix::fs::fallocate(self.file.as_fd(), rustix::fs::FallocateFlags::empty(), offset, len)?;
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.file.as_fd(), flags, offset, len)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::disk::DIRECT_ALIGN;

    /// Where the file system has the way, and where it has not.
    #[test]
    fn a_write_that_goes_on_beside_its_thread_is_there_when_it_was_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk::new(dir.path()).open(Path::new("f"), Open::CreateNew).unwrap();
        file.write_at(&[IoSlice::new(&[0; 16 * DIRECT_ALIGN])], 0).unwrap();
        file.sync("test").unwrap();
        let mut want = vec![0; 16 * DIRECT_ALIGN];
        let mut begun = 0;
        for n in 0..12_u8 {
            let mut data = vec![n + 1; 4 * DIRECT_ALIGN];
            let start = data.as_ptr().align_offset(DIRECT_ALIGN);
            let part = start..start + DIRECT_ALIGN * (1 + usize::from(n % 3));
            data[..start].fill(0xee);
            let at = usize::from(n) * DIRECT_ALIGN;
            let (place, bytes) = (data.as_ptr().addr(), data[part.clone()].to_vec());
            match file.begin_synced_write(data, part.clone(), at as u64, "test") {
                Ok(write) => {
                    begun += 1;
                    // One at a time.
                    let other = vec![9; 3 * DIRECT_ALIGN];
                    let start = other.as_ptr().align_offset(DIRECT_ALIGN);
                    assert!(file.begin_synced_write(other, start..start + DIRECT_ALIGN, 0, "test").is_err());
                    if n == 5 {
                        drop(write);
                    } else {
                        let (data, done) = write.wait();
                        assert_eq!((data.as_ptr().addr(), done.unwrap()), (place, part.len()));
                    }
                }
                Err(data) => file.write_direct_at(&data[part], at as u64).unwrap(),
            }
            want[at..at + bytes.len()].copy_from_slice(&bytes);
            let mut got = vec![0; want.len()];
            file.read_at(&mut got, 0).unwrap();
            assert!(got == want, "after {n}");
        }
        assert!(begun == 0 || begun == 12, "{begun} of 12");
        // What is not aligned is not begun.
        let data = vec![1; 4 * DIRECT_ALIGN];
        let odd = data.as_ptr().align_offset(DIRECT_ALIGN) + 1;
        assert!(file.begin_synced_write(data, odd..odd + DIRECT_ALIGN, 0, "test").is_err());
    }

    #[test]
    fn what_was_only_allocated_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk::new(dir.path()).open(Path::new("f"), Open::CreateNew).unwrap();
        file.allocate(0, 64 << 20).unwrap();
        file.write_at(&[IoSlice::new(&[1; 10])], 8 << 20).unwrap();
        file.sync("test").unwrap();
        let written = file.written().unwrap();
        assert!(written.iter().any(|range| range.contains(&(8 << 20))));
        // Not every file system tells.
        assert!(written.is_sorted_by(|a, b| a.end < b.start));
    }
}
