//! Counters of the sockets. Connections add to them once per turn, not once per call.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start; `*_now` are gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections open.
    pub connections_now: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// Connections closed because a record or a reply took too long.
    pub connections_timed_out: AtomicU64,
    /// Connections closed because what came was no stream of RPC calls.
    pub connections_broken: AtomicU64,
    /// Calls read, from connections and datagrams.
    pub calls: AtomicU64,
    /// Calls answered by something other than the handler: headers that are refused.
    pub calls_refused: AtomicU64,
    /// Calls whose handler panicked.
    pub panics: AtomicU64,
    /// Bytes received.
    pub bytes_in: AtomicU64,
    /// Bytes sent.
    pub bytes_out: AtomicU64,
    /// Bytes of replies that wait for clients to read them.
    pub unsent_now: AtomicU64,
    /// Calls in progress.
    pub calls_now: AtomicU64,
    /// Datagrams received.
    pub datagrams: AtomicU64,
    /// Datagrams dropped: no RPC call, a program not served in datagrams, too many in progress, a reply too long.
    pub datagrams_dropped: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    if n > 0 {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Moves a gauge from what this connection added before to what it has now.
pub(super) fn shift(gauge: &AtomicU64, before: &mut usize, now: usize) {
    if now >= *before {
        add(gauge, now - *before);
    } else {
        gauge.fetch_sub((*before - now) as u64, Ordering::Relaxed);
    }
    *before = now;
}
