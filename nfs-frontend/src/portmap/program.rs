//! Port mapper version 2, rpcbind versions 3 and 4 (RFC 1833), about our own programs only.
//!
//! Nobody can register anything: SET and UNSET answer FALSE. Indirect calls (CALLIT, BCAST, INDIRECT) are not carried out: they would
//! let anyone bounce calls off this server, with its address as their source.

use crate::rpc::{Answer, RpcCall, Transport};
use atoll_proto::portmap::v2::{IPPROTO_TCP, IPPROTO_UDP, Mapping};
use atoll_proto::portmap::v3::{NetBuf, Rpcb};
use atoll_proto::portmap::v4::{NC_TPI_CLTS, NC_TPI_COTS_ORD, RpcbEntry};
use atoll_proto::portmap::{NetId, PROGRAM, RpcbString, format_uaddr, parse_uaddr, v2, v3, v4};
use atoll_xdr::{Encode, Encoder, List, Opaque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// GETSTAT, of version 4 only (RFC 1833 §2.1 RPCBPROC_GETSTAT).
const GETSTAT: u32 = 12;

/// Procedures that are counted in each version (RFC 1833 §2.1 RPCBSTAT_HIGHPROC).
const PROCEDURES: usize = 13;

const VERSIONS: [u32; 3] = [2, 3, 4];

/// One version of a program and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Program.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// TCP port.
    pub tcp: Option<u16>,
    /// UDP port.
    pub udp: Option<u16>,
}

impl Service {
    /// Its port on a transport.
    pub fn port(&self, stream: bool) -> Option<u16> {
        if stream { self.tcp } else { self.udp }
    }
}

/// Answers port mapper calls.
#[derive(Debug)]
pub struct Portmap {
    services: Vec<Service>,
    calls: [[AtomicU32; PROCEDURES]; VERSIONS.len()],
}

impl Portmap {
    /// For these services. The port mapper itself is among what it tells, on `port`.
    pub fn new(services: Vec<Service>, port: u16) -> Self {
        let own =
            VERSIONS.map(|version| Service { program: PROGRAM, version, tcp: Some(port), udp: Some(port) });
        Self { services: own.into_iter().chain(services).collect(), calls: Default::default() }
    }

    /// Answers a call of program 100000, version 2, 3 or 4.
    pub fn answer(&self, call: &RpcCall, mut reply: Encoder) -> Answer {
        let counts = VERSIONS.iter().position(|v| *v == call.version);
        if let Some(count) = counts.and_then(|v| self.calls[v].get(call.procedure as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let answered = match call.version {
            2 => self.version_2(call, &mut reply),
            version @ (3 | 4) => self.version_3_4(version, call, &mut reply),
            _ => return Answer::ProgramMismatch(2, 4),
        };
        match answered {
            Ok(()) => Answer::Success(reply),
            Err(answer) => answer,
        }
    }

    fn version_2(&self, call: &RpcCall, reply: &mut Encoder) -> Result<(), Answer> {
        use v2::Proc;
        match Proc::from_u32(call.procedure).ok_or(Answer::ProcedureUnavailable)? {
            Proc::Null => {}
            Proc::Set | Proc::Unset => {
                args::<Mapping>(call)?;
                reply.bool(false);
            }
            Proc::GetPort => {
                let wanted = args::<Mapping>(call)?;
                let stream = match wanted.protocol {
                    IPPROTO_TCP => Some(true),
                    IPPROTO_UDP => Some(false),
                    _ => None,
                };
                let port = stream.and_then(|stream| self.find(wanted.program, wanted.version, stream));
                reply.u32(port.unwrap_or(0).into());
            }
            Proc::Dump => {
                let transports = [(true, IPPROTO_TCP), (false, IPPROTO_UDP)];
                let all = self.services.iter().flat_map(|s| {
                    transports.into_iter().filter_map(|(stream, protocol)| {
                        let port = s.port(stream)?.into();
                        Some(Mapping { program: s.program, version: s.version, protocol, port })
                    })
                });
                put_list(reply, all.collect());
            }
            Proc::CallIt => return Err(Answer::Drop),
        }
        Ok(())
    }

    /// Version 4 has all procedures of version 3 under the same numbers.
    fn version_3_4(&self, version: u32, call: &RpcCall, reply: &mut Encoder) -> Result<(), Answer> {
        use v4::Proc;
        if version == 3 && v3::Proc::from_u32(call.procedure).is_none() {
            return Err(Answer::ProcedureUnavailable);
        }
        if version == 4 && call.procedure == GETSTAT {
            self.put_statistics(reply);
            return Ok(());
        }
        match Proc::from_u32(call.procedure).ok_or(Answer::ProcedureUnavailable)? {
            Proc::Null => {}
            Proc::Set | Proc::Unset => {
                args::<Rpcb>(call)?;
                reply.bool(false);
            }
            Proc::GetAddr => {
                let wanted = args::<Rpcb>(call)?;
                let (netid, stream) = asked_transport(call, &wanted);
                let port = self.find(wanted.program, wanted.version, stream);
                put_string(reply, &port.map_or(String::new(), |port| address(call, netid, port)));
            }
            Proc::GetVersAddr => {
                let wanted = args::<Rpcb>(call)?;
                let (netid, stream) = asked_transport(call, &wanted);
                let port = self.find_exactly(wanted.program, wanted.version, stream);
                put_string(reply, &port.map_or(String::new(), |port| address(call, netid, port)));
            }
            Proc::Dump => {
                let all = self.services.iter().flat_map(|s| {
                    NetId::ALL.into_iter().filter_map(|netid| {
                        let port = s.port(netid.is_stream())?;
                        Some(Rpcb {
                            program: s.program,
                            version: s.version,
                            netid: text(netid.as_str()),
                            addr: text(&format_uaddr(SocketAddr::new(wildcard(netid), port))),
                            owner: text("superuser"),
                        })
                    })
                });
                put_list(reply, all.collect());
            }
            // Of both it is said that failure is silent.
            Proc::Bcast => return Err(Answer::Drop),
            Proc::Indirect => return Err(Answer::ProcedureUnavailable),
            Proc::GetTime => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // The word wraps in 2106, as its readers expect.
                reply.u32(now.as_secs() as u32);
            }
            Proc::Uaddr2Taddr => {
                let buf = parse_uaddr(&args::<RpcbString>(call)?).map(to_sockaddr).unwrap_or_default();
                let maxlen = u32::try_from(buf.len()).expect("a sockaddr is short");
                let buf = Opaque::new(buf).expect("a sockaddr is shorter than the bound");
                reply.put(&NetBuf { maxlen, buf });
            }
            Proc::Taddr2Uaddr => {
                let address = from_sockaddr(&args::<NetBuf>(call)?.buf);
                put_string(reply, &address.map_or(String::new(), format_uaddr));
            }
            Proc::GetAddrList => {
                let wanted = args::<Rpcb>(call)?;
                let netids = NetId::ALL.into_iter().filter(|netid| netid.is_ipv6() == call.local.is_ipv6());
                let all = netids.filter_map(|netid| {
                    let port = self.find_exactly(wanted.program, wanted.version, netid.is_stream())?;
                    Some(RpcbEntry {
                        addr: text(&address(call, netid, port)),
                        netid: text(netid.as_str()),
                        semantics: if netid.is_stream() { NC_TPI_COTS_ORD } else { NC_TPI_CLTS },
                        protocol_family: text(if netid.is_ipv6() { "inet6" } else { "inet" }),
                        protocol: text(if netid.is_stream() { "tcp" } else { "udp" }),
                    })
                });
                put_list(reply, all.collect());
            }
        }
        Ok(())
    }

    fn find_exactly(&self, program: u32, version: u32, stream: bool) -> Option<u16> {
        let service = self.services.iter().find(|s| s.program == program && s.version == version);
        service.and_then(|s| s.port(stream))
    }

    /// As rpcbind: if there is not that version, then any (the program itself answers with the versions it has).
    fn find(&self, program: u32, version: u32, stream: bool) -> Option<u16> {
        let any = || self.services.iter().filter(|s| s.program == program).find_map(|s| s.port(stream));
        self.find_exactly(program, version, stream).or_else(any)
    }

    /// `rpcb_stat_byvers`: for each version the calls by procedure, successful SETs and UNSETs (none), and two lists of
    /// look-ups and of indirect calls by program, which are not kept.
    fn put_statistics(&self, reply: &mut Encoder) {
        for version in &self.calls {
            for count in version {
                reply.u32(count.load(Ordering::Relaxed));
            }
            for _ in 0..4 {
                reply.u32(0);
            }
        }
    }
}

fn args<T: atoll_xdr::Decode>(call: &RpcCall) -> Result<T, Answer> {
    call.args.clone().decode().map_err(|_| Answer::GarbageArgs)
}

fn text(s: &str) -> RpcbString {
    Opaque::copy_from(s.as_bytes()).expect("netids, owners and universal addresses are short")
}

fn put_string(reply: &mut Encoder, s: &str) {
    reply.opaque(s.as_bytes());
}

fn put_list<T: Encode>(reply: &mut Encoder, all: Vec<T>) {
    const MAX: usize = atoll_proto::portmap::MAX_MAPPINGS;
    reply.put(&List::<T, MAX>::new(all).expect("there are some dozens of services"));
}

/// The transport a question is about: the one it names, or by which it came.
fn asked_transport(call: &RpcCall, wanted: &Rpcb) -> (NetId, bool) {
    let came = NetId::of(call.transport == Transport::Tcp, call.local.is_ipv6());
    let netid = NetId::from_bytes(&wanted.netid).unwrap_or(came);
    (netid, netid.is_stream())
}

fn wildcard(netid: NetId) -> IpAddr {
    if netid.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// The address that the caller reached us by, if it is of the family asked about.
fn address(call: &RpcCall, netid: NetId, port: u16) -> String {
    let ip = call.local.ip();
    let ip = if ip.is_ipv6() == netid.is_ipv6() { ip } else { wildcard(netid) };
    format_uaddr(SocketAddr::new(ip, port))
}

/// Families in a `sockaddr` of Linux.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `sockaddr_in` (ip(7)) or `sockaddr_in6` (ipv6(7)), in the form of this machine.
fn to_sockaddr(address: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(v4) => {
            out.extend(AF_INET.to_ne_bytes());
            out.extend(v4.port().to_be_bytes());
            out.extend(v4.ip().octets());
            out.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            out.extend(AF_INET6.to_ne_bytes());
            out.extend(v6.port().to_be_bytes());
            out.extend(v6.flowinfo().to_be_bytes());
            out.extend(v6.ip().octets());
            out.extend(v6.scope_id().to_ne_bytes());
        }
    }
    out
}

fn from_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        AF_INET => Some(SocketAddr::new(IpAddr::from(*rest.first_chunk::<4>()?), port)),
        AF_INET6 => {
            let ip = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)))
        }
        _ => None,
    }
}
