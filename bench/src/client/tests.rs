#![allow(clippy::unwrap_used)]
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use atoll_proto::nfs3::{FileHandle, GetAttr3Args, NfsStat3, call};
use atoll_proto::record::{RecordLimits, RecordReader, begin_record, end_record};
use atoll_proto::rpc::{Accepted, CallHeader, ReplyHeader, encode_success_header};
use atoll_xdr::{Decoder, Encoder};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Serves one connection: collects `batch` calls, then answers them in reverse order by what `answer` encodes behind the mark;
/// closes the connection after `batches` batches.
async fn server(
    batch: usize,
    batches: usize,
    answer: impl Fn(&CallHeader, GetAttr3Args, &mut Encoder) + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut records = RecordReader::new(RecordLimits::default());
        let (mut buf, mut calls, mut left) = (BytesMut::new(), Vec::<Bytes>::new(), batches);
        while left > 0 {
            while let Some(record) = records.next_record(&mut buf).unwrap() {
                calls.push(record);
            }
            if calls.len() < batch {
                assert_ne!(
                    stream.read_buf(&mut buf).await.unwrap(),
                    0,
                    "the client stays until it is answered"
                );
                continue;
            }
            let mut e = Encoder::new();
            for call in calls.drain(..).rev() {
                let mut d = Decoder::new(call);
                let header = CallHeader::parse(&mut d).unwrap();
                assert_eq!(header.credential, credential(0, 0));
                let record = begin_record(&mut e);
                answer(&header, d.decode().unwrap(), &mut e);
                end_record(&mut e, record);
            }
            stream.write_all(&e.into_bytes()).await.unwrap();
            left -= 1;
        }
    });
    address
}

fn stale_but(handle: u8) -> impl Fn(&CallHeader, GetAttr3Args, &mut Encoder) + Send {
    move |header, args, e| {
        encode_success_header(e, header.xid);
        let status = if args.object.as_slice() == [handle] { NfsStat3::Perm } else { NfsStat3::Stale };
        e.u32(status as u32);
    }
}

#[tokio::test]
async fn replies_in_any_order_reach_their_calls() {
    let address = server(8, 1, stale_but(3)).await;
    let client = Nfs3Client::connect(address, credential(0, 0)).await.unwrap();
    let getattr = async |n: u8| match client.getattr(FileHandle::new(&[n]).unwrap()).await {
        Err(Nfs3Error::Status { procedure: "GETATTR", status }) => status,
        other => panic!("{other:?}"),
    };
    let statuses = futures_util::future::join_all((0..8).map(getattr)).await;
    for (n, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if n == 3 { NfsStat3::Perm } else { NfsStat3::Stale });
    }
}

#[tokio::test]
async fn calls_fail_when_the_connection_ends_and_ever_after() {
    let address = server(1, 1, stale_but(0)).await;
    let client = Nfs3Client::connect(address, credential(0, 0)).await.unwrap();
    let handle = FileHandle::new(&[1]).unwrap();
    assert!(matches!(client.getattr(handle).await, Err(Nfs3Error::Status { .. })));
    for _ in 0..2 {
        let ended = tokio::time::timeout(Duration::from_secs(20), client.getattr(handle)).await.unwrap();
        assert!(matches!(ended, Err(Nfs3Error::Rpc(RpcError::Ended))), "{ended:?}");
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_harms_nobody_else() {
    let address = server(2, 1, stale_but(9)).await;
    let client = Nfs3Client::connect(address, credential(0, 0)).await.unwrap();
    let args = GetAttr3Args { object: FileHandle::new(&[1]).unwrap() };
    {
        // Polled once: the call is on its way.
        let mut given_up = std::pin::pin!(client.call::<call::GetAttr>(&args));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
    }
    let other = client.getattr(FileHandle::new(&[9]).unwrap()).await;
    assert!(matches!(other, Err(Nfs3Error::Status { status: NfsStat3::Perm, .. })), "{other:?}");
}

#[tokio::test]
async fn a_call_that_is_not_executed_says_why() {
    let address = server(1, 1, |header, _, e| {
        e.put(&ReplyHeader::accepted(header.xid, Accepted::ProcUnavail));
    })
    .await;
    let client = Nfs3Client::connect(address, credential(0, 0)).await.unwrap();
    let error = client.getattr(FileHandle::new(&[1]).unwrap()).await.unwrap_err();
    assert!(matches!(error, Nfs3Error::Rpc(RpcError::NotExecuted(Accepted::ProcUnavail))), "{error:?}");
}
