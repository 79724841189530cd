//! Opens that were closed by a CLOSE that is answered and not yet in the state (`ops/opens`; RFC 8881 §18.2).
//!
//! Until the state shows it, nobody may use them: [`Closing`] is asked by every check of a stateid, so it is in parts that are locked each for itself.
//! It knows the version that was closed, and so does the call: an open that an OPEN behind the CLOSE's answer has moved on is another one for the
//! client, and is neither refused nor closed.
//!
//! A CLOSE that was lost behind its answer, or refused for a reason that passes, is tried again ([`Behind`]): another process took this frontend's place, or the log had no
//! leader for a moment. At first with its slot's key, so that the outcome is there for a retransmission; without, once the slot or the session
//! has gone on, for the key is refused then. Numbers of states are never used again, so that it closes what was closed already is no harm.
//! For [`TRIED_FOR`] at most, and [`TRIED_MAX`] at a time. After that the open stays until its client's lease ends, or it is opened and closed again.

use super::slots::Unsettled;
use crate::engine::Engine;
use crate::pause::Pause;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_base::seldom::Seldom;
use atoll_meta::nfs4::{ClientId, State, StateError, StateId, Stateid};
use atoll_meta::{Call, FsError, MetadataService, Response};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Parts of [`Closing`]: more than there are threads that could meet.
const PARTS: usize = 64;

/// How long a CLOSE is tried again.
const TRIED_FOR: Duration = Duration::from_secs(600);

/// How many are at a time; of each a task of about a KiB.
const TRIED_MAX: usize = 4096;

/// How often it is told that one is given up.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Inner {
    /// By an open's number, its version that is closed. As many in all as the store's queue takes, and are tried again.
    parts: [Mutex<HashMap<StateId, u32>>; PARTS],
    /// Those that are tried again, by their version, too, for of one open two may be: whose, and of which file.
    tried: Mutex<HashMap<(StateId, u32), (ClientId, Ino)>>,
    /// How many that are, so that nobody looks when there are none.
    tried_count: AtomicUsize,
    told: Seldom,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens whose CLOSE is answered and not yet in the state.
#[derive(Clone, Debug)]
pub(crate) struct Closing(Arc<Inner>);

impl Default for Closing {
    fn default() -> Self {
        Self(Arc::new(Inner {
            parts: std::array::from_fn(|_| Mutex::default()),
            tried: Mutex::default(),
            tried_count: AtomicUsize::new(0),
            told: Seldom::new(TELL_EVERY),
        }))
    }
}

impl Closing {
    fn part(&self, open: StateId) -> MutexGuard<'_, HashMap<StateId, u32>> {
        // Numbers count up, so neighbours are in different parts.
        lock(&self.0.parts[open.0 as usize % PARTS])
    }

    /// The CLOSE of this version of an open will be answered: it is closed as long as what is returned lives.
    pub(crate) fn enter(&self, open: Stateid) -> Closed {
        self.part(open.id).insert(open.id, open.seqid);
        Closed { closing: self.clone(), open }
    }

    /// Whether a state that is there still, in this version, is closed.
    pub(crate) fn has(&self, state: Stateid) -> bool {
        self.part(state.id).get(&state.id) == Some(&state.seqid)
    }

    /// Whether a client's CLOSE of a file is being tried again. An OPEN would come before it, and be told a new version of what its client takes for closed.
    pub(crate) fn is_tried(&self, client: ClientId, ino: Ino) -> bool {
        self.0.tried_count.load(Ordering::Acquire) > 0
            && lock(&self.0.tried).values().any(|tried| *tried == (client, ino))
    }

    /// It will be tried again as long as what is returned lives. None if too many are.
    fn try_again(&self, state: &State) -> Option<Tried> {
        let mut tried = lock(&self.0.tried);
        if tried.len() >= TRIED_MAX {
            return None;
        }
        tried.insert((state.stateid.id, state.stateid.seqid), (state.client, state.ino));
        self.0.tried_count.store(tried.len(), Ordering::Release);
        Some(Tried { closing: self.clone(), open: state.stateid })
    }

    fn tell_given_up(&self, state: &State) {
        if let Some(suppressed) = self.0.told.at(Instant::now()) {
            let (client, ino) = (state.client.0, state.ino);
            tracing::warn!(client, %ino, suppressed, "a file that was closed stays open until its client's lease ends");
        }
    }
}

/// See [`Closing::enter`].
#[derive(Debug)]
pub(crate) struct Closed {
    closing: Closing,
    open: Stateid,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut part = self.closing.part(self.open.id);
        // A newer version may have been closed meanwhile.
        if part.get(&self.open.id) == Some(&self.open.seqid) {
            part.remove(&self.open.id);
        }
    }
}

/// See [`Closing::try_again`].
#[derive(Debug)]
struct Tried {
    closing: Closing,
    open: Stateid,
}

impl Drop for Tried {
    fn drop(&mut self) {
        let inner = &self.closing.0;
        let mut tried = lock(&inner.tried);
        tried.remove(&(self.open.id, self.open.seqid));
        inner.tried_count.store(tried.len(), Ordering::Release);
    }
}

/// Why a CLOSE is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Its outcome is not known, or it was refused for a reason that passes.
    Passing,
    /// This life of the frontend was over.
    Fenced,
    /// Its slot or session has gone on: it is tried without a key.
    Key,
}

/// `None` if the state shows what the client was told, or the open is no more, or is a newer one, or nothing helps.
fn trouble(answer: &Result<Response, FsError>, has_key: bool) -> Option<Trouble> {
    let error = match answer {
        Ok(response) => response.result.as_ref().err()?,
        Err(error) => error,
    };
    match error {
        FsError::Fenced => Some(Trouble::Fenced),
        FsError::Delay | FsError::TableFull => Some(Trouble::Passing),
        FsError::Conflict
        | FsError::State(StateError::BadSession | StateError::Misordered | StateError::FalseRetry)
            if has_key =>
        {
            Some(Trouble::Key)
        }
        _ => None,
    }
}

/// A CLOSE whose answer goes out before it.
pub(crate) struct Behind<M: MetadataService, B: BlockService> {
    pub(crate) engine: Weak<Engine<M, B>>,
    pub(crate) call: Arc<Call>,
    /// What it closes, in the version that the call names.
    pub(crate) state: State,
    pub(crate) closed: Closed,
    /// Until it is over, its reply cannot be made again.
    #[expect(dead_code, reason = "what it does when it is dropped")]
    pub(crate) unsettled: Option<Unsettled>,
}

impl<M: MetadataService, B: BlockService> Behind<M, B> {
    /// Takes the answer, on whatever thread, and tries again on the runtime that this was called on if it has to be.
    pub(crate) fn watch(self) -> impl FnOnce(Result<Response, FsError>) + Send + 'static {
        let runtime = Handle::current();
        move |answer| {
            if trouble(&answer, self.call.once.is_some()).is_none() {
                return;
            }
            let closing = self.closed.closing.clone();
            // Before anybody can hear of it and open the file again.
            let Some(tried) = closing.try_again(&self.state) else {
                return closing.tell_given_up(&self.state);
            };
            runtime.spawn(async move {
                let _tried = tried;
                // The engine goes on wherever this is left, be it on the way to its next life.
                if tokio::time::timeout(TRIED_FOR, self.again(answer)).await.is_err() {
                    closing.tell_given_up(&self.state);
                }
            });
        }
    }

    async fn again(&self, mut answer: Result<Response, FsError>) {
        let mut call = Call::clone(&self.call);
        // The first time at once: before an OPEN that was lost with it comes again.
        let mut pause = Pause::of_calls().first_at_once();
        while let Some(trouble) = trouble(&answer, call.once.is_some()) {
            if trouble == Trouble::Key {
                call.once = None;
            } else {
                pause.rest().await;
            }
            let Some(engine) = self.engine.upgrade() else { return };
            if let (Trouble::Fenced, Some(origin)) = (trouble, call.origin) {
                engine.fenced(origin.epoch).await;
            }
            call.origin = Some(engine.origin().await);
            answer = engine.meta().execute_kept(&call).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_lockd::{Share, ShareBits};
    use atoll_meta::nfs4::StateKind;

    fn open(id: u64, seqid: u32) -> Stateid {
        Stateid { id: StateId(id), seqid }
    }

    #[test]
    fn what_is_closed_is_one_version_of_an_open() {
        let closing = Closing::default();
        let first = closing.enter(open(1, 1));
        let other = closing.enter(open(1 + PARTS as u64, 1));
        assert!(closing.has(open(1, 1)) && closing.has(open(1 + PARTS as u64, 1)));
        assert!(!closing.has(open(1, 2)) && !closing.has(open(2, 1)));
        // Opened again, and closed again before the first is through.
        let second = closing.enter(open(1, 2));
        drop(first);
        assert!(closing.has(open(1, 2)));
        drop((second, other));
        assert!(closing.0.parts.iter().all(|part| lock(part).is_empty()));
    }

    #[test]
    fn each_version_is_tried_for_itself() {
        let closing = Closing::default();
        let [first, second] = [1, 2].map(|seqid| {
            let share = Share { access: ShareBits::Read, deny: ShareBits::None };
            let state = State {
                stateid: open(1, seqid),
                client: ClientId(7),
                owner: Default::default(),
                ino: Ino(5),
                generation: 0,
                since: 0,
                kind: StateKind::Open { share, confirmed: true },
            };
            closing.try_again(&state).expect("there is room")
        });
        drop(first);
        assert!(closing.is_tried(ClientId(7), Ino(5)) && !closing.is_tried(ClientId(8), Ino(5)));
        drop(second);
        assert!(!closing.is_tried(ClientId(7), Ino(5)));
    }

    #[test]
    fn what_is_tried_again() {
        let refused = |error: FsError| Ok(Response::refused(error));
        let key = StateError::Misordered.into();
        assert_eq!(trouble(&Err(FsError::Delay), true), Some(Trouble::Passing));
        assert_eq!(trouble(&refused(FsError::Delay), false), Some(Trouble::Passing));
        assert_eq!(trouble(&refused(FsError::Fenced), false), Some(Trouble::Fenced));
        assert_eq!(trouble(&refused(key), true), Some(Trouble::Key));
        assert_eq!(trouble(&refused(key), false), None);
        assert_eq!(trouble(&refused(StateError::OldStateid.into()), true), None);
        assert_eq!(trouble(&Err(FsError::Io), true), None);
    }
}
