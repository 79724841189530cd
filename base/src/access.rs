//! Who asks, and what mode bits and access control lists let them do.
//!
//! Permission checks are pure functions of a credential and attributes, used by the frontend on its reads and
//! by the state machine inside each command, so that a check and the change it permits are one step.

use crate::acl::{Acl, PosixAcl, Verdict, right};
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

/// Rights to a file or a directory's entries: bits of [`crate::acl::right`]. Mode bits and POSIX lists grant them by threes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm(u32);

impl Perm {
    /// Execute, or search of a directory.
    pub const EXEC: Perm = Perm(right::EXECUTE);
    /// Write a file's data; of a directory, more than adding files: what a move takes of a directory that is moved itself.
    pub const WRITE: Perm = Perm(right::WRITE_DATA);
    /// Append to a file.
    pub const APPEND: Perm = Perm(right::APPEND_DATA);
    /// Read, or list a directory.
    pub const READ: Perm = Perm(right::READ_DATA);
    /// Add an entry to a directory that is none itself.
    pub const ADD_FILE: Perm = Perm(right::WRITE_DATA | right::EXECUTE);
    /// Add a directory to a directory.
    pub const ADD_DIRECTORY: Perm = Perm(right::APPEND_DATA | right::EXECUTE);

    /// What it takes to add an entry for a directory, or for something else.
    pub fn to_add(is_dir: bool) -> Perm {
        if is_dir { Perm::ADD_DIRECTORY } else { Perm::ADD_FILE }
    }

    /// The three bits of a mode that stand for it.
    fn bits(self) -> u32 {
        const WRITE: u32 = right::WRITE_DATA | right::APPEND_DATA;
        let read = u32::from(self.0 & right::READ_DATA != 0);
        let write = u32::from(self.0 & WRITE != 0);
        let exec = u32::from(self.0 & right::EXECUTE != 0);
        read << 2 | write << 1 | exec
    }
}

/// What the mode bits grant to who is not the superuser (POSIX.1 §4.5 File Access Permissions): the first matching class of owner, group
/// and other decides alone.
fn class(cred: &Cred, attr: &Attr) -> u32 {
    let class = if cred.uid == attr.uid {
        attr.mode >> 6
    } else if cred.in_group(attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    class & 7
}

/// What a caller may do with an object, looked up once for several questions.
#[derive(Debug)]
pub struct Granted<'a> {
    cred: &'a Cred,
    attr: &'a Attr,
    /// The three bits, if there is no list.
    bits: Option<u32>,
}

impl<'a> Granted<'a> {
    /// To this caller, of this object.
    pub fn new(cred: &'a Cred, attr: &'a Attr) -> Self {
        let bits = (attr.acl.is_none() && !cred.is_superuser()).then(|| class(cred, attr));
        Self { cred, attr, bits }
    }

    /// Whether all of `want` is granted.
    pub fn permits(&self, want: Perm) -> bool {
        match self.bits {
            Some(bits) => bits & want.bits() == want.bits(),
            None => permits(self.cred, self.attr, want),
        }
    }

    /// Whether the directory lets the caller remove entries.
    pub fn deletes(&self) -> bool {
        match self.bits {
            Some(_) => self.permits(Perm::ADD_FILE),
            None => may_delete_child(self.cred, self.attr),
        }
    }
}

/// Whether mode bits or list grant all of `want`. The superuser reads and writes everything and executes what anyone may.
pub fn permits(cred: &Cred, attr: &Attr, want: Perm) -> bool {
    if cred.is_superuser() {
        let list = || matches!(attr.acl.as_deref(), Some(Acl::Nfs4(acl)) if acl.anyone_executes());
        let exec = attr.kind == FileKind::Directory || attr.mode & 0o111 != 0 || list();
        return exec || want.bits() & 1 == 0;
    }
    match attr.acl.as_deref() {
        Some(Acl::Nfs4(acl)) => acl.permits(cred, attr, want.0),
        Some(Acl::Posix(PosixAcl { access: Some(list), .. })) => list.permits(cred, attr, want.bits()),
        None | Some(Acl::Posix(_)) => class(cred, attr) & want.bits() == want.bits(),
    }
}

/// Whether the caller may write this range of a file: all of it who may write, what begins at its end who may only append (RFC 8881
/// §6.2.1.3.1, `ACE4_APPEND_DATA`).
pub fn may_write(cred: &Cred, attr: &Attr, offset: u64) -> bool {
    permits(cred, attr, Perm::WRITE) || offset >= attr.size && permits(cred, attr, Perm::APPEND)
}

/// What a list says of a right beside reading, writing and executing.
fn verdict(cred: &Cred, attr: &Attr, right: u32) -> Verdict {
    attr.acl.as_ref().map_or(Verdict::Silent, |acl| acl.verdict(cred, attr, right))
}

/// Whether the caller may set mode and list: the owner always, so that there is a way to mend them, and whom the list allows it
/// (RFC 8881 §6.3.1.1).
pub fn may_write_acl(cred: &Cred, attr: &Attr) -> bool {
    cred.owns(attr) || verdict(cred, attr, right::WRITE_ACL) == Verdict::Allowed
}

/// Whether the caller may set the times to what he likes.
pub fn may_write_attributes(cred: &Cred, attr: &Attr) -> bool {
    cred.owns(attr) || verdict(cred, attr, right::WRITE_ATTRIBUTES) == Verdict::Allowed
}

/// Whether the caller may take ownership for himself, or give it to a group of his.
pub fn may_take(cred: &Cred, attr: &Attr) -> bool {
    verdict(cred, attr, right::WRITE_OWNER) == Verdict::Allowed
}

/// Whether the caller may read the attributes: not if a list denies it to him. Where lists are silent everybody may (RFC 8881 §6.2.1).
pub fn may_read_attributes(cred: &Cred, attr: &Attr) -> bool {
    attr.acl.is_none() || cred.owns(attr) || verdict(cred, attr, right::READ_ATTRIBUTES) != Verdict::Denied
}

/// Whether the caller may read the list over NFSv4: the mode and POSIX lists are everybody's to read.
pub fn may_read_acl(cred: &Cred, attr: &Attr) -> bool {
    match attr.acl.as_deref() {
        Some(Acl::Nfs4(_)) => cred.owns(attr) || verdict(cred, attr, right::READ_ACL) == Verdict::Allowed,
        _ => true,
    }
}

/// The same over NFSACL, whose clients must read a directory's list to create a file in it: not if it is denied.
pub fn may_read_posix_acl(cred: &Cred, attr: &Attr) -> bool {
    cred.owns(attr) || verdict(cred, attr, right::READ_ACL) != Verdict::Denied
}

/// Whether the sticky bit of `dir` keeps the caller from removing or renaming the entry that names `victim`
/// (POSIX.1 §4.5: with the bit set, only the owner of the file, of the directory, or the superuser may).
fn sticky_forbids(cred: &Cred, dir: &Attr, victim: &Attr) -> bool {
    dir.mode & 0o1000 != 0 && !cred.owns(dir) && !cred.owns(victim)
}

/// Whether the directory lets the caller remove entries, as far as it is the directory's to say.
pub fn may_delete_child(cred: &Cred, dir: &Attr) -> bool {
    deletes(cred, dir, Verdict::Silent)
}

/// `target`: what the entry's list says of `ACE4_DELETE`.
fn deletes(cred: &Cred, dir: &Attr, target: Verdict) -> bool {
    let Some(Acl::Nfs4(acl)) = dir.acl.as_deref().filter(|_| !cred.is_superuser()) else {
        // The write bit is the right to remove.
        let searches = target == Verdict::Allowed && permits(cred, dir, Perm::EXEC);
        return searches || permits(cred, dir, Perm::ADD_FILE);
    };
    let may = match (target, acl.verdict(cred, dir, right::DELETE_CHILD)) {
        (Verdict::Allowed, _) | (_, Verdict::Allowed) => true,
        (Verdict::Denied, _) | (_, Verdict::Denied) => false,
        (Verdict::Silent, Verdict::Silent) => permits(cred, dir, Perm::WRITE),
    };
    may && permits(cred, dir, Perm::EXEC)
}

/// Whether an entry may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlink {
    /// It may.
    Allowed,
    /// Directory and entry forbid it.
    Forbidden,
    /// The directory's sticky bit does.
    Sticky,
}

/// Whether the caller may remove or rename the entry of `dir` that names `victim` (RFC 8881 §6.2.1.3.2): if `ACE4_DELETE` is allowed on
/// what it names, or `ACE4_DELETE_CHILD` on the directory; where neither is allowed or denied, if files may be added. The sticky bit stands above
/// what the directory says, not above an explicit `ACE4_DELETE`.
pub fn may_unlink(cred: &Cred, dir: &Attr, victim: &Attr) -> Unlink {
    let target = verdict(cred, victim, right::DELETE);
    if !deletes(cred, dir, target) {
        Unlink::Forbidden
    } else if target != Verdict::Allowed && sticky_forbids(cred, dir, victim) {
        Unlink::Sticky
    } else {
        Unlink::Allowed
    }
}
