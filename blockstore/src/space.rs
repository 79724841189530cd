//! Accounts of room.
//!
//! Room for new blocks is what the disk has available, plus what is preallocated in segments and not yet written, plus spare files,
//! minus the reserve. Reservations are promises out of that room. The reserve is left alone by puts and by the
//! preallocation on their behalf: deletions, compaction, and the log on the same file system, go on with it when
//! puts are refused.
//!
//! A byte of data is counted as 5/4 bytes: a record of the smallest block worth the name (4 KiB) adds one unit of 512
//! bytes, footers and the ends of segments the rest. Blocks much smaller than 4 KiB can cost more than was reserved;
//! they ride in the metadata store.

use crate::config::Config;
use crate::lock::lock;
use crate::spare::Spares;
use atoll_base::block::{BlockError, BlockSpace};
use atoll_base::disk::{self, Disk};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most of the default reserve in bytes.
const RESERVE_MAX: u64 = 256 << 20;

/// The part of each segment that only deletions and compaction may use: one in so many bytes.
pub(crate) const UPKEEP_SHARE: u64 = 16;

/// For whom room is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// New blocks.
    Put,
    /// Deletions and compaction, which make room in the end.
    Upkeep,
}

struct Cached {
    disk: disk::Space,
    at: Instant,
    stale: bool,
    reserved: u64,
}

pub(crate) struct Space {
    cached: Mutex<Cached>,
    /// Bytes that puts can still write in segments that exist: the current one, and the prepared one.
    current_room: AtomicU64,
    prepared_room: AtomicU64,
    /// Files that become segments when there is need.
    pub(crate) spares: Spares,
    reserve: Option<u64>,
    refresh: Duration,
}

/// What `bytes` of data may take on disk.
fn cost(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4)
}

impl Space {
    pub(crate) fn new(disk: &dyn Disk, config: &Config) -> io::Result<Self> {
        let cached = Cached { disk: disk.space()?, at: Instant::now(), stale: false, reserved: 0 };
        Ok(Self {
            cached: Mutex::new(cached),
            current_room: AtomicU64::new(0),
            prepared_room: AtomicU64::new(0),
            spares: Spares::new(config.spare_segments, config.segment_bytes),
            reserve: config.reserve_bytes,
            refresh: config.space_refresh,
        })
    }

    fn floor(&self, total: u64) -> u64 {
        self.reserve.unwrap_or_else(|| RESERVE_MAX.min(total / 20))
    }

    /// The disk's answer, asked for again when it is old. If the disk cannot tell, the last answer stands.
    fn refreshed<'a>(&self, disk: &dyn Disk, cached: &'a mut Cached) -> &'a mut Cached {
        if cached.stale || cached.at.elapsed() >= self.refresh {
            if let Ok(space) = disk.space() {
                cached.disk = space;
            }
            cached.at = Instant::now();
            cached.stale = false;
        }
        cached
    }

    fn room(&self, space: disk::Space) -> u64 {
        let preallocated =
            self.current_room.load(Ordering::Relaxed) + self.prepared_room.load(Ordering::Relaxed);
        (space.available + preallocated + self.spares.bytes()).saturating_sub(self.floor(space.total))
    }

    /// See `BlockService::reserve`.
    pub(crate) fn reserve(&self, disk: &dyn Disk, bytes: u64) -> Result<(), BlockError> {
        let mut cached = lock(&self.cached);
        let cached = self.refreshed(disk, &mut cached);
        let wanted = cached.reserved.saturating_add(bytes);
        if cost(wanted) > self.room(cached.disk) {
            return Err(BlockError::NoSpace);
        }
        cached.reserved = wanted;
        Ok(())
    }

    /// See `BlockService::release`.
    pub(crate) fn release(&self, bytes: u64) {
        let mut cached = lock(&self.cached);
        debug_assert!(bytes <= cached.reserved, "more room released than was reserved");
        cached.reserved = cached.reserved.saturating_sub(bytes);
    }

    /// Whether a put of `bytes` may go ahead: what is reserved, whoever reserved it, covers it, or else there is
    /// room beside the reservations.
    pub(crate) fn check_put(&self, disk: &dyn Disk, bytes: u64) -> Result<(), BlockError> {
        let mut cached = lock(&self.cached);
        let cached = self.refreshed(disk, &mut cached);
        if bytes <= cached.reserved || cost(bytes.max(cached.reserved)) <= self.room(cached.disk) {
            Ok(())
        } else {
            Err(BlockError::NoSpace)
        }
    }

    /// See `BlockService::space`.
    pub(crate) fn space(&self, disk: &dyn Disk, used: u64) -> BlockSpace {
        let mut cached = lock(&self.cached);
        let cached = self.refreshed(disk, &mut cached);
        let free = self.room(cached.disk).saturating_sub(cost(cached.reserved));
        BlockSpace { total: cached.disk.total, available: free / 5 * 4, used }
    }

    pub(crate) fn reserved(&self) -> u64 {
        lock(&self.cached).reserved
    }

    /// The disk's room changed in a way that its cached answer does not show.
    pub(crate) fn invalidate(&self) {
        lock(&self.cached).stale = true;
    }

    pub(crate) fn set_current_room(&self, bytes: u64) {
        self.current_room.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_prepared_room(&self, bytes: u64) {
        self.prepared_room.store(bytes, Ordering::Relaxed);
    }

    /// Size for a new segment: `wanted`, or less when the disk is nearly full; `None` if not even `least` fits.
    ///
    /// Whether a put may have the room at all was decided by [`Space::check_put`]. A segment of the least size may
    /// take up to a quarter of the reserve, since the room that was promised can be in pieces (the end of one
    /// segment, the rest of the disk) none of which takes the block.
    pub(crate) fn segment_size(
        &self,
        disk: &dyn Disk,
        purpose: Purpose,
        wanted: u64,
        least: u64,
    ) -> io::Result<Option<u64>> {
        let space = disk.space()?;
        let floor = self.floor(space.total);
        let room = space.available.saturating_sub(floor);
        let (room, limit) = match purpose {
            Purpose::Put => (room, space.available.saturating_sub(floor - floor / 4)),
            // Not the whole reserve at once: the log needs some of it.
            Purpose::Upkeep => (room.max(space.available / 4), space.available),
        };
        let size = wanted.min(room).max(least);
        Ok(if size <= room || size <= limit { Some(size) } else { None })
    }
}
