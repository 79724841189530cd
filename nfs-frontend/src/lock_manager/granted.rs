//! Telling clients that their blocked requests have been granted (NLM_GRANTED, RFC 1813 §6.3.5 and X/Open XNFS). Those of NFSv4 are told
//! by the engine ([`Resolve::offer_lock`]); what follows is NLM's way.
//!
//! A client is told until it answers:
//! - GRANTED: it has the lock; the grant is settled as accepted.
//! - DENIED, to the one and only transmission: it does not wait any more; settled as refused, and the lock goes to the next.
//! - DENIED, to any later one: it may have accepted an earlier one whose answer was lost, for clients answer "denied" to
//!   a repetition. Releasing would take a lock that is in use, so it is settled as accepted. A client that really gave up sends CANCEL or
//!   UNLOCK. A request that was queued in another life of the process may have been told about there, and counts as told.
//! - Nothing, for [`Config::give_up`](super::Config): if nothing can have reached the client, refused: a client that still wants
//!   the lock asks again. If something can have, accepted: it keeps the lock until it unlocks it or reboots.

use super::LockManager;
use super::callback::CallbackAddress;
use super::resolve::Resolve;
use crate::pause::Pause;
use crate::server::client::{ClientError, Route, Target, call_target};
use atoll_base::access::Cred;
use atoll_base::id::Ino;
use atoll_lockd::{GrantId, LockClient, LockMode};
use atoll_meta::MetadataService;
use atoll_meta::lock::{GrantedWaiter, LockOp};
use atoll_proto::nlm::{Lock, NetObj, NlmStat, PROGRAM, StatRes, TestArgs};
use atoll_xdr::{Encode, Encoder, Opaque};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// GRANTED, in all versions.
const GRANTED: u32 = 5;

/// Grants that are being told.
pub(super) struct Deliveries {
    room: Arc<Semaphore>,
    most: usize,
    begun: Mutex<HashSet<(Ino, GrantId)>>,
}

impl Deliveries {
    pub(super) fn new(most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), most, begun: Mutex::default() }
    }

    fn begun(&self) -> MutexGuard<'_, HashSet<(Ino, GrantId)>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Arguments of GRANTED in the form of a version.
struct Args {
    args: TestArgs<u64>,
    narrow: bool,
}

impl Encode for Args {
    fn encode(&self, e: &mut Encoder) {
        let TestArgs { cookie, exclusive, lock } = self.args.clone();
        match lock.clone().narrow() {
            Some(lock) if self.narrow => e.put(&TestArgs { cookie, exclusive, lock }),
            _ => e.put(&TestArgs { cookie, exclusive, lock }),
        }
    }
}

/// What there is to tell, and whom.
struct Grant {
    address: CallbackAddress,
    args: Args,
}

impl Grant {
    fn of(waiter: &GrantedWaiter) -> Option<Self> {
        let LockClient::Nlm(client) = waiter.owner.client() else { return None };
        let address = CallbackAddress::decode(&waiter.callback)?;
        let (oh, svid) = waiter.owner.nlm_parts()?;
        let (offset, len) = waiter.range.to_nlm();
        let lock = Lock {
            caller_name: Opaque::copy_from(client.name()).ok()?,
            fh: NetObj::copy_from(&address.handle).ok()?,
            oh: NetObj::copy_from(oh).ok()?,
            svid: svid.cast_unsigned(),
            offset,
            len,
        };
        let args = TestArgs {
            cookie: NetObj::copy_from(&address.cookie).ok()?,
            exclusive: waiter.mode == LockMode::Exclusive,
            lock,
        };
        let narrow = address.version != 4;
        Some(Self { address, args: Args { args, narrow } })
    }
}

impl<M: MetadataService, R: Resolve> LockManager<M, R> {
    /// Tells clients of grants until `stop` is cancelled. What has not been answered by then stays in the replicated state, and is told
    /// by the next life.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            // Room for one at least before more is asked for.
            let granted = async {
                let _room = self.deliveries.room.acquire().await;
                self.meta.granted_waiters().await
            };
            let granted = tokio::select! {
                () = stop.cancelled() => break,
                granted = granted => granted,
            };
            for waiter in granted {
                if !self.deliveries.begun().insert((waiter.ino, waiter.grant)) {
                    continue;
                }
                let room = tokio::select! {
                    () = stop.cancelled() => break,
                    room = self.deliveries.room.clone().acquire_owned() => room,
                };
                let this = self.clone();
                tasks.spawn(async move {
                    let _room = room;
                    let which = (waiter.ino, waiter.grant);
                    this.deliver(waiter).await;
                    this.deliveries.begun().remove(&which);
                });
            }
            while tasks.try_join_next().is_some() {}
            debug_assert!(tasks.len() <= self.deliveries.most);
        }
        tasks.shutdown().await;
    }

    async fn deliver(&self, waiter: GrantedWaiter) {
        if let LockClient::V4(_) = waiter.owner.client() {
            // It takes the lock by itself, and is not sure to have been told.
            if !self.files.offer_lock(&waiter).await {
                self.settle(&waiter, false).await;
            }
            return;
        }
        let Some(grant) = Grant::of(&waiter) else {
            tracing::error!(?waiter, "a granted request cannot be told: its callback makes no sense");
            return self.settle(&waiter, false).await;
        };
        let begin = Instant::now();
        let mut pause = Pause::between(self.config.retry_first, self.config.retry_most);
        // Transmissions that may have been received.
        let mut told = u32::from(grant.address.life != self.life);
        loop {
            match self.tell(&grant).await {
                // The client is up and wants to be told later.
                Ok(NlmStat::DeniedGracePeriod) => {}
                Ok(stat) => {
                    let accepted = stat == NlmStat::Granted || told > 0;
                    return self.settle(&waiter, accepted).await;
                }
                Err(error) => {
                    tracing::debug!(client = %grant.address.client, %error, "telling of a granted lock");
                    told += u32::from(error.may_have_been_executed());
                    self.ports.forget(grant.address.client);
                }
            }
            if begin.elapsed() + pause.next() > self.config.give_up {
                tracing::warn!(client = %grant.address.client, told, "a client does not take its granted lock");
                return self.settle(&waiter, told > 0).await;
            }
            pause.rest().await;
        }
    }

    /// One transmission.
    async fn tell(&self, grant: &Grant) -> Result<NlmStat, ClientError> {
        let _call = self.calls.acquire().await;
        let CallbackAddress { version, transport, client, local, .. } = grant.address;
        let to = self.ports.find(client, local, version, transport).await.map_err(not_told)?;
        let target = Target { program: PROGRAM, version, procedure: GRANTED };
        let route = Route { to, transport, from: Some(local) };
        let answer: StatRes = call_target(route, self.config.patience, target, &grant.args).await?;
        Ok(answer.stat)
    }

    /// Settles a grant. It may be settled twice, so an unknown outcome is no trouble; it must not be left unsettled.
    async fn settle(&self, waiter: &GrantedWaiter, accepted: bool) {
        loop {
            let op = LockOp::Settle { ino: waiter.ino, grant: waiter.grant, accepted };
            match self.execute(None, Cred::root(), op).await {
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "settling a granted lock"),
            }
            tokio::time::sleep(self.config.retry_first).await;
        }
    }
}

/// Whatever went wrong in asking the port mapper, the lock manager was not called.
fn not_told(error: ClientError) -> ClientError {
    match error {
        error @ ClientError::Unreachable(_) => error,
        other => ClientError::Unreachable(std::io::Error::other(other.to_string())),
    }
}
