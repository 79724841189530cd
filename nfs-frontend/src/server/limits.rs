//! Every bound of the sockets, with its reason. [`Limits::default`] is what the binary uses.

use atoll_proto::record::RecordLimits;
use std::time::Duration;

/// Size of the buffer that a connection borrows from its thread while it reads: some hundred small calls by one
/// system call, and small enough to stay in the second-level cache.
pub(super) const READ_BUFFER: usize = 64 * 1024;

/// Bytes of an unfinished record that a connection may keep without asking for a share of the budget: no call but WRITE is
/// longer, so such calls are served however much memory large ones hold.
pub(super) const FREE_RECORD: usize = 4 * 1024;

/// Records up to this length are copied out of the read buffer, so that a call that waits keeps its own bytes and not
/// the whole buffer; a longer one keeps at most four times its length.
pub(super) const COPIED_RECORD: usize = crate::rpc::OWN_RECORD;

/// An unfinished record of at most this length is kept as a copy of what has come and goes on in a borrowed
/// buffer; a longer one gets a buffer of its exact length.
pub(super) const PARKED_RECORD: usize = 32 * 1024;

/// Replies up to this length are gathered in one buffer; a longer one is written from where it is.
pub(super) const GATHERED_REPLY: usize = 4 * 1024;

/// Reads in one turn of a connection before others of the thread have theirs.
pub(super) const READS_PER_TURN: usize = 8;

/// Pieces that one vectored write takes (IOV_MAX is 1024; copying a longer array of slices costs more than the system call saves).
pub(super) const WRITE_PIECES: usize = 64;

/// Bounds of connections, memory and time.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; one more is closed at once. Each costs less than 10 KiB while idle.
    pub connections: usize,
    /// Connections at a time from one address: one host, or many behind one translated address, leave room for others.
    pub connections_per_address: usize,
    /// Bounds of a record.
    pub record: RecordLimits,
    /// Bytes that unfinished and waiting records above a few KiB may take, over all connections. When it is used up,
    /// reading of further large records waits its turn.
    pub receive_memory: usize,
    /// Part of `receive_memory` that one client address may take.
    pub receive_memory_per_address: usize,
    /// Calls of one connection in progress; then it is not read. Linux has up to 128 slots for a connection.
    pub calls_per_connection: usize,
    /// Calls in progress over all connections; beyond it each connection may have one.
    pub calls: usize,
    /// Bytes of replies waiting for one client to read them; then its calls are not read. Replies to calls already in
    /// progress are still added.
    pub unsent_per_connection: usize,
    /// Bytes of replies waiting over all connections; beyond it a client that does not read has only
    /// [`Self::write_timeout_under_pressure`].
    pub unsent: usize,
    /// Calls in a row without company after which a connection's calls may wait for the disk on the thread that serves it, at least (see
    /// `company`): meanwhile that thread serves nobody else.
    pub calls_alone: u32,
    /// Time in which a record once begun must be complete: 1 MiB at 35 KiB/s.
    pub record_timeout: Duration,
    /// Time in which a client with replies waiting must take some bytes.
    pub write_timeout: Duration,
    /// As `write_timeout`, while too many bytes are waiting over all connections.
    pub write_timeout_under_pressure: Duration,
    /// Time without a byte in either direction after which a connection is closed. Generous: clients keep a mount's
    /// connection idle, and a dead peer is found by keepalive. It reclaims connections that nobody will use again.
    pub idle_timeout: Duration,
    /// Time without traffic after which the kernel asks whether the peer is alive.
    pub keepalive: Duration,
    /// Time that sent bytes may stay unacknowledged, or keepalive unanswered (TCP_USER_TIMEOUT).
    pub unacknowledged: Duration,
    /// Time for calls in progress and their replies when the server stops.
    pub stop_timeout: Duration,
    /// Connections that the kernel may hold before they are accepted (`listen` backlog).
    pub backlog: u32,
    /// Datagrams in progress at a time for each socket; more are dropped, and clients send again.
    pub datagrams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16 * 1024,
            connections_per_address: 12 * 1024,
            record: RecordLimits::default(),
            receive_memory: 256 << 20,
            receive_memory_per_address: 64 << 20,
            calls_per_connection: 256,
            calls: 64 * 1024,
            unsent_per_connection: 4 << 20,
            unsent: 512 << 20,
            calls_alone: 8,
            record_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            write_timeout_under_pressure: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30 * 60),
            keepalive: Duration::from_secs(60),
            unacknowledged: Duration::from_secs(120),
            stop_timeout: Duration::from_secs(10),
            backlog: 4096,
            datagrams: 256,
        }
    }
}

impl Limits {
    /// The same with memory bounds that let at least one record of the largest size in: below that, nothing would
    /// ever be read.
    pub(super) fn consistent(mut self) -> Self {
        let one = self.record.max_record + FREE_RECORD;
        self.receive_memory_per_address = self.receive_memory_per_address.max(one);
        self.receive_memory = self.receive_memory.max(self.receive_memory_per_address);
        self.calls_per_connection = self.calls_per_connection.max(1);
        self
    }
}

/// Raises the number of files this process may open as far as the system lets it, and returns it: each connection
/// takes one.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}
