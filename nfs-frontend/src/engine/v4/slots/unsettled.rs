//! Requests that were answered before what they changed is in the replicated state (CLOSE, `ops/opens`). If the reply was not kept, it can be made
//! again only from the stored outcome: who asks for it meanwhile waits, instead of being told that it is gone (RFC 8881 §2.10.6.1.3).
//!
//! Each execution of a request has its own count of them, which the slot has as long as that execution is its last. What is counted keeps the session from being forgotten.

use super::{Active, Turn};
use std::sync::{Arc, Weak};

/// What one execution of a request was answered early for: as many as refer to this. None yet, and no memory, at first.
#[derive(Debug, Default)]
pub(super) struct Unsettling(Weak<()>);

impl Unsettling {
    fn any(&self) -> bool {
        self.0.strong_count() > 0
    }

    fn one_more(&mut self) -> Arc<()> {
        self.0.upgrade().unwrap_or_else(|| {
            let first = Arc::new(());
            self.0 = Arc::downgrade(&first);
            first
        })
    }
}

/// Something that a request was answered early for; until this is dropped, its outcome may be missing in the state.
#[derive(Debug)]
pub(crate) struct Unsettled {
    session: Arc<Active>,
    counted: Option<Arc<()>>,
}

impl Turn {
    /// Something of this request will be in the state later than its reply is out.
    pub(crate) fn unsettled(&self) -> Unsettled {
        let counted = self.session.slots().all.get_mut(self.index).map(|slot| slot.unsettled.one_more());
        Unsettled { session: self.session.clone(), counted }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        // Before anybody is told, who then looks.
        self.counted = None;
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
            if self.slots().all.get(slot as usize).is_none_or(|slot| !slot.unsettled.any()) {
                return;
            }
            told.await;
        }
    }
}
