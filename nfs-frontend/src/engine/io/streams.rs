//! Which files are read in order, and what of them should be read ahead.
//!
//! Only the engine can see this: the block store knows blocks, not which one comes after another in a file. NFS has no
//! open files (RFC 1813 §1.3), so a stream is what READs of one file look like. Several calls of a client are in flight and overtake
//! each other, so "in order" means near the furthest READ so far.
//!
//! Pure; no more than [`STREAMS`] files are remembered, the one longest not read goes first.

use atoll_base::id::Ino;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Files that are looked at.
const STREAMS: usize = 256;

/// Shorter READs are not looked at: they are a database's, or cheap.
const READ_MIN: u64 = 32 << 10;

/// How far from the furthest READ one may be and still belong to the stream.
const REORDER: u64 = 4 << 20;

/// Longest and shortest distance that is read ahead. Longer than what a disk delivers while a client uses up half of it.
const WINDOW_MAX: u64 = 8 << 20;
const WINDOW_MIN: u64 = 2 << 20;

/// Windows end at multiples of this, as blocks of streams do.
const ALIGN: u64 = 1 << 20;

/// READs exactly one after the other, the first of a file counted, before it is a stream.
const IN_ORDER: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Behind the furthest READ.
    next: u64,
    /// READs in order so far.
    in_order: u32,
    /// What lies before was read ahead or asked for.
    ahead: u64,
    window: u64,
    used: u64,
}

#[derive(Debug, Default)]
struct Known {
    streams: HashMap<Ino, Stream>,
    clock: u64,
}

/// The streams of a frontend.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Known>);

impl Known {
    fn note(&mut self, ino: Ino, read: Range<u64>, size: u64) -> Option<Range<u64>> {
        self.clock += 1;
        let used = self.clock;
        let start = Stream { next: read.end, in_order: 0, ahead: 0, window: WINDOW_MIN, used };
        let Some(stream) = self.streams.get_mut(&ino) else {
            if self.streams.len() >= STREAMS
                && let Some(oldest) = self.streams.iter().min_by_key(|(_, s)| s.used).map(|(ino, _)| *ino)
            {
                self.streams.remove(&oldest);
            }
            let in_order = u32::from(read.start == 0);
            self.streams.insert(ino, Stream { in_order, ..start });
            return None;
        };
        stream.used = used;
        if read.start == stream.next {
            stream.in_order += 1;
        } else if read.start.abs_diff(stream.next) > REORDER {
            *stream = Stream { in_order: u32::from(read.start == 0), ..start };
        }
        stream.next = stream.next.max(read.end);
        if stream.in_order < IN_ORDER || stream.next + stream.window / 2 < stream.ahead {
            return None;
        }
        let from = stream.ahead.max(stream.next);
        let to = (stream.next + stream.window).next_multiple_of(ALIGN).min(size);
        if from >= to {
            return None;
        }
        stream.ahead = to;
        stream.window = (stream.window * 2).min(WINDOW_MAX);
        Some(from..to)
    }
}

impl Streams {
    /// A READ of the bytes `read` of a file of `size` bytes; what should be read ahead now, if anything.
    pub(crate) fn note(&self, ino: Ino, read: Range<u64>, size: u64) -> Option<Range<u64>> {
        if read.end - read.start < READ_MIN {
            return None;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(ino, read, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const FILE: Ino = Ino(7);

    /// Notes READs of `len` bytes at these offsets; what is read ahead, one after the other.
    fn notes(streams: &Streams, offsets: &[u64], len: u64, size: u64) -> Vec<Range<u64>> {
        offsets.iter().filter_map(|at| streams.note(FILE, *at..*at + len, size)).collect()
    }

    #[test]
    fn a_stream_is_read_ahead_once_and_whole() {
        for len in [32 << 10, 64 << 10, MIB] {
            let offsets: Vec<u64> = (0..100 * MIB / len).map(|n| n * len).collect();
            let ahead = notes(&Streams::default(), &offsets, len, 100 * MIB);
            assert_eq!(ahead[0].start, 2 * len, "begins with the second READ");
            assert!(
                ahead.windows(2).all(|w| w[0].end == w[1].start),
                "without gaps, nothing twice: {ahead:?}"
            );
            assert_eq!(ahead.last().map(|r| r.end), Some(100 * MIB));
            assert!(ahead.iter().all(|r| r.end - r.start <= WINDOW_MAX + ALIGN));
        }
    }

    #[test]
    fn calls_that_overtake_each_other_are_a_stream_still() {
        let mut offsets: Vec<u64> = (0..64).map(|n| n * MIB).collect();
        (8..64).step_by(4).for_each(|n| offsets.swap(n, n + 2));
        let ahead = notes(&Streams::default(), &offsets, MIB, 64 * MIB);
        assert!(ahead.windows(2).all(|w| w[0].end <= w[1].start), "{ahead:?}");
        assert_eq!(ahead.last().map(|r| r.end), Some(64 * MIB));
    }

    #[test]
    fn what_jumps_about_or_is_small_is_none() {
        let offsets: Vec<u64> = (0..200).map(|n| n * 37 % 64 * MIB).collect();
        assert_eq!(notes(&Streams::default(), &offsets, MIB, 64 * MIB), []);
        let offsets: Vec<u64> = (0..1000).map(|n| n * 4096).collect();
        assert_eq!(notes(&Streams::default(), &offsets, 4096, 64 * MIB), []);
        assert_eq!(notes(&Streams::default(), &[0, MIB], MIB, 2 * MIB), [], "nothing is left to read");
    }

    #[test]
    fn the_file_longest_not_read_is_forgotten() {
        let streams = Streams::default();
        let mut ahead = 0;
        for n in 0..10 * STREAMS as u64 {
            streams.note(Ino(1000 + n), 0..MIB, 9 * MIB);
            ahead += streams.note(FILE, n * MIB..(n + 1) * MIB, u64::MAX).map_or(0, |r| r.end - r.start);
        }
        assert!(ahead > 9 * STREAMS as u64 * MIB, "it was read all the time, and is known still");
        assert!(streams.0.lock().expect("no thread died").streams.len() <= STREAMS);
    }
}
