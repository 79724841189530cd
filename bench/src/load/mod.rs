//! The closed-loop load generator: N connections with M calls in flight each, one thread, epoll.
//!
//! A *slot* is one call in flight. As soon as its reply is read and checked, the slot sends its next call. What is sent
//! and what a reply must be is the [`Workload`]'s business; generator and workload share the thread, so neither locks.
//!
//! Cost matters: where the generator and the server share a machine, what the generator burns is missing for the server. Calls
//! are copied from templates, many leave by one `writev`, and the clock is read once per `recv`.
//!
//! Latency is from the moment the call is put into the send buffer (or, for operations of several calls, their first) to
//! the moment the reply has been received.

mod connection;
mod run;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use crate::histogram::Histogram;

pub use connection::CallWriter;
pub(crate) use connection::{ReceiveBuffer, Received};
pub use run::run;

/// What is sent, and what the replies must be.
pub trait Workload {
    /// Puts the next call of `slot` into `out`, or nothing if there is none left for this slot.
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>);

    /// Checks the results of the call that `slot` sent last: the bytes behind the header of an accepted and executed call.
    /// An error ends the run.
    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply>;

    /// Puts one last call into `out` once all slots are idle after the time is up, or nothing. Its duration counts: a
    /// workload that leaves debts (an UNSTABLE WRITE) pays them here.
    fn closing_call(&mut self, out: &mut CallWriter<'_>) {
        let _nothing_by_default = out;
    }
}

/// What a reply means for its slot's operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The operation goes on with another call of this slot.
    Continues,
    /// The operation is complete and counts this often (READDIRPLUS counts entries).
    Done(u64),
    /// A call beside the operations, such as a COMMIT now and then: takes time, is not counted.
    Aside,
}

/// A reply that is not what the workload expects.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BadReply(pub String);

/// How many calls are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Calls in flight on each.
    pub per_connection: usize,
}

impl Shape {
    /// All calls in flight.
    pub fn in_flight(self) -> usize {
        self.connections * self.per_connection
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}", self.connections, self.per_connection)
    }
}

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// No new operation is begun after this time.
    pub duration: Duration,
    /// The run fails if no reply comes for this long.
    pub silence: Duration,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Operations completed.
    pub ops: u64,
    /// RPC calls answered, those beside the operations included.
    pub calls: u64,
    /// From the first call to the last reply.
    pub elapsed: Duration,
    /// Latencies of operations, in nanoseconds.
    pub latency: Histogram,
    /// Bytes sent, record marks included.
    pub sent: u64,
    /// Bytes received, record marks included.
    pub received: u64,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Connecting, sending or receiving failed.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The server closed a connection.
    #[error("the server closed a connection with {0} calls in flight")]
    Closed(usize),
    /// No reply for too long.
    #[error("no reply for {0:?} with {1} calls in flight")]
    Silence(Duration, usize),
    /// What came is no reply to a call in flight.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The call was not executed.
    #[error("call not executed: {0}")]
    NotExecuted(String),
    /// The results are wrong.
    #[error(transparent)]
    Reply(#[from] BadReply),
}
