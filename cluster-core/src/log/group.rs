//! The bytes of one group, as they go to the disk: whole blocks, past the page cache.
//!
//! Groups follow each other without a gap. So the block in which one begins may hold the end of the one before, which is durable already: it is written again
//! with the same bytes, and these stay what they are even if that write is torn. (Through the page cache it is no different, the system writes
//! whole pages.) What a segment held behind the group, in its last block, becomes zeros.

use super::segment::Segment;
use atoll_base::disk::{DIRECT_ALIGN, read_exact_at};
use std::io;

const BLOCK: usize = DIRECT_ALIGN;

/// Memory that is kept for the next group at most.
const KEPT: usize = 1 << 20;

/// See the module. Used again for each group.
#[derive(Default)]
pub(super) struct GroupBuffer {
    /// From `skew` on the blocks of the segment, the first one that in which the group begins.
    bytes: Vec<u8>,
    /// Bytes to the first multiple of [`BLOCK`] in memory.
    skew: usize,
    /// Number of the segment, and where in it the last group ends. None while one is put in.
    end: Option<(u64, u32)>,
    /// What its last block has up to there.
    tail: Vec<u8>,
}

impl GroupBuffer {
    /// Begins a group of `len` bytes at `start` of a segment. Everything before it there is durable.
    ///
    /// # Errors
    /// Of reading the beginning of the block, if the last group did not end there.
    pub(super) fn begin(&mut self, segment: &Segment, start: u32, len: usize) -> io::Result<()> {
        if self.end.take() != Some((segment.number, start)) {
            let before = start % BLOCK as u32;
            self.tail.resize(before as usize, 0);
            read_exact_at(&*segment.file, &mut self.tail, u64::from(start - before))?;
        }
        self.bytes.clear();
        // Before the first block, and behind the group in its last one. What is put in must not move any more.
        self.bytes.reserve(BLOCK + self.tail.len() + len + BLOCK);
        self.skew = self.bytes.as_ptr().align_offset(BLOCK);
        self.bytes.resize(self.skew, 0);
        self.bytes.extend_from_slice(&self.tail);
        Ok(())
    }

    /// Where to put the bytes of the group.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Writes the group, which ends at `end`. Not durable before a sync.
    pub(super) fn write(&mut self, segment: &Segment, end: u32) -> io::Result<()> {
        let filled = self.bytes.len();
        let first = end as usize - (filled - self.skew);
        let behind = end.next_multiple_of(BLOCK as u32).min(segment.len);
        self.bytes.resize(filled + (behind - end) as usize, 0);
        let blocks = &self.bytes[self.skew..];
        debug_assert!(
            blocks.as_ptr().addr().is_multiple_of(BLOCK),
            "the bytes moved while a group was put in"
        );
        segment.file.write_direct_at(blocks, first as u64)?;
        self.tail.clear();
        self.tail.extend_from_slice(&self.bytes[filled - end as usize % BLOCK..filled]);
        self.end = Some((segment.number, end));
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::disk::sim::SimDisk;
    use proptest::prelude::*;
    use std::io::IoSlice;
    use std::path::Path;

    const SEGMENT: usize = 64 * BLOCK;
    const START: usize = 512;
    /// What lies there from an earlier life of the segment.
    const STALE: u8 = 0xee;

    /// A group's length, and whether the buffer is another one than that of the group before, as after a restart.
    fn groups() -> impl Strategy<Value = Vec<(usize, bool)>> {
        let len = prop_oneof![1..64usize, 64..BLOCK, Just(BLOCK), BLOCK..8 * BLOCK];
        prop::collection::vec((len, prop::bool::weighted(0.2)), 1..24)
    }

    proptest! {
        #[test]
        fn groups_follow_each_other_and_nothing_before_them_changes(groups in groups()) {
            let sim = SimDisk::new();
            let segment = Segment::prepare(&sim, Path::new(""), 1, SEGMENT as u32).unwrap();
            segment.file.write_at(&[IoSlice::new(&[STALE; SEGMENT - START])], START as u64).unwrap();
            let mut want = vec![0; SEGMENT];
            segment.file.read_at(&mut want, 0).unwrap();
            let (mut buffer, mut at) = (GroupBuffer::default(), START);
            for (n, (len, is_fresh)) in groups.into_iter().enumerate() {
                if at + len > SEGMENT {
                    break;
                }
                if is_fresh {
                    buffer = GroupBuffer::default();
                }
                let bytes: Vec<u8> = (0..len).map(|i| (i / 7 + n) as u8).collect();
                buffer.begin(&segment, at as u32, len).unwrap();
                buffer.bytes().extend_from_slice(&bytes);
                buffer.write(&segment, (at + len) as u32).unwrap();
                want[at..at + len].copy_from_slice(&bytes);
                at += len;
                want[at..at.next_multiple_of(BLOCK)].fill(0);
                let mut got = vec![0; SEGMENT];
                segment.file.read_at(&mut got, 0).unwrap();
                prop_assert!(got == want, "after group {n} of {len} bytes, up to {at}");
            }
        }
    }

    #[test]
    fn a_large_group_leaves_little_memory_behind_and_the_next_one_its_place() {
        let sim = SimDisk::new();
        let large = 2 * KEPT;
        let segment = Segment::prepare(&sim, Path::new(""), 1, 2 * large as u32).unwrap();
        let mut buffer = GroupBuffer::default();
        let mut at = START as u32;
        for (byte, len) in [(1, 100), (2, large), (3, 100), (4, 100)] {
            buffer.begin(&segment, at, len).unwrap();
            buffer.bytes().extend(std::iter::repeat_n(byte, len));
            at += len as u32;
            buffer.write(&segment, at).unwrap();
            assert!(buffer.bytes.capacity() <= KEPT, "after {len} bytes");
        }
        let mut got = vec![0; large + 300];
        segment.file.read_at(&mut got, START as u64).unwrap();
        assert!(got == [vec![1; 100], vec![2; large], vec![3; 100], vec![4; 100]].concat());
    }
}
