//! Append + fdatasync: in groups by one writer, and each for itself.
//!
//! The file is written to its full length with zeros and synced before anything is measured, so that a sync has no
//! metadata to write: the cheapest durable append there is.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// Length of the file. Appending begins again at the front when it is full.
const LENGTH: u64 = 64 * 1024 * 1024;

/// What was measured.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Records appended and synced.
    pub ops: u64,
    /// Time it took.
    pub elapsed: Duration,
    /// From the hand-over of a record until it is known to be durable, in nanoseconds.
    pub latency: Histogram,
}

/// A preallocated file with a place to append.
#[derive(Debug)]
pub struct Log {
    file: File,
    end: AtomicU64,
}

impl Log {
    /// Makes the file, or makes it anew.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; 1024 * 1024];
        for offset in (0..LENGTH).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, end: AtomicU64::new(0) })
    }

    fn append(&self, data: &[u8]) -> io::Result<()> {
        let len = data.len() as u64;
        let offset = self.end.fetch_add(len, Ordering::Relaxed) % (LENGTH - len);
        self.file.write_all_at(data, offset)?;
        self.file.sync_data()
    }
}

/// What the clients of [`grouped`] and its writer share.
struct Queue {
    /// Records handed over and not yet durable, those in the writer's hands included.
    waiting: u64,
    /// Records durable so far, in the order of hand-over.
    durable: u64,
    failed: bool,
}

/// `in_flight` threads hand records of `len` bytes to one writer, which appends all that wait by one write and one
/// fdatasync.
pub fn grouped(log: &Log, len: usize, in_flight: usize, duration: Duration) -> io::Result<Appended> {
    let queue = Mutex::new(Queue { waiting: 0, durable: 0, failed: false });
    let (work, done) = (Condvar::new(), Condvar::new());
    let stop = AtomicBool::new(false);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    let client = || {
        let mut latency = Histogram::default();
        while begun.elapsed() < duration {
            let since = Instant::now();
            let mut queue = lock();
            queue.waiting += 1;
            let mine = queue.durable + queue.waiting;
            work.notify_one();
            while queue.durable < mine && !queue.failed {
                queue = done.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            drop(queue);
            latency.record(nanos(since));
        }
        latency
    };
    let writer = || -> io::Result<()> {
        let mut data = Vec::new();
        loop {
            let mut queue = lock();
            while queue.waiting == 0 && !stop.load(Ordering::Relaxed) {
                queue = work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let taken = queue.waiting;
            drop(queue);
            if taken == 0 {
                return Ok(());
            }
            data.resize(len * usize::try_from(taken).expect("as many as threads"), 0x5a);
            let written = log.append(&data);
            let mut queue = lock();
            queue.waiting -= taken;
            queue.durable += taken;
            queue.failed = written.is_err();
            done.notify_all();
            written?;
        }
    };
    let (written, latencies) = std::thread::scope(|scope| {
        let writer = scope.spawn(writer);
        let clients: Vec<_> = (0..in_flight).map(|_| scope.spawn(client)).collect();
        let latencies: Vec<Histogram> =
            clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect();
        stop.store(true, Ordering::Relaxed);
        // Under the lock, so that the writer is either before its look at `stop` or waits already.
        drop(lock());
        work.notify_one();
        (writer.join().expect("the writer does not panic"), latencies)
    });
    written?;
    Ok(merged(&latencies, begun.elapsed()))
}

/// `in_flight` threads append records of `len` bytes, each with an fdatasync of its own.
pub fn naive(log: &Log, len: usize, in_flight: usize, duration: Duration) -> io::Result<Appended> {
    let data = vec![0x5a; len];
    let begun = Instant::now();
    let client = || -> io::Result<Histogram> {
        let mut latency = Histogram::default();
        while begun.elapsed() < duration {
            let since = Instant::now();
            log.append(&data)?;
            latency.record(nanos(since));
        }
        Ok(latency)
    };
    let latencies: io::Result<Vec<Histogram>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..in_flight).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    });
    Ok(merged(&latencies?, begun.elapsed()))
}

fn merged(latencies: &[Histogram], elapsed: Duration) -> Appended {
    let mut latency = Histogram::default();
    latencies.iter().for_each(|each| latency.merge(each));
    Appended { ops: latency.count(), elapsed, latency }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A log for the reply server: records of all connections in one group, replies once it is durable.
#[derive(Debug)]
pub struct GroupLog {
    queue: Mutex<Vec<Job>>,
    work: Condvar,
}

#[derive(Debug)]
struct Job {
    data: Vec<u8>,
    stream: Arc<TcpStream>,
    reply: Vec<u8>,
}

impl GroupLog {
    /// Creates the file and starts the writer, which ends with the process or when the disk fails.
    pub fn start(path: &Path) -> io::Result<Arc<Self>> {
        let log = Log::create(path)?;
        let this = Arc::new(Self { queue: Mutex::default(), work: Condvar::new() });
        let group = this.clone();
        std::thread::spawn(move || {
            let error = group.write(&log);
            // Without replies the load generator reports silence; this says why.
            eprintln!("the log failed: {error}");
        });
        Ok(this)
    }

    /// Hands over a record and the reply to send when it is durable; [`Self::wake`] must follow.
    pub(super) fn submit(&self, record: &[u8], stream: Arc<TcpStream>, reply: Vec<u8>) {
        let job = Job { data: record.to_vec(), stream, reply };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }

    /// Wakes the writer.
    pub(super) fn wake(&self) {
        self.work.notify_one();
    }

    fn write(&self, log: &Log) -> io::Error {
        let (mut data, mut out) = (Vec::new(), Vec::new());
        loop {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.is_empty() {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let mut jobs = std::mem::take(&mut *queue);
            drop(queue);
            data.clear();
            jobs.iter().for_each(|job| data.extend_from_slice(&job.data));
            if let Err(error) = log.append(&data) {
                return error;
            }
            jobs.sort_by_key(|job| Arc::as_ptr(&job.stream));
            for of_one in jobs.chunk_by(|a, b| Arc::ptr_eq(&a.stream, &b.stream)) {
                out.clear();
                of_one.iter().for_each(|job| out.extend_from_slice(&job.reply));
                // A client that has gone does not want its replies.
                let _gone = (&*of_one[0].stream).write_all(&out);
            }
        }
    }
}
