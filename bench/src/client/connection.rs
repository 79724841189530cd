//! One connection to an RPC server (RFC 5531 §11), with calls in flight matched to replies by xid.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_proto::record::{RecordLimits, RecordReader, begin_record, end_record};
use atoll_proto::rpc::{Accepted, Denied, OpaqueAuth, Procedure, ReplyBody, ReplyHeader, encode_call};
use atoll_xdr::{Decode, Decoder, Encoder, Segments};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::xid;

/// Largest record a client takes: a READ of 16 MiB with its headers, more than any server announces.
const MAX_REPLY: usize = 17 * 1024 * 1024;
/// Room that is made for reading at once.
const READ_AHEAD: usize = 256 * 1024;
/// Calls that may wait to be written before the next caller waits too.
const SEND_QUEUE: usize = 16;

/// Why a call has no results.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// There is no connection.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection, or sent what is no record, before the reply.
    #[error("the connection ended before the reply")]
    Ended,
    /// The server accepted the call and did not execute it.
    #[error("call not executed: {0:?}")]
    NotExecuted(Accepted),
    /// The server denied the call.
    #[error("call denied: {0:?}")]
    Denied(Denied),
    /// The reply does not decode.
    #[error("reply: {0}")]
    Garbage(#[from] atoll_xdr::Error),
}

/// Calls that wait for their replies; `None` once the connection has ended.
type Waiting = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Bytes>>>>>;

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub struct RpcClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Calls go through a task of their own, so that a caller that gives up never leaves half a record on the stream.
    to_send: mpsc::Sender<Segments>,
    waiting: Waiting,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl RpcClient {
    /// Connects.
    pub async fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read_replies(read, waiting.clone()));
        let (to_send, queue) = mpsc::channel(SEND_QUEUE);
        tokio::spawn(write_calls(write, queue));
        Ok(Self { inner: Arc::new(Inner { to_send, waiting, reader }) })
    }

    /// Calls procedure `P` and waits for its results.
    pub async fn call<P: Procedure>(
        &self,
        credential: &OpaqueAuth,
        args: &P::Args,
    ) -> Result<P::Res, RpcError> {
        let xid = xid::take(1);
        let mut e = Encoder::new();
        let record = begin_record(&mut e);
        encode_call::<P>(&mut e, xid, credential.clone(), args);
        end_record(&mut e, record);
        let reply = self.exchange(xid, e).await?;
        let mut d = Decoder::new(reply);
        match d.decode::<ReplyHeader>()?.body {
            ReplyBody::Accepted { stat: Accepted::Success, .. } => Ok(P::Res::decode(&mut d)?),
            ReplyBody::Accepted { stat, .. } => Err(RpcError::NotExecuted(stat)),
            ReplyBody::Denied(denied) => Err(RpcError::Denied(denied)),
        }
    }

    async fn exchange(&self, xid: u32, call: Encoder) -> Result<Bytes, RpcError> {
        let (sender, receiver) = oneshot::channel();
        match lock(&self.inner.waiting).as_mut() {
            Some(waiting) => waiting.insert(xid, sender),
            None => return Err(RpcError::Ended),
        };
        if self.inner.to_send.send(call.finish()).await.is_err() {
            return Err(RpcError::Ended);
        }
        receiver.await.map_err(|_| RpcError::Ended)
    }
}

fn lock(
    waiting: &Mutex<Option<HashMap<u32, oneshot::Sender<Bytes>>>>,
) -> std::sync::MutexGuard<'_, Option<HashMap<u32, oneshot::Sender<Bytes>>>> {
    // The map is whole at every point where a panic could leave it.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_calls(mut stream: OwnedWriteHalf, mut queue: mpsc::Receiver<Segments>) {
    while let Some(call) = queue.recv().await {
        for segment in call {
            if stream.write_all(&segment).await.is_err() {
                // The reader sees the end of the connection too and wakes whoever waits.
                return;
            }
        }
    }
}

async fn read_replies(mut stream: OwnedReadHalf, waiting: Waiting) {
    let mut records = RecordReader::new(RecordLimits { max_record: MAX_REPLY, ..RecordLimits::default() });
    let mut buf = BytesMut::with_capacity(READ_AHEAD);
    'connection: loop {
        loop {
            match records.next_record(&mut buf) {
                Ok(Some(record)) => deliver(&waiting, record),
                Ok(None) => break,
                Err(_) => break 'connection,
            }
        }
        buf.reserve(records.wanted().max(READ_AHEAD));
        match stream.read_buf(&mut buf).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    // Dropping the senders wakes every waiting call.
    lock(&waiting).take();
}

fn deliver(waiting: &Waiting, record: Bytes) {
    let Some(xid) = record.first_chunk::<4>() else { return };
    let xid = u32::from_be_bytes(*xid);
    let sender = lock(waiting).as_mut().and_then(|waiting| waiting.remove(&xid));
    if let Some(sender) = sender {
        // A caller that has gone away does not want its reply.
        let _gone = sender.send(record);
    }
}
