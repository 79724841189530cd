//! Calls in datagrams.

use super::*;
use atoll_proto::rpc::Accepted;
use tokio::net::UdpSocket;

async fn exchange(socket: &UdpSocket, message: &[u8]) -> (ReplyHeader, Bytes) {
    socket.send(message).await.unwrap();
    receive(socket).await
}

async fn receive(socket: &UdpSocket) -> (ReplyHeader, Bytes) {
    let mut reply = vec![0; 65_536];
    let len = tokio::time::timeout(PATIENCE, socket.recv(&mut reply)).await.expect("no reply").unwrap();
    reply.truncate(len);
    let mut d = Decoder::new(reply.into());
    (d.decode().unwrap(), d.rest())
}

#[tokio::test]
async fn replies_come_from_the_address_that_was_called() {
    let server = start_on("[::]:0", Limits::default());
    // 127.0.0.2 is an address of the machine that no route would choose for a reply to 127.0.0.1.
    for (own, host) in [("127.0.0.1:0", "127.0.0.2"), ("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
        let address: SocketAddr = format!("{host}:{}", server.address.port()).parse().unwrap();
        let socket = UdpSocket::bind(own).await.unwrap();
        // A connected socket takes datagrams from that address only.
        socket.connect(address).await.unwrap();
        let (header, body) = exchange(&socket, &message(7, procedure::WHO, &[])).await;
        assert_eq!(header, success(7));
        let mut who = Decoder::new(body);
        assert_eq!((who.u32().unwrap(), who.u32().unwrap(), who.bool().unwrap()), (u32::MAX, 0, true));
        assert_eq!(who.opaque(99).unwrap(), address.to_string().as_bytes());
        assert_eq!(who.opaque(99).unwrap(), socket.local_addr().unwrap().to_string().as_bytes());
    }
}

#[tokio::test]
async fn only_some_programs_are_served() {
    let server = start(Limits::default());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let mut other = message(1, procedure::NULL, &[]);
    other[15] ^= 1;
    let reply = exchange(&socket, &other).await;
    assert_eq!(reply, (ReplyHeader::accepted(1, Accepted::ProgUnavail), Bytes::new()));
}

#[tokio::test]
async fn noise_panics_and_long_replies_do_no_harm() {
    let server = start(Limits::default());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    socket.send(b"").await.unwrap();
    socket.send(b"noise").await.unwrap();
    socket.send(&message(1, procedure::GIVE, &100_000u32.to_be_bytes())).await.unwrap();
    let reply = exchange(&socket, &message(2, procedure::PANIC, &[])).await;
    assert_eq!(reply, (ReplyHeader::accepted(2, Accepted::SystemErr), Bytes::new()));
    let long = exchange(&socket, &message(3, procedure::GIVE, &60_000u32.to_be_bytes())).await;
    assert_eq!((long.0, long.1.len()), (success(3), 60_000));
    assert_eq!(server.metrics.datagrams_dropped.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn calls_in_progress_are_bounded() {
    let server = start(Limits { datagrams: 2, ..Limits::default() });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    for xid in 0..5 {
        socket.send(&message(xid, procedure::GATED, &[])).await.unwrap();
    }
    server.until(|m| &m.datagrams_dropped, 3).await;
    server.until(|m| &m.calls_now, 2).await;
    server.subject.gate.open(2);
    let mut xids = [receive(&socket).await.0.xid, receive(&socket).await.0.xid];
    xids.sort();
    assert_eq!(xids, [0, 1]);
    server.until(|m| &m.calls_now, 0).await;
    assert_eq!(server.finish().await, Stopped { cut_off: 0 });
}
