//! Each procedure does what RFC 1813 says, with exact `wcc_data`.

use super::world::{World, name_of, write_args};
use crate::rpc::Answer;
use atoll_proto::nfs3::{
    Access3Args, Commit3Args, Create3Args, CreateHow3, DeviceData3, DirOpArgs3, FileHandle, FileType3,
    FsInfo3Args, FsStat3Args, GetAttr3Args, Link3Args, MkDir3Args, MkNod3Args, MkNodData3, NfsStat3,
    NfsTime3, Path3, PathConf3Args, ReadLink3Args, Remove3Args, Rename3Args, RmDir3Args, Sattr3,
    SetAttr3Args, SetTime, SpecData3, StableHow, SymLink3Args, SymLinkData3, access, call,
};
use bytes::Bytes;

fn mode(mode: u32) -> Sattr3 {
    Sattr3 { mode: Some(mode), ..Sattr3::default() }
}

#[tokio::test]
async fn a_file_is_made_written_and_read() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let before = w.getattr(file).await;
    let written = w.write(file, 3, b"hello", StableHow::FileSync).await.unwrap();
    assert_eq!(written.count, 5);
    assert_eq!(written.committed, StableHow::FileSync);
    assert_eq!(written.file_wcc.before, Some(before.wcc()));
    let after = w.getattr(file).await;
    assert_eq!(written.file_wcc.after, Some(after));
    assert_eq!(after.size, 8);
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    assert_eq!(w.read_all(file).await, b"\0\0\0hello");
    assert_eq!(w.lookup(w.root, "g").await.unwrap_err().status, NfsStat3::NoEnt);
    assert_eq!(w.lookup(w.root, "f").await.unwrap().object, file);
    let data_sync = w.write(file, 0, b"x", StableHow::DataSync).await.unwrap();
    assert_eq!(data_sync.committed, StableHow::FileSync);
}

#[tokio::test]
async fn creation_tells_the_directory_before_and_after() {
    let w = World::new().await;
    let before = w.getattr(w.root).await;
    let how = CreateHow3::Guarded(mode(0o640));
    let args = Create3Args { at: w.at(w.root, "f"), how };
    let made = w.call::<call::Create>(args.clone()).await.unwrap();
    assert_eq!(made.dir_wcc.before, Some(before.wcc()));
    let after = w.getattr(w.root).await;
    assert_eq!(made.dir_wcc.after, Some(after));
    assert_eq!(made.obj_attributes, Some(w.getattr(made.object.unwrap()).await));
    assert_eq!(made.obj_attributes.unwrap().mode, 0o640);

    let refused = w.call::<call::Create>(args).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Exist);
    assert_eq!(refused.detail.before, Some(after.wcc()));
    assert_eq!(refused.detail.after, Some(after));

    let unchecked = CreateHow3::Unchecked(Sattr3 { size: Some(0), ..mode(0o777) });
    let file = made.object.unwrap();
    w.write(file, 0, b"abc", StableHow::FileSync).await.unwrap();
    let again = w.call::<call::Create>(Create3Args { at: w.at(w.root, "f"), how: unchecked }).await.unwrap();
    assert_eq!(again.object, Some(file));
    assert_eq!(again.obj_attributes.unwrap().size, 0);
    assert_eq!(again.obj_attributes.unwrap().mode, 0o640, "of an existing file only the size is set");
}

#[tokio::test]
async fn exclusive_creation_succeeds_again_with_its_verifier_only() {
    let w = World::new().await;
    let exclusive = |verf| Create3Args { at: w.at(w.root, "x"), how: CreateHow3::Exclusive(verf) };
    let first = w.call::<call::Create>(exclusive(*b"verifier")).await.unwrap();
    let second = w.call::<call::Create>(exclusive(*b"verifier")).await.unwrap();
    assert_eq!(first.object, second.object);
    let other = w.call::<call::Create>(exclusive(*b"another!")).await.unwrap_err();
    assert_eq!(other.status, NfsStat3::Exist);
    let set = SetAttr3Args { object: first.object.unwrap(), new_attributes: mode(0o600), guard: None };
    w.call::<call::SetAttr>(set).await.unwrap();
    let late = w.call::<call::Create>(exclusive(*b"verifier")).await.unwrap_err();
    assert_eq!(late.status, NfsStat3::Exist, "the first SETATTR drops the verifier");
}

#[tokio::test]
async fn setattr_sets_guards_and_tells_both_sides() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let before = w.getattr(file).await;
    let time = NfsTime3 { seconds: 4_000_000_000, nseconds: 7 };
    let set = Sattr3 {
        mode: Some(0o4755),
        uid: Some(10),
        gid: Some(20),
        size: Some(1 << 40),
        atime: SetTime::ClientTime(time),
        mtime: SetTime::ClientTime(NfsTime3 { seconds: 1, nseconds: 2 }),
    };
    let guard = Some(before.ctime);
    let done =
        w.call::<call::SetAttr>(SetAttr3Args { object: file, new_attributes: set, guard }).await.unwrap();
    let after = w.getattr(file).await;
    assert_eq!(done.obj_wcc.before, Some(before.wcc()));
    assert_eq!(done.obj_wcc.after, Some(after));
    assert_eq!((after.mode, after.uid, after.gid, after.size), (0o4755, 10, 20, 1 << 40));
    assert_eq!((after.atime, after.mtime.seconds), (time, 1));

    let late = SetAttr3Args { object: file, new_attributes: mode(0), guard };
    let refused = w.call::<call::SetAttr>(late).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::NotSync);
    assert_eq!(refused.detail.after, Some(after));

    let bad_time = SetTime::ClientTime(NfsTime3 { seconds: 1, nseconds: 1_000_000_000 });
    let args = SetAttr3Args {
        object: file,
        new_attributes: Sattr3 { mtime: bad_time, ..Sattr3::default() },
        guard: None,
    };
    assert_eq!(w.call::<call::SetAttr>(args).await.unwrap_err().status, NfsStat3::Inval);
    let huge = Sattr3 { size: Some(1 << 63), ..Sattr3::default() };
    let args = SetAttr3Args { object: file, new_attributes: huge, guard: None };
    assert_eq!(w.call::<call::SetAttr>(args).await.unwrap_err().status, NfsStat3::Inval);
}

#[tokio::test]
async fn links_count_and_rename_replaces() {
    let w = World::new().await;
    let (a, b) = (w.mkdir(w.root, "a", 0o755).await, w.mkdir(w.root, "b", 0o755).await);
    let file = w.create(a, "f").await;
    let dir_before = w.getattr(b).await;
    let linked = w.call::<call::Link>(Link3Args { file, link: w.at(b, "g") }).await.unwrap();
    assert_eq!(linked.file_attributes, Some(w.getattr(file).await));
    assert_eq!(linked.file_attributes.unwrap().nlink, 2);
    assert_eq!(linked.link_dir_wcc.before, Some(dir_before.wcc()));
    assert_eq!(linked.link_dir_wcc.after, Some(w.getattr(b).await));
    let dots = w.call::<call::Link>(Link3Args { file, link: w.at(b, "..") }).await.unwrap_err();
    assert_eq!(dots.status, NfsStat3::Exist);

    let victim = w.create(b, "victim").await;
    let (a_before, b_before) = (w.getattr(a).await, w.getattr(b).await);
    let renamed =
        w.call::<call::Rename>(Rename3Args { from: w.at(a, "f"), to: w.at(b, "victim") }).await.unwrap();
    assert_eq!(renamed.from_dir_wcc.before, Some(a_before.wcc()));
    assert_eq!(renamed.from_dir_wcc.after, Some(w.getattr(a).await));
    assert_eq!(renamed.to_dir_wcc.before, Some(b_before.wcc()));
    assert_eq!(renamed.to_dir_wcc.after, Some(w.getattr(b).await));
    assert_eq!(w.lookup(b, "victim").await.unwrap().object, file);
    let gone = w.call::<call::GetAttr>(GetAttr3Args { object: victim }).await.unwrap_err();
    assert_eq!(gone.status, NfsStat3::Stale);

    let same =
        w.call::<call::Rename>(Rename3Args { from: w.at(b, "."), to: w.at(b, "x") }).await.unwrap_err();
    assert_eq!(same.status, NfsStat3::Inval);
}

#[tokio::test]
async fn removal_by_type_and_by_alias() {
    let w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o755).await;
    let file = w.create(dir, "f").await;
    let remove = |at| async { w.call::<call::Remove>(Remove3Args { object: at }).await };
    let rmdir = |at| async { w.call::<call::RmDir>(RmDir3Args { object: at }).await };
    assert_eq!(remove(w.at(w.root, "d")).await.unwrap_err().status, NfsStat3::IsDir);
    assert_eq!(rmdir(w.at(dir, "f")).await.unwrap_err().status, NfsStat3::NotDir);
    assert_eq!(rmdir(w.at(w.root, "d")).await.unwrap_err().status, NfsStat3::NotEmpty);
    assert_eq!(rmdir(w.at(dir, ".")).await.unwrap_err().status, NfsStat3::Inval);
    assert_eq!(rmdir(w.at(dir, "..")).await.unwrap_err().status, NfsStat3::Exist);
    let before = w.getattr(dir).await;
    let removed = remove(w.at(dir, "f")).await.unwrap();
    assert_eq!(removed.dir_wcc.before, Some(before.wcc()));
    assert_eq!(removed.dir_wcc.after, Some(w.getattr(dir).await));
    assert_eq!(w.read(file, 0, 1).await.unwrap_err().status, NfsStat3::Stale);
    assert_eq!(remove(w.at(dir, "f")).await.unwrap_err().status, NfsStat3::NoEnt);
    rmdir(w.at(w.root, "d")).await.unwrap();
    assert_eq!(remove(w.at(dir, "f")).await.unwrap_err().status, NfsStat3::Stale);
}

#[tokio::test]
async fn symbolic_links_and_special_files() {
    let w = World::new().await;
    let link = |text: &[u8]| SymLink3Args {
        at: w.at(w.root, "l"),
        symlink: SymLinkData3 { attributes: mode(0o777), data: Path3::copy_from(text).unwrap() },
    };
    let made = w.call::<call::SymLink>(link(b"/some/where")).await.unwrap();
    let symlink = made.object.unwrap();
    let text = w.call::<call::ReadLink>(ReadLink3Args { symlink }).await.unwrap();
    assert_eq!(&text.data[..], b"/some/where");
    assert_eq!(text.symlink_attributes.unwrap().file_type, FileType3::SymLink);
    let not_link = w.call::<call::ReadLink>(ReadLink3Args { symlink: w.root }).await.unwrap_err();
    assert_eq!(not_link.status, NfsStat3::Inval);
    assert_eq!(w.read(symlink, 0, 10).await.unwrap_err().status, NfsStat3::Inval);
    let long = w.call::<call::SymLink>(link(&[b'x'; 5000])).await.unwrap_err();
    assert_eq!(long.status, NfsStat3::NameTooLong);

    let mknod = |name: &str, what| MkNod3Args { at: w.at(w.root, name), what };
    let spec = SpecData3 { major: 7, minor: 9 };
    let device = MkNodData3::Block(DeviceData3 { attributes: mode(0o660), spec });
    let made = w.call::<call::MkNod>(mknod("dev", device)).await.unwrap();
    assert_eq!(made.obj_attributes.unwrap().file_type, FileType3::Block);
    assert_eq!(made.obj_attributes.unwrap().rdev, spec);
    for (name, what, kind) in [
        ("fifo", MkNodData3::Fifo(mode(0o600)), FileType3::Fifo),
        ("sock", MkNodData3::Socket(mode(0o600)), FileType3::Socket),
    ] {
        let made = w.call::<call::MkNod>(mknod(name, what)).await.unwrap();
        assert_eq!(made.obj_attributes.unwrap().file_type, kind);
    }
    let bad = w.call::<call::MkNod>(mknod("bad", MkNodData3::Regular)).await.unwrap_err();
    assert_eq!(bad.status, NfsStat3::BadType);
}

#[tokio::test]
async fn devices_take_privilege_and_others_do_not() {
    let mut w = World::new().await;
    let dir = w.mkdir(w.root, "open", 0o777).await;
    w.as_user(100, 100);
    let spec = SpecData3 { major: 1, minor: 3 };
    let device = MkNodData3::Character(DeviceData3 { attributes: mode(0o666), spec });
    let refused =
        w.call::<call::MkNod>(MkNod3Args { at: w.at(dir, "null"), what: device }).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Perm);
    let fifo = MkNodData3::Fifo(mode(0o600));
    let made = w.call::<call::MkNod>(MkNod3Args { at: w.at(dir, "fifo"), what: fifo }).await.unwrap();
    assert_eq!(made.obj_attributes.unwrap().uid, 100);
}

#[tokio::test]
async fn reading_ends_where_the_file_does() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write(file, 0, &[1; 1000], StableHow::FileSync).await.unwrap();
    for (offset, count, expected, eof) in [
        (0, 1000, 1000, true),
        (0, 999, 999, false),
        (500, 1000, 500, true),
        (1000, 10, 0, true),
        (1 << 62, 10, 0, true),
    ] {
        let read = w.read(file, offset, count).await.unwrap();
        assert_eq!((read.count, read.eof, read.data.len()), (expected, eof, expected as usize));
    }
    let nothing = w.read(file, 0, 0).await.unwrap();
    assert_eq!((nothing.count, nothing.eof), (0, false));
    assert_eq!(w.read(w.root, 0, 1).await.unwrap_err().status, NfsStat3::IsDir);
    w.write(file, u64::from(u32::MAX), b"end", StableHow::FileSync).await.unwrap();
    let hole = w.read(file, 500_000, 1 << 20).await.unwrap();
    assert_eq!((hole.count, hole.eof), (1 << 20, false));
    assert!(hole.data.iter().all(|b| *b == 0));
}

#[tokio::test]
async fn writes_are_checked() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let before = w.getattr(file).await;
    let nothing = w.write(file, 100, b"", StableHow::FileSync).await.unwrap();
    assert_eq!((nothing.count, nothing.file_wcc.after), (0, Some(before)), "no bytes, no change");
    let far = w.write(file, (1 << 63) - 1, b"x", StableHow::FileSync).await.unwrap_err();
    assert_eq!(far.status, NfsStat3::FBig);
    assert_eq!(far.detail.after, Some(before));
    assert_eq!(w.write(file, u64::MAX, b"x", StableHow::Unstable).await.unwrap_err().status, NfsStat3::FBig);
    let mut args = write_args(file, 0, b"abc", StableHow::FileSync);
    args.count = 2;
    assert_eq!(w.call::<call::Write>(args).await.unwrap_err().status, NfsStat3::Inval);
    assert_eq!(w.write(w.root, 0, b"x", StableHow::FileSync).await.unwrap_err().status, NfsStat3::IsDir);
    assert_eq!(w.write(w.root, 0, b"x", StableHow::Unstable).await.unwrap_err().status, NfsStat3::IsDir);
    let large = vec![7; (1 << 20) + 100];
    let short = w.write(file, 0, &large, StableHow::FileSync).await.unwrap();
    assert_eq!(short.count, 1 << 20, "the rest takes another WRITE");
    assert_eq!(w.getattr(file).await.size, 1 << 20);
}

async fn granted(w: &World, object: FileHandle) -> u32 {
    w.call::<call::Access>(Access3Args { object, access: access::ALL }).await.unwrap().access
}

#[tokio::test]
async fn access_of_all_types() {
    let mut w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o755).await;
    let file = w.create(dir, "f").await;
    let dir_all = access::ALL & !access::EXECUTE;
    let file_rw = access::READ | access::MODIFY | access::EXTEND;
    assert_eq!(granted(&w, dir).await, dir_all);
    assert_eq!(granted(&w, file).await, file_rw, "nobody may execute it, so root may not");
    w.as_user(5, 5);
    assert_eq!(granted(&w, dir).await, access::READ | access::LOOKUP);
    assert_eq!(granted(&w, file).await, access::READ);
    let asked = w.call::<call::Access>(Access3Args { object: file, access: access::MODIFY }).await.unwrap();
    assert_eq!(asked.access, 0);
}

#[tokio::test]
async fn what_the_server_is_like() {
    let w = World::new().await;
    let info = w.call::<call::FsInfo>(FsInfo3Args { fsroot: w.root }).await.unwrap();
    assert_eq!((info.rtmax, info.wtmax, info.max_file_size), (1 << 20, 1 << 20, i64::MAX as u64));
    assert_eq!((info.time_delta.seconds, info.time_delta.nseconds, info.properties), (0, 1, 0x1b));
    let conf = w.call::<call::PathConf>(PathConf3Args { object: w.root }).await.unwrap();
    assert_eq!((conf.name_max, conf.no_trunc, conf.chown_restricted), (255, true, true));
    assert!(!conf.case_insensitive && conf.case_preserving);
    let stat = w.call::<call::FsStat>(FsStat3Args { fsroot: w.root }).await.unwrap();
    assert_eq!(stat.total_bytes, 1 << 30);
    assert_eq!(stat.total_files, stat.free_files + 1);
    w.create(w.root, "f").await;
    let more = w.call::<call::FsStat>(FsStat3Args { fsroot: w.root }).await.unwrap();
    assert_eq!(more.total_files, more.free_files + 2);
}

#[tokio::test]
async fn names_are_any_bytes_but_two() {
    let w = World::new().await;
    let long = [0xffu8; 255];
    let args = |name: &[u8]| Create3Args {
        at: DirOpArgs3 { dir: w.root, name: name_of(name) },
        how: CreateHow3::Guarded(Sattr3::default()),
    };
    w.call::<call::Create>(args(&long)).await.unwrap();
    for (name, status) in [
        (&[b'x'; 256][..], NfsStat3::NameTooLong),
        (b"", NfsStat3::Acces),
        (b"a/b", NfsStat3::Acces),
        (b"a\0b", NfsStat3::Acces),
        (b".", NfsStat3::Exist),
        (b"..", NfsStat3::Exist),
    ] {
        assert_eq!(w.call::<call::Create>(args(name)).await.unwrap_err().status, status);
        let mkdir = MkDir3Args { at: args(name).at, attributes: Sattr3::default() };
        assert_eq!(w.call::<call::MkDir>(mkdir).await.unwrap_err().status, status);
    }
    let in_file = w.create(w.root, "f").await;
    assert_eq!(w.lookup(in_file, "x").await.unwrap_err().status, NfsStat3::NotDir);
}

#[tokio::test]
async fn handles_that_are_not_ours_and_noise() {
    let w = World::new().await;
    let mut forged = w.root.as_slice().to_vec();
    forged[20] ^= 1;
    for handle in [&forged[..], b"", &[0; 64]] {
        let object = FileHandle::new(handle).unwrap();
        let refused = w.call::<call::GetAttr>(GetAttr3Args { object }).await.unwrap_err();
        assert_eq!(refused.status, NfsStat3::BadHandle);
        let refused =
            w.call::<call::Commit>(Commit3Args { file: object, offset: 0, count: 0 }).await.unwrap_err();
        assert_eq!(refused.status, NfsStat3::BadHandle);
    }
    for procedure in 1..22 {
        let call = w.rpc(w.next_xid(), 100_003, 3, procedure, Bytes::from_static(&[0, 0, 0]));
        let answer = w.engine.nfs3(call, atoll_xdr::Encoder::new()).await;
        assert!(matches!(answer, Answer::GarbageArgs), "procedure {procedure}: {answer:?}");
    }
    let call = w.rpc(1, 100_003, 3, 22, Bytes::new());
    assert!(matches!(w.engine.nfs3(call, atoll_xdr::Encoder::new()).await, Answer::ProcedureUnavailable));
    let call = w.rpc(1, 100_003, 4, 1, Bytes::new());
    assert!(matches!(w.engine.nfs3(call, atoll_xdr::Encoder::new()).await, Answer::ProgramMismatch(3, 3)));
}

#[tokio::test]
async fn calls_are_counted() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write(file, 0, &[1; 100], StableHow::FileSync).await.unwrap();
    w.read(file, 0, 60).await.unwrap();
    w.lookup(w.root, "none").await.unwrap_err();
    let stats = w.engine.stats();
    assert_eq!((stats.bytes_in, stats.bytes_out), (100, 60));
    let lookup = &stats.nfs3[3];
    assert_eq!((lookup.name, lookup.calls, lookup.errors), ("LOOKUP", 1, 1));
    assert_eq!(stats.clients.len(), 1);
}
