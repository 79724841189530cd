//! Datagrams: MOUNT, portmap, NLM, NSM and RQUOTA, which old clients and tools ask that way.
//!
//! A reply leaves from the address that the call came to (IP_PKTINFO), as clients with connected sockets expect, also
//! where the machine has several addresses. Calls in progress are bounded; what is beyond is dropped, and clients send again.

use super::Shared;
use super::calls::{Flight, Landed, Slot};
use super::incoming::{Opened, Origin, begin_reply, open, reply_header};
use super::limits::READ_BUFFER;
use super::listener::{bind, canonical};
use super::metrics::add;
use crate::rpc::{Answer, RpcCall, RpcHandler, Transport};
use atoll_proto::rpc::ReplyHeader;
use atoll_xdr::Encoder;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use nix::libc::{in_addr, in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Protocol, Type};
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Longest datagram that is read: no call of the programs served is longer than a few KiB.
const LONGEST: usize = READ_BUFFER;

/// Longest reply: what fits into an IPv4 datagram (65 535 less IP and UDP headers).
const LONGEST_REPLY: usize = 65_507;

/// Datagrams read in one turn before other tasks of the thread have theirs.
const READS_PER_TURN: usize = 64;

/// A bound socket that tells to which address a datagram came.
pub(super) struct DatagramSocket {
    socket: UdpSocket,
    local: SocketAddr,
}

/// Our address as the kernel tells it with a datagram and takes it with the reply.
#[derive(Clone, Copy)]
enum PacketInfo {
    V4(in_pktinfo),
    V6(in6_pktinfo),
    Unknown,
}

/// Where a datagram came from and to.
#[derive(Clone, Copy)]
struct Path {
    peer: SocketAddr,
    local: PacketInfo,
}

impl PacketInfo {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::V4(info) => Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())),
            Self::V6(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical()),
            Self::Unknown => None,
        }
    }

    fn of(control: ControlMessageOwned) -> Option<Self> {
        match control {
            // `ipi_spec_dst` is our own address also where the datagram was a broadcast; a multicast address is no source.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let nowhere = in_addr { s_addr: 0 };
                Some(Self::V4(in_pktinfo { ipi_ifindex: 0, ipi_addr: nowhere, ..info }))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                match address {
                    _ if address.is_multicast() => None,
                    // The interface is part of such an address; otherwise the route decides.
                    _ if address.is_unicast_link_local() => Some(Self::V6(info)),
                    _ => Some(Self::V6(in6_pktinfo { ipi6_ifindex: 0, ..info })),
                }
            }
            _ => None,
        }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
}

impl DatagramSocket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = bind(address, Type::DGRAM, Protocol::UDP)?;
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Length of the datagram and its path; `None` if it was cut or came from no address.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Path)>> {
        self.socket.try_io(Interest::READABLE, || {
            let mut pieces = [IoSliceMut::new(buffer)];
            let mut control = nix::cmsg_space!(in6_pktinfo);
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.socket.as_raw_fd();
            let message = recvmsg::<SockaddrStorage>(fd, &mut pieces, Some(&mut control), flags)?;
            let Some(peer) = message.address.as_ref().and_then(socket_address) else { return Ok(None) };
            if message.flags.contains(MsgFlags::MSG_TRUNC) {
                return Ok(None);
            }
            let local = message.cmsgs()?.find_map(PacketInfo::of).unwrap_or(PacketInfo::Unknown);
            Ok(Some((message.bytes, Path { peer, local })))
        })
    }

    /// Sends if the socket takes it now. A reply not taken is as one lost on the way: the client asks again.
    fn try_send(&self, reply: &[u8], path: &Path) -> io::Result<usize> {
        let control = match &path.local {
            PacketInfo::V4(info) => Some(ControlMessage::Ipv4PacketInfo(info)),
            PacketInfo::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
            PacketInfo::Unknown => None,
        };
        let pieces = [IoSlice::new(reply)];
        let peer = SockaddrStorage::from(path.peer);
        self.socket.try_io(Interest::WRITABLE, || {
            let fd = self.socket.as_raw_fd();
            Ok(sendmsg(fd, &pieces, control.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&peer))?)
        })
    }
}

/// Answers datagrams until the server stops; then finishes those begun. Returns how many of those were not done in
/// time.
pub(super) async fn serve<H: RpcHandler>(
    socket: DatagramSocket,
    programs: Arc<[u32]>,
    shared: Arc<Shared>,
    handler: Arc<H>,
) -> usize {
    let call = |call, reply| {
        let handler = handler.clone();
        async move { handler.handle(call, reply).await }
    };
    let mut datagrams = Datagrams {
        socket,
        programs,
        shared: shared.clone(),
        call,
        flights: FuturesUnordered::new(),
        buffer: vec![0; LONGEST],
    };
    let served = std::future::poll_fn(|cx| datagrams.poll(cx));
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        never = served => match never {},
    }
    let rest = std::future::poll_fn(|cx| {
        datagrams.poll_flights(cx);
        if datagrams.flights.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    let _ = tokio::time::timeout(shared.limits.stop_timeout, rest).await;
    datagrams.flights.len()
}

/// A call that was not ready at once, and the way back.
struct Datagram<F> {
    path: Path,
    flight: Flight<F>,
}

impl<F: Future<Output = Answer>> Future for Datagram<F> {
    type Output = (Path, Landed<F>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let landed = ready!(Pin::new(&mut self.flight).poll(cx));
        Poll::Ready((self.path, landed))
    }
}

struct Datagrams<C, F> {
    socket: DatagramSocket,
    programs: Arc<[u32]>,
    shared: Arc<Shared>,
    call: C,
    flights: FuturesUnordered<Datagram<F>>,
    buffer: Vec<u8>,
}

impl<C, F> Datagrams<C, F>
where
    C: Fn(RpcCall, Encoder) -> F,
    F: Future<Output = Answer>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        self.poll_flights(cx);
        for _ in 0..READS_PER_TURN {
            let received = match self.socket.try_receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.socket.poll_recv_ready(cx) {
                        Poll::Ready(_) => continue,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                // An ICMP error of an earlier reply, told on the next call.
                Err(error) => {
                    tracing::debug!(%error, "receiving datagrams");
                    continue;
                }
            };
            let metrics = &self.shared.metrics;
            add(&metrics.datagrams, 1);
            match received {
                Some((len, path)) if self.flights.len() < self.shared.limits.datagrams => {
                    add(&metrics.bytes_in, len);
                    self.start(cx, len, path);
                }
                _ => add(&metrics.datagrams_dropped, 1),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_flights(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some((path, landed))) = self.flights.poll_next_unpin(cx) {
            self.shared.metrics.calls_now.fetch_sub(1, Ordering::Relaxed);
            self.answer(&path, landed);
        }
    }

    fn start(&mut self, cx: &mut Context<'_>, len: usize, path: Path) {
        let local = path.local.address().unwrap_or(self.socket.local.ip());
        let origin = Origin {
            peer: canonical(path.peer),
            local: SocketAddr::new(local, self.socket.local.port()),
            transport: Transport::Udp,
        };
        let message = Bytes::copy_from_slice(&self.buffer[..len]);
        match open(message, &origin, Some(&self.programs)) {
            Opened::Call(call) => {
                add(&self.shared.metrics.calls, 1);
                self.shared.company.datagram();
                let xid = call.xid;
                let mut slot = Slot::new();
                let future = (self.call)(call, begin_reply(BytesMut::new(), xid));
                match slot.start(xid, cx, future) {
                    Poll::Ready(done) => self.answer(&path, Landed { xid, done, slot }),
                    Poll::Pending => {
                        add(&self.shared.metrics.calls_now, 1);
                        let flight = Flight { xid, slot: Some(slot), charge: None };
                        self.flights.push(Datagram { path, flight });
                    }
                }
            }
            Opened::Refused(header) => {
                add(&self.shared.metrics.calls_refused, 1);
                self.send_header(&path, &header);
            }
            Opened::NotACall => add(&self.shared.metrics.datagrams_dropped, 1),
        }
    }

    fn answer(&self, path: &Path, landed: Landed<F>) {
        add(&self.shared.metrics.panics, usize::from(landed.done.is_err()));
        match reply_header(landed.xid, landed.done.unwrap_or(Answer::SystemError)) {
            None => {}
            Some(Ok(header)) => self.send_header(path, &header),
            Some(Err(reply)) => self.send(path, reply),
        }
    }

    fn send_header(&self, path: &Path, header: &ReplyHeader) {
        let mut reply = Encoder::new();
        reply.put(header);
        self.send(path, reply);
    }

    fn send(&self, path: &Path, reply: Encoder) {
        let metrics = &self.shared.metrics;
        let reply = reply.into_bytes();
        if reply.len() > LONGEST_REPLY {
            return add(&metrics.datagrams_dropped, 1);
        }
        match self.socket.try_send(&reply, path) {
            Ok(sent) => add(&metrics.bytes_out, sent),
            Err(error) => {
                add(&metrics.datagrams_dropped, 1);
                tracing::debug!(peer = %path.peer, %error, "sending a datagram");
            }
        }
    }
}
