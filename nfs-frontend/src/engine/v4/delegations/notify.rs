//! CB_NOTIFY (RFC 8881 §20.4): the holder of a directory delegation is told which entries came, went or were renamed.
//!
//! What is to be told is in the replicated state, written with the change itself; so nothing is lost. It is told in order, one callback at a time for each delegation,
//! and then forgotten there. Invariant: nothing is told twice. A client that applies a renaming once more has another listing, so where it is
//! not known whether it heard (no answer, a start of this frontend between the callback and its note in the state) the delegation is recalled, and the client
//! lists the directory anew. So is that of a client without a connection, and of one that does not take the callback.

use super::super::back::BackError;
use super::super::drivers::take_up_all;
use crate::engine::Engine;
use crate::pause::Pause;
use atoll_base::access::Cred;
use atoll_base::block::BlockService;
use atoll_base::id::Epoch;
use atoll_meta::delegation::{NewEntry, Notice, Noticed, NoticedEntry};
use atoll_meta::nfs4::{ClientId, State, StateId, StateOp};
use atoll_meta::{Call, FsError, MetadataService, Op, Origin};
use atoll_proto::nfs4::callback::{
    CbArgOp4, CbNotify4Args, CbResOp4, Notify4, NotifyAdd4, NotifyEntry4, NotifyRemove4, NotifyRename4,
    PrevEntry4, notify_type,
};
use atoll_proto::nfs4::limits::MAX_NOTIFICATIONS;
use atoll_proto::nfs4::{Bitmap, Fattr4, Name4, NfsStat4};
use atoll_xdr::{Array, Encoder, Opaque};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Delegations whose holders are told at a time; what others are to be told stays in the state.
const HOLDERS_MAX: usize = 1024;

/// Of these, those of one client: who does not answer keeps nobody else waiting.
const CLIENT_MAX: usize = 16;

/// How often a client may ask to be told later, [`RETRY`] each: ten seconds. The changes are a listing that it does not know to be old.
const LATER_MAX: u32 = 100;

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
#[derive(Default)]
struct Told {
    now: Mutex<Telling>,
    /// Who was left out is to be looked for again.
    again: Notify,
}

#[derive(Default)]
struct Telling {
    ids: HashSet<StateId>,
    by_client: HashMap<ClientId, usize>,
    /// Somebody found no room.
    left_out: bool,
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Telling> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one is to be told by who asks: there is room, and nobody else does it.
    fn enter(&self, id: StateId, client: ClientId) -> bool {
        let mut now = self.lock();
        if now.ids.contains(&id) {
            return false;
        }
        let its = now.by_client.get(&client).copied().unwrap_or(0);
        if now.ids.len() >= HOLDERS_MAX || its >= CLIENT_MAX {
            now.left_out = true;
            return false;
        }
        now.ids.insert(id);
        now.by_client.insert(client, its + 1);
        true
    }

    fn leave(&self, id: StateId, client: ClientId) {
        let mut now = self.lock();
        now.ids.remove(&id);
        if let Some(its) = now.by_client.get_mut(&client) {
            *its -= 1;
            if *its == 0 {
                now.by_client.remove(&client);
            }
        }
        if std::mem::take(&mut now.left_out) {
            self.again.notify_one();
        }
    }
}

/// Tells holders ([`crate::engine::v4::drivers`]).
pub(crate) async fn run<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>, meta: Arc<M>) {
    let told = Arc::new(Told::default());
    let tell_one = |Noticed { state, .. }: Noticed| {
        let (id, client) = (state.stateid.id, state.client);
        if told.enter(id, client) {
            let (engine, told) = (engine.clone(), told.clone());
            tokio::spawn(async move { tell(engine, &told, id, client).await });
        }
    };
    loop {
        tokio::select! {
            biased;
            () = meta.noticed() => {}
            () = told.again.notified() => {}
        }
        take_up_all(|after, most| meta.notices(after, most), |its: &Noticed| its.state.stateid.id, tell_one)
            .await;
    }
}

/// Tells one holder until there is nothing more to tell.
async fn tell<M: MetadataService, B: BlockService>(
    engine: Weak<Engine<M, B>>,
    told: &Told,
    id: StateId,
    client: ClientId,
) {
    loop {
        sleep(GATHER).await;
        let mut later = 0;
        loop {
            let step = engine.upgrade().map(|engine| async move { engine.tell_some(id, later).await });
            let Some(step) = step else { return told.leave(id, client) };
            match step.await {
                Step::Nothing => break,
                Step::Later => {
                    later += 1;
                    sleep(RETRY).await;
                }
                Step::Unknown => sleep(RETRY).await,
                // Until the state knows, nothing else may be told.
                Step::Told(upto) => {
                    later = 0;
                    note(&engine, StateOp::Noticed { delegation: id, upto }).await;
                }
                Step::Lost => note(&engine, StateOp::RecallOne(id)).await,
            }
        }
        told.leave(id, client);
        // What has come since the last look was passed over in favour of this.
        let Some(engine) = engine.upgrade() else { return };
        if matches!(engine.to_tell(id).await, Ok(None)) || !told.enter(id, client) {
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
    /// The state cannot be read now.
    Unknown,
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
    async fn to_tell(&self, id: StateId) -> Result<Option<Noticed>, FsError> {
        let found = self.meta.notices(StateId(id.0.saturating_sub(1)), 1).await?;
        Ok(found.into_iter().next().filter(|its| its.state.stateid.id == id))
    }

    /// One callback, after the client has asked so often to be told later.
    async fn tell_some(&self, id: StateId, later: u32) -> Step {
        let (state, notices) = match self.to_tell(id).await {
            Ok(Some(Noticed { state, notices })) => (state, notices),
            Ok(None) => return Step::Nothing,
            Err(_) => return Step::Unknown,
        };
        let (Some((changes, upto)), Some((stateid, fh))) = (batch(&notices), self.names_of(&state)) else {
            self.note_recall(&state);
            return Step::Lost;
        };
        let op = CbArgOp4::Notify(CbNotify4Args { stateid, fh, changes });
        match self.call_back_once(state.client, op, ANSWER).await {
            Ok(CbResOp4::Notify(Ok(()) | Err(NfsStat4::RetryUncachedRep))) => Step::Told(upto),
            // It did nothing yet.
            Ok(CbResOp4::Notify(Err(NfsStat4::Delay))) if later < LATER_MAX => Step::Later,
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
    /// A store that cannot do it now is waited for, as with the registration.
    pub(crate) async fn recall_what_may_be_told(&self, epoch: Epoch) -> Result<(), FsError> {
        let origin = Origin { frontend: self.frontend, epoch };
        let mut pause = Pause::of_calls();
        loop {
            match self.recall_told(origin).await {
                Ok(0) => return Ok(()),
                Ok(_) => pause.begin_anew(),
                Err(FsError::Delay) => pause.rest().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// A page of them, and how many they were.
    async fn recall_told(&self, origin: Origin) -> Result<usize, FsError> {
        // These go with their recall.
        let page = self.meta.notices(StateId(0), PAGE).await?;
        for Noticed { state, .. } in &page {
            // Not as other calls: the life of this origin is not begun yet.
            let op = Op::State(StateOp::RecallOne(state.stateid.id));
            let call = Call { origin: Some(origin), once: None, cred: Cred::root(), client: None, op };
            self.meta.execute(call).await?.result?;
            self.note_recall(state);
        }
        Ok(page.len())
    }

    fn note_recall(&self, state: &State) {
        self.v4.delegations.history.recalled(state.ino, self.meta.now().secs);
        self.v4.delegations.counters.recalled.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One client that keeps its room leaves that of others, and who found none is looked for again.
    #[tokio::test]
    async fn one_client_takes_its_share_only() {
        let told = Told::default();
        let (greedy, other) = (ClientId(1), ClientId(2));
        let entered = (0..100).filter(|id| told.enter(StateId(*id), greedy)).count();
        assert_eq!(entered, CLIENT_MAX);
        assert!(told.enter(StateId(1000), other));
        assert!(!told.enter(StateId(1000), other), "is being told");
        told.leave(StateId(0), greedy);
        told.again.notified().await;
        assert!(told.enter(StateId(50), greedy));
        told.leave(StateId(1000), other);
        (1..16).chain([50]).for_each(|id| told.leave(StateId(id), greedy));
        assert!(told.lock().ids.is_empty() && told.lock().by_client.is_empty());
    }
}
