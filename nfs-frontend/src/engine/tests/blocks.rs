//! A block service in memory, with checksums and faults.

use super::turns::Turns;
use atoll_base::block::{BlockError, BlockId, BlockService, BlockSpace};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
struct State {
    blocks: HashMap<BlockId, (Bytes, u64)>,
    reserved: u64,
    failing_puts: usize,
    /// Puts that succeed before one fails.
    puts_left: Option<usize>,
    no_space: bool,
    /// Blocks that are not there for so many reads.
    missing: HashMap<BlockId, usize>,
    reads: u64,
}

/// See the module.
pub(crate) struct Blocks {
    state: Mutex<State>,
    capacity: u64,
    turns: Turns,
}

impl Blocks {
    pub(crate) fn new(seed: Option<u64>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), capacity: 1 << 30, turns: Turns::new(seed) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the next puts fail as a disk does.
    pub(crate) fn fail_puts(&self, count: usize) {
        self.lock().failing_puts = count;
    }

    /// Lets one put fail, after so many others.
    pub(crate) fn fail_put(&self, others: usize) {
        self.lock().puts_left = Some(others);
    }

    /// No more room for puts.
    pub(crate) fn fill(&self, full: bool) {
        self.lock().no_space = full;
    }

    /// Lets all blocks be missing for the next read of each.
    pub(crate) fn hide_once(&self) {
        let mut state = self.lock();
        state.missing = state.blocks.keys().map(|id| (*id, 1)).collect();
    }

    /// Flips a bit in each block.
    pub(crate) fn rot(&self) {
        for (data, _) in self.lock().blocks.values_mut() {
            let mut bytes = data.to_vec();
            bytes[0] ^= 1;
            *data = bytes.into();
        }
    }

    /// The frontend's process died: what it had reserved is nobody's.
    pub(crate) fn forget_reservations(&self) {
        self.lock().reserved = 0;
    }

    /// Length of a block, if there is one. (Of use to `examples/stateful` alone, which shares this file.)
    #[allow(dead_code)]
    pub(crate) fn length(&self, id: BlockId) -> Option<usize> {
        self.lock().blocks.get(&id).map(|(data, _)| data.len())
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.lock().reserved
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().blocks.len()
    }

    async fn turns(&self) {
        self.turns.pause().await;
    }
}

impl BlockService for Blocks {
    async fn put_parts(&self, blocks: Vec<(BlockId, Vec<Bytes>)>) -> Result<(), BlockError> {
        self.turns().await;
        let mut state = self.lock();
        if state.failing_puts > 0 {
            state.failing_puts -= 1;
            return Err(BlockError::Failed("injected".into()));
        }
        if let Some(left) = state.puts_left {
            state.puts_left = left.checked_sub(1);
            if left == 0 {
                return Err(BlockError::Failed("injected".into()));
            }
        }
        if state.no_space {
            return Err(BlockError::NoSpace);
        }
        for (id, parts) in blocks {
            let data = parts.concat();
            assert!(!data.is_empty() && data.len() <= atoll_base::limits::BLOCK_MAX as usize);
            let sum = xxh3_64(&data);
            // A copy: what is written is not what callers hold.
            let former = state.blocks.insert(id, (Bytes::from(data), sum));
            assert!(former.is_none(), "a block is written once");
        }
        Ok(())
    }

    async fn get(&self, id: BlockId, offset: u32, len: u32) -> Result<Bytes, BlockError> {
        self.turns().await;
        let mut state = self.lock();
        state.reads += 1;
        if let Some(times) = state.missing.get_mut(&id)
            && *times > 0
        {
            *times -= 1;
            return Err(BlockError::Missing(id));
        }
        let (data, sum) = state.blocks.get(&id).ok_or(BlockError::Missing(id))?;
        if xxh3_64(data) != *sum {
            return Err(BlockError::Damaged { id, offset: 0, detail: "checksum".into() });
        }
        assert!((offset + len) as usize <= data.len(), "reads stay within the block");
        Ok(data.slice(offset as usize..(offset + len) as usize))
    }

    async fn delete(&self, ids: Vec<BlockId>) -> Result<(), BlockError> {
        let mut state = self.lock();
        for id in ids {
            state.blocks.remove(&id);
        }
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<(), BlockError> {
        let mut state = self.lock();
        if state.reserved + bytes > self.capacity {
            return Err(BlockError::NoSpace);
        }
        state.reserved += bytes;
        Ok(())
    }

    fn release(&self, bytes: u64) {
        let mut state = self.lock();
        state.reserved = state.reserved.checked_sub(bytes).expect("released no more than was reserved");
    }

    fn space(&self) -> BlockSpace {
        let used = self.lock().blocks.values().map(|(d, _)| d.len() as u64).sum();
        BlockSpace { total: self.capacity, available: self.capacity - used, used }
    }
}
