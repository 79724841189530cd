//! Replies that are kept, within a bound over all sessions.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of replies that all slots keep together.
pub(super) const KEPT_MAX: usize = 64 << 20;

/// Bytes of a reply that is kept, and what is left of the bound for all.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) reply: Bytes,
    room: Arc<AtomicUsize>,
}

impl Kept {
    /// Keeps a reply, if there is room.
    pub(super) fn new(reply: Bytes, room: &Arc<AtomicUsize>) -> Option<Self> {
        let len = reply.len();
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(len)).ok()?;
        Some(Self { reply, room: room.clone() })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.fetch_add(self.reply.len(), Ordering::Relaxed);
    }
}
