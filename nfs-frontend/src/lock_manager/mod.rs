//! The lock manager: NLM versions 1, 3 and 4 (RFC 1813 §6, X/Open XNFS) and NSM version 1 over the replicated lock tables.
//!
//! It holds no lock state. Each request is one transaction of the metadata service, keyed so that a retransmission gets its first
//! outcome; grants that wait to be told are in the replicated state too, so a restart loses none.
//!
//! # Decisions
//!
//! - An NLM client is its `caller_name` *and* its address. Names alone are not unique ("localhost"), and two clients of one
//!   name with the same process number would share each other's locks. The price: a client that comes back from another
//!   address is another client, and what it held before is freed by an administrator. knfsd goes by the address, too.
//! - There is never a grace period: no state is lost by a restart. So `reclaim` makes no difference, a lock claimed again is
//!   an ordinary request, which its holder is always granted.
//! - Who may lock: as with knfsd, whoever may read the file, or owns it. UNLOCK, CANCEL and UNSHARE are not checked: a
//!   change of mode must not leave locks behind.
//! - On a read-only export an exclusive lock is NLM4_ROFS.

mod callback;
mod granted;
mod nlm;
mod nsm;
mod once;
mod ports;
mod requests;
mod resolve;

#[cfg(test)]
mod tests;

pub use resolve::{LockTarget, Resolve, ResolveError};

use crate::dispatch::LockService;
use crate::rpc::{Answer, RpcCall};
use atoll_meta::MetadataService;
use atoll_xdr::Encoder;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bounds and times of callbacks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port of the clients' own port mappers: 111 but in tests.
    pub portmap_port: u16,
    /// Time for each answer of a client.
    pub patience: Duration,
    /// Pause after the first GRANTED that was not answered; it doubles with each.
    pub retry_first: Duration,
    /// Longest pause. A Linux client asks for a blocked lock again each 30 s by itself.
    pub retry_most: Duration,
    /// How long a client that is not reached is tried. Long enough for a reboot of a switch; a client that still wants its
    /// lock asks again by itself.
    pub give_up: Duration,
    /// Calls to clients at a time.
    pub parallel: usize,
    /// Grants being told at a time; more stay in the replicated state until these are done.
    pub deliveries: usize,
    /// State number of our NSM: odd while up, and never another, as no restart of ours loses locks.
    pub nsm_state: i32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            portmap_port: atoll_proto::portmap::PORT,
            patience: Duration::from_secs(3),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
            give_up: Duration::from_secs(600),
            parallel: 64,
            deliveries: 4096,
            nsm_state: 1,
        }
    }
}

/// The lock manager of one frontend.
pub struct LockManager<M, R> {
    meta: Arc<M>,
    files: Arc<R>,
    config: Config,
    /// Tells requests that were queued in this life of the process from others.
    life: u64,
    ports: ports::Ports,
    /// Calls to clients.
    calls: Arc<Semaphore>,
    /// Answers to `*_MSG` procedures on their way.
    messages: Arc<Semaphore>,
    deliveries: granted::Deliveries,
}

impl<M, R> std::fmt::Debug for LockManager<M, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockManager").field("life", &self.life).finish_non_exhaustive()
    }
}

impl<M: MetadataService, R: Resolve> LockManager<M, R> {
    /// A lock manager over a metadata service and what opens file handles. Grants are told by [`Self::run`].
    pub fn new(meta: Arc<M>, files: Arc<R>, config: Config) -> Arc<Self> {
        Arc::new(Self {
            meta,
            files,
            life: getrandom::u64().unwrap_or(0),
            ports: ports::Ports::new(&config),
            calls: Arc::new(Semaphore::new(config.parallel)),
            messages: Arc::new(Semaphore::new(config.parallel)),
            deliveries: granted::Deliveries::new(config.deliveries),
            config,
        })
    }
}

impl<M: MetadataService, R: Resolve> LockService for LockManager<M, R> {
    async fn nlm(&self, call: RpcCall, reply: Encoder) -> Answer {
        self.answer_nlm(call, reply).await
    }

    async fn nsm(&self, call: RpcCall, reply: Encoder) -> Answer {
        self.answer_nsm(call, reply).await
    }
}
