//! The bytes of one group, as they go to the disk: whole blocks, past the page cache.
//!
//! Groups follow each other without a gap. So the block in which one begins may hold the end of the one before, which is durable already: it is written again
//! with the same bytes, and these stay what they are even if that write is torn. (Through the page cache it is no different, the system writes
//! whole pages.) What a segment held behind the group, in its last block, becomes zeros.
//!
//! A group that follows another is one durable write, with which the disk goes on while this thread does something else; the first one in a segment, since
//! the log was opened or the segment was taken, is followed by a sync of the whole file.

use super::segment::Segment;
use atoll_base::disk::{DIRECT_ALIGN, SyncedWrite, read_exact_at};
use std::io;
use std::ops::Range;

const BLOCK: usize = DIRECT_ALIGN;

/// Memory that is kept for the next group at most.
const KEPT: usize = 1 << 20;

/// Site of the writes that are durable by themselves.
pub(super) const SITE_WRITE: &str = "wal.append";
/// Site of the syncs of a whole file: of the first group there, and where the system knows no durable write.
pub(super) const SITE_FILE: &str = "wal.append.file";

/// See the module. Used again for each group.
#[derive(Default)]
pub(super) struct GroupBuffer {
    /// From `skew` on the blocks of the segment, the first one that in which the group begins. The disk has them while `under_way`.
    bytes: Vec<u8>,
    /// Bytes to the first multiple of [`BLOCK`] in memory.
    skew: usize,
    /// Number of the segment, and where in it the last group ends. None while one is put in.
    end: Option<(u64, u32)>,
    /// What its last block has up to there.
    tail: Vec<u8>,
    /// Nothing of the segment but the group is to be made durable: the group before it was written by this.
    follows: bool,
    under_way: Option<Box<dyn SyncedWrite>>,
    /// Of `bytes` what was or is being written, and where.
    written: (Range<usize>, u64),
}

impl GroupBuffer {
    /// Begins a group of `len` bytes at `start` of a segment. Everything before it there is durable.
    ///
    /// # Errors
    /// Of reading the beginning of the block, if the last group did not end there.
    pub(super) fn begin(&mut self, segment: &Segment, start: u32, len: usize) -> io::Result<()> {
        self.follows = self.end.take() == Some((segment.number, start));
        if !self.follows {
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

    /// Hands the group, which ends at `end`, to the disk. Not durable before [`GroupBuffer::settle`].
    pub(super) fn write(&mut self, segment: &Segment, end: u32) -> io::Result<()> {
        let filled = self.bytes.len();
        let first = u64::from(end) - (filled - self.skew) as u64;
        let behind = end.next_multiple_of(BLOCK as u32).min(segment.len);
        self.bytes.resize(filled + (behind - end) as usize, 0);
        let blocks = self.skew..self.bytes.len();
        debug_assert!(
            self.bytes[blocks.clone()].as_ptr().addr().is_multiple_of(BLOCK),
            "the bytes moved while a group was put in"
        );
        self.tail.clear();
        self.tail.extend_from_slice(&self.bytes[filled - end as usize % BLOCK..filled]);
        self.end = Some((segment.number, end));
        self.written = (blocks.clone(), first);
        // What else of the file is not durable, such as a renewed header, only a sync of all of it covers.
        if self.follows {
            let bytes = std::mem::take(&mut self.bytes);
            match segment.file.begin_synced_write(bytes, blocks.clone(), first, SITE_WRITE) {
                Ok(write) => {
                    self.under_way = Some(write);
                    return Ok(());
                }
                Err(bytes) => self.bytes = bytes,
            }
        }
        segment.file.write_direct_at(&self.bytes[blocks], first)
    }

    /// Waits until the group is durable.
    pub(super) fn settle(&mut self, segment: &Segment) -> io::Result<()> {
        match self.under_way.take() {
            None => segment.file.sync(SITE_FILE)?,
            Some(write) => {
                let (bytes, done) = write.wait();
                self.bytes = bytes;
                let ((blocks, first), done) = (self.written.clone(), done?);
                let rest = blocks.start + done..blocks.end;
                if !rest.is_empty() {
                    segment.file.write_direct_at(&self.bytes[rest], first + done as u64)?;
                    segment.file.sync(SITE_FILE)?;
                }
            }
        }
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
    use atoll_base::disk::wrap::{AroundFile, WrapFile};
    use atoll_base::disk::{Begun, Disk, File, Open};
    use proptest::prelude::*;
    use std::io::IoSlice;
    use std::path::Path;
    use std::sync::Arc;

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
                buffer.settle(&segment).unwrap();
                want[at..at + len].copy_from_slice(&bytes);
                at += len;
                want[at..at.next_multiple_of(BLOCK)].fill(0);
                let mut got = vec![0; SEGMENT];
                segment.file.read_at(&mut got, 0).unwrap();
                prop_assert!(got == want, "after group {n} of {len} bytes, up to {at}");
            }
        }
    }

    /// A file that takes the first block of a durable write, or none of it, and knows no other.
    struct Short(Arc<dyn File>, usize);

    impl AroundFile for Short {
        fn inner(&self) -> &dyn File {
            &*self.0
        }

        fn begin_synced_write(
            &self,
            data: Vec<u8>,
            part: Range<usize>,
            offset: u64,
            site: &'static str,
        ) -> Begun {
            let taken = part.start..part.start + self.1;
            self.0.begin_synced_write(data, taken, offset, site)
        }
    }

    #[test]
    fn what_the_system_did_not_take_is_written_in_another_way() {
        for taken in [0, BLOCK, 2 * BLOCK] {
            let sim = SimDisk::new();
            let mut segment = Segment::prepare(&sim, Path::new(""), 1, SEGMENT as u32).unwrap();
            sim.sync_dir(Path::new(""), "dir").unwrap();
            segment.file = Arc::new(WrapFile(Short(segment.file, taken)));
            let (mut buffer, mut at) = (GroupBuffer::default(), START);
            let groups = [100, 3 * BLOCK, 3 * BLOCK];
            for (n, len) in groups.into_iter().enumerate() {
                buffer.begin(&segment, at as u32, len).unwrap();
                buffer.bytes().extend(std::iter::repeat_n(n as u8 + 1, len));
                at += len;
                buffer.write(&segment, at as u32).unwrap();
                buffer.settle(&segment).unwrap();
            }
            let path = segment.path.clone();
            let file = sim.crash(0).open(&path, Open::Read).unwrap();
            let mut got = vec![0; at - START];
            read_exact_at(&*file, &mut got, START as u64).unwrap();
            let want: Vec<u8> =
                groups.iter().enumerate().flat_map(|(n, len)| vec![n as u8 + 1; *len]).collect();
            assert!(got == want, "{taken} bytes taken");
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
            buffer.settle(&segment).unwrap();
            assert!(buffer.bytes.capacity() <= KEPT, "after {len} bytes");
        }
        let mut got = vec![0; large + 300];
        segment.file.read_at(&mut got, START as u64).unwrap();
        assert!(got == [vec![1; 100], vec![2; large], vec![3; 100], vec![4; 100]].concat());
    }
}
