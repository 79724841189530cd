//! Exports as file systems of one tree (RFC 8881 §7).

use super::{compound, name};
use crate::engine::tests::world::{World, open_export, put_export};
use atoll_base::access::Cred;
use atoll_meta::export::ExportSpec;
use atoll_meta::{Call, Op, RemoveKind};
use atoll_proto::nfs3::FileHandle;
use atoll_proto::nfs4::{
    ArgOp4, Attr4, AttrValue4, Bitmap, FsId4, GetAttr4Args, Lookup4Args, NfsStat4, ResOp4,
};

const ASKED: Bitmap = Bitmap::of(&[Attr4::FsId as u32, Attr4::FileId as u32, Attr4::MountedOnFileId as u32]);

/// Makes a directory in the root and returns its number.
async fn mkdir(w: &World, dir: &str) -> u64 {
    let made = w.mkdir(w.root, dir, 0o755).await;
    w.getattr(made).await.fileid
}

fn rmdir(w: &World, dir: FileHandle, name: &str) {
    let dir = w.engine.handle_key.open(dir.as_slice()).unwrap().ino;
    let op = Op::Remove { dir, name: name.to_owned().into(), kind: RemoveKind::Directory };
    let removed = w.meta.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op });
    assert!(removed.result.is_ok(), "{removed:?}");
}

fn export(w: &World, path: &str) {
    put_export(&w.meta, ExportSpec { path: path.into(), volume_path: path.into(), ..open_export() });
}

/// File system, number, and number in the directory above, of what a path from the root leads to.
async fn look(w: &World, path: &[&str]) -> Result<(FsId4, u64, u64), NfsStat4> {
    let mut ops = vec![ArgOp4::PutRootFh];
    ops.extend(path.iter().map(|step| ArgOp4::Lookup(Lookup4Args { objname: name(step) })));
    ops.push(ArgOp4::GetAttr(GetAttr4Args { attr_request: ASKED }));
    let res = compound(w, 0, ops).await;
    res.status?;
    let Some(ResOp4::GetAttr(Ok(got))) = res.ops.last() else { panic!("{res:?}") };
    match got.obj_attributes.read().unwrap()[..] {
        [AttrValue4::FsId(fsid), AttrValue4::FileId(id), AttrValue4::MountedOnFileId(on)] => {
            Ok((fsid, id, on))
        }
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_export_below_another_is_a_file_system_of_its_own() {
    let w = World::new().await;
    let (a, b) = (mkdir(&w, "a").await, mkdir(&w, "b").await);
    let (root_fs, ..) = look(&w, &[]).await.unwrap();
    assert_eq!(look(&w, &["a"]).await, Ok((root_fs, a, a)));
    export(&w, "/a");
    let (inner_fs, id, on) = look(&w, &["a"]).await.unwrap();
    assert_ne!(inner_fs, root_fs);
    assert_eq!((id, on), (a, a));
    assert_eq!(look(&w, &["b"]).await, Ok((root_fs, b, b)));
}

/// The others are not closed by it.
#[tokio::test]
async fn an_export_whose_path_is_gone_is_found_nowhere() {
    let w = World::new().await;
    let b = mkdir(&w, "b").await;
    let gone = w.mkdir(w.root, "gone", 0o755).await;
    w.mkdir(gone, "below", 0o755).await;
    export(&w, "/gone");
    export(&w, "/gone/below");
    rmdir(&w, gone, "below");
    rmdir(&w, w.root, "gone");
    let (root_fs, ..) = look(&w, &[]).await.unwrap();
    assert_eq!(look(&w, &["b"]).await, Ok((root_fs, b, b)));
    assert_eq!(look(&w, &["gone"]).await, Err(NfsStat4::NoEnt));
}
