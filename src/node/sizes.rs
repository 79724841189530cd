//! Sizes that fit the disk: preallocation that is nothing on a large disk would fill a small one.
//!
//! | disk | block segment | log segment | kept free |
//! |---|---|---|---|
//! | 512 MiB | 16 MiB | 16 MiB | 42 MiB |
//! | 4 GiB | 64 MiB | 32 MiB | 256 MiB |
//! | 16 GiB and more | 256 MiB | 32 MiB | 256 MiB |
//!
//! What an empty data directory takes: two block segments, a log segment and its two spares, and a few MiB of metadata. While it
//! works, the log grows to four segments more. [`DISK_MIN`] leaves room for data beside that.

use super::Options;
use anyhow::{Result, bail};

/// Smallest disk that is served from: 5 log segments and 2 block segments of 16 MiB are 112 MiB, the reserve is 21 MiB, and
/// there should be room for files.
pub const DISK_MIN: u64 = 256 << 20;

const MIB: u64 = 1 << 20;

/// Most that is kept free for deletions, compaction and the log.
const RESERVE_MAX: u64 = 256 * MIB;

impl Options {
    /// Takes the sizes that fit a file system of `total` bytes.
    pub fn fit(&mut self, total: u64) -> Result<()> {
        if total < DISK_MIN {
            bail!(
                "the file system has {} MiB; a data directory needs one of {} MiB at least",
                total / MIB,
                DISK_MIN / MIB
            );
        }
        let scaled =
            |share: u64, least: u64, most: u64| (total / share).next_power_of_two().clamp(least, most);
        self.blocks.segment_bytes = scaled(64, 16 * MIB, 256 * MIB);
        // A start reads the log twice at most: of small segments less is kept than of large ones.
        let log = scaled(128, 16 * MIB, 32 * MIB);
        self.meta.log.segment_bytes = log as u32;
        let reserve = RESERVE_MAX.min(total / 12);
        self.blocks.reserve_bytes = Some(reserve);
        let maintenance = &mut self.meta.maintenance;
        maintenance.log_bytes = 2 * log;
        maintenance.log_bytes_max = 4 * log;
        // Less than what data leave free: when data have filled the disk, what must still go into the log
        // (COMMIT, removals) does.
        maintenance.reserve_bytes = reserve / 2;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn small_disks_get_small_segments() {
        let mut options = Options::new([1; 16], 1);
        assert!(options.fit(200 * MIB).is_err());
        for (total, block, log) in
            [(256, 16, 16), (600, 16, 16), (4096, 64, 32), (16 << 10, 256, 32), (1 << 24, 256, 32)]
        {
            options.fit(total * MIB).unwrap();
            assert_eq!(options.blocks.segment_bytes, block * MIB, "{total}");
            assert_eq!(u64::from(options.meta.log.segment_bytes), log * MIB, "{total}");
            let reserve = options.blocks.reserve_bytes.unwrap();
            assert!(options.meta.maintenance.reserve_bytes < reserve);
            assert!(2 * block * MIB + 7 * log * MIB + reserve < total * MIB, "{total}");
        }
    }
}
