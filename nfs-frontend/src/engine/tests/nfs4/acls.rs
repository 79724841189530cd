//! Access control lists through both doors: NFSv4's attributes and NFSACL; and what they let whom do.

use super::{Session41, compound, name, put};
use crate::engine::tests::world::{World, open_export, put_export};
use atoll_meta::ExportSpec;
use atoll_proto::nfs3::{
    Access3Args, FileHandle as Handle3, NfsStat3, Remove3Args, StableHow, access as access3, call as call3,
};
use atoll_proto::nfs4::{
    Access4Args, Ace4, Acl41, ArgOp4, Attr4, AttrValue4, Bitmap, Create4Args, CreateType4, Fattr4,
    FileHandle, FileType4, GetAttr4Args, ModeMasked4, NfsStat4, Principal4, ReadDir4Args, ResOp4,
    SetAttr4Args, StateId4, Verify4Args, access, ace_flag, ace_mask, ace_type,
};
use atoll_proto::nfsacl::{self, AclEntry, GetAcl3Args, SecAttr, SetAcl3Args, mask, tag};
use atoll_xdr::Array;

fn v4(file: Handle3) -> FileHandle {
    FileHandle::new(file.as_slice()).unwrap()
}

fn ace(ace_type: u32, flag: u32, access_mask: u32, who: &str) -> Ace4 {
    Ace4 { ace_type, flag, access_mask, who: Principal4::copy_from(who.as_bytes()).unwrap() }
}

fn allow(access_mask: u32, who: &str) -> Ace4 {
    ace(ace_type::ALLOWED, 0, access_mask, who)
}

fn values(values: &[AttrValue4]) -> Fattr4 {
    Fattr4::build(values).unwrap()
}

fn set(values_: &[AttrValue4]) -> ArgOp4 {
    ArgOp4::SetAttr(SetAttr4Args { stateid: StateId4::ANONYMOUS, obj_attributes: values(values_) })
}

fn acl(aces: &[Ace4]) -> AttrValue4 {
    AttrValue4::Acl(Array::new(aces.to_vec()).unwrap())
}

fn dacl(flag: u32, aces: &[Ace4]) -> AttrValue4 {
    AttrValue4::Dacl(Acl41 { flag, aces: Array::new(aces.to_vec()).unwrap() })
}

/// One operation on an object by 4.0, or by 4.1 in a session of its own.
async fn on(w: &World, minor: u32, object: FileHandle, op: ArgOp4) -> ResOp4 {
    let ops = vec![put(&object), op];
    let res = match minor {
        0 => compound(w, 0, ops).await,
        _ => Session41::new(w, &w.next_xid().to_string()).await.send(ops).await,
    };
    res.ops.last().unwrap().clone()
}

async fn set_on(w: &World, minor: u32, object: Handle3, what: &[AttrValue4]) -> Result<(), NfsStat4> {
    let ResOp4::SetAttr(res) = on(w, minor, v4(object), set(what)).await else { panic!() };
    res.status
}

async fn get(w: &World, minor: u32, object: Handle3, attr: Attr4) -> Result<AttrValue4, NfsStat4> {
    let args = GetAttr4Args { attr_request: Bitmap::of(&[attr as u32]) };
    let ResOp4::GetAttr(res) = on(w, minor, v4(object), ArgOp4::GetAttr(args)).await else { panic!() };
    Ok(res?.obj_attributes.read().unwrap().pop().unwrap())
}

async fn aces(w: &World, object: Handle3) -> Vec<Ace4> {
    match get(w, 0, object, Attr4::Acl).await {
        Ok(AttrValue4::Acl(aces)) => aces.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn entry(tag: u32, id: u32, perm: u32) -> AclEntry {
    AclEntry { tag, id, perm }
}

fn sec_attr(access: Option<&[AclEntry]>, default: Option<&[AclEntry]>) -> SecAttr {
    let list = |list: Option<&[AclEntry]>| Array::new(list.unwrap_or_default().to_vec()).unwrap();
    let bits = |list: Option<&[AclEntry]>, bits| if list.is_some() { bits } else { 0 };
    SecAttr {
        mask: bits(access, mask::ACL | mask::ACL_COUNT)
            | bits(default, mask::DEFAULT_ACL | mask::DEFAULT_ACL_COUNT),
        acl_count: list(access).len() as u32,
        acl: list(access),
        default_acl_count: list(default).len() as u32,
        default_acl: list(default),
    }
}

async fn set3(w: &World, object: Handle3, acl: SecAttr) -> Result<(), NfsStat3> {
    let done = w.call::<nfsacl::call::SetAcl>(SetAcl3Args { object, acl }).await;
    done.map(|_| ()).map_err(|failure| failure.status)
}

async fn get3(w: &World, object: Handle3) -> SecAttr {
    w.call::<nfsacl::call::GetAcl>(GetAcl3Args { object, mask: mask::ALL }).await.unwrap().acl
}

const NAMED: [AclEntry; 6] = [
    AclEntry { tag: tag::USER_OBJ, id: 0, perm: 7 },
    AclEntry { tag: tag::USER, id: 5, perm: 6 },
    AclEntry { tag: tag::GROUP_OBJ, id: 0, perm: 4 },
    AclEntry { tag: tag::GROUP, id: 9, perm: 7 },
    AclEntry { tag: tag::MASK, id: 0, perm: 6 },
    AclEntry { tag: tag::OTHER, id: 0, perm: 0 },
];

fn defaults() -> Vec<AclEntry> {
    NAMED.iter().map(|e| AclEntry { tag: e.tag | tag::DEFAULT, ..*e }).collect()
}

#[tokio::test]
async fn what_is_supported() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    assert_eq!(get(&w, 0, file, Attr4::AclSupport).await, Ok(AttrValue4::AclSupport(3)));
    for (minor, dacl) in [(0, false), (1, true)] {
        let Ok(AttrValue4::SupportedAttrs(all)) = get(&w, minor, file, Attr4::SupportedAttrs).await else {
            panic!()
        };
        let has = |attr: Attr4| all.contains(attr as u32);
        assert_eq!((has(Attr4::Acl), has(Attr4::Dacl), has(Attr4::Sacl)), (true, dacl, false));
        assert_eq!(has(Attr4::ModeSetMasked), dacl);
    }
    let list = [allow(1, "EVERYONE@")];
    assert_eq!(set_on(&w, 1, file, &[acl(&list), dacl(0, &list)]).await, Err(NfsStat4::AttrNotSupp));
    for (bad, status) in [
        (ace(ace_type::AUDIT, 0x10, 1, "5"), NfsStat4::AttrNotSupp),
        (ace(4, 0, 1, "5"), NfsStat4::Inval),
        (ace(0, 0x10, 1, "5"), NfsStat4::Inval),
        (ace(0, 0x100, 1, "5"), NfsStat4::Inval),
        (ace(0, 0, 0x800, "5"), NfsStat4::Inval),
        (ace(0, ace_flag::DIRECTORY_INHERIT, 1, "5"), NfsStat4::AttrNotSupp),
        (ace(0, ace_flag::INHERIT_ONLY, 1, "5"), NfsStat4::AttrNotSupp),
        (allow(1, "INTERACTIVE@"), NfsStat4::BadOwner),
        (allow(1, "nobody of this name"), NfsStat4::BadOwner),
    ] {
        assert_eq!(set_on(&w, 0, file, &[acl(std::slice::from_ref(&bad))]).await, Err(status), "{bad:?}");
    }
    let long: Vec<Ace4> = (0..501).map(|uid| allow(1, &uid.to_string())).collect();
    assert_eq!(set_on(&w, 0, file, &[acl(&long)]).await, Err(NfsStat4::NoSpc));
    assert_eq!(set_on(&w, 0, file, &[acl(&long[1..])]).await, Ok(()));
    assert_eq!(aces(&w, file).await, long[1..]);
}

#[tokio::test]
async fn lists_of_nfs4_go_round() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    // What the mode says is shown as a list, and is no list when it is set.
    let plain = aces(&w, file).await;
    assert_eq!(plain.len(), 3);
    assert_eq!(set_on(&w, 0, file, &[acl(&plain)]).await, Ok(()));
    assert_eq!(w.getattr(file).await.mode, 0o644);

    let list = [
        ace(ace_type::DENIED, 0, ace_mask::WRITE_DATA, "7"),
        allow(ace_mask::READ_DATA | ace_mask::WRITE_DATA | ace_mask::APPEND_DATA, "OWNER@"),
        ace(ace_type::ALLOWED, ace_flag::IDENTIFIER_GROUP, ace_mask::GENERIC_READ, "12"),
        allow(ace_mask::EXECUTE, "GROUP@"),
        allow(ace_mask::READ_DATA, "EVERYONE@"),
    ];
    // Mode first, then the list (RFC 8881 §6.4.1.3).
    assert_eq!(set_on(&w, 0, file, &[acl(&list), AttrValue4::Mode(0o4777)]).await, Ok(()));
    assert_eq!((aces(&w, file).await, w.getattr(file).await.mode), (list.to_vec(), 0o4654));
    let verify = |op: fn(Verify4Args) -> ArgOp4, list: &[Ace4]| {
        op(Verify4Args { obj_attributes: values(&[acl(list)]) })
    };
    let same = on(&w, 0, v4(file), verify(ArgOp4::Verify, &list)).await;
    assert_eq!(same, ResOp4::Verify(Ok(())));
    let other = on(&w, 0, v4(file), verify(ArgOp4::NVerify, &list)).await;
    assert_eq!(other, ResOp4::NVerify(Err(NfsStat4::Same)));

    // Bits of the mode alone leave the list, the low ones do not (§6.2.5, §6.4.1.1).
    let masked = |value, mask| [AttrValue4::ModeSetMasked(ModeMasked4 { value, mask })];
    assert_eq!(set_on(&w, 1, file, &masked(0, 0o7000)).await, Ok(()));
    assert_eq!((aces(&w, file).await, w.getattr(file).await.mode), (list.to_vec(), 0o654));
    assert_eq!(set_on(&w, 1, file, &masked(0o7777, 0o22)).await, Ok(()));
    assert_eq!(w.getattr(file).await.mode, 0o676);
    assert_ne!(aces(&w, file).await, list.to_vec());
    let both = [AttrValue4::Mode(0o600), masked(0, 1)[0].clone()];
    assert_eq!(set_on(&w, 1, file, &both).await, Err(NfsStat4::Inval));
    assert_eq!(set_on(&w, 1, file, &masked(0o10000, 0)).await, Err(NfsStat4::Inval));

    // The flags of the whole; `acl` protects from automatic inheritance (§6.4.3.2).
    let inherited = [ace(ace_type::ALLOWED, ace_flag::INHERITED, 1, "EVERYONE@")];
    assert_eq!(set_on(&w, 1, file, &[dacl(1, &inherited)]).await, Ok(()));
    assert_eq!(get(&w, 1, file, Attr4::Dacl).await, Ok(dacl(1, &inherited)));
    assert_eq!(aces(&w, file).await, [allow(1, "EVERYONE@")]);
    assert_eq!(set_on(&w, 1, file, &[acl(&[allow(1, "EVERYONE@")])]).await, Ok(()));
    assert_eq!(get(&w, 1, file, Attr4::Dacl).await, Ok(dacl(2, &[allow(1, "EVERYONE@")])));
    assert_eq!(set_on(&w, 1, file, &[dacl(8, &inherited)]).await, Err(NfsStat4::Inval));
}

#[tokio::test]
async fn lists_of_posix_go_round() {
    let w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o755).await;
    let sent = sec_attr(Some(&NAMED), Some(&defaults()));
    assert_eq!(set3(&w, dir, sent.clone()).await, Ok(()));
    assert_eq!(get3(&w, dir).await, SecAttr { mask: mask::ALL, ..sent });
    assert_eq!(w.getattr(dir).await.mode, 0o760);
    // One of them alone leaves the other.
    let minimal = [entry(tag::USER_OBJ, 0, 7), entry(tag::GROUP_OBJ, 0, 5), entry(tag::OTHER, 0, 5)];
    assert_eq!(set3(&w, dir, sec_attr(Some(&minimal), None)).await, Ok(()));
    let got = get3(&w, dir).await;
    assert_eq!((got.acl_count, got.default_acl.to_vec()), (4, defaults()));
    assert_eq!(w.getattr(dir).await.mode, 0o755);

    // What is made in it begins with it; the umask that a client has applied or not is the client's business.
    let file = w.create(dir, "f").await;
    let got = get3(&w, file).await;
    let perms: Vec<(u32, u32)> = got.acl.iter().map(|e| (e.tag, e.perm)).collect();
    let (u, g, m) = ((tag::USER, 6), (tag::GROUP, 7), (tag::MASK, 4));
    assert_eq!(perms, [(tag::USER_OBJ, 6), u, (tag::GROUP_OBJ, 4), g, m, (tag::OTHER, 0)]);
    assert_eq!((got.default_acl_count, w.getattr(file).await.mode), (0, 0o640));
    // Over NFSv4 they are shown too, and are the same when set again.
    let shown = aces(&w, file).await;
    assert_eq!(shown.len(), 5);
    assert_eq!(set_on(&w, 0, file, &[acl(&shown)]).await, Ok(()));
    assert_eq!(get3(&w, file).await, got);
    let sub = w.mkdir(dir, "sub", 0o700).await;
    assert_eq!(get3(&w, sub).await.default_acl.to_vec(), defaults());

    assert_eq!(set3(&w, dir, sec_attr(None, Some(&[]))).await, Ok(()));
    assert_eq!(get3(&w, dir).await.default_acl_count, 0);
    assert_eq!(set3(&w, file, sec_attr(None, Some(&defaults()))).await, Err(NfsStat3::Acces));
    assert_eq!(set3(&w, file, sec_attr(Some(&NAMED[1..]), None)).await, Err(NfsStat3::Inval));
    let mut long = NAMED.to_vec();
    long.extend((10..300).map(|uid| entry(tag::USER, uid, 7)));
    assert_eq!(set3(&w, file, sec_attr(Some(&long), None)).await, Err(NfsStat3::NoSpc));
}

#[tokio::test]
async fn a_list_decides_for_all() {
    let mut w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o777).await;
    let file = w.create(dir, "f").await;
    w.write(file, 0, b"data", StableHow::FileSync).await.unwrap();
    let list = [
        allow(ace_mask::APPEND_DATA | ace_mask::EXECUTE, "5"),
        ace(ace_type::DENIED, 0, ace_mask::READ_ATTRIBUTES, "6"),
        ace(ace_type::ALLOWED, ace_flag::IDENTIFIER_GROUP, ace_mask::READ_DATA, "70"),
    ];
    assert_eq!(set_on(&w, 0, file, &[acl(&list)]).await, Ok(()));
    let ask3 = async |w: &World, object| {
        w.call::<call3::Access>(Access3Args { object, access: 0x3f }).await.unwrap().access
    };
    let ask4 = async |w: &World, object: Handle3| {
        let args = Access4Args { access: 0x3f };
        let ResOp4::Access(Ok(ok)) = on(w, 0, v4(object), ArgOp4::Access(args)).await else { panic!() };
        ok.access
    };
    w.as_user(5, 5);
    let (may3, may4) = (ask3(&w, file).await, ask4(&w, file).await);
    assert_eq!((may3, may4), (access3::EXTEND | access3::EXECUTE, access::EXTEND | access::EXECUTE));
    assert_eq!(w.write(file, 0, b"x", StableHow::FileSync).await.unwrap_err().status, NfsStat3::Acces);
    assert_eq!(w.write(file, 2, b"x", StableHow::Unstable).await.unwrap_err().status, NfsStat3::Acces);
    w.write(file, 4, b"+", StableHow::FileSync).await.unwrap();
    w.write_dirty(file, 5, b"+").await;
    assert_eq!(w.write(file, 0, b"x", StableHow::Unstable).await.unwrap_err().status, NfsStat3::Acces);
    w.commit(file).await.unwrap();
    // Programs are read to be executed.
    assert!(w.read(file, 0, 10).await.is_ok());
    // The list itself is not his to read or set; its attributes are, for nothing denies them.
    assert_eq!(get(&w, 0, file, Attr4::Acl).await, Err(NfsStat4::Access));
    assert!(get(&w, 0, file, Attr4::Mode).await.is_ok());
    assert_eq!(set_on(&w, 0, file, &[acl(&[])]).await, Err(NfsStat4::Perm));
    w.as_user(6, 6);
    assert_eq!(get(&w, 0, file, Attr4::Mode).await, Err(NfsStat4::Access));
    assert_eq!((ask3(&w, file).await, ask4(&w, file).await), (0, 0));
    assert_eq!(w.read(file, 0, 1).await.unwrap_err().status, NfsStat3::Acces);
    // A listing says so of the one entry, or leaves out what may not be told.
    let list = async |asked: &[Attr4]| {
        let attr_request = asked.iter().map(|attr| *attr as u32).collect::<Bitmap>();
        let args =
            ReadDir4Args { cookie: 0, cookieverf: [0; 8], dircount: 4096, maxcount: 4096, attr_request };
        let ResOp4::ReadDir(Ok(page)) = on(&w, 0, v4(dir), ArgOp4::ReadDir(args)).await else { panic!() };
        page.entries.iter().flat_map(|entry| entry.attrs.read().unwrap()).collect::<Vec<_>>()
    };
    let refused = AttrValue4::RdAttrError(Err(NfsStat4::Access));
    assert_eq!(list(&[Attr4::Type, Attr4::RdAttrError, Attr4::Mode]).await, [refused]);
    assert_eq!(list(&[Attr4::Type, Attr4::Mode]).await, [AttrValue4::Type(FileType4::Regular)]);
    w.as_user(8, 70);
    assert_eq!(ask4(&w, file).await, access::READ);

    // In the directory: adding without removing.
    w.as_user(0, 0);
    let list = [
        ace(ace_type::DENIED, 0, ace_mask::DELETE_CHILD, "EVERYONE@"),
        allow(ace_mask::ADD_FILE | ace_mask::EXECUTE | ace_mask::LIST_DIRECTORY, "EVERYONE@"),
    ];
    assert_eq!(set_on(&w, 0, dir, &[acl(&list)]).await, Ok(()));
    w.as_user(5, 5);
    let some = access3::READ | access3::LOOKUP | access3::EXTEND;
    assert_eq!((ask3(&w, dir).await, ask4(&w, dir).await), (some, some));
    w.create(dir, "new").await;
    let removed = w.call::<call3::Remove>(Remove3Args { object: w.at(dir, "new") }).await;
    assert_eq!(removed.unwrap_err().status, NfsStat3::Acces);
}

#[tokio::test]
async fn a_read_only_export_changes_no_list() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    put_export(&w.meta, ExportSpec { read_only: true, ..open_export() });
    assert_eq!(set_on(&w, 0, file, &[acl(&[])]).await, Err(NfsStat4::RoFs));
    assert_eq!(set3(&w, file, sec_attr(Some(&NAMED), None)).await, Err(NfsStat3::RoFs));
}

#[tokio::test]
async fn lists_with_creations() {
    let w = World::new().await;
    let create = async |minor, kind: CreateType4, file: &str, what: &[AttrValue4]| {
        let args = Create4Args { objtype: kind, objname: name(file), createattrs: values(what) };
        let root = v4(w.root);
        match on(&w, minor, root, ArgOp4::Create(args)).await {
            ResOp4::Create(res) => res.map(|ok| ok.attrset),
            other => panic!("{other:?}"),
        }
    };
    let flags = ace_flag::FILE_INHERIT | ace_flag::DIRECTORY_INHERIT;
    let list = [ace(ace_type::ALLOWED, flags, 0x27, "5"), allow(0x27, "OWNER@")];
    let set = create(0, CreateType4::Directory, "d", &[acl(&list)]).await.unwrap();
    assert!(set.contains(Attr4::Acl as u32));
    let dir = w.lookup(w.root, "d").await.unwrap().object;
    assert_eq!((aces(&w, dir).await, w.getattr(dir).await.mode), (list.to_vec(), 0o700));
    // The mode is applied to what is inherited (RFC 8881 §6.4.3 (1)).
    let file = w.create(dir, "f").await;
    let inherited = aces(&w, file).await;
    assert!(inherited.contains(&allow(ace_mask::READ_DATA, "5")), "{inherited:?}");
    assert_eq!(w.getattr(file).await.mode, 0o644);

    assert_eq!(create(0, CreateType4::Fifo, "p", &[acl(&list)]).await, Err(NfsStat4::AttrNotSupp));
    let link = CreateType4::SymLink(atoll_proto::nfs4::LinkText4::copy_from(b"x").unwrap());
    assert_eq!(create(0, link, "l", &[acl(&list[1..])]).await, Err(NfsStat4::AttrNotSupp));
    let masked = AttrValue4::ModeSetMasked(ModeMasked4 { value: 1, mask: 1 });
    assert_eq!(create(1, CreateType4::Fifo, "p", &[masked]).await, Err(NfsStat4::Inval));
}

/// What a retransmission of SETATTR is answered with holds the list as it was then.
#[tokio::test]
async fn a_request_that_comes_again_shows_the_list_of_then() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    let asked = Bitmap::of(&[Attr4::Acl as u32, Attr4::Mode as u32]);
    let get = ArgOp4::GetAttr(GetAttr4Args { attr_request: asked });
    let ops = || vec![put(&v4(file)), set(&[acl(&[allow(1, "5")])]), get.clone()];
    let (first, id) = {
        let mut session = Session41::new(&w, "a").await;
        (session.send(ops()).await, session.id)
    };
    assert_eq!(first.status, Ok(()));
    // Another client changes it meanwhile, and the frontend forgets its replies.
    assert_eq!(set_on(&w, 0, file, &[acl(&[allow(1, "6")])]).await, Ok(()));
    w.crash().await;
    let mut session = Session41 { w: &w, id, seqid: 0 };
    assert_eq!(session.send(ops()).await, first);
    assert_eq!(aces(&w, file).await, [allow(1, "6")]);
}
