//! Single rules by example: removing, appending, inheriting, creating, what is stored and what refused.

use super::*;
use crate::access::{Unlink, may_unlink, may_write};

fn user(uid: u32) -> Cred {
    Cred::new(uid, uid, vec![])
}

fn list(aces: &[Ace]) -> Acl {
    Acl::Nfs4(Nfs4Acl { flags: 0, aces: aces.to_vec() })
}

#[test]
fn the_right_to_remove() {
    let everyone = |kind, mask| Ace::new(kind, Who::Everyone, mask);
    let dir = |mode, aces: Option<&[Ace]>| attr(FileKind::Directory, 1, 1, mode, aces.map(list));
    let victim = |aces: Option<&[Ace]>| attr(FileKind::Regular, 1, 1, 0o644, aces.map(list));
    let searches = everyone(ALLOW, right::EXECUTE);
    let adds = everyone(ALLOW, right::EXECUTE | right::WRITE_DATA);
    let plain = victim(None);
    let is = |dir: &Attr, victim: &Attr| may_unlink(&user(5), dir, victim);

    assert_eq!(is(&dir(0o755, None), &plain), Unlink::Forbidden);
    assert_eq!(is(&dir(0o777, None), &plain), Unlink::Allowed);
    assert_eq!(is(&dir(0o1777, None), &plain), Unlink::Sticky);
    // Adding stands for removing where nothing speaks of that.
    assert_eq!(is(&dir(0, Some(&[adds])), &plain), Unlink::Allowed);
    let keeps = [everyone(DENY, right::DELETE_CHILD), adds];
    assert_eq!(is(&dir(0, Some(&keeps)), &plain), Unlink::Forbidden);
    assert_eq!(
        is(&dir(0, Some(&[adds])), &victim(Some(&[everyone(DENY, right::DELETE)]))),
        Unlink::Forbidden
    );
    // Either right is enough, whatever the other says.
    let goes = victim(Some(&[everyone(ALLOW, right::DELETE)]));
    assert_eq!(is(&dir(0, Some(&keeps)), &goes), Unlink::Allowed);
    assert_eq!(is(&dir(0o1755, None), &goes), Unlink::Allowed);
    let removes = [everyone(ALLOW, right::DELETE_CHILD), searches];
    assert_eq!(is(&dir(0, Some(&removes)), &victim(Some(&[everyone(DENY, right::DELETE)]))), Unlink::Allowed);
    assert_eq!(is(&dir(0o1000, Some(&removes)), &plain), Unlink::Sticky);
    // But nobody removes in a directory that he may not search.
    assert_eq!(is(&dir(0, Some(&[everyone(ALLOW, right::DELETE_CHILD)])), &goes), Unlink::Forbidden);
    assert_eq!(may_unlink(&Cred::root(), &dir(0, Some(&keeps)), &plain), Unlink::Allowed);
}

#[test]
fn files_that_only_grow() {
    let appends = file(0, list(&[Ace::new(ALLOW, Who::User(5), right::APPEND_DATA)]));
    assert!(may_write(&user(5), &appends, 10) && may_write(&user(5), &appends, 11));
    assert!(!may_write(&user(5), &appends, 9) && !may_write(&user(6), &appends, 10));
}

#[test]
fn the_superuser_executes_what_anybody_may() {
    let executes = file(0, list(&[Ace::new(ALLOW, Who::User(5), right::EXECUTE)]));
    assert!(permits(&Cred::root(), &executes, Perm::EXEC) && permits(&Cred::root(), &executes, Perm::READ));
    let nobody = file(0, list(&[Ace::new(DENY, Who::User(5), right::EXECUTE)]));
    assert!(!permits(&Cred::root(), &nobody, Perm::EXEC) && permits(&Cred::root(), &nobody, Perm::WRITE));
}

#[test]
fn what_a_child_inherits() {
    use ace_flag::{
        DIRECTORY_INHERIT as D, FILE_INHERIT as F, INHERIT_ONLY as I, INHERITED as H, NO_PROPAGATE as N,
    };
    let ace = |flags| Ace { flags, ..Ace::new(ALLOW, Who::User(9), right::READ_DATA) };
    let passed = |flags, is_dir| {
        let acl = Nfs4Acl { flags: acl_flag::AUTO_INHERIT | acl_flag::PROTECTED, aces: vec![ace(flags)] };
        let inherited = acl.inherited(is_dir);
        assert_eq!(inherited.flags, acl_flag::AUTO_INHERIT);
        inherited.aces.first().map(|ace| ace.flags)
    };
    for (flags, file, dir) in [
        (0, None, None),
        (F, Some(H), Some(F | I | H)),
        (D, None, Some(D | H)),
        (F | D, Some(H), Some(F | D | H)),
        (F | D | I, Some(H), Some(F | D | H)),
        (F | I, Some(H), Some(F | I | H)),
        (F | N, Some(H), None),
        (D | N, None, Some(H)),
        (F | D | N | I, Some(H), Some(H)),
    ] {
        assert_eq!((passed(flags, false), passed(flags, true)), (file, dir), "{flags:#x}");
    }
}

#[test]
fn creation_with_lists_and_umask() {
    let named = [
        (PosixTag::Owner, 7),
        (PosixTag::User(5), 7),
        (PosixTag::Group, 5),
        (PosixTag::Mask, 7),
        (PosixTag::Other, 5),
    ];
    let default = PosixList::new(named).expect("a list");
    let parent = Acl::Posix(PosixAcl { access: None, default: Some(default.clone()) });
    let new = Creation {
        is_dir: false,
        mode: Some(0o666),
        default_mode: 0o600,
        umask: 0o077,
        acl: None,
        exclusive: false,
    };
    // Without a default list the umask applies, with one it does not.
    assert_eq!(created(None, new), Ok((0o600, None)));
    let (mode, acl) = created(Some(&parent), new).expect("a file");
    assert_eq!(mode, 0o664);
    assert!(matches!(acl, Some(Acl::Posix(PosixAcl { access: Some(_), default: None }))));
    let (mode, acl) =
        created(Some(&parent), Creation { is_dir: true, mode: Some(0o777), ..new }).expect("a directory");
    assert_eq!(mode, 0o775);
    assert!(matches!(acl, Some(Acl::Posix(PosixAcl { access: Some(_), default: Some(d) })) if d == default));
    // An exclusive creation has its mode still to come: nobody gets in meanwhile, nothing is lost.
    let (mode, acl) =
        created(Some(&parent), Creation { mode: None, exclusive: true, ..new }).expect("a file");
    assert_eq!(mode, 0o600);
    let all = SetMode { mode: 0o664, mask: 0o7777 };
    let (mode, acl) = changed(acl.as_ref(), mode, false, Some(all), None).expect("a mode");
    assert_eq!(
        (mode, as_posix(acl.as_ref(), mode).0.entries().nth(1)),
        (0o664, Some((PosixTag::User(5), 7)))
    );

    // Of NFSv4: the mode is applied to what is inherited, without one it follows from it.
    let flags = ace_flag::INHERIT;
    let aces = vec![
        Ace { flags, ..Ace::new(ALLOW, Who::User(5), bits_of(7, false)) },
        Ace { flags, ..Ace::new(ALLOW, Who::Owner, bits_of(6, false)) },
    ];
    let parent = Acl::Nfs4(Nfs4Acl { flags: acl_flag::AUTO_INHERIT, aces });
    let (mode, acl) = created(Some(&parent), Creation { mode: Some(0o640), ..new }).expect("a file");
    assert_eq!(mode, 0o640);
    let Some(Acl::Nfs4(acl)) = acl else { panic!("no list") };
    assert_eq!((acl.mode(), acl.flags), (0o640, acl_flag::AUTO_INHERIT));
    assert!(
        acl.aces
            .iter()
            .any(|a| a.who == Who::User(5) && perm_of(a.mask) == 4 && a.flags == ace_flag::INHERITED)
    );
    let (mode, acl) = created(Some(&parent), Creation { mode: None, ..new }).expect("a file");
    assert_eq!((mode, acl.and_then(|acl| acl.mode())), (0o600, Some(0o600)));
    assert_eq!(
        created(Some(&parent), Creation { mode: None, exclusive: true, umask: 0, ..new }),
        Ok((0o600, None))
    );
    // What is given is taken as given.
    let given = SetAcl::Aces(vec![Ace::new(ALLOW, Who::Everyone, right::READ_DATA)]);
    let (mode, acl) =
        created(Some(&parent), Creation { mode: Some(0o4700), acl: Some(&given), ..new }).expect("a file");
    assert_eq!(mode, 0o4444);
    assert!(matches!(acl, Some(Acl::Nfs4(acl)) if acl.aces.len() == 1 && acl.flags == acl_flag::PROTECTED));
}

#[test]
fn what_the_mode_says_is_not_stored() {
    for is_dir in [false, true] {
        for mode in [0o644, 0o750, 0o077, 0o000, 0o705] {
            let shown = as_nfs4(None, mode, is_dir);
            let set = SetAcl::Aces(shown.aces.clone());
            assert_eq!(changed(None, mode | 0o1000, is_dir, None, Some(&set)), Ok((mode | 0o1000, None)));
            assert_eq!(changed(None, 0o123, is_dir, None, Some(&set)), Ok((mode, None)));
        }
    }
    // What a POSIX list shows, set again, does not turn it into another kind.
    let entries = [
        (PosixTag::Owner, 6),
        (PosixTag::User(5), 7),
        (PosixTag::Group, 4),
        (PosixTag::Mask, 6),
        (PosixTag::Other, 0),
    ];
    let acl = Acl::Posix(PosixAcl { access: Some(PosixList::new(entries).expect("a list")), default: None });
    let shown = SetAcl::Aces(as_nfs4(Some(&acl), 0o660, false).aces);
    assert_eq!(changed(Some(&acl), 0o660, false, None, Some(&shown)), Ok((0o660, Some(acl))));
}

#[test]
fn lists_that_are_refused() {
    let set =
        |aces: Vec<Ace>, is_dir| changed(None, 0o644, is_dir, None, Some(&SetAcl::Aces(aces))).map(|_| ());
    let ace = |flags| Ace { flags, ..Ace::new(ALLOW, Who::Everyone, 1) };
    assert_eq!(set(vec![ace(ace_flag::DIRECTORY_INHERIT)], true), Ok(()));
    assert_eq!(set(vec![ace(ace_flag::DIRECTORY_INHERIT)], false), Err(AclError::Invalid));
    assert_eq!(set(vec![ace(ace_flag::INHERIT_ONLY)], true), Err(AclError::Invalid));
    assert_eq!(set(vec![Ace::new(ALLOW, Who::Everyone, 0x800)], true), Err(AclError::Invalid));
    assert_eq!(set(vec![ace(0); ACES_MAX], false), Ok(()));
    assert_eq!(set(vec![ace(0); ACES_MAX + 1], false), Err(AclError::TooLong));
    let posix = |n: u32| {
        let specials =
            [(PosixTag::Owner, 7), (PosixTag::Group, 7), (PosixTag::Mask, 7), (PosixTag::Other, 7)];
        PosixList::new(specials.into_iter().chain((0..n).map(|uid| (PosixTag::User(uid), uid & 7))))
    };
    let longest = posix(POSIX_ENTRIES_MAX as u32 - 4).expect("a list");
    assert_eq!(posix(POSIX_ENTRIES_MAX as u32 - 3), Err(AclError::TooLong));
    // Also as NFSv4 entries it is below what protocols carry.
    let acl = Acl::Posix(PosixAcl { access: Some(longest.clone()), default: Some(longest) });
    assert!(as_nfs4(Some(&acl), 0o777, true).aces.len() <= 1024);
}
