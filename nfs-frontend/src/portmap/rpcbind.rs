//! Registration with the rpcbind of this machine.
//!
//! Its local socket is asked first, for there it knows who asks; then its loopback address, version 4 and then the old port
//! mapper's version 2, in which IPv6 cannot be said.

use super::program::Service;
use crate::rpc::Transport;
use crate::server::client::{ClientError, Route, call, call_local};
use atoll_proto::portmap::v2::{IPPROTO_TCP, IPPROTO_UDP, Mapping};
use atoll_proto::portmap::v4::Rpcb;
use atoll_proto::portmap::{NetId, format_uaddr, parse_uaddr, v2, v4};
use atoll_proto::rpc::Procedure;
use atoll_xdr::Opaque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registration {
    /// Program.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// Transport.
    pub netid: NetId,
    /// Our port.
    pub port: u16,
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {} on {}", self.program, self.version, self.netid.as_str())
    }
}

/// How an rpcbind is spoken to.
#[derive(Clone, Debug)]
enum Way {
    Local(PathBuf),
    Loopback(SocketAddr),
    /// Version 2 over loopback.
    Old(SocketAddr),
}

/// What is registered, to be withdrawn when the server stops.
#[derive(Debug)]
pub struct Registered {
    way: Way,
    patience: Duration,
    /// What others can find us by.
    pub entries: Vec<Registration>,
    /// What another living service holds already, and was left to it.
    pub held_by_others: Vec<Registration>,
}

/// Whether someone at `address` executes or at least answers calls.
async fn is_alive(address: SocketAddr, netid: NetId, patience: Duration) -> bool {
    let transport = if netid.is_stream() { Transport::Tcp } else { Transport::Udp };
    let route = Route { to: address, transport, from: None };
    // Which program is asked does not matter: whatever RPC service has the port answers, if only that it is another.
    match call::<v2::call::Null>(route, patience, &()).await {
        Ok(()) | Err(ClientError::Refused(_)) => true,
        Err(_) => false,
    }
}

impl Way {
    async fn call<P: Procedure>(&self, patience: Duration, args: &P::Args) -> Result<P::Res, ClientError> {
        match self {
            Self::Local(path) => call_local::<P>(path, patience, args).await,
            Self::Loopback(to) | Self::Old(to) => {
                let route = Route { to: *to, transport: Transport::Tcp, from: None };
                call::<P>(route, patience, args).await
            }
        }
    }

    /// Whether the entry stands afterwards.
    async fn set(&self, entry: &Registration, patience: Duration) -> Result<bool, ClientError> {
        match self {
            Self::Old(_) => self.call::<v2::call::Set>(patience, &mapping(entry)).await,
            _ => self.call::<v4::call::Set>(patience, &rpcb(entry)).await,
        }
    }

    async fn unset(&self, entry: &Registration, patience: Duration) -> Result<bool, ClientError> {
        match self {
            Self::Old(_) => self.call::<v2::call::Unset>(patience, &mapping(entry)).await,
            _ => self.call::<v4::call::Unset>(patience, &rpcb(entry)).await,
        }
    }

    /// Port under which the program is registered already.
    async fn registered(&self, entry: &Registration, patience: Duration) -> Result<Option<u16>, ClientError> {
        match self {
            Self::Old(_) => {
                let port = self.call::<v2::call::GetPort>(patience, &mapping(entry)).await?;
                Ok(u16::try_from(port).ok().filter(|port| *port != 0))
            }
            _ => {
                // The answer to a question of one address cannot be told for the other family: look through all.
                let all = self.call::<v4::call::Dump>(patience, &()).await?;
                let same = |r: &&Rpcb| {
                    r.program == entry.program
                        && r.version == entry.version
                        && &r.netid[..] == entry.netid.as_str().as_bytes()
                };
                Ok(all.iter().find(same).and_then(|r| parse_uaddr(&r.addr)).map(|address| address.port()))
            }
        }
    }
}

fn mapping(entry: &Registration) -> Mapping {
    Mapping {
        program: entry.program,
        version: entry.version,
        protocol: if entry.netid.is_stream() { IPPROTO_TCP } else { IPPROTO_UDP },
        port: entry.port.into(),
    }
}

fn rpcb(entry: &Registration) -> Rpcb {
    let any: IpAddr =
        if entry.netid.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let text = |s: &str| Opaque::copy_from(s.as_bytes()).expect("netids and addresses are short");
    Rpcb {
        program: entry.program,
        version: entry.version,
        netid: text(entry.netid.as_str()),
        addr: text(&format_uaddr(SocketAddr::new(any, entry.port))),
        owner: text("superuser"),
    }
}

fn loopback(netid: NetId) -> IpAddr {
    if netid.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

/// Registers services for these transports by the first way that works.
pub(super) async fn register(
    local: &std::path::Path,
    address: SocketAddr,
    services: &[Service],
    netids: &[NetId],
    patience: Duration,
) -> Result<Registered, String> {
    let wanted: Vec<Registration> = services
        .iter()
        .flat_map(|s| {
            netids.iter().filter_map(|netid| {
                let port = s.port(netid.is_stream())?;
                Some(Registration { program: s.program, version: s.version, netid: *netid, port })
            })
        })
        .collect();
    let mut reasons = Vec::new();
    for way in [Way::Local(local.into()), Way::Loopback(address), Way::Old(address)] {
        let wanted: Vec<Registration> = match way {
            Way::Old(_) => wanted.iter().filter(|e| !e.netid.is_ipv6()).copied().collect(),
            _ => wanted.clone(),
        };
        let mut registered = Registered { way, patience, entries: Vec::new(), held_by_others: Vec::new() };
        match registered.enter(&wanted).await {
            Ok(()) if !registered.entries.is_empty() => return Ok(registered),
            Ok(()) => reasons.push("rpcbind refuses registrations".to_owned()),
            Err(error) => {
                registered.withdraw().await;
                reasons.push(format!("rpcbind {error}"));
            }
        }
    }
    reasons.dedup();
    Err(reasons.join("; "))
}

impl Registered {
    async fn enter(&mut self, wanted: &[Registration]) -> Result<(), ClientError> {
        for entry in wanted {
            if self.way.set(entry, self.patience).await? {
                self.entries.push(*entry);
                continue;
            }
            let Some(port) = self.way.registered(entry, self.patience).await? else { continue };
            if is_alive(SocketAddr::new(loopback(entry.netid), port), entry.netid, self.patience).await {
                self.held_by_others.push(*entry);
                continue;
            }
            // Of a former life of ours, or of someone else who is gone.
            self.way.unset(entry, self.patience).await?;
            if self.way.set(entry, self.patience).await? {
                self.entries.push(*entry);
            }
        }
        Ok(())
    }

    /// Takes the entries back. What fails is left: the next start finds it dead and replaces it.
    pub async fn withdraw(self) {
        for entry in &self.entries {
            if let Err(error) = self.way.unset(entry, self.patience).await {
                tracing::warn!(%entry, %error, "withdrawing a registration from rpcbind");
                if matches!(error, ClientError::Unreachable(_) | ClientError::Unanswered) {
                    return;
                }
            }
        }
    }
}
