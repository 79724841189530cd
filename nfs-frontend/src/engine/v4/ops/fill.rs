//! WRITE_SAME: a block again and again (RFC 7862 §8.1, §15.12).
//!
//! It is one WRITE of as many whole blocks as fit into one; the answer says how many bytes these were, and clients go on from there, as after
//! any short write. So nothing is left to be done in the background.

use crate::engine::v4::compound::{Compound, Done};
use atoll_base::block::BlockService;
use atoll_base::limits::IO_MAX;
use atoll_meta::MetadataService;
use atoll_proto::nfs4::{AppDataBlock4, NfsStat4, WriteResponse4, WriteSame4Args};
use bytes::Bytes;

/// What stands for "nowhere in the block" (NFS4_UINT64_MAX).
const NOWHERE: u64 = u64::MAX;

/// Where a field of `len` bytes stands in a block.
fn place(at: u64, len: usize, block: usize) -> Result<Option<usize>, NfsStat4> {
    if at == NOWHERE {
        return Ok(None);
    }
    let at = usize::try_from(at).map_err(|_| NfsStat4::Inval)?;
    match at.checked_add(len) {
        Some(end) if end <= block => Ok(Some(at)),
        _ => Err(NfsStat4::Inval),
    }
}

/// The first blocks of a description, at most [`IO_MAX`] bytes. What is neither number nor pattern is zero. `Inval` if there is no block, if one alone is
/// longer than a WRITE may be, or if number or pattern do not fit into it.
fn expand(adb: &AppDataBlock4) -> Result<Bytes, NfsStat4> {
    if adb.block_size == 0 || adb.block_size > u64::from(IO_MAX) {
        return Err(NfsStat4::Inval);
    }
    let size = adb.block_size as usize;
    let pattern = adb.pattern.as_bytes();
    let number_at = place(adb.reloff_blocknum, 4, size)?;
    let pattern_at = place(adb.reloff_pattern, pattern.len(), size)?;
    let blocks = adb.block_count.min(u64::from(IO_MAX) / adb.block_size) as usize;
    let mut data = vec![0; blocks * size];
    for (block, number) in data.chunks_exact_mut(size).zip(0_u32..) {
        if let Some(at) = pattern_at {
            block[at..at + pattern.len()].copy_from_slice(pattern);
        }
        if let Some(at) = number_at {
            block[at..at + 4].copy_from_slice(&adb.block_num.wrapping_add(number).to_be_bytes());
        }
    }
    Ok(data.into())
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn write_same(&mut self, args: &WriteSame4Args) -> Done<WriteResponse4> {
        let data = expand(&args.adb)?;
        let done = self.write_data(&args.stateid, args.adb.offset, args.stable, data).await?;
        Ok(WriteResponse4 {
            callback_id: None,
            count: u64::from(done.count),
            committed: done.committed,
            writeverf: done.writeverf,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_xdr::Opaque;

    fn adb(size: u64, count: u64, number_at: u64, pattern_at: u64) -> AppDataBlock4 {
        AppDataBlock4 {
            offset: 0,
            block_size: size,
            block_count: count,
            reloff_blocknum: number_at,
            block_num: 7,
            reloff_pattern: pattern_at,
            pattern: Opaque::copy_from(&[0xfe, 0xed]).unwrap(),
        }
    }

    #[test]
    fn blocks_are_numbered_and_carry_the_pattern() {
        let both = [0, 0, 0, 7, 0, 0xfe, 0xed, 0, 0, 0, 0, 8, 0, 0xfe, 0xed, 0];
        assert_eq!(expand(&adb(8, 2, 0, 5)).unwrap()[..], both);
        assert_eq!(expand(&adb(3, 2, NOWHERE, 1)).unwrap()[..], [0, 0xfe, 0xed, 0, 0xfe, 0xed]);
        assert_eq!(expand(&adb(4, 1, 0, NOWHERE)).unwrap()[..], [0, 0, 0, 7]);
        assert_eq!(expand(&adb(4, 0, 0, NOWHERE)).unwrap()[..], []);
    }

    #[test]
    fn a_call_writes_whole_blocks_up_to_its_bound() {
        let size = u64::from(IO_MAX) / 2 - 1;
        assert_eq!(expand(&adb(size, u64::MAX, 0, 4)).unwrap().len() as u64, 2 * size);
        assert_eq!(expand(&adb(1, u64::MAX, NOWHERE, NOWHERE)).unwrap().len() as u64, u64::from(IO_MAX));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let bad = [
            adb(0, 1, NOWHERE, NOWHERE),
            adb(u64::from(IO_MAX) + 1, 1, 0, 4),
            adb(8, 1, 5, NOWHERE),
            adb(8, 1, NOWHERE, 7),
            adb(8, 1, u64::MAX - 1, NOWHERE),
        ];
        for adb in bad {
            assert_eq!(expand(&adb), Err(NfsStat4::Inval), "{adb:?}");
        }
    }
}
