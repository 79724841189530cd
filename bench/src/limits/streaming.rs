//! What the disk streams: 1 MiB writes with a sync each 64 MiB, as the WRITE workload has them, and reading it back cold.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of each write and read.
const BLOCK: usize = 1024 * 1024;
/// Blocks between syncs.
const SYNC_EACH: u64 = 64;

/// Addresses and offsets of direct writes are multiples of it.
const ALIGN: usize = 4096;

/// Writes `blocks` MiB and syncs them, past the page cache if the file system can: the limit is the disk's, not that of copying.
/// Returns how long it took.
pub fn write(path: &Path, blocks: u64) -> io::Result<Duration> {
    let noise = crate::workload::data::noise(BLOCK + ALIGN);
    let start = noise.as_ptr().align_offset(ALIGN);
    let data = &noise[start..start + BLOCK];
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options
        .clone()
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .or_else(|_| options.open(path))?;
    let begun = Instant::now();
    for block in 1..=blocks {
        file.write_all(data)?;
        if block % SYNC_EACH == 0 {
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    Ok(begun.elapsed())
}

/// Reads the file from its start to its end. Cold, if the caller emptied the cache. Returns how long it took.
pub fn read(path: &Path) -> io::Result<Duration> {
    let mut file = File::open(path)?;
    let mut data = vec![0; BLOCK];
    let begun = Instant::now();
    while file.read(&mut data)? > 0 {}
    Ok(begun.elapsed())
}
