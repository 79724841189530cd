//! The one way in which anything of ours touches a disk.
//!
//! Log, metadata store and block segments go through [`Disk`], so that a test can stop the power at any
//! instant and falsify our claims: the simulated disk ([`sim`], feature `sim`) drops or tears every write,
//! rename and directory entry that was not synced.
//!
//! The contract is the strict reading of POSIX: data reach the platter only by `sync`; an entry of a directory
//! (creation, removal, rename) only by [`Disk::sync_dir`] of that directory, also after the file was synced.
//!
//! Each sync names its *site*, a constant such as `"wal.append"`. Production ignores it. The simulator can be told
//! to skip one site, and the crash campaign must then fail: this shows that each sync is both needed and tested.

mod aio;
mod aligned;
mod direct;
mod real;
#[cfg(feature = "sim")]
pub mod sim;
mod subdir;
#[cfg(feature = "sim")]
pub mod wrap;

pub use aligned::Aligned;
pub use real::RealDisk;
pub use subdir::Subdir;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What [`File::write_direct_at`] and [`File::read_direct_at`] want addresses, offsets and lengths to be multiples of: the block of the usual file
/// systems, and no smaller than the sector of any disk in use.
pub const DIRECT_ALIGN: usize = 4096;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Existing, for reading only.
    Read,
    /// Existing, for reading and writing.
    ReadWrite,
    /// For reading and writing, made if it does not exist.
    Create,
    /// For reading and writing; fails with `AlreadyExists` if it exists.
    CreateNew,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Bytes of the file system that holds the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still allocate.
    pub available: u64,
}

/// A directory tree with files. Paths are relative to the root that the disk was opened with.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Makes one directory; `AlreadyExists` if it exists. Durable after `sync_dir` of its parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing what is there, atomically. Durable after `sync_dir` of both parents.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir` of its parent.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Entries of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Makes the directory's entries durable. `""` is the root.
    fn sync_dir(&self, dir: &Path, site: &'static str) -> io::Result<()>;
    /// Room on the file system.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. Reads and writes at positions; usable from several threads.
pub trait File: Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads like [`File::read_at`], but only what is in the page cache, without waiting for the disk. `None` if
    /// some of it is not, or if the system cannot tell.
    fn read_cached_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<Option<usize>> {
        Ok(None)
    }
    /// Reads like [`File::read_at`], past the page cache where the system can: for what is read once, in order, and would only
    /// push out what is read again. `buf` and `offset` should begin at multiples of [`DIRECT_ALIGN`], and `buf` be a multiple of
    /// it long; what is not, and what the file system refuses to give so, is read the usual way.
    fn read_direct_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }
    /// Where bytes are that were written, in order: what is left out reads as zeros, because it was never written or was freed. A system
    /// that cannot tell says all of it. To be asked before reading: what the page cache holds counts as written, and reading ahead brings it more.
    fn written(&self) -> io::Result<Vec<Range<u64>>> {
        Ok(std::iter::once(0..self.len()?).collect())
    }
    /// Lets the page cache forget a clean range, so that the next read comes from the disk. A hint.
    fn forget_cached(&self, _offset: u64, _len: u64) {}
    /// Writes all of `bufs`, one after the other, starting at `offset`. Not durable before a sync. After an
    /// error the file's bytes in that range are unknown.
    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Writes all of `data` like [`File::write_at`], past the page cache where the system can: for much data at once,
    /// which would only push out what is read, and for what is synced at once and read seldom. `data` should begin at a multiple of [`DIRECT_ALIGN`] in memory and
    /// in the file, and be a multiple of it long; what is not, and what the file system refuses to take so, is
    /// written the usual way.
    fn write_direct_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(&[io::IoSlice::new(data)], offset)
    }
    /// Begins to write `data[part]` at `offset` so that it is durable when [`SyncedWrite::wait`] says so: this write alone, not what was written before it and not synced.
    /// The disk works meanwhile. Aligned as for [`File::write_direct_at`].
    ///
    /// # Errors
    /// Gives `data` back where the system has no such way, or has another such write of this file under way. Nothing was begun then.
    fn begin_synced_write(
        &self,
        data: Vec<u8>,
        _part: Range<usize>,
        _offset: u64,
        _site: &'static str,
    ) -> Begun {
        Err(data)
    }
    /// Makes the data, and the length, durable (`fdatasync`). After an error the caller must not retry as if
    /// nothing had happened: the system may have dropped the dirty pages.
    fn sync(&self, site: &'static str) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `len`. Durable after a sync.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves storage for the range, extending the length if needed, so that later writes in it cannot fail
    /// for lack of space. Bytes not written before read as zeros.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Frees the storage of the range, which then reads as zeros.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// A write under way; or its memory, if nothing was begun.
pub type Begun = Result<Box<dyn SyncedWrite>, Vec<u8>>;

/// A durable write under way. To drop it is to wait for it, too.
pub trait SyncedWrite: Send {
    /// Waits until the disk has done it. Gives the memory back, and how many bytes, from the first on, are durable: fewer than all if the system took no more. Then the
    /// caller writes the rest in another way. After an error as after one of [`File::sync`].
    fn wait(self: Box<Self>) -> (Vec<u8>, io::Result<usize>);
}

/// Reads exactly `buf.len()` bytes at `offset`, or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_at(buf, offset)? == buf.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before the bytes asked for"))
    }
}
