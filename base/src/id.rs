//! Identifiers. Each is a newtype so that an inode number cannot be passed for a volume.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A volume: the unit of metadata sharding, quota and export. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId(pub u32);

/// The volume that exists from first start and holds `/`.
pub const ROOT_VOLUME: VolumeId = VolumeId(1);

/// An inode number (the `fileid` of the wire), unique across all volumes of a cluster and never reused.
///
/// The top [`Ino::GROUP_BITS`] bits name the Raft group in which the number was allocated, so that one
/// directory tree can later span groups without renumbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// Bits at the top that hold the group.
    pub const GROUP_BITS: u32 = 16;

    /// Composes an inode number from its group and the group's own counter (below 2^48).
    pub const fn new(group: GroupId, counter: u64) -> Self {
        assert!(counter < 1 << (64 - Self::GROUP_BITS));
        Self((group.0 as u64) << (64 - Self::GROUP_BITS) | counter)
    }

    /// The Raft group that allocated the number.
    pub const fn group(self) -> GroupId {
        GroupId((self.0 >> (64 - Self::GROUP_BITS)) as u16)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Raft group. Group 0 is the only one of a single-node cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u16);

/// A frontend process, across its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrontendId(pub u32);

/// One life of one frontend. Assigned by the state machine at registration, ever increasing over the whole
/// cluster; a command that carries an epoch older than the frontend's current one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// An export entry. Part of each file handle, so that one inode can be reached under different rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExportId(pub u32);

/// A position in a directory: monotonic per directory, never reused, so a READDIR cookie stays valid while
/// entries come and go. 0 is "before the first entry"; 1 and 2 stand for `.` and `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cookie(pub u64);

impl Cookie {
    /// First cookie of a real entry.
    pub const FIRST_ENTRY: Cookie = Cookie(3);
}
