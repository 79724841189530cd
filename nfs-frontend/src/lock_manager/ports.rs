//! Where a client's lock manager listens, asked of the client's own port mapper and kept for a while.

use super::Config;
use crate::rpc::Transport;
use crate::server::client::{ClientError, Route, call};
use atoll_proto::nlm;
use atoll_proto::portmap::v2::{IPPROTO_TCP, IPPROTO_UDP, Mapping};
use atoll_proto::portmap::v4::Rpcb;
use atoll_proto::portmap::{NetId, format_uaddr, parse_uaddr, v2, v4};
use atoll_xdr::Opaque;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is believed. A client that restarts gets another port; a call that fails asks anew at once.
const KEPT: Duration = Duration::from_secs(60);

/// Clients that are remembered. With more, some are asked again: one datagram for each grant.
const CLIENTS_MAX: usize = 4096;

type Key = (IpAddr, u32, bool);

/// Ports of clients' lock managers.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    port: u16,
    patience: Duration,
    known: Arc<Mutex<HashMap<Key, (u16, Instant)>>>,
}

impl Ports {
    pub(super) fn new(config: &Config) -> Self {
        Self { port: config.portmap_port, patience: config.patience, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, (u16, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the lock manager of a client takes calls of a version.
    pub(super) async fn find(
        &self,
        client: IpAddr,
        local: IpAddr,
        version: u32,
        transport: Transport,
    ) -> Result<SocketAddr, ClientError> {
        let key = (client, version, transport == Transport::Tcp);
        let now = Instant::now();
        if let Some((port, since)) = self.known().get(&key)
            && now < *since + KEPT
        {
            return Ok(SocketAddr::new(client, *port));
        }
        // By datagram first, as everybody does; some networks let only connections through.
        let by_datagram = self.ask(client, local, version, transport, Transport::Udp).await;
        let port = match by_datagram {
            Ok(port) => port,
            Err(_) => self.ask(client, local, version, transport, Transport::Tcp).await?,
        };
        let Some(port) = port else {
            let none = io::Error::new(io::ErrorKind::NotFound, "the client has registered no lock manager");
            return Err(ClientError::Unreachable(none));
        };
        let mut known = self.known();
        if known.len() >= CLIENTS_MAX {
            known.retain(|_, (_, since)| now < *since + KEPT);
        }
        if known.len() < CLIENTS_MAX {
            known.insert(key, (port, now));
        }
        Ok(SocketAddr::new(client, port))
    }

    async fn ask(
        &self,
        client: IpAddr,
        local: IpAddr,
        version: u32,
        wanted: Transport,
        by: Transport,
    ) -> Result<Option<u16>, ClientError> {
        let to = SocketAddr::new(client, self.port);
        let route = Route { to, transport: by, from: Some(local) };
        let stream = wanted == Transport::Tcp;
        let port = if client.is_ipv4() {
            let protocol = if stream { IPPROTO_TCP } else { IPPROTO_UDP };
            let mapping = Mapping { program: nlm::PROGRAM, version, protocol, port: 0 };
            u16::try_from(call::<v2::call::GetPort>(route, self.patience, &mapping).await?).unwrap_or(0)
        } else {
            let text = |s: &str| Opaque::copy_from(s.as_bytes()).expect("netids and addresses are short");
            let wanted = Rpcb {
                program: nlm::PROGRAM,
                version,
                netid: text(NetId::of(stream, true).as_str()),
                addr: text(&format_uaddr(to)),
                owner: Opaque::default(),
            };
            let address = call::<v4::call::GetAddr>(route, self.patience, &wanted).await?;
            parse_uaddr(&address).map_or(0, |address| address.port())
        };
        Ok(Some(port).filter(|port| *port != 0))
    }

    /// What is known of a client has proved wrong.
    pub(super) fn forget(&self, client: IpAddr) {
        self.known().retain(|(ip, ..), _| *ip != client);
    }
}
