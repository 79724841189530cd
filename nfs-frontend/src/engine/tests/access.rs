//! Who may do what: exports, squashing, permissions, MOUNT, NFSACL, RQUOTA.

use super::world::{World, open_export, put_export, sys};
use crate::engine::HandleError;
use crate::rpc::{Answer, AuthError, Credential};
use atoll_base::access::Cred;
use atoll_meta::export::{AtimePolicy, ClientMatch, ExportSpec, SecFlavor, Squash};
use atoll_meta::{Call, Op};
use atoll_proto::mount::{DirPath, MountStat3, v1, v3};
use atoll_proto::nfs3::{
    Create3Args, CreateHow3, FileHandle, GetAttr3Args, Lookup3Args, MkDir3Args, NfsStat3, Remove3Args,
    Sattr3, SetAttr3Args, StableHow, call,
};
use atoll_proto::nfsacl::{self, AclEntry, GetAcl3Args, SecAttr, SetAcl3Args, mask, tag};
use atoll_proto::rquota;
use atoll_xdr::Array;

fn network(addr: &str, prefix: u8) -> ClientMatch {
    ClientMatch::Network { addr: addr.parse().unwrap(), prefix }
}

async fn status_of(w: &World, object: FileHandle) -> Result<(), NfsStat3> {
    w.call::<call::GetAttr>(GetAttr3Args { object }).await.map(|_| ()).map_err(|f| f.status)
}

#[tokio::test]
async fn clients_by_address_name_and_port() {
    let mut w = World::new().await;
    let spec = ExportSpec {
        clients: vec![
            network("10.0.0.0", 8),
            network("2001:db8::", 32),
            ClientMatch::Host("known.example".into()),
        ],
        secure: true,
        ..open_export()
    };
    put_export(&w.meta, spec);
    for (peer, expected) in [
        ("10.1.2.3:700", Ok(())),
        ("[::ffff:10.1.2.3]:700", Ok(())),
        ("11.1.2.3:700", Err(NfsStat3::Acces)),
        ("[2001:db8::5]:1023", Ok(())),
        ("[2001:db9::5]:1023", Err(NfsStat3::Acces)),
        ("192.0.2.7:1", Ok(())),
        ("192.0.2.8:1", Ok(())),
        ("192.0.2.9:1", Err(NfsStat3::Acces)),
        ("10.1.2.3:1024", Err(NfsStat3::Acces)),
    ] {
        w.peer = peer.parse().unwrap();
        assert_eq!(status_of(&w, w.root).await, expected, "{peer}");
        let mounted = w.mount("/").await.map(|_| ()).map_err(|e| assert_eq!(e, MountStat3::Acces));
        assert_eq!(mounted.is_ok(), expected.is_ok(), "{peer}");
    }
}

#[tokio::test]
async fn a_long_list_is_decided_once_and_anew_after_a_change() {
    let mut w = World::new().await;
    let spec = |third: u8| ExportSpec {
        clients: (0..100).map(|i| network(&format!("10.{third}.{i}.0"), 24)).collect(),
        ..open_export()
    };
    put_export(&w.meta, spec(1));
    w.peer = "10.1.99.7:700".parse().unwrap();
    for _ in 0..3 {
        assert_eq!(status_of(&w, w.root).await, Ok(()));
    }
    put_export(&w.meta, spec(2));
    assert_eq!(status_of(&w, w.root).await, Err(NfsStat3::Acces));
    put_export(&w.meta, spec(1));
    assert_eq!(status_of(&w, w.root).await, Ok(()));
    for i in 0..20_000u32 {
        w.peer = std::net::SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + i).into(), 700);
        assert_eq!(status_of(&w, w.root).await, Err(NfsStat3::Acces));
    }
}

#[tokio::test]
async fn flavours_that_an_export_takes() {
    let mut w = World::new().await;
    w.who = Credential::None;
    let args = GetAttr3Args { object: w.root };
    let answer = w.raw::<call::GetAttr>(1, &args).await;
    assert!(matches!(answer, Answer::AuthError(AuthError::TooWeak)), "{answer:?}");
    put_export(&w.meta, ExportSpec { sec: vec![SecFlavor::Sys, SecFlavor::None], ..open_export() });
    assert_eq!(status_of(&w, w.root).await, Ok(()));
    w.who = sys(0, 0, &[]);
    let open = w.mkdir(w.root, "open", 0o777).await;
    w.who = Credential::None;
    let file = w.create(open, "f").await;
    assert_eq!(w.getattr(file).await.uid, 65534, "AUTH_NONE is nobody");
    put_export(&w.meta, ExportSpec { sec: vec![SecFlavor::None], ..open_export() });
    w.who = sys(7, 7, &[]);
    let file = w.create(open, "g").await;
    assert_eq!(w.getattr(file).await.uid, 65534, "who need not prove it is not believed");
}

#[tokio::test]
async fn squashing() {
    let mut w = World::new().await;
    let open = w.mkdir(w.root, "open", 0o777).await;
    for (n, (squash, uid, gid, expected)) in [
        (Squash::None, 0, 0, (0, 0)),
        (Squash::Root, 0, 0, (99, 98)),
        (Squash::Root, 7, 0, (7, 98)),
        (Squash::Root, 7, 8, (7, 8)),
        (Squash::All, 7, 8, (99, 98)),
    ]
    .into_iter()
    .enumerate()
    {
        put_export(&w.meta, ExportSpec { squash, anon_uid: 99, anon_gid: 98, ..open_export() });
        w.as_user(uid, gid);
        let file = w.create(open, &n.to_string()).await;
        let attr = w.getattr(file).await;
        assert_eq!((attr.uid, attr.gid), expected, "{squash:?} {uid} {gid}");
    }
    put_export(&w.meta, ExportSpec { squash: Squash::Root, anon_gid: 98, ..open_export() });
    w.who = sys(0, 0, &[]);
    let target =
        w.engine.resolve(w.root.as_slice(), &w.rpc(1, 100_021, 4, 1, bytes::Bytes::new())).await.unwrap();
    assert_eq!(target.cred, Cred::new(65534, 98, vec![]));
    w.who = sys(5, 5, &[0, 6]);
    let target =
        w.engine.resolve(w.root.as_slice(), &w.rpc(1, 100_021, 4, 1, bytes::Bytes::new())).await.unwrap();
    assert_eq!(target.cred, Cred::new(5, 5, vec![98, 6]), "gid 0 among the groups too");
}

#[tokio::test]
async fn more_groups_than_a_credential_holds() {
    let mut w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o770).await;
    let set = Sattr3 { gid: Some(1030), ..Sattr3::default() };
    w.call::<call::SetAttr>(SetAttr3Args { object: dir, new_attributes: set, guard: None }).await.unwrap();
    w.who = sys(500, 500, &[1, 2, 3]);
    assert_eq!(w.lookup(dir, "x").await.unwrap_err().status, NfsStat3::Acces);
    put_export(&w.meta, ExportSpec { manage_gids: true, ..open_export() });
    assert_eq!(w.lookup(dir, "x").await.unwrap_err().status, NfsStat3::NoEnt);
    w.who = sys(501, 500, &[1030]);
    assert_eq!(
        w.lookup(dir, "x").await.unwrap_err().status,
        NfsStat3::Acces,
        "the client's groups do not count"
    );
}

#[tokio::test]
async fn permissions_on_reads() {
    let mut w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o711).await;
    let file = w.create(dir, "f").await;
    w.write(file, 0, b"secret", StableHow::FileSync).await.unwrap();
    let set = |mode, uid| SetAttr3Args {
        object: file,
        new_attributes: Sattr3 { mode: Some(mode), uid: Some(uid), ..Sattr3::default() },
        guard: None,
    };
    w.call::<call::SetAttr>(set(0o000, 42)).await.unwrap();
    w.as_user(7, 7);
    assert_eq!(w.lookup(dir, "f").await.unwrap().object, file, "search is enough");
    assert_eq!(w.read(file, 0, 10).await.unwrap_err().status, NfsStat3::Acces);
    assert_eq!(w.write(file, 0, b"x", StableHow::FileSync).await.unwrap_err().status, NfsStat3::Acces);
    assert_eq!(w.write(file, 0, b"x", StableHow::Unstable).await.unwrap_err().status, NfsStat3::Acces);
    assert_eq!(
        w.write(file, 0, &[1; 100_000], StableHow::FileSync).await.unwrap_err().status,
        NfsStat3::Acces
    );
    assert_eq!(
        w.write(file, 0, &[1; 100_000], StableHow::Unstable).await.unwrap_err().status,
        NfsStat3::Acces
    );
    assert_eq!(w.write(file, 0, b"", StableHow::FileSync).await.unwrap_err().status, NfsStat3::Acces);
    assert_eq!(w.blocks.count(), 0);
    w.as_user(42, 7);
    assert_eq!(w.read_all(file).await, b"secret", "the owner may have opened it before");
    w.write(file, 0, b"S", StableHow::FileSync).await.unwrap();
    w.as_user(0, 0);
    w.call::<call::SetAttr>(set(0o001, 42)).await.unwrap();
    w.as_user(7, 7);
    assert_eq!(w.read_all(file).await, b"Secret", "what may be executed must be read");
    w.as_user(0, 0);
    let closed = w.mkdir(w.root, "closed", 0o700).await;
    w.as_user(7, 7);
    for name in ["x", ".", ".."] {
        assert_eq!(w.lookup(closed, name).await.unwrap_err().status, NfsStat3::Acces);
    }
}

#[tokio::test]
async fn a_write_takes_set_id_bits_away_also_under_a_lease() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    let set = |mode| SetAttr3Args {
        object: file,
        new_attributes: Sattr3 { mode: Some(mode), ..Sattr3::default() },
        guard: None,
    };
    w.call::<call::SetAttr>(set(0o6777)).await.unwrap();
    w.write_dirty(file, 0, b"root").await;
    assert_eq!(w.getattr(file).await.mode, 0o6777, "root keeps them");
    assert_eq!(w.engine.stats().dirty_files, 1);
    w.as_user(7, 7);
    let written = w.write(file, 0, b"user", StableHow::Unstable).await.unwrap();
    assert_eq!(written.file_wcc.after.unwrap().mode, 0o777);
    assert_eq!(w.getattr(file).await.mode, 0o777);
}

#[tokio::test]
async fn a_read_only_export_refuses_every_change() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    put_export(&w.meta, ExportSpec { read_only: true, atime: AtimePolicy::Strict, ..open_export() });
    w.meta.take_executed();
    let rofs = |status: NfsStat3| assert_eq!(status, NfsStat3::RoFs);
    rofs(w.write(file, 0, b"x", StableHow::Unstable).await.unwrap_err().status);
    rofs(w.write(file, 0, b"x", StableHow::FileSync).await.unwrap_err().status);
    let create = Create3Args { at: w.at(w.root, "g"), how: CreateHow3::Exclusive([1; 8]) };
    rofs(w.call::<call::Create>(create).await.unwrap_err().status);
    let mkdir = MkDir3Args { at: w.at(w.root, "g"), attributes: Sattr3::default() };
    rofs(w.call::<call::MkDir>(mkdir).await.unwrap_err().status);
    let removed = w.call::<call::Remove>(Remove3Args { object: w.at(w.root, "f") }).await.unwrap_err();
    rofs(removed.status);
    assert_eq!(removed.detail.after, Some(w.getattr(w.root).await));
    let set = SetAttr3Args { object: file, new_attributes: Sattr3::default(), guard: None };
    rofs(w.call::<call::SetAttr>(set).await.unwrap_err().status);
    assert_eq!(w.read_all(file).await, b"");
    w.engine.flush_all().await;
    assert!(w.meta.take_executed().is_empty(), "not even access times");
    w.who = sys(0, 0, &[]);
}

#[tokio::test]
async fn no_way_up_out_of_an_export() {
    let w = World::new().await;
    let pub_dir = w.mkdir(w.root, "pub", 0o755).await;
    let inner = w.mkdir(pub_dir, "inner", 0o755).await;
    w.mkdir(inner, "deep", 0o755).await;
    let id =
        put_export(&w.meta, ExportSpec { path: "/pub".into(), volume_path: "/pub".into(), ..open_export() });
    let root = w.mount("/pub").await.unwrap();
    assert_ne!(root, pub_dir, "handles tell by which export they came");
    assert_eq!(w.getattr(root).await.fileid, w.getattr(pub_dir).await.fileid);
    assert_eq!(w.lookup(root, "..").await.unwrap().object, root);
    assert_eq!(w.lookup(root, ".").await.unwrap().object, root);
    let inner_here = w.lookup(root, "inner").await.unwrap().object;
    assert_eq!(w.lookup(inner_here, "..").await.unwrap().object, root);
    let deep = w.mount("/pub//inner/./deep/").await.unwrap();
    assert_eq!(w.lookup(deep, "..").await.unwrap().object, inner_here);
    assert_eq!(w.lookup(w.root, "..").await.unwrap().object, w.root);

    // Moved out of the export by somebody who may.
    let away = atoll_proto::nfs3::Rename3Args { from: w.at(pub_dir, "inner"), to: w.at(w.root, "inner") };
    w.call::<call::Rename>(away).await.unwrap();
    assert_eq!(w.lookup(inner_here, "..").await.unwrap_err().status, NfsStat3::Stale);

    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::RemoveExport(id) };
    w.meta.apply(call).result.unwrap();
    assert_eq!(status_of(&w, root).await, Err(NfsStat3::Stale));
    assert_eq!(status_of(&w, pub_dir).await, Ok(()));
}

#[tokio::test]
async fn mount_lists_and_refusals() {
    let w = World::new().await;
    w.create(w.root, "file").await;
    w.mkdir(w.root, "p", 0o755).await;
    put_export(
        &w.meta,
        ExportSpec {
            path: "/p".into(),
            volume_path: "/p".into(),
            clients: vec![network("10.0.0.0", 8), network("10.0.0.5", 32)],
            ..open_export()
        },
    );
    assert_eq!(w.mount("/nope").await, Err(MountStat3::NoEnt));
    assert_eq!(w.mount("/file").await, Err(MountStat3::NotDir));
    assert_eq!(w.mount("relative").await, Err(MountStat3::Acces));
    let ok = w.call::<v3::call::Mnt>(DirPath::copy_from(b"/").unwrap()).await.unwrap();
    assert_eq!(&ok.auth_flavors[..], [1]);
    let exports = w.call::<v3::call::Export>(()).await;
    let shown: Vec<(Vec<u8>, Vec<Vec<u8>>)> =
        exports.iter().map(|e| (e.dir.to_vec(), e.groups.iter().map(|g| g.to_vec()).collect())).collect();
    assert_eq!(
        shown,
        [
            (b"/".to_vec(), vec![b"*".to_vec()]),
            (b"/p".to_vec(), vec![b"10.0.0.0/8".to_vec(), b"10.0.0.5".to_vec()])
        ]
    );
    assert_eq!(w.call::<v1::call::Export>(()).await, exports);
    assert_eq!(w.call::<v3::call::Dump>(()).await.len(), 1);
    assert!(w.call::<v1::call::Mnt>(DirPath::copy_from(b"/").unwrap()).await.is_err());
    w.call::<v3::call::Umnt>(DirPath::copy_from(b"/").unwrap()).await;
    assert_eq!(w.call::<v3::call::Dump>(()).await.len(), 0);
}

#[tokio::test]
async fn resolving_for_the_lock_manager() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    let rpc = |w: &World| w.rpc(1, 100_021, 4, 2, bytes::Bytes::new());
    let target = w.engine.resolve(file.as_slice(), &rpc(&w)).await.unwrap();
    assert_eq!(target.ino.0, w.getattr(file).await.fileid);
    assert_eq!(w.engine.resolve(b"junk", &rpc(&w)).await.unwrap_err(), HandleError::BadHandle);
    assert_eq!(w.engine.resolve(&[0; 65], &rpc(&w)).await.unwrap_err(), HandleError::BadHandle);
    w.call::<call::Remove>(Remove3Args { object: w.at(w.root, "f") }).await.unwrap();
    assert_eq!(w.engine.resolve(file.as_slice(), &rpc(&w)).await.unwrap_err(), HandleError::Stale);
    w.who = Credential::None;
    let weak = w.engine.resolve(w.root.as_slice(), &rpc(&w)).await.unwrap_err();
    assert_eq!(weak, HandleError::Auth(AuthError::TooWeak));
}

#[tokio::test]
async fn access_lists_are_mode_bits() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let got = w.call::<nfsacl::call::GetAcl>(GetAcl3Args { object: file, mask: mask::ALL }).await.unwrap();
    let perms: Vec<(u32, u32)> = got.acl.acl.iter().map(|e| (e.tag, e.perm)).collect();
    assert_eq!(perms, [(tag::USER_OBJ, 6), (tag::GROUP_OBJ, 4), (tag::MASK, 4), (tag::OTHER, 4)]);
    assert_eq!((got.acl.acl_count, got.acl.default_acl_count), (4, 0));

    let entry = |tag, perm| AclEntry { tag, id: 0, perm };
    let set = |entries: Vec<AclEntry>| SetAcl3Args {
        object: file,
        acl: SecAttr {
            mask: mask::ACL,
            acl_count: entries.len() as u32,
            acl: Array::new(entries).unwrap(),
            ..SecAttr::default()
        },
    };
    let minimal = vec![entry(tag::USER_OBJ, 7), entry(tag::GROUP_OBJ, 5), entry(tag::OTHER, 0)];
    let done = w.call::<nfsacl::call::SetAcl>(set(minimal)).await.unwrap();
    assert_eq!(done.obj_attributes, Some(w.getattr(file).await));
    assert_eq!(w.getattr(file).await.mode, 0o750);
}

#[tokio::test]
async fn there_are_no_quotas() {
    let w = World::new().await;
    let path = atoll_xdr::Opaque::copy_from(b"/").unwrap();
    let res = w.call::<rquota::v1::call::GetQuota>(rquota::GetQuotaArgs { path: path.clone(), uid: 1 }).await;
    assert_eq!(res, rquota::GetQuotaRes::NoQuota);
    let args = rquota::ExtGetQuotaArgs { path, kind: 1, id: 1 };
    assert_eq!(w.call::<rquota::v2::call::GetActiveQuota>(args).await, rquota::GetQuotaRes::NoQuota);
}

#[tokio::test]
async fn access_times_follow_the_policy() {
    let w = World::new().await;
    put_export(&w.meta, ExportSpec { atime: AtimePolicy::Relative, ..open_export() });
    let file = w.create(w.root, "f").await;
    w.write(file, 0, b"x", StableHow::FileSync).await.unwrap();
    let before = w.getattr(file).await;
    w.read_all(file).await;
    let read = w.getattr(file).await;
    assert!(read.atime > before.atime && read.atime > before.mtime);
    assert_eq!((read.ctime, read.mtime), (before.ctime, before.mtime));
    w.read_all(file).await;
    assert_eq!(w.getattr(file).await.atime, read.atime, "later than the change already");
    w.engine.flush_all().await;
    assert_eq!(w.getattr(file).await.atime, read.atime, "now from the store");
    w.meta.advance(25 * 3600 * 1_000_000_000);
    w.read_all(file).await;
    assert!(w.getattr(file).await.atime > read.atime, "a day old");
    let args = Lookup3Args { what: w.at(w.root, "f") };
    let found = w.call::<call::Lookup>(args).await.unwrap();
    assert_eq!(found.obj_attributes, Some(w.getattr(file).await));
}
