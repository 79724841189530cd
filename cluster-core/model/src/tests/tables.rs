//! Volumes, exports, frontends, and the frame: bounds and checks.

use super::rig::{ROOT, Rig, at};
use crate::limits::{FRONTENDS_MAX, VOLUMES_MAX};
use crate::{Command, DecodeError, MemKv, Model, read};
use atoll_base::access::Cred;
use atoll_base::id::{ExportId, FrontendId, ROOT_VOLUME, VolumeId};
use atoll_meta::export::{AtimePolicy, ClientMatch, SecFlavor, Squash};
use atoll_meta::{Call, ExportSpec, FsError, Op, Outcome, RemoveKind};
use bytes::Bytes;

fn spec(path: &str) -> ExportSpec {
    ExportSpec {
        path: path.into(),
        volume: ROOT_VOLUME,
        volume_path: path.into(),
        clients: vec![ClientMatch::Any],
        read_only: false,
        squash: Squash::Root,
        anon_uid: 65534,
        anon_gid: 65534,
        sec: vec![SecFlavor::Sys],
        secure: true,
        manage_gids: false,
        atime: AtimePolicy::Relative,
        security_label: false,
    }
}

fn put(rig: &mut Rig, spec: ExportSpec) -> Result<ExportId, FsError> {
    rig.root(Op::PutExport(spec)).map(|outcome| match outcome {
        Outcome::Export(id) => id,
        other => panic!("{other:?}"),
    })
}

#[test]
fn exports_keep_their_number_while_the_path_stays() {
    let mut rig = Rig::new();
    let a = rig.dir(ROOT, "a");
    rig.dir(a, "b");
    let root = put(&mut rig, spec("/")).unwrap();
    assert!(rig.applied.as_ref().unwrap().touched.exports);
    let b = put(&mut rig, spec("/a/b")).unwrap();
    let changed = ExportSpec { read_only: true, ..spec("/") };
    assert_eq!(put(&mut rig, changed.clone()), Ok(root));
    let exports = read::exports(&rig.kv).unwrap();
    assert_eq!((exports.version, exports.list.len()), (3, 2));
    assert_eq!(exports.get(root).unwrap().spec, changed);
    rig.root(Op::RemoveExport(root)).unwrap();
    assert_eq!(rig.root(Op::RemoveExport(root)), Err(FsError::NotFound));
    assert!(read::exports(&rig.kv).unwrap().get(root).is_none());
    let again = put(&mut rig, spec("/")).unwrap();
    assert!(again > b, "a number once taken back is not given out again");
    rig.check();
}

#[test]
fn exports_are_checked() {
    let mut rig = Rig::new();
    rig.file("f");
    rig.dir(ROOT, "d");
    for bad in ["", "d", "/d/", "//d", "/./d", "/d/..", "/a\nb"] {
        assert_eq!(put(&mut rig, spec(bad)), Err(FsError::Invalid), "{bad:?}");
    }
    assert_eq!(put(&mut rig, spec(&format!("/{}", "x".repeat(2000)))), Err(FsError::NameTooLong));
    assert_eq!(put(&mut rig, spec("/none")), Err(FsError::NotFound));
    assert_eq!(put(&mut rig, spec("/f")), Err(FsError::NotDirectory));
    assert_eq!(put(&mut rig, spec("/f/x")), Err(FsError::NotDirectory));
    assert_eq!(put(&mut rig, ExportSpec { volume: VolumeId(9), ..spec("/d") }), Err(FsError::NotFound));
    let network = |addr: &str, prefix| ClientMatch::Network { addr: addr.parse().unwrap(), prefix };
    let bad = [
        ExportSpec { volume_path: "/".into(), ..spec("/d") },
        ExportSpec { clients: vec![], ..spec("/d") },
        ExportSpec { clients: vec![network("10.0.0.1", 24)], ..spec("/d") },
        ExportSpec { clients: vec![network("10.0.0.0", 33)], ..spec("/d") },
        ExportSpec { clients: vec![network("fd00::1", 64)], ..spec("/d") },
        ExportSpec { clients: vec![network("0.0.0.1", 0)], ..spec("/d") },
        ExportSpec { clients: vec![ClientMatch::Host("a b".into())], ..spec("/d") },
        ExportSpec { sec: vec![], ..spec("/d") },
        ExportSpec { sec: vec![SecFlavor::Sys, SecFlavor::Sys], ..spec("/d") },
    ];
    for bad in bad {
        assert_eq!(put(&mut rig, bad.clone()), Err(FsError::Invalid), "{bad:?}");
    }
    let clients = vec![
        network("10.0.0.0", 24),
        network("10.0.0.1", 32),
        network("0.0.0.0", 0),
        network("::", 0),
        network("fd00::", 64),
        network("fd00::1", 128),
        ClientMatch::Host("*.example.org".into()),
    ];
    put(&mut rig, ExportSpec { clients, ..spec("/d") }).unwrap();
}

#[test]
fn another_volume_is_exported_under_any_path() {
    let mut rig = Rig::new();
    for bad in ["", "a/b", "a b", &"x".repeat(65)] {
        assert_eq!(rig.root(Op::CreateVolume { name: bad.into() }), Err(FsError::Invalid));
    }
    assert_eq!(rig.root(Op::CreateVolume { name: "root".into() }), Err(FsError::Exists));
    let Ok(Outcome::Volume(volume)) = rig.root(Op::CreateVolume { name: "v-1_x.y".into() }) else { panic!() };
    put(&mut rig, ExportSpec { volume, volume_path: "/".into(), ..spec("/somewhere/else") }).unwrap();
    for n in 2..VOLUMES_MAX {
        rig.root(Op::CreateVolume { name: format!("v{n}") }).unwrap();
    }
    assert_eq!(rig.root(Op::CreateVolume { name: "more".into() }), Err(FsError::TableFull));
    assert_eq!(read::volumes(&rig.kv).unwrap().len(), VOLUMES_MAX);
    assert_eq!(read::volume(&rig.kv, VolumeId(99)).unwrap(), Err(FsError::NotFound));
    rig.check();
}

#[test]
fn volumes_count_what_is_in_them() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let pieces = vec![rig.inline(10, b"12345")];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    let volume = read::volume(&rig.kv, ROOT_VOLUME).unwrap().unwrap();
    assert_eq!((volume.inodes, volume.bytes, volume.root), (2, 5, ROOT));
    rig.root(Op::Remove { dir: ROOT, name: "f".into(), kind: RemoveKind::Any }).unwrap();
    let volume = read::volume(&rig.kv, ROOT_VOLUME).unwrap().unwrap();
    assert_eq!((volume.inodes, volume.bytes), (1, 0));
}

#[test]
fn frontends_are_bounded() {
    let mut rig = Rig::new();
    for n in 0..FRONTENDS_MAX as u32 {
        rig.register(n);
    }
    let more = Op::RegisterFrontend { frontend: FrontendId(99) };
    assert_eq!(rig.root(more), Err(FsError::TableFull));
    rig.register(0);
    assert_eq!(read::counters(&rig.kv).unwrap().frontends, FRONTENDS_MAX as u64);
    rig.check();
}

#[test]
fn bootstrap_is_done_once() {
    let mut kv = MemKv::default();
    assert!(!Model::is_bootstrapped(&kv).unwrap());
    assert!(Model::load(&kv).is_err());
    Model::bootstrap(&mut kv, [1; 16], at(0)).unwrap();
    assert!(Model::is_bootstrapped(&kv).unwrap());
    assert!(Model::bootstrap(&mut kv, [2; 16], at(0)).is_err());
    let root = read::getattr(&kv, ROOT).unwrap().unwrap();
    assert_eq!((root.mode, root.uid, root.nlink, root.volume), (0o755, 0, 2, ROOT_VOLUME));
    assert_eq!(read::parent(&kv, ROOT).unwrap(), Ok(ROOT));
    let mut other = MemKv::default();
    Model::bootstrap(&mut other, [2; 16], at(0)).unwrap();
    assert_ne!(read::verifier(&kv).unwrap(), read::verifier(&other).unwrap());
}

#[test]
#[should_panic(expected = "transaction 5 after 5")]
fn transactions_only_go_forward() {
    let mut rig = Rig::new();
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::Sweep };
    let command = Command { stamp: at(0), call };
    rig.model.apply(&mut rig.kv, 5, &command).unwrap();
    let _ = rig.model.apply(&mut rig.kv, 5, &command);
}

#[test]
fn damaged_bytes_are_errors() {
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::Sweep };
    let bytes = Command { stamp: at(0), call }.encode();
    assert_eq!(Command::decode(&Bytes::new()), Err(DecodeError::Empty));
    assert_eq!(Command::decode(&Bytes::from_static(&[9, 1, 2])), Err(DecodeError::Version(9)));
    assert!(matches!(Command::decode(&bytes.slice(..bytes.len() - 1)), Err(DecodeError::Body(_))));
    assert_eq!(Command::decode(&[&bytes[..], &[0, 0]].concat().into()), Err(DecodeError::Trailing(2)));
    let mut rig = Rig::new();
    crate::KvWrite::put(&mut rig.kv, crate::Table::Inode, &1_u64.to_be_bytes(), &[1, 2]).unwrap();
    let why = read::getattr(&rig.kv, ROOT).unwrap_err().to_string();
    assert!(why.contains("inode") && why.contains("\\x01"), "{why}");
}
