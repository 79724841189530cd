//! File data as the metadata store sees them: extents that hold small data themselves or point at blocks.

use crate::once::OnceKey;
use crate::response::Response;
use atoll_base::block::BlockId;
use atoll_base::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where the bytes of an extent are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// In the metadata store itself.
    Inline(#[serde(deserialize_with = "crate::shared::deserialize")] Bytes),
    /// In a block, from this byte of it on.
    Block {
        /// The block.
        id: BlockId,
        /// First byte within the block.
        offset: u32,
    },
}

/// Bytes to put into a file: a replacement of `offset..offset + len`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// First byte within the file.
    pub offset: u64,
    /// Length in bytes, not zero; of an inline source, its length.
    pub len: u32,
    /// The bytes.
    pub source: Source,
}

impl Piece {
    /// First byte after the piece.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// A stored extent: a [`Piece`] with its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Place and bytes.
    pub piece: Piece,
    /// Number of the transaction that wrote it.
    pub birth: u64,
}

/// Extents of a range of a file. What no extent covers (below the size) is a hole and reads as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMap {
    /// The file's attributes in the same instant.
    pub attr: atoll_base::attr::Attr,
    /// In order of offset, not overlapping, cut to the range asked for (a cut block source has its offset moved).
    pub extents: Vec<Extent>,
    /// The map is complete up to here; less than the range's end if there were too many extents for one answer.
    pub complete_to: u64,
}

/// How far the bytes from an offset on are alike: all in extents, or all in a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The file's attributes in the same instant.
    pub attr: atoll_base::attr::Attr,
    /// Whether they are in extents.
    pub data: bool,
    /// Where they end: at a change from one to the other, at the end of the file, or where so many extents lie side by side that
    /// the next answer is to go on.
    pub end: u64,
}

/// What accompanies the flush of UNSTABLE data that a frontend had acknowledged under a write lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flush {
    /// Modification time, as shown to clients.
    pub mtime: Timestamp,
    /// Change time, as shown to clients; at most the lease's ceiling.
    pub ctime: Timestamp,
    /// Change counter, as shown to clients; at most the lease's ceiling.
    pub change: u64,
    /// Size, as shown to clients. The file becomes at least this long.
    pub size: u64,
    /// Whether the frontend holds nothing more for the file: the write lease ends.
    pub release: bool,
    /// The outcomes of the WRITE requests whose data are in this flush, so that a retransmission after a crash is
    /// known again.
    pub covered: Vec<(OnceKey, Arc<Response>)>,
}
