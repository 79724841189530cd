//! NFS on top of a node: engine, sockets, port mapper, admin API.

mod clients;
mod names;
mod report;
mod states;

use crate::node::Node;
use crate::service::report::Rates;
use anyhow::{Context, Result};
use atoll_blockstore::BlockStore;
use atoll_core::service::LocalMetadata;
use atoll_nfs::dispatch::{self, Programs};
use atoll_nfs::engine::{Config as EngineConfig, Engine, HandleKey, Parts, SystemResolver};
use atoll_nfs::lock_manager::{Config as LockConfig, LockManager};
use atoll_nfs::portmap::{self, Announcement, Portmap};
use atoll_nfs::server::{Limits, Metrics, Server, Stopped};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The engine of this program.
pub type NfsEngine = Engine<LocalMetadata, BlockStore>;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where NFS and its side protocols listen.
    pub nfs: SocketAddr,
    /// Bounds of the sockets.
    pub limits: Limits,
    /// Settings of the engine.
    pub engine: EngineConfig,
    /// How clients are to find the lock manager and MOUNT.
    pub portmap: portmap::Config,
    /// Secret of the cluster: the keys of file handles are derived from it.
    pub secret: [u8; 32],
}

/// A node that serves NFS.
pub struct Service {
    /// What it serves.
    pub node: Arc<Node>,
    /// The engine.
    pub engine: Arc<NfsEngine>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Why clients do not find its ports by themselves, if so.
    pub unannounced: Option<String>,
    cluster_id: String,
    metrics: Arc<Metrics>,
    rates: Rates,
    started: Instant,
    stop: CancellationToken,
    /// Held by the listing that walks through the state.
    listing: tokio::sync::Mutex<()>,
    serving: tokio::sync::Mutex<Option<JoinHandle<Stopped>>>,
    announced: tokio::sync::Mutex<Option<Announcement>>,
}

impl Service {
    /// Binds the sockets, without serving them yet: who connects waits.
    pub fn listen(options: &Options) -> Result<Server> {
        Server::bind(options.nfs, options.limits.clone(), &dispatch::datagram_programs())
            .with_context(|| format!("cannot listen on {}", options.nfs))
    }

    /// Binds the sockets and serves. When it returns, clients are answered.
    pub async fn start(node: Arc<Node>, cluster_id: String, options: Options) -> Result<Arc<Self>> {
        let server = Self::listen(&options)?;
        Self::start_on(server, node, cluster_id, options).await
    }

    /// Serves on sockets that are bound already.
    pub async fn start_on(
        mut server: Server,
        node: Arc<Node>,
        cluster_id: String,
        options: Options,
    ) -> Result<Arc<Self>> {
        let address = server.tcp_addresses()[0];
        let parts = Parts {
            meta: node.meta.clone(),
            blocks: Arc::new(node.blocks.clone()),
            frontend: node.frontend(),
            handle_key: handle_key(&options.secret),
            clock: node.clock.clone(),
            resolver: Arc::new(SystemResolver),
        };
        let engine =
            Engine::start(options.engine, parts).await.context("cannot register the NFS frontend")?;
        let stop = CancellationToken::new();
        let locks = LockManager::new(node.meta.clone(), engine.clone(), LockConfig::default());
        let port = address.port();
        let services = dispatch::services(port, Some(port));
        let announced = portmap::announce(&mut server, address.ip(), &services, &options.portmap).await;
        // What the port mapper says of itself: where clients look for it, if it is there.
        let mapper_port = match &announced {
            Announcement::OwnPort111 => options.portmap.port,
            Announcement::Registered(_) | Announcement::None { .. } => port,
        };
        let handler = Programs::new(engine.clone(), locks.clone(), Portmap::new(services, mapper_port));
        let metrics = server.metrics();
        let serving = tokio::spawn(server.run(Arc::new(handler), stop.clone()));
        tokio::spawn(locks.run(stop.clone()));
        let unannounced = match &announced {
            Announcement::None { reason } => Some(reason.clone()),
            Announcement::OwnPort111 | Announcement::Registered(_) => None,
        };
        Ok(Arc::new(Self {
            node,
            engine,
            address,
            unannounced,
            announced: tokio::sync::Mutex::new(Some(announced)),
            cluster_id,
            rates: Rates::start(metrics.clone(), stop.clone()),
            metrics,
            started: Instant::now(),
            stop,
            listing: tokio::sync::Mutex::default(),
            serving: tokio::sync::Mutex::new(Some(serving)),
        }))
    }

    /// Cancelled when the service stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Finishes what was accepted, writes UNSTABLE data and closes the node.
    pub async fn stop(&self) -> Result<()> {
        self.stop.cancel();
        if let Some(announced) = self.announced.lock().await.take() {
            announced.withdraw().await;
        }
        if let Some(serving) = self.serving.lock().await.take() {
            match serving.await {
                Ok(Stopped { cut_off: 0 }) => {}
                Ok(Stopped { cut_off }) => {
                    tracing::warn!(cut_off, "connections were cut off before their calls were done");
                }
                Err(error) => tracing::error!(%error, "the server died"),
            }
        }
        let lost = self.engine.flush_all().await;
        if lost > 0 {
            tracing::error!(
                files = lost,
                "UNSTABLE data of these files could not be written; clients will be told"
            );
        }
        self.node.close().await
    }
}

/// File handles of all nodes of a cluster open with the same key.
fn handle_key(secret: &[u8; 32]) -> HandleKey {
    let mut key = [0; 16];
    key.copy_from_slice(&secret[..16]);
    HandleKey::new(&key)
}
