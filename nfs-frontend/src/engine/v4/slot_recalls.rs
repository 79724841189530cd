//! Sessions that are to have fewer slots (RFC 8881 §2.10.6.1, §20.8): their clients are told by CB_RECALL_SLOT, and what the replicated state keeps
//! of slots that were let go is removed. Who has no backchannel learns of it by the next SEQUENCE, as everybody does; the callback is for those that
//! have nothing to ask for now.

use super::slots::Active;
use crate::engine::Engine;
use atoll_base::block::BlockService;
use atoll_meta::nfs4::ClientOp;
use atoll_meta::{MetadataService, Op};
use atoll_proto::nfs4::callback::{CbArgOp4, CbRecallSlot4Args};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::debug;

/// Callbacks on their way at a time.
const CALLS_MAX: usize = 64;

/// Time for the answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Calls clients ([`super::drivers`]).
pub(super) async fn run<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>) {
    let room = Arc::new(Semaphore::new(CALLS_MAX));
    let Some(fallen) = engine.upgrade().map(|engine| engine.v4.sessions.fallen.clone()) else { return };
    loop {
        fallen.notified().await;
        let Some(sessions) = engine.upgrade().map(|engine| engine.v4.sessions.to_recall()) else { return };
        for session in sessions {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let engine = engine.clone();
            tokio::spawn(async move {
                if let Some(engine) = engine.upgrade() {
                    engine.recall_slots(&session).await;
                }
                drop(permit);
            });
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// CB_RECALL_SLOT, if the session still has too many. A call that was not heard is made again when the client binds a connection, or the target falls again.
    async fn recall_slots(&self, session: &Active) {
        if !session.back.was_asked_for() && !session.back.has_path() {
            return;
        }
        while let Some((target_highest_slotid, number)) = session.to_recall() {
            let op = CbArgOp4::RecallSlot(CbRecallSlot4Args { target_highest_slotid });
            let id = self.wire_session(session.session.id);
            if let Err(error) = session.back.call(id, op, ANSWER).await {
                debug!(session = session.session.id.0, %error, "asking for slots back");
                return;
            }
            // A refusal, too: what SEQUENCE says remains.
            session.called(number);
        }
    }

    /// Removes what is kept of the slots that a client has let go.
    pub(crate) async fn retire_slots(self: Arc<Self>, session: Arc<Active>, keep: u32) {
        let op = Op::Client(ClientOp::RetireSlots { session: session.session.id, keep });
        let done = self.alone(op).await;
        if let Err(error) = done {
            debug!(session = session.session.id.0, %error, "slots that were let go");
        }
        session.retired(keep, done.is_ok());
    }
}
