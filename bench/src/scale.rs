//! How much is measured: the full benchmark and the quick one.

use std::time::Duration;

use serde::Serialize;

use crate::load::Shape;

const MIB: u64 = 1024 * 1024;

/// The point of reference: four connections with sixteen calls each.
pub const REFERENCE: Shape = Shape { connections: 4, per_connection: 16 };
/// One call at a time: the latency of the server.
pub const ONE: Shape = Shape { connections: 1, per_connection: 1 };
/// 16 in flight.
pub const SIXTEEN: Shape = Shape { connections: 4, per_connection: 4 };
/// 256 in flight.
pub const MANY: Shape = Shape { connections: 16, per_connection: 16 };

/// Sizes and times.
#[derive(Debug, Clone, Serialize)]
pub struct Scale {
    /// Time of each measurement.
    pub duration: Duration,
    /// Measurements of each server in a row, alternating with the others.
    pub rounds: usize,
    /// Calls in flight.
    pub shapes: Vec<Shape>,
    /// Files for GETATTR, LOOKUP, ACCESS.
    pub files: u64,
    /// Size of the file that is read and written in random 4 KiB.
    pub random_bytes: u64,
    /// Size of the file that is read in 1 MiB from cache.
    pub block_bytes: u64,
    /// Size of files that are written in order, and read cold.
    pub stream_bytes: u64,
    /// Entries of the large directory.
    pub entries: u64,
    /// Size of the file that is overwritten.
    pub overwrite_bytes: u64,
    /// Time that a server gets to tidy up after the overwriting.
    pub settle: Duration,
}

impl Scale {
    /// As the issue asks.
    pub fn full() -> Self {
        Self {
            duration: Duration::from_secs(2),
            rounds: 3,
            shapes: vec![ONE, SIXTEEN, REFERENCE, MANY],
            files: 1000,
            random_bytes: 64 * MIB,
            block_bytes: 256 * MIB,
            stream_bytes: 1024 * MIB,
            entries: 100_000,
            overwrite_bytes: 1024 * MIB,
            settle: Duration::from_secs(10),
        }
    }

    /// A few minutes.
    pub fn quick() -> Self {
        Self {
            duration: Duration::from_millis(250),
            rounds: 2,
            shapes: vec![ONE, REFERENCE],
            random_bytes: 32 * MIB,
            block_bytes: 64 * MIB,
            stream_bytes: 128 * MIB,
            entries: 10_000,
            overwrite_bytes: 64 * MIB,
            settle: Duration::from_secs(5),
            ..Self::full()
        }
    }

    /// The same for a server that keeps everything in memory and finds names by looking at all of them.
    pub fn in_memory(self) -> Self {
        Self {
            random_bytes: self.random_bytes.min(32 * MIB),
            block_bytes: self.block_bytes.min(64 * MIB),
            stream_bytes: self.stream_bytes.min(64 * MIB),
            entries: self.entries.min(2_000),
            ..self
        }
    }
}
