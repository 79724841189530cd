//! A private network for one scenario: a network namespace with a bridge, on it the server (a process of this
//! machine) and the clients (each a kernel of its own, see [`client`]).
//!
//! Nothing of it is visible from outside: the addresses and ports (111 included) are free whatever else the
//! machine runs, and several labs can exist at once. Every process of a lab is killed by the kernel when the
//! test's thread ends, however it ends, so a failed test leaves no process, link or mount behind. The files of a failed test stay in
//! `target/tmp/kernel-client/<lab>` until the next run, for reading.

pub(crate) mod client;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io::BufRead, io::BufReader};

use process::{Finished, Process, finish};

/// The address of this machine on the lab's bridge, where the server listens.
pub(crate) const HOST_ADDR: &str = "10.77.0.1";
/// Host part of the address of a server that is a guest (the kernel's own server).
pub(crate) const GUEST_SERVER: u8 = 2;
/// The server's log in the lab's folder.
const LOG: &str = "server.log";
/// Lines of it that are shown when a scenario fails.
const LOG_LINES: usize = 40;
/// Names, addresses: the same file in every client, and for peer servers.
const HOSTS: &str =
    "127.0.0.1 localhost\n10.77.0.1 server\n10.77.0.2 knfsd\n10.77.0.11 clienta\n10.77.0.12 clientb\n";

/// One scenario's network and folder.
pub(crate) struct Lab {
    dir: PathBuf,
    /// A sleeping process whose network namespace is the lab's.
    holder: Process,
}

impl Lab {
    /// Builds the network; `name` (short, unique among tests) names the folder.
    pub(crate) fn new(name: &str) -> Lab {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-client").join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("remove the folder of the run before");
        }
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hosts"), HOSTS).unwrap();
        let script = format!(
            "ip link set lo up && ip link add br0 type bridge && ip addr add {HOST_ADDR}/24 dev br0 && \
             ip link set br0 up && echo up && exec sleep infinity"
        );
        let mut cmd = Command::new("setpriv");
        cmd.args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", &script]);
        cmd.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = Process::spawn(cmd);
        let mut line = String::new();
        BufReader::new(holder.stdout()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "cannot make a network namespace with a bridge: these tests need root");
        Lab { dir, holder }
    }

    /// The scenario's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command that will run in the lab's network and die with the calling thread. Its process id is that of
    /// `program` itself.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut cmd = Command::new("setpriv");
        cmd.args(["--pdeathsig", "KILL", "nsenter"]);
        cmd.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        cmd.arg("--").arg(program);
        cmd
    }

    /// Runs a command on this machine's end of the network, to its end.
    pub(crate) fn run(&self, argv: &[&str], timeout: Duration) -> Finished {
        let mut cmd = self.command(argv[0]);
        cmd.args(&argv[1..]).stdin(Stdio::null());
        finish(cmd, timeout)
    }

    /// [`Lab::run`] for a shell script that must succeed; returns its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let done = self.run(&["sh", "-euc", script], Duration::from_secs(60));
        assert_eq!(done.status, 0, "{script}: {}{}", done.out, done.err);
        done.out
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read(self.dir.join(LOG)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the server's log ends:\n{}",
                lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
            );
        } else {
            // What cannot be removed now is removed by the next run.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where `.ci/setup-client.sh` puts the test programs (`bin/pjdfstest`, `bin/fsx`).
pub(crate) fn tools_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

/// Whether the environment asks for the long form of the scenarios (`ATOLL_LONG=1`).
pub(crate) fn long() -> bool {
    std::env::var_os("ATOLL_LONG").is_some_and(|v| v == "1")
}
