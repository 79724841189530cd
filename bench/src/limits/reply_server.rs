//! A server that answers every call with a record of the length that the call asks for, and does nothing else.
//!
//! It is the upper bound of what any server of this protocol can do here: the same records through the same kernel. With
//! a log behind it, the calls are appended and synced in groups before they are answered: the upper bound of a server that
//! keeps what it acknowledges.
//!
//! One thread per connection with blocking reads: the cheapest there is for a few connections.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::limits::append::GroupLog;
use crate::load::{ReceiveBuffer, Received};

/// Bytes of the least call: mark, header with empty credential and verifier, length of the reply.
pub const HEADER: usize = 48;

/// Replies up to this size are gathered for one write.
const GATHER: usize = 16 * 1024;
/// Largest reply.
const MAX_REPLY: usize = 2 * 1024 * 1024;

/// A call that asks for a reply record of `reply` bytes, mark included. RFC 5531 §9, a program of the range for users.
pub fn encode_call(reply: u32) -> Vec<u8> {
    const PROGRAM: u32 = 0x2000_0049;
    let words = [0, 0, 0, 2, PROGRAM, 1, 1, 0, 0, 0, 0, reply];
    words.iter().flat_map(|word: &u32| word.to_be_bytes()).collect()
}

/// Serves until the process ends.
pub fn serve(listener: &TcpListener, log: Option<Arc<GroupLog>>) -> io::Result<()> {
    let zeros: Arc<[u8]> = vec![0; MAX_REPLY].into();
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let (log, zeros) = (log.clone(), zeros.clone());
        std::thread::spawn(move || {
            // A connection that fails is the client's to notice.
            let _ended = match log {
                Some(log) => log_and_reply(Arc::new(stream), &log),
                None => reply(&stream, &zeros),
            };
        });
    }
}

/// Xid and length of the reply of a call's record.
fn parse(record: &[u8]) -> io::Result<([u8; 4], usize)> {
    let (xid, reply) = match (record.first_chunk::<4>(), record.get(40..44)) {
        (Some(xid), Some(len)) => (*xid, u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize),
        _ => return Err(io::Error::other("a call without a length")),
    };
    if (32..=MAX_REPLY).contains(&reply) { Ok((xid, reply)) } else { Err(io::Error::other("no such length")) }
}

/// Mark and header of a successful reply; zeros up to its length follow.
fn head(xid: [u8; 4], len: usize) -> [u8; 12] {
    let mut head = [0; 12];
    let mark = u32::try_from(len - 4).expect("bounded by MAX_REPLY") | 1 << 31;
    head[..4].copy_from_slice(&mark.to_be_bytes());
    head[4..8].copy_from_slice(&xid);
    head[11] = 1;
    head
}

fn reply(mut stream: &TcpStream, zeros: &[u8]) -> io::Result<()> {
    let mut input = ReceiveBuffer::default();
    let mut out = Vec::new();
    while let Received::Bytes(_) | Received::Nothing = input.receive(stream)? {
        while let Some(record) = input.next_record().map_err(io::Error::other)? {
            let (xid, len) = parse(record)?;
            let head = head(xid, len);
            out.extend_from_slice(&head);
            let rest = len - head.len();
            if rest <= GATHER {
                out.resize(out.len() + rest, 0);
            } else {
                stream.write_all(&out)?;
                out.clear();
                stream.write_all(&zeros[..rest])?;
            }
        }
        stream.write_all(&out)?;
        out.clear();
    }
    Ok(())
}

fn log_and_reply(stream: Arc<TcpStream>, log: &GroupLog) -> io::Result<()> {
    let mut input = ReceiveBuffer::default();
    while let Received::Bytes(_) | Received::Nothing = input.receive(&*stream)? {
        while let Some(record) = input.next_record().map_err(io::Error::other)? {
            let (xid, len) = parse(record)?;
            let mut reply = head(xid, len).to_vec();
            reply.resize(len, 0);
            log.submit(record, stream.clone(), reply);
        }
        log.wake();
    }
    Ok(())
}
