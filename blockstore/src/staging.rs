//! Large frames on their way past the page cache.
//!
//! Through it, a frame costs a fresh page for each 4 KiB, a copy into it, and later the work of pushing it, or something
//! that somebody reads, out again; and what a sync has to write has piled up until then. Past it, the bytes must lie at
//! aligned addresses, which those of a network's buffers do not: they are copied into memory that is used again and again,
//! and so stays in the processor's cache and mapped.

use atoll_base::disk::{Aligned, DIRECT_ALIGN, File};
use std::io;

/// Bytes of one write: enough for a fast disk to stream at its full rate.
const STAGE: usize = 4 << 20;

/// From here on a frame goes past the page cache, if nothing else is configured.
pub(crate) const DIRECT_MIN: u64 = 128 << 10;

/// `at` or the next position that a direct write may begin at.
pub(crate) fn align(at: u64) -> u64 {
    at.next_multiple_of(DIRECT_ALIGN as u64)
}

/// The memory.
#[derive(Default)]
pub(crate) struct Staging {
    memory: Aligned<STAGE>,
}

impl Staging {
    /// Writes `parts`, one after the other, and zeros up to the next aligned position, at `offset`, which is aligned.
    /// Not durable before a sync.
    pub(crate) fn write<'a>(
        &mut self,
        file: &dyn File,
        offset: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let stage = self.memory.bytes();
        let (mut at, mut len) = (offset, 0);
        for mut part in parts {
            while !part.is_empty() {
                let n = part.len().min(STAGE - len);
                stage[len..len + n].copy_from_slice(&part[..n]);
                part = &part[n..];
                len += n;
                if len == STAGE {
                    file.write_direct_at(stage, at)?;
                    at += STAGE as u64;
                    len = 0;
                }
            }
        }
        let end = len.next_multiple_of(DIRECT_ALIGN);
        stage[len..end].fill(0);
        if end > 0 { file.write_direct_at(&stage[..end], at) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::disk::sim::SimDisk;
    use atoll_base::disk::{Disk, Open, read_exact_at};
    use proptest::prelude::*;
    use std::path::Path;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_bytes_are_the_parts_and_zeros(
            lens in prop::collection::vec(prop_oneof![0usize..3000, 500_000usize..3_000_000], 1..6),
        ) {
            let disk = SimDisk::new();
            let file = disk.open(Path::new("f"), Open::Create).unwrap();
            let parts: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, l)| vec![i as u8 + 1; *l]).collect();
            let mut staging = Staging::default();
            // What an earlier frame left in the memory does not show.
            staging.write(&*file, 0, std::iter::once(&[99; 5000][..])).unwrap();
            staging.write(&*file, 8192, parts.iter().map(|p| &p[..])).unwrap();
            let mut want = parts.concat();
            want.resize(want.len().next_multiple_of(DIRECT_ALIGN), 0);
            prop_assert_eq!(file.len().unwrap(), 8192.max(8192 + want.len() as u64));
            let mut got = vec![0; want.len()];
            read_exact_at(&*file, &mut got, 8192).unwrap();
            prop_assert!(got == want);
        }
    }
}
