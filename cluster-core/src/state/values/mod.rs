//! Large values, in a file beside redb's.
//!
//! In redb a value of 4 KiB takes a leaf of two pages of its own: written one by one, copied and summed whenever a neighbour in the tree moves, and in
//! the way of what is small in its page cache. Here it takes a slot: a flush writes the values that came with it next to each other, with a
//! few large writes, and redb's row says where, how long, and their checksum.
//!
//! Invariants:
//! - A slot that some state of redb's file refers to is never written: neither the last committed state, nor one that is still read ([`Pin`]).
//! - Values are on the disk ([`SYNC_VALUES`]) before the transaction commits that refers to them.
//! - Which slots are used is told by rows of the same transaction, so after a crash it agrees with who refers to them.

mod slots;
mod writer;

pub(super) use writer::Writer;

use super::error::StateError;
use atoll_base::checksum::crc32c;
use atoll_base::disk::{Disk, File, Open, read_exact_at};
use atoll_model::kv::KvError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The file's name within the state's directory.
pub(super) const FILE: &str = "state.values";

/// Site of the syncs that make values durable before they are referred to, see [`atoll_base::disk`].
pub const SYNC_VALUES: &str = "state.values";

/// Bytes of a slot: those of most WRITEs that are stored as they come, and what direct writes want.
pub(super) const SLOT: usize = 4096;

/// Shorter values stay in redb, where several share a page.
pub(super) const VALUE_MIN: usize = 2048;

// What is compared when it is replaced is never found damaged on one member alone.
const _: () = assert!(atoll_model::limits::XATTR_COMPARED_MAX < VALUE_MIN);

/// Longer than any value. What says so is damaged.
const VALUE_MAX: usize = 64 << 20;

/// Where a value is. Stored in its row: slot (8 bytes, little-endian), length (4), CRC-32C (4), and the CRC-32C of these (4): redb does not
/// look at its own when it reads, and a wrong slot would let another value's go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    slot: u64,
    len: u32,
    sum: u32,
}

impl Reference {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20);
        bytes.extend_from_slice(&self.slot.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        summed(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (slot, rest) = unsummed(bytes)?.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (slot, len) = (u64::from_le_bytes(*slot), u32::from_le_bytes(*len));
        let found = Self { slot, len, sum: u32::from_le_bytes(rest.try_into().ok()?) };
        // What follows need not think of overflow.
        (slot < 1 << 48 && (VALUE_MIN..=VALUE_MAX).contains(&(len as usize))).then_some(found)
    }

    fn slots(self) -> Range<u64> {
        self.slot..self.slot + slots_of(self.len as usize)
    }
}

/// With their CRC-32C behind them.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// What [`summed`] was given; `None` if it is not that any more.
fn unsummed(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, sum) = bytes.split_last_chunk()?;
    (crc32c(bytes) == u32::from_le_bytes(*sum)).then_some(bytes)
}

fn slots_of(len: usize) -> u64 {
    len.div_ceil(SLOT) as u64
}

/// The file, for those who read it.
pub(super) struct Values {
    file: Arc<dyn File>,
    /// How many read redb's file as of which commit.
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    by_commit: BTreeMap<u64, usize>,
    /// The newest commit.
    commit: u64,
}

/// Somebody reads redb's file as of some commit: what that refers to stays.
pub(super) struct Pin {
    values: Arc<Values>,
    commit: u64,
}

impl Values {
    /// Opens or makes the file. Its entry is not durable yet.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<Arc<Self>, StateError> {
        let file = disk.open(&dir.join(FILE), Open::Create)?;
        Ok(Arc::new(Self { file, readers: Mutex::default() }))
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file.
    pub(super) fn file_len(&self) -> Result<u64, StateError> {
        Ok(self.file.len()?)
    }

    /// For who reads redb's file as of now.
    pub(super) fn pin(self: &Arc<Self>) -> Pin {
        let mut readers = self.readers();
        let commit = readers.commit;
        *readers.by_commit.entry(commit).or_default() += 1;
        drop(readers);
        Pin { values: self.clone(), commit }
    }

    fn read(&self, at: Reference) -> Result<Vec<u8>, KvError> {
        let mut bytes = vec![0; at.len as usize];
        let place = at.slot * SLOT as u64;
        read_exact_at(&*self.file, &mut bytes, place)
            .map_err(|e| KvError::Failed(format!("{FILE} at {place}: {e}")))?;
        if crc32c(&bytes) != at.sum {
            return Err(KvError::Damaged(format!(
                "{FILE} at {place}: the checksum of {} bytes does not match",
                at.len
            )));
        }
        Ok(bytes)
    }
}

/// What a row says, whose value is elsewhere.
fn referred(reference: &[u8]) -> Result<Reference, KvError> {
    let at = Reference::decode(reference);
    at.ok_or_else(|| KvError::Damaged(format!("a row refers to an impossible place of {FILE}")))
}

/// Length of a value that a row refers to.
pub(super) fn len(reference: &[u8]) -> Result<usize, KvError> {
    Ok(referred(reference)?.len as usize)
}

impl Pin {
    /// The value that a row read under this pin refers to.
    pub(super) fn read(&self, reference: &[u8]) -> Result<Vec<u8>, KvError> {
        self.values.read(referred(reference)?)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut readers = self.values.readers();
        if let Some(count) = readers.by_commit.get_mut(&self.commit) {
            *count -= 1;
            if *count == 0 {
                readers.by_commit.remove(&self.commit);
            }
        }
    }
}
