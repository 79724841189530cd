//! A client that keeps what it sent and what it got byte for byte, to send the same again after a restart.
//!
//! One connection, one call at a time: of each client at most one call is under way when the server dies.

use atoll_proto::record::{RecordLimits, RecordReader, begin_record, end_record};
use atoll_proto::rpc::{Accepted, AuthSys, Gids, OpaqueAuth, Procedure, ReplyBody, ReplyHeader, encode_call};
use atoll_xdr::{Decode, Decoder, Encoder, Opaque};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A call as it goes over the wire, record mark included.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) xid: u32,
    pub(crate) bytes: Bytes,
}

/// The client. Its transaction ids never repeat, over all connections it makes.
pub(crate) struct Client {
    server: SocketAddr,
    stream: Option<TcpStream>,
    next_xid: u32,
}

fn credential() -> OpaqueAuth {
    let machine_name = Opaque::from_static(b"crash");
    OpaqueAuth::sys(&AuthSys { stamp: 0, machine_name, uid: 0, gid: 0, gids: Gids::default() })
}

impl Client {
    /// A client that is not connected yet. `number` makes its transaction ids differ from those of others.
    pub(crate) fn new(number: u8) -> Self {
        Self { server: ([127, 0, 0, 1], 0).into(), stream: None, next_xid: u32::from(number) << 24 }
    }

    /// From now on talks to this server, over a new connection.
    pub(crate) fn point_at(&mut self, server: SocketAddr) {
        self.server = server;
        self.stream = None;
    }

    /// Makes a call, to be sent as often as one likes.
    pub(crate) fn encode<P: Procedure>(&mut self, args: &P::Args) -> Call {
        self.next_xid += 1;
        let xid = self.next_xid;
        let mut e = Encoder::new();
        let record = begin_record(&mut e);
        encode_call::<P>(&mut e, xid, credential(), args);
        end_record(&mut e, record);
        Call { xid, bytes: e.into_bytes() }
    }

    /// Sends a call and waits for its reply, which is returned without the record mark.
    pub(crate) async fn exchange(&mut self, call: &Call) -> io::Result<Bytes> {
        // Taken out: a wait that is given up leaves no connection on which an old reply may still come.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.server).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(&call.bytes).await?;
        let mut records = RecordReader::new(RecordLimits::default());
        let mut buf = BytesMut::new();
        loop {
            match records.next_record(&mut buf).map_err(io::Error::other)? {
                Some(reply) if reply.starts_with(&call.xid.to_be_bytes()) => {
                    self.stream = Some(stream);
                    return Ok(reply);
                }
                Some(_) => return Err(io::Error::other("the reply to another call")),
                None => {
                    buf.reserve(records.wanted());
                    if stream.read_buf(&mut buf).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

/// The results in a reply; `Err` if the call was not executed.
pub(crate) fn decode<P: Procedure>(reply: Bytes) -> Result<P::Res, String> {
    let mut d = Decoder::new(reply);
    match d.decode::<ReplyHeader>().map_err(|e| e.to_string())?.body {
        ReplyBody::Accepted { stat: Accepted::Success, .. } => {
            P::Res::decode(&mut d).map_err(|e| e.to_string())
        }
        other => Err(format!("not executed: {other:?}")),
    }
}
