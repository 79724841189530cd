//! Security labels: stored and shown under exports that have them, and nowhere else (RFC 7862 §9, §12.2.4).

use super::{Session41, compound, identity, name, put};
use crate::engine::tests::world::{World, open_export, put_export, sys};
use atoll_base::limits::LABEL_MAX;
use atoll_meta::export::ExportSpec;
use atoll_proto::nfs4::{
    ArgOp4, Attr4, AttrValue4, Bitmap, Compound4Res, Create4Args, CreateHow4, CreateType4, Fattr4,
    FileHandle, GetAttr4Args, LinkText4, NfsStat4, Open4Args, OpenClaim4, OpenFlag4, ReadDir4Args,
    ReclaimComplete4Args, ResOp4, SecLabel4, SetAttr4Args, StateId4, StateOwner4, Verify4Args,
};
use atoll_xdr::Opaque;

fn label(text: &str) -> SecLabel4 {
    SecLabel4 { lfs: 0, policy: 7, data: Opaque::copy_from(text.as_bytes()).unwrap() }
}

fn labelled(text: &str) -> Fattr4 {
    Fattr4::build(&[AttrValue4::SecLabel(label(text))]).unwrap()
}

async fn send(w: &World, client: &mut Session41<'_>, ops: Vec<ArgOp4>) -> Compound4Res {
    compound(w, 2, client.next(ops)).await
}

async fn get(w: &World, client: &mut Session41<'_>, at: ArgOp4, asked: &[Attr4]) -> Vec<AttrValue4> {
    let attr_request = Bitmap::of(&asked.iter().map(|attr| *attr as u32).collect::<Vec<_>>());
    let res = send(w, client, vec![at, ArgOp4::GetAttr(GetAttr4Args { attr_request })]).await;
    let Some(ResOp4::GetAttr(Ok(ok))) = res.ops.last() else { panic!("{res:?}") };
    ok.obj_attributes.read().unwrap()
}

fn set(attrs: Fattr4) -> ArgOp4 {
    ArgOp4::SetAttr(SetAttr4Args { stateid: StateId4::ANONYMOUS, obj_attributes: attrs })
}

fn open(file: &str, attrs: Fattr4) -> ArgOp4 {
    ArgOp4::Open(Box::new(Open4Args {
        seqid: 0,
        share_access: 3,
        share_deny: 0,
        owner: StateOwner4 { clientid: 0, owner: identity("owner") },
        openhow: OpenFlag4::Create(CreateHow4::Guarded(attrs)),
        claim: OpenClaim4::Null(name(file)),
    }))
}

/// A file with a label, by OPEN.
async fn labelled_file(w: &World, client: &mut Session41<'_>) -> FileHandle {
    let reclaim = ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false });
    assert_eq!(send(w, client, vec![reclaim]).await.status, Ok(()));
    let res = send(w, client, vec![put(&root(w)), open("f", labelled("a:b:c")), ArgOp4::GetFh]).await;
    let [.., ResOp4::Open(Ok(opened)), ResOp4::GetFh(Ok(fh))] = &res.ops[..] else { panic!("{res:?}") };
    assert_eq!(opened.attrset, Bitmap::of(&[Attr4::SecLabel as u32]));
    fh.object
}

fn root(w: &World) -> FileHandle {
    FileHandle::new(w.root.as_slice()).unwrap()
}

#[tokio::test]
async fn a_label_comes_with_its_object_and_is_the_owners_to_change() {
    let mut w = World::new().await;
    let mut client = Session41::new(&w, "a").await;
    let fh = labelled_file(&w, &mut client).await;
    let shown = |text| vec![AttrValue4::Size(0), AttrValue4::SecLabel(label(text))];
    let asked = [Attr4::Size, Attr4::SecLabel];
    assert_eq!(get(&w, &mut client, put(&fh), &asked).await, shown("a:b:c"));
    let link = Create4Args {
        objtype: CreateType4::SymLink(LinkText4::copy_from(b"x").unwrap()),
        objname: name("l"),
        createattrs: labelled("link"),
    };
    let asks = ArgOp4::GetAttr(GetAttr4Args { attr_request: Bitmap::of(&[Attr4::SecLabel as u32]) });
    let res = send(&w, &mut client, vec![put(&root(&w)), ArgOp4::Create(link), asks]).await;
    let Some(ResOp4::GetAttr(Ok(ok))) = res.ops.last() else { panic!("{res:?}") };
    assert_eq!(ok.obj_attributes, labelled("link"));

    let long = "x".repeat(LABEL_MAX + 1);
    for (text, status) in [("new", Ok(())), (&long, Err(NfsStat4::BadLabel)), (&long[1..], Ok(()))] {
        assert_eq!(send(&w, &mut client, vec![put(&fh), set(labelled(text))]).await.status, status);
    }
    let (id, seqid) = (client.id, client.seqid);
    w.crash().await;
    w.who = sys(500, 500, &[]);
    let mut client = Session41 { w: &w, id, seqid };
    assert_eq!(get(&w, &mut client, put(&fh), &asked).await, shown(&long[1..]));
    let stolen = send(&w, &mut client, vec![put(&fh), set(labelled("mine"))]).await;
    assert_eq!(stolen.status, Err(NfsStat4::Perm));
    let (id, seqid) = (client.id, client.seqid);
    w.who = sys(0, 0, &[]);
    let mut client = Session41 { w: &w, id, seqid };
    assert_eq!(send(&w, &mut client, vec![put(&fh), set(labelled(""))]).await.status, Ok(()));
    assert_eq!(get(&w, &mut client, put(&fh), &asked).await, [AttrValue4::Size(0)]);
}

/// RFC 7862 §9.4: asked for nothing else, every object has the attribute.
#[tokio::test]
async fn who_looks_for_labels_finds_that_there_are_some() {
    let w = World::new().await;
    let mut client = Session41::new(&w, "a").await;
    let none = SecLabel4 { lfs: 0, policy: 0, data: Opaque::default() };
    let found = get(&w, &mut client, ArgOp4::PutRootFh, &[Attr4::SecLabel]).await;
    assert_eq!(found, [AttrValue4::SecLabel(none)]);
    let others = get(&w, &mut client, ArgOp4::PutRootFh, &[Attr4::Type, Attr4::SecLabel]).await;
    assert_eq!(others.len(), 1, "a Linux client would complain of an empty label");
}

#[tokio::test]
async fn labels_are_listed_and_compared() {
    let w = World::new().await;
    let mut client = Session41::new(&w, "a").await;
    let fh = labelled_file(&w, &mut client).await;
    w.create(w.root, "without").await;
    let list = ReadDir4Args {
        cookie: 0,
        cookieverf: [0; 8],
        dircount: 4096,
        maxcount: 4096,
        attr_request: Bitmap::of(&[Attr4::Type as u32, Attr4::SecLabel as u32]),
    };
    let res = send(&w, &mut client, vec![put(&root(&w)), ArgOp4::ReadDir(list)]).await;
    let Some(ResOp4::ReadDir(Ok(listed))) = res.ops.last() else { panic!("{res:?}") };
    let values: Vec<_> =
        listed.entries.iter().map(|entry| entry.attrs.read().unwrap().split_off(1)).collect();
    assert_eq!(values, [vec![AttrValue4::SecLabel(label("a:b:c"))], vec![]]);
    for (text, same) in [("a:b:c", true), ("a:b", false)] {
        let args = || Verify4Args { obj_attributes: labelled(text) };
        let verify = send(&w, &mut client, vec![put(&fh), ArgOp4::Verify(args())]).await.status;
        assert_eq!(verify, if same { Ok(()) } else { Err(NfsStat4::NotSame) });
        let nverify = send(&w, &mut client, vec![put(&fh), ArgOp4::NVerify(args())]).await.status;
        assert_eq!(nverify, if same { Err(NfsStat4::Same) } else { Ok(()) });
    }
}

#[tokio::test]
async fn an_export_without_the_option_has_no_labels() {
    let w = World::new().await;
    let mut client = Session41::new(&w, "a").await;
    let fh = labelled_file(&w, &mut client).await;
    put_export(&w.meta, ExportSpec { security_label: false, ..open_export() });
    assert_eq!(get(&w, &mut client, put(&fh), &[Attr4::SecLabel]).await, []);
    let res = send(&w, &mut client, vec![put(&fh), set(labelled("x"))]).await;
    assert_eq!(res.status, Err(NfsStat4::AttrNotSupp));
    let supported = |values: Vec<AttrValue4>| match &values[..] {
        [AttrValue4::SupportedAttrs(all)] => all.contains(Attr4::SecLabel as u32),
        other => panic!("{other:?}"),
    };
    assert!(!supported(get(&w, &mut client, put(&fh), &[Attr4::SupportedAttrs]).await));
    put_export(&w.meta, open_export());
    assert!(supported(get(&w, &mut client, put(&fh), &[Attr4::SupportedAttrs]).await));
    let old = client.next(vec![put(&fh), set(labelled("x"))]);
    assert_eq!(compound(&w, 1, old).await.status, Err(NfsStat4::AttrNotSupp), "4.1 knows none");
}
