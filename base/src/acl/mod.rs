//! Access control lists: what is stored with an inode beside its mode, and what it lets whom do.
//!
//! Two kinds are stored as they were given: lists of NFSv4 (RFC 8881 §6, [`nfs4`]) and lists of the withdrawn POSIX draft
//! 1003.1e ([`posix`]), because neither can say all that the other can, and who sets a list wants to read the same list. Each is
//! evaluated by its own rules; [`map`] shows one as the other. An inode whose rights are its mode bits has no list.
//!
//! Invariants of a stored list:
//! - the mode's nine low bits are those that the list gives ([`Acl::mode`]), whichever of them was set last ([`change`]);
//! - it is within [`ACES_MAX`] and [`POSIX_ENTRIES_MAX`] (changes of the mode may split entries of a directory's list in two);
//! - only a directory has inheritable entries or a default list.

pub mod change;
pub mod map;
pub mod nfs4;
pub mod posix;
#[cfg(test)]
mod tests;

pub use change::{SetAcl, created};
pub use nfs4::{Ace, AceKind, Nfs4Acl, Verdict, Who};
pub use posix::{PosixAcl, PosixList};

use crate::access::Cred;
use crate::attr::Attr;
use serde::{Deserialize, Serialize};

/// Most entries of an NFSv4 list that is set. With splitting it shows as no more than twice as many and five, below the 1024 that
/// protocols carry; a list of this length takes about 5 KiB.
pub const ACES_MAX: usize = 500;

/// Most entries of a POSIX list. As NFSv4 entries an access and a default list of this length are below 1024.
pub const POSIX_ENTRIES_MAX: usize = 240;

/// Bits of an entry's mask, with the numbers of RFC 8881 §6.2.1.3.
pub mod right {
    /// Read a file, list a directory.
    pub const READ_DATA: u32 = 0x1;
    /// Write a file, add a file to a directory.
    pub const WRITE_DATA: u32 = 0x2;
    /// Append to a file, add a directory to a directory.
    pub const APPEND_DATA: u32 = 0x4;
    /// Execute a file, search a directory.
    pub const EXECUTE: u32 = 0x20;
    /// Remove an entry of a directory.
    pub const DELETE_CHILD: u32 = 0x40;
    /// Read attributes.
    pub const READ_ATTRIBUTES: u32 = 0x80;
    /// Set times to any value.
    pub const WRITE_ATTRIBUTES: u32 = 0x100;
    /// Remove the object, whatever its directory says.
    pub const DELETE: u32 = 0x1_0000;
    /// Read the list.
    pub const READ_ACL: u32 = 0x2_0000;
    /// Set list and mode.
    pub const WRITE_ACL: u32 = 0x4_0000;
    /// Take ownership.
    pub const WRITE_OWNER: u32 = 0x8_0000;
    /// Has no meaning here; kept.
    pub const SYNCHRONIZE: u32 = 0x10_0000;
    /// All bits that are defined.
    pub const ALL: u32 = 0x1f_07ff;
}

/// A stored list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acl {
    /// Of NFSv4.
    Nfs4(Nfs4Acl),
    /// Of POSIX.
    Posix(PosixAcl),
}

/// Why a list cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// It is no list, or not one for this type of file.
    #[error("not a valid access control list for this object")]
    Invalid,
    /// It has too many entries.
    #[error("too many entries")]
    TooLong,
}

impl Acl {
    /// Entries of all its lists.
    #[expect(clippy::len_without_is_empty, reason = "a stored list may well be empty, and is one")]
    pub fn len(&self) -> usize {
        match self {
            Acl::Nfs4(acl) => acl.aces.len(),
            Acl::Posix(acl) => acl.access.iter().chain(&acl.default).map(|list| list.entries().count()).sum(),
        }
    }

    /// The nine permission bits that the list gives; `None` if it says nothing of the object itself.
    pub fn mode(&self) -> Option<u32> {
        match self {
            Acl::Nfs4(acl) => Some(acl.mode()),
            Acl::Posix(acl) => acl.access.as_ref().map(PosixList::mode),
        }
    }

    /// What the list says to the caller of one right beside reading, writing and executing. Only NFSv4 lists speak of these.
    pub fn verdict(&self, cred: &Cred, attr: &Attr, right: u32) -> Verdict {
        match self {
            Acl::Nfs4(acl) => acl.verdict(cred, attr, right),
            Acl::Posix(_) => Verdict::Silent,
        }
    }

    /// Whether it may be stored with an inode: the invariants above.
    pub fn is_sound(&self, is_dir: bool, mode: u32) -> bool {
        let in_step = self.mode().is_none_or(|own| own == mode & 0o777);
        in_step
            && match self {
                Acl::Nfs4(acl) => acl.is_sound(is_dir),
                Acl::Posix(acl) => acl.is_sound(is_dir),
            }
    }
}
