//! SETATTR and extended attributes, rule by rule.

use super::rig::{ROOT, Rig, at, user};
use crate::limits::XATTRS_MAX;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, Device, FileKind, SetAttr, SetTime};
use atoll_base::label::Label;
use atoll_base::limits::{FILE_SIZE_MAX, LABEL_MAX, XATTR_VALUE_MAX};
use atoll_base::time::Timestamp;
use atoll_meta::{CreateHow, FsError, NewNode, Op, Outcome, RemoveKind, XattrHow};
use bytes::Bytes;

fn owned(rig: &mut Rig, uid: u32, gid: u32, mode: u32) -> Attr {
    let attr = rig.file("f");
    let set = SetAttr { uid: Some(uid), gid: Some(gid), mode: Some(mode), ..SetAttr::default() };
    rig.set(&Cred::root(), &attr, set).unwrap();
    rig.attr(attr.ino)
}

fn mode_of(rig: &Rig, attr: &Attr) -> u32 {
    rig.attr(attr.ino).mode
}

const NOTHING: SetAttr = SetAttr {
    mode: None,
    mode_mask: None,
    umask: 0,
    acl: None,
    label: None,
    uid: None,
    gid: None,
    size: None,
    atime: SetTime::Keep,
    mtime: SetTime::Keep,
    btime: None,
};

#[test]
fn only_the_superuser_gives_files_away() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o644);
    let uid = |uid| SetAttr { uid: Some(uid), ..NOTHING };
    let gid = |gid| SetAttr { gid: Some(gid), ..NOTHING };
    assert_eq!(rig.set(&user(1), &f, uid(2)), Err(FsError::NotOwner));
    assert_eq!(rig.set(&user(2), &f, uid(2)), Err(FsError::NotOwner));
    assert_eq!(rig.set(&user(1), &f, uid(1)), Ok(Outcome::Done));
    assert_eq!(rig.set(&user(1), &f, gid(50)), Err(FsError::NotOwner));
    assert_eq!(rig.set(&user(1), &f, gid(7)), Ok(Outcome::Done));
    assert_eq!(rig.set(&user(2), &f, gid(7)), Err(FsError::NotOwner));
    assert_eq!(rig.set(&Cred::root(), &f, uid(u32::MAX)), Err(FsError::Invalid));
    rig.set(&Cred::root(), &f, uid(9)).unwrap();
    assert_eq!((rig.attr(f.ino).uid, rig.attr(f.ino).gid), (9, 7));
}

#[test]
fn a_change_of_owner_takes_privileges_from_files_only() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o6755);
    rig.set(&user(1), &f, SetAttr { gid: Some(7), ..NOTHING }).unwrap();
    assert_eq!(mode_of(&rig, &f), 0o755);
    // Also if the superuser changes it; set-gid without group execution is no privilege.
    rig.set(&Cred::root(), &f, SetAttr { mode: Some(0o6745), ..NOTHING }).unwrap();
    rig.set(&Cred::root(), &f, SetAttr { uid: Some(2), ..NOTHING }).unwrap();
    assert_eq!(mode_of(&rig, &f), 0o2745);
    // A mode in the same call comes after.
    rig.set(&Cred::root(), &f, SetAttr { uid: Some(1), mode: Some(0o4755), ..NOTHING }).unwrap();
    assert_eq!(mode_of(&rig, &f), 0o4755);
    let dir = rig.make(&Cred::root(), ROOT, "d", NewNode::Directory, 0o2755);
    rig.set(&Cred::root(), &dir, SetAttr { gid: Some(7), ..NOTHING }).unwrap();
    assert_eq!(mode_of(&rig, &dir), 0o2755);
}

#[test]
fn chmod_is_the_owners_and_set_gid_the_members() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 55, 0o644);
    let mode = |mode| SetAttr { mode: Some(mode), ..NOTHING };
    assert_eq!(rig.set(&user(2), &f, mode(0o777)), Err(FsError::NotOwner));
    let before = rig.attr(f.ino);
    rig.set(&user(1), &f, mode(0o16755)).unwrap();
    let after = rig.attr(f.ino);
    assert_eq!(after.mode, 0o4755, "user 1 is not in group 55");
    assert!(after.ctime > before.ctime && after.change == before.change + 1);
    assert_eq!((after.mtime, after.atime), (before.mtime, before.atime));
    rig.set(&Cred::new(1, 1, vec![55]), &f, mode(0o2755)).unwrap();
    assert_eq!(mode_of(&rig, &f), 0o2755);
    let link = rig.make(&Cred::root(), ROOT, "l", NewNode::Symlink("x".into()), 0);
    let before = rig.attr(link.ino);
    rig.set(&Cred::root(), &link, mode(0o600)).unwrap();
    assert_eq!(rig.attr(link.ino), before, "the mode of a symbolic link means nothing");
}

#[test]
fn writing_and_truncating_take_privileges() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o6775);
    let piece = |rig: &Rig| vec![rig.inline(0, b"x")];
    let pieces = piece(&rig);
    rig.write(&Cred::root(), &f, pieces).unwrap();
    assert_eq!(mode_of(&rig, &f), 0o6775, "not by the superuser");
    let pieces = piece(&rig);
    rig.write(&user(1), &f, pieces).unwrap();
    assert_eq!(mode_of(&rig, &f), 0o775);
    for (before, after) in [(0o6775, 0o775), (0o6765, 0o2765)] {
        rig.set(&Cred::root(), &f, SetAttr { mode: Some(before), ..NOTHING }).unwrap();
        rig.set(&user(1), &f, SetAttr { size: Some(0), ..NOTHING }).unwrap();
        assert_eq!(mode_of(&rig, &f), after);
    }
}

#[test]
fn times_of_the_client_are_the_owners() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o646);
    let given = SetAttr { mtime: SetTime::Client(at(5)), ..NOTHING };
    let server = SetAttr { mtime: SetTime::Server, atime: SetTime::Server, ..NOTHING };
    assert_eq!(rig.set(&user(2), &f, given.clone()), Err(FsError::NotOwner));
    rig.set(&user(2), &f, server.clone()).unwrap();
    let after = rig.attr(f.ino);
    assert_eq!((after.mtime, after.atime), (after.ctime, after.ctime));
    rig.set(&user(1), &f, given).unwrap();
    assert_eq!(rig.attr(f.ino).mtime, at(5));
    rig.set(&Cred::root(), &f, SetAttr { mode: Some(0o644), ..NOTHING }).unwrap();
    assert_eq!(rig.set(&user(2), &f, server), Err(FsError::AccessDenied));
    let broken = SetTime::Client(Timestamp { secs: 0, nanos: 1_000_000_000 });
    assert_eq!(rig.set(&user(1), &f, SetAttr { atime: broken, ..NOTHING }), Err(FsError::Invalid));
    // A size moves mtime, unless a time comes with it.
    rig.set(&user(1), &f, SetAttr { size: Some(3), mtime: SetTime::Client(at(6)), ..NOTHING }).unwrap();
    assert_eq!(rig.attr(f.ino).mtime, at(6));
    let born = SetAttr { btime: Some(at(4)), ..NOTHING };
    assert_eq!(rig.set(&user(2), &f, born.clone()), Err(FsError::NotOwner));
    rig.set(&user(1), &f, born).unwrap();
    assert_eq!(rig.attr(f.ino).btime, at(4));
}

#[test]
fn sizes() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o444);
    let size = |size| SetAttr { size: Some(size), ..NOTHING };
    rig.set(&user(1), &f, size(5)).unwrap();
    assert_eq!(rig.content(f.ino), [0; 5], "the owner may, whatever the mode");
    assert_eq!(rig.set(&user(2), &f, size(0)), Err(FsError::AccessDenied));
    rig.set(&user(1), &f, size(FILE_SIZE_MAX)).unwrap();
    assert_eq!(rig.set(&user(1), &f, size(FILE_SIZE_MAX + 1)), Err(FsError::TooLarge));
    let pieces = vec![rig.inline(FILE_SIZE_MAX - 1, b"x")];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    for end in [FILE_SIZE_MAX, u64::MAX] {
        let pieces = vec![rig.inline(end, b"x")];
        assert_eq!(rig.write(&Cred::root(), &f, pieces), Err(FsError::TooLarge));
    }
    let dir = rig.attr(ROOT);
    assert_eq!(rig.set(&Cred::root(), &dir, size(0)), Err(FsError::IsDirectory));
    let link = rig.make(&Cred::root(), ROOT, "l", NewNode::Symlink("x".into()), 0);
    assert_eq!(rig.set(&Cred::root(), &link, size(0)), Err(FsError::Invalid));
    rig.check();
}

#[test]
fn guard_generation_and_nothing_to_do() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let op = |generation, guard, mode| {
        let set = SetAttr { mode, ..NOTHING };
        Op::SetAttr { ino: f.ino, generation, set, guard }
    };
    assert_eq!(rig.root(op(f.generation ^ 1, None, Some(0))), Err(FsError::Stale));
    assert_eq!(rig.root(op(f.generation, Some(f.ctime.next()), Some(0))), Err(FsError::NotSync));
    rig.root(op(f.generation, Some(f.ctime), None)).unwrap();
    assert_eq!(rig.attr(f.ino), f, "nothing set, nothing changed");
    rig.root(op(f.generation, Some(f.ctime), Some(0o600))).unwrap();
    assert_eq!(rig.root(op(f.generation, Some(f.ctime), Some(0o600))), Err(FsError::NotSync));
}

#[test]
fn ctime_moves_also_when_the_clock_stands_or_goes_back() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let mut last = f.ctime;
    for step in [0, -1_000_000, 0, 5] {
        rig.clock += step - 10;
        rig.set(&Cred::root(), &f, SetAttr { mode: Some(0o600), ..NOTHING }).unwrap();
        let ctime = rig.attr(f.ino).ctime;
        assert!(ctime > last);
        last = ctime;
    }
}

#[test]
fn access_times_only_go_forward() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let touch = |time| Op::Touch(vec![(f.ino, time), (atoll_base::id::Ino(77), time)]);
    rig.root(touch(f.atime.next())).unwrap();
    assert_eq!(rig.attr(f.ino), Attr { atime: f.atime.next(), ..f.clone() });
    rig.root(touch(f.atime)).unwrap();
    assert_eq!(rig.attr(f.ino).atime, f.atime.next());
}

#[test]
fn a_label_is_the_owners_and_goes_with_its_inode() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o666);
    let label = |len| Label { format: 0, policy: 3, data: vec![b'x'; len].into() };
    let set = |len| SetAttr { label: Some(Box::new(label(len))), ..NOTHING };
    assert_eq!(rig.set(&user(2), &f, set(1)), Err(FsError::NotOwner));
    assert_eq!(rig.set(&user(1), &f, set(LABEL_MAX + 1)), Err(FsError::Invalid));
    assert_eq!(rig.set(&user(1), &f, set(LABEL_MAX)), Ok(Outcome::Done));
    let kept = rig.attr(f.ino);
    assert_eq!(kept.label.as_deref(), Some(&label(LABEL_MAX)));
    assert!(kept.change > f.change);
    rig.root(Op::Touch(vec![(f.ino, kept.atime.next())])).unwrap();
    rig.set(&user(1), &f, SetAttr { mode: Some(0o600), ..NOTHING }).unwrap();
    assert_eq!(rig.attr(f.ino).label, kept.label);
    rig.check();
    rig.set(&user(1), &f, set(0)).unwrap();
    assert_eq!(rig.attr(f.ino).label, None);
    rig.set(&user(1), &f, set(5)).unwrap();
    rig.check();
    rig.root(Op::Remove { dir: ROOT, name: "f".into(), kind: RemoveKind::NonDirectory }).unwrap();
    rig.check();
    let node = || NewNode::Special(FileKind::Fifo, Device::default());
    let make = |len| Op::Create {
        dir: ROOT,
        name: "n".into(),
        node: node(),
        how: CreateHow::Guarded,
        attrs: set(len),
    };
    assert_eq!(rig.root(make(LABEL_MAX + 1)), Err(FsError::Invalid));
    let Ok(Outcome::Created { attr, .. }) = rig.root(make(9)) else { panic!() };
    assert_eq!(attr.label.as_deref(), Some(&label(9)));
    rig.check();
}

#[test]
fn extended_attributes_are_bounded() {
    let mut rig = Rig::new();
    let f = owned(&mut rig, 1, 101, 0o644);
    let set = |name: &[u8], value: Option<Vec<u8>>| Op::SetXattr {
        ino: f.ino,
        generation: f.generation,
        name: Bytes::copy_from_slice(name),
        value: value.map(Bytes::from),
        how: XattrHow::Either,
    };
    assert_eq!(rig.root(set(b"", Some(vec![]))), Err(FsError::Invalid));
    assert_eq!(rig.root(set(&[b'n'; 256], Some(vec![]))), Err(FsError::NameTooLong));
    assert_eq!(rig.root(set(b"n", Some(vec![0; XATTR_VALUE_MAX + 1]))), Err(FsError::TooLarge));
    assert_eq!(rig.root(set(b"n", None)), Err(FsError::NoXattr));
    assert_eq!(rig.op(&user(2), set(b"n", Some(vec![]))).result, Err(FsError::AccessDenied));
    let before = rig.attr(f.ino);
    rig.op(&user(1), set(b"n", Some(vec![1, 2]))).result.unwrap();
    let after = rig.attr(f.ino);
    assert!(after.change > before.change && after.ctime > before.ctime && after.mtime == before.mtime);
    assert_eq!(crate::read::get_xattr(&rig.kv, f.ino, b"n").unwrap().unwrap(), vec![1, 2]);
    rig.op(&user(1), set(b"n", Some(vec![1, 2]))).result.unwrap();
    assert_eq!(rig.attr(f.ino), after, "the value that it has changes nothing");
    let with = |name: &[u8], how| match set(name, Some(vec![9])) {
        Op::SetXattr { ino, generation, name, value, .. } => {
            Op::SetXattr { ino, generation, name, value, how }
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(rig.root(with(b"n", XattrHow::Create)), Err(FsError::Exists));
    assert_eq!(rig.root(with(b"m", XattrHow::Replace)), Err(FsError::NoXattr));
    assert_eq!(rig.attr(f.ino), after);
    rig.root(with(b"n", XattrHow::Replace)).unwrap();
    rig.root(with(b"n", XattrHow::Either)).unwrap();
    for n in 1..XATTRS_MAX as u8 {
        rig.root(set(&[b'a' + n], Some(vec![0; 100]))).unwrap();
    }
    assert_eq!(rig.root(set(b"z", Some(vec![]))), Err(FsError::NoSpace));
    rig.root(set(b"n", Some(vec![3]))).unwrap();
    rig.check();
    rig.root(Op::Remove { dir: ROOT, name: "f".into(), kind: atoll_meta::RemoveKind::Any }).unwrap();
    assert!(!crate::store::any(&rig.kv, crate::Table::Xattr).unwrap());
}
