//! When a delegation is given though nothing forbids it (RFC 8881 §10.4: "at the discretion of the server").
//!
//! A delegation that is returned unused costs its client a request and the store an entry. So who says what it wants gets it; who has
//! no preference gets it when it opens a file again, for that is what a delegation saves: a copy of many files opens each once. Neither
//! gets one of a file that was recalled a moment ago: others use it, too. Purely hints, in tables of a fixed size; a collision costs a delegation that
//! would have helped, or gives one that is of no use.

use atoll_base::id::Ino;
use atoll_meta::delegation::DelegationKind;
use atoll_meta::nfs4::ClientId;
use atoll_proto::nfs4::share_access;
use std::sync::atomic::{AtomicU64, Ordering};

const SLOTS: usize = 8192;

/// For how long an OPEN speaks for the next one.
const OPENED_SECS: u64 = 300;

/// For how long nobody gets a delegation of what was recalled.
const RECALLED_SECS: u64 = 30;

const SECS_BITS: u32 = 24;
const SECS: u64 = (1 << SECS_BITS) - 1;

/// What a client says of delegations with an OPEN (RFC 8881 §18.16.3); in v4.0 it cannot say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    NoPreference,
    /// For what it opens the file for.
    Any,
    Read,
    Write,
    /// None, or it takes a want back.
    No,
}

impl Want {
    /// Of the bits of `share_access`. `None` for values that stand for nothing.
    pub(crate) fn of(access: u32) -> Option<Self> {
        Some(match access & share_access::WANT_DELEG_MASK {
            share_access::WANT_NO_PREFERENCE => Self::NoPreference,
            share_access::WANT_ANY_DELEG => Self::Any,
            share_access::WANT_READ_DELEG => Self::Read,
            share_access::WANT_WRITE_DELEG => Self::Write,
            share_access::WANT_NO_DELEG | share_access::WANT_CANCEL => Self::No,
            _ => return None,
        })
    }

    /// Which kind it comes to, if any: of who opens for writing, or not.
    pub(crate) fn kind(self, writes: bool) -> Option<DelegationKind> {
        match self {
            Self::No => None,
            Self::Read => Some(DelegationKind::Read),
            Self::Write => Some(DelegationKind::Write),
            // A read delegation would not let it write locally, and its own OPENs for writing were in the way of others'.
            Self::Any | Self::NoPreference if writes => Some(DelegationKind::Write),
            Self::Any | Self::NoPreference => Some(DelegationKind::Read),
        }
    }
}

/// Which files were opened and recalled lately.
#[derive(Debug)]
pub(crate) struct History {
    opened: Vec<AtomicU64>,
    recalled: Vec<AtomicU64>,
}

impl Default for History {
    fn default() -> Self {
        let slots = || (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { opened: slots(), recalled: slots() }
    }
}

fn slot(table: &[AtomicU64], ino: Ino) -> &AtomicU64 {
    &table[ino.0 as usize % SLOTS]
}

/// Whether what a slot holds is this, and not older than `most` seconds.
fn is_fresh(held: u64, tag: u64, secs: u64, most: u64) -> bool {
    held >> SECS_BITS == tag && (secs.wrapping_sub(held) & SECS) <= most
}

/// A tag of an inode for a client. Never 0.
fn tag(ino: Ino, client: ClientId) -> u64 {
    let mixed = ino.0 ^ client.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    (mixed & (u64::MAX >> SECS_BITS)).max(1)
}

impl History {
    /// A client opened a file at `secs`. Says whether the last that did was the same, lately.
    pub(crate) fn opened(&self, ino: Ino, client: ClientId, secs: i64) -> bool {
        let (tag, secs) = (tag(ino, client), secs as u64 & SECS);
        let before = slot(&self.opened, ino).swap(tag << SECS_BITS | secs, Ordering::Relaxed);
        is_fresh(before, tag, secs, OPENED_SECS)
    }

    /// Somebody else needed a delegated file.
    pub(crate) fn recalled(&self, ino: Ino, secs: i64) {
        let tag = tag(ino, ClientId(0));
        slot(&self.recalled, ino).store(tag << SECS_BITS | secs as u64 & SECS, Ordering::Relaxed);
    }

    /// Whether that was lately.
    pub(crate) fn was_recalled(&self, ino: Ino, secs: i64) -> bool {
        let held = slot(&self.recalled, ino).load(Ordering::Relaxed);
        is_fresh(held, tag(ino, ClientId(0)), secs as u64 & SECS, RECALLED_SECS)
    }

    /// What a client that opens a file may get. Takes note of the OPEN.
    pub(crate) fn of_open(
        &self,
        want: Want,
        writes: bool,
        ino: Ino,
        client: ClientId,
        secs: i64,
    ) -> Option<DelegationKind> {
        let again = self.opened(ino, client, secs);
        if self.was_recalled(ino, secs) || want == Want::NoPreference && !again {
            return None;
        }
        want.kind(writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId(7 << 32 | 1);
    const B: ClientId = ClientId(7 << 32 | 2);

    #[test]
    fn without_a_preference_the_second_open_of_the_same_client_counts() {
        let history = History::default();
        let ask = |ino, client, secs| history.of_open(Want::NoPreference, false, Ino(ino), client, secs);
        assert_eq!(ask(5, A, 100), None);
        assert_eq!(ask(5, A, 110), Some(DelegationKind::Read));
        assert_eq!(ask(5, B, 120), None);
        assert_eq!(ask(5, A, 130), None, "they alternate");
        assert_eq!(ask(5, A, 130 + OPENED_SECS as i64 + 1), None, "long ago");
        for ino in 1000..21_000 {
            assert_eq!(ask(ino, A, 500), None, "a copy of many files");
        }
    }

    #[test]
    fn wants_are_heard_at_once() {
        let history = History::default();
        let ask = |want, writes| history.of_open(want, writes, Ino(5), A, 100);
        assert_eq!(ask(Want::Any, true), Some(DelegationKind::Write));
        assert_eq!(ask(Want::Any, false), Some(DelegationKind::Read));
        assert_eq!(ask(Want::Read, true), Some(DelegationKind::Read));
        assert_eq!(ask(Want::Write, true), Some(DelegationKind::Write));
        assert_eq!(ask(Want::No, true), None);
        assert_eq!(ask(Want::NoPreference, true), Some(DelegationKind::Write), "opened before");
    }

    #[test]
    fn what_was_recalled_is_left_alone_for_a_while() {
        let history = History::default();
        history.recalled(Ino(5), 100);
        let ask = |ino, secs| history.of_open(Want::Any, false, Ino(ino), A, secs);
        assert_eq!(ask(5, 100 + RECALLED_SECS as i64), None);
        assert_eq!(ask(6, 100), Some(DelegationKind::Read));
        assert_eq!(ask(5, 101 + RECALLED_SECS as i64), Some(DelegationKind::Read));
    }
}
