//! A server process: started on the servers' cores, stopped by SIGTERM, its CPU time and memory read from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Pinning;

/// How long a server may take to stop on SIGTERM before it is killed.
const STOP: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Option<mpsc::Receiver<String>>,
}

impl Process {
    /// Starts a server. Its standard output is read by [`Self::line`].
    pub fn start(mut command: Command, pinning: &Pinning) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = pinning.on_servers_cores(|| command.spawn())??;
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Read on after nobody listens any more, so that the server never waits for its pipe.
                let _nobody = sender.send(line);
            }
        });
        Ok(Self { child, stdout: Some(receiver) })
    }

    /// Waits for a line of standard output of which `find` makes something.
    pub fn line<T>(&mut self, timeout: Duration, find: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + timeout;
        let lines = self.stdout.as_ref().expect("kept as long as the process");
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return Ok(found);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other("it is not ready in time"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(io::Error::other(format!("it ended at once: {status}")));
                }
            }
        }
    }

    /// Waits until `ready` says so, or the process ends.
    pub fn wait_until(&mut self, timeout: Duration, ready: impl Fn() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("it is not ready in time"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks it to stop and waits for the end.
    pub fn stop(mut self) -> io::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("it did not stop within {STOP:?}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn proc_file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }

    /// CPU time used so far.
    pub fn cpu_time(&self) -> io::Result<CpuTime> {
        CpuTime::read(&self.proc_file("stat"), &self.proc_file("task"))
    }

    /// Forgets the peak of resident memory so far.
    pub fn reset_peak_memory(&self) -> io::Result<()> {
        fs::write(self.proc_file("clear_refs"), "5")
    }

    /// Peak of resident memory since the last reset, in bytes.
    pub fn peak_memory(&self) -> io::Result<u64> {
        status_field(&fs::read_to_string(self.proc_file("status"))?, "VmHWM:")
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        status_field(&fs::read_to_string(self.proc_file("status"))?, "VmRSS:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn status_field(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("no {name} in status")))
}

/// CPU time of a process at one moment.
///
/// `utime + stime` of `/proc/PID/stat` is right but counts in ticks of 10 ms. `task/*/schedstat` counts nanoseconds, but loses
/// threads that end. So the second is taken if it agrees with the first.
#[derive(Debug, Clone)]
pub struct CpuTime {
    ticks: Duration,
    threads: BTreeMap<u32, u64>,
}

impl CpuTime {
    fn read(stat: &str, tasks: &str) -> io::Result<Self> {
        let ticks = stat_ticks(&fs::read_to_string(stat)?)?;
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(tasks)? {
            let task = task?;
            let tid = task.file_name().to_str().and_then(|tid| tid.parse().ok());
            let schedstat = fs::read_to_string(task.path().join("schedstat"));
            if let (Some(tid), Ok(schedstat)) = (tid, schedstat)
                && let Some(nanos) = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok())
            {
                threads.insert(tid, nanos);
            }
        }
        Ok(Self { ticks, threads })
    }

    /// CPU time between an earlier moment and this one.
    pub fn since(&self, earlier: &Self) -> Duration {
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        let total = |threads: &BTreeMap<u32, u64>| threads.values().sum::<u64>();
        let threads = Duration::from_nanos(total(&self.threads).saturating_sub(total(&earlier.threads)));
        if threads.abs_diff(ticks) <= AGREE { threads } else { ticks }
    }
}

/// Two ticks: utime and stime are each rounded down, at both moments.
const AGREE: Duration = Duration::from_millis(20);

/// utime + stime: fields 14 and 15, counted behind the name, which may hold blanks and parentheses.
fn stat_ticks(stat: &str) -> io::Result<Duration> {
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let field = |n: usize| fields.as_ref().and_then(|f| f.get(n)).and_then(|v| v.parse::<u64>().ok());
    match (field(11), field(12)) {
        (Some(user), Some(system)) => Ok(Duration::from_nanos(
            (user + system) * 1_000_000_000 / rustix::param::clock_ticks_per_second(),
        )),
        _ => Err(io::Error::other("stat has no times")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 1 1";
        let tick = Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        assert_eq!(stat_ticks(stat).unwrap(), tick * 200);
    }

    #[test]
    fn threads_count_in_nanoseconds_unless_some_that_ended_are_missing() {
        let at = |ticks, threads: &[(u32, u64)]| CpuTime {
            ticks: Duration::from_millis(ticks),
            threads: threads.iter().copied().collect(),
        };
        let before = at(10, &[(1, 100), (2, 50)]);
        assert_eq!(at(20, &[(1, 130), (2, 60), (3, 5)]).since(&before), Duration::from_nanos(45));
        // One that ended was long at work; one that came and went was never seen.
        assert_eq!(at(60, &[(1, 130)]).since(&before), Duration::from_millis(50));
        assert_eq!(at(60, &[(1, 130), (2, 60)]).since(&before), Duration::from_millis(50));
    }

    #[test]
    fn memory_is_given_in_bytes() {
        assert_eq!(status_field("Name:\tx\nVmHWM:\t    1234 kB\n", "VmHWM:").unwrap(), 1234 * 1024);
        assert!(status_field("Name:\tx\n", "VmHWM:").is_err());
    }
}
