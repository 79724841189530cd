//! Calls from the server to the client over the client's connection.

use super::super::reverse::{CALLS, ReverseError};
use super::*;
use atoll_proto::rpc::{Accepted, MessageType, peek};
use futures_util::FutureExt;

/// A call of the server as the client sees it.
struct Called {
    xid: u32,
    argument: u32,
}

impl Client {
    async fn leave(&mut self, server: &Running) -> Connection {
        self.call(1, procedure::LEAVE, &[]).await;
        server.subject.left.lock().unwrap().pop().unwrap()
    }

    async fn message(&mut self) -> Bytes {
        let read = async {
            let mark = self.socket.read_u32().await.unwrap();
            let mut message = vec![0; (mark & !(1 << 31)) as usize];
            self.socket.read_exact(&mut message).await.unwrap();
            Bytes::from(message)
        };
        tokio::time::timeout(PATIENCE, read).await.expect("nothing comes")
    }

    async fn called(&mut self) -> Called {
        let message = self.message().await;
        assert!(matches!(peek(&message), Some((_, MessageType::Call))));
        let mut d = Decoder::new(message);
        let header = CallHeader::parse(&mut d).unwrap();
        Called { xid: header.xid, argument: d.u32().unwrap() }
    }

    async fn answer(&mut self, xid: u32, result: &[u8]) {
        let mut e = Encoder::new();
        e.put(&success(xid));
        e.raw(result);
        let reply = e.into_bytes();
        let mut record = (reply.len() as u32 | 1 << 31).to_be_bytes().to_vec();
        record.extend_from_slice(&reply);
        self.send(&record).await;
    }
}

async fn ask(connection: Connection, argument: u32) -> Result<u32, ReverseError> {
    let encode = |xid| {
        let mut e = Encoder::new();
        e.raw(&message(xid, procedure::ECHO, &argument.to_be_bytes()));
        e
    };
    let mut d = Decoder::new(connection.call(encode).await?);
    let header: ReplyHeader = d.decode().unwrap();
    assert_eq!(header, ReplyHeader::accepted(header.xid, Accepted::Success));
    Ok(d.u32().unwrap())
}

#[tokio::test]
async fn calls_go_both_ways_and_replies_find_their_calls_in_any_order() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let connection = client.leave(&server).await;
    let asking: Vec<_> = (0..10).map(|n| tokio::spawn(ask(connection.clone(), n))).collect();
    let mut came = Vec::new();
    for _ in 0..10 {
        came.push(client.called().await);
    }
    // A call of the client between them, with a transaction id that the server uses, too.
    let echo = client.call(came[3].xid, procedure::ECHO, b"four").await;
    assert_eq!(&echo[..], b"four");
    for Called { xid, argument } in came.iter().rev() {
        client.answer(*xid, &(argument + 100).to_be_bytes()).await;
    }
    for (n, asked) in asking.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), Ok(n as u32 + 100));
    }
    assert_eq!(server.finish().await, Stopped { cut_off: 0 });
    assert_eq!(ask(connection.clone(), 1).await, Err(ReverseError::Closed));
    assert!(!connection.is_open());
}

#[tokio::test]
async fn a_call_ends_with_its_connection() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let connection = client.leave(&server).await;
    let asked = tokio::spawn(ask(connection.clone(), 1));
    client.called().await;
    drop(client);
    assert_eq!(asked.await.unwrap(), Err(ReverseError::Closed));
    assert_eq!(ask(connection, 1).await, Err(ReverseError::Closed));
    // The same by the server's end.
    let mut client = server.connect().await;
    let connection = client.leave(&server).await;
    let asked = tokio::spawn(ask(connection, 1));
    client.called().await;
    server.stop.cancel();
    assert_eq!(asked.await.unwrap(), Err(ReverseError::Closed));
    server.finish().await;
}

#[tokio::test]
async fn replies_that_nobody_waits_for_are_dropped() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let connection = client.leave(&server).await;
    // Given up before it was answered.
    let asked = tokio::spawn(ask(connection.clone(), 1));
    let Called { xid, .. } = client.called().await;
    asked.abort();
    assert!(asked.await.is_err());
    client.answer(xid, &[0; 4]).await;
    for n in 0..20_000_u32 {
        client.answer(n.wrapping_mul(77_777), &[0; 64]).await;
    }
    client.answer(9, &vec![0; 1 << 20]).await;
    assert_eq!(&client.call(2, procedure::ECHO, b"here").await[..], b"here");
    // One that is too long is none.
    let asked = tokio::spawn(ask(connection.clone(), 2));
    let Called { xid, .. } = client.called().await;
    client.answer(xid, &vec![0; 1 << 20]).await;
    assert_eq!(asked.await.unwrap(), Err(ReverseError::Closed));
    // The same reply twice.
    let asked = tokio::spawn(ask(connection, 3));
    let Called { xid, argument } = client.called().await;
    client.answer(xid, &argument.to_be_bytes()).await;
    client.answer(xid, &[9; 4]).await;
    assert_eq!(asked.await.unwrap(), Ok(3));
    assert_eq!(&client.call(3, procedure::ECHO, b"here").await[..], b"here");
    server.finish().await;
}

#[tokio::test]
async fn calls_on_their_way_are_bounded() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let connection = client.leave(&server).await;
    let mut asking: Vec<_> = (0..CALLS as u32).map(|n| Box::pin(ask(connection.clone(), n))).collect();
    for asked in &mut asking {
        assert!(asked.now_or_never().is_none());
    }
    assert_eq!(ask(connection.clone(), 0).await, Err(ReverseError::Busy));
    drop(asking.pop());
    let mut again = Box::pin(ask(connection.clone(), 1000));
    assert!((&mut again).now_or_never().is_none());
    for _ in 0..CALLS {
        let Called { xid, argument } = client.called().await;
        client.answer(xid, &argument.to_be_bytes()).await;
    }
    assert_eq!(again.await, Ok(1000));
    for (n, asked) in asking.into_iter().enumerate() {
        assert_eq!(asked.await, Ok(n as u32));
    }
    let long = |_| {
        let mut e = Encoder::new();
        e.raw(&vec![0; 1 << 20]);
        e
    };
    assert_eq!(connection.call(long).await, Err(ReverseError::TooLong));
    server.finish().await;
}
