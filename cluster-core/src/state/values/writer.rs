//! Values on their way into the file, within one flush.

use super::slots::{PER_ROW, Slots};
use super::{FILE, Reference, SLOT, SYNC_VALUES, Values, slots_of, summed, unsummed};
use crate::state::error::StateError;
use atoll_base::checksum::crc32c;
use atoll_base::disk::{Aligned, File};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Bytes of one write.
const STAGE: usize = 1 << 20;

/// Runs of neighbours of at least so many bytes go past the page cache, as large batches of blocks do. What comes in smaller ones is little, and is read soon
/// more often.
const DIRECT_MIN: usize = 256 << 10;

/// Free bytes at the end of the file that are not worth giving back.
const KEPT_BEYOND: u64 = 64 << 20;

/// Who writes the file. There is one.
pub(in crate::state) struct Writer {
    values: Arc<Values>,
    slots: Slots,
    /// Values not yet written: they belong from `start` on, and end before the slot `next`.
    stage: Stage,
    unsynced: bool,
}

#[derive(Default)]
struct Stage {
    memory: Aligned<STAGE>,
    len: usize,
    slot: u64,
}

impl Stage {
    fn write_to(&mut self, file: &dyn File) -> io::Result<()> {
        let (len, place) = (std::mem::take(&mut self.len), self.slot * SLOT as u64);
        self.slot += (len / SLOT) as u64;
        let bytes = &self.memory.bytes()[..len];
        match len {
            0 => Ok(()),
            DIRECT_MIN.. => file.write_direct_at(bytes, place),
            _ => file.write_at(&[IoSlice::new(bytes)], place),
        }
    }

    /// Appends a value, which belongs at `slot`, and zeros up to the next slot.
    fn append(&mut self, file: &dyn File, slot: u64, mut value: &[u8]) -> io::Result<()> {
        if self.slot + (self.len / SLOT) as u64 != slot {
            self.write_to(file)?;
            self.slot = slot;
        }
        while !value.is_empty() {
            if self.len == STAGE {
                self.write_to(file)?;
            }
            let len = self.len;
            let room = &mut self.memory.bytes()[len..];
            let n = value.len().min(room.len());
            room[..n].copy_from_slice(&value[..n]);
            let padded = n.next_multiple_of(SLOT);
            room[n..padded].fill(0);
            value = &value[n..];
            self.len += padded;
        }
        Ok(())
    }
}

impl Writer {
    /// `rows` are those of redb that tell which slots are used, by number.
    pub(in crate::state) fn new(
        values: Arc<Values>,
        rows: impl IntoIterator<Item = (u64, Vec<u8>)>,
    ) -> Result<Self, StateError> {
        let len = values.file_len()?;
        let mut slots = Slots::default();
        for (row, bytes) in rows {
            // The file is as long as what is used: of what lies behind its end a row says nothing, or that it is free.
            let possible = |bytes: &&[u8]| bytes.is_empty() || row <= len / (SLOT as u64 * PER_ROW);
            let bytes = unsummed(&bytes).filter(possible);
            let damaged = || StateError::Damaged(format!("row {row} of the slots of {FILE}"));
            slots.load(row, bytes.ok_or_else(damaged)?);
        }
        let end = slots.end() * SLOT as u64;
        if len < end {
            return Err(StateError::Damaged(format!("{FILE} has {len} bytes of at least {end}")));
        }
        Ok(Self { values, slots, stage: Stage::default(), unsynced: false })
    }

    /// Begins a flush. Gives room at the end of the file back to the disk, if it is much. If the disk is `tight`, every gap is filled before the
    /// file grows.
    pub(in crate::state) fn begin(&mut self, tight: bool) -> Result<(), StateError> {
        let oldest = {
            let readers = self.values.readers();
            readers.by_commit.first_key_value().map_or(readers.commit, |(commit, _)| *commit)
        };
        self.slots.release(oldest, tight);
        let end = self.slots.end() * SLOT as u64;
        if self.values.file_len()? > end + KEPT_BEYOND {
            self.values.file.set_len(end)?;
        }
        Ok(())
    }

    /// Stores a value. Returns what its row is to say.
    pub(in crate::state) fn put(&mut self, value: &[u8]) -> Result<Vec<u8>, StateError> {
        let len = u32::try_from(value.len()).map_err(StateError::store)?;
        let slots = self.slots.take(slots_of(value.len()));
        self.unsynced = true;
        self.stage.append(&*self.values.file, slots.start, value)?;
        Ok(Reference { slot: slots.start, len, sum: crc32c(value) }.encode())
    }

    /// A row that said so is replaced or removed. If what it said is damaged, nobody knows which slots are free now: they stay used, which costs
    /// room and nothing else.
    pub(in crate::state) fn drop(&mut self, reference: &[u8]) -> Result<(), StateError> {
        let Some(at) = Reference::decode(reference) else {
            tracing::error!(
                "a row with a damaged place in {FILE} is replaced or removed: the slots that it used stay used"
            );
            return Ok(());
        };
        if self.slots.drop(at.slots()) {
            Ok(())
        } else {
            Err(StateError::Damaged("a row refers to a value that is not there".into()))
        }
    }

    /// Makes durable what was put, before anything refers to it. Returns the rows to be written with the same transaction: number, content.
    pub(in crate::state) fn sync(&mut self) -> Result<Vec<(u64, Vec<u8>)>, StateError> {
        if std::mem::take(&mut self.unsynced) {
            self.stage.write_to(&*self.values.file)?;
            self.values.file.sync(SYNC_VALUES)?;
        }
        Ok(self.slots.take_changed().into_iter().map(|row| (row, summed(self.slots.row(row)))).collect())
    }

    /// The transaction is committed. Who reads redb's file from now on sees it.
    pub(in crate::state) fn committed(&mut self) {
        let mut readers = self.values.readers();
        self.slots.committed(readers.commit);
        readers.commit += 1;
    }

    /// redb's file is another one from now on, which refers to nothing here.
    pub(in crate::state) fn replaced(&mut self) {
        let mut readers = self.values.readers();
        self.slots.drop_all(readers.commit);
        readers.commit += 1;
    }

    /// Bytes of the file that the next flush can fill, if the disk is tight. Between two flushes.
    pub(in crate::state) fn free_bytes(&mut self) -> Result<u64, StateError> {
        self.begin(true)?;
        Ok(self.values.file_len()?.saturating_sub(self.slots.taken() * SLOT as u64))
    }
}
