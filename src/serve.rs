//! `atoll serve`: the command around [`crate::service`].

use crate::admin;
use crate::data_dir::DataDir;
use crate::export_syntax::{self, ExportWords};
use crate::mount_hints::{self, PortMapper};
use crate::node::{Node, Options as NodeOptions};
use crate::service::{Options as ServiceOptions, Service};
use anyhow::{Context, Result};
use atoll_meta::export::ClientMatch;
use atoll_meta::service::MetadataService;
use atoll_nfs::engine::Config as EngineConfig;
use atoll_nfs::portmap;
use atoll_nfs::server::{Limits, any_address, raise_open_files};
use clap::Args;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What NFS clients try by themselves.
const NFS_PORT: u16 = 2049;

#[derive(Args)]
pub(crate) struct Options {
    /// The data directory: everything Atoll owns is below it. Made if it does not exist.
    dir: PathBuf,
    /// Where to serve NFS, MOUNT, NLM, NSM, NFSACL, RQUOTA and the port mapper [default: all addresses, port 2049].
    #[arg(long, value_name = "ADDR:PORT")]
    nfs: Option<SocketAddr>,
    /// Where to serve the admin API on TCP, beside the Unix socket in DIR; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// Lease of NFSv4 clients in seconds, 5 to 3600: how long a client that is not heard is sure to keep its opens and locks.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=3600))]
    lease: u32,
    /// Name users and groups as NAME@DOMAIN to NFSv4 clients, by this machine's user database. Without it they are named by their numbers, which says the same
    /// at every client; give it only where the clients' idmapd has the same domain.
    #[arg(long, value_name = "DOMAIN")]
    idmap_domain: Option<String>,
    /// Memory in MiB for what clients read again and again in large pieces; 0 for none [default: 1/32 of the machine's memory, at most 256].
    #[arg(long, value_name = "MIB")]
    read_cache: Option<u32>,
    /// Export a path: 'PATH=CLIENTS,OPTION,…' such as '/=192.168.0.0/16:host.example,rw,no_root_squash'. May be given
    /// several times; kept until `atoll export remove`.
    #[arg(long, value_name = "EXPORT")]
    export: Vec<ExportWords>,
    /// Make a new secret.key where it was lost. All clients must then unmount and mount again: the handles they hold are stale.
    #[arg(long)]
    new_secret: bool,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn run(options: Options) -> Result<()> {
    raise_open_files();
    if !Path::new("/proc/self/fd").is_dir() {
        tracing::warn!(
            "/proc is not mounted: the disk is read and written through the page cache, which is slower"
        );
    }
    let data = match options.new_secret {
        true => DataDir::open_with_new_secret(&options.dir)?,
        false => DataDir::open_or_create(&options.dir)?,
    };
    let service = ServiceOptions {
        nfs: options.nfs.unwrap_or_else(|| any_address(NFS_PORT)),
        limits: Limits::default(),
        engine: EngineConfig {
            lease: Duration::from_secs(u64::from(options.lease)),
            idmap_domain: options.idmap_domain,
            ..EngineConfig::default()
        },
        portmap: portmap::Config::default(),
        secret: data.secret,
    };
    // A client that lost its connection to a server that was killed is refused once and then waits: Linux comes back after 3 s, then 6 s.
    // Connections that come while the data are being opened wait less.
    let sockets = Service::listen(&service)?;
    let mut node = NodeOptions::for_disk(&data.identity, data.disk.as_ref())?;
    node.progress = Arc::new(|words| eprintln!("{words}"));
    node.blocks.repeated_bytes = match options.read_cache {
        Some(mib) => usize::try_from(u64::from(mib) << 20)?,
        None => node.blocks.repeated_bytes.min(memory_of_machine() / 32),
    };
    let node = Arc::new(Node::open(data.disk.clone(), node).await?);
    export_what_was_asked(&node, &options.export).await?;
    let service = Service::start_on(sockets, node, data.identity.cluster_id.clone(), service).await?;
    admin::server::serve_unix(service.clone(), &data.admin_socket(), service.stopping()).await?;
    let listener = TcpListener::bind(options.admin)
        .await
        .with_context(|| format!("cannot listen on {} for the admin API", options.admin))?;
    let admin = listener.local_addr()?;
    admin::server::serve_tcp(service.clone(), listener, data.token.clone(), service.stopping());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let nfs = service.address;
    println!("ready nfs={nfs} admin={admin}");
    tell_how_to_mount(&service);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    service.stop().await?;
    tracing::info!("stopped; nothing is left to recover");
    Ok(())
}

/// In bytes.
fn memory_of_machine() -> usize {
    let info = rustix::system::sysinfo();
    usize::try_from(info.totalram.saturating_mul(info.mem_unit.into())).unwrap_or(usize::MAX)
}

async fn export_what_was_asked(node: &Node, asked: &[ExportWords]) -> Result<()> {
    for export in asked {
        let text = export_syntax::to_words(&export.spec, export.volume.as_deref());
        node.put_export(export.clone()).await.with_context(|| format!("--export '{text}'"))?;
        if export.spec.clients.contains(&ClientMatch::Any) {
            tracing::warn!("{} is exported to everybody who reaches this machine", export.spec.path);
        }
    }
    if node.meta.exports().list.is_empty() {
        node.put_export_spec(export_syntax::loopback_only()).await?;
        tracing::info!("/ is exported to this machine only; to open it: --export '/=CLIENTS,rw'");
    }
    Ok(())
}

/// Prints the lines to mount with, for people: nothing reads them.
fn tell_how_to_mount(service: &Service) {
    let nfs = service.address;
    let mapper = match &service.unannounced {
        None => PortMapper::Reachable,
        Some(reason) => {
            tracing::warn!(
                "clients do not find the ports by themselves ({reason}); mount with: {}",
                mount_hints::linux_options(nfs.port(), &PortMapper::Missing(reason.clone()))
            );
            PortMapper::Missing(reason.clone())
        }
    };
    if !std::io::stderr().is_terminal() {
        return;
    }
    let exports = service.node.meta.exports();
    let Some(export) = exports.list.first() else { return };
    let host = match nfs.ip() {
        ip if !ip.is_unspecified() => match ip {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        },
        _ if *export
            == (atoll_meta::export::Export { id: export.id, spec: export_syntax::loopback_only() }) =>
        {
            "localhost".to_owned()
        }
        _ => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    for line in mount_hints::lines(&host, nfs, &export.spec.path, &mapper) {
        eprintln!("{line}");
    }
}
