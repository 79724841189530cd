//! Access control lists in commands: set by whom, kept with the mode, inherited, enforced, stored and gone.

use super::rig::{ROOT, Rig, rows_of, user};
use crate::{KvWrite, Table, read};
use atoll_base::access::Cred;
use atoll_base::acl::nfs4::{ace_flag, bits_of};
use atoll_base::acl::posix::PosixTag;
use atoll_base::acl::{Ace, AceKind, Acl, Nfs4Acl, PosixList, SetAcl, Who, right};
use atoll_base::attr::{Attr, FileKind, SetAttr, SetTime};
use atoll_base::id::Ino;
use atoll_base::time::Timestamp;
use atoll_meta::{CreateHow, FsError, NewNode, Op, Outcome, RemoveKind};
use proptest::prelude::*;

const READ: u32 = right::READ_DATA;
const WRITE: u32 = right::WRITE_DATA | right::APPEND_DATA;

fn allow(who: Who, mask: u32) -> Ace {
    Ace::new(AceKind::Allow, who, mask)
}

fn deny(who: Who, mask: u32) -> Ace {
    Ace::new(AceKind::Deny, who, mask)
}

fn aces(aces: &[Ace]) -> SetAttr {
    SetAttr { acl: Some(Box::new(SetAcl::Aces(aces.to_vec()))), ..SetAttr::default() }
}

fn posix(access: Option<Option<PosixList>>, default: Option<Option<PosixList>>) -> SetAttr {
    SetAttr { acl: Some(Box::new(SetAcl::Posix { access, default })), ..SetAttr::default() }
}

/// Owner 7, user 2 `perm`, group 5, mask 7, others 0.
fn named(perm: u32) -> PosixList {
    let entries = [
        (PosixTag::Owner, 7),
        (PosixTag::User(2), perm),
        (PosixTag::Group, 5),
        (PosixTag::Mask, 7),
        (PosixTag::Other, 0),
    ];
    PosixList::new(entries).unwrap()
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

fn lists(rig: &Rig) -> usize {
    rows_of(&rig.kv, Table::Acl).len()
}

/// A file of user 1 in the root.
fn file(rig: &mut Rig, name: &str) -> Attr {
    rig.set(&Cred::root(), &rig.attr(ROOT), mode(0o777)).unwrap();
    rig.make(&user(1), ROOT, name, NewNode::Regular, 0o600)
}

fn remove(rig: &mut Rig, cred: &Cred, dir: Ino, name: &str) -> Result<Outcome, FsError> {
    rig.op(cred, Op::Remove { dir, name: name.to_owned().into(), kind: RemoveKind::Any }).result
}

#[test]
fn a_list_lives_and_dies_with_its_inode() {
    let mut rig = Rig::new();
    let f = file(&mut rig, "f");
    rig.set(&user(1), &f, aces(&[allow(Who::User(2), READ | WRITE), allow(Who::Owner, READ)])).unwrap();
    assert_eq!((rig.attr(f.ino).mode, lists(&rig)), (0o400, 1));
    // Other changes leave the row alone, and what the inode says of it.
    let piece = rig.inline(0, b"x");
    rig.write(&user(2), &f, vec![piece]).unwrap();
    rig.root(Op::Touch(vec![(f.ino, rig.attr(f.ino).atime.plus_nanos(5))])).unwrap();
    assert!(rig.attr(f.ino).acl.is_some());
    rig.check();
    // A list that the mode says as well is none.
    let own = [allow(Who::Everyone, 0)];
    rig.set(&user(1), &f, aces(&own)).unwrap();
    assert_eq!((rig.attr(f.ino).mode, lists(&rig)), (0, 1));
    rig.set(&user(1), &f, posix(Some(Some(PosixList::of_mode(0o640))), None)).unwrap();
    assert_eq!((rig.attr(f.ino).mode, lists(&rig)), (0o640, 0));
    rig.set(&user(1), &f, posix(Some(Some(named(6))), None)).unwrap();
    assert_eq!((rig.attr(f.ino).mode, lists(&rig)), (0o770, 1));
    rig.check();
    remove(&mut rig, &user(1), ROOT, "f").unwrap();
    rig.sweep();
    assert_eq!(lists(&rig), 0);
    rig.check();
}

#[test]
fn damage_shows() {
    let mut rig = Rig::new();
    let f = file(&mut rig, "f");
    rig.set(&user(1), &f, posix(Some(Some(named(6))), None)).unwrap();
    let (key, value) = rows_of(&rig.kv, Table::Acl).pop().unwrap();
    let found = |kv: &crate::MemKv| crate::check::check(kv, &mut |_, _| {}).unwrap();
    let what = |kv| found(kv).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut kv = rig.kv.clone();
    kv.delete(Table::Acl, &key).unwrap();
    assert!(what(&kv).contains("/f: its access control list is missing"), "{}", what(&kv));
    // The mode and the list disagree.
    rig.set(&user(1), &f, mode(0o600)).unwrap();
    let mut kv = rig.kv.clone();
    kv.put(Table::Acl, &key, &value).unwrap();
    assert!(what(&kv).contains("/f: its access control list is malformed"), "{}", what(&kv));
    rig.set(&user(1), &f, posix(Some(None), None)).unwrap();
    let mut kv = rig.kv.clone();
    kv.put(Table::Acl, &key, &value).unwrap();
    assert!(what(&kv).contains("/f: there is an access control list"), "{}", what(&kv));
}

#[test]
fn who_may_change_what() {
    let mut rig = Rig::new();
    let f = file(&mut rig, "f");
    let set = |rig: &mut Rig, uid, set: SetAttr| rig.set(&user(uid), &f, set).map(|_| ());
    assert_eq!(set(&mut rig, 2, aces(&[])), Err(FsError::NotOwner));
    assert_eq!(set(&mut rig, 1, aces(&[])), Ok(()));
    // An empty list denies all, but the owner can always mend it.
    assert_eq!((rig.attr(f.ino).mode, set(&mut rig, 1, mode(0o600))), (0, Ok(())));

    let grant = |bits| aces(&[allow(Who::User(2), bits), allow(Who::Owner, READ)]);
    set(&mut rig, 1, grant(right::WRITE_ACL)).unwrap();
    rig.set(&Cred::root(), &f, SetAttr { mode_mask: Some(0o7000), ..mode(0o4000) }).unwrap();
    assert_eq!(set(&mut rig, 3, mode(0o666)), Err(FsError::NotOwner));
    // Another may set rights, not lend the owner's identity.
    assert_eq!(set(&mut rig, 2, mode(0o2755)), Ok(()));
    assert_eq!(rig.attr(f.ino).mode, 0o4755);

    set(&mut rig, 1, grant(right::WRITE_ATTRIBUTES)).unwrap();
    let times = SetAttr { mtime: SetTime::Client(Timestamp { secs: 9, nanos: 0 }), ..SetAttr::default() };
    assert_eq!(set(&mut rig, 3, times.clone()), Err(FsError::NotOwner));
    assert_eq!(set(&mut rig, 2, times), Ok(()));
    let now = SetAttr { mtime: SetTime::Server, ..SetAttr::default() };
    assert_eq!(set(&mut rig, 3, now.clone()), Err(FsError::AccessDenied));
    assert_eq!(set(&mut rig, 2, now), Ok(()));

    let owner = |uid| SetAttr { uid: Some(uid), ..SetAttr::default() };
    let group = |gid| SetAttr { gid: Some(gid), ..SetAttr::default() };
    assert_eq!(set(&mut rig, 2, owner(2)), Err(FsError::NotOwner));
    set(&mut rig, 1, grant(right::WRITE_OWNER)).unwrap();
    // For oneself and one's groups, not for others.
    assert_eq!(set(&mut rig, 2, owner(3)), Err(FsError::NotOwner));
    assert_eq!(set(&mut rig, 2, group(55)), Err(FsError::NotOwner));
    assert_eq!(set(&mut rig, 2, group(102)), Ok(()));
    assert_eq!(set(&mut rig, 2, owner(2)), Ok(()));
    assert_eq!((rig.attr(f.ino).uid, rig.attr(f.ino).gid), (2, 102));
    // Chown takes set-uid, though it is not the list's business.
    assert_eq!(rig.attr(f.ino).mode & 0o7000, 0);

    let link = rig.make(&user(1), ROOT, "l", NewNode::Symlink("x".into()), 0);
    assert_eq!(rig.set(&user(1), &link, aces(&[])), Err(FsError::NotSupported));
    assert_eq!(set(&mut rig, 2, posix(None, Some(Some(named(7))))), Err(FsError::Invalid));
    let long = vec![allow(Who::Everyone, READ); atoll_base::acl::ACES_MAX + 1];
    assert_eq!(set(&mut rig, 2, aces(&long)), Err(FsError::NoSpace));
    rig.check();
}

#[test]
fn privileges_lost_by_chown_do_not_come_back_with_a_list() {
    let mut rig = Rig::new();
    let f = file(&mut rig, "f");
    rig.set(&Cred::root(), &f, mode(0o4755)).unwrap();
    let set = SetAttr { uid: Some(3), ..aces(&[allow(Who::Everyone, READ)]) };
    rig.set(&Cred::root(), &f, set).unwrap();
    assert_eq!(rig.attr(f.ino).mode, 0o444);
    let bits = SetAttr { uid: Some(4), mode_mask: Some(0o4000), ..mode(0o4000) };
    rig.set(&Cred::root(), &f, bits).unwrap();
    assert_eq!(rig.attr(f.ino).mode, 0o4444);
}

#[test]
fn data_and_directories() {
    let mut rig = Rig::new();
    let f = file(&mut rig, "f");
    rig.set(&user(1), &f, aces(&[allow(Who::User(2), right::APPEND_DATA), allow(Who::User(3), WRITE)]))
        .unwrap();
    let put = |rig: &mut Rig, uid, offset, bytes: &[u8]| {
        let piece = rig.inline(offset, bytes);
        rig.write(&user(uid), &f, vec![piece]).map(|_| ())
    };
    assert_eq!(put(&mut rig, 2, 0, b"abc"), Ok(()));
    assert_eq!(put(&mut rig, 2, 2, b"x"), Err(FsError::AccessDenied));
    assert_eq!(put(&mut rig, 2, 3, b"d"), Ok(()));
    assert_eq!(put(&mut rig, 3, 0, b"x"), Ok(()));
    assert_eq!(put(&mut rig, 4, 9, b"x"), Err(FsError::AccessDenied));
    // The owner may write what he could open once.
    assert_eq!(put(&mut rig, 1, 0, b"y"), Ok(()));
    let size = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(rig.set(&user(2), &f, size), Err(FsError::AccessDenied));

    let d = rig.make(&user(1), ROOT, "d", NewNode::Directory, 0o700);
    let rights = [
        allow(Who::Everyone, right::EXECUTE),
        allow(Who::User(2), right::WRITE_DATA),
        allow(Who::User(3), right::APPEND_DATA),
        allow(Who::User(4), right::DELETE_CHILD),
        deny(Who::Everyone, right::DELETE_CHILD),
    ];
    rig.set(&user(1), &d, aces(&rights)).unwrap();
    let create = |rig: &mut Rig, uid, name: &str, node| {
        let attrs = mode(0o700);
        let op =
            Op::Create { dir: d.ino, name: name.to_owned().into(), node, how: CreateHow::Guarded, attrs };
        rig.op(&user(uid), op).result.map(|_| ())
    };
    assert_eq!(create(&mut rig, 2, "file", NewNode::Regular), Ok(()));
    assert_eq!(create(&mut rig, 2, "dir", NewNode::Directory), Err(FsError::AccessDenied));
    assert_eq!(create(&mut rig, 3, "dir", NewNode::Directory), Ok(()));
    assert_eq!(create(&mut rig, 3, "more", NewNode::Symlink("x".into())), Err(FsError::AccessDenied));
    assert_eq!(remove(&mut rig, &user(2), d.ino, "file"), Err(FsError::AccessDenied));
    assert_eq!(remove(&mut rig, &user(2), d.ino, "none"), Err(FsError::AccessDenied));
    assert_eq!(remove(&mut rig, &user(4), d.ino, "none"), Err(FsError::NotFound));
    let rename = |rig: &mut Rig, uid, from: &str, to: &str| {
        let (from_name, to_name) = (from.to_owned().into(), to.to_owned().into());
        rig.op(&user(uid), Op::Rename { from_dir: d.ino, from_name, to_dir: d.ino, to_name })
            .result
            .map(|_| ())
    };
    // Moving takes both.
    assert_eq!(rename(&mut rig, 2, "file", "new"), Err(FsError::AccessDenied));
    assert_eq!(rename(&mut rig, 4, "file", "new"), Err(FsError::AccessDenied));
    let movable =
        rig.names(d.ino).iter().find(|(name, _)| name == "file").map(|(_, ino)| rig.attr(*ino)).unwrap();
    rig.set(&user(2), &movable, aces(&[allow(Who::User(2), right::DELETE)])).unwrap();
    assert_eq!(rename(&mut rig, 2, "file", "new"), Ok(()));
    assert!(remove(&mut rig, &user(4), d.ino, "new").is_ok());
    rig.check();
}

#[test]
fn children_inherit() {
    let mut rig = Rig::new();
    file(&mut rig, "f");
    let d = rig.make(&user(1), ROOT, "d", NewNode::Directory, 0o777);
    rig.set(&user(1), &d, posix(Some(Some(named(7))), Some(Some(named(6))))).unwrap();
    let make = |rig: &mut Rig, name: &str, node, attrs, how| {
        let op = Op::Create { dir: d.ino, name: name.to_owned().into(), node, how, attrs };
        match rig.op(&Cred::root(), op).result {
            Ok(Outcome::Created { attr, .. }) => attr,
            other => panic!("{other:?}"),
        }
    };
    let umask = SetAttr { umask: 0o077, ..mode(0o664) };
    let f = make(&mut rig, "f", NewNode::Regular, umask.clone(), CreateHow::Guarded);
    assert_eq!((f.mode, rig.attr(f.ino).acl.is_some()), (0o660, true));
    let sub = make(&mut rig, "sub", NewNode::Directory, mode(0o755), CreateHow::Guarded);
    let Some(Acl::Posix(lists)) = sub.acl.as_deref() else { panic!("{sub:?}") };
    assert_eq!(lists.default, Some(named(6)));
    assert_eq!(sub.mode, 0o750);
    let link = make(&mut rig, "link", NewNode::Symlink("x".into()), SetAttr::default(), CreateHow::Guarded);
    assert_eq!((link.mode, link.acl), (0o777, None));

    let passes = Ace { flags: ace_flag::INHERIT, ..allow(Who::User(2), bits_of(7, true)) };
    rig.set(&user(1), &d, aces(&[passes, allow(Who::Owner, bits_of(7, true))])).unwrap();
    let f = make(&mut rig, "g", NewNode::Regular, umask, CreateHow::Guarded);
    assert_eq!(f.mode, 0o664);
    let made = make(&mut rig, "x", NewNode::Regular, SetAttr::default(), CreateHow::Exclusive([1; 8]));
    assert_eq!((made.mode, made.acl), (0o600, None));
    let special = make(
        &mut rig,
        "fifo",
        NewNode::Special(FileKind::Fifo, Default::default()),
        mode(0o640),
        CreateHow::Guarded,
    );
    assert!(special.acl.is_some());
    rig.check();
}

fn any_set() -> impl Strategy<Value = SetAttr> {
    let who = prop_oneof![
        Just(Who::Owner),
        Just(Who::Group),
        Just(Who::Everyone),
        (1..4u32).prop_map(Who::User),
        (101..104u32).prop_map(Who::Members)
    ];
    let ace =
        (any::<bool>(), 0..16u8, 0..8u32, any::<u32>(), who).prop_map(|(allows, flags, perm, more, who)| {
            let flags = if flags & ace_flag::INHERIT == 0 { 0 } else { flags };
            let kind = if allows { AceKind::Allow } else { AceKind::Deny };
            Ace { kind, flags, mask: bits_of(perm, true) | more & right::ALL & !0x3f, who }
        });
    let list = proptest::collection::vec(ace, 0..5);
    prop_oneof![
        (list.clone(), 0..8u8).prop_map(|(aces, flags)| SetAttr {
            acl: Some(Box::new(SetAcl::Nfs4(Nfs4Acl { flags, aces }))),
            ..SetAttr::default()
        }),
        list.prop_map(|list| aces(&list)),
        (0..0o10000u32).prop_map(mode),
        (0..0o10000u32, 0..0o10000u32)
            .prop_map(|(bits, mask)| SetAttr { mode_mask: Some(mask), ..mode(bits) }),
        (0..8u32, any::<bool>()).prop_map(|(perm, takes)| posix(
            (!takes).then(|| Some(named(perm))),
            Some((!takes).then(|| named(perm)))
        )),
        (1..4u32).prop_map(|uid| SetAttr { uid: Some(uid), ..SetAttr::default() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is set and made by whom, the state is sound, and rows are there for those that have a list.
    #[test]
    fn histories_with_lists(steps in proptest::collection::vec((0..8u8, 0..4u32, 0..6u8, any_set()), 1..40)) {
        let mut rig = Rig::new();
        rig.set(&Cred::root(), &rig.attr(ROOT), mode(0o777)).unwrap();
        let mut dirs = vec![ROOT];
        for (what, uid, n, set) in steps {
            let cred = if uid == 0 { Cred::root() } else { user(uid) };
            let dir = dirs[n as usize % dirs.len()];
            let name = || bytes::Bytes::from(vec![b'a' + n]);
            let node = if what % 2 == 0 { NewNode::Regular } else { NewNode::Directory };
            let op = match what {
                0..3 => Op::Create { dir, name: name(), node, how: CreateHow::Guarded, attrs: set },
                3 => Op::Remove { dir, name: name(), kind: RemoveKind::NonDirectory },
                4 => Op::Rename { from_dir: dir, from_name: name(), to_dir: dirs[0], to_name: name() },
                _ => {
                    let below = rig.names(dir);
                    let ino = below.get(n as usize).map_or(dir, |(_, ino)| *ino);
                    Op::SetAttr { ino, generation: rig.attr(ino).generation, set, guard: None }
                }
            };
            if let Ok(Outcome::Created { attr, .. }) = rig.op(&cred, op).result
                && attr.kind == FileKind::Directory
            {
                dirs.push(attr.ino);
            }
            // RENAME replaces an empty one.
            dirs.retain(|dir| read::getattr(&rig.kv, *dir).unwrap().is_ok());
        }
        rig.check();
        let with_list = |ino: &Ino| rig.attr(*ino).acl.is_some();
        let mut inos = vec![ROOT];
        for dir in &dirs {
            inos.extend(rig.names(*dir).into_iter().map(|(_, ino)| ino));
        }
        prop_assert_eq!(lists(&rig), inos.iter().filter(|ino| with_list(ino)).count());
    }
}
