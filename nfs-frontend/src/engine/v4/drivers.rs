//! What works for clients in the background: recalls, notices, copies that go on, slots that are to come back.
//!
//! Which there are is in the replicated state or in the sessions. A driver waits until there may be something new, gives each a task of its own, bounded, and waits again.
//! None keeps the engine while it waits for more; all end with it, wherever they wait.

use crate::engine::Engine;
use crate::pause::Pause;
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::StateId;
use atoll_meta::service::Read;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::debug;

/// Entries read in one step.
const PAGE: usize = 64;

/// Starts all.
pub(crate) fn start<M: MetadataService, B: BlockService>(engine: &Arc<Engine<M, B>>) {
    let end = engine.v4.end.subscribe();
    let (this, meta) = (|| Arc::downgrade(engine), || engine.meta.clone());
    tokio::spawn(until(end.clone(), super::slot_recalls::run(this())));
    tokio::spawn(until(end.clone(), super::delegations::run_notices(this(), meta())));
    tokio::spawn(until(end.clone(), super::offloads::run(this(), meta())));
    tokio::spawn(until(end, super::delegations::run_recalls(this(), meta())));
}

/// Runs a driver until the engine is dropped, whose `end` closes then.
async fn until(mut end: watch::Receiver<()>, driver: impl Future<Output = ()>) {
    tokio::select! {
        // First: what was told to who has ended, nobody would hear.
        biased;
        _ended = end.changed() => {}
        () = driver => {}
    }
}

/// Takes up all there is, in order of ids: `read` finds at most so many above an id. What cannot be read is tried again until it can: nothing else may come to
/// say that it is there.
pub(super) async fn take_up_all<T, F: Future<Output = Read<Vec<T>>>>(
    read: impl Fn(StateId, usize) -> F,
    id: impl Fn(&T) -> StateId,
    mut take_up: impl FnMut(T),
) {
    let mut after = StateId(0);
    let mut pause = Pause::of_calls();
    loop {
        match read(after, PAGE).await {
            Ok(page) => {
                let Some(last) = page.last() else { return };
                after = id(last);
                page.into_iter().for_each(&mut take_up);
                pause.begin_anew();
            }
            Err(error) => {
                debug!(%error, "what is to be done for clients cannot be read");
                pause.rest().await;
            }
        }
    }
}
