//! The server over real loopback sockets.
#![allow(clippy::unwrap_used)]

mod alone;
mod calls;
mod datagrams;
mod hostile;
mod idle;
mod reverse;
mod stop;

use super::{Connection, Limits, Metrics, Server, Stopped};
use crate::rpc::{Answer, AuthError, Credential, RpcCall, RpcHandler, Transport};
use atoll_base::leave;
use atoll_proto::rpc::{CallHeader, OpaqueAuth, ReplyHeader};
use atoll_xdr::{Decoder, Encoder};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PROGRAM: u32 = 0x2000_0001;

/// Longer than anything here takes; only a test that has failed waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the procedures of the test program do.
mod procedure {
    pub(super) const NULL: u32 = 0;
    /// Returns its arguments.
    pub(super) const ECHO: u32 = 1;
    /// Waits until the test opens the gate, then returns its arguments.
    pub(super) const GATED: u32 = 2;
    pub(super) const PANIC: u32 = 3;
    /// Panics when the gate opens.
    pub(super) const GATED_PANIC: u32 = 4;
    /// Returns as many bytes as its argument says.
    pub(super) const GIVE: u32 = 5;
    /// Waits for the gate, then returns as many bytes as its argument says.
    pub(super) const GATED_GIVE: u32 = 6;
    /// Answers by the number in its argument; see `Subject::handle`.
    pub(super) const REFUSE: u32 = 7;
    /// Returns uid, number of groups, transport, and the port that was called.
    pub(super) const WHO: u32 = 8;
    /// Leaves the connection to the test, to call the client over.
    pub(super) const LEAVE: u32 = 9;
    /// Waits in place for the test if it may; returns whether it did.
    pub(super) const WAIT: u32 = 10;
}

#[derive(Default)]
struct Subject {
    gate: Gate,
    left: std::sync::Mutex<Vec<Connection>>,
    /// What a call does that may wait.
    wait: std::sync::Mutex<Option<Box<dyn FnMut() + Send>>>,
}

struct Gate {
    open: Semaphore,
    entered: AtomicUsize,
    entering: Notify,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: Semaphore::new(0), entered: AtomicUsize::new(0), entering: Notify::new() }
    }
}

impl Gate {
    async fn pass(&self) {
        self.entered.fetch_add(1, Ordering::SeqCst);
        self.entering.notify_waiters();
        self.open.acquire().await.unwrap().forget();
    }

    /// Lets `n` calls through, those that wait and those to come.
    fn open(&self, n: usize) {
        self.open.add_permits(n);
    }

    /// Waits until so many calls have come to the gate.
    async fn wait_for(&self, n: usize) {
        let came = async {
            loop {
                let entering = self.entering.notified();
                if self.entered.load(Ordering::SeqCst) >= n {
                    return;
                }
                entering.await;
            }
        };
        tokio::time::timeout(PATIENCE, came).await.expect("the calls never came to the gate");
    }
}

impl RpcHandler for Subject {
    async fn handle(&self, call: RpcCall, mut reply: Encoder) -> Answer {
        let mut args = call.args.clone();
        match call.procedure {
            procedure::NULL => Answer::Success(reply),
            procedure::ECHO => {
                reply.raw_bytes(args.rest());
                Answer::Success(reply)
            }
            procedure::GATED => {
                self.gate.pass().await;
                reply.raw_bytes(args.rest());
                Answer::Success(reply)
            }
            procedure::PANIC => panic!("asked for"),
            procedure::GATED_PANIC => {
                self.gate.pass().await;
                panic!("asked for, later")
            }
            procedure::GIVE => {
                let Ok(len) = args.u32() else { return Answer::GarbageArgs };
                reply.raw_bytes(vec![7; len as usize].into());
                Answer::Success(reply)
            }
            procedure::GATED_GIVE => {
                let Ok(len) = args.u32() else { return Answer::GarbageArgs };
                self.gate.pass().await;
                reply.raw_bytes(vec![7; len as usize].into());
                Answer::Success(reply)
            }
            procedure::REFUSE => match args.u32() {
                Ok(0) => Answer::ProgramUnavailable,
                Ok(1) => Answer::ProgramMismatch(3, 4),
                Ok(2) => Answer::ProcedureUnavailable,
                Ok(3) => Answer::GarbageArgs,
                Ok(4) => Answer::SystemError,
                Ok(5) => Answer::AuthError(AuthError::TooWeak),
                _ => Answer::Drop,
            },
            procedure::WHO => {
                let (uid, groups) = match &call.credential {
                    Credential::None => (u32::MAX, 0),
                    Credential::Sys { uid, gids, .. } => (*uid, gids.len()),
                };
                reply.u32(uid);
                reply.u32(groups as u32);
                reply.bool(call.transport == Transport::Udp);
                reply.opaque(call.local.to_string().as_bytes());
                reply.opaque(call.peer.to_string().as_bytes());
                Answer::Success(reply)
            }
            procedure::LEAVE => {
                self.left.lock().unwrap().push(call.connection.clone().unwrap());
                Answer::Success(reply)
            }
            procedure::WAIT => {
                let waits = leave::take();
                if waits && let Some(wait) = &mut *self.wait.lock().unwrap() {
                    wait();
                }
                reply.bool(waits);
                Answer::Success(reply)
            }
            _ => Answer::ProcedureUnavailable,
        }
    }
}

/// A server that runs.
struct Running {
    address: SocketAddr,
    subject: Arc<Subject>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<Stopped>,
}

fn start(limits: Limits) -> Running {
    start_on("127.0.0.1:0", limits)
}

fn start_on(address: &str, limits: Limits) -> Running {
    let server = Server::bind(address.parse().unwrap(), limits, &[PROGRAM]).unwrap();
    let address = server.tcp_addresses()[0];
    let metrics = server.metrics();
    let subject = Arc::new(Subject::default());
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.run(subject.clone(), stop.clone()));
    Running { address, subject, metrics, stop, task }
}

impl Running {
    async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    async fn finish(self) -> Stopped {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server does not stop").unwrap()
    }

    /// Waits until a counter has a value; the counters of a connection move at the end of its turn.
    async fn until(&self, counter: impl Fn(&Metrics) -> &AtomicU64, wanted: u64) {
        let reached = async {
            while counter(&self.metrics).load(Ordering::Relaxed) != wanted {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        let value = counter(&self.metrics).load(Ordering::Relaxed);
        in_time.unwrap_or_else(|_| panic!("the counter stays at {value}, not {wanted}"));
    }
}

struct Client {
    socket: TcpStream,
}

/// A call of the test program with its record mark.
fn record(xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let message = message(xid, procedure, args);
    let mut record = (message.len() as u32 | 1 << 31).to_be_bytes().to_vec();
    record.extend_from_slice(&message);
    record
}

fn message(xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let header = CallHeader {
        xid,
        program: PROGRAM,
        version: 1,
        procedure,
        credential: OpaqueAuth::NONE,
        verifier: OpaqueAuth::NONE,
    };
    with_header(&header, args)
}

fn with_header(header: &CallHeader, args: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new();
    e.put(header);
    e.raw(args);
    e.into_bytes().to_vec()
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.socket.write_all(bytes)).await.expect("no room to send").unwrap();
    }

    async fn call(&mut self, xid: u32, procedure: u32, args: &[u8]) -> Bytes {
        self.send(&record(xid, procedure, args)).await;
        let (header, rest) = self.reply().await;
        assert_eq!(header, success(xid));
        rest
    }

    /// The next reply: its header and what follows.
    async fn reply(&mut self) -> (ReplyHeader, Bytes) {
        self.try_reply().await.expect("the connection was closed instead")
    }

    /// The next reply, or `None` at the end of the stream.
    async fn try_reply(&mut self) -> Option<(ReplyHeader, Bytes)> {
        let read = async {
            let mark = self.socket.read_u32().await.ok()?;
            assert!(mark & 1 << 31 != 0, "replies are of one fragment");
            let mut reply = vec![0; (mark & !(1 << 31)) as usize];
            self.socket.read_exact(&mut reply).await.ok()?;
            Some(reply)
        };
        let reply = tokio::time::timeout(PATIENCE, read).await.expect("no reply")?;
        let mut d = Decoder::new(reply.into());
        let header = d.decode().unwrap();
        Some((header, d.rest()))
    }

    async fn expect_closed(&mut self) {
        assert!(self.try_reply().await.is_none(), "the connection should be closed");
    }
}

fn success(xid: u32) -> ReplyHeader {
    ReplyHeader::accepted(xid, atoll_proto::rpc::Accepted::Success)
}
