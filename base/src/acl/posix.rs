//! Lists of the POSIX draft 1003.1e as Linux has them (acl(5); `fs/posix_acl.c`).

use super::{AclError, POSIX_ENTRIES_MAX};
use crate::access::Cred;
use crate::attr::Attr;
use serde::{Deserialize, Serialize};

/// The lists of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixAcl {
    /// Its own; `None` if the mode says it all.
    pub access: Option<PosixList>,
    /// Of a directory: what is made in it begins with this one.
    pub default: Option<PosixList>,
}

/// A list. Permissions are the low three bits of a mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixList {
    owner: u8,
    users: Vec<(u32, u8)>,
    group: u8,
    groups: Vec<(u32, u8)>,
    mask: Option<u8>,
    other: u8,
}

/// To whom an entry applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PosixTag {
    /// The owner.
    Owner,
    /// A user.
    User(u32),
    /// The owning group.
    Group,
    /// A group.
    Members(u32),
    /// The most that users and groups but the owner get.
    Mask,
    /// All others.
    Other,
}

impl PosixList {
    /// A list of entries in any order: one each of owner, owning group and others; a mask if anybody is named, nobody named
    /// twice.
    pub fn new(entries: impl IntoIterator<Item = (PosixTag, u32)>) -> Result<Self, AclError> {
        let (mut owner, mut group, mut other, mut mask) = (None, None, None, None);
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        for (tag, perm) in entries {
            let perm = u8::try_from(perm).ok().filter(|perm| *perm <= 7).ok_or(AclError::Invalid)?;
            let former = match tag {
                PosixTag::Owner => owner.replace(perm),
                PosixTag::Group => group.replace(perm),
                PosixTag::Other => other.replace(perm),
                PosixTag::Mask => mask.replace(perm),
                PosixTag::User(uid) => {
                    users.push((uid, perm));
                    None
                }
                PosixTag::Members(gid) => {
                    groups.push((gid, perm));
                    None
                }
            };
            if former.is_some() {
                return Err(AclError::Invalid);
            }
        }
        users.sort_unstable();
        groups.sort_unstable();
        let (Some(owner), Some(group), Some(other)) = (owner, group, other) else {
            return Err(AclError::Invalid);
        };
        let list = Self { owner, users, group, groups, mask, other };
        if list.len() > POSIX_ENTRIES_MAX {
            return Err(AclError::TooLong);
        }
        if list.is_valid() { Ok(list) } else { Err(AclError::Invalid) }
    }

    /// The list that nine permission bits are.
    pub fn of_mode(mode: u32) -> Self {
        let class = |shift: u32| (mode >> shift & 7) as u8;
        let [owner, group, other] = [class(6), class(3), class(0)];
        Self { owner, users: Vec::new(), group, groups: Vec::new(), mask: None, other }
    }

    fn is_valid(&self) -> bool {
        let ordered = |named: &[(u32, u8)]| named.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let masked = self.mask.is_some() || self.users.is_empty() && self.groups.is_empty();
        let perms = self.entries().all(|(_, perm)| perm <= 7);
        let limit = self.len() <= POSIX_ENTRIES_MAX;
        let nobody = |named: &[(u32, u8)]| named.iter().any(|(id, _)| *id == u32::MAX);
        let named = !nobody(&self.users) && !nobody(&self.groups);
        masked && perms && limit && named && ordered(&self.users) && ordered(&self.groups)
    }

    /// Entries in their order: owner, users, owning group, groups, mask, others.
    pub fn entries(&self) -> impl Iterator<Item = (PosixTag, u32)> + '_ {
        let one = |tag, perm: u8| std::iter::once((tag, u32::from(perm)));
        let users = self.users.iter().map(|(uid, perm)| (PosixTag::User(*uid), u32::from(*perm)));
        let groups = self.groups.iter().map(|(gid, perm)| (PosixTag::Members(*gid), u32::from(*perm)));
        let mask = self.mask.map(|perm| (PosixTag::Mask, u32::from(perm)));
        one(PosixTag::Owner, self.owner)
            .chain(users)
            .chain(one(PosixTag::Group, self.group))
            .chain(groups)
            .chain(mask)
            .chain(one(PosixTag::Other, self.other))
    }

    fn len(&self) -> usize {
        3 + self.users.len() + self.groups.len() + usize::from(self.mask.is_some())
    }

    /// The most that the group class gets.
    pub(super) fn mask(&self) -> u32 {
        self.mask.unwrap_or(7).into()
    }

    /// Whether mode bits say as much.
    pub fn is_minimal(&self) -> bool {
        self.mask.is_none()
    }

    /// The nine permission bits: of the group they are the mask, if there is one.
    pub fn mode(&self) -> u32 {
        let group = self.mask.unwrap_or(self.group);
        u32::from(self.owner) << 6 | u32::from(group) << 3 | u32::from(self.other)
    }

    /// chmod(2): the group's bits are the mask's, if there is one.
    pub fn set_mode(&mut self, mode: u32) {
        let class = |shift: u32| (mode >> shift & 7) as u8;
        self.owner = class(6);
        *self.mask.as_mut().unwrap_or(&mut self.group) = class(3);
        self.other = class(0);
    }

    /// As a directory's default list, for an object that is made with a mode: what the mode does not have is taken away.
    pub fn limited(&self, mode: u32) -> Self {
        let mut list = self.clone();
        list.set_mode(self.mode() & mode);
        list
    }

    /// Whether the caller has all permissions wanted (acl(5), "access check algorithm").
    pub fn permits(&self, cred: &Cred, attr: &Attr, want: u32) -> bool {
        let has = |perm: u8| u32::from(perm) & want == want;
        let masked = |perm: u8| has(perm) && self.mask() & want == want;
        if cred.uid == attr.uid {
            return has(self.owner);
        }
        if let Ok(at) = self.users.binary_search_by_key(&cred.uid, |(uid, _)| *uid) {
            return masked(self.users[at].1);
        }
        let mut member = false;
        for (gid, perm) in std::iter::once(&(attr.gid, self.group)).chain(&self.groups) {
            if cred.in_group(*gid) {
                member = true;
                if has(*perm) {
                    return masked(*perm);
                }
            }
        }
        !member && has(self.other)
    }
}

impl PosixAcl {
    pub(super) fn is_sound(&self, is_dir: bool) -> bool {
        let access = self.access.as_ref().is_none_or(|list| list.is_valid() && !list.is_minimal());
        let default = self.default.as_ref().is_none_or(|list| list.is_valid() && is_dir);
        access && default && (self.access.is_some() || self.default.is_some())
    }
}
