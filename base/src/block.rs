//! Immutable blocks: their identity and the service that keeps them.

use crate::id::Epoch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::sync::Arc;

/// Names one immutable block, for ever. The writer's epoch in the upper half lets the collector tell blocks of
/// a fenced writer (which no command can reference any more) from those that a live writer is about to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId(pub u128);

impl BlockId {
    /// The `seq`-th block of a writer's epoch.
    pub const fn new(epoch: Epoch, seq: u64) -> Self {
        Self((epoch.0 as u128) << 64 | seq as u128)
    }

    /// Epoch of the writer.
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 64) as u32)
    }

    /// Sequence number within the epoch.
    pub const fn seq(self) -> u64 {
        self.0 as u64
    }
}

/// Why a block operation failed. Cloneable, since one failed flush answers many waiters.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlockError {
    /// No such block: the reader's extents are out of date, or data were lost.
    #[error("block {0:?} does not exist")]
    Missing(BlockId),
    /// The block's bytes do not match their checksum.
    #[error("block {id:?} is damaged at byte {offset}: {detail}")]
    Damaged {
        /// The block.
        id: BlockId,
        /// First byte of the damaged chunk within the block.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// No room for new blocks; reads and deletions go on.
    #[error("the block store has no room left")]
    NoSpace,
    /// A write or an fsync failed; the store takes no more writes until it is opened again.
    #[error("the block store failed and takes no more writes: {0}")]
    Failed(Arc<str>),
    /// Reading failed.
    #[error("reading block {id:?} failed: {detail}")]
    Io {
        /// The block.
        id: BlockId,
        /// The system's error.
        detail: Arc<str>,
    },
}

/// Room for data, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSpace {
    /// All that the store could hold.
    pub total: u64,
    /// What new blocks may still take, net of reservations and of the reserve that deletions need.
    pub available: u64,
    /// Bytes in live blocks.
    pub used: u64,
}

/// The block store as a frontend sees it. All operations are safe to run concurrently.
pub trait BlockService: Send + Sync + 'static {
    /// Stores blocks durably: when it returns `Ok`, all are fsynced. A block's bytes are 1..=`BLOCK_MAX` long.
    /// Nothing points at them until a metadata command does.
    fn put(&self, blocks: Vec<(BlockId, Bytes)>) -> impl Future<Output = Result<(), BlockError>> + Send {
        self.put_parts(blocks.into_iter().map(|(id, data)| (id, vec![data])).collect())
    }

    /// The same for blocks whose bytes are scattered: the parts of each, in order.
    fn put_parts(
        &self,
        blocks: Vec<(BlockId, Vec<Bytes>)>,
    ) -> impl Future<Output = Result<(), BlockError>> + Send;

    /// Reads `len` bytes at `offset` of a block, verified against the checksums. Past-the-end is a caller's
    /// bug and answered with `Damaged`.
    fn get(
        &self,
        id: BlockId,
        offset: u32,
        len: u32,
    ) -> impl Future<Output = Result<Bytes, BlockError>> + Send;

    /// These will be read soon, in this order: so many bytes of each block. A hint; never waits, and what it reads ahead is
    /// bounded by the store.
    fn expect(&self, _pieces: &[(BlockId, u32)]) {}

    /// Frees blocks. Idempotent; a block that does not exist is ignored. Returns once the deletion would
    /// survive a crash, or can be repeated safely.
    fn delete(&self, ids: Vec<BlockId>) -> impl Future<Output = Result<(), BlockError>> + Send;

    /// Reserves room for `bytes` of data that a caller has accepted but not yet put; `NoSpace` if there is
    /// none. The room is returned by [`BlockService::release`].
    fn reserve(&self, bytes: u64) -> Result<(), BlockError>;

    /// Gives back room taken by [`BlockService::reserve`].
    fn release(&self, bytes: u64);

    /// Room left.
    fn space(&self) -> BlockSpace;
}
