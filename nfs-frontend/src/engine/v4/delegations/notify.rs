//! CB_NOTIFY (RFC 8881 §20.4): the holder of a directory delegation is told which entries came, went or were renamed.
//!
//! What is to be told is in the replicated state, written with the change itself; so nothing is lost. It is told in order, one callback at a time for each delegation,
//! and then forgotten there. Invariant: nothing is told twice. A client that applies a renaming once more has another listing, so where it is
//! not known whether it heard (no answer, a start of this frontend between the callback and its note in the state) the delegation is recalled, and the client
//! lists the directory anew. So is that of a client without a connection, and of one that does not take the callback.

use super::super::back::BackError;
use crate::engine::Engine;
use atoll_base::block::BlockService;
use atoll_meta::delegation::{NewEntry, Notice, Noticed, NoticedEntry};
use atoll_meta::nfs4::{State, StateId, StateOp};
use atoll_meta::{FsError, MetadataService, Op};
use atoll_proto::nfs4::callback::{
    CbArgOp4, CbNotify4Args, CbResOp4, Notify4, NotifyAdd4, NotifyEntry4, NotifyRemove4, NotifyRename4,
    PrevEntry4, notify_type,
};
use atoll_proto::nfs4::limits::MAX_NOTIFICATIONS;
use atoll_proto::nfs4::{Bitmap, Fattr4, Name4, NfsStat4};
use atoll_xdr::{Array, Encoder, Opaque};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tracing::{debug, warn};

/// Delegations whose holders are told at a time; what others are to be told stays in the state.
const HOLDERS_MAX: usize = 1024;

/// Delegations read in one step.
const PAGE: usize = 64;

/// Changes gather for so long, so that a burst of them is one callback and one entry of the log.
const GATHER: Duration = Duration::from_millis(50);

/// Time for the answer to a callback.
const ANSWER: Duration = Duration::from_secs(10);

/// Pause before a client that asks for it is told again, and before the state is.
const RETRY: Duration = Duration::from_millis(100);

/// Bytes of changes in one callback, if there is more than one: clients take requests of a page.
const BATCH: usize = 2 << 10;

/// Holders that are being told.
type Told = Arc<Mutex<HashSet<StateId>>>;

fn enter(told: &Told, id: StateId) -> bool {
    told.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
}

fn leave(told: &Told, id: StateId) {
    told.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

/// Tells holders until the engine is dropped, whose `end` closes then.
pub(crate) async fn run<M: MetadataService, B: BlockService>(
    engine: Weak<Engine<M, B>>,
    meta: Arc<M>,
    mut end: watch::Receiver<()>,
) {
    let room = Arc::new(Semaphore::new(HOLDERS_MAX));
    let told = Told::default();
    loop {
        tokio::select! {
            biased;
            _ended = end.changed() => return,
            () = meta.noticed() => {}
        }
        let mut after = StateId(0);
        while let Ok(page) = meta.notices(after, PAGE).await {
            let Some(last) = page.last() else { break };
            after = last.state.stateid.id;
            for id in page.iter().map(|its| its.state.stateid.id).filter(|id| enter(&told, *id)) {
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                let (engine, told) = (engine.clone(), told.clone());
                tokio::spawn(async move {
                    tell(engine, &told, id).await;
                    drop(permit);
                });
            }
        }
    }
}

/// Tells one holder until there is nothing more to tell.
async fn tell<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>, told: &Told, id: StateId) {
    loop {
        sleep(GATHER).await;
        loop {
            let Some(step) = engine.upgrade().map(|engine| async move { engine.tell_some(id).await }) else {
                return;
            };
            match step.await {
                Step::Nothing => break,
                Step::Later => sleep(RETRY).await,
                // Until the state knows, nothing else may be told.
                Step::Told(upto) => note(&engine, StateOp::Noticed { delegation: id, upto }).await,
                Step::Lost => note(&engine, StateOp::RecallOne(id)).await,
            }
        }
        leave(told, id);
        // What has come since the last look was passed over in favour of this.
        let Some(engine) = engine.upgrade() else { return };
        if engine.to_tell(id).await.is_none() || !enter(told, id) {
            return;
        }
    }
}

/// Runs a call that must be, while there is an engine.
async fn note<M: MetadataService, B: BlockService>(engine: &Weak<Engine<M, B>>, op: StateOp) {
    loop {
        let Some(engine) = engine.upgrade() else { return };
        match engine.alone(Op::State(op.clone())).await {
            Ok(()) => return,
            Err(error) => warn!(?op, %error, "what was told, or cannot be, is not noted"),
        }
        drop(engine);
        sleep(RETRY).await;
    }
}

/// What telling comes to.
enum Step {
    /// There is nothing to tell.
    Nothing,
    /// The client wants to be asked again.
    Later,
    /// The client has heard what came up to this number.
    Told(u64),
    /// It may have heard, or cannot.
    Lost,
}

fn entry(entry: &NoticedEntry) -> Option<NotifyEntry4> {
    Some(NotifyEntry4 { file: Name4::copy_from(&entry.name).ok()?, attrs: Fattr4::default() })
}

fn gone(old: &NoticedEntry) -> Option<NotifyRemove4> {
    Some(NotifyRemove4 { old_entry: entry(old)?, old_entry_cookie: old.cookie.0 })
}

fn come(new: &NewEntry) -> Option<NotifyAdd4> {
    let previous = |it: &NoticedEntry| Some(PrevEntry4 { entry: entry(it)?, cookie: it.cookie.0 });
    Some(NotifyAdd4 {
        old_entry: if new.replaces { Some(gone(&new.entry)?) } else { None },
        new_entry: entry(&new.entry)?,
        new_entry_cookie: Some(new.entry.cookie.0),
        prev_entry: match &new.previous {
            Some(it) => Some(previous(it)?),
            None => None,
        },
        last_entry: new.is_last,
    })
}

/// A change as the wire has it; `None` if that has no words for it.
fn wire(notice: &Notice) -> Option<Notify4> {
    let mut e = Encoder::new();
    let kind = match notice {
        Notice::Added(new) => {
            e.put(&come(new)?);
            notify_type::ADD_ENTRY
        }
        Notice::Removed(old) => {
            e.put(&gone(old)?);
            notify_type::REMOVE_ENTRY
        }
        Notice::Renamed { from, to } => {
            e.put(&NotifyRename4 { old_entry: gone(from)?, new_entry: come(to)? });
            notify_type::RENAME_ENTRY
        }
    };
    Some(Notify4 { mask: Bitmap::of(&[kind]), values: Opaque::new(e.into_bytes()).ok()? })
}

/// The first changes, as many as one callback takes, and the number of the last of these.
fn batch(notices: &[(u64, Notice)]) -> Option<(Array<Notify4, MAX_NOTIFICATIONS>, u64)> {
    let (mut changes, mut upto, mut len) = (Vec::new(), 0, 0);
    for (number, notice) in notices {
        let change = wire(notice)?;
        len += change.values.as_bytes().len();
        if !changes.is_empty() && len > BATCH {
            break;
        }
        changes.push(change);
        upto = *number;
    }
    Some((Array::new(changes).ok()?, upto))
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// What the holder of a delegation is to be told now.
    async fn to_tell(&self, id: StateId) -> Option<Noticed> {
        let found = self.meta.notices(StateId(id.0.saturating_sub(1)), 1).await.ok()?;
        found.into_iter().next().filter(|its| its.state.stateid.id == id)
    }

    /// One callback.
    async fn tell_some(&self, id: StateId) -> Step {
        let Some(Noticed { state, notices }) = self.to_tell(id).await else { return Step::Nothing };
        let (Some((changes, upto)), Some((stateid, fh))) = (batch(&notices), self.names_of(&state)) else {
            self.note_recall(&state);
            return Step::Lost;
        };
        let op = CbArgOp4::Notify(CbNotify4Args { stateid, fh, changes });
        match self.call_back_once(state.client, op, ANSWER).await {
            Ok(CbResOp4::Notify(Ok(()) | Err(NfsStat4::RetryUncachedRep))) => Step::Told(upto),
            // It did nothing yet.
            Ok(CbResOp4::Notify(Err(NfsStat4::Delay))) => Step::Later,
            answer => {
                if answer != Err(BackError::NoPath) {
                    debug!(client = state.client.0, ino = state.ino.0, ?answer, "telling of changes");
                }
                self.note_recall(&state);
                Step::Lost
            }
        }
    }

    /// Recalls what may have been told in an earlier life of this frontend, which did not come to note it. Before anything is served in this one.
    pub(crate) async fn recall_what_may_be_told(&self) -> Result<(), FsError> {
        loop {
            // These go with their recall.
            let page = self.meta.notices(StateId(0), PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for Noticed { state, .. } in &page {
                self.alone(Op::State(StateOp::RecallOne(state.stateid.id))).await?;
                self.note_recall(state);
            }
        }
    }

    fn note_recall(&self, state: &State) {
        self.v4.delegations.history.recalled(state.ino, self.meta.now().secs);
        self.v4.delegations.counters.recalled.fetch_add(1, Ordering::Relaxed);
    }
}
