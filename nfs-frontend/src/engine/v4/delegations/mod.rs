//! Delegations as this frontend sees them (RFC 8881 §10.2, §10.4, §10.9; RFC 7530 §10; RFC 9754): who gets one, how they are asked back, and
//! what others see meanwhile. Which there are is in the replicated state ([`atoll_meta::delegation`]).
//!
//! - [`policy`]: when one is given; [`conflict`]: what is in somebody's way, and waiting for its return;
//! - [`recall`]: CB_RECALL until the delegation is back, or revoked; [`call`]: callbacks to a client, whichever version it speaks;
//!   [`callbacks40`]: connections to clients of v4.0; [`query`]: CB_GETATTR;
//! - [`notify`]: CB_NOTIFY, to who rather hears of changes of a directory than returns its delegation.
//!
//! # The way of a conflict
//!
//! A call is refused with `Delegated`, or a read meets an inode that is delegated for writing → the operation ends with
//! [`Met`], which goes up as an interrupt, so that no room of a file and no lock is held → the frame around the operations has the delegations recalled and waits a
//! moment for their return ([`conflict::Patience`]) → the operation is executed anew, or the client told to ask again later. The recall itself goes on by itself
//! (`recall`): it begins with the replicated state saying so, and begins again in the next life of this frontend.

mod call;
pub(crate) mod callbacks40;
pub(crate) mod conflict;
mod notify;
pub(crate) mod policy;
mod query;
mod recall;

pub(crate) use conflict::{Intent, Met, Patience};
pub(crate) use notify::run as run_notices;
pub(crate) use recall::run as run_recalls;

use atoll_base::id::Ino;
use atoll_meta::nfs4::{ClientId, StateId};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A client with too many delegations is asked for some of them as often.
const RECALL_ANY_EVERY: Duration = Duration::from_secs(30);

/// Delegations that are known to have been counted when they were given.
const COUNTED_MAX: usize = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Delegations {
    pub(crate) history: policy::History,
    pub(crate) paths40: callbacks40::Paths,
    /// Who opens a file again is told of the same one again.
    counted: Mutex<HashSet<StateId>>,
    /// Told when a delegation of an inode ends.
    pub(crate) returns: Waits<Ino>,
    /// Told when a client can be called again.
    pub(crate) paths: Waits<ClientId>,
    /// Clients with delegations that were revoked and not freed.
    revoked: Mutex<HashMap<ClientId, u32>>,
    any_revoked: AtomicUsize,
    pub(crate) counters: Counters,
    /// When each client was asked for some of its many.
    asked_any: Mutex<HashMap<ClientId, Instant>>,
}

/// Since the start of this frontend.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) granted: AtomicU64,
    pub(crate) recalled: AtomicU64,
    pub(crate) revoked: AtomicU64,
}

/// Those who wait for something to happen to a `K`.
#[derive(Debug)]
pub(crate) struct Waits<K>(Mutex<HashMap<K, Weak<Notify>>>);

impl<K> Default for Waits<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Waits<K> {
    /// Told of what happens to it.
    pub(crate) fn wait(&self, of: K) -> Arc<Notify> {
        let mut waits = lock(&self.0);
        // Bounded by calls in execution: what nobody waits for goes with the next look.
        if let Some(known) = waits.get(&of).and_then(Weak::upgrade) {
            return known;
        }
        waits.retain(|_, wait| wait.strong_count() > 0);
        let new = Arc::new(Notify::new());
        waits.insert(of, Arc::downgrade(&new));
        new
    }

    pub(crate) fn wake(&self, of: K) {
        let known = lock(&self.0).get(&of).and_then(Weak::upgrade);
        if let Some(wait) = known {
            wait.notify_waiters();
        }
    }

    fn wake_all(&self) {
        let all: Vec<_> = lock(&self.0).values().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|wait| wait.notify_waiters());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Delegations {
    fn default() -> Self {
        Self {
            history: policy::History::default(),
            paths40: callbacks40::Paths::default(),
            counted: Mutex::default(),
            returns: Waits::default(),
            paths: Waits::default(),
            revoked: Mutex::default(),
            any_revoked: AtomicUsize::new(0),
            counters: Counters::default(),
            asked_any: Mutex::default(),
        }
    }
}

impl Delegations {
    /// A delegation was given, or had been before.
    pub(crate) fn given(&self, id: StateId) {
        let mut counted = lock(&self.counted);
        if counted.len() >= COUNTED_MAX || counted.insert(id) {
            self.counters.granted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A delegation is gone.
    pub(crate) fn ended(&self, ino: Ino, id: StateId) {
        lock(&self.counted).remove(&id);
        self.returns.wake(ino);
    }

    /// Whether a client that has too many may be asked to return some: not again and again. Takes note that it is.
    pub(crate) fn may_recall_any(&self, client: ClientId) -> bool {
        let mut asked = lock(&self.asked_any);
        asked.retain(|_, at| at.elapsed() < RECALL_ANY_EVERY);
        match asked.entry(client) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(Instant::now());
                true
            }
        }
    }

    /// A client is gone with all it had.
    pub(crate) fn client_gone(&self, client: ClientId) {
        self.set_revoked(client, 0);
        self.paths40.forget(client);
        self.returns.wake_all();
    }

    /// How many revoked delegations a client has that it has not freed.
    pub(crate) fn set_revoked(&self, client: ClientId, count: u32) {
        let mut revoked = lock(&self.revoked);
        match count {
            0 => revoked.remove(&client),
            _ => revoked.insert(client, count),
        };
        self.any_revoked.store(revoked.len(), Ordering::Release);
    }

    /// Whether it has any.
    #[inline]
    pub(crate) fn has_revoked(&self, client: ClientId) -> bool {
        self.any_revoked.load(Ordering::Acquire) > 0 && lock(&self.revoked).contains_key(&client)
    }
}
