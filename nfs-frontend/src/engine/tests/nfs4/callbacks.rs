//! Callbacks of v4.0: the server connects to the client (RFC 7530 §10.4, §15.2).

use super::{Client40, put};
use crate::engine::tests::world::World;
use atoll_proto::nfs4::callback::{CbArgOp4, CbCompound4Args, CbCompound4Res, CbRecall4Args, CbResOp4};
use atoll_proto::nfs4::{
    ArgOp4, Attr4, Bitmap, DelegReturn4Args, GetAttr4Args, NfsStat4, Open4Ok, OpenDelegation4, Read4Args,
    ResOp4, StateId4,
};
use atoll_proto::rpc::{Accepted, CallHeader, ReplyHeader};
use atoll_xdr::{Array, Decoder, Encoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One call of the server's on a connection of its own; `None` of CB_NULL, which is answered.
async fn called(listener: &TcpListener) -> (TcpStream, u32, Option<CbCompound4Args>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let len = stream.read_u32().await.unwrap() & 0x7fff_ffff;
    let mut call = vec![0; len as usize];
    stream.read_exact(&mut call).await.unwrap();
    let mut d = Decoder::new(call.into());
    let header = CallHeader::parse(&mut d).unwrap();
    assert_eq!((header.program, header.version), (1, 1));
    let args = (header.procedure == 1).then(|| d.decode().unwrap());
    (stream, header.xid, args)
}

async fn answer(stream: &mut TcpStream, xid: u32, res: Option<CbCompound4Res>) {
    let mut e = Encoder::new();
    e.put(&ReplyHeader::accepted(xid, Accepted::Success));
    if let Some(res) = res {
        e.put(&res);
    }
    let reply = e.into_bytes();
    stream.write_u32(reply.len() as u32 | 1 << 31).await.unwrap();
    stream.write_all(&reply).await.unwrap();
}

/// The next recall, which is answered.
async fn recalled(listener: &TcpListener) -> CbRecall4Args {
    loop {
        let (mut stream, xid, args) = called(listener).await;
        let Some(args) = args else {
            answer(&mut stream, xid, None).await;
            continue;
        };
        assert_eq!((args.minorversion, args.callback_ident), (0, 77));
        let [CbArgOp4::Recall(recall)] = args.ops[..] else { panic!("{args:?}") };
        let ops = Array::new(vec![CbResOp4::Recall(Ok(()))]).unwrap();
        answer(&mut stream, xid, Some(CbCompound4Res { status: Ok(()), tag: args.tag, ops })).await;
        return recall;
    }
}

fn given(res: &[ResOp4]) -> Option<OpenDelegation4> {
    match res.iter().rev().nth(1) {
        Some(ResOp4::Open(Ok(Open4Ok { delegation, .. }))) => Some(delegation.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_of_4_0_is_called_at_its_address() {
    for (access, asks) in [(1, false), (3, false), (1, true), (3, true)] {
        recalled_and_returned(access, asks).await;
    }
}

async fn recalled_and_returned(access: u32, asks: bool) {
    let mut w = World::new().await;
    w.peer = "127.0.0.1:800".parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("127.0.0.1.{}.{}", port >> 8, port & 255);
    let mut a = Client40::with_callback(&w, "a", [1; 8], &address).await;
    let (mut stream, xid, args) = called(&listener).await;
    assert_eq!(args, None, "CB_NULL first");
    // Until that is answered there is no delegation.
    let (fh, _) = a.open("f", access, 0).await;
    a.open("f", access, 0).await;
    answer(&mut stream, xid, None).await;
    let held = loop {
        let open = a.open_args("f", access, 0, false);
        let res = a.send(vec![ArgOp4::PutRootFh, open, ArgOp4::GetFh]).await;
        match given(&res.ops) {
            Some(OpenDelegation4::Read(held)) if access == 1 => break held.stateid,
            Some(OpenDelegation4::Write(held)) if access == 3 => break held.stateid,
            other => assert_eq!(other, Some(OpenDelegation4::None)),
        }
        tokio::task::yield_now().await;
    };
    let mut b = Client40::new(&w, "b").await;
    let (_, recall) = tokio::join!(
        async {
            // The owner is new: its first OPEN is a step that may be refused for delay, and then counts.
            loop {
                let open = b.open_args("f", 2, 0, false);
                let res = b.send(vec![ArgOp4::PutRootFh, open]).await;
                match res.status {
                    Ok(()) => break,
                    Err(status) => assert_eq!(status, NfsStat4::Delay),
                }
            }
        },
        async {
            let recall = recalled(&listener).await;
            let back = ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid: recall.stateid });
            let mut ops = vec![put(&recall.fh), back];
            if asks {
                // What it reads and asks meanwhile is its own.
                let attr_request = Bitmap::of(&[Attr4::Change as u32, Attr4::Size as u32]);
                let ask = ArgOp4::GetAttr(GetAttr4Args { attr_request });
                let read = |stateid| ArgOp4::Read(Read4Args { stateid, offset: 0, count: 1 });
                let res = a.send(vec![put(&recall.fh), read(recall.stateid), ask.clone()]).await;
                assert_eq!(res.status, Ok(()), "{res:?}");
                // Linux asks before it returns; a special stateid names nobody.
                ops.insert(1, ask);
                if access == 1 {
                    ops.insert(1, read(StateId4::ANONYMOUS));
                }
            }
            let res = a.send(ops).await;
            assert_eq!(res.status, Ok(()), "{res:?}");
            recall
        },
    );
    assert_eq!((recall.stateid, recall.fh), (held, fh));
    let stats = w.engine.stats();
    assert_eq!((stats.delegations_granted, stats.delegations_recalled, stats.delegations_revoked), (1, 1, 0));
}
