//! One test for each deviation from the RFCs that conformance suites found.

use super::{Client40, compound, name, put};
use crate::engine::tests::world::{World, sys};
use atoll_proto::nfs4::{
    ArgOp4, Attr4, Bitmap, Close4Args, NfsStat4, Payload, ReadDir4Args, ResOp4, StableHow4, Write4Args,
};

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

/// RFC 7530 §9.1.9: what matches the owner's last step is a retransmission, also when that closed the only state.
#[tokio::test]
async fn a_close_that_comes_again_gets_its_reply() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    let (fh, open_stateid) = client.open("f", 3, 0).await;
    let close = |seqid| vec![put(&fh), ArgOp4::Close(Close4Args { seqid, open_stateid })];
    let seqid = client.next();
    let first = client.send(close(seqid)).await;
    assert_eq!(first.status, Ok(()));
    assert_eq!(client.send(close(seqid)).await, first);
    // Another step of the owner on the same state is none.
    assert_eq!(client.send(close(seqid + 1)).await.status, Err(NfsStat4::BadStateId));
}

/// RFC 7530 §16.36.5 lists NFS4ERR_ACCESS: who has learnt of a stateid may not write for that reason.
#[tokio::test]
async fn a_stateid_is_no_permission() {
    let mut w = World::new().await;
    let (fh, stateid) = {
        let mut client = Client40::new(&w, "a").await;
        client.open("f", 3, 0).await
    };
    let write = || {
        let data = Payload::copy_from(b"x").unwrap();
        let args = Write4Args { stateid, offset: 0, stable: StableHow4::FileSync, data };
        vec![put(&fh), ArgOp4::Write(args)]
    };
    assert_eq!(compound(&w, 0, write()).await.status, Ok(()));
    w.who = sys(3912, 2422, &[]);
    assert_eq!(compound(&w, 0, write()).await.status, Err(NfsStat4::Access));
}
