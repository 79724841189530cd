//! One test for each deviation from the RFCs that conformance suites found.

use super::{Client40, compound, name};
use crate::engine::tests::world::World;
use atoll_proto::nfs4::{ArgOp4, Attr4, Bitmap, ReadDir4Args, ResOp4};

/// RFC 8881 §18.23.2.
#[tokio::test]
async fn a_listing_has_its_operation_number_once() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    client.open("f", 3, 0).await;
    let list = ReadDir4Args {
        cookie: 0,
        cookieverf: [0; 8],
        dircount: 4096,
        maxcount: 4096,
        attr_request: Bitmap::of(&[Attr4::Type as u32]),
    };
    let res = compound(&w, 0, vec![ArgOp4::PutRootFh, ArgOp4::ReadDir(list)]).await;
    let Some(ResOp4::ReadDir(Ok(listed))) = res.ops.last() else { panic!("{res:?}") };
    assert_eq!(listed.entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>(), [name("f")]);
    assert!(listed.eof);
}
