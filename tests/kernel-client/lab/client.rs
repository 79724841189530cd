//! A Linux NFS client: boot it, run jobs in it, crash it.
//!
//! Two kinds, driven alike. Where the machine's kernel has an NFS client, the client is a set of namespaces
//! (network, mount, UTS, PID). Elsewhere it is a User-Mode Linux guest: the ordinary kernel as a process, whose
//! root is the host's root below an overlay that is thrown away. `ATOLL_TEST_CLIENT=uml|direct` overrides the
//! choice, `ATOLL_UML_KERNEL=BINARY[:MODULES]` names another UML kernel than the distribution's.
//!
//! Both run `guest/guest.sh` and then `guest/runner.py`, which takes jobs over standard input (of the guest: a serial
//! line) and reports on standard output; a job's script and output are files in the shared folder.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::Lab;
use super::process::{Finished, Process};
use super::server::{NFS_PORT, Server};

/// Where scenarios mount.
pub(crate) const MNT: &str = "/mnt/nfs";
/// A boot takes 4 s on two idle cores; the limit leaves room for a loaded machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Limit for a job whose caller gives none.
const JOB_LIMIT: Duration = Duration::from_secs(120);

/// Kernel messages that mean a wrong answer by the server, or a fault of the client.
const COMPLAINTS: [&str; 9] = [
    "WARNING: ",
    "BUG: ",
    "blocked for more than",
    "readdir loop",
    "fileid changed",
    "Buggy server",
    "unexpected unlock status",
    "bad sequence-id",
    "not responding",
];

/// What the job runner reports.
enum Event {
    Ready,
    Line(u32, String),
    Done(u32, i32),
    /// The client's initialisation asks for its network link (direct kind only).
    WantsLink,
    /// The client is gone.
    End,
}

/// A job that was started in a client.
#[derive(Clone, Copy)]
pub(crate) struct Job(u32);

/// A client, booted or booting.
pub(crate) struct Client {
    lab: Arc<Lab>,
    name: String,
    /// Host part of its address.
    host: u8,
    dir: PathBuf,
    direct: bool,
    process: Process,
    to_runner: ChildStdin,
    events: Receiver<Event>,
    ready: bool,
    last_job: u32,
    lines: HashMap<u32, VecDeque<String>>,
    done: HashMap<u32, i32>,
}

impl Client {
    /// Starts booting client `a` or `b`; [`Client::ready`] or the first job waits for it.
    pub(crate) fn boot(lab: &Arc<Lab>, letter: char) -> Client {
        let host = 11 + (letter as u8 - b'a');
        Client::boot_as(lab, &format!("client{letter}"), host, uses_host_kernel(), &[])
    }

    /// Starts a User-Mode Linux guest that will act as a server: no client daemons, `args` for its kernel.
    pub(crate) fn boot_server(lab: &Arc<Lab>, host: u8, args: &[String]) -> Client {
        let args: Vec<String> = args.iter().cloned().chain(["kc_server=1".to_owned()]).collect();
        Client::boot_as(lab, "knfsd", host, false, &args)
    }

    fn boot_as(lab: &Arc<Lab>, name: &str, host: u8, direct: bool, args: &[String]) -> Client {
        let dir = lab.dir().join(name);
        prepare_share(lab, &dir);
        let settings = [
            format!("kc_share={}", dir.display()),
            format!("kc_tools={}", super::tools_dir().display()),
            format!("kc_name={name}"),
            format!("kc_addr=10.77.0.{host}/24"),
        ];
        let mut cmd = lab.command("unshare");
        cmd.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
        if direct {
            cmd.args(["--net", "--uts", "--", "env"]).args(&settings);
            cmd.arg("sh").arg(dir.join("guest.sh")).arg("direct");
        } else {
            uml_command(&mut cmd, lab, &dir, host, &settings, args);
        }
        let console = File::options().create(true).append(true).open(dir.join("console.log")).unwrap();
        cmd.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(console);
        let mut process = Process::spawn(cmd);
        let to_runner = process.stdin();
        let from_runner = BufReader::new(process.stdout());
        let (tx, events) = channel();
        std::thread::spawn(move || {
            for line in from_runner.split(b'\n').map_while(Result::ok) {
                let Some(event) = parse_event(&String::from_utf8_lossy(&line)) else { continue };
                if tx.send(event).is_err() {
                    return;
                }
            }
            let _ = tx.send(Event::End);
        });
        Client {
            lab: Arc::clone(lab),
            name: name.to_owned(),
            host,
            dir,
            direct,
            process,
            to_runner,
            events,
            ready: false,
            last_job: 0,
            lines: HashMap::new(),
            done: HashMap::new(),
        }
    }

    /// Its address in the lab.
    pub(crate) fn addr(&self) -> String {
        format!("10.77.0.{}", self.host)
    }

    /// Waits until it takes jobs.
    pub(crate) fn ready(&mut self) {
        let end = Instant::now() + BOOT_LIMIT;
        while !self.ready {
            self.next_event(end, "boot");
        }
    }

    /// Mounts the server's export by version 3 on [`MNT`], with `options` beside the ones that find the server.
    pub(crate) fn mount(&mut self, server: &Server, options: &str) {
        let found = server.mount_options();
        let source = server.mount_source();
        self.sh(&format!("mount -t nfs -o vers=3,{found},{options} {source} {MNT}"));
    }

    /// Mounts it by version `4.0`, `4.1` or `4.2` on `at`, which is made if it is not there.
    pub(crate) fn mount4(&mut self, server: &Server, version: &str, at: &str) {
        let source = server.mount_source();
        self.sh(&format!(
            "mkdir -p {at}; mount -t nfs -o vers={version},proto=tcp,port={NFS_PORT} {source} {at}"
        ));
    }

    /// How often it has sent each operation on the mount at `at`, by its kernel's counters.
    pub(crate) fn operations(&mut self, at: &str) -> HashMap<String, u64> {
        let text = self.sh(&format!("sed -n '\\,mounted on {at} ,,/^device/p' /proc/self/mountstats"));
        let count = |line: &str| {
            let (name, numbers) = line.trim().split_once(": ")?;
            let first = numbers.split_whitespace().next()?.parse().ok()?;
            name.chars().all(|c| c.is_ascii_uppercase() || c == '_').then(|| (name.to_owned(), first))
        };
        text.lines().filter_map(count).collect()
    }

    /// Runs a shell script (`sh -eu`) that must succeed; returns its output.
    pub(crate) fn sh(&mut self, script: &str) -> String {
        self.sh_within(script, JOB_LIMIT)
    }

    /// [`Client::sh`] with another time limit.
    pub(crate) fn sh_within(&mut self, script: &str, limit: Duration) -> String {
        let job = self.start("sh -eu", script);
        self.succeed(job, limit)
    }

    /// Runs a Python program that must succeed; returns its output.
    pub(crate) fn python(&mut self, program: &str, limit: Duration) -> String {
        let job = self.start("python3", program);
        self.succeed(job, limit)
    }

    /// Starts a job; several may run at once.
    pub(crate) fn start(&mut self, interpreter: &str, script: &str) -> Job {
        self.launch("run", interpreter, script)
    }

    /// Starts a job with which the test talks, line by line.
    pub(crate) fn talk(&mut self, interpreter: &str, script: &str) -> Job {
        self.launch("talk", interpreter, script)
    }

    fn launch(&mut self, verb: &str, interpreter: &str, script: &str) -> Job {
        self.ready();
        self.last_job += 1;
        let id = self.last_job;
        fs::write(self.dir.join(format!("job.{id}")), script).unwrap();
        self.tell(&format!("{verb} {id} {interpreter}"));
        Job(id)
    }

    /// A line for a talking job.
    pub(crate) fn say(&mut self, job: Job, text: &str) {
        self.tell(&format!("say {} {text}", job.0));
    }

    /// The next line of a talking job; `None` when there is none within `limit`.
    pub(crate) fn hear(&mut self, job: Job, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            if let Some(line) = self.lines.entry(job.0).or_default().pop_front() {
                return Some(line);
            }
            if self.done.contains_key(&job.0) {
                let done = self.wait(job, limit);
                panic!("{}: the job has ended: {} {}{}", self.name, done.status, done.out, done.err);
            }
            if !self.poll(end) {
                return None;
            }
        }
    }

    /// Waits for a job's end; at the limit it is killed and the test fails.
    pub(crate) fn wait(&mut self, job: Job, limit: Duration) -> Finished {
        let end = Instant::now() + limit;
        while !self.done.contains_key(&job.0) {
            if !self.poll(end) {
                self.kill(job);
                let err = self.output(job, "err");
                panic!("{}: job {} not done after {limit:?}\n{err}{}", self.name, job.0, self.console_tail());
            }
        }
        Finished { status: self.done[&job.0], out: self.output(job, "out"), err: self.output(job, "err") }
    }

    /// Waits for a job that must succeed; returns its output.
    pub(crate) fn succeed(&mut self, job: Job, limit: Duration) -> String {
        let done = self.wait(job, limit);
        if done.status != 0 {
            let script = fs::read_to_string(self.dir.join(format!("job.{}", job.0))).unwrap_or_default();
            let script: String = script.lines().take(8).collect::<Vec<_>>().join("\n");
            panic!("{}: status {} of\n{script}\n{}{}", self.name, done.status, done.out, done.err);
        }
        done.out
    }

    /// Fails if its kernel complained about the server (or about itself). The console of a direct client is this
    /// machine's, where other kernel messages come and go, and is not looked at.
    pub(crate) fn no_complaints(&self) {
        let log = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let complaints: Vec<&str> =
            log.lines().filter(|l| COMPLAINTS.iter().any(|c| l.contains(c))).collect();
        assert!(complaints.is_empty(), "{}: its kernel says: {complaints:#?}", self.name);
    }

    /// SIGKILL to a job and its children.
    pub(crate) fn kill(&mut self, job: Job) {
        self.tell(&format!("kill {}", job.0));
    }

    /// Takes it away without warning, as a power failure does.
    pub(crate) fn crash(mut self) {
        if self.direct {
            // A killed process still says goodbye (unlocks) through the kernel that lives on; nobody may hear it.
            self.lab.sh(&format!("ip link delete tap{}", self.host));
        }
        self.process.kill();
    }

    fn tell(&mut self, message: &str) {
        if writeln!(self.to_runner, "{message}").and_then(|()| self.to_runner.flush()).is_err() {
            panic!("{}: the client is gone\n{}", self.name, self.console_tail());
        }
    }

    /// Takes one event, if there is one before `end`.
    fn poll(&mut self, end: Instant) -> bool {
        match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Ready) => self.ready = true,
            Ok(Event::Line(job, text)) => self.lines.entry(job).or_default().push_back(text),
            Ok(Event::Done(job, status)) => {
                self.done.insert(job, status);
            }
            Ok(Event::WantsLink) => self.link(),
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => {
                panic!("{}: the client died\n{}", self.name, self.console_tail())
            }
            Err(RecvTimeoutError::Timeout) => return false,
        }
        true
    }

    fn next_event(&mut self, end: Instant, what: &str) {
        if !self.poll(end) {
            panic!("{}: {what} takes too long\n{}", self.name, self.console_tail());
        }
    }

    /// Puts a link between the lab's bridge and the client's network namespace.
    fn link(&mut self) {
        let (tap, pid, mac) = (format!("tap{}", self.host), self.process.id(), mac(self.host));
        self.lab.sh(&format!(
            "ip link add {tap} type veth peer name vec0 address {mac} netns {pid}; ip link set {tap} master br0 up"
        ));
        self.tell("go");
    }

    fn output(&self, job: Job, which: &str) -> String {
        let bytes = fs::read(self.dir.join(format!("job.{}.{which}", job.0))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of what its kernel and its set-up printed.
    fn console_tail(&self) -> String {
        let log = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        format!("console:\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A guest's mounts go with its kernel. The host's kernel would wait for the server when the namespace goes.
        if self.direct && self.ready && self.process.ended().is_none() {
            let job = self.last_job + 1;
            if fs::write(self.dir.join(format!("job.{job}")), format!("umount -f -l {MNT}")).is_ok() {
                let _ = writeln!(self.to_runner, "run {job} sh");
                let end = Instant::now() + Duration::from_secs(5);
                while let Ok(event) = self.events.recv_timeout(end.saturating_duration_since(Instant::now()))
                {
                    if matches!(event, Event::Done(id, _) if id == job) || matches!(event, Event::End) {
                        break;
                    }
                }
            }
        }
    }
}

/// Fills the shared folder; statd's notes in it stay, if the client has lived before.
fn prepare_share(lab: &Lab, dir: &Path) {
    for sub in ["scratch", "root", "statd"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    fs::create_dir_all(super::tools_dir()).unwrap();
    let init = dir.join("uml-init.sh");
    fs::write(&init, include_str!("../guest/uml-init.sh")).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("guest.sh"), include_str!("../guest/guest.sh")).unwrap();
    fs::write(dir.join("runner.py"), include_str!("../guest/runner.py")).unwrap();
    fs::copy(lab.dir().join("hosts"), dir.join("hosts")).unwrap();
}

/// Completes the command with a User-Mode Linux kernel whose serial line is our standard input and output.
fn uml_command(cmd: &mut Command, lab: &Lab, dir: &Path, host: u8, settings: &[String], args: &[String]) {
    let tap = format!("tap{host}");
    // It stays when the guest goes, for the next boot of the same client.
    lab.sh(&format!(
        "ip link show {tap} >/dev/null 2>&1 || ip tuntap add {tap} mode tap; ip link set {tap} master br0 up"
    ));
    // Guest memory and control sockets are put where TMPDIR says: a private tmpfs. The shell in front is the
    // namespace's first process, so that all of the guest's processes end with it.
    let jail = "mount -t tmpfs tmpfs /dev/shm; cd /; export TMPDIR=/dev/shm HOME=/dev/shm; \
                exec 3<&0 4>&1 </dev/null >&2; \"$@\" & wait $!";
    let (kernel, modules) = uml_kernel();
    cmd.args(["--", "sh", "-euc", jail, "sh"]).arg(kernel);
    cmd.args(["mem=768M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "con=null"]);
    cmd.args(["con0=null,fd:1", "ssl=null", "ssl0=fd:3,fd:4", "uml_dir=/dev/shm/", "umid=guest"]);
    // Kernels from 6.16 on can do without ptrace; others ignore this.
    cmd.arg("seccomp=auto");
    cmd.arg(format!("vec0:transport=tap,ifname={tap},depth=128,gro=1,mac={}", mac(host)));
    cmd.arg(format!("init={}/uml-init.sh", dir.display()));
    cmd.args(settings).arg(format!("kc_modules={modules}")).args(args);
}

/// The hardware address of a client: the same after a reboot, as with a real one.
fn mac(host: u8) -> String {
    format!("02:00:0a:4d:00:{host:02x}")
}

/// The User-Mode Linux binary and its folder of modules ("" if it needs none).
fn uml_kernel() -> (String, String) {
    if let Ok(named) = std::env::var("ATOLL_UML_KERNEL") {
        let (kernel, modules) = named.split_once(':').unwrap_or((&named, ""));
        return (kernel.to_owned(), modules.to_owned());
    }
    let mut modules: Vec<PathBuf> = fs::read_dir("/usr/lib/uml/modules")
        .map(|dirs| dirs.map_while(Result::ok).map(|d| d.path()).collect())
        .unwrap_or_default();
    modules.sort();
    let modules =
        modules.pop().expect("no NFS client in this kernel and no User-Mode Linux: .ci/setup-client.sh");
    ("/usr/bin/linux.uml".to_owned(), modules.to_string_lossy().into_owned())
}

/// Whether this machine's own kernel can be the client.
fn uses_host_kernel() -> bool {
    match std::env::var("ATOLL_TEST_CLIENT").as_deref() {
        Ok("direct") => return true,
        Ok("uml") => return false,
        Ok(other) => panic!("ATOLL_TEST_CLIENT={other}: neither uml nor direct"),
        Err(_) => {}
    }
    let known = || {
        let list = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines().any(|l| l.split_whitespace().last() == Some("nfs"))
    };
    known()
        || Command::new("modprobe")
            .arg("nfs")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success() && known())
}

/// A line from the client; `None` for whatever a booting kernel may print there.
fn parse_event(line: &str) -> Option<Event> {
    let mut words = line.trim_end_matches('\r').splitn(3, ' ');
    match (words.next()?, words.next(), words.next()) {
        ("ready", None, None) => Some(Event::Ready),
        ("link", None, None) => Some(Event::WantsLink),
        ("line", Some(job), text) => Some(Event::Line(job.parse().ok()?, text.unwrap_or("").to_owned())),
        ("done", Some(job), Some(status)) => Some(Event::Done(job.parse().ok()?, status.parse().ok()?)),
        _ => None,
    }
}
