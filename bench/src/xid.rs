//! Transaction ids, unique in this process.
//!
//! A server may keep the outcome of a call by client address *without port*, xid and arguments, for minutes: two calls
//! of different connections must not share an xid, or the second one is answered as a repetition of the first.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Starts anywhere, so that the next process does not repeat the ids of this one.
static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(getrandom::u32().expect("the system gives random numbers")));

/// Takes `count` consecutive ids and returns the first; they wrap around after 2^32.
pub fn take(count: u32) -> u32 {
    NEXT.fetch_add(count, Ordering::Relaxed)
}
