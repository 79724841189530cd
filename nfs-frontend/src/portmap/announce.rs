//! Making the programs findable: clients ask port 111 where MOUNT and NLM are.

use super::program::Service;
use super::rpcbind::{Registered, register};
use crate::server::Server;
use atoll_proto::portmap::{NetId, PORT, PROGRAM};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the well-known port is, and whether it may be taken.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the server may listen on the well-known port itself.
    pub listen: bool,
    /// Whether a running rpcbind may be told.
    pub register: bool,
    /// The well-known port: 111 but in tests.
    pub port: u16,
    /// Local socket of rpcbind.
    pub socket: PathBuf,
    /// Time for each answer of rpcbind.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: true,
            register: true,
            port: PORT,
            socket: "/run/rpcbind.sock".into(),
            patience: Duration::from_secs(2),
        }
    }
}

/// How clients find the programs.
#[derive(Debug)]
pub enum Announcement {
    /// This server listens on the well-known port.
    OwnPort111,
    /// A running rpcbind knows them. To be withdrawn at the stop.
    Registered(Registered),
    /// Only clients that are told the ports: mount options `port=`, `mountport=` and `nolock`.
    None {
        /// Why.
        reason: String,
    },
}

impl Announcement {
    /// Takes back what was told to rpcbind.
    pub async fn withdraw(self) {
        if let Self::Registered(registered) = self {
            registered.withdraw().await;
        }
    }
}

/// Makes `services`, which the server offers on `address`, known on the well-known port. Before [`Server::run`]: a
/// listener may be added.
pub async fn announce(
    server: &mut Server,
    address: IpAddr,
    services: &[Service],
    config: &Config,
) -> Announcement {
    let mut reasons = Vec::new();
    if config.listen {
        match server.add_both(SocketAddr::new(address, config.port), &[PROGRAM]) {
            Ok(_) => return Announcement::OwnPort111,
            Err(error) => reasons.push(format!("port {}: {error}", config.port)),
        }
    }
    if config.register {
        let netids: Vec<NetId> = NetId::ALL
            .into_iter()
            .filter(|netid| {
                let dual = address.is_ipv6() && address.is_unspecified();
                dual || netid.is_ipv6() == address.is_ipv6()
            })
            .collect();
        let rpcbind = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), config.port);
        match register(&config.socket, rpcbind, services, &netids, config.patience).await {
            Ok(registered) => return Announcement::Registered(registered),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        reasons.push("not asked for".to_owned());
    }
    Announcement::None { reason: reasons.join("; ") }
}
