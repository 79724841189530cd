//! Access times (POSIX `st_atime`): decided on at each read, sent to the store in batches.
//!
//! Nothing waits for them and a crash may lose the last second's. Times not sent yet are laid over attributes, so a client
//! that reads and then looks sees the new time. Bound: [`PENDING_MAX`] inodes; beyond, a time is not noted, as if
//! the policy had said no.

use super::Engine;
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_base::time::Timestamp;
use atoll_meta::export::AtimePolicy;
use atoll_meta::{Call, MetadataService, Op};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Inodes with a time that was not sent: one command takes as many.
const PENDING_MAX: usize = 4096;

/// Relative policy: an access time this old is renewed (as `relatime` of Linux does).
const DAY_NANOS: i128 = 24 * 3600 * 1_000_000_000;

/// Times to be sent.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    pending: Mutex<HashMap<Ino, Timestamp>>,
    /// Entries in `pending`.
    count: AtomicUsize,
    /// Held while a batch is on its way; its entries stay pending meanwhile.
    sending: tokio::sync::Mutex<()>,
}

impl Touches {
    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Timestamp>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays a time that was not sent over the attributes.
    #[inline]
    pub(crate) fn overlay(&self, attr: &mut Attr) {
        if self.count.load(Ordering::Acquire) > 0
            && let Some(time) = self.lock().get(&attr.ino)
        {
            attr.atime = attr.atime.max(*time);
        }
    }

    /// Forgets a time: SETATTR sets another. Waits for a batch on its way, which would else move the time forward
    /// again behind the SETATTR.
    pub(crate) async fn forget(&self, ino: Ino) {
        if self.count.load(Ordering::Acquire) > 0 {
            let _none_on_its_way = self.sending.lock().await;
            let mut pending = self.lock();
            pending.remove(&ino);
            self.count.store(pending.len(), Ordering::Release);
        }
    }
}

/// Whether a read moves the access time.
fn is_due(policy: AtimePolicy, attr: &Attr, now: Timestamp) -> bool {
    match policy {
        AtimePolicy::Never => false,
        AtimePolicy::Strict => attr.atime < now,
        AtimePolicy::Relative => {
            attr.atime <= attr.mtime || attr.atime <= attr.ctime || now.since(attr.atime) >= DAY_NANOS
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// A file was read. `attr` is changed to show it.
    #[inline]
    pub(crate) fn accessed(&self, export: &super::ExportRef, attr: &mut Attr) {
        if export.spec.read_only || export.spec.atime == AtimePolicy::Never {
            return;
        }
        let now = self.meta.now();
        if is_due(export.spec.atime, attr, now) && now > attr.atime {
            let mut pending = self.touches.lock();
            if pending.len() < PENDING_MAX || pending.contains_key(&attr.ino) {
                pending.insert(attr.ino, now);
                self.touches.count.store(pending.len(), Ordering::Release);
                attr.atime = now;
            }
        }
    }

    /// Sends what is pending.
    pub(crate) async fn send_touches(&self) {
        if self.touches.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let _sending = self.touches.sending.lock().await;
        let mut batch: Vec<_> = self.touches.lock().iter().map(|(ino, time)| (*ino, *time)).collect();
        batch.sort_unstable();
        let origin = Some(self.origin().await);
        let call =
            Call { origin, once: None, cred: Cred::root(), client: None, op: Op::Touch(batch.clone()) };
        // What fails stays pending and goes with the next batch.
        if self.meta.execute(call).await.is_ok_and(|response| response.result.is_ok()) {
            let mut pending = self.touches.lock();
            for (ino, time) in batch {
                if pending.get(&ino) == Some(&time) {
                    pending.remove(&ino);
                }
            }
            self.touches.count.store(pending.len(), Ordering::Release);
        }
    }
}
