//! The servers that are measured: Atoll and its peers, each a process of its own.

pub mod ganesha;
mod process;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::machine::Pinning;
use ganesha::SyncFileSystem;
pub use process::{CpuTime, Process};

/// How long a server may take to serve.
const READY: Duration = Duration::from_secs(30);
/// Size of the file system that is mounted `sync,dirsync`; the file that holds it is sparse.
const SYNC_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The server of this repository.
    Atoll,
    /// NFS-Ganesha, VFS, on the same file system as Atoll's data.
    Ganesha,
    /// NFS-Ganesha, VFS, on an ext4 mounted sync,dirsync.
    GaneshaSync,
    /// Demo server of the crate `nfsserve`.
    Nfsserve,
    /// Demo server of the crate `nfs3_server`.
    Nfs3Server,
    /// Raw records over TCP: the limit of the network.
    TcpEcho,
    /// Raw records over TCP, appended and synced in groups: the limit of the log.
    TcpAppend,
}

impl Peer {
    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Atoll => "Atoll",
            Self::Ganesha => "Ganesha",
            Self::GaneshaSync => "Ganesha, sync ext4",
            Self::Nfsserve => "nfsserve demo",
            Self::Nfs3Server => "nfs3_server demo",
            Self::TcpEcho => "TCP echo (limit)",
            Self::TcpAppend => "TCP + group fdatasync (limit)",
        }
    }

    /// What its acknowledgements promise.
    pub fn durability(self) -> &'static str {
        match self {
            Self::Atoll => "everything acknowledged as stable is on disk (log, group fdatasync)",
            Self::Ganesha => "FILE_SYNC and COMMIT synced; CREATE, REMOVE, RENAME, MKDIR not synced",
            Self::GaneshaSync => "everything synced: ext4 on a loop device, mounted sync,dirsync",
            Self::Nfsserve | Self::Nfs3Server => "none: in memory",
            Self::TcpEcho => "none: no data",
            Self::TcpAppend => "every record appended, group fdatasync",
        }
    }

    /// Whether it is a server of files.
    pub fn serves_files(self) -> bool {
        !matches!(self, Self::TcpEcho | Self::TcpAppend)
    }

    /// Whether it keeps its data in memory, so that restarting it loses them and sizes must stay modest.
    pub fn in_memory(self) -> bool {
        matches!(self, Self::Nfsserve | Self::Nfs3Server)
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Site {
    /// Directory for data, on the file system that is measured.
    pub root: PathBuf,
    /// The binary of Atoll.
    pub atoll: PathBuf,
    /// Directory of the binaries of the demo servers.
    pub demos: PathBuf,
    /// Cores.
    pub pinning: Pinning,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Which one.
    pub peer: Peer,
    /// Its process.
    pub process: Process,
    /// Where NFS is served.
    pub nfs: SocketAddr,
    /// Where MOUNT is served.
    pub mount: SocketAddr,
    /// Path to mount.
    pub export: String,
    /// Everything it stores is below.
    pub data: PathBuf,
    /// Unmounted when the server is gone: fields are dropped in order.
    sync_file_system: Option<SyncFileSystem>,
}

impl Server {
    /// Starts a server on an empty directory and waits until it serves.
    pub fn start(peer: Peer, site: &Site) -> Result<Self> {
        let home = site.root.join(format!("{peer:?}").to_lowercase());
        fs::create_dir_all(&home)?;
        let sync_file_system = match peer {
            Peer::GaneshaSync => {
                Some(SyncFileSystem::mount(&home, SYNC_BYTES).context("mounting ext4 with sync,dirsync")?)
            }
            _ => None,
        };
        let data = match &sync_file_system {
            Some(mounted) => mounted.path().join("data"),
            None => home.join("data"),
        };
        fs::create_dir_all(&data)?;
        Self::launch(peer, site, &home, data, sync_file_system)
    }

    /// Stops it and starts it again on the same data, with `between` done while it is down.
    pub fn restart(self, site: &Site, between: impl FnOnce() -> io::Result<()>) -> Result<Self> {
        let Self { peer, process, data, sync_file_system, .. } = self;
        process.stop().with_context(|| format!("stopping {}", peer.name()))?;
        between()?;
        let home = site.root.join(format!("{peer:?}").to_lowercase());
        Self::launch(peer, site, &home, data, sync_file_system)
    }

    /// Stops it.
    pub fn stop(self) -> Result<()> {
        self.process.stop().with_context(|| format!("stopping {}", self.peer.name()))
    }

    /// Bytes that the disk holds of what was stored, see [`crate::machine::space_used`]. A log of some segments of a fixed
    /// size, written with zeros beforehand, is no part of it: it is as large for one file as for all.
    pub fn space_used(&self) -> io::Result<u64> {
        let log = (self.peer == Peer::Atoll).then(|| self.data.join("meta/log"));
        crate::machine::space_used(&self.data, log.as_deref())
    }

    fn launch(
        peer: Peer,
        site: &Site,
        home: &Path,
        data: PathBuf,
        sync_file_system: Option<SyncFileSystem>,
    ) -> Result<Self> {
        let started = match peer {
            Peer::Atoll => start_atoll(site, &data),
            Peer::Ganesha | Peer::GaneshaSync => start_ganesha(site, home, &data),
            Peer::Nfsserve => start_demo(site, "nfsserve-demo"),
            Peer::Nfs3Server => start_demo(site, "nfs3-server-demo"),
            Peer::TcpEcho => start_reply_server(site, None),
            Peer::TcpAppend => start_reply_server(site, Some(&data.join("log"))),
        };
        let (process, nfs, mount) = started.with_context(|| format!("starting {}", peer.name()))?;
        let export = match peer {
            Peer::Ganesha | Peer::GaneshaSync => data.to_string_lossy().into_owned(),
            _ => "/".to_owned(),
        };
        Ok(Self { peer, process, nfs, mount, export, data, sync_file_system })
    }
}

type Started = (Process, SocketAddr, SocketAddr);

fn start_atoll(site: &Site, data: &Path) -> Result<Started> {
    if !site.atoll.exists() {
        bail!("there is no {}: cargo build --release", site.atoll.display());
    }
    let mut command = Command::new(&site.atoll);
    let nfs = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    command.arg("serve").arg(data).args(["--nfs", &nfs.to_string()]);
    command.args(["--export", "/=*,rw,no_root_squash,insecure"]);
    command.stderr(fs::File::create(data.with_extension("log"))?);
    start_announced(command, site)
}

/// Starts what says `ready nfs=ADDR:PORT` on standard output, and serves MOUNT on the same port.
fn start_announced(command: Command, site: &Site) -> Result<Started> {
    let mut process = Process::start(command, &site.pinning)?;
    let nfs = process.line(READY, ready_address)?;
    Ok((process, nfs, nfs))
}

/// The address in a line such as `ready nfs=127.0.0.1:2049 admin=…`.
fn ready_address(line: &str) -> Option<SocketAddr> {
    let words = line.strip_prefix("ready ")?;
    words.split(' ').find_map(|word| word.strip_prefix("nfs=")).and_then(|address| address.parse().ok())
}

fn start_demo(site: &Site, name: &str) -> Result<Started> {
    let binary = site.demos.join(name);
    if !binary.exists() {
        bail!("there is no {}: cargo build --release in bench/peers", binary.display());
    }
    let mut command = Command::new(binary);
    command.arg(format!("127.0.0.1:{}", free_port()?)).stderr(std::process::Stdio::null());
    start_announced(command, site)
}

fn start_reply_server(site: &Site, log: Option<&Path>) -> Result<Started> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("reply-server");
    if let Some(log) = log {
        command.arg("--log").arg(log);
    }
    start_announced(command, site)
}

fn start_ganesha(site: &Site, home: &Path, data: &Path) -> Result<Started> {
    let ports = (free_port()?, free_port()?);
    let config = ganesha::Config { nfs_port: ports.0, mount_port: ports.1, export: data.to_path_buf() };
    let path = home.join("ganesha.conf");
    fs::write(&path, config.render())?;
    let log = home.join("ganesha.log");
    let mut command = ganesha::command(&path, &log, &home.join("ganesha.pid"));
    command.stderr(std::process::Stdio::null());
    let mut process =
        Process::start(command, &site.pinning).context("ganesha.nfsd (apt install nfs-ganesha-vfs)")?;
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (nfs, mount) = (address(ports.0), address(ports.1));
    let serves = || TcpStream::connect(nfs).is_ok() && TcpStream::connect(mount).is_ok();
    process.wait_until(READY, serves).with_context(|| format!("see {}", log.display()))?;
    Ok((process, nfs, mount))
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Set by `bench/run` when the network is one of its own.
const OWN_NETWORK: &str = "ATOLL_BENCH_OWN_NETWORK";

/// Starts rpcbind if nobody serves port 111: Ganesha refuses to start without one. It listens on all addresses (Debian's
/// crashes when told not to), so it is only started in a network that nobody else is in.
pub fn ensure_rpcbind(pinning: &Pinning) -> Result<Option<Process>> {
    let serves = || TcpStream::connect((Ipv4Addr::LOCALHOST, 111)).is_ok();
    if serves() {
        return Ok(None);
    }
    if std::env::var_os(OWN_NETWORK).is_none() {
        bail!(
            "Ganesha needs rpcbind and none runs: use bench/run as root, which gives it a network of its own"
        );
    }
    let mut command = Command::new("rpcbind");
    command.args(["-w", "-f"]).stderr(std::process::Stdio::null());
    let mut process = Process::start(command, pinning).context("rpcbind (apt install rpcbind)")?;
    process.wait_until(READY, serves).context("rpcbind")?;
    Ok(Some(process))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_address_is_read_from_the_line_that_says_ready() {
        let address = ready_address("ready nfs=127.0.0.1:2049 admin=[::1]:9090").unwrap();
        assert_eq!(address, SocketAddr::from((Ipv4Addr::LOCALHOST, 2049)));
        assert_eq!(ready_address("mount with nfs=127.0.0.1:2049"), None);
    }
}
