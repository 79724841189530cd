//! Who asks, and what POSIX lets them do.
//!
//! Permission checks are pure functions of a credential and attributes, used by the frontend on its reads and
//! by the state machine inside each command, so that a check and the change it permits are one step.

use crate::attr::{Attr, FileKind};
use crate::limits::GROUPS_MAX;
use serde::{Deserialize, Serialize};

/// A caller's identity after squashing and group look-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cred {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups, at most [`GROUPS_MAX`].
    groups: Vec<u32>,
}

impl Cred {
    /// A credential; groups past [`GROUPS_MAX`] are cut off.
    pub fn new(uid: u32, gid: u32, mut groups: Vec<u32>) -> Self {
        groups.truncate(GROUPS_MAX);
        Self { uid, gid, groups }
    }

    /// The superuser.
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new() }
    }

    /// Whether the checks of mode bits do not apply.
    pub fn is_superuser(&self) -> bool {
        self.uid == 0
    }

    /// Whether the caller is a member of `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Supplementary groups.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Whether the caller owns the inode, or may act as if.
    pub fn owns(&self, attr: &Attr) -> bool {
        self.is_superuser() || self.uid == attr.uid
    }
}

/// A set of the three POSIX permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm(u32);

impl Perm {
    /// Execute, or search of a directory.
    pub const EXEC: Perm = Perm(1);
    /// Write.
    pub const WRITE: Perm = Perm(2);
    /// Read.
    pub const READ: Perm = Perm(4);
    /// Write and search: what adding or removing a directory entry takes.
    pub const WRITE_EXEC: Perm = Perm(3);

    /// Whether `self` includes all of `other`.
    pub fn includes(self, other: Perm) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What the mode bits grant to the caller (POSIX.1 §4.5 File Access Permissions). The first matching class of
/// owner, group and other decides alone. The superuser reads and writes everything and executes what anyone may.
pub fn granted(cred: &Cred, attr: &Attr) -> Perm {
    if cred.is_superuser() {
        let exec = attr.kind == FileKind::Directory || attr.mode & 0o111 != 0;
        return Perm(6 | u32::from(exec));
    }
    let class = if cred.uid == attr.uid {
        attr.mode >> 6
    } else if cred.in_group(attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    Perm(class & 7)
}

/// Whether the mode bits grant all of `want`.
pub fn permits(cred: &Cred, attr: &Attr, want: Perm) -> bool {
    granted(cred, attr).includes(want)
}

/// Whether the sticky bit of `dir` keeps the caller from removing or renaming the entry that names `victim`
/// (POSIX.1 §4.5: with the bit set, only the owner of the file, of the directory, or the superuser may).
pub fn sticky_forbids(cred: &Cred, dir: &Attr, victim: &Attr) -> bool {
    dir.mode & 0o1000 != 0 && !cred.owns(dir) && !cred.owns(victim)
}
