//! Which files had UNSTABLE writes a moment ago.
//!
//! The first small UNSTABLE write to a file goes straight into the store: it costs the one durable command that taking a
//! lease would cost, and the whole of a small file is then written with that command instead of two. The second within
//! [`WINDOW_SECS`] shows that there is a stream, and takes the lease. Purely a hint: a collision costs a command.

use atoll_base::id::Ino;
use std::sync::atomic::{AtomicU64, Ordering};

const SLOTS: usize = 4096;

/// For how long a write is remembered.
const WINDOW_SECS: u64 = 10;

/// Lossy table of inode → second of its last UNSTABLE write.
#[derive(Debug)]
pub(crate) struct Recent {
    /// 40 bits of inode above 24 bits of seconds.
    slots: Vec<AtomicU64>,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes a write at `secs`; returns whether there was one shortly before.
    pub(crate) fn note(&self, ino: Ino, secs: i64) -> bool {
        let secs = secs as u64 & 0xff_ffff;
        let slot = &self.slots[ino.0 as usize % SLOTS];
        let before = slot.swap(ino.0 << 24 | secs, Ordering::Relaxed);
        before >> 24 == ino.0 & (u64::MAX >> 24)
            && secs.wrapping_sub(before & 0xff_ffff) & 0xff_ffff <= WINDOW_SECS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_seen_from_its_second_write_on() {
        let recent = Recent::new();
        assert!(!recent.note(Ino(5), 100));
        assert!(recent.note(Ino(5), 105));
        assert!(!recent.note(Ino(5), 200));
        assert!(!recent.note(Ino(5 + SLOTS as u64), 200));
        assert!(!recent.note(Ino(5), 200));
    }
}
