//! Child processes that do not outlive their owner, and waiting with a limit.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a finished command ended and what it printed (invalid UTF-8 replaced).
#[derive(Debug)]
pub(crate) struct Finished {
    /// Exit status, or 128 + signal.
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A child that is killed and reaped when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(mut cmd: Command) -> Process {
        Process(cmd.spawn().unwrap_or_else(|e| panic!("cannot start {cmd:?}: {e}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("standard input is piped, and taken once")
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("standard output is piped, and taken once")
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Sends SIGTERM; `kill(1)` because the standard library sends nothing but SIGKILL.
    pub(crate) fn terminate(&mut self) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success(), "process {pid} is gone");
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits for its end, up to `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            match self.ended() {
                Some(status) => return Some(status),
                None if Instant::now() >= end => return None,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end; panics if it takes longer than `timeout`.
pub(crate) fn finish(mut cmd: Command, timeout: Duration) -> Finished {
    let what = format!("{cmd:?}");
    // Unnamed files rather than pipes, so that no amount of output can block the command.
    let (mut out, mut err) = (unnamed_file(), unnamed_file());
    cmd.stdout(Stdio::from(out.try_clone().unwrap())).stderr(Stdio::from(err.try_clone().unwrap()));
    let mut child = Process::spawn(cmd);
    let status = child.wait(timeout);
    let (out, err) = (text(&mut out), text(&mut err));
    let status = status.unwrap_or_else(|| panic!("{what}: not done after {timeout:?}\n{out}{err}"));
    Finished { status: code(status), out, err }
}

/// Exit status as a shell shows it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn unnamed_file() -> File {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = dir.join(format!("output.{}.{n}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
