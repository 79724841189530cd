//! The evaluators against the RFC's sentences told naively; mode and list in step; both kinds shown as each other.

mod rules;

use super::change::{Creation, SetMode, changed, created};
use super::map::{as_nfs4, as_posix, trivial};
use super::nfs4::{ace_flag, acl_flag, bits_of, perm_of};
use super::posix::PosixTag;
use super::*;
use crate::access::{Cred, Perm, may_delete_child, permits};
use crate::attr::{Delegated, Device, FileKind};
use crate::id::{Ino, VolumeId};
use crate::time::Timestamp;
use proptest::prelude::*;
use std::sync::Arc;

fn attr(kind: FileKind, uid: u32, gid: u32, mode: u32, acl: Option<Acl>) -> Attr {
    let zero = Timestamp { secs: 0, nanos: 0 };
    Attr {
        ino: Ino(7),
        volume: VolumeId(1),
        generation: 1,
        kind,
        mode,
        nlink: 1,
        uid,
        gid,
        size: 10,
        used: 0,
        device: Device::default(),
        atime: zero,
        mtime: zero,
        ctime: zero,
        btime: zero,
        change: 1,
        acl: acl.map(Arc::new),
        label: None,
        delegated: Delegated::No,
    }
}

fn file(mode: u32, acl: Acl) -> Attr {
    attr(FileKind::Regular, 1, 1, mode, Some(acl))
}

const ALLOW: AceKind = AceKind::Allow;
const DENY: AceKind = AceKind::Deny;

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        Just(Who::Owner),
        Just(Who::Group),
        Just(Who::Everyone),
        (0..4u32).prop_map(Who::User),
        (0..4u32).prop_map(Who::Members),
    ]
}

fn ace(is_dir: bool) -> impl Strategy<Value = Ace> {
    // Mostly bits that mean something, often several.
    let mask = prop_oneof![
        (0..8u32, any::<bool>()).prop_map(|(perm, dir)| bits_of(perm, dir)),
        any::<u32>().prop_map(|bits| bits & right::ALL),
    ];
    let flags = any::<u8>().prop_map(move |flags| {
        if !is_dir {
            return flags & ace_flag::INHERITED;
        }
        let flags = flags & ace_flag::ALL;
        if flags & ace_flag::INHERIT == 0 { flags & !ace_flag::INHERIT_ONLY } else { flags }
    });
    (any::<bool>(), flags, mask, who()).prop_map(|(allow, flags, mask, who)| {
        let kind = if allow { ALLOW } else { DENY };
        Ace { kind, flags, mask, who }
    })
}

fn nfs4(is_dir: bool) -> impl Strategy<Value = Nfs4Acl> {
    (proptest::collection::vec(ace(is_dir), 0..8), 0..8u8).prop_map(|(aces, flags)| Nfs4Acl { flags, aces })
}

fn posix() -> impl Strategy<Value = PosixList> {
    let named = || proptest::collection::btree_map(0..5u32, 0..8u32, 0..3);
    (0..8u32, named(), 0..8u32, named(), proptest::option::of(0..8u32), 0..8u32).prop_map(
        |(owner, users, group, groups, mask, other)| {
            let mut entries =
                vec![(PosixTag::Owner, owner), (PosixTag::Group, group), (PosixTag::Other, other)];
            if !users.is_empty() || !groups.is_empty() || mask.is_some() {
                entries.push((PosixTag::Mask, mask.unwrap_or(7)));
            }
            entries.extend(users.into_iter().map(|(uid, perm)| (PosixTag::User(uid), perm)));
            entries.extend(groups.into_iter().map(|(gid, perm)| (PosixTag::Members(gid), perm)));
            PosixList::new(entries).expect("a list as lists are")
        },
    )
}

fn cred() -> impl Strategy<Value = Cred> {
    (1..5u32, 0..5u32, proptest::collection::vec(0..5u32, 0..3))
        .prop_map(|(uid, gid, groups)| Cred::new(uid, gid, groups))
}

/// RFC 8881 §6.2.1, sentence by sentence.
fn naive_nfs4(acl: &Nfs4Acl, cred: &Cred, attr: &Attr, wanted: u32) -> bool {
    let mut unallowed: Vec<u32> = (0..32).map(|n| 1 << n).filter(|bit| wanted & bit != 0).collect();
    for ace in &acl.aces {
        if ace.flags & ace_flag::INHERIT_ONLY != 0 {
            continue;
        }
        let groups: Vec<u32> = [cred.gid].iter().chain(cred.groups()).copied().collect();
        let matches = match ace.who {
            Who::Owner => cred.uid == attr.uid,
            Who::Group => groups.contains(&attr.gid),
            Who::Everyone => true,
            Who::User(uid) => uid == cred.uid,
            Who::Members(gid) => groups.contains(&gid),
        };
        if !matches {
            continue;
        }
        match ace.kind {
            AceKind::Allow => unallowed.retain(|bit| ace.mask & bit == 0),
            AceKind::Deny if unallowed.iter().any(|bit| ace.mask & bit != 0) => return false,
            AceKind::Deny => {}
        }
        if unallowed.is_empty() {
            return true;
        }
    }
    unallowed.is_empty()
}

/// acl(5), "access check algorithm", over entries.
fn naive_posix(list: &PosixList, cred: &Cred, attr: &Attr, wanted: u32) -> bool {
    let entries: Vec<(PosixTag, u32)> = list.entries().collect();
    let of = |tag| entries.iter().find(|(t, _)| *t == tag).map(|(_, perm)| *perm);
    let mask = of(PosixTag::Mask).unwrap_or(7);
    let has = |perm: u32| perm & wanted == wanted;
    if cred.uid == attr.uid {
        return has(of(PosixTag::Owner).expect("an owner"));
    }
    if let Some(perm) = of(PosixTag::User(cred.uid)) {
        return has(perm) && has(mask);
    }
    let matching: Vec<u32> = entries
        .iter()
        .filter(|(tag, _)| match tag {
            PosixTag::Group => cred.in_group(attr.gid),
            PosixTag::Members(gid) => cred.in_group(*gid),
            _ => false,
        })
        .map(|(_, perm)| *perm)
        .collect();
    if !matching.is_empty() {
        return matching.into_iter().any(has) && has(mask);
    }
    has(of(PosixTag::Other).expect("others"))
}

fn allowed_mode(acl: &Nfs4Acl) -> u32 {
    // §6.3.2 with principals: the owner in no group, a member who owns nothing, a stranger.
    let attr = attr(FileKind::Regular, 100, 100, 0, None);
    let special = Nfs4Acl {
        aces: acl.aces.iter().filter(|a| !matches!(a.who, Who::User(_) | Who::Members(_))).copied().collect(),
        ..acl.clone()
    };
    let class = |cred: Cred| {
        let may = |mask| naive_nfs4(&special, &cred, &attr, mask);
        let write = may(right::WRITE_DATA) && may(right::APPEND_DATA);
        u32::from(may(right::READ_DATA)) << 2 | u32::from(write) << 1 | u32::from(may(right::EXECUTE))
    };
    let [owner, member, other] =
        [(100, 99), (99, 100), (99, 99)].map(|(uid, gid)| Cred::new(uid, gid, vec![]));
    class(owner) << 6 | class(member) << 3 | class(other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nfs4_lists_are_evaluated_as_the_rfc_says(
        acl in nfs4(true), cred in cred(), uid in 1..5u32, gid in 0..5u32, wanted in any::<u32>(),
    ) {
        let attr = attr(FileKind::Directory, uid, gid, 0, Some(Acl::Nfs4(acl.clone())));
        let wanted = wanted & right::ALL & 0x7;
        prop_assert_eq!(acl.permits(&cred, &attr, wanted), naive_nfs4(&acl, &cred, &attr, wanted));
        for bit in (0..21).map(|n| 1 << n) {
            let allowed = acl.verdict(&cred, &attr, bit) == Verdict::Allowed;
            prop_assert_eq!(allowed, naive_nfs4(&acl, &cred, &attr, bit));
        }
        prop_assert_eq!(acl.mode(), allowed_mode(&acl));
    }

    #[test]
    fn posix_lists_are_evaluated_as_acl_5_says(
        list in posix(), cred in cred(), uid in 1..5u32, gid in 0..5u32, wanted in 1..8u32,
    ) {
        let attr = attr(FileKind::Regular, uid, gid, list.mode(), None);
        prop_assert_eq!(list.permits(&cred, &attr, wanted), naive_posix(&list, &cred, &attr, wanted));
    }

    #[test]
    fn a_mode_set_is_the_mode_shown(acl in nfs4(true), mode in 0..0o1000u32) {
        let mut once = acl.clone();
        once.set_mode(mode, true);
        prop_assert_eq!(once.mode(), mode);
        prop_assert!(once.is_sound(true));
        // Named users and groups get nothing that the group's bits do not have.
        let stranger = attr(FileKind::Directory, 100, 100, mode, None);
        let group = mode >> 3 & 7;
        for ace in once.aces.iter().filter(|a| a.is_effective() && a.kind == ALLOW) {
            if matches!(ace.who, Who::User(_) | Who::Members(_)) {
                prop_assert_eq!(ace.mask & bits_of(7 & !group, true), 0);
            }
        }
        // Whom nobody denied a right beside those of the mode has it still.
        for bit in [right::READ_ACL, right::WRITE_ACL, right::DELETE, right::WRITE_OWNER] {
            for cred in [Cred::new(1, 1, vec![]), Cred::new(3, 9, vec![2]), Cred::new(100, 9, vec![])] {
                prop_assert_eq!(acl.verdict(&cred, &stranger, bit), once.verdict(&cred, &stranger, bit));
            }
        }
        // What children inherit has not changed.
        let passed = |acl: &Nfs4Acl| [false, true].map(|is_dir| acl.inherited(is_dir).aces);
        prop_assert_eq!(passed(&acl), passed(&once));
        let mut twice = once.clone();
        twice.set_mode(mode, true);
        prop_assert_eq!(twice, once);
    }

    /// The owner of a POSIX list is not looked up among users and groups; those who are not have as NFSv4 what they had.
    #[test]
    fn a_posix_list_shown_as_nfs4_gives_the_same_rights(
        list in posix(), cred in cred(), uid in 1..5u32, gid in 0..5u32, perm in prop_oneof![Just(4u32), Just(2), Just(1)],
    ) {
        let acl = Acl::Posix(PosixAcl { access: Some(list.clone()), default: None });
        let shown = as_nfs4(Some(&acl), list.mode(), false);
        let attr = attr(FileKind::Regular, uid, gid, list.mode(), None);
        let before = list.permits(&cred, &attr, perm);
        prop_assert_eq!(shown.permits(&cred, &attr, bits_of(perm, false)), before, "{:?}", shown);
        prop_assert!(shown.aces.len() <= ACES_MAX);
    }

    #[test]
    fn a_posix_list_comes_back_from_nfs4_as_it_was_but_for_the_mask(list in posix()) {
        let acl = Acl::Posix(PosixAcl { access: Some(list.clone()), default: Some(list.clone()) });
        let shown = as_nfs4(Some(&acl), list.mode(), true);
        let (access, default) = as_posix(Some(&Acl::Nfs4(shown)), list.mode());
        prop_assert_eq!(Some(&access), default.as_ref());
        let effective = |list: &PosixList| -> Vec<(PosixTag, u32)> {
            let mask = list.entries().find(|(tag, _)| *tag == PosixTag::Mask).map_or(7, |(_, perm)| perm);
            list.entries()
                .filter(|(tag, _)| *tag != PosixTag::Mask)
                .map(|(tag, perm)| match tag {
                    PosixTag::Owner | PosixTag::Other => (tag, perm),
                    _ => (tag, perm & mask),
                })
                .collect()
        };
        prop_assert_eq!(effective(&access), effective(&list));
    }

    /// What NFSACL shows of an NFSv4 list gives nobody more than the list, but for those who are owner or in a group and named as well.
    #[test]
    fn an_nfs4_list_shown_as_posix_gives_no_more(acl in nfs4(false), uid in 1..4u32, perm in prop_oneof![Just(4u32), Just(2), Just(1)]) {
        let mode = acl.mode();
        let object = attr(FileKind::Regular, 100, 100, mode, None);
        let (list, _) = as_posix(Some(&Acl::Nfs4(acl.clone())), mode);
        prop_assert_eq!(list.mode() & 0o707, mode & 0o707);
        let cred = Cred::new(uid, 99, vec![]);
        if list.permits(&cred, &object, perm) {
            prop_assert!(acl.permits(&cred, &object, bits_of(perm, false)), "{:?}", list);
        }
    }

    /// Whatever is set in whatever order, mode and list say the same.
    #[test]
    fn mode_and_list_stay_in_step(
        is_dir in any::<bool>(),
        steps in proptest::collection::vec((0..5u8, nfs4(true), posix(), 0..0o10000u32, 0..0o10000u32), 1..6),
    ) {
        let (mut mode, mut acl) = (0o644, None);
        for (what, list, posix, value, mask) in steps {
            let aces = || list.aces.iter().map(|a| Ace { flags: if is_dir { a.flags } else { 0 }, ..*a }).collect();
            let set_mode = (what != 1).then_some(SetMode { mode: value, mask: if what == 3 { mask } else { 0o7777 } });
            let set_acl = match what {
                1 => Some(SetAcl::Aces(aces())),
                2 => Some(SetAcl::Nfs4(Nfs4Acl { flags: list.flags, aces: aces() })),
                4 => Some(SetAcl::Posix { access: Some(Some(posix.clone())), default: is_dir.then_some(Some(posix)) }),
                _ => None,
            };
            let (after, now) = changed(acl.as_ref(), mode, is_dir, set_mode, set_acl.as_ref()).expect("valid lists");
            match (&set_acl, set_mode) {
                (Some(SetAcl::Aces(aces)), _) => {
                    let shown = as_nfs4(now.as_ref(), after, is_dir);
                    let strip = |aces: &[Ace]| -> Vec<Ace> {
                        aces.iter().map(|a| Ace { flags: a.flags & !ace_flag::INHERITED, ..*a }).collect()
                    };
                    prop_assert_eq!(strip(&shown.aces), strip(aces));
                }
                (Some(SetAcl::Nfs4(list)), _) => prop_assert_eq!(&as_nfs4(now.as_ref(), after, is_dir), list),
                (Some(SetAcl::Posix { access, default }), _) => {
                    let (own, passed) = as_posix(now.as_ref(), after);
                    prop_assert_eq!(Some(Some(own)), access.clone());
                    prop_assert!(!is_dir || Some(passed) == *default);
                }
                (None, Some(set)) => prop_assert_eq!(after, mode & !set.mask | set.mode & set.mask),
                (None, None) => {}
            }
            (mode, acl) = (after, now);
            prop_assert!(acl.as_ref().is_none_or(|acl| acl.is_sound(is_dir, mode)), "{:o} {:?}", mode, acl);
            prop_assert!(mode <= 0o7777);
        }
    }

    #[test]
    fn what_is_made_is_sound(
        is_dir in any::<bool>(), list in nfs4(true), default in posix(), of_posix in any::<bool>(),
        mode in proptest::option::of(0..0o1000u32), umask in 0..0o1000u32, exclusive in any::<bool>(),
    ) {
        let parent = if of_posix {
            Acl::Posix(PosixAcl { access: None, default: Some(default) })
        } else {
            Acl::Nfs4(list)
        };
        let new = Creation { is_dir, mode, default_mode: 0o600, umask, acl: None, exclusive };
        let (made, acl) = created(Some(&parent), new).expect("inherited lists are valid");
        prop_assert!(acl.as_ref().is_none_or(|acl| acl.is_sound(is_dir, made)), "{:?}", acl);
        if let (Some(asked), Some(Acl::Nfs4(_))) = (mode, &acl) {
            prop_assert!(made == asked || made == asked & !umask);
        }
        if let (Some(asked), Acl::Posix(_)) = (mode, &parent) {
            prop_assert_eq!(made & !asked, 0);
        }
    }

    #[test]
    fn without_a_list_the_three_bits_decide(mode in 0..0o1000u32, cred in cred(), uid in 1..5u32, gid in 0..5u32, is_dir in any::<bool>()) {
        let kind = if is_dir { FileKind::Directory } else { FileKind::Regular };
        let plain = attr(kind, uid, gid, mode, None);
        let listed = attr(kind, uid, gid, mode, Some(Acl::Nfs4(trivial(mode, is_dir))));
        let posix = PosixAcl { access: Some(PosixList::of_mode(mode)), default: None };
        let posix = attr(kind, uid, gid, mode, Some(Acl::Posix(posix)));
        for want in [Perm::READ, Perm::WRITE, Perm::APPEND, Perm::EXEC, Perm::ADD_FILE, Perm::ADD_DIRECTORY] {
            let may = permits(&cred, &plain, want);
            prop_assert_eq!(may, permits(&cred, &listed, want));
            prop_assert_eq!(may, permits(&cred, &posix, want));
        }
        let deletes = may_delete_child(&cred, &plain);
        prop_assert!(!is_dir || deletes == may_delete_child(&cred, &listed));
        prop_assert_eq!(trivial(mode, is_dir).mode(), mode);
    }
}
