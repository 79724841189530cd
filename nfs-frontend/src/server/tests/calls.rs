//! What is sent well is answered well.

use super::*;
use atoll_proto::rpc::{Accepted, AuthStat, AuthSys, Denied, Gids, VersionRange};
use atoll_xdr::Opaque;
use proptest::prelude::*;

#[tokio::test]
async fn calls_one_after_the_other() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    assert!(client.call(1, procedure::NULL, &[]).await.is_empty());
    assert_eq!(client.call(2, procedure::ECHO, b"abcdefgh").await, &b"abcdefgh"[..]);
    let large = vec![9; 1 << 20];
    assert!(client.call(3, procedure::ECHO, &large).await == large);
    assert_eq!(client.call(4, procedure::ECHO, b"abcd").await, &b"abcd"[..]);
    assert_eq!(server.finish().await, Stopped { cut_off: 0 });
}

#[tokio::test]
async fn pipelined_calls_are_answered_in_one_go() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let mut calls = Vec::new();
    for xid in 0..5000u32 {
        calls.extend_from_slice(&record(xid, procedure::ECHO, &xid.to_be_bytes()));
    }
    let (mut receive, mut send) = client.socket.split();
    let sending = async { send.write_all(&calls).await.unwrap() };
    let receiving = async {
        for xid in 0..5000u32 {
            let mut reply = [0; 32];
            receive.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[4..8], xid.to_be_bytes());
            assert_eq!(reply[28..], xid.to_be_bytes());
        }
    };
    tokio::join!(sending, receiving);
    server.until(|m| &m.calls, 5000).await;
}

#[tokio::test]
async fn slow_calls_do_not_hold_up_fast_ones() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(&record(1, procedure::GATED, b"slow")).await;
    client.send(&record(2, procedure::ECHO, b"fast")).await;
    assert_eq!(client.reply().await, (success(2), Bytes::from_static(b"fast")));
    server.subject.gate.open(1);
    assert_eq!(client.reply().await, (success(1), Bytes::from_static(b"slow")));
}

#[tokio::test]
async fn reading_stops_at_so_many_calls_in_progress() {
    let server = start(Limits { calls_per_connection: 4, ..Limits::default() });
    let mut client = server.connect().await;
    for xid in 0..10 {
        client.send(&record(xid, procedure::GATED, &[])).await;
    }
    server.subject.gate.wait_for(4).await;
    server.until(|m| &m.calls_now, 4).await;
    let mut other = server.connect().await;
    other.call(1, procedure::NULL, &[]).await;
    assert_eq!(server.subject.gate.entered.load(Ordering::SeqCst), 4);
    for done in 1..=10 {
        server.subject.gate.open(1);
        client.reply().await;
        server.subject.gate.wait_for((4 + done).min(10)).await;
    }
    server.until(|m| &m.calls_now, 0).await;
}

#[tokio::test]
async fn many_waiting_calls_with_small_and_large_records() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let sizes = [0, 4, 1000, 4096, 5000, 16_384, 20_000, 40_000, 100_000, 300_000];
    let pattern = |xid: usize, size: usize| vec![xid as u8; size];
    for (xid, size) in sizes.into_iter().enumerate() {
        client.send(&record(xid as u32, procedure::GATED, &pattern(xid, size))).await;
    }
    server.subject.gate.wait_for(sizes.len()).await;
    server.subject.gate.open(sizes.len());
    let mut seen = 0;
    for _ in sizes {
        let (header, body) = client.reply().await;
        let xid = header.xid as usize;
        assert!(body == pattern(xid, sizes[xid]), "reply {xid}");
        seen |= 1 << xid;
    }
    assert_eq!(seen, (1 << sizes.len()) - 1);
}

#[tokio::test]
async fn every_refusal_has_its_reply() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let versions = VersionRange { low: 3, high: 4 };
    let expected = [
        ReplyHeader::accepted(0, Accepted::ProgUnavail),
        ReplyHeader::accepted(1, Accepted::ProgMismatch(versions)),
        ReplyHeader::accepted(2, Accepted::ProcUnavail),
        ReplyHeader::accepted(3, Accepted::GarbageArgs),
        ReplyHeader::accepted(4, Accepted::SystemErr),
        ReplyHeader::denied(5, Denied::AuthError(AuthStat::TooWeak)),
    ];
    for number in 0..7u32 {
        client.send(&record(number, procedure::REFUSE, &number.to_be_bytes())).await;
    }
    for header in expected {
        assert_eq!(client.reply().await, (header, Bytes::new()));
    }
    // The seventh has no reply: the next one is that of the next call.
    client.call(8, procedure::NULL, &[]).await;
}

#[tokio::test]
async fn credentials() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let sys = AuthSys {
        stamp: 0,
        machine_name: Opaque::from_static(b"client"),
        uid: 1000,
        gid: 100,
        gids: Gids::new(&[1, 2, 3]).unwrap(),
    };
    let header = |xid, flavor: u32, body: &'static [u8]| CallHeader {
        xid,
        program: PROGRAM,
        version: 1,
        procedure: procedure::WHO,
        credential: OpaqueAuth { flavor, body: Opaque::from_static(body) },
        verifier: OpaqueAuth::NONE,
    };
    let good = CallHeader { credential: OpaqueAuth::sys(&sys), ..header(1, 1, b"") };
    let framed = |message: Vec<u8>| {
        let mut record = (message.len() as u32 | 1 << 31).to_be_bytes().to_vec();
        record.extend_from_slice(&message);
        record
    };
    client.send(&framed(with_header(&good, &[]))).await;
    let (reply, body) = client.reply().await;
    assert_eq!(reply, success(1));
    assert_eq!(body[..8], [0, 0, 3, 232, 0, 0, 0, 3]);
    let denied = |xid, stat| (ReplyHeader::denied(xid, Denied::AuthError(stat)), Bytes::new());
    // AUTH_SYS that does not decode; AUTH_SHORT, AUTH_DH, RPCSEC_GSS, AUTH_TLS and an unknown flavour.
    client.send(&framed(with_header(&header(2, 1, b"abcd"), &[]))).await;
    assert_eq!(client.reply().await, denied(2, AuthStat::BadCred));
    for flavor in [2, 3, 6, 7, 390_003] {
        client.send(&framed(with_header(&header(flavor, flavor, b""), &[]))).await;
        assert_eq!(client.reply().await, denied(flavor, AuthStat::RejectedCred));
    }
    // Another version of RPC.
    let mut other = with_header(&header(9, 0, b""), &[]);
    other[11] = 3;
    client.send(&framed(other)).await;
    let range = VersionRange { low: 2, high: 2 };
    assert_eq!(client.reply().await, (ReplyHeader::denied(9, Denied::RpcMismatch(range)), Bytes::new()));
    // A header that is cut short, and one whose credential is longer than can be.
    client.send(&framed(with_header(&header(10, 0, b""), &[])[..20].to_vec())).await;
    assert_eq!(client.reply().await, (ReplyHeader::accepted(10, Accepted::GarbageArgs), Bytes::new()));
    let mut long = with_header(&header(11, 0, b""), &[0; 404]);
    long[30] = 1;
    long[31] = 0x94;
    client.send(&framed(long)).await;
    assert_eq!(client.reply().await, denied(11, AuthStat::BadCred));
    server.until(|m| &m.calls_refused, 9).await;
}

#[tokio::test]
async fn a_panic_is_the_call_s_own_affair() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(&record(1, procedure::GATED_PANIC, &[])).await;
    client.send(&record(2, procedure::PANIC, &[])).await;
    assert_eq!(client.reply().await, (ReplyHeader::accepted(2, Accepted::SystemErr), Bytes::new()));
    server.subject.gate.open(1);
    assert_eq!(client.reply().await, (ReplyHeader::accepted(1, Accepted::SystemErr), Bytes::new()));
    client.call(3, procedure::NULL, &[]).await;
    assert_eq!(server.metrics.panics.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn addresses_are_shown_in_their_own_family() {
    let server = start_on("[::]:0", Limits::default());
    for host in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{host}:{}", server.address.port()).parse().unwrap();
        let mut client = Client::connect(address).await;
        let own = client.socket.local_addr().unwrap();
        let mut who = Decoder::new(client.call(1, procedure::WHO, &[]).await);
        for _ in 0..3 {
            who.u32().unwrap();
        }
        assert_eq!(who.opaque(99).unwrap(), address.to_string().as_bytes());
        assert_eq!(who.opaque(99).unwrap(), own.to_string().as_bytes());
    }
}

#[tokio::test]
async fn a_client_may_close_its_half_and_still_gets_its_replies() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(&record(1, procedure::GATED, b"late")).await;
    client.send(&record(2, procedure::ECHO, b"soon")).await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.reply().await.0, success(2));
    server.subject.gate.open(1);
    assert_eq!(client.reply().await.0, success(1));
    client.expect_closed().await;
    server.until(|m| &m.connections_now, 0).await;
}

/// Cuts a message into fragments of the given lengths and the rest.
fn fragments(message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = message;
    for &len in lengths {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        out.extend_from_slice(piece);
        rest = after;
    }
    out.extend_from_slice(&(rest.len() as u32 | 1 << 31).to_be_bytes());
    out.extend_from_slice(rest);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However calls are cut into fragments and writes, the replies are the same.
    #[test]
    fn fragments_and_partial_writes(
        calls in prop::collection::vec((0usize..90_000, prop::collection::vec(0usize..50_000, 0..6)), 1..6),
        pieces in prop::collection::vec(1usize..60_000, 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let server = start(Limits::default());
            let mut client = server.connect().await;
            let mut stream = Vec::new();
            let body = |xid: usize, len: usize| vec![xid as u8 + 1; len & !3];
            for (xid, (len, cuts)) in calls.iter().enumerate() {
                let message = message(xid as u32, procedure::ECHO, &body(xid, *len));
                stream.extend_from_slice(&fragments(&message, cuts));
            }
            let (mut receive, mut send) = client.socket.split();
            let sending = async {
                let mut rest = &stream[..];
                for piece in pieces.iter().cycle() {
                    let (now, later) = rest.split_at((*piece).min(rest.len()));
                    send.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
            };
            let receiving = async {
                for (xid, (len, _)) in calls.iter().enumerate() {
                    let mark = receive.read_u32().await.unwrap();
                    let mut reply = vec![0; (mark & !(1 << 31)) as usize];
                    receive.read_exact(&mut reply).await.unwrap();
                    assert_eq!(reply[..4], (xid as u32).to_be_bytes());
                    assert!(reply[24..] == body(xid, *len));
                }
            };
            tokio::join!(sending, receiving);
            assert_eq!(server.finish().await, Stopped { cut_off: 0 });
        });
    }
}
