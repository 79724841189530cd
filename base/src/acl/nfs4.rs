//! NFSv4 lists (RFC 8881 §6.2, §6.3, §6.4; RFC 7530 §6).

use super::{ACES_MAX, AclError, right};
use crate::access::Cred;
use crate::attr::Attr;
use serde::{Deserialize, Serialize};

/// Whether an entry allows or denies. Entries that log or raise an alarm are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AceKind {
    /// Allows.
    Allow,
    /// Denies.
    Deny,
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Who {
    /// `OWNER@`: who owns the object.
    Owner,
    /// `GROUP@`: members of the object's group, its owner among them if he is one.
    Group,
    /// `EVERYONE@`: all, owner and group included.
    Everyone,
    /// A user.
    User(u32),
    /// Members of a group.
    Members(u32),
}

impl Who {
    /// Whether the caller is meant.
    pub fn includes(self, cred: &Cred, attr: &Attr) -> bool {
        match self {
            Who::Owner => cred.uid == attr.uid,
            Who::Group => cred.in_group(attr.gid),
            Who::Everyone => true,
            Who::User(uid) => cred.uid == uid,
            Who::Members(gid) => cred.in_group(gid),
        }
    }

    fn is_named(self) -> bool {
        matches!(self, Who::User(_) | Who::Members(_))
    }
}

/// Bits of [`Ace::flags`], with the numbers of RFC 8881 §6.2.1.4.
pub mod ace_flag {
    /// Files made in the directory inherit it.
    pub const FILE_INHERIT: u8 = 0x01;
    /// Directories made in the directory inherit it.
    pub const DIRECTORY_INHERIT: u8 = 0x02;
    /// Directories that inherit it do not pass it on.
    pub const NO_PROPAGATE: u8 = 0x04;
    /// It says nothing of the directory itself.
    pub const INHERIT_ONLY: u8 = 0x08;
    /// It was inherited. Shown by `dacl` alone.
    pub const INHERITED: u8 = 0x80;
    /// What is about inheriting.
    pub const INHERIT: u8 = FILE_INHERIT | DIRECTORY_INHERIT;
    /// All that are stored; that an entry is about a group says [`super::Who`].
    pub const ALL: u8 = INHERIT | NO_PROPAGATE | INHERIT_ONLY | INHERITED;
}

/// Bits of [`Nfs4Acl::flags`] (RFC 8881 §6.4.3.2).
pub mod acl_flag {
    /// Changes of the directory's entries are to be carried to its descendants, by clients.
    pub const AUTO_INHERIT: u8 = 0x1;
    /// Not to this object.
    pub const PROTECTED: u8 = 0x2;
    /// Nobody chose the list.
    pub const DEFAULTED: u8 = 0x4;
    /// All of them.
    pub const ALL: u8 = 0x7;
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ace {
    /// Whether it allows or denies.
    pub kind: AceKind,
    /// Of [`ace_flag`].
    pub flags: u8,
    /// Of [`right`].
    pub mask: u32,
    /// Whom it is about.
    pub who: Who,
}

impl Ace {
    /// An entry that is not inheritable.
    pub fn new(kind: AceKind, who: Who, mask: u32) -> Self {
        Self { kind, flags: 0, mask, who }
    }

    /// Whether it says something of the object itself.
    pub fn is_effective(&self) -> bool {
        self.flags & ace_flag::INHERIT_ONLY == 0
    }

    /// Whether new objects in the directory get it.
    pub fn is_inheritable(&self) -> bool {
        self.flags & ace_flag::INHERIT != 0
    }
}

/// What a list says of one right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An entry allows it.
    Allowed,
    /// An entry denies it.
    Denied,
    /// No entry speaks of it. That is a refusal, unless there is another rule.
    Silent,
}

/// A list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nfs4Acl {
    /// Of [`acl_flag`].
    pub flags: u8,
    /// Entries in the order in which they are evaluated.
    pub aces: Vec<Ace>,
}

/// The bits of a mask that one of the three permissions stands for: `perm` has the low three bits of a mode.
pub fn bits_of(perm: u32, is_dir: bool) -> u32 {
    let mut mask = 0;
    if perm & 4 != 0 {
        mask |= right::READ_DATA;
    }
    if perm & 2 != 0 {
        mask |= right::WRITE_DATA | right::APPEND_DATA;
        if is_dir {
            mask |= right::DELETE_CHILD;
        }
    }
    if perm & 1 != 0 {
        mask |= right::EXECUTE;
    }
    mask
}

/// The low three bits of a mode for what a mask allows (RFC 8881 §6.3.2).
pub fn perm_of(mask: u32) -> u32 {
    const WRITE: u32 = right::WRITE_DATA | right::APPEND_DATA;
    let mut perm = 0;
    if mask & right::READ_DATA != 0 {
        perm |= 4;
    }
    if mask & WRITE == WRITE {
        perm |= 2;
    }
    if mask & right::EXECUTE != 0 {
        perm |= 1;
    }
    perm
}

/// What entries in order allow, and what they deny: the first that names a bit decides it.
pub(super) fn decide<'a>(aces: impl Iterator<Item = &'a Ace>) -> (u32, u32) {
    let (mut allowed, mut denied) = (0, 0);
    for ace in aces {
        match ace.kind {
            AceKind::Allow => allowed |= ace.mask & !denied,
            AceKind::Deny => denied |= ace.mask & !allowed,
        }
    }
    (allowed, denied)
}

impl Nfs4Acl {
    fn effective(&self) -> impl Iterator<Item = &Ace> {
        self.aces.iter().filter(|ace| ace.is_effective())
    }

    /// Whether all rights of a mask are allowed to the caller (§6.2.1).
    pub fn permits(&self, cred: &Cred, attr: &Attr, mask: u32) -> bool {
        let (mut left, mut denied) = (mask, 0);
        for ace in self.effective() {
            if ace.mask & left == 0 || !ace.who.includes(cred, attr) {
                continue;
            }
            match ace.kind {
                AceKind::Allow => left &= !ace.mask,
                AceKind::Deny => denied |= ace.mask & left,
            }
            if left == 0 || denied != 0 {
                break;
            }
        }
        left == 0
    }

    /// What the list says of one right to the caller.
    pub fn verdict(&self, cred: &Cred, attr: &Attr, right: u32) -> Verdict {
        let first = self.effective().find(|ace| ace.mask & right != 0 && ace.who.includes(cred, attr));
        match first.map(|ace| ace.kind) {
            Some(AceKind::Allow) => Verdict::Allowed,
            Some(AceKind::Deny) => Verdict::Denied,
            None => Verdict::Silent,
        }
    }

    /// Whether anybody may execute the file.
    pub fn anyone_executes(&self) -> bool {
        self.effective().any(|ace| ace.kind == AceKind::Allow && ace.mask & right::EXECUTE != 0)
    }

    /// The nine permission bits that follow from the list (§6.3.2).
    pub fn mode(&self) -> u32 {
        let class = |who| {
            let of = |ace: &&Ace| ace.who == who || ace.who == Who::Everyone;
            perm_of(decide(self.effective().filter(of)).0)
        };
        class(Who::Owner) << 6 | class(Who::Group) << 3 | class(Who::Everyone)
    }

    /// The flags and entries that an object made in the directory begins with (§6.4.3.1); no entries if none are inheritable.
    pub fn inherited(&self, is_dir: bool) -> Nfs4Acl {
        use ace_flag::{DIRECTORY_INHERIT, FILE_INHERIT, INHERIT, INHERIT_ONLY, INHERITED, NO_PROPAGATE};
        let inherit = |ace: &Ace| {
            let for_files = ace.flags & FILE_INHERIT != 0;
            let for_dirs = ace.flags & DIRECTORY_INHERIT != 0;
            let once = ace.flags & NO_PROPAGATE != 0;
            let flags = match (is_dir, for_files, for_dirs, once) {
                (false, true, ..) => INHERITED,
                (true, _, true, true) => INHERITED,
                (true, _, true, false) => ace.flags & INHERIT | INHERITED,
                (true, true, false, false) => FILE_INHERIT | INHERIT_ONLY | INHERITED,
                _ => return None,
            };
            Some(Ace { flags, ..*ace })
        };
        Nfs4Acl {
            flags: self.flags & acl_flag::AUTO_INHERIT,
            aces: self.aces.iter().filter_map(inherit).collect(),
        }
    }

    /// Makes the list give these nine bits (§6.4.1.1), keeping of it what can be kept:
    ///
    /// - an entry that is inheritable and effective is split in two, of which the inheritable stays as it is;
    /// - named users and groups lose the rights that the group's bits do not have; what denies stays;
    /// - of owner, group and everyone the rights that bits stand for are taken out and put in anew: the owner's in front, so that
    ///   no entry gives or takes him any, the others' behind.
    ///
    /// Doing it twice is doing it once.
    pub fn set_mode(&mut self, mode: u32, is_dir: bool) {
        let all = bits_of(7, is_dir);
        let [owner, group, other] = [6, 3, 0].map(|shift| bits_of(mode >> shift & 7, is_dir));
        let deny_more = self.effective().any(|ace| ace.kind == AceKind::Deny && ace.mask & !all != 0);
        let inherited = self.aces.iter().any(|ace| ace.flags & ace_flag::INHERITED != 0);
        // Rights beside those of the bits, that owner, group and everyone are allowed.
        let mut more = [0; 3];
        let mut named = 0;
        let mut kept = Vec::with_capacity(self.aces.len() + 5);
        for mut ace in self.aces.drain(..) {
            if !ace.is_effective() {
                kept.push(ace);
                continue;
            }
            if ace.is_inheritable() {
                kept.push(Ace { flags: ace.flags | ace_flag::INHERIT_ONLY, ..ace });
            }
            ace.flags &= ace_flag::INHERITED;
            if ace.who.is_named() {
                if ace.kind == AceKind::Allow {
                    ace.mask &= !(all & !group);
                    named |= ace.mask & all;
                }
            } else {
                ace.mask &= !all;
                if ace.kind == AceKind::Allow && !deny_more {
                    let class = match ace.who {
                        Who::Owner => 0,
                        Who::Group => 1,
                        _ => 2,
                    };
                    more[class] |= ace.mask;
                    continue;
                }
            }
            if ace.mask != 0 {
                kept.push(ace);
            }
        }
        let put = |aces: &mut Vec<Ace>, kind, who, mask| {
            if mask != 0 {
                aces.push(Ace::new(kind, who, mask));
            }
        };
        let aces = &mut self.aces;
        put(aces, AceKind::Deny, Who::Owner, (group | other | named) & !owner);
        put(aces, AceKind::Allow, Who::Owner, owner | more[0]);
        aces.append(&mut kept);
        put(aces, AceKind::Allow, Who::Group, group | more[1]);
        put(aces, AceKind::Deny, Who::Group, other & !group);
        put(aces, AceKind::Allow, Who::Everyone, other | more[2]);
        if inherited {
            // §6.4.3.2: the inherited entries are not unchanged at the end any more.
            self.flags |= acl_flag::PROTECTED;
        }
    }

    /// Whether it may be set on an object of this type. `DIRECTORY_INHERIT` is for directories, and what says nothing of the object
    /// must be inheritable (§6.2.1.4.1).
    pub fn check(&self, is_dir: bool) -> Result<(), AclError> {
        if self.aces.len() > ACES_MAX {
            return Err(AclError::TooLong);
        }
        if self.is_valid(is_dir) { Ok(()) } else { Err(AclError::Invalid) }
    }

    pub(super) fn is_sound(&self, is_dir: bool) -> bool {
        self.aces.len() <= 2 * ACES_MAX + 5 && self.is_valid(is_dir)
    }

    fn is_valid(&self, is_dir: bool) -> bool {
        self.flags & !acl_flag::ALL == 0
            && self.aces.iter().all(|ace| {
                ace.mask & !right::ALL == 0
                    && ace.flags & !ace_flag::ALL == 0
                    && (is_dir || ace.flags & ace_flag::DIRECTORY_INHERIT == 0)
                    && (ace.is_effective() || ace.is_inheritable())
            })
    }
}
