//! Disks and files around others, for tests: whoever makes one says what differs, and the rest is passed on.
//!
//! What is past the page cache is not passed on: it ends in [`File::read_at`] and [`File::write_at`] of the wrapper, so that nothing goes
//! by what the test does there. Writes that are durable by themselves there are only if the wrapper has them.

use super::{Begun, Disk, Entry, File, Open, Space, SyncedWrite};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a wrapper of a file does; the rest goes to [`AroundFile::inner`].
pub trait AroundFile: Send + Sync + 'static {
    /// The file itself.
    fn inner(&self) -> &dyn File;
    /// In place of [`File::read_at`].
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner().read_at(buf, offset)
    }
    /// In place of [`File::write_at`].
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.inner().write_at(bufs, offset)
    }
    /// In place of [`File::begin_synced_write`].
    fn begin_synced_write(
        &self,
        data: Vec<u8>,
        _part: Range<usize>,
        _offset: u64,
        _site: &'static str,
    ) -> Begun {
        Err(data)
    }
    /// In place of [`File::sync`].
    fn sync(&self, site: &'static str) -> io::Result<()> {
        self.inner().sync(site)
    }
}

/// What a wrapper of a disk does; the rest goes to [`AroundDisk::inner`].
pub trait AroundDisk: Send + Sync + 'static {
    /// The disk itself.
    fn inner(&self) -> &dyn Disk;
    /// In place of [`Disk::open`].
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
}

/// Makes a [`File`] of a wrapper.
pub struct WrapFile<W>(pub W);

/// Makes a [`Disk`] of a wrapper.
pub struct WrapDisk<W>(pub W);

impl<W: AroundFile> File for WrapFile<W> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn written(&self) -> io::Result<Vec<Range<u64>>> {
        self.0.inner().written()
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_at(bufs, offset)
    }

    fn begin_synced_write(
        &self,
        data: Vec<u8>,
        part: Range<usize>,
        offset: u64,
        site: &'static str,
    ) -> Begun {
        self.0.begin_synced_write(data, part, offset, site)
    }

    fn sync(&self, site: &'static str) -> io::Result<()> {
        self.0.sync(site)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.inner().len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.inner().set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.inner().allocate(offset, len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.inner().punch_hole(offset, len)
    }
}

impl<W: AroundDisk> Disk for WrapDisk<W> {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.0.open(path, how)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.inner().create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.inner().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.inner().remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.0.inner().list(dir)
    }

    fn sync_dir(&self, dir: &Path, site: &'static str) -> io::Result<()> {
        self.0.inner().sync_dir(dir, site)
    }

    fn space(&self) -> io::Result<Space> {
        self.0.inner().space()
    }
}

/// A disk that counts the bytes that are read from it.
#[derive(Clone)]
pub struct CountReads {
    disk: Arc<dyn Disk>,
    bytes: Arc<AtomicU64>,
}

impl CountReads {
    /// Counts from 0 on.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, bytes: Arc::default() }
    }

    /// Bytes asked for so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl AroundDisk for CountReads {
    fn inner(&self) -> &dyn Disk {
        &*self.disk
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(WrapFile(CountedFile { file, bytes: self.bytes.clone() })))
    }
}

struct CountedFile {
    file: Arc<dyn File>,
    bytes: Arc<AtomicU64>,
}

impl AroundFile for CountedFile {
    fn inner(&self) -> &dyn File {
        &*self.file
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_at(buf, offset)
    }
}

/// A disk that holds back, when it is told to, those who begin a durable write or wait for one.
#[derive(Clone)]
pub struct HoldWrites {
    disk: Arc<dyn Disk>,
    /// Before a write is begun.
    pub begin: Arc<Gate>,
    /// Before its end is waited for.
    pub wait: Arc<Gate>,
}

/// Where threads wait as long as it is shut.
#[derive(Default)]
pub struct Gate {
    /// Whether it is shut, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, (bool, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, until: impl Fn(&(bool, usize)) -> bool) {
        let state = self.changed.wait_while(self.lock(), |state| until(state));
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn pass(&self) {
        self.lock().1 += 1;
        self.changed.notify_all();
        self.wait_while(|(shut, _)| *shut);
        self.lock().1 -= 1;
    }

    /// From now on whoever comes waits; or those who wait go on.
    pub fn shut(&self, shut: bool) {
        self.lock().0 = shut;
        self.changed.notify_all();
    }

    /// Returns when somebody waits.
    pub fn until_somebody_waits(&self) {
        self.wait_while(|(_, waiting)| *waiting == 0);
    }
}

impl HoldWrites {
    /// Holds nobody yet.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, begin: Arc::default(), wait: Arc::default() }
    }
}

impl AroundDisk for HoldWrites {
    fn inner(&self) -> &dyn Disk {
        &*self.disk
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(WrapFile(HeldFile { file, begin: self.begin.clone(), wait: self.wait.clone() })))
    }
}

struct HeldFile {
    file: Arc<dyn File>,
    begin: Arc<Gate>,
    wait: Arc<Gate>,
}

impl AroundFile for HeldFile {
    fn inner(&self) -> &dyn File {
        &*self.file
    }

    fn begin_synced_write(
        &self,
        data: Vec<u8>,
        part: Range<usize>,
        offset: u64,
        site: &'static str,
    ) -> Begun {
        self.begin.pass();
        let write = self.file.begin_synced_write(data, part, offset, site)?;
        Ok(Box::new(HeldWrite { write, gate: self.wait.clone() }))
    }
}

struct HeldWrite {
    write: Box<dyn SyncedWrite>,
    gate: Arc<Gate>,
}

impl SyncedWrite for HeldWrite {
    fn wait(self: Box<Self>) -> (Vec<u8>, io::Result<usize>) {
        self.gate.pass();
        self.write.wait()
    }
}
