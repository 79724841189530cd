//! NFS on top of a node: engine, sockets, port mapper, admin API.

mod programs;
mod report;

use crate::node::Node;
use crate::service::report::Rates;
use anyhow::{Context, Result};
use atoll_blockstore::BlockStore;
use atoll_core::service::LocalMetadata;
use atoll_nfs::engine::{Config as EngineConfig, Engine, HandleKey, Parts, SystemResolver};
use atoll_nfs::server::{Limits, Metrics, Server, Stopped};
use programs::Programs;
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
    pub addresses: Vec<SocketAddr>,
    cluster_id: String,
    metrics: Arc<Metrics>,
    rates: Rates,
    started: Instant,
    stop: CancellationToken,
    serving: tokio::sync::Mutex<Option<JoinHandle<Stopped>>>,
}

impl Service {
    /// Binds the sockets and serves. When it returns, clients are answered.
    pub async fn start(node: Arc<Node>, cluster_id: String, options: Options) -> Result<Arc<Self>> {
        let server = Server::bind(options.nfs, options.limits, &programs::IN_DATAGRAMS)
            .with_context(|| format!("cannot listen on {}", options.nfs))?;
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
        let handler = Arc::new(Programs::new(engine.clone()));
        let (addresses, metrics) = (server.tcp_addresses(), server.metrics());
        let serving = tokio::spawn(server.run(handler, stop.clone()));
        Ok(Arc::new(Self {
            node,
            engine,
            addresses,
            cluster_id,
            rates: Rates::start(metrics.clone(), stop.clone()),
            metrics,
            started: Instant::now(),
            stop,
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
