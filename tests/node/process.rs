//! The built program: its commands against a running server, and what it refuses.

use crate::nfs::Client;
use atoll_proto::nfs3::{DirOpArgs3, GetAttr3Args, Lookup3Args, Name3, NfsStat3, StableHow, call};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn command(args: &[&str]) -> Command {
    command_of(env!("CARGO_BIN_EXE_atoll").as_ref(), args)
}

fn command_of(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Only what is for people, and errors.
    command.env("ATOLL_LOG", std::env::var("TEST_LOG").unwrap_or("off".into())).env("RUST_LOG", "off");
    command
}

/// Runs a command to its end.
pub(crate) fn atoll(args: &[&str]) -> Done {
    let output = command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Kills a command, unless it ends before; whether it was killed.
pub(crate) fn killed_after(args: &[&str], time: Duration) -> bool {
    let mut child = command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + time;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) nfs: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_atoll").as_ref(), dir, more)
    }

    /// As it is shipped if that was built, for what is long.
    pub(crate) fn start_shipped(dir: &Path, more: &[&str]) -> Self {
        let built = Path::new(env!("CARGO_BIN_EXE_atoll"));
        let shipped = built.parent().and_then(Path::parent).map(|target| target.join("release/atoll"));
        Self::start_program(shipped.filter(|path| path.exists()).as_deref().unwrap_or(built), dir, more)
    }

    fn start_program(program: &Path, dir: &Path, more: &[&str]) -> Self {
        let mut args = vec!["serve", dir.to_str().unwrap(), "--nfs", "127.0.0.1:0"];
        args.extend(more);
        let mut child = command_of(program, &args).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let field = |name: &str| {
            let word = line.split_whitespace().find_map(|w| w.strip_prefix(name));
            word.unwrap_or_else(|| panic!("no {name} in {line:?}")).parse().unwrap()
        };
        assert!(line.starts_with("ready "), "{line:?}");
        Self { nfs: field("nfs="), admin: field("admin="), child }
    }

    /// Its resident memory, in words: now and at the most.
    pub(crate) fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
        };
        format!("the server has {} MiB resident, {} at the most", mib("VmRSS:"), mib("VmHWM:"))
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; how long that took.
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        began.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One HTTP request over TCP; status line and body.
fn http(to: SocketAddr, request: &str, token: Option<&str>, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    let bearer = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
    let len = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\n{bearer}Content-Type: application/json\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn commands_against_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/data");
    let server = Server::start(&data, &["--export", "/=127.0.0.1,rw,no_root_squash"]);
    let dir = data.to_str().unwrap();

    let status = atoll(&["status", dir, "--json"]);
    assert_eq!(status.status, Some(0), "{}", status.stderr);
    let report: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(report["nfs"], server.nfs.to_string());
    for field in [
        "version",
        "cluster_id",
        "uptime_seconds",
        "durability",
        "raft",
        "log",
        "store",
        "blocks",
        "volumes",
        "exports",
        "clients",
        "ops_per_second",
        "procedures",
        "bytes_read",
        "bytes_written",
        "unstable_bytes",
        "outcomes",
        "resident_bytes",
    ] {
        assert!(!report[field].is_null(), "no {field} in {report}");
    }
    assert_eq!(report["raft"]["role"], "leader");
    assert!(report["volumes"][0]["inodes"].as_u64().unwrap() >= 1);
    let text = atoll(&["status", dir]);
    assert!(text.status == Some(0) && text.stdout.contains("durability"), "{}", text.stdout);

    let list = || atoll(&["export", "list", "--dir", dir]).stdout;
    assert_eq!(list().lines().count(), 1);
    assert!(list().contains("no_root_squash"), "{}", list());
    let missing = atoll(&["export", "add", "/media=10.0.0.0/8,ro", "--dir", dir]);
    assert!(missing.status == Some(2) && missing.stderr.contains("/media"), "{}", missing.stderr);
    let made = atoll(&["volume", "create", "scratch", "--dir", dir]);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    let twice = atoll(&["volume", "create", "scratch", "--dir", dir]);
    assert!(twice.status == Some(2) && twice.stderr.contains("exists already"), "{}", twice.stderr);
    let wrong = atoll(&["volume", "create", "a b", "--dir", dir]);
    assert!(wrong.status == Some(2) && wrong.stderr.contains("no name"), "{}", wrong.stderr);
    assert!(atoll(&["volume", "list", "--dir", dir]).stdout.contains("scratch: 1 inodes"));
    let added = atoll(&["export", "add", "/scratch=10.0.0.0/8:[::1],ro,volume=scratch", "--dir", dir]);
    assert_eq!(added.status, Some(0), "{}", added.stderr);
    assert_eq!(list().lines().count(), 2);
    assert_eq!(atoll(&["export", "remove", "/scratch", "--dir", dir]).status, Some(0));
    assert_eq!(list().lines().count(), 1);
    let none = atoll(&["export", "remove", "/scratch", "--dir", dir]);
    assert!(none.status == Some(2) && none.stderr.contains("not exported"), "{}", none.stderr);
    let scrub = atoll(&["scrub", dir]);
    assert!(scrub.status == Some(0) && scrub.stdout.contains("0 problems"), "{}", scrub.stdout);

    // TCP: only with the token.
    let token = {
        let bytes = std::fs::read(data.join("admin.token")).unwrap();
        bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    for token in [None, Some("wrong"), Some("")] {
        let (status, body) = http(server.admin, "GET /v1/status", token, "");
        assert!(status.contains("401") && !body.contains("uptime"), "{status} {body}");
    }
    let (status, body) = http(server.admin, "GET /v1/status", Some(&token), "");
    assert!(status.contains("200") && body.contains("uptime_seconds"), "{status} {body}");
    let (status, body) = http(server.admin, "PUT /v1/exports", Some(&token), r#"{"words":"nonsense"}"#);
    assert!(status.contains("400") && body.contains("error"), "{status} {body}");
    let (status, _) = http(server.admin, "PUT /v1/exports", Some(&token), "{");
    assert!(status.contains("400"), "{status}");

    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("."), 0o700);
    for name in ["admin.sock", "admin.token", "secret.key", "atoll.json", "meta/FORMAT"] {
        assert_eq!(mode(name) & 0o077, 0, "{name}");
    }

    // A second process, of any command that needs the directory for itself.
    let second = atoll(&["serve", dir, "--nfs", "127.0.0.1:0"]);
    assert!(
        second.status == Some(2) && second.stderr.contains("in use by another atoll"),
        "{}",
        second.stderr
    );
    let second = atoll(&["fsck", dir]);
    assert!(
        second.status == Some(2) && second.stderr.contains("in use by another atoll"),
        "{}",
        second.stderr
    );
    // The port is taken.
    let other = data.with_file_name("other");
    let taken = atoll(&["serve", other.to_str().unwrap(), "--nfs", &server.nfs.to_string()]);
    assert!(taken.status == Some(2) && taken.stderr.contains(&server.nfs.to_string()), "{}", taken.stderr);
    assert!(taken.stderr.to_lowercase().contains("in use"), "{}", taken.stderr);

    // A client that is connected and silent does not keep it from stopping.
    let _idle = TcpStream::connect(server.nfs).unwrap();
    let _idle_admin = TcpStream::connect(server.admin).unwrap();
    let took = server.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let gone = atoll(&["status", dir]);
    assert!(gone.status == Some(2) && gone.stderr.contains("atoll serve"), "{}", gone.stderr);
    let fsck = atoll(&["fsck", dir]);
    assert_eq!(fsck.status, Some(0), "{}{}", fsck.stdout, fsck.stderr);
}

#[test]
fn the_socket_of_a_directory_with_a_long_path() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(120)).join("e".repeat(120));
    let server = Server::start(&data, &[]);
    let status = atoll(&["status", data.to_str().unwrap()]);
    assert_eq!(status.status, Some(0), "{}", status.stderr);
    server.stop();
}

#[test]
fn mistakes_are_answered_in_words() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let path = dir.path().to_str().unwrap();
    let foreign = atoll(&["serve", path, "--nfs", "127.0.0.1:0"]);
    assert!(foreign.status == Some(2), "{}", foreign.stderr);
    assert!(foreign.stderr.contains(&format!("atoll import {path} --into")), "{}", foreign.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left in it");
    for (words, hint) in [
        ("media=*,rw", "media"),
        ("/=", "/="),
        ("/=*,rw,ro,nonsense", "nonsense"),
        ("/=300.1.2.3/8,rw", "300.1.2.3"),
    ] {
        let wrong = atoll(&["serve", "/nonexistent/x", "--export", words]);
        assert!(wrong.status == Some(2) && wrong.stderr.contains(hint), "{words}: {}", wrong.stderr);
    }
    let unknown = dir.path().join("empty");
    let missing =
        atoll(&["serve", unknown.to_str().unwrap(), "--nfs", "127.0.0.1:0", "--export", "/media=*,rw"]);
    assert!(missing.status == Some(2) && missing.stderr.contains("/media"), "{}", missing.stderr);
    for command in ["fsck", "scrub", "status"] {
        let wrong = atoll(&[command, path]);
        assert!(wrong.status == Some(2) && wrong.stderr.contains(path), "{command}: {}", wrong.stderr);
    }
    for command in ["serve", "status", "export", "volume", "import", "fsck", "scrub"] {
        let help = atoll(&[command, "--help"]);
        assert!(help.status == Some(0) && help.stdout.contains("Usage: atoll"), "{command}");
    }
}

/// Without its secret a directory is not served, unless somebody says that clients shall mount again.
#[test]
fn a_lost_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let export = ["--export", "/=127.0.0.1,rw,no_root_squash,insecure"];
    let server = Server::start(dir.path(), &export);
    let mut client = Client::mount(server.nfs);
    let before = client.create("kept").unwrap();
    client.write(before, 0, b"kept", StableHow::FileSync).unwrap();
    server.stop();
    let secret = dir.path().join("secret.key");
    std::fs::remove_file(&secret).unwrap();
    for command in [&["serve", path, "--nfs", "127.0.0.1:0"][..], &["fsck", path]] {
        let refused = atoll(command);
        assert_eq!(refused.status, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains(path) && refused.stderr.contains("--new-secret"),
            "{}",
            refused.stderr
        );
    }
    assert!(!secret.exists());
    let server = Server::start(dir.path(), &["--new-secret"]);
    let mut client = Client::mount(server.nfs);
    let known = client.call::<call::GetAttr>(GetAttr3Args { object: before });
    assert!(matches!(known.map_err(|e| e.status), Err(NfsStat3::BadHandle | NfsStat3::Stale)));
    let what = DirOpArgs3 { dir: client.root, name: Name3::from_static(b"kept") };
    let found = client.call::<call::Lookup>(Lookup3Args { what }).map_err(|e| e.status).unwrap().object;
    assert_eq!(client.read(found, 0, 100), &b"kept"[..]);
    server.stop();
    let again = atoll(&["serve", path, "--nfs", "127.0.0.1:0", "--new-secret"]);
    assert!(again.status == Some(2) && again.stderr.contains("is there"), "{}", again.stderr);
}

/// Killed, not stopped: the next start serves the same, and finds no fault.
#[test]
fn after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let server = Server::start(dir.path(), &[]);
        let made = atoll(&["volume", "create", &format!("v{n}"), "--dir", dir.path().to_str().unwrap()]);
        assert_eq!(made.status, Some(0), "{}", made.stderr);
        server.kill();
    }
    let fsck = atoll(&["fsck", dir.path().to_str().unwrap()]);
    assert_eq!(fsck.status, Some(0), "{}{}", fsck.stdout, fsck.stderr);
    let server = Server::start(dir.path(), &[]);
    let volumes = atoll(&["volume", "list", "--dir", dir.path().to_str().unwrap()]).stdout;
    assert!((0..3).all(|n| volumes.contains(&format!("v{n}:"))), "{volumes}");
    server.stop();
}
