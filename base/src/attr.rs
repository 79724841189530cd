//! Inode attributes, and changes to them.

use crate::acl::{Acl, SetAcl};
use crate::id::{Ino, VolumeId};
use crate::label::Label;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// File type (`ftype3` of RFC 1813 §2.5, `nfs_ftype4` without the attribute-directory kinds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Block device.
    BlockDevice,
    /// Character device.
    CharDevice,
    /// Named pipe.
    Fifo,
    /// Unix-domain socket.
    Socket,
}

/// Device numbers of a special file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Everything GETATTR can show of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Volume the inode lives in.
    pub volume: VolumeId,
    /// Tells two uses of one inode number apart; part of the file handle.
    pub generation: u32,
    /// Type.
    pub kind: FileKind,
    /// Permission bits with set-uid, set-gid and sticky: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of storage allocated to the file's data.
    pub used: u64,
    /// Device numbers, zero unless a device.
    pub device: Device,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of data or attributes; never goes back.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Change counter (RFC 8881 §5.8.1.4): grows with each change, a value once shown is never reused.
    pub change: u64,
    /// The access control list, if the mode does not say it all.
    pub acl: Option<Arc<Acl>>,
    /// Security label, if one was set.
    pub label: Option<Arc<Label>>,
    /// Strongest NFSv4 delegation in force. Not shown to anybody; here so that who reads attributes knows it without another read.
    pub delegated: Delegated,
}

/// Whether an inode is delegated to NFSv4 clients (RFC 8881 §10.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Delegated {
    /// To nobody.
    #[default]
    No,
    /// For reading (of a directory too): others may read.
    Read,
    /// For writing.
    Write,
}

impl Attr {
    /// What a reply shows of the state before an operation.
    pub fn before(&self) -> Before {
        Before { size: self.size, mtime: self.mtime, ctime: self.ctime, change: self.change }
    }
}

/// Attributes before an operation: for weak cache consistency (RFC 1813 §2.6 `wcc_attr`) and for
/// `change_info4` (RFC 8881 §3.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Size in bytes.
    pub size: u64,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of data or attributes.
    pub ctime: Timestamp,
    /// Change counter.
    pub change: u64,
}

/// How SETATTR sets one of the times (RFC 1813 §2.6 `set_atime`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// Leave it.
    #[default]
    Keep,
    /// The server's time of the operation.
    Server,
    /// This time.
    Client(Timestamp),
}

/// A change of attributes (RFC 1813 §2.6 `sattr3`). `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// Permission bits, low 12.
    pub mode: Option<u32>,
    /// If given, only these bits of the mode are set, the others stay (RFC 8881 §6.2.5). Not with a creation.
    pub mode_mask: Option<u32>,
    /// With a creation: bits to take from the mode, unless the object inherits a list (RFC 8275 §5).
    pub umask: u32,
    /// Access control list; set after the mode, of which it may change the nine low bits.
    pub acl: Option<Box<SetAcl>>,
    /// Security label: the owner's to set, and of whoever makes the object.
    pub label: Option<Box<Label>>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New size: truncates or extends with a hole.
    pub size: Option<u64>,
    /// Last access.
    pub atime: SetTime,
    /// Last change of data.
    pub mtime: SetTime,
    /// Creation (NFSv4's `time_create`): as good as what a restored copy, or a client whose users look at it, says.
    pub btime: Option<Timestamp>,
}

impl SetAttr {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == SetAttr::default()
    }
}
