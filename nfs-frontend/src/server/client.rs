//! Calls that the server itself makes: to rpcbind, and to the lock managers of its clients.
//!
//! Each is one transmission on a socket of its own. The error tells whether anything can have reached the peer, because a
//! GRANTED that may have been received must not be taken for one that was not.

use crate::rpc::Transport;
use atoll_proto::rpc::{Accepted, AuthSys, CallHeader, Gids, OpaqueAuth, Procedure, ReplyBody, ReplyHeader};
use atoll_xdr::{Decode, Decoder, Encode, Encoder, Opaque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixStream};
use tokio::time::timeout;

/// Longest reply that is read: a full table of rpcbind is some KiB.
const LONGEST_REPLY: usize = 64 * 1024;

/// Ports that only a privileged process can bind and that no well-known service has (bindresvport(3)). Old lock
/// managers take calls from no other.
const RESERVED_PORTS: Range<u16> = 665..1024;

/// Reserved ports that are tried before any port will do.
const RESERVED_TRIES: u16 = 8;

const LAST_FRAGMENT: u32 = 1 << 31;

/// Why a call has no results.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing reached the peer.
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    /// The call was sent, and no answer came in time.
    #[error("does not answer")]
    Unanswered,
    /// The call was sent, and then the connection broke.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The peer answered that it did not execute the call.
    #[error("refuses the call: {0:?}")]
    Refused(ReplyBody),
    /// The answer makes no sense.
    #[error("answers with garbage")]
    Garbage,
}

impl ClientError {
    /// Whether the peer may have executed the call.
    pub(crate) fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Refused(_) => false,
            Self::Unanswered | Self::Lost(_) | Self::Garbage => true,
        }
    }
}

/// Where a call goes, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: SocketAddr,
    pub(crate) transport: Transport,
    /// Our address, if this machine (still) has it: peers know the server by the address they mounted.
    pub(crate) from: Option<IpAddr>,
}

fn next_xid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if NEXT.load(Ordering::Relaxed) == 0 {
        // After a restart, replies to calls of the former life must not be taken for ours.
        let start = getrandom::u32().unwrap_or(1);
        let _ = NEXT.compare_exchange(0, start | 1, Ordering::Relaxed, Ordering::Relaxed);
    }
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A procedure known by its numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: u32,
}

impl Target {
    fn of<P: Procedure>() -> Self {
        Self { program: P::PROGRAM, version: P::VERSION, procedure: P::PROCEDURE }
    }
}

fn message(xid: u32, target: Target, args: &impl Encode) -> Vec<u8> {
    let root = AuthSys {
        stamp: 0,
        machine_name: Opaque::from_static(b"atoll"),
        uid: 0,
        gid: 0,
        gids: Gids::default(),
    };
    let mut e = Encoder::new();
    e.put(&CallHeader {
        xid,
        program: target.program,
        version: target.version,
        procedure: target.procedure,
        credential: OpaqueAuth::sys(&root),
        verifier: OpaqueAuth::NONE,
    });
    e.put(args);
    e.into_bytes().to_vec()
}

/// `None` if it answers another call.
fn results<T: Decode>(reply: Vec<u8>, xid: u32) -> Option<Result<T, ClientError>> {
    let mut d = Decoder::new(reply.into());
    let Ok(header) = d.decode::<ReplyHeader>() else { return Some(Err(ClientError::Garbage)) };
    if header.xid != xid {
        return None;
    }
    Some(match header.body {
        ReplyBody::Accepted { stat: Accepted::Success, .. } => d.decode().map_err(|_| ClientError::Garbage),
        refused => Err(ClientError::Refused(refused)),
    })
}

/// Calls a procedure once.
pub(crate) async fn call<P: Procedure>(
    route: Route,
    patience: Duration,
    args: &P::Args,
) -> Result<P::Res, ClientError> {
    call_target(route, patience, Target::of::<P>(), args).await
}

/// As [`call`], where the version is known only as a number.
pub(crate) async fn call_target<T: Decode>(
    route: Route,
    patience: Duration,
    target: Target,
    args: &impl Encode,
) -> Result<T, ClientError> {
    let xid = next_xid();
    let message = message(xid, target, args);
    match route.transport {
        Transport::Udp => {
            let socket = datagram_socket(&route).map_err(ClientError::Unreachable)?;
            socket.connect(route.to).await.map_err(ClientError::Unreachable)?;
            socket.send(&message).await.map_err(ClientError::Unreachable)?;
            let receive = async {
                let mut reply = vec![0; LONGEST_REPLY];
                loop {
                    match socket.recv(&mut reply).await {
                        Ok(len) => {
                            if let Some(results) = results(reply[..len].to_vec(), xid) {
                                return results;
                            }
                        }
                        // ICMP: nobody has the port, so nobody got the call.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                            return Err(ClientError::Unreachable(error));
                        }
                        Err(error) => return Err(ClientError::Lost(error)),
                    }
                }
            };
            timeout(patience, receive).await.unwrap_or(Err(ClientError::Unanswered))
        }
        Transport::Tcp => {
            let connected = timeout(patience, connect(&route)).await;
            let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            exchange(stream.map_err(ClientError::Unreachable)?, patience, xid, message).await
        }
    }
}

/// Calls a procedure of a service that listens on a local socket.
pub(crate) async fn call_local<P: Procedure>(
    path: &Path,
    patience: Duration,
    args: &P::Args,
) -> Result<P::Res, ClientError> {
    let xid = next_xid();
    let connected = timeout(patience, UnixStream::connect(path)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    exchange(stream.map_err(ClientError::Unreachable)?, patience, xid, message(xid, Target::of::<P>(), args))
        .await
}

async fn exchange<T: Decode, S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    patience: Duration,
    xid: u32,
    message: Vec<u8>,
) -> Result<T, ClientError> {
    let exchange = async {
        let mark = u32::try_from(message.len()).expect("calls are short") | LAST_FRAGMENT;
        let mut record = mark.to_be_bytes().to_vec();
        record.extend_from_slice(&message);
        stream.write_all(&record).await?;
        loop {
            let mut reply = Vec::new();
            loop {
                let mark = stream.read_u32().await?;
                let len = (mark & !LAST_FRAGMENT) as usize;
                let start = reply.len();
                if start + len > LONGEST_REPLY || len == 0 {
                    return Ok(Err(ClientError::Garbage));
                }
                reply.resize(start + len, 0);
                stream.read_exact(&mut reply[start..]).await?;
                if mark & LAST_FRAGMENT != 0 {
                    break;
                }
            }
            if let Some(results) = results(reply, xid) {
                return Ok(results);
            }
        }
    };
    match timeout(patience, exchange).await {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => Err(ClientError::Lost(error)),
        Err(_) => Err(ClientError::Unanswered),
    }
}

/// Addresses to send from, best first.
fn sources(route: &Route) -> Vec<SocketAddr> {
    let any = match route.to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let own = route.from.filter(|from| from.is_ipv4() == any.is_ipv4());
    let start = getrandom::u32().unwrap_or(0) as u16;
    let reserved = (0..RESERVED_TRIES)
        .map(|i| RESERVED_PORTS.start + start.wrapping_add(i) % (RESERVED_PORTS.end - RESERVED_PORTS.start));
    let ports: Vec<u16> = reserved.chain([0]).collect();
    let addresses = own.into_iter().chain([any]);
    addresses.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port))).collect()
}

fn datagram_socket(route: &Route) -> io::Result<UdpSocket> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for source in sources(route) {
        match std::net::UdpSocket::bind(source) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return UdpSocket::from_std(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(route: &Route) -> io::Result<TcpStream> {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let mut last = AddrNotAvailable.into();
    for source in sources(route) {
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // There are few reserved ports, and each stays in TIME_WAIT for a minute after a call. They can be bound again all the
        // same; only the same peer's port is then in use, and connecting says so.
        socket.set_reuseaddr(true)?;
        let connected = match socket.bind(source) {
            Ok(()) => socket.connect(route.to).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if matches!(error.kind(), AddrInUse | AddrNotAvailable | PermissionDenied) => {
                last = error
            }
            connected => return connected,
        }
    }
    Err(last)
}
