//! How long the campaigns are, and that they go one after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}

fn rounds(short: u64, long: u64) -> u64 {
    env("ATOLL_CRASH_ROUNDS").unwrap_or(if is_long() { long } else { short })
}

/// Whether the whole campaign was asked for: `ATOLL_LONG=1`.
pub(crate) fn is_long() -> bool {
    std::env::var("ATOLL_LONG").is_ok_and(|v| v == "1")
}

/// Rounds with power cuts: `ATOLL_CRASH_ROUNDS`, else 200 if `ATOLL_LONG=1`, else what CI has time for.
pub(crate) fn power_rounds() -> u64 {
    rounds(25, 200)
}

/// Rounds with `kill -9`.
pub(crate) fn killed_rounds() -> u64 {
    rounds(8, 50)
}

/// Where the pseudo-random numbers begin: `ATOLL_CRASH_SEED`.
pub(crate) fn seed() -> u64 {
    env("ATOLL_CRASH_SEED").unwrap_or(1)
}

/// Waits for one's turn: panics of the server's threads are counted for the whole process, and timing matters.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
