//! Requests that were answered before what they changed is in the replicated state (CLOSE, `ops/opens`). If the reply was not kept, it can be made
//! again only from the stored outcome: who asks for it meanwhile waits, instead of being told that it is gone (RFC 8881 §2.10.6.1.3).
//!
//! Counted in the slot, by its last request. What is counted keeps the session from being forgotten.

use super::{Active, Turn};
use std::sync::Arc;

/// Something that a request was answered early for; until this is dropped, its outcome may be missing in the state.
#[derive(Debug)]
pub(crate) struct Unsettled {
    session: Arc<Active>,
    index: usize,
    seqid: Option<u32>,
}

impl Turn {
    /// Something of this request will be in the state later than its reply is out.
    pub(crate) fn unsettled(&self) -> Unsettled {
        let mut slots = self.session.slots();
        let mut seqid = None;
        if let Some(slot) = slots.all.get_mut(self.index) {
            slot.unsettled += 1;
            seqid = slot.seqid;
        }
        Unsettled { session: self.session.clone(), index: self.index, seqid }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        let mut slots = self.session.slots();
        // The slot may have gone on, or back.
        let slot = slots.all.get_mut(self.index).filter(|slot| slot.seqid == self.seqid);
        if let Some(slot) = slot {
            slot.unsettled = slot.unsettled.saturating_sub(1);
        }
        drop(slots);
        self.session.settled.notify_waiters();
    }
}

impl Active {
    /// Waits until what a slot's last request changed is in the state.
    pub(crate) async fn settled(&self, slot: u32) {
        loop {
            let mut told = std::pin::pin!(self.settled.notified());
            // Before looking, so that nothing that ends meanwhile is missed.
            told.as_mut().enable();
            if self.slots().all.get(slot as usize).is_none_or(|slot| slot.unsettled == 0) {
                return;
            }
            told.await;
        }
    }
}
