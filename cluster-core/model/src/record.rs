//! The records that are more than a number: what the values of the tables hold (see [`crate::keys`]).

pub mod nfs4;

use atoll_base::attr::{Attr, FileKind};
use atoll_base::id::{Epoch, Ino, VolumeId};
use atoll_base::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// What GETATTR shows.
    pub attr: Attr,
    /// Of a directory.
    pub dir: Option<Dir>,
    /// Of a regular file.
    pub file: Option<File>,
    /// Number of extended attributes.
    pub xattrs: u32,
    /// Bytes of their names and values.
    pub xattr_bytes: u32,
    /// Of a row in the store: whether there is a row in `Acl`, which `attr` is read together with. In memory `attr.acl` alone says so.
    pub acl: bool,
    /// The same of `Label` and `attr.label`.
    pub label: bool,
}

/// What only a directory has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// The directory that holds it; itself for a volume's root.
    pub parent: Ino,
    /// The cookie that the next entry gets.
    pub next_cookie: u64,
    /// Number of entries.
    pub entries: u64,
}

/// What only a regular file has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The verifier of the EXCLUSIVE create that made it, until the first SETATTR.
    pub verifier: Option<[u8; 8]>,
    /// Rows of the extent table, dead ones included. The sum of their lengths is `attr.used`.
    pub extents: u64,
    /// Bytes of inline ones among them.
    pub inline_bytes: u64,
    /// What hides extents that Sweep has yet to remove. While there are any, there is an [`Orphan::Tail`].
    pub cuts: Vec<Cut>,
    /// Which frontend holds the write lease; the lease itself is in `Dirty`.
    pub lease: Option<atoll_base::id::FrontendId>,
    /// Whether there is a row in `Repack`.
    pub repack: bool,
}

/// Extents that begin in `start..end` and were born before `before` are dead: they are in no file any more, whatever
/// they hold, and are only still to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// Transaction that cut.
    pub before: u64,
}

impl Cut {
    /// Whether an extent is dead by it.
    pub fn kills(&self, offset: u64, birth: u64) -> bool {
        self.start <= offset && offset < self.end && birth < self.before
    }
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.kind == FileKind::Directory
    }
}

impl File {
    /// Whether an extent is in the file.
    pub fn is_live(&self, offset: u64, birth: u64) -> bool {
        !self.cuts.iter().any(|cut| cut.kills(offset, birth))
    }
}

/// Extents that Sweep is to release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Orphan {
    /// The inode is gone; all its extents go.
    Removed {
        /// The volume that their bytes still count in.
        volume: VolumeId,
    },
    /// Those behind the inode's cuts.
    Tail,
}

/// A write lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The life of the frontend that took it.
    pub epoch: Epoch,
    /// The holder may have shown change values up to this one.
    pub change_ceiling: u64,
    /// The holder may have shown change times up to this one.
    pub ctime_ceiling: Timestamp,
}

/// A block that nothing references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// Transaction that dropped the last reference.
    pub txn: u64,
    /// Its time: readers that fetched the extents before get this long to read the block.
    pub since: Timestamp,
}

/// In which life a lock client is. No record: life 0, state unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLife {
    /// The last NSM state number it sent or was notified of; 0 if unknown.
    pub state: i32,
    /// Counts the releases that could not be finished in one command.
    pub life: u32,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Name.
    pub name: String,
    /// Root directory.
    pub root: Ino,
    /// Inodes.
    pub inodes: u64,
    /// Bytes in rows of the extent table.
    pub bytes: u64,
}

/// A frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendRecord {
    /// Its present epoch.
    pub epoch: Epoch,
    /// Write leases it holds.
    pub leases: u32,
}

/// The singletons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Identity of the cluster.
    pub cluster_id: [u8; 16],
    /// The clock: no earlier time is ever given out again.
    pub last_time: Timestamp,
    /// Transaction applied last.
    pub last_txn: u64,
    /// Counter of the next inode number.
    pub next_ino: u64,
    /// Next volume.
    pub next_volume: u32,
    /// Next export.
    pub next_export: u32,
    /// Grows with each change of the exports.
    pub exports_version: u64,
    /// Next epoch.
    pub next_epoch: u32,
    /// How often acknowledged UNSTABLE data were lost, and one.
    pub loss_epoch: u32,
    /// Number of the next stored outcome.
    pub next_outcome: u64,
    /// Stored outcomes, without those that others have taken the place of.
    pub outcomes: u64,
    /// Rows of `NsmState`.
    pub nsm_clients: u64,
    /// Rows of `Garbage`.
    pub garbage: u64,
    /// Of NFSv4.
    pub nfs4: nfs4::Meta4,
}

/// An address as lock clients are known by.
pub(crate) fn canonical(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(|a| a.to_canonical())
}
