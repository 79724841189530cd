#![allow(clippy::unwrap_used)]
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::connection::{ReceiveBuffer, Received, SendBuffer};
use super::*;
use crate::limits::append::GroupLog;
use crate::limits::reply_server;
use crate::workload::raw::Raw;

const LIMITS: Limits = Limits { duration: Duration::from_millis(30), silence: Duration::from_secs(20) };

fn reply_server(log: Option<std::sync::Arc<GroupLog>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || reply_server::serve(&listener, log));
    address
}

/// Counts what passes to another workload.
struct Counting<W> {
    inner: W,
    sent: u64,
    answered: u64,
    left: u64,
    in_flight: Vec<bool>,
    closed: bool,
}

impl<W: Workload> Workload for Counting<W> {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        self.sent += 1;
        assert!(!std::mem::replace(&mut self.in_flight[slot], true), "one call of a slot at a time");
        self.inner.call(slot, out);
    }

    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        if self.closed {
            return Ok(Progress::Aside);
        }
        self.answered += 1;
        assert!(std::mem::replace(&mut self.in_flight[slot], false), "a reply to a call in flight");
        self.inner.reply(slot, results)
    }

    fn closing_call(&mut self, out: &mut CallWriter<'_>) {
        assert_eq!(self.sent, self.answered, "all slots are idle");
        self.closed = true;
        self.inner.call(0, out);
    }
}

fn counting(inner: Raw, left: u64, shape: Shape) -> Counting<Raw> {
    Counting { inner, sent: 0, answered: 0, left, in_flight: vec![false; shape.in_flight()], closed: false }
}

#[test]
fn every_call_is_answered_counted_and_timed() {
    let server = reply_server(None);
    for (connections, per_connection, call, reply) in
        [(1, 1, 120, 112), (4, 16, 120, 112), (3, 5, 200, 1 << 20), (2, 4, (1 << 20) + 120, 160)]
    {
        let shape = Shape { connections, per_connection };
        let mut workload = counting(Raw::new(call, reply), 500, shape);
        let long = Limits { duration: Duration::from_secs(60), ..LIMITS };
        let measured = run(server, shape, long, &mut workload).unwrap();
        assert_eq!(workload.answered, 500);
        assert_eq!((measured.ops, measured.calls), (500, 501), "the closing call is no operation");
        assert_eq!(measured.latency.count(), 500);
        assert_eq!(measured.sent, 501 * call as u64);
        assert_eq!(measured.received, 501 * reply as u64);
    }
}

#[test]
fn a_run_ends_when_its_time_is_over_and_all_replies_are_there() {
    let shape = Shape { connections: 2, per_connection: 8 };
    let mut workload = counting(Raw::new(120, 112), u64::MAX, shape);
    let measured = run(reply_server(None), shape, LIMITS, &mut workload).unwrap();
    assert!(measured.elapsed >= LIMITS.duration);
    assert_eq!(workload.sent, workload.answered);
}

#[test]
fn a_server_with_a_log_answers_after_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = GroupLog::start(&path).unwrap();
    let shape = Shape { connections: 2, per_connection: 4 };
    let mut workload = counting(Raw::new(200, 112), 40, shape);
    let long = Limits { duration: Duration::from_secs(60), ..LIMITS };
    let measured = run(reply_server(Some(log)), shape, long, &mut workload).unwrap();
    assert_eq!(measured.ops, 40);
    let stored = std::fs::read(&path).unwrap();
    // A record is stored without its mark: 44 bytes up to the length of the reply, and filler.
    let mut records = stored.chunks_exact(196);
    for record in records.by_ref().take(41) {
        assert!(record[44..].iter().all(|byte| *byte == 0x5a));
    }
    assert!(records.all(|nothing| nothing.iter().all(|byte| *byte == 0)));
}

/// A server that answers the first call with these bytes and closes the connection.
fn answers(make: impl Fn([u8; 4]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut call = [0; 120];
        stream.read_exact(&mut call).unwrap();
        stream.write_all(&make(call[4..8].try_into().unwrap())).unwrap();
    });
    address
}

fn one(server: SocketAddr) -> Result<Measured, LoadError> {
    let shape = Shape { connections: 1, per_connection: 1 };
    run(server, shape, LIMITS, &mut Raw::new(120, 32))
}

fn record(xid: [u8; 4], words: &[u32]) -> Vec<u8> {
    let mut record = (u32::try_from(4 + 4 * words.len()).unwrap() | 1 << 31).to_be_bytes().to_vec();
    record.extend_from_slice(&xid);
    words.iter().for_each(|word| record.extend_from_slice(&word.to_be_bytes()));
    record
}

#[test]
fn whatever_is_not_a_success_ends_the_run() {
    // Not executed: PROC_UNAVAIL, denied, a call instead of a reply.
    for words in [&[1, 0, 0, 0, 3][..], &[1, 1, 0, 2, 2], &[0, 2, 1, 1, 1]] {
        let error = one(answers(|xid| record(xid, words))).unwrap_err();
        assert!(matches!(error, LoadError::NotExecuted(_)), "{words:?}: {error}");
    }
    // A failure of the procedure.
    let error = one(answers(|xid| record(xid, &[1, 0, 0, 0, 0, 70]))).unwrap_err();
    assert!(matches!(error, LoadError::Reply(_)) && error.to_string().contains("Stale"), "{error}");
    // A reply to nobody, one that is cut short, one that cannot be.
    let error =
        one(answers(|xid| record([!xid[0], xid[1], xid[2], xid[3]], &[1, 0, 0, 0, 0, 0]))).unwrap_err();
    assert!(matches!(error, LoadError::Protocol(_)), "{error}");
    let error = one(answers(|xid| record(xid, &[1, 0, 0]))).unwrap_err();
    assert!(matches!(error, LoadError::Protocol(_)), "{error}");
    let error = one(answers(|_| vec![0xff; 8])).unwrap_err();
    assert!(matches!(error, LoadError::Protocol(_)), "{error}");
    // No reply.
    let error = one(answers(|_| Vec::new())).unwrap_err();
    assert!(matches!(error, LoadError::Closed(1)), "{error}");
}

#[test]
fn a_silent_server_fails_the_run() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let shape = Shape { connections: 1, per_connection: 2 };
    let limits = Limits { silence: Duration::from_millis(20), ..LIMITS };
    let error = run(listener.local_addr().unwrap(), shape, limits, &mut Raw::new(120, 32)).unwrap_err();
    assert!(matches!(error, LoadError::Silence(_, 2)), "{error}");
}

#[test]
fn records_are_cut_wherever_the_stream_is_and_fragments_are_joined() {
    let mut stream = record([0, 0, 0, 1], &[7, 8]);
    // The same record in three fragments, one of them empty.
    stream.extend_from_slice(&[0, 0, 0, 6, 0, 0, 0, 2, 0, 0]);
    stream.extend_from_slice(&[0, 0, 0, 0]);
    stream.extend_from_slice(&[0x80, 0, 0, 6, 0, 9, 0, 0, 0, 10]);
    stream.extend(record([0, 0, 0, 3], &[11]));
    for step in 1..stream.len() {
        let mut input = ReceiveBuffer::default();
        let mut records = Vec::new();
        for piece in stream.chunks(step) {
            assert_eq!(input.receive(piece).unwrap(), Received::Bytes(piece.len()));
            while let Some(record) = input.next_record().unwrap() {
                records.push(record.to_vec());
            }
        }
        assert_eq!(records.len(), 3, "in pieces of {step}");
        assert_eq!(records[0], [0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 8]);
        assert_eq!(records[1], [0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 10]);
        assert_eq!(records[2], [0, 0, 0, 3, 0, 0, 0, 11]);
    }
}

#[test]
fn the_send_buffer_sends_bytes_and_payloads_in_order_through_a_narrow_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    socket2::SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut out = SendBuffer::default();
    let mut expected = Vec::new();
    for n in 0..200u32 {
        let mut writer = out.writer();
        let small = vec![u8::try_from(n % 251).unwrap(); 12 + n as usize];
        writer.put(&small);
        let payload = vec![0xee; if n % 3 == 0 { 20_000 } else { 0 }];
        if !payload.is_empty() {
            writer.splice(payload.clone().into());
        }
        let len = writer.seal(n);
        assert_eq!(len, small.len() + payload.len());
        let mark = u32::try_from(len - 4).unwrap() | 1 << 31;
        expected.extend_from_slice(&mark.to_be_bytes());
        expected.extend_from_slice(&n.to_be_bytes());
        expected.extend_from_slice(&small[8..]);
        expected.extend_from_slice(&payload);
        out.flush(&socket).unwrap();
    }
    let total = expected.len();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; total];
        peer.read_exact(&mut got).unwrap();
        got
    });
    while !out.is_empty() {
        out.flush(&socket).unwrap();
        std::thread::yield_now();
    }
    assert!(reader.join().unwrap() == expected);
}
