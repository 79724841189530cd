//! Memory for reads and writes past the page cache: few large regions that are used again and again, on huge pages where the
//! system has them.
//!
//! Used again, because a fresh page has to be zeroed, and where a hypervisor took it back, fetched from there (several microseconds
//! for each 4 KiB). On huge pages, because a direct read hands the disk a list of physically contiguous pieces: of 4 KiB pages one
//! MiB has 256, more than a request to the usual disk of a guest may have, and each costs on both sides. Measured there: 1.2 to
//! 2.8 GB/s with small pages, 2.8 to 3.9 with huge ones, mostly for less CPU. Where the system has none, small pages do.

use crate::lock::lock;
use bytes::Bytes;
use memmap2::{Advice, MmapMut};
use std::io;
use std::sync::{Arc, Mutex};

/// A huge page of the usual architectures.
const HUGE: usize = 2 << 20;

/// One region, whose usable part begins on a huge page.
pub(crate) struct Region {
    memory: MmapMut,
    start: usize,
    len: usize,
}

impl Region {
    /// `len` bytes. Not one of them takes memory before it is used.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let memory = MmapMut::map_anon(len + HUGE)?;
        let start = memory.as_ptr().align_offset(HUGE);
        // A hint; and only for whole huge pages: what is left over takes small ones.
        let _ = memory.advise_range(Advice::HugePage, start, len / HUGE * HUGE);
        Ok(Self { memory, start, len })
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

#[derive(Default)]
struct Regions {
    idle: Vec<Region>,
    /// Idle ones included.
    made: usize,
}

/// A bounded number of regions of one length. They are made when first needed, and kept.
#[derive(Clone)]
pub(crate) struct Pool {
    regions: Arc<Mutex<Regions>>,
    len: usize,
    most: usize,
}

/// A region on loan; it comes back when the last slice of its bytes is dropped.
pub(crate) struct Loan {
    region: Option<Region>,
    home: Pool,
}

impl Pool {
    /// At most `most` regions of `len` bytes.
    pub(crate) fn new(len: usize, most: usize) -> Self {
        Self { regions: Arc::default(), len, most }
    }

    /// A region with any content; `None` if all are on loan.
    pub(crate) fn get(&self) -> Option<Loan> {
        let mut regions = lock(&self.regions);
        let region = match regions.idle.pop() {
            Some(region) => region,
            None if regions.made < self.most => {
                let region = Region::new(self.len).ok()?;
                regions.made += 1;
                region
            }
            None => return None,
        };
        Some(Loan { region: Some(region), home: self.clone() })
    }

    /// Bytes in regions, on loan or idle.
    pub(crate) fn bytes(&self) -> u64 {
        (lock(&self.regions).made * self.len) as u64
    }

    /// Most bytes in regions.
    pub(crate) fn limit(&self) -> u64 {
        (self.most * self.len) as u64
    }
}

impl Loan {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        self.region.as_mut().expect("there until it is dropped").as_mut()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        self.region.as_ref().expect("there until it is dropped").as_ref()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        lock(&self.home.regions).idle.extend(self.region.take());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::disk::DIRECT_ALIGN;

    #[test]
    fn regions_come_back_with_their_last_slice_and_are_bounded() {
        let pool = Pool::new(HUGE + 4096, 2);
        let mut first = pool.get().unwrap();
        assert_eq!(first.as_mut().len(), HUGE + 4096);
        assert!(first.as_ref().as_ptr().addr().is_multiple_of(DIRECT_ALIGN));
        first.as_mut().fill(1);
        let slice = first.into_bytes().slice(5..10);
        let second = pool.get().unwrap();
        assert!(pool.get().is_none(), "both are on loan");
        drop(slice);
        assert!(pool.get().is_some_and(|again| again.as_ref()[7] == 1));
        drop(second);
        assert_eq!((pool.bytes(), pool.limit()), (2 * (HUGE as u64 + 4096), 2 * (HUGE as u64 + 4096)));
    }
}
