//! The machine: cores, kernel, file system, page cache; pinning of threads to cores.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// What figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// Model of the processor.
    pub processor: String,
    /// Name and release of the kernel.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Type and options of the file system below the data.
    pub file_system: String,
    /// Who runs where.
    pub pinning: String,
    /// Load average when the benchmark began: other work on the machine spoils it.
    pub load_at_start: String,
}

impl Machine {
    /// Looks at the machine.
    pub fn look(data: &Path, pinning: &Pinning) -> io::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Ok(Self {
            cores: pinning.all.len(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            memory_mib: memory_kib / 1024,
            file_system: file_system(&fs::canonicalize(data)?, &read("/proc/self/mounts")),
            pinning: pinning.to_string(),
            load_at_start: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        })
    }
}

/// Type, device and options of the mount that holds `path`: the longest mount point that is a prefix.
fn file_system(path: &Path, mounts: &str) -> String {
    let mut best = ("", String::new());
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (Some(device), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
            && path.starts_with(point)
            && point.len() >= best.0.len()
        {
            best = (point, format!("{kind} on {device} ({options})"));
        }
    }
    best.1
}

/// CPU time of the whole machine and of this thread at one moment, to tell how much of it others took.
#[derive(Debug, Clone, Copy)]
pub struct Busy {
    machine: Duration,
    thread: Duration,
    at: Instant,
}

impl Busy {
    /// Now.
    pub fn now() -> io::Result<Self> {
        let schedstat = fs::read_to_string("/proc/thread-self/schedstat")?;
        let nanos = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        let machine = busy_time(&fs::read_to_string("/proc/stat")?)?;
        Ok(Self { machine, thread: Duration::from_nanos(nanos), at: Instant::now() })
    }

    /// The part of the machine's `cores` that since an earlier moment neither this thread nor the server used, but that was
    /// used: other processes, kernel threads, the hypervisor.
    pub fn others_since(&self, earlier: &Self, server: Duration, cores: usize) -> f64 {
        let machine = self.machine.saturating_sub(earlier.machine);
        let others = machine.saturating_sub(self.thread - earlier.thread).saturating_sub(server);
        #[allow(clippy::cast_precision_loss)] // some cores
        let all = (self.at - earlier.at).as_secs_f64() * cores as f64;
        others.as_secs_f64() / all
    }
}

/// Time that all cores together were not idle, waiting for disks counted as idle, a hypervisor's theft as not.
fn busy_time(stat: &str) -> io::Result<Duration> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields: Vec<u64> =
        line.unwrap_or_default().split_whitespace().map_while(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user.
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
        return Err(io::Error::other("/proc/stat has no line for all cores"));
    };
    let ticks = user + nice + system + irq + softirq + steal;
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

/// Which cores servers and the load generator use.
#[derive(Debug, Clone)]
pub struct Pinning {
    all: Vec<usize>,
    servers: Vec<usize>,
    generator: Vec<usize>,
}

impl std::fmt::Display for Pinning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.servers == self.generator {
            return write!(f, "servers and load generator share all {} cores", self.all.len());
        }
        write!(
            f,
            "servers on cores {:?}, load generator (one thread) on core {:?}",
            self.servers, self.generator
        )
    }
}

impl Pinning {
    /// Load generator on the last core and servers on all others, or everything everywhere.
    pub fn new(pin: bool) -> io::Result<Self> {
        let set = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let (servers, generator) = match all.split_last() {
            Some((last, others)) if pin && !others.is_empty() => (others.to_vec(), vec![*last]),
            _ => (all.clone(), all.clone()),
        };
        Ok(Self { all, servers, generator })
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.all.len()
    }

    /// Runs `f` with this thread, and so every thread and process it starts, on the servers' cores.
    pub fn on_servers_cores<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        set_affinity(&self.servers)?;
        let result = f();
        set_affinity(&self.all)?;
        Ok(result)
    }

    /// Runs `f` with this thread on the load generator's core.
    pub fn on_generators_core<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        set_affinity(&self.generator)?;
        let result = f();
        set_affinity(&self.all)?;
        Ok(result)
    }
}

fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// Free memory that is touched after the cache was emptied: enough for what a server then reads.
const TOUCHED: usize = 1280 << 20;

/// Writes out dirty pages and empties the page cache, dentries and inodes. Fails where this is not permitted.
///
/// A hypervisor may take free memory back, and then the first use of each page is slow: whoever is measured first would pay for
/// those after. So the memory that was freed is used once.
pub fn drop_caches() -> io::Result<()> {
    run(Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    std::hint::black_box(vec![1_u8; TOUCHED]);
    Ok(())
}

/// Runs a command to its end; a failure carries what it said.
pub fn run(mut command: Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}: {}", output.status, said.trim())))
}

/// Bytes of disk that hold something in a tree: neither holes nor room that was only preallocated, which belongs to no file
/// and would hide what a small one takes. What was not yet written out may count as preallocated, so sync first.
pub fn space_used(path: &Path, except: Option<&Path>) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let below = match entry.file_type()? {
            _ if except == Some(&entry.path()) => Ok(0),
            kind if kind.is_dir() => space_used(&entry.path(), except),
            kind if kind.is_file() => data_bytes(&entry.path()),
            _ => Ok(0),
        };
        match below {
            Ok(below) => bytes += below,
            // Servers remove files while they are counted.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

/// Bytes of a file that hold something, by whole blocks of the file system.
fn data_bytes(path: &Path) -> io::Result<u64> {
    let file = fs::File::open(path)?;
    let (mut bytes, mut at) = (0, 0);
    loop {
        // There is no data behind the last.
        let from = match seek(&file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(bytes),
            from => from?,
        };
        // The end of the file is a hole, unless the file was cut meanwhile.
        at = match seek(&file, SeekFrom::Hole(from)) {
            Err(Errno::NXIO) => return Ok(bytes),
            at => at?,
        };
        bytes += at - from;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_innermost_mount() {
        let mounts = "/dev/a / ext4 rw,relatime 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs ro 0 0\n";
        assert_eq!(file_system(Path::new("/tmp/x/y"), mounts), "xfs on /dev/b (ro)");
        assert_eq!(file_system(Path::new("/tmp/xy"), mounts), "tmpfs on tmpfs (rw)");
        assert_eq!(file_system(Path::new("/home"), mounts), "ext4 on /dev/a (rw,relatime)");
    }

    #[test]
    fn what_neither_server_nor_generator_used_is_of_others() {
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let busy = busy_time("cpu  1 2 3 1000 2000 4 5 6 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n").unwrap();
        assert_eq!(busy, Duration::from_nanos(21 * tick));
        let at = Instant::now();
        let ms = Duration::from_millis;
        let before = Busy { machine: ms(100), thread: ms(10), at };
        let after = Busy { machine: ms(1800), thread: ms(510), at: at + ms(1000) };
        let others = after.others_since(&before, ms(700), 2);
        assert!((others - 0.25).abs() < 1e-9, "1700 - 500 - 700 of 2000: {others}");
    }

    #[test]
    fn space_is_what_holds_something_and_neither_holes_nor_preallocated_room() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        fs::create_dir(&below).unwrap();
        let file = fs::File::create(below.join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4 << 20).unwrap();
        file.sync_all().unwrap();
        assert_eq!(space_used(dir.path(), None).unwrap(), 0);
        let data = vec![1; 1 << 20];
        for at in [1 << 20, 512 << 20] {
            file.write_all_at(&data, at).unwrap();
        }
        fs::write(dir.path().join("beside"), &data).unwrap();
        std::os::unix::fs::symlink("to", dir.path().join("link")).unwrap();
        file.sync_all().unwrap();
        assert_eq!(space_used(dir.path(), None).unwrap(), 3 << 20);
        assert_eq!(space_used(dir.path(), Some(&below)).unwrap(), 1 << 20);
    }
}
