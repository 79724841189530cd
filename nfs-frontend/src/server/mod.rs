//! The only place with sockets: listeners, connections, datagrams.
//!
//! [`Server::bind`] takes the ports, [`Server::run`] serves an [`RpcHandler`] on them until it is told to stop. What one
//! client can make the server hold is bounded by [`Limits`]; any bytes it sends end in an RPC error or a closed connection.

mod calls;
pub(crate) mod client;
mod company;
mod connection;
mod incoming;
mod input;
mod limits;
mod listener;
mod metrics;
mod output;
mod peers;
mod pool;
pub(crate) mod reverse;
mod udp;

#[cfg(test)]
mod tests;

pub use limits::{Limits, raise_open_files};
pub use metrics::Metrics;
pub use reverse::{Connection, Reverse, ReverseError};

use crate::rpc::RpcHandler;
use company::Company;
use peers::Peers;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use udp::DatagramSocket;

/// What all connections share.
struct Shared {
    limits: Limits,
    metrics: Arc<Metrics>,
    peers: Arc<Peers>,
    company: Company,
    /// Set before `stop` is cancelled: to look at it costs a connection no lock at each turn.
    stopping: AtomicBool,
    stop: CancellationToken,
}

/// Sockets that are bound and not yet served.
pub struct Server {
    shared: Arc<Shared>,
    streams: Vec<(TcpListener, Option<Arc<[u32]>>)>,
    datagrams: Vec<(DatagramSocket, Arc<[u32]>)>,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut off because their calls or replies were not done in time.
    pub cut_off: usize,
}

impl Server {
    /// A server without sockets.
    pub fn new(limits: Limits) -> Self {
        let limits = limits.consistent();
        let shared = Shared {
            metrics: Arc::new(Metrics::default()),
            peers: Peers::new(&limits),
            company: Company::default(),
            limits,
            stopping: AtomicBool::new(false),
            stop: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), streams: Vec::new(), datagrams: Vec::new() }
    }

    /// A server on one port, TCP for every program and UDP for `datagram_programs`. The IPv6 wildcard address takes IPv4
    /// connections as well. Port 0 takes a free one.
    pub fn bind(address: SocketAddr, limits: Limits, datagram_programs: &[u32]) -> io::Result<Self> {
        let mut server = Self::new(limits);
        let bound = server.add_tcp(address, None)?;
        server.add_udp(bound, datagram_programs)?;
        Ok(server)
    }

    /// Listens on one more address, there for `programs` only if given, and returns it with its port.
    pub fn add_tcp(&mut self, address: SocketAddr, programs: Option<&[u32]>) -> io::Result<SocketAddr> {
        let listener = listener::listen(address, &self.shared.limits)?;
        let bound = listener.local_addr()?;
        self.streams.push((listener, programs.map(Arc::from)));
        Ok(bound)
    }

    /// Takes datagrams on one more address, for `programs` only, and returns it with its port.
    pub fn add_udp(&mut self, address: SocketAddr, programs: &[u32]) -> io::Result<SocketAddr> {
        let socket = DatagramSocket::bind(address)?;
        let bound = socket.local_addr();
        self.datagrams.push((socket, programs.into()));
        Ok(bound)
    }

    /// Adds TCP and UDP on the same port for `programs` only, or neither.
    pub fn add_both(&mut self, address: SocketAddr, programs: &[u32]) -> io::Result<SocketAddr> {
        let bound = self.add_tcp(address, Some(programs))?;
        self.add_udp(bound, programs).inspect_err(|_| {
            self.streams.pop();
        })
    }

    /// Addresses of the TCP listeners, in the order of their adding.
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.streams.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Counters, which live on beside the server.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.metrics.clone()
    }

    /// Serves until `stop` is cancelled. Then nothing more is accepted or read, calls that were begun are finished and their
    /// replies sent, and connections that have not ended within [`Limits::stop_timeout`] are cut off.
    pub async fn run<H: RpcHandler>(self, handler: Arc<H>, stop: CancellationToken) -> Stopped {
        let shared = self.shared;
        let mut sockets = JoinSet::new();
        for (listener, programs) in self.streams {
            sockets.spawn(listener::serve(listener, programs, shared.clone(), handler.clone()));
        }
        for (socket, programs) in self.datagrams {
            sockets.spawn(udp::serve(socket, programs, shared.clone(), handler.clone()));
        }
        stop.cancelled().await;
        shared.stopping.store(true, Ordering::SeqCst);
        shared.stop.cancel();
        let mut cut_off = 0;
        while let Some(ended) = sockets.join_next().await {
            match ended {
                Ok(cut) => cut_off += cut,
                Err(error) => tracing::error!(%error, "a listener's task ended out of turn"),
            }
        }
        Stopped { cut_off }
    }
}

/// All addresses of this machine, of both families if it has IPv6.
pub fn any_address(port: u16) -> SocketAddr {
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    let has_v6 = listener::bind(v6, socket2::Type::DGRAM, socket2::Protocol::UDP).is_ok();
    let ip = if has_v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, port)
}
