//! One kind of list shown as the other, and the mode as either.
//!
//! POSIX as NFSv4 follows draft-ietf-nfsv4-acl-mapping-05 §3 and Linux (`_posix_to_nfsv4_one`): the entries give exactly the
//! same rights, because what a class lacks and a later entry would give is denied to it. NFSv4 as POSIX cannot be exact; it shows
//! no more than is allowed: a named user or group is shown without what is denied to any group, for it may be a member.

use super::nfs4::{ace_flag, bits_of, decide, perm_of};
use super::posix::PosixTag;
use super::{Ace, AceKind, Acl, Nfs4Acl, PosixAcl, PosixList, Who, right};
use std::collections::BTreeSet;

/// What a file's mode and POSIX lists let everybody do beside reading, writing and executing.
const ANYONE: u32 = right::READ_ATTRIBUTES | right::READ_ACL | right::SYNCHRONIZE;
/// And its owner.
const OWNER: u32 = right::WRITE_ATTRIBUTES | right::WRITE_ACL;

/// The list that an object shows over NFSv4: with `None`, what its mode is (§6.4.2).
pub fn as_nfs4(acl: Option<&Acl>, mode: u32, is_dir: bool) -> Nfs4Acl {
    match acl {
        Some(Acl::Nfs4(acl)) => acl.clone(),
        Some(Acl::Posix(acl)) => posix_as_nfs4(acl, mode, is_dir),
        None => trivial(mode, is_dir),
    }
}

/// The list that says what the mode says.
pub fn trivial(mode: u32, is_dir: bool) -> Nfs4Acl {
    posix_as_nfs4(&PosixAcl::default(), mode, is_dir)
}

fn posix_as_nfs4(acl: &PosixAcl, mode: u32, is_dir: bool) -> Nfs4Acl {
    let mut aces = Vec::new();
    let of_mode = PosixList::of_mode(mode);
    put_list(&mut aces, acl.access.as_ref().unwrap_or(&of_mode), 0, is_dir);
    if let Some(list) = &acl.default {
        let flags = ace_flag::INHERIT | ace_flag::INHERIT_ONLY;
        put_list(&mut aces, list, flags, is_dir);
    }
    Nfs4Acl { flags: 0, aces }
}

fn put_list(aces: &mut Vec<Ace>, list: &PosixList, flags: u8, is_dir: bool) {
    let (mut owner, mut group, mut other) = (0, 0, 0);
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for (tag, perm) in list.entries() {
        let masked = perm & list.mask();
        match tag {
            PosixTag::Owner => owner = perm,
            PosixTag::User(uid) => users.push((Who::User(uid), masked)),
            PosixTag::Group => group = masked,
            PosixTag::Members(gid) => groups.push((Who::Members(gid), masked)),
            PosixTag::Mask => {}
            PosixTag::Other => other = perm,
        }
    }
    let deny = |aces: &mut Vec<Ace>, who, perm| {
        if perm != 0 {
            aces.push(Ace { kind: AceKind::Deny, flags, mask: bits_of(perm, is_dir), who });
        }
    };
    let allow = |aces: &mut Vec<Ace>, who, perm, more: u32| {
        let mask = bits_of(perm, is_dir) | ANYONE | more;
        aces.push(Ace { kind: AceKind::Allow, flags, mask, who });
    };
    let of_users = users.iter().fold(0, |all, (_, perm)| all | perm);
    let of_groups = groups.iter().fold(group, |all, (_, perm)| all | perm);
    deny(aces, Who::Owner, (of_users | of_groups | other) & !owner);
    allow(aces, Who::Owner, owner, OWNER);
    for (who, perm) in users {
        deny(aces, who, (of_groups | other) & !perm);
        allow(aces, who, perm, 0);
    }
    // A member of several groups has what any of them has, so nothing is denied to one before all have allowed.
    allow(aces, Who::Group, group, 0);
    for (who, perm) in &groups {
        allow(aces, *who, *perm, 0);
    }
    deny(aces, Who::Group, other & !group);
    for (who, perm) in groups {
        deny(aces, who, other & !perm);
    }
    allow(aces, Who::Everyone, other, 0);
}

/// The lists that an object shows over NFSACL: its own, and of a directory the default one. With `None`, what its mode is.
pub fn as_posix(acl: Option<&Acl>, mode: u32) -> (PosixList, Option<PosixList>) {
    match acl {
        Some(Acl::Posix(acl)) => {
            (acl.access.clone().unwrap_or_else(|| PosixList::of_mode(mode)), acl.default.clone())
        }
        Some(Acl::Nfs4(acl)) => {
            let own: Vec<Ace> = acl.aces.iter().filter(|ace| ace.is_effective()).copied().collect();
            let passed: Vec<Ace> = acl.aces.iter().filter(|ace| ace.is_inheritable()).copied().collect();
            let default = (!passed.is_empty()).then(|| list_of(&passed));
            (list_of(&own), default)
        }
        None => (PosixList::of_mode(mode), None),
    }
}

fn list_of(aces: &[Ace]) -> PosixList {
    let perm = |who: Who| {
        // A user may be a member of any group, and so may a group's member.
        let is_named = matches!(who, Who::User(_) | Who::Members(_));
        let of = |ace: &&Ace| {
            let any_group = matches!(ace.who, Who::Group | Who::Members(_));
            let denied = is_named && any_group && ace.kind == AceKind::Deny;
            ace.who == who || ace.who == Who::Everyone || denied
        };
        perm_of(decide(aces.iter().filter(of)).0)
    };
    let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
    for ace in aces {
        match ace.who {
            Who::User(uid) => users.insert(uid),
            Who::Members(gid) => groups.insert(gid),
            _ => false,
        };
    }
    let group = perm(Who::Group);
    let mut entries = vec![
        (PosixTag::Owner, perm(Who::Owner)),
        (PosixTag::Group, group),
        (PosixTag::Other, perm(Who::Everyone)),
    ];
    let named: Vec<_> = users
        .iter()
        .map(|uid| (PosixTag::User(*uid), perm(Who::User(*uid))))
        .chain(groups.iter().map(|gid| (PosixTag::Members(*gid), perm(Who::Members(*gid)))))
        // What has no room is left out: the list is for looking at.
        .take(super::POSIX_ENTRIES_MAX - 4)
        .collect();
    if !named.is_empty() {
        entries.push((PosixTag::Mask, named.iter().fold(group, |all, (_, perm)| all | perm)));
        entries.extend(named);
    }
    PosixList::new(entries).unwrap_or_else(|_| PosixList::of_mode(0))
}
