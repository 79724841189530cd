//! Large frames on their way past the page cache.
//!
//! Through it, a frame costs a fresh page for each 4 KiB, a copy into it, and later the work of pushing it, or something
//! that somebody reads, out again; and what a sync has to write has piled up until then. Past it, the bytes must lie at
//! aligned addresses, which those of a network's buffers do not: they are copied into memory that is used again and again,
//! and so stays mapped. Their checksums are made on that occasion: reading a block that has lain in memory for a while costs as much as a copy.

use crate::format::record_len;
use crate::writer::Record;
use atoll_base::disk::{Aligned, DIRECT_ALIGN, File};
use atoll_base::limits::BLOCK_MAX;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Bytes that are laid out at most before they are written: room for the longest record.
const STAGE: usize = (4 << 20) + (12 << 10);

const _: () = assert!(record_len(BLOCK_MAX) as usize + DIRECT_ALIGN <= STAGE);

/// From here on a frame goes past the page cache, if nothing else is configured.
pub(crate) const DIRECT_MIN: u64 = 128 << 10;

/// `at` or the next position that a direct write may begin at.
pub(crate) fn align(at: u64) -> u64 {
    at.next_multiple_of(DIRECT_ALIGN as u64)
}

type Stage = Aligned<STAGE>;

/// The first `len` bytes of a stage, to be written at `at`.
struct Job {
    file: Arc<dyn File>,
    stage: Stage,
    len: usize,
    at: u64,
}

/// Two stages, and a thread that writes one while records are laid out in the other.
pub(crate) struct Staging {
    /// Bytes that are laid out before they are written, if records end so.
    step: usize,
    idle: Vec<Stage>,
    /// None only when it ends.
    jobs: Option<mpsc::Sender<Job>>,
    done: mpsc::Receiver<(Stage, io::Result<()>)>,
    is_writing: bool,
    thread: Option<JoinHandle<()>>,
}

impl Staging {
    /// See [`crate::config::Config::stage_bytes`] for `step`.
    pub(crate) fn start(step: usize) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (outbox, done) = mpsc::channel();
        let thread = std::thread::Builder::new().name("block-stage".into()).spawn(move || {
            for Job { file, mut stage, len, at } in inbox {
                let written = file.write_direct_at(&stage.bytes()[..len], at);
                drop(file);
                if outbox.send((stage, written)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            step: step.min(STAGE - DIRECT_ALIGN),
            idle: Vec::new(),
            jobs: Some(jobs),
            done,
            is_writing: false,
            thread: Some(thread),
        })
    }

    /// Writes records, one after the other, and zeros up to the next aligned position, at `offset`, which is aligned.
    /// Not durable before a sync. When it returns, no write is under way, whether it failed or not.
    pub(crate) fn write<'a>(
        &mut self,
        file: &Arc<dyn File>,
        offset: u64,
        records: impl Iterator<Item = &'a Record>,
    ) -> io::Result<()> {
        let mut stage = self.idle.pop().unwrap_or_default();
        let (mut at, mut len) = (offset, 0);
        for record in records {
            let next = record_len(record.header.len) as usize;
            if len >= DIRECT_ALIGN && len + next > self.step {
                // Up to an aligned position; what is behind it goes with the next write.
                let whole = len - len % DIRECT_ALIGN;
                let mut other = self.other()?;
                other.bytes()[..len - whole].copy_from_slice(&stage.bytes()[whole..len]);
                self.begin(Job { file: file.clone(), stage, len: whole, at })?;
                (stage, at, len) = (other, at + whole as u64, len - whole);
            }
            let place = &mut stage.bytes()[len..len + next];
            record.header.lay_out(record.table.as_deref(), &record.data, place);
            len += next;
        }
        let end = len.next_multiple_of(DIRECT_ALIGN);
        stage.bytes()[len..end].fill(0);
        let other = self.other()?;
        let written = file.write_direct_at(&stage.bytes()[..end], at);
        self.idle.extend([other, stage]);
        written
    }

    /// The stage beside the one in hand, once it is written.
    fn other(&mut self) -> io::Result<Stage> {
        if !std::mem::take(&mut self.is_writing) {
            return Ok(self.idle.pop().unwrap_or_default());
        }
        let (stage, written) = self.done.recv().map_err(io::Error::other)?;
        written.map(|()| stage)
    }

    fn begin(&mut self, job: Job) -> io::Result<()> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(io::Error::other("the thread that writes is gone"));
        }
        self.is_writing = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // After a panic of the writer one write may be under way: nobody may open the file anew before it has ended.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes large batches panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::{Header, Kind, UNIT, crc_table};
    use atoll_base::block::BlockId;
    use atoll_base::disk::sim::SimDisk;
    use atoll_base::disk::{Disk, Open, read_exact_at};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::path::Path;

    fn record(id: u128, len: usize, cuts: &[usize], is_summed: bool) -> Record {
        let mut rest = Bytes::from((0..len).map(|i| id as u8 ^ (i % 251) as u8).collect::<Vec<_>>());
        // Parts of any length, and empty ones.
        let mut data: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to(rest.len().min(*cut))).collect();
        data.push(rest);
        let table = is_summed.then(|| crc_table(BlockId(id), &data));
        let header = Header {
            kind: Kind::Block,
            salt: 7,
            id: BlockId(id),
            len: len as u32,
            batch: 1,
            units: id as u32,
        };
        Record { header, table, data }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_bytes_are_the_records_and_zeros(
            records in prop::collection::vec(
                (
                    prop_oneof![1usize..3000, 500_000usize..3_000_000, Just(1 << 20), Just(BLOCK_MAX as usize)],
                    prop::collection::vec(prop_oneof![0usize..9000, Just(4096)], 0..20),
                    any::<bool>(),
                ),
                1..9,
            ),
            step in prop_oneof![Just(4096), 4096usize..1 << 20, Just((2 << 20) + 8192), Just(usize::MAX)],
        ) {
            let disk = SimDisk::new();
            let file = disk.open(Path::new("f"), Open::Create).unwrap();
            let records: Vec<Record> = (1..).zip(records).map(|(i, (len, cuts, is_summed))| record(i, len, &cuts, is_summed)).collect();
            let mut staging = Staging::start(step).unwrap();
            // What an earlier frame left in the memory does not show.
            staging.write(&file, 0, std::iter::once(&record(99, 5000, &[], true))).unwrap();
            staging.write(&file, 8192, records.iter()).unwrap();
            let mut want = Vec::new();
            for r in &records {
                let data = r.data.concat();
                want.extend(r.header.encode(&crc_table(r.header.id, &[&data])));
                want.extend_from_slice(&data);
                want.resize(want.len().next_multiple_of(UNIT as usize), 0);
            }
            want.resize(want.len().next_multiple_of(DIRECT_ALIGN), 0);
            prop_assert_eq!(file.len().unwrap(), 8192 + want.len() as u64);
            let mut got = vec![0; want.len()];
            read_exact_at(&*file, &mut got, 8192).unwrap();
            prop_assert!(got == want);
        }
    }

    #[test]
    fn after_a_failed_write_nothing_is_written() {
        let disk = SimDisk::new();
        let file = disk.open(Path::new("f"), Open::Create).unwrap();
        let records: Vec<Record> = (1..9).map(|i| record(i, 1 << 20, &[], false)).collect();
        let step = 1 << 20;
        let mut staging = Staging::start(step).unwrap();
        for failing in [true, false] {
            if failing {
                disk.fail_next_writes(1);
            }
            assert_eq!(staging.write(&file, 0, records.iter()).is_err(), failing);
            // Of the first stage something may be there; the next was not begun.
            assert_eq!(file.len().unwrap() <= step as u64 + 8192, failing);
        }
    }
}
