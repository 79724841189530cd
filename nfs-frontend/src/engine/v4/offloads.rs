//! Copies that go on behind their COPY ([`atoll_meta::offload`]; RFC 7862 §4, §15.2, §16.1): what brings them on, and CB_OFFLOAD.
//!
//! Which there are, how far each is and how it ended is in the replicated state. Here are only the hands: a task for each offload, which sends step after step, then tells the client until
//! that has answered or patience ends, then has the row forgotten. A frontend that starts finds the rows and begins there; what a former one had under way is in the row, or did
//! not happen.
//!
//! # Beside other work
//!
//! [`STEPS`] steps are under way at a time, in the order in which they were asked for. During a step nothing becomes dirty in the two files, as with COPY itself; between two steps of an offload there is as much
//! rest as the last one took, in which others come to the files and to the log. A delegation of another client that is in the way is recalled, and waited for.
//!
//! # What ends one
//!
//! That all is copied; a step that is refused as a WRITE would be (no room, no permission any more, the export gone or read-only); OFFLOAD_CANCEL; the end of the client. The opens that its COPY named are not looked at again: a client
//! keeps them until the end (RFC 7862 §15.2.3), and of one that does not, it is not clear that it wants less copied. They would be what keeps others' share reservations away.

use super::back::BackError;
use super::drivers::take_up_all;
use super::status;
use crate::engine::Met;
use crate::engine::exports::ExportRef;
use crate::engine::{Engine, Handle, Patience};
use crate::pause::Pause;
use atoll_base::block::BlockService;
use atoll_meta::delegation::Intrusion;
use atoll_meta::nfs4::{StateError, StateId};
use atoll_meta::offload::{Offload, OffloadOp};
use atoll_meta::{Call, FsError, MetadataService, Op, Outcome};
use atoll_proto::nfs4::callback::{CbArgOp4, CbOffload4Args, CbResOp4, OffloadFailed4};
use atoll_proto::nfs4::{FileHandle, StableHow4, WriteResponse4};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

/// Steps under way at a time.
const STEPS: usize = 2;

/// Stored extents that a step looks at. Fewer than a COPY may: nobody waits for this one, and others wait behind it.
const STEP_EXTENTS: u32 = 2048;

/// First and longest pause before what could not be done is tried again.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Time for the answer to CB_OFFLOAD.
const ANSWER: Duration = Duration::from_secs(10);

/// For how many leases a client is told again that is heard and does not answer; as long OFFLOAD_STATUS knows the outcome.
const LEASES: u32 = 2;

/// Offloads that have a task.
type Driven = Arc<Mutex<HashSet<StateId>>>;

fn with<R>(driven: &Driven, f: impl FnOnce(&mut HashSet<StateId>) -> R) -> R {
    f(&mut driven.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The task of an offload, however it ends.
struct Driver {
    driven: Driven,
    id: StateId,
}

impl Drop for Driver {
    fn drop(&mut self) {
        with(&self.driven, |driven| driven.remove(&self.id));
    }
}

/// Drives offloads ([`super::drivers`]).
pub(super) async fn run<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>, meta: Arc<M>) {
    let driven = Driven::default();
    let steps = Arc::new(Semaphore::new(STEPS));
    let take_up = |Offload { stateid, .. }: Offload| {
        let id = stateid.id;
        // As many as the state lets there be.
        if with(&driven, |driven| driven.insert(id)) {
            let (engine, steps, driven) = (engine.clone(), steps.clone(), driven.clone());
            tokio::spawn(async move {
                let _driver = Driver { driven, id };
                drive(engine, &steps, id).await;
            });
        }
    };
    // Those of a former life first.
    loop {
        take_up_all(|after, most| meta.offloads(after, most), |its: &Offload| its.stateid.id, take_up).await;
        meta.offloaded().await;
    }
}

/// What is to come next for an offload.
enum Next {
    /// The same again, at once.
    On,
    /// The same again, after a pause.
    Later,
    /// The same, when delegations of others have come back.
    Delegated,
    /// Nothing: it is gone.
    Over,
}

/// Drives one to its end.
async fn drive<M: MetadataService, B: BlockService>(
    engine: Weak<Engine<M, B>>,
    steps: &Semaphore,
    id: StateId,
) {
    let mut pause = Pause::between(RETRY_MIN, RETRY_MAX);
    let mut ended = None;
    loop {
        let next = {
            let Some(engine) = engine.upgrade() else { return };
            match engine.meta.offload(id).await {
                Ok(None) => Next::Over,
                Err(_) => Next::Later,
                Ok(Some(offload)) if offload.ended.is_none() => {
                    let Ok(turn) = steps.acquire().await else { return };
                    let begun = Instant::now();
                    let next = engine.bring_on(&offload).await;
                    drop(turn);
                    match next {
                        Next::On => {
                            drop(engine);
                            sleep(begun.elapsed()).await;
                        }
                        // Without a turn: others' copies are not in their way.
                        Next::Delegated => engine.ask_for_both(&offload).await,
                        Next::Later | Next::Over => {}
                    }
                    next
                }
                Ok(Some(offload)) => {
                    // A client that sleeps comes back with all it has, and waits for this.
                    if engine.v4.leases.age(offload.client) > engine.lease() {
                        ended = None;
                    }
                    let since = *ended.get_or_insert_with(Instant::now);
                    let patience = engine.lease() * LEASES;
                    engine.tell_end(&offload, since.elapsed() >= patience).await
                }
            }
        };
        match next {
            Next::Over => return,
            Next::On => pause.begin_anew(),
            Next::Later | Next::Delegated => pause.rest().await,
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// One step.
    async fn bring_on(&self, offload: &Offload) -> Next {
        let refused = match self.may_go_on(offload) {
            Ok(()) => self.step(offload).await,
            Err(error) => Err(error),
        };
        match refused {
            Ok(()) => Next::On,
            Err(FsError::Delay | FsError::Fenced) => Next::Later,
            Err(FsError::State(StateError::Delegated)) => Next::Delegated,
            Err(error) => {
                info!(client = offload.client.0, ino = offload.to.ino.0, %error, count = offload.count, "a copy ends early");
                self.say(OffloadOp::Fail { offload: offload.stateid, error }).await
            }
        }
    }

    /// Has delegations of others recalled that are in its way, and waits a moment for them.
    async fn ask_for_both(&self, offload: &Offload) {
        let places = [(offload.from.ino, Intrusion::Read), (offload.to.ino, Intrusion::Change)];
        for (ino, intrusion) in places {
            let met = Met::new(ino, intrusion);
            let _returned = self.ask_back(met, Some(offload.client), &mut Patience::v4()).await;
        }
    }

    /// Whether its export still lets it.
    fn may_go_on(&self, offload: &Offload) -> Result<(), FsError> {
        let export = ExportRef::find(self.meta.exports(), offload.export).ok_or(FsError::Stale)?;
        Self::check_writable(&export).map_err(|_| FsError::ReadOnly)
    }

    async fn step(&self, offload: &Offload) -> Result<(), FsError> {
        let _settled = self.settle_both(offload.from.ino, offload.to.ino).await;
        let most = STEP_EXTENTS.min(self.config.copy_extents);
        let op = Op::Offload(OffloadOp::Step { offload: offload.stateid, most });
        let (origin, cred) = (self.origin().await, offload.cred.clone());
        let call = Call { origin: Some(origin), once: None, cred, client: Some(offload.client), op };
        // Whatever becomes of it, the next one begins where the row says.
        let response = match self.meta.execute(call).await {
            Ok(response) => response,
            Err(error) => {
                if error == FsError::Fenced {
                    self.fenced(origin.epoch).await;
                }
                return Err(error);
            }
        };
        self.note_changes(&response);
        match response.result {
            Ok(Outcome::More(_)) => Ok(()),
            Ok(other) => unreachable!("a step of a copy ended as {other:?}"),
            Err(FsError::Fenced) => {
                self.fenced(origin.epoch).await;
                Err(FsError::Fenced)
            }
            Err(error) => Err(error),
        }
    }

    /// CB_OFFLOAD; or, if it is `late`, nothing more.
    async fn tell_end(&self, offload: &Offload, late: bool) -> Next {
        if late {
            info!(
                client = offload.client.0,
                ino = offload.to.ino.0,
                "a client did not take the end of its copy"
            );
        }
        let known = late || self.tell_end_once(offload).await;
        if !known {
            return Next::Later;
        }
        self.say(OffloadOp::Forget(offload.stateid)).await
    }

    /// Whether the client knows now, or need not.
    async fn tell_end_once(&self, offload: &Offload) -> bool {
        let Some(op) = self.end_of(offload) else { return true };
        match self.call_back(offload.client, op, ANSWER).await {
            Ok(CbResOp4::Offload(Ok(()))) => true,
            Ok(answer) => {
                // It may not have the reply to its COPY yet; or has executed this, and nobody knows how that ended: it may be told twice.
                debug!(client = offload.client.0, ?answer, "the end of a copy is not taken");
                false
            }
            Err(error) => {
                if error != BackError::NoPath {
                    debug!(client = offload.client.0, %error, "telling the end of a copy");
                }
                false
            }
        }
    }

    fn end_of(&self, offload: &Offload) -> Option<CbArgOp4> {
        let place = offload.to;
        let (export, volume, ino, generation) = (offload.export, offload.volume, place.ino, place.generation);
        let sealed = self.handle_key.seal(&Handle { export, volume, ino, generation });
        let fh = FileHandle::new(sealed.as_slice()).ok()?;
        let info = match offload.ended? {
            Ok(()) => Ok(WriteResponse4 {
                callback_id: None,
                count: offload.count,
                committed: StableHow4::FileSync,
                writeverf: offload.verifier.to_be_bytes(),
            }),
            Err(error) => Err(OffloadFailed4 { status: status::of(error), bytes_copied: offload.count }),
        };
        let stateid = super::wire_stateid(offload.stateid, Some(offload.client));
        Some(CbArgOp4::Offload(CbOffload4Args { fh, stateid, info }))
    }

    /// A change of its row.
    async fn say(&self, op: OffloadOp) -> Next {
        let call = Op::Offload(op);
        match self.alone(call).await {
            Ok(()) => Next::On,
            Err(error) => {
                warn!(%error, "what became of a copy is not noted");
                Next::Later
            }
        }
    }
}
