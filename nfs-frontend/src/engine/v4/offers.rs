//! Locks that have become free and are reserved for an NFSv4 client that waits (RFC 8881 §9.6, §20.11).
//!
//! The reservation is a pending grant in the replicated state; the client is told, and takes it by its next LOCK. Here is known
//! which are offered by this frontend, so that the offer ends when the lock is taken; one that was taken elsewhere ends by time, which
//! changes nothing.

use super::back::BackError;
use crate::engine::Engine;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_lockd::{ByteRange, Callback, LockClient, LockOwner};
use atoll_meta::MetadataService;
use atoll_meta::lock::GrantedWaiter;
use atoll_meta::nfs4::ClientId;
use atoll_proto::nfs4::callback::{CbArgOp4, CbNotifyLock4Args, CbResOp4};
use atoll_proto::nfs4::{FileHandle, Identity, NfsStat4, StateOwner4};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Time for the answer to a callback; what the connection lost meanwhile is sent again within it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for a client that was told to take the lock: it asks at once. One whose process has given up meanwhile does not say so, and
/// meanwhile nobody else can have the lock; one that is late asks again, and waits again.
const TAKING: Duration = Duration::from_secs(1);

/// Pause before a client that was not reached is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// First byte of a callback's description.
const FORMAT: u8 = 2;

/// What the replicated state keeps beside a request that waits: a format number and the handle that it came by.
pub(crate) fn describe(handle: &[u8]) -> Option<Callback> {
    Callback::new([&[FORMAT], handle].concat()).ok()
}

fn handle_of(callback: &Callback) -> Option<FileHandle> {
    match callback.as_bytes() {
        [FORMAT, handle @ ..] => FileHandle::new(handle).ok(),
        _ => None,
    }
}

#[derive(Debug)]
struct Offer {
    number: u64,
    owner: LockOwner,
    range: ByteRange,
    taken: Arc<Notify>,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    by_file: HashMap<Ino, Vec<Offer>>,
}

/// See the module. Bounded by the lock manager's deliveries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offers(Arc<Mutex<All>>);

impl Offers {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, waiter: &GrantedWaiter) -> Entered {
        let mut all = self.lock();
        all.next += 1;
        let number = all.next;
        let taken = Arc::new(Notify::new());
        let (owner, range) = (waiter.owner.clone(), waiter.range);
        let offer = Offer { number, owner, range, taken: taken.clone() };
        all.by_file.entry(waiter.ino).or_default().push(offer);
        Entered { offers: self.clone(), ino: waiter.ino, number, taken }
    }

    /// Whether any lock of the file is offered.
    pub(crate) fn any(&self, ino: Ino) -> bool {
        self.lock().by_file.contains_key(&ino)
    }

    /// The owner has locked this range.
    pub(crate) fn locked(&self, ino: Ino, owner: &LockOwner, range: ByteRange) {
        let all = self.lock();
        for offer in all.by_file.get(&ino).into_iter().flatten() {
            if offer.owner == *owner && range.contains(&offer.range) {
                offer.taken.notify_one();
            }
        }
    }
}

struct Entered {
    offers: Offers,
    ino: Ino,
    number: u64,
    taken: Arc<Notify>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.offers.lock();
        if let Some(of_file) = all.by_file.get_mut(&self.ino) {
            of_file.retain(|offer| offer.number != self.number);
            if of_file.is_empty() {
                all.by_file.remove(&self.ino);
            }
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Tells a client that a lock is reserved for it. Returns when the client has taken it (true), or when the reservation is to be given up:
    /// a client that was told has [`TAKING`], one that cannot be reached half a lease, one that refuses nothing.
    pub(crate) async fn offer_lock(&self, waiter: &GrantedWaiter) -> bool {
        let offer = self.v4.offers.enter(waiter);
        let begin = Instant::now();
        // A callback on its way is not given up though the lock is taken meanwhile: its slot would be in doubt.
        while let Err(error) = self.notify_lock(waiter).await {
            tracing::debug!(ino = waiter.ino.0, owner = ?waiter.owner, %error, "telling of a free lock");
            let is_over = begin.elapsed() >= self.lease() / 2;
            if is_over || matches!(error, BackError::Refused) {
                return false;
            }
            if timeout(RETRY, offer.taken.notified()).await.is_ok() {
                return true;
            }
        }
        timeout(TAKING, offer.taken.notified()).await.is_ok()
    }

    /// CB_NOTIFY_LOCK, by any session of the client.
    async fn notify_lock(&self, waiter: &GrantedWaiter) -> Result<(), BackError> {
        let LockClient::V4(client) = waiter.owner.client() else { return Err(BackError::Refused) };
        let (clientid, owner) = waiter.owner.as_v4_holder();
        let (Some(fh), Ok(owner)) = (handle_of(&waiter.callback), Identity::copy_from(owner)) else {
            tracing::error!(?waiter, "a request that waited has a callback that makes no sense");
            return Err(BackError::Refused);
        };
        let sessions = self.meta.sessions(ClientId(*client)).await.map_err(|_| BackError::NoPath)?;
        if sessions.is_empty() {
            // It will not come back to this request without one; or it is gone.
            return Err(BackError::NoPath);
        }
        let mut last = BackError::NoPath;
        for session in sessions {
            let active = self.v4.sessions.enter(session, false);
            let lock_owner = StateOwner4 { clientid, owner: owner.clone() };
            let op = CbArgOp4::NotifyLock(CbNotifyLock4Args { fh, lock_owner });
            match active.back.call(self.wire_session(active.session.id), op, PATIENCE).await {
                Ok(CbResOp4::NotifyLock(Ok(()) | Err(NfsStat4::RetryUncachedRep))) => return Ok(()),
                Ok(CbResOp4::NotifyLock(Err(NfsStat4::Delay))) => last = BackError::Unanswered,
                Ok(_) => last = BackError::Refused,
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
