//! Recalls: the holder of a delegation is told until it returns it, or is too late (RFC 8881 §10.4.5, §20.2; RFC 7530 §10.4.5).
//!
//! Which are to be told is in the replicated state, so a recall goes on in the next life of this frontend, with the time for it beginning anew: a client
//! loses nothing because the server was down. One that does not return a delegation within a lease since it was reached loses it, and keeps what else it has.
//! One that is not reached has two: after a start it is idle clients that come last, with the renewal of their lease, and bind a connection then.
//! (Of one that has lapsed delegations are taken without waiting: `conflict`.)

use crate::engine::Engine;
use crate::engine::v4::back::BackError;
use atoll_base::access::Cred;
use atoll_base::block::BlockService;
use atoll_meta::delegation::DelegationPhase;
use atoll_meta::nfs4::{ClientId, State, StateKind, StateOp};
use atoll_meta::{Call, FsError, MetadataService, Op};
use atoll_proto::nfs4::callback::{CbArgOp4, CbRecall4Args, CbRecallAny4Args, CbResOp4, recall_any};
use atoll_proto::nfs4::{Bitmap, NfsStat4};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// Recalls on their way at a time; more stay in the replicated state until these are done.
const RECALLS_MAX: usize = 1024;

/// Time for the answer to CB_RECALL: what is left of the lease, but within these. A connection on which none comes counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
const ANSWER_MIN: Duration = Duration::from_secs(1);

/// First and longest pause before a client is told again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Delegations that a client with too many is asked to keep at most.
const KEPT: u32 = 1 << 16;

/// Tells holders ([`crate::engine::v4::drivers`]).
pub(crate) async fn run<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>, meta: Arc<M>) {
    let room = Arc::new(Semaphore::new(RECALLS_MAX));
    if let Some(engine) = engine.upgrade() {
        engine.find_revoked().await;
    }
    loop {
        let recalled = {
            let _room_for_one = room.acquire().await;
            meta.recalled().await
        };
        for state in recalled {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let engine = engine.clone();
            tokio::spawn(async move {
                tell(engine, state).await;
                drop(permit);
            });
        }
    }
}

/// What came of a recall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The client knows.
    Heard,
    /// It answered otherwise, and is told again.
    Refused,
    Unreached,
}

/// Tells the holder of one delegation, until that is gone.
async fn tell<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>, state: State) {
    let begin = Instant::now();
    let mut pause = RETRY_MIN;
    // Since when it had a chance to return it; and whether that was an answer that it will.
    let (mut reached, mut heard) = (None, false);
    loop {
        let waits = engine.upgrade().map(|engine| {
            let delegations = &engine.v4.delegations;
            (delegations.returns.wait(state.ino), delegations.paths.wait(state.client))
        });
        let Some((returns, paths)) = waits else { return };
        let (mut returned, mut reachable) = (pin!(returns.notified()), pin!(paths.notified()));
        // Before it is looked at and called, so that neither is missed.
        returned.as_mut().enable();
        reachable.as_mut().enable();
        let until = {
            let Some(engine) = engine.upgrade() else { return };
            if !engine.is_recalled(&state).await {
                return;
            }
            let lease = engine.lease();
            let left = |reached: Option<Instant>| match reached {
                Some(reached) => lease.saturating_sub(reached.elapsed()),
                None => (2 * lease).saturating_sub(begin.elapsed()),
            };
            if left(reached).is_zero() {
                if engine.revoke(&state).await.is_ok() {
                    return;
                }
                pause
            } else {
                if !heard {
                    let told = engine.tell_once(&state, left(reached).clamp(ANSWER_MIN, ANSWER)).await;
                    heard = told == Told::Heard;
                    if told != Told::Unreached {
                        reached.get_or_insert_with(Instant::now);
                    }
                }
                if heard { left(reached) } else { pause.min(left(reached)) }
            }
        };
        pause = (pause * 2).min(RETRY_MAX);
        tokio::select! {
            // Also of another client's return: then it is looked at again, and told again if it was not.
            _returned = timeout(until, returned) => {}
            () = reachable, if !heard => {
                // The answer to what the client bound the connection with goes first.
                pause = RETRY_MIN;
                sleep(RETRY_MIN).await;
            }
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Whether a delegation is still there, and to be returned. What cannot be found out counts as yes.
    async fn is_recalled(&self, state: &State) -> bool {
        match self.meta.state(state.stateid.id).await {
            Ok(Some(now)) => {
                matches!(now.kind, StateKind::Delegation { phase: DelegationPhase::Recalled, .. })
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// One CB_RECALL.
    async fn tell_once(&self, state: &State, patience: Duration) -> Told {
        let Some((stateid, fh)) = self.names_of(state) else { return Told::Heard };
        let op = CbArgOp4::Recall(CbRecall4Args { stateid, truncate: false, fh });
        match self.call_back(state.client, op, patience).await {
            Ok(CbResOp4::Recall(Ok(()) | Err(NfsStat4::RetryUncachedRep))) => Told::Heard,
            Ok(answer) => {
                // It may not have heard yet that it has the delegation (§2.10.6.3).
                debug!(client = state.client.0, ino = state.ino.0, ?answer, "a recall is refused");
                Told::Refused
            }
            Err(error) => {
                if !matches!(error, BackError::NoPath) {
                    debug!(client = state.client.0, ino = state.ino.0, %error, "recalling a delegation");
                }
                Told::Unreached
            }
        }
    }

    /// Takes a delegation from a holder that did not return it.
    pub(super) async fn revoke(&self, state: &State) -> Result<(), FsError> {
        let op = Op::State(StateOp::Revoke(state.stateid.id));
        if let Err(error) = self.alone(op).await {
            warn!(client = state.client.0, ino = state.ino.0, %error, "a delegation cannot be revoked");
            return Err(error);
        }
        info!(client = state.client.0, ino = state.ino.0, "a delegation was not returned and is revoked");
        self.v4.delegations.counters.revoked.fetch_add(1, Ordering::Relaxed);
        self.look_at_revoked(state.client).await;
        self.v4.delegations.ended(state.ino, state.stateid.id);
        Ok(())
    }

    /// CB_RECALL_ANY: the client may keep half of what it may have at most.
    pub(crate) async fn recall_any(&self, client: ClientId) {
        let type_mask = Bitmap::of(&[recall_any::RDATA_DLG, recall_any::WDATA_DLG, recall_any::DIR_DLG]);
        let op = CbArgOp4::RecallAny(CbRecallAny4Args { objects_to_keep: KEPT, type_mask });
        if let Err(error) = self.call_back(client, op, ANSWER).await {
            debug!(client = client.0, %error, "asking for some delegations back");
        }
    }

    /// A call on nobody's behalf that can be repeated.
    pub(crate) async fn alone(&self, op: Op) -> Result<(), FsError> {
        let call =
            Call { origin: Some(self.origin().await), once: None, cred: Cred::root(), client: None, op };
        self.execute_repeatable(Box::new(call), &mut false).await?.result.map(|_| ())
    }

    /// Takes note of how many revoked delegations a client has.
    pub(crate) async fn look_at_revoked(&self, client: ClientId) {
        if let Ok(known) = self.meta.client(client).await {
            self.v4.delegations.set_revoked(client, known.map_or(0, |known| known.revoked));
        }
    }

    /// The same of all clients, after a start.
    async fn find_revoked(&self) {
        let mut after = ClientId(0);
        while let Ok(clients) = self.meta.clients(after, 256).await {
            let Some(last) = clients.last() else { return };
            after = last.id;
            for client in clients.iter().filter(|client| client.revoked > 0) {
                self.v4.delegations.set_revoked(client.id, client.revoked);
            }
        }
    }
}
