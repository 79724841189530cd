//! Rounds of load and `kill -9` of the real program. The page cache survives: this is about recovery, not about syncs.

use crate::choice::Mix;
use crate::machine::each;
use crate::settings;
use crate::worker::{IsDead, Stop, Worker};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const CLIENTS: u8 = 4;
/// Recovery included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// `atoll serve` promises to stop within 10 s; the rest is for a loaded machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Rounds between two looks with `atoll fsck`.
const FSCK_EVERY: u64 = 5;

/// The program: as it is shipped if that was built, else as the tests were.
fn program() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_atoll"));
    let shipped = built.parent().and_then(Path::parent).map(|target| target.join("release/atoll"));
    shipped.filter(|path| path.exists()).unwrap_or(built)
}

/// A running `atoll serve`.
struct Server {
    child: Child,
    dead: Arc<AtomicBool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind. It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn spawn(dir: &Path, address: SocketAddr) -> Self {
        let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let child = Command::new(program())
            .arg("serve")
            .arg(dir.join("data"))
            .args(["--nfs", &address.to_string(), "--export", "/=*,rw,no_root_squash,insecure"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dead: Arc::default() }
    }

    /// Waits until it serves, and says where.
    fn ready(&mut self) -> Result<SocketAddr, String> {
        let stdout = BufReader::new(self.child.stdout.take().expect("is piped"));
        let (tell, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let line = lines.recv_timeout(START_LIMIT).map_err(|e| format!("no ready line: {e}"))?;
        let address = line.split(' ').find_map(|word| word.strip_prefix("nfs=")).and_then(|a| a.parse().ok());
        address.ok_or_else(|| format!("not a ready line: {line}"))
    }

    fn is_dead(&self) -> IsDead {
        let dead = self.dead.clone();
        Arc::new(move || dead.load(Ordering::SeqCst))
    }

    fn kill(mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("the server ended by itself: {status}"));
        }
        self.dead.store(true, Ordering::SeqCst);
        self.child.kill().map_err(|e| e.to_string())
    }

    /// SIGTERM.
    fn stop(mut self) -> Result<(), String> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|e| e.to_string())?;
        let end = Instant::now() + STOP_LIMIT;
        loop {
            match self.child.try_wait().map_err(|e| e.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("after SIGTERM: {status}")),
                None if Instant::now() > end => return Err("still running long after SIGTERM".to_owned()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

struct Campaign {
    dir: tempfile::TempDir,
    rng: SmallRng,
    address: SocketAddr,
    workers: Vec<Worker>,
    after_peace: bool,
}

impl Campaign {
    fn round(&mut self, runtime: &tokio::runtime::Runtime) -> Result<(), String> {
        let mut server = Server::spawn(self.dir.path(), self.address);
        if self.rng.random_ratio(1, 6) {
            std::thread::sleep(Duration::from_millis(self.rng.random_range(0..100)));
            return server.kill();
        }
        self.address = server.ready()?;
        for worker in &mut self.workers {
            worker.point_at(self.address, server.is_dead());
        }
        let peace = std::mem::take(&mut self.after_peace);
        let told = |stop| match stop {
            Stop::Dead => "the server died by itself".to_owned(),
            Stop::Wrong(what) => what,
        };
        runtime.block_on(each(&mut self.workers, async move |w| w.verify(peace).await)).map_err(told)?;
        if self.rng.random_ratio(1, 6) {
            let operations = self.rng.random_range(1..200);
            let load = each(&mut self.workers, async move |w| w.load(operations).await);
            runtime.block_on(load).map_err(told)?;
            self.after_peace = true;
            return server.stop();
        }
        let killer = {
            let after = Duration::from_millis(self.rng.random_range(0..800));
            std::thread::spawn(move || {
                std::thread::sleep(after);
                server.kill()
            })
        };
        let loaded = runtime.block_on(each(&mut self.workers, async |w| w.load(u64::MAX).await));
        killer.join().expect("the killer does not panic")?;
        match loaded {
            Err(Stop::Wrong(what)) => Err(what),
            Err(Stop::Dead) | Ok(()) => Ok(()),
        }
    }

    fn fsck(&self) -> Result<(), String> {
        let fsck = Command::new(program()).arg("fsck").arg(self.dir.path().join("data")).output();
        let fsck = fsck.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&fsck.stdout);
        if fsck.status.success() { Ok(()) } else { Err(format!("fsck: {} {said}", fsck.status)) }
    }
}

#[test]
fn killed() {
    let _turn = settings::turn();
    let (seed, rounds) = (settings::seed(), settings::killed_rounds());
    let workers = (0..CLIENTS).map(|n| Worker::new(n + 1, seed, Mix::default())).collect();
    let mut campaign = Campaign {
        dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        rng: SmallRng::seed_from_u64(seed),
        address: ([127, 0, 0, 1], 0).into(),
        workers,
        after_peace: false,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("killing {}", program().display());
    for round in 1..=rounds {
        let checked =
            campaign.round(&runtime).and_then(|()| match round % FSCK_EVERY == 0 || round == rounds {
                true => campaign.fsck(),
                false => Ok(()),
            });
        if let Err(what) = checked {
            let log = std::fs::read_to_string(campaign.dir.path().join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            panic!("seed {seed} round {round}: {what}; its log, last line first: {last:#?}");
        }
    }
    let acknowledged: u64 = campaign.workers.iter().map(|w| w.acknowledged).sum();
    println!("{rounds} rounds of kill -9: {acknowledged} operations acknowledged, none lost");
}
