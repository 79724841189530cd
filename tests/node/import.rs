//! `atoll import`: the copy equals the source, whatever the source holds and however often the copying was interrupted.

use crate::process::{atoll, killed_after};
use crate::rig::{Rig, options, pattern};
use atoll::data_dir::DataDir;
use atoll_base::acl::posix::PosixTag;
use atoll_base::acl::{Acl, PosixList};
use atoll_base::attr::{Attr, FileKind};
use atoll_base::id::{Cookie, Ino};
use atoll_base::time::Timestamp;
use atoll_meta::service::MetadataService;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// What `lstat` says of each path below the root, taken before anything reads the tree.
type Before = BTreeMap<PathBuf, fs::Metadata>;

fn look(dir: &Path, into: &mut Before) {
    into.insert(dir.to_owned(), fs::symlink_metadata(dir).unwrap());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            look(&path, into);
        } else {
            into.insert(path, meta);
        }
    }
}

fn set_times(path: &Path, secs: i64, nanos: u32) {
    let time = |secs| Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time(secs + 5), last_modification: time(secs) };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An access list: owner rwx, user 1001 `perm`, group r-x, mask rwx, others nothing.
fn list(perm: u16) -> Vec<u8> {
    let entries = [(0x01, 7, u32::MAX), (0x02, perm, 1001), (0x04, 5, u32::MAX), (0x10, 7, u32::MAX)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries.into_iter().chain([(0x20u16, 0u16, u32::MAX)]) {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&perm.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

const LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Access control lists, where the file system has them.
fn put_lists(root: &Path) {
    for (path, name, perm) in [("small", 0, 6), ("deep/er", 0, 7), ("deep/er", 1, 4), ("deep/er/still", 1, 5)]
    {
        let put = rustix::fs::lsetxattr(root.join(path), LISTS[name], &list(perm), XattrFlags::empty());
        assert!(matches!(put, Ok(()) | Err(rustix::io::Errno::NOTSUP)), "{put:?}");
    }
}

/// The lists of an entry in the source, as bytes.
fn source_lists(path: &Path) -> [Option<Vec<u8>>; 2] {
    LISTS.map(|name| {
        let mut value = vec![0; 1024];
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
        value.truncate(len);
        Some(value)
    })
}

/// The security label of an entry in the source. The machine that runs this may put one on everything, or take none.
fn source_label(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let len = rustix::fs::lgetxattr(path, "security.selinux", value.as_mut_slice()).ok()?;
    value.truncate(len);
    Some(value)
}

/// Those of an inode.
fn lists_of(attr: &Attr) -> [Option<Vec<u8>>; 2] {
    let bytes = |list: &PosixList| {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, perm) in list.entries() {
            let (tag, id) = match tag {
                PosixTag::Owner => (0x01u16, u32::MAX),
                PosixTag::User(uid) => (0x02, uid),
                PosixTag::Group => (0x04, u32::MAX),
                PosixTag::Members(gid) => (0x08, gid),
                PosixTag::Mask => (0x10, u32::MAX),
                PosixTag::Other => (0x20, u32::MAX),
            };
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&(perm as u16).to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    };
    match attr.acl.as_deref() {
        None => [None, None],
        Some(Acl::Posix(acl)) => [acl.access.as_ref().map(bytes), acl.default.as_ref().map(bytes)],
        Some(Acl::Nfs4(_)) => panic!("an import makes no lists of NFSv4"),
    }
}

/// One of everything.
fn make_tree(root: &Path) {
    let file = |name: &str, data: &[u8]| {
        fs::write(root.join(name), data).unwrap();
        root.join(name)
    };
    fs::create_dir_all(root.join("deep/er/still")).unwrap();
    file("empty", b"");
    file("small", b"hello");
    file("inline", &pattern(1, 64 << 10));
    file("block", &pattern(2, (64 << 10) + 1));
    file("big", &pattern(3, 9 * MIB + 12_345));
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&pattern(4, 8192), 5 << 30).unwrap();
    sparse.write_all_at(&pattern(5, 100), 1 << 20).unwrap();
    sparse.set_len(7 << 30).unwrap();
    fs::File::create(root.join("hole")).unwrap().set_len(1 << 40).unwrap();

    fs::hard_link(root.join("small"), root.join("deep/small too")).unwrap();
    fs::hard_link(root.join("big"), root.join("deep/er/big too")).unwrap();
    fs::hard_link(root.join("big"), root.join("big again")).unwrap();
    symlink("../nowhere/at all", root.join("deep/link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\xfe"), root.join("odd link")).unwrap();
    fs::hard_link(root.join("odd link"), root.join("deep/odd link too")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"no\xffutf8 \x01\n")), b"odd").unwrap();
    fs::write(root.join("n".repeat(255)), b"long").unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("char", FileType::CharacterDevice, rustix::fs::makedev(10, 229));
    node("block device", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    node("socket", FileType::Socket, 0);

    let setuid = file("setuid", b"#!/bin/sh");
    rustix::fs::chownat(CWD, &setuid, Some(Uid::from_raw(1234)), Some(Gid::from_raw(4321)), AtFlags::empty())
        .unwrap();
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(root.join("deep"), fs::Permissions::from_mode(0o3771)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o000)).unwrap();
    let xattr = |name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join("small"), name, value, XattrFlags::empty()).unwrap();
    };
    xattr("user.mime", b"text/plain");
    xattr("user.empty", b"");
    xattr("trusted.other", b"not carried by NFS");
    put_lists(root);
    let label = b"user_u:object_r:tmp_t:s0\0";
    let _refused_by_some =
        rustix::fs::lsetxattr(root.join("deep/link"), "security.selinux", label, XattrFlags::empty());
    let _refused_by_some =
        rustix::fs::lsetxattr(root.join("small"), "security.selinux", label, XattrFlags::empty());
    let mut secs = 1_000_000_000;
    let mut paths = Before::new();
    look(root, &mut paths);
    // Deepest last, so that nothing moves a directory's time afterwards.
    for path in paths.keys() {
        secs += 86_400;
        set_times(path, secs, (secs % 1_000_000_000) as u32);
    }
    set_times(&root.join("small"), -1, 999_999_999);
}

/// Opens what the command filled.
async fn open(dir: &Path) -> (DataDir, Rig) {
    let data = DataDir::open(dir).unwrap();
    let mut options = options();
    let fitted = atoll::node::Options::for_disk(&data.identity, data.disk.as_ref()).unwrap();
    (options.cluster_id, options.meta, options.blocks) = (fitted.cluster_id, fitted.meta, fitted.blocks);
    let rig = Rig::open_with(data.disk.clone(), options).await;
    (data, rig)
}

struct Compare<'a> {
    rig: &'a Rig,
    before: &'a Before,
    /// Files are the same if and only if they are in the source.
    inodes: BTreeMap<(u64, u64), Ino>,
    access_times: bool,
}

impl Compare<'_> {
    async fn entry(&mut self, path: &Path, ino: Ino) {
        let source = &self.before[path];
        let attr = self.rig.node.meta.getattr(ino).await.unwrap();
        let shown = path.display();
        assert_eq!(*self.inodes.entry((source.dev(), source.ino())).or_insert(ino), ino, "{shown}");
        let kind = source.file_type();
        if !kind.is_symlink() {
            assert_eq!(lists_of(&attr), source_lists(path), "{shown}");
            assert_eq!(attr.label.as_ref().map(|label| label.data.to_vec()), source_label(path), "{shown}");
            assert_eq!(attr.mode, source.mode() & 0o7777, "{shown}");
        }
        assert_eq!((attr.uid, attr.gid), (source.uid(), source.gid()), "{shown}");
        let time = |secs, nanos: i64| Timestamp { secs, nanos: nanos as u32 };
        assert_eq!(attr.mtime, time(source.mtime(), source.mtime_nsec()), "{shown}");
        if self.access_times && !kind.is_dir() {
            assert_eq!(attr.atime, time(source.atime(), source.atime_nsec()), "{shown}");
        }
        assert_eq!(u64::from(attr.nlink), source.nlink(), "{shown}");
        match attr.kind {
            FileKind::Directory => assert!(kind.is_dir(), "{shown}"),
            FileKind::Regular => {
                assert!(kind.is_file() && attr.size == source.size(), "{shown}");
                assert!(attr.used <= source.blocks() * 512, "{shown} has lost holes");
                self.content(path, ino, attr.size).await;
            }
            FileKind::Symlink => {
                let (_, target) = self.rig.node.meta.readlink(ino).await.unwrap();
                assert_eq!(target, fs::read_link(path).unwrap().as_os_str().as_bytes());
            }
            other => {
                let mode = FileType::from_raw_mode(source.mode());
                let device = (rustix::fs::major(source.rdev()), rustix::fs::minor(source.rdev()));
                let expected = match other {
                    FileKind::Fifo => FileType::Fifo,
                    FileKind::Socket => FileType::Socket,
                    FileKind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                assert_eq!((mode, (attr.device.major, attr.device.minor)), (expected, device), "{shown}");
            }
        }
    }

    async fn content(&self, path: &Path, ino: Ino, size: u64) {
        let source = fs::File::open(path).unwrap();
        let mut at = 0;
        while at < size {
            let map = self.rig.node.meta.map(ino, at, size - at).await.unwrap();
            for extent in &map.extents {
                let mut expected = vec![0; extent.piece.len as usize];
                source.read_exact_at(&mut expected, extent.piece.offset).unwrap();
                let found = self.rig.read_extent(extent).await;
                assert!(found == expected, "{} at {}", path.display(), extent.piece.offset);
            }
            at = map.complete_to;
        }
        // What has no extent is a hole in the source as well.
        let data: u64 = self.rig.extents(ino).await.iter().map(|e| e.1).sum();
        let mut in_source = 0;
        let mut from = 0;
        while let Ok(start) = rustix::fs::seek(&source, rustix::fs::SeekFrom::Data(from)) {
            from = rustix::fs::seek(&source, rustix::fs::SeekFrom::Hole(start)).unwrap();
            in_source += from - start;
        }
        assert_eq!(data, in_source, "{}", path.display());
    }

    async fn tree(&mut self, root: &Path, ino: Ino) {
        let mut todo = vec![(root.to_owned(), ino)];
        let mut seen = 0;
        while let Some((path, ino)) = todo.pop() {
            seen += 1;
            self.entry(&path, ino).await;
            if !self.before[&path].is_dir() {
                continue;
            }
            let mut names = BTreeSet::new();
            let mut after = Cookie(0);
            loop {
                let page = self.rig.node.meta.readdir(ino, after, 1000, 1 << 20, false).await.unwrap();
                for entry in page.entries {
                    after = entry.cookie;
                    assert!(names.insert(entry.name.clone()));
                    todo.push((path.join(OsStr::from_bytes(&entry.name)), entry.ino));
                }
                if page.end {
                    break;
                }
            }
            let there: BTreeSet<Bytes> = fs::read_dir(&path)
                .unwrap()
                .map(|e| Bytes::copy_from_slice(e.unwrap().file_name().as_bytes()))
                .collect();
            assert_eq!(names, there, "{}", path.display());
        }
        assert_eq!(seen, self.before.len());
        let distinct: BTreeSet<_> = self.inodes.values().collect();
        assert_eq!(distinct.len(), self.inodes.len(), "different files have become one");
    }
}

async fn compare(dir: &Path, source: &Path, before: &Before, access_times: bool) {
    let (_data, rig) = open(dir).await;
    let root = rig.root().await;
    let mut compare = Compare { rig: &rig, before, inodes: BTreeMap::new(), access_times };
    compare.tree(source, root).await;
    assert_eq!(rig.scrub().await, []);
    rig.node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_kept() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_tree(source.path());
    let mut before = Before::new();
    look(source.path(), &mut before);
    let into = target.path().to_str().unwrap();
    let done = atoll(&["import", source.path().to_str().unwrap(), "--into", into, "--security-labels"]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("1 entries have attributes that NFS does not carry"), "{}", done.stderr);
    compare(target.path(), source.path(), &before, true).await;
    {
        let (_data, rig) = open(target.path()).await;
        let small = rig.node.meta.lookup(rig.root().await, b"small").await.unwrap().child.unwrap().ino;
        assert_eq!(rig.node.meta.list_xattrs(small).await.unwrap(), ["empty", "mime"]);
        assert_eq!(rig.node.meta.get_xattr(small, b"mime").await.unwrap(), "text/plain");
        rig.node.close().await.unwrap();
    }
    // Again: nothing is copied a second time.
    let again = atoll(&["import", source.path().to_str().unwrap(), "--into", into]);
    assert_eq!(again.status, Some(0), "{}", again.stderr);
    assert!(again.stdout.starts_with("0 entries copied (0 B)"), "{}", again.stdout);
    compare(target.path(), source.path(), &before, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_resumed() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wide = source.path().join("wide");
    fs::create_dir_all(&wide).unwrap();
    for n in 0..10_000_usize {
        fs::write(wide.join(format!("file {n}")), pattern(n as u64, n % 300)).unwrap();
    }
    for n in 0..40 {
        let dir = source.path().join(format!("dir {}/sub", n % 7));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("medium {n}")), pattern(n, 300_000)).unwrap();
        fs::hard_link(wide.join(format!("file {n}")), dir.join(format!("link {n}"))).unwrap();
    }
    let mut before = Before::new();
    look(source.path(), &mut before);
    let args = ["import", source.path().to_str().unwrap(), "--into", target.path().to_str().unwrap()];
    let mut kills = 0;
    for wait in [300, 500, 700, 900, 1100] {
        kills += u32::from(killed_after(&args, Duration::from_millis(wait)));
    }
    let done = atoll(&args);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert_eq!(done.stderr, "", "quiet where there is no terminal");
    println!("killed {kills} times, then: {}", done.stdout);
    compare(target.path(), source.path(), &before, false).await;
}

#[test]
fn mistakes_are_told_and_the_rest_goes_on() {
    let source = tempfile::tempdir().unwrap();
    let data = source.path().join("data");
    fs::write(source.path().join("good"), "x").unwrap();
    let (from, into) = (source.path().to_str().unwrap(), data.to_str().unwrap());
    // The data directory lies within the source: it is left out.
    let done = atoll(&["import", from, "--into", into]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("data is left out"), "{}", done.stderr);
    assert!(done.stdout.starts_with("1 entries copied"), "{}", done.stdout);
    // The source lies within the data directory.
    let done = atoll(&["import", data.join("blocks").to_str().unwrap(), "--into", into]);
    assert_eq!(done.status, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("within the data directory"), "{}", done.stderr);
    let done = atoll(&["import", "/does/not/exist", "--into", into]);
    assert!(done.status == Some(2) && done.stderr.contains("/does/not/exist"), "{}", done.stderr);
    let done = atoll(&["import", source.path().join("good").to_str().unwrap(), "--into", into]);
    assert!(done.status == Some(2) && done.stderr.contains("is not a directory"), "{}", done.stderr);
    // What is a file in one and a directory in the other.
    fs::remove_file(source.path().join("good")).unwrap();
    fs::create_dir(source.path().join("good")).unwrap();
    fs::write(source.path().join("good/inner"), "y").unwrap();
    assert_eq!(atoll(&["import", from, "--into", into]).status, Some(0));
    fs::remove_dir_all(source.path().join("good")).unwrap();
    fs::write(source.path().join("good"), "z").unwrap();
    fs::write(source.path().join("other"), "z").unwrap();
    let done = atoll(&["import", from, "--into", into]);
    assert_eq!(done.status, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("good: not copied: a directory of this name"), "{}", done.stderr);
    assert!(done.stdout.starts_with("1 entries copied"), "{}", done.stdout);
}
