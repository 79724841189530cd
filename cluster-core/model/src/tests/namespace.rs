//! Names, links, renames: what the random histories reach seldom.

use super::rig::{ROOT, Rig, user};
use crate::limits::DEPTH_MAX;
use atoll_base::access::Cred;
use atoll_base::attr::{Device, FileKind, SetAttr};
use atoll_base::id::{Cookie, Ino};
use atoll_meta::{CreateHow, FsError, NewNode, Op, Outcome, RemoveKind};
use bytes::Bytes;

fn create(dir: Ino, name: impl Into<Bytes>, node: NewNode) -> Op {
    let attrs = SetAttr { mode: Some(0o644), ..SetAttr::default() };
    Op::Create { dir, name: name.into(), node, how: CreateHow::Guarded, attrs }
}

fn remove(dir: Ino, name: impl Into<Bytes>) -> Op {
    Op::Remove { dir, name: name.into(), kind: RemoveKind::Any }
}

fn rename(from_dir: Ino, from: &str, to_dir: Ino, to: &str) -> Op {
    let (from_name, to_name) = (from.to_owned().into(), to.to_owned().into());
    Op::Rename { from_dir, from_name, to_dir, to_name }
}

#[test]
fn names_are_checked_again_here() {
    let mut rig = Rig::new();
    let attr = rig.file("f");
    for bad in ["", "a/b", "a\0b"] {
        let name = Bytes::from(bad);
        assert_eq!(rig.root(create(ROOT, name.clone(), NewNode::Regular)), Err(FsError::Invalid));
        assert_eq!(rig.root(remove(ROOT, name.clone())), Err(FsError::Invalid));
        assert_eq!(rig.root(rename(ROOT, "f", ROOT, bad)), Err(FsError::Invalid));
        let link = Op::Link { ino: attr.ino, generation: attr.generation, dir: ROOT, name };
        assert_eq!(rig.root(link), Err(FsError::Invalid));
    }
    for dots in [".", ".."] {
        assert_eq!(rig.root(create(ROOT, dots, NewNode::Directory)), Err(FsError::Exists));
        assert_eq!(rig.root(remove(ROOT, dots)), Err(FsError::AccessDenied));
        assert_eq!(rig.root(rename(ROOT, dots, ROOT, "x")), Err(FsError::Invalid));
        assert_eq!(rig.root(rename(ROOT, "f", ROOT, dots)), Err(FsError::Invalid));
    }
    rig.root(create(ROOT, vec![b'n'; 255], NewNode::Regular)).unwrap();
    assert_eq!(rig.root(create(ROOT, vec![b'n'; 256], NewNode::Regular)), Err(FsError::NameTooLong));
    // Any other bytes will do.
    rig.root(create(ROOT, vec![0xff, 0xfe, b'\n', b'\\'], NewNode::Regular)).unwrap();
    rig.check();
}

#[test]
fn a_directory_cannot_move_below_itself() {
    let mut rig = Rig::new();
    let a = rig.dir(ROOT, "a");
    let b = rig.dir(a, "b");
    let c = rig.dir(b, "c");
    for to in [a, b, c] {
        assert_eq!(rig.root(rename(ROOT, "a", to, "x")), Err(FsError::Invalid));
    }
    assert_eq!(rig.root(rename(a, "b", ROOT, "a")), Err(FsError::NotEmpty));
    assert_eq!(rig.root(rename(b, "c", ROOT, "c")), Ok(Outcome::Done));
    assert_eq!((rig.attr(ROOT).nlink, rig.attr(b).nlink), (4, 2));
    assert_eq!(crate::read::parent(&rig.kv, c).unwrap(), Ok(ROOT));
    rig.check();
    // Deeper than DEPTH_MAX: refused, not walked without end.
    let mut dir = ROOT;
    for _ in 0..DEPTH_MAX {
        dir = rig.dir(dir, "deep");
    }
    assert_eq!(rig.root(rename(ROOT, "c", dir, "c")), Err(FsError::Invalid));
}

#[test]
fn what_replaces_a_name_takes_its_place_in_the_listing() {
    let mut rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.file(name);
    }
    let c = rig.names(ROOT)[2].1;
    rig.root(rename(ROOT, "c", ROOT, "a")).unwrap();
    let names: Vec<Bytes> = rig.names(ROOT).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [Bytes::from("a"), Bytes::from("b")]);
    assert_eq!(rig.names(ROOT)[0].1, c);
    // A new name comes last and with a cookie of its own, also if the name was there before.
    rig.root(remove(ROOT, "b")).unwrap();
    let page = |rig: &Rig| crate::read::readdir(&rig.kv, ROOT, Cookie(0), 9, 99, false).unwrap().unwrap();
    let last = page(&rig).entries.last().unwrap().cookie;
    rig.file("b");
    assert!(page(&rig).entries.last().unwrap().cookie.0 > last.0 + 1);
    rig.check();
}

#[test]
fn a_page_of_a_directory_holds_at_least_one_entry() {
    let mut rig = Rig::new();
    for name in ["aaaa", "bbbb", "cccc"] {
        rig.file(name);
    }
    let page = |after, entries, bytes| {
        crate::read::readdir(&rig.kv, ROOT, Cookie(after), entries, bytes, false).unwrap().unwrap()
    };
    assert_eq!(page(0, 0, 0).entries.len(), 1);
    assert_eq!(page(0, 10, 8).entries.len(), 2);
    assert!(!page(0, 10, 11).end);
    let whole = page(0, 3, 12);
    assert_eq!((whole.entries.len(), whole.end), (3, true));
    let behind = page(whole.entries[2].cookie.0, 3, 12);
    assert_eq!((behind.entries.len(), behind.end), (0, true));
    assert_eq!(page(u64::MAX, 3, 12).entries.len(), 0);
}

#[test]
fn rename_over_another_name_of_the_same_inode_does_nothing() {
    let mut rig = Rig::new();
    let attr = rig.file("f");
    rig.root(Op::Link { ino: attr.ino, generation: attr.generation, dir: ROOT, name: "g".into() }).unwrap();
    let before = (rig.attr(ROOT), rig.attr(attr.ino));
    rig.root(rename(ROOT, "f", ROOT, "g")).unwrap();
    assert_eq!(before, (rig.attr(ROOT), rig.attr(attr.ino)));
    assert_eq!(rig.names(ROOT).len(), 2);
}

#[test]
fn a_moved_directory_needs_permission_to_change_its_parent() {
    let mut rig = Rig::new();
    open_root(&mut rig);
    let (one, two) = (user(1), user(2));
    let a = rig.make(&one, ROOT, "a", NewNode::Directory, 0o777).ino;
    let b = rig.make(&one, ROOT, "b", NewNode::Directory, 0o777).ino;
    rig.make(&two, a, "d", NewNode::Directory, 0o555);
    // Within its parent it may be renamed by who may write there, to another only by who may write it, too.
    rig.op(&one, rename(a, "d", a, "e")).result.unwrap();
    assert_eq!(rig.op(&one, rename(a, "e", b, "e")).result, Err(FsError::AccessDenied));
    rig.root(rename(a, "e", b, "e")).unwrap();
    rig.check();
}

/// Lets anybody make things in the root.
fn open_root(rig: &mut Rig) {
    let root = rig.attr(ROOT);
    rig.set(&Cred::root(), &root, SetAttr { mode: Some(0o777), ..SetAttr::default() }).unwrap();
}

#[test]
fn the_sticky_bit_protects_names_of_others() {
    let mut rig = Rig::new();
    open_root(&mut rig);
    let (one, two) = (user(1), user(2));
    let tmp = rig.make(&Cred::root(), ROOT, "tmp", NewNode::Directory, 0o1777).ino;
    rig.make(&one, tmp, "f", NewNode::Regular, 0o666);
    rig.make(&two, tmp, "g", NewNode::Regular, 0o666);
    assert_eq!(rig.op(&two, remove(tmp, "f")).result, Err(FsError::NotOwner));
    assert_eq!(rig.op(&two, rename(tmp, "f", tmp, "x")).result, Err(FsError::NotOwner));
    assert_eq!(rig.op(&two, rename(tmp, "g", tmp, "f")).result, Err(FsError::NotOwner));
    rig.op(&one, remove(tmp, "f")).result.unwrap();
    rig.root(remove(tmp, "g")).unwrap();
}

#[test]
fn an_exclusive_create_is_known_again_until_the_first_setattr() {
    let mut rig = Rig::new();
    let op = |verifier| Op::Create {
        dir: ROOT,
        name: "x".into(),
        node: NewNode::Regular,
        how: CreateHow::Exclusive([verifier; 8]),
        attrs: SetAttr::default(),
    };
    let Ok(Outcome::Created { attr, new: true }) = rig.root(op(1)) else { panic!() };
    assert_eq!(attr.mode, 0o600);
    assert_eq!(rig.root(op(1)), Ok(Outcome::Created { attr: attr.clone(), new: false }));
    assert_eq!(rig.root(op(2)), Err(FsError::Exists));
    rig.set(&Cred::root(), &attr, SetAttr { mode: Some(0o644), ..SetAttr::default() }).unwrap();
    assert_eq!(rig.root(op(1)), Err(FsError::Exists));
}

#[test]
fn unchecked_create_applies_only_the_size() {
    let mut rig = Rig::new();
    let attr = rig.file("f");
    let pieces = vec![rig.inline(0, b"0123456789")];
    rig.write(&Cred::root(), &attr, pieces).unwrap();
    let before = rig.attr(attr.ino);
    let op = |size| Op::Create {
        dir: ROOT,
        name: "f".into(),
        node: NewNode::Regular,
        how: CreateHow::Unchecked,
        attrs: SetAttr { mode: Some(0o777), uid: Some(4), size, ..SetAttr::default() },
    };
    assert_eq!(rig.root(op(None)), Ok(Outcome::Created { attr: before.clone(), new: false }));
    let Ok(Outcome::Created { attr, new: false }) = rig.root(op(Some(4))) else { panic!() };
    assert_eq!((attr.size, attr.mode, attr.uid), (4, 0o644, 0));
    assert!(attr.mtime > before.mtime && attr.change > before.change);
    assert_eq!(rig.content(attr.ino), b"0123");
    // Search permission is all it takes to find the file, but the size takes permission to write.
    assert!(rig.op(&user(1), op(None)).result.is_ok());
    assert_eq!(rig.op(&user(1), op(Some(0))).result, Err(FsError::AccessDenied));
    let dir = rig.dir(ROOT, "d");
    let over_dir = Op::Create {
        dir: ROOT,
        name: "d".into(),
        node: NewNode::Regular,
        how: CreateHow::Unchecked,
        attrs: SetAttr::default(),
    };
    assert_eq!(rig.root(over_dir), Err(FsError::Exists));
    assert!(rig.attr(dir).nlink == 2);
}

#[test]
fn special_files_and_symbolic_links() {
    let mut rig = Rig::new();
    open_root(&mut rig);
    let device = Device { major: 8, minor: 1 };
    for kind in [FileKind::BlockDevice, FileKind::CharDevice] {
        let op = create(ROOT, "dev", NewNode::Special(kind, device));
        assert_eq!(rig.op(&user(1), op.clone()).result, Err(FsError::NotOwner));
        let Ok(Outcome::Created { attr, .. }) = rig.root(op) else { panic!() };
        assert_eq!((attr.kind, attr.device, attr.size), (kind, device, 0));
        rig.root(remove(ROOT, "dev")).unwrap();
    }
    for kind in [FileKind::Fifo, FileKind::Socket] {
        let attr = rig.make(&user(1), ROOT, "s", NewNode::Special(kind, device), 0o600);
        assert_eq!((attr.kind, attr.device), (kind, Device::default()));
        let pieces = vec![rig.inline(0, b"x")];
        assert_eq!(rig.write(&user(1), &attr, pieces), Err(FsError::WrongType));
        rig.root(remove(ROOT, "s")).unwrap();
    }
    for kind in [FileKind::Regular, FileKind::Directory, FileKind::Symlink] {
        assert_eq!(rig.root(create(ROOT, "n", NewNode::Special(kind, device))), Err(FsError::Invalid));
    }
    let symlink = |target: &[u8]| create(ROOT, "l", NewNode::Symlink(Bytes::copy_from_slice(target)));
    assert_eq!(rig.root(symlink(b"")), Err(FsError::NotFound));
    assert_eq!(rig.root(symlink(b"a\0")), Err(FsError::Invalid));
    assert_eq!(rig.root(symlink(&[b'a'; 4096])), Err(FsError::NameTooLong));
    let Ok(Outcome::Created { attr, .. }) = rig.root(symlink(&[b'a'; 4095])) else { panic!() };
    assert_eq!((attr.mode, attr.size), (0o777, 4095));
    let (_, target) = crate::read::readlink(&rig.kv, attr.ino).unwrap().unwrap();
    assert_eq!(target.len(), 4095);
    assert_eq!(crate::read::readlink(&rig.kv, ROOT).unwrap(), Err(FsError::WrongType));
    rig.root(remove(ROOT, "l")).unwrap();
    rig.check();
}

#[test]
fn set_gid_directories_hand_their_group_down() {
    let mut rig = Rig::new();
    let dir = rig.make(&Cred::root(), ROOT, "g", NewNode::Directory, 0o2777);
    rig.set(&Cred::root(), &dir, SetAttr { gid: Some(55), ..SetAttr::default() }).unwrap();
    let sub = rig.make(&user(1), dir.ino, "d", NewNode::Directory, 0o755);
    assert_eq!((sub.gid, sub.mode), (55, 0o2755));
    // Not a member: no set-gid program of that group; without group execution it means something else and stays.
    let program = rig.make(&user(1), dir.ino, "p", NewNode::Regular, 0o2755);
    assert_eq!((program.gid, program.mode), (55, 0o755));
    let locked = rig.make(&user(1), dir.ino, "l", NewNode::Regular, 0o2744);
    assert_eq!(locked.mode, 0o2744);
    let member = Cred::new(3, 3, vec![55]);
    assert_eq!(rig.make(&member, dir.ino, "m", NewNode::Regular, 0o2755).mode, 0o2755);
}

#[test]
fn across_volumes_nothing_moves() {
    let mut rig = Rig::new();
    let Ok(Outcome::Volume(id)) = rig.root(Op::CreateVolume { name: "other".into() }) else { panic!() };
    let other = crate::read::volume(&rig.kv, id).unwrap().unwrap().root;
    let attr = rig.file("f");
    assert_eq!(rig.root(rename(ROOT, "f", other, "f")), Err(FsError::CrossVolume));
    let link = Op::Link { ino: attr.ino, generation: attr.generation, dir: other, name: "f".into() };
    assert_eq!(rig.root(link), Err(FsError::CrossVolume));
}

#[test]
fn what_a_removal_reports() {
    let mut rig = Rig::new();
    let attr = rig.file("f");
    let response = rig.op(&Cred::root(), remove(ROOT, "f"));
    let [dir, file] = &response.changes[..] else { panic!("{response:?}") };
    assert_eq!((dir.after.ino, file.after.ino), (ROOT, attr.ino));
    assert_eq!((file.after.nlink, file.before.change), (0, attr.change));
    assert!(dir.after.change > dir.before.change && dir.after.mtime == dir.after.ctime);
    let touched = rig.applied.as_ref().unwrap().touched.clone();
    assert_eq!(touched.dirents, [(ROOT, Bytes::from("f"))]);
    assert_eq!(touched.inos, [ROOT, attr.ino]);
    // A refusal reports the directory as it is.
    let response = rig.op(&Cred::root(), remove(ROOT, "f"));
    assert_eq!(response.result, Err(FsError::NotFound));
    assert_eq!(response.changes[0].after, rig.attr(ROOT));
    assert_eq!(response.changes[0].before, rig.attr(ROOT).before());
}
