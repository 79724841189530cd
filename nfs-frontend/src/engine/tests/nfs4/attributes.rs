//! Attributes as they are set and shown.

use super::{Client40, compound, put};
use crate::engine::Config;
use crate::engine::tests::world::World;
use atoll_proto::nfs4::{
    Ace4, ArgOp4, Attr4, AttrValue4, Bitmap, Fattr4, FileHandle, GetAttr4Args, NfsStat4, NfsTime4,
    Principal4, ResOp4, SetAttr4Args, StateId4, ace_flag,
};
use atoll_xdr::Array;

async fn set(w: &World, fh: &FileHandle, values: &[AttrValue4]) -> Result<(), NfsStat4> {
    let obj_attributes = Fattr4::build(values).unwrap();
    let args = SetAttr4Args { stateid: StateId4::ANONYMOUS, obj_attributes };
    compound(w, 0, vec![put(fh), ArgOp4::SetAttr(args)]).await.status
}

async fn get(w: &World, fh: &FileHandle, asked: &[Attr4]) -> Vec<AttrValue4> {
    let attr_request = Bitmap::of(&asked.iter().map(|attr| *attr as u32).collect::<Vec<_>>());
    let res = compound(w, 0, vec![put(fh), ArgOp4::GetAttr(GetAttr4Args { attr_request })]).await;
    let Some(ResOp4::GetAttr(Ok(ok))) = res.ops.last() else { panic!("{res:?}") };
    ok.obj_attributes.read().unwrap()
}

fn named(text: &str) -> Principal4 {
    Principal4::copy_from(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn owners_are_named_by_the_domain() {
    let config = Config { idmap_domain: Some("example.org".into()), ..Config::default() };
    let w = World::with(config, None).await;
    let (fh, _) = Client40::new(&w, "a").await.open("f", 3, 0).await;
    let given =
        [AttrValue4::Owner(named("alice@example.org")), AttrValue4::OwnerGroup(named("staff@example.org"))];
    assert_eq!(set(&w, &fh, &given).await, Ok(()));
    assert_eq!(get(&w, &fh, &[Attr4::Owner, Attr4::OwnerGroup]).await, given);
    let mask = 1;
    let listed = [(0, "alice@example.org"), (ace_flag::IDENTIFIER_GROUP, "staff@example.org"), (0, "77")];
    let aces = listed.map(|(flag, who)| Ace4 { ace_type: 0, flag, access_mask: mask, who: named(who) });
    let acl = [AttrValue4::Acl(Array::new(aces.to_vec()).unwrap())];
    assert_eq!(set(&w, &fh, &acl).await, Ok(()));
    assert_eq!(get(&w, &fh, &[Attr4::Acl]).await, acl);
    let attr = w.getattr(w.lookup(w.root, "f").await.unwrap().object).await;
    assert_eq!((attr.uid, attr.gid), (500, 1000));
    let stranger = [AttrValue4::Owner(named("bob@example.org"))];
    assert_eq!(set(&w, &fh, &stranger).await, Err(NfsStat4::BadOwner));
    assert_eq!(set(&w, &fh, &[AttrValue4::Owner(named("77"))]).await, Ok(()));
    assert_eq!(get(&w, &fh, &[Attr4::Owner]).await, [AttrValue4::Owner(named("77"))]);
}

#[tokio::test]
async fn the_time_of_creation_can_be_set() {
    let w = World::new().await;
    let (fh, _) = Client40::new(&w, "a").await.open("f", 3, 0).await;
    let born = [AttrValue4::TimeCreate(NfsTime4 { seconds: -5, nseconds: 7 })];
    assert_eq!(set(&w, &fh, &born).await, Ok(()));
    assert_eq!(get(&w, &fh, &[Attr4::TimeCreate]).await, born);
    let no_time = [AttrValue4::TimeCreate(NfsTime4 { seconds: 0, nseconds: 1_000_000_000 })];
    assert_eq!(set(&w, &fh, &no_time).await, Err(NfsStat4::Inval));
}
