//! What the disk streams: 1 MiB writes with a sync each 64 MiB, as the WRITE workload has them, and reading it back cold.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of each write and read.
const BLOCK: usize = 1024 * 1024;
/// Blocks between syncs.
const SYNC_EACH: u64 = 64;

/// Writes `blocks` MiB and syncs them. Returns how long it took.
pub fn write(path: &Path, blocks: u64) -> io::Result<Duration> {
    let data = crate::workload::data::noise(BLOCK);
    let mut file = File::create(path)?;
    let begun = Instant::now();
    for block in 1..=blocks {
        file.write_all(&data)?;
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
