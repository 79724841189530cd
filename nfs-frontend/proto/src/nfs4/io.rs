//! READ, WRITE, COMMIT (RFC 8881 §18.3, §18.22, §18.32), and what 4.2 has for holes: ALLOCATE, DEALLOCATE, IO_ADVISE,
//! READ_PLUS, SEEK, WRITE_SAME (RFC 7862 §15.1, §15.4, §15.5, §15.10–§15.12).

use atoll_xdr::{Array, Encoder, Opaque, xdr_enum, xdr_struct, xdr_union};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

use super::limits::{MAX_SEGMENTS, MAX_WIRE_PAYLOAD};
use super::{Bitmap, NfsStat4, OpNum4, Payload, StableHow4, StateId4, Verifier4};

xdr_enum! {
    /// What a stretch of a file is (`data_content4`).
    pub enum Content4 {
        /// Data.
        Data = 0,
        /// A hole.
        Hole = 1,
    }
}

xdr_struct! {
    /// Arguments of READ and READ_PLUS.
    #[derive(Copy)]
    pub struct Read4Args {
        /// The open, lock or delegation under which it is read.
        pub stateid: StateId4,
        /// First byte.
        pub offset: u64,
        /// Bytes wanted.
        pub count: u32,
    }

    /// Results of READ.
    pub struct Read4Ok {
        /// Whether the read ended at the end of the file.
        pub eof: bool,
        /// The bytes.
        pub data: Payload,
    }

    /// Arguments of WRITE.
    pub struct Write4Args {
        /// The open, lock or delegation under which it is written.
        pub stateid: StateId4,
        /// Where the first byte goes.
        pub offset: u64,
        /// Durability asked for.
        pub stable: StableHow4,
        /// The bytes.
        pub data: Payload,
    }

    /// Results of WRITE.
    #[derive(Copy)]
    pub struct Write4Ok {
        /// Bytes written.
        pub count: u32,
        /// Durability reached.
        pub committed: StableHow4,
        /// Write verifier.
        pub writeverf: Verifier4,
    }

    /// Arguments of COMMIT.
    #[derive(Copy)]
    pub struct Commit4Args {
        /// First byte.
        pub offset: u64,
        /// Bytes; 0 is everything from `offset` on.
        pub count: u32,
    }

    /// Results of COMMIT.
    #[derive(Copy)]
    pub struct Commit4Ok {
        /// Write verifier.
        pub writeverf: Verifier4,
    }

    /// Arguments of ALLOCATE and DEALLOCATE.
    #[derive(Copy)]
    pub struct Allocate4Args {
        /// The open, lock or delegation under which it is done.
        pub stateid: StateId4,
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
    }

    /// Arguments of IO_ADVISE.
    pub struct IoAdvise4Args {
        /// The open, lock or delegation.
        pub stateid: StateId4,
        /// First byte.
        pub offset: u64,
        /// Bytes; 0 is everything from `offset` on.
        pub count: u64,
        /// Of [`io_advise`].
        pub hints: Bitmap,
    }

    /// Results of IO_ADVISE.
    pub struct IoAdvise4Ok {
        /// The hints that are followed.
        pub hints: Bitmap,
    }

    /// Arguments of SEEK.
    #[derive(Copy)]
    pub struct Seek4Args {
        /// The open, lock or delegation.
        pub stateid: StateId4,
        /// Where the search begins.
        pub offset: u64,
        /// What is looked for.
        pub what: Content4,
    }

    /// Results of SEEK.
    #[derive(Copy)]
    pub struct Seek4Ok {
        /// Whether the end of the file was reached.
        pub eof: bool,
        /// Where it was found.
        pub offset: u64,
    }

    /// Data of READ_PLUS (`data4`).
    pub struct ReadPlusData4 {
        /// First byte.
        pub offset: u64,
        /// The bytes.
        pub data: Payload,
    }

    /// A hole of READ_PLUS (`data_info4`).
    #[derive(Copy)]
    pub struct ReadPlusHole4 {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
    }

    /// Results of READ_PLUS.
    pub struct ReadPlus4Ok {
        /// Whether the end of the file was reached.
        pub eof: bool,
        /// Data and holes, in the order of their offsets.
        pub contents: Array<ReadPlusContent4, MAX_SEGMENTS>,
    }

    /// Application data blocks (`app_data_block4`, RFC 7862 §8.1.1).
    pub struct AppDataBlock4 {
        /// First byte.
        pub offset: u64,
        /// Bytes of a block.
        pub block_size: u64,
        /// Number of blocks.
        pub block_count: u64,
        /// Where in a block its number stands; all ones for nowhere.
        pub reloff_blocknum: u64,
        /// Number of the first block.
        pub block_num: u32,
        /// Where in a block the pattern stands.
        pub reloff_pattern: u64,
        /// The pattern.
        pub pattern: Opaque<MAX_WIRE_PAYLOAD>,
    }

    /// Arguments of WRITE_SAME.
    pub struct WriteSame4Args {
        /// The open, lock or delegation.
        pub stateid: StateId4,
        /// Durability asked for.
        pub stable: StableHow4,
        /// What to write.
        pub adb: AppDataBlock4,
    }

    /// What a server wrote on its own, or will (`write_response4`, RFC 7862 §15.2.2).
    #[derive(Copy)]
    pub struct WriteResponse4 {
        /// The stateid that CB_OFFLOAD will name, if it goes on in the background.
        pub callback_id: Option<StateId4>,
        /// Bytes written.
        pub count: u64,
        /// Durability reached.
        pub committed: StableHow4,
        /// Write verifier.
        pub writeverf: Verifier4,
    }
}

xdr_union! {
    /// A stretch of a file (`read_plus_content`).
    pub enum ReadPlusContent4 {
        /// Data.
        0 => Data(data: ReadPlusData4),
        /// A hole.
        1 => Hole(hole: ReadPlusHole4),
    }
}

/// Numbers of hints (`IO_ADVISE_type4`).
pub mod io_advise {
    /// Nothing special.
    pub const NORMAL: u32 = 0;
    /// In order.
    pub const SEQUENTIAL: u32 = 1;
    /// In backward order.
    pub const SEQUENTIAL_BACKWARDS: u32 = 2;
    /// In no order.
    pub const RANDOM: u32 = 3;
    /// Soon.
    pub const WILLNEED: u32 = 4;
    /// Perhaps soon.
    pub const WILLNEED_OPPORTUNISTIC: u32 = 5;
    /// Not soon.
    pub const DONTNEED: u32 = 6;
    /// Once.
    pub const NOREUSE: u32 = 7;
    /// Will be read.
    pub const READ: u32 = 8;
    /// Will be written.
    pub const WRITE: u32 = 9;
    /// Near where the file began.
    pub const INIT_PROXIMITY: u32 = 10;
}

/// Results of READ.
pub type Read4Res = Result<Read4Ok, NfsStat4>;
/// Results of WRITE.
pub type Write4Res = Result<Write4Ok, NfsStat4>;
/// Results of COMMIT.
pub type Commit4Res = Result<Commit4Ok, NfsStat4>;
/// Results of IO_ADVISE.
pub type IoAdvise4Res = Result<IoAdvise4Ok, NfsStat4>;
/// Results of SEEK.
pub type Seek4Res = Result<Seek4Ok, NfsStat4>;
/// Results of READ_PLUS.
pub type ReadPlus4Res = Result<ReadPlus4Ok, NfsStat4>;
/// Results of WRITE_SAME.
pub type WriteSame4Res = Result<WriteResponse4, NfsStat4>;

/// Writes a successful READ result, operation number and status included, whose data lie in several pieces, which are
/// not joined. Returns the bytes of data.
pub fn encode_read_ok(e: &mut Encoder, eof: bool, pieces: impl IntoIterator<Item = Bytes>) -> u32 {
    e.put(&OpNum4::Read);
    e.u32(0);
    e.bool(eof);
    e.opaque_pieces(pieces)
}

/// Writes a successful READ_PLUS result, operation number and status included. `pieces` are the bytes from `offset` on; those in
/// `holes` (ranges of the file within them, in order, not touching) are told as holes. Returns the bytes told, as data or hole.
pub fn encode_read_plus_ok(
    e: &mut Encoder,
    eof: bool,
    offset: u64,
    pieces: impl IntoIterator<Item = Bytes>,
    holes: impl IntoIterator<Item = Range<u64>>,
) -> u64 {
    e.put(&OpNum4::ReadPlus);
    e.u32(0);
    e.bool(eof);
    let count_at = e.reserve_u32();
    let mut pieces = pieces.into_iter().collect::<VecDeque<_>>();
    let end = pieces.iter().fold(offset, |at, piece| at + piece.len() as u64);
    let (mut at, mut count) = (offset, 0);
    for hole in holes.into_iter().chain(std::iter::once(end..end)) {
        if at < hole.start {
            e.u32(Content4::Data as u32);
            e.u64(at);
            e.opaque_pieces(take(&mut pieces, hole.start - at));
            count += 1;
        }
        if !hole.is_empty() {
            e.u32(Content4::Hole as u32);
            e.u64(hole.start);
            e.u64(hole.end - hole.start);
            take(&mut pieces, hole.end - hole.start);
            count += 1;
        }
        at = hole.end;
    }
    e.patch_u32(count_at, count);
    end - offset
}

/// Takes bytes from the front.
fn take(pieces: &mut VecDeque<Bytes>, mut len: u64) -> Vec<Bytes> {
    let mut taken = Vec::new();
    while len > 0
        && let Some(front) = pieces.front_mut()
    {
        let part = front.split_to(front.len().min(len.try_into().unwrap_or(usize::MAX)));
        len -= part.len() as u64;
        taken.push(part);
        if front.is_empty() {
            pieces.pop_front();
        }
    }
    taken
}
