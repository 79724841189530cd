//! Listening sockets and the loop that accepts connections.

use super::Shared;
use super::connection::{Closed, Connection};
use super::incoming::Origin;
use super::limits::Limits;
use super::metrics::add;
use super::peers::Admission;
use crate::rpc::{RpcHandler, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long accepting rests when the process has no file descriptor or memory left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Times that keepalive asks before it gives up.
const KEEPALIVE_PROBES: u32 = 4;

/// The address as its own family has it: a dual-stack socket shows IPv4 peers mapped into IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A socket bound to `address`. One bound to the IPv6 wildcard address serves IPv4 as well.
pub(super) fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    if kind == Type::STREAM {
        // A restarted server takes its port back although connections of its former life linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A TCP listener.
pub(super) fn listen(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(i32::try_from(limits.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

fn prepare(socket: &TcpStream, limits: &Limits) -> io::Result<SocketAddr> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(limits.keepalive)
        .with_interval(limits.keepalive / KEEPALIVE_PROBES)
        .with_retries(KEEPALIVE_PROBES);
    options.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(limits.unacknowledged))?;
    socket.local_addr()
}

/// Accepts and serves connections until the server stops; then waits for them. Returns how many had to be cut off.
pub(super) async fn serve<H: RpcHandler>(
    listener: TcpListener,
    programs: Option<Arc<[u32]>>,
    shared: Arc<Shared>,
    handler: Arc<H>,
) -> usize {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let peer = canonical(peer);
                    match shared.peers.admit(peer.ip()) {
                        Some(admission) => {
                            let task = connection(socket, peer, admission, programs.clone(), &shared, &handler);
                            connections.spawn(task);
                        }
                        None => add(&shared.metrics.connections_refused, 1),
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task ended out of turn");
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.limits.stop_timeout, ended).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    connections.shutdown().await;
    cut
}

/// An error of the connection that was to be accepted, not of the listener (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkUnreachable, PermissionDenied, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}

fn connection<H: RpcHandler>(
    socket: TcpStream,
    peer: SocketAddr,
    admission: Admission,
    programs: Option<Arc<[u32]>>,
    shared: &Arc<Shared>,
    handler: &Arc<H>,
) -> impl Future<Output = ()> + Send + use<H> {
    let shared = shared.clone();
    let handler = handler.clone();
    async move {
        let metrics = shared.metrics.clone();
        let local = match prepare(&socket, &shared.limits) {
            Ok(local) => canonical(local),
            Err(error) => {
                tracing::debug!(%peer, %error, "connection lost before it began");
                return;
            }
        };
        add(&metrics.connections, 1);
        let _open = OpenConnection::new(&shared);
        let origin = Origin { peer, local, transport: Transport::Tcp };
        let call = move |call, reply| {
            let handler = handler.clone();
            async move { handler.handle(call, reply).await }
        };
        let closed = Connection::new(shared.clone(), admission, socket, origin, programs, call).run().await;
        match &closed {
            Closed::RecordTimeout | Closed::WriteTimeout => add(&metrics.connections_timed_out, 1),
            Closed::Record(_) | Closed::NotACall => add(&metrics.connections_broken, 1),
            Closed::End | Closed::Stopped | Closed::Io(_) | Closed::Idle | Closed::Unanswerable => {}
        }
        tracing::debug!(%peer, reason = %closed, "connection closed");
    }
}

/// Counts an open connection as long as it lives.
struct OpenConnection(Arc<Shared>);

impl OpenConnection {
    fn new(shared: &Arc<Shared>) -> Self {
        add(&shared.metrics.connections_now, 1);
        Self(shared.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.metrics.connections_now.fetch_sub(1, Ordering::Relaxed);
    }
}
