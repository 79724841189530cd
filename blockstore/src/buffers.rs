//! Buffers of large reads, used again: a fresh one of 1 MiB costs as much in page faults and zeroing as the copy into
//! it, and where a hypervisor took the memory back, much more. Pooled ones begin where direct reads may. A buffer comes back when the last slice of the bytes that were returned from it is dropped.

use crate::lock::lock;
use atoll_base::disk::DIRECT_ALIGN;
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Shorter ones are left to the allocator.
const POOLED_MIN: usize = 64 << 10;

/// Bytes that idle buffers may hold: a window of one stream read ahead, and the answers under way before it.
const IDLE_MAX: usize = 16 << 20;

#[derive(Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Idle>>);

/// A buffer of which `len` bytes from `start` are in use.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    home: Option<Buffers>,
}

impl Buffers {
    /// A buffer of `len` bytes with any content. From 64 KiB on it begins at a multiple of [`DIRECT_ALIGN`].
    pub(crate) fn get(&self, len: usize) -> Buffer {
        if len < POOLED_MIN {
            return Buffer { bytes: vec![0; len], start: 0, len, home: None };
        }
        let room = len + DIRECT_ALIGN;
        let idle = {
            let mut idle = lock(&self.0);
            // The one used last, which is the warmest. Not one far larger than needed: whoever keeps a slice of it keeps all of it.
            let fit = idle.buffers.iter().rposition(|b| b.len() >= room && b.len() <= 2 * room);
            fit.map(|i| {
                let buffer = idle.buffers.swap_remove(i);
                idle.bytes -= buffer.len();
                buffer
            })
        };
        let bytes = idle.unwrap_or_else(|| vec![0; room]);
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGN);
        Buffer { bytes, start, len, home: Some(self.clone()) }
    }
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(mut self) -> Bytes {
        if self.home.is_some() { Bytes::from_owner(self) } else { std::mem::take(&mut self.bytes).into() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut idle = lock(&home.0);
            if idle.bytes + self.bytes.len() <= IDLE_MAX {
                idle.bytes += self.bytes.len();
                idle.buffers.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_stay_bounded() {
        let buffers = Buffers::default();
        let mut first = buffers.get(100_000);
        first.as_mut().fill(1);
        let bytes = first.into_bytes();
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!(lock(&buffers.0).buffers.len(), 0, "a slice keeps it");
        drop(slice);
        assert_eq!(lock(&buffers.0).bytes, 100_000 + DIRECT_ALIGN);
        assert_eq!(buffers.get(90_000).as_ref().len(), 90_000);
        assert_eq!(lock(&buffers.0).buffers.len(), 1, "used and returned");
        drop((0..40).map(|_| buffers.get(1 << 20)).collect::<Vec<_>>());
        assert!(lock(&buffers.0).bytes <= IDLE_MAX);
        assert_eq!(buffers.get(10).into_bytes().len(), 10);
    }
}
