//! The server under test: started on a folder, killed, stopped, started again on the same folder and port.
//!
//! Normally `atoll serve`. `ATOLL_TEST_SERVER=ganesha|knfsd` puts another server in its place ([`super::peers`]):
//! a scenario that fails with all of them is wrong, or shows a trait of the client or of the protocol.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::client::Client;
use super::process::{Process, code};
use super::{HOST_ADDR, LOG, Lab, peers};

/// Where it answers NFS.
pub(crate) const NFS_PORT: u16 = 2049;
/// Lease of NFSv4 clients, in seconds: scenarios wait for ends of leases.
const LEASE: &str = "10";
/// Recovery included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What `atoll serve` promises for a graceful stop is 10 s; the rest is for a loaded machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// What Atoll's log says where clients may only have been slower than they should.
const COMPLAINTS: [&str; 3] = [" ERROR ", "panicked", "was not returned and is revoked"];

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Atoll,
    /// NFS-Ganesha with its VFS back end.
    Ganesha,
    /// The Linux kernel's server, in a User-Mode Linux guest, on ext4.
    Knfsd,
}

/// What runs.
enum Running {
    Nothing,
    Here(Process),
    Guest(Box<Client>),
}

/// A server and the folder it owns.
pub(crate) struct Server {
    lab: Arc<Lab>,
    kind: Kind,
    data: PathBuf,
    running: Running,
}

impl Server {
    /// Starts the server on a new folder and waits until it serves.
    pub(crate) fn start(lab: &Arc<Lab>) -> Server {
        let kind = match std::env::var("ATOLL_TEST_SERVER").as_deref() {
            Err(_) | Ok("atoll") => Kind::Atoll,
            Ok("ganesha") => Kind::Ganesha,
            Ok("knfsd") => Kind::Knfsd,
            Ok(other) => panic!("ATOLL_TEST_SERVER={other}: not atoll, ganesha or knfsd"),
        };
        let data = lab.dir().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut server = Server { lab: Arc::clone(lab), kind, data, running: Running::Nothing };
        server.start_again();
        server
    }

    /// Starts it on its folder, after [`Server::kill`] or [`Server::stop`], and waits until it serves.
    pub(crate) fn start_again(&mut self) {
        self.running = Running::Nothing;
        self.running = match self.kind {
            Kind::Atoll => Running::Here(self.start_atoll()),
            Kind::Ganesha => Running::Here(peers::start_ganesha(&self.lab, &self.data)),
            Kind::Knfsd => Running::Guest(Box::new(peers::start_knfsd(&self.lab, &self.data))),
        };
    }

    fn start_atoll(&self) -> Process {
        let mut cmd = self.lab.command(env!("CARGO_BIN_EXE_atoll"));
        cmd.arg("serve").arg(&self.data);
        cmd.args(["--nfs", &format!("{HOST_ADDR}:{NFS_PORT}"), "--export", "/=*,rw,no_root_squash"]);
        cmd.args(["--lease", LEASE]);
        let log_path = self.lab.dir().join(LOG);
        let log = File::options().create(true).append(true).open(&log_path).unwrap();
        // As [`Server::no_complaints`] reads it.
        cmd.env("ATOLL_LOG", "info,openraft=warn").env_remove("ATOLL_LOG_FORMAT");
        cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process::spawn(cmd);
        let (tx, lines) = channel();
        let stdout = BufReader::new(process.stdout());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| tx.send(l)));
        let end = Instant::now() + START_LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).unwrap_or_else(|e| {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                panic!("atoll serve: no ready line ({e}); its log:\n{log}")
            });
            if let Some(rest) = line.strip_prefix("ready ") {
                assert!(rest.split(' ').any(|w| w == format!("nfs={HOST_ADDR}:{NFS_PORT}")), "{line}");
                // Its standard output is read on by the thread until it ends.
                std::thread::spawn(move || lines.iter().for_each(drop));
                return process;
            }
        }
    }

    /// SIGKILL; for a guest, the power fails.
    pub(crate) fn kill(&mut self) {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Nothing => panic!("the server is not running"),
            Running::Here(mut process) => {
                assert_eq!(process.ended(), None, "the server ended by itself");
                process.kill();
            }
            Running::Guest(guest) => guest.crash(),
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) fn stop(&mut self) {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Here(mut process) if self.kind == Kind::Atoll => {
                process.terminate();
                let status = process.wait(STOP_LIMIT).expect("still running long after SIGTERM");
                assert_eq!(code(status), 0, "exit status after SIGTERM");
            }
            Running::Here(mut process) => process.kill(),
            Running::Guest(mut guest) => {
                guest.sh("sync");
                guest.crash();
            }
            Running::Nothing => panic!("the server is not running"),
        }
    }

    /// Fails if its log, over all its lives, has something that clients need not have noticed. (Of a client that was crashed
    /// delegations are revoked with good reason.)
    pub(crate) fn no_complaints(&self) {
        if self.kind != Kind::Atoll {
            return;
        }
        let log = std::fs::read(self.lab.dir().join(LOG)).unwrap();
        let log = String::from_utf8_lossy(&log);
        assert!(log.contains("frontend registered"), "the log does not tell what it should:\n{log}");
        let complaints: Vec<&str> =
            log.lines().filter(|l| COMPLAINTS.iter().any(|c| l.contains(c))).collect();
        assert!(complaints.is_empty(), "the server says: {complaints:#?}");
    }

    /// The folder it owns.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The server's address in the lab.
    pub(crate) fn addr(&self) -> &'static str {
        if self.kind == Kind::Knfsd { "10.77.0.2" } else { HOST_ADDR }
    }

    /// Mount options that find it without a portmapper.
    pub(crate) fn mount_options(&self) -> String {
        format!("proto=tcp,port={NFS_PORT},mountport={}", self.mount_port())
    }

    /// Where it answers MOUNT, over TCP and UDP.
    pub(crate) fn mount_port(&self) -> u16 {
        if self.kind == Kind::Atoll { NFS_PORT } else { peers::MOUNT_PORT }
    }

    /// The path it exports.
    pub(crate) fn export(&self) -> &'static str {
        if self.kind == Kind::Atoll { "/" } else { "/export" }
    }

    /// `ADDRESS:PATH`, for mount.
    pub(crate) fn mount_source(&self) -> String {
        format!("{}:{}", self.addr(), self.export())
    }
}
