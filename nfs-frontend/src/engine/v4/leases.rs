//! Leases of NFSv4 clients, in the memory of the frontend that hears them (RFC 7530 §9.5, RFC 8881 §8.3).
//!
//! A client that was not heard since this frontend started counts as heard then: the server's own downtime expires nobody. One
//! whose lease has run out is *courteous*: what it has stays until somebody needs it, or [`COURTESY`] is over.

use atoll_meta::nfs4::ClientId;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const SHARDS: usize = 16;

/// How long state of a client outlives its lease if nobody needs it: a laptop that sleeps over night goes on in the morning.
pub(crate) const COURTESY: Duration = Duration::from_secs(24 * 3600);

/// When each client was heard last.
#[derive(Debug)]
pub(crate) struct Leases {
    started: Instant,
    heard: [Mutex<HashMap<ClientId, Instant>>; SHARDS],
    /// Those that were not heard since the start when all were looked through.
    unheard: Mutex<HashSet<ClientId>>,
}

/// When a client was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How long ago; `None` if not since the start.
    pub(crate) heard: Option<Duration>,
    /// How long its lease has run.
    pub(crate) age: Duration,
}

impl Leases {
    /// Everybody is heard now.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), heard: Default::default(), unheard: Mutex::default() }
    }

    fn shard(&self, client: ClientId) -> MutexGuard<'_, HashMap<ClientId, Instant>> {
        self.heard[client.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client was heard. The caller knows that there is such a client, which bounds the table.
    pub(crate) fn renew(&self, client: ClientId) {
        self.shard(client).insert(client, Instant::now());
    }

    /// How long the client has not been heard.
    pub(crate) fn age(&self, client: ClientId) -> Duration {
        self.heard(client).age
    }

    /// The same, and whether it was heard at all since this frontend started.
    pub(crate) fn heard(&self, client: ClientId) -> Heard {
        let heard = self.shard(client).get(&client).map(Instant::elapsed);
        Heard { heard, age: heard.unwrap_or_else(|| self.started.elapsed()) }
    }

    /// Whether a client that was not heard since the start was so when all were looked through before: one that is in the state, but whose
    /// first call is not answered yet, is not heard either.
    pub(crate) fn is_unheard_again(&self, client: ClientId) -> bool {
        !self.unheard.lock().unwrap_or_else(PoisonError::into_inner).insert(client)
    }

    /// Forgets who has not been heard for so long and is not among those that are `there`: clients that ended elsewhere, or gave way to
    /// a new boot of theirs.
    pub(crate) fn forget_gone(&self, unheard: Duration, there: &HashSet<ClientId>) {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner).retain(|client| there.contains(client));
        for shard in &self.heard {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|client, heard| heard.elapsed() <= unheard || there.contains(client));
        }
    }

    /// The client is gone.
    pub(crate) fn forget(&self, client: ClientId) {
        self.shard(client).remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn downtime_expires_nobody() {
        let leases = Leases::new();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(leases.age(ClientId(1)), Duration::from_secs(5));
        leases.renew(ClientId(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(leases.age(ClientId(1)), Duration::from_secs(2));
        leases.forget(ClientId(1));
        assert_eq!(leases.age(ClientId(1)), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_new_is_looked_at_twice() {
        let leases = Leases::new();
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert!(!leases.is_unheard_again(ClientId(1)), "it may have come this moment");
        assert!(leases.is_unheard_again(ClientId(1)));
        leases.forget_gone(Duration::from_secs(1), &HashSet::new());
        assert!(!leases.is_unheard_again(ClientId(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_forgotten_and_who_is_new_is_not() {
        let leases = Leases::new();
        leases.renew(ClientId(1));
        leases.renew(ClientId(2));
        tokio::time::advance(Duration::from_secs(5)).await;
        leases.renew(ClientId(3));
        leases.forget_gone(Duration::from_secs(4), &HashSet::from([ClientId(2)]));
        tokio::time::advance(Duration::from_secs(5)).await;
        let known = |client| leases.shard(client).contains_key(&client);
        assert_eq!([1, 2, 3].map(|id| known(ClientId(id))), [false, true, true]);
    }
}
