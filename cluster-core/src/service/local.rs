//! [`MetadataService`] on a member of the Raft group in this process.
//!
//! Reads never wait where this member is the sole voter: the future is ready at its first poll. Changes go through the
//! [`super::proposer`].

use super::machine::{AppliedCounters, MetaMachine, takes_space};
use super::proposer::{Propose, Proposer, answered};
use super::published::Published;
use crate::raft::group::{GroupError, Leadership, Proposed, RaftGroup};
use crate::raft::log_store::LogStore;
use crate::raft::types::Completion;
use crate::state::{StateReader, StateStore};
use atoll_base::attr::Attr;
use atoll_base::disk::Disk;
use atoll_base::id::{Cookie, Ino, VolumeId};
use atoll_base::seldom::Seldom;
use atoll_base::time::{Clock, Timestamp};
use atoll_lockd::{GrantId, ShareBits};
use atoll_meta::data::{FileMap, Stretch};
use atoll_meta::delegation::Noticed;
use atoll_meta::export::Volume;
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use atoll_meta::nfs4::{Client, ClientId, Session, SessionId, State, StateId};
use atoll_meta::offload::Offload;
use atoll_meta::once::{Once, SlotOutcome};
use atoll_meta::service::{Aside, DirPage, Found, Read};
use atoll_meta::{Call, Exports, FsError, MetadataService, OnceKey, Op, Piece, Response};
use atoll_model::read::{self, Unreadable};
use atoll_model::{Command, KvError};
use bytes::Bytes;
use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Files whose grants, or recalled delegations, that are read at once.
const PAGE: usize = 1000;

/// What one call rewrites in the state's file beside its own bytes, which count twice since pages are half full at worst: a
/// few pages, of which calls flushed together share most.
const PAGES_PER_CALL: u64 = 16 << 10;

/// How often it is told that changes of damaged files are refused.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Propose for Arc<RaftGroup<MetaMachine>> {
    fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        RaftGroup::propose(self, commands, done);
    }
}

/// What frontend and maintenance share.
pub(super) struct Shared {
    pub(super) cluster: [u8; 16],
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: LogStore,
    pub(super) store: Arc<StateStore>,
    pub(super) published: Arc<Published>,
    pub(super) group: Arc<RaftGroup<MetaMachine>>,
    pub(super) proposer: Arc<Proposer<Arc<RaftGroup<MetaMachine>>>>,
    pub(super) counters: Arc<AppliedCounters>,
    pub(super) clock: Arc<dyn Clock>,
    /// Little room is left on the disk, or in the log.
    pub(super) low_space: AtomicBool,
    /// Bytes that the disk has beyond the reserve, as of the last look.
    pub(super) room: AtomicU64,
    /// What the calls taken since the state was last made durable may still take of it: until then they are in memory,
    /// and the disk does not know of them.
    pub(super) pending: AtomicU64,
    pub(super) refused_for_space: AtomicU64,
    /// Bytes of calls since the state's file was measured.
    pub(super) taken_since_measured: AtomicU64,
    told_grants: Mutex<Told<(Ino, GrantId)>>,
    told_recalls: Mutex<Told<StateId>>,
    told_damage: Seldom,
}

/// What was handed out for telling, in one term of leadership.
struct Told<T> {
    term: u64,
    told: HashSet<T>,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self { term: 0, told: HashSet::new() }
    }
}

impl<T: Eq + Hash> Told<T> {
    /// Leaves of `pending` what nobody was told of in this term; forgets what is not pending any more.
    fn retain_untold<P>(&mut self, term: u64, pending: &mut Vec<P>, id: impl Fn(&P) -> T) {
        if self.term != term {
            *self = Self { term, told: HashSet::new() };
        }
        let now = pending.iter().map(&id).collect();
        let told = std::mem::replace(&mut self.told, now);
        pending.retain(|p| !told.contains(&id(p)));
    }
}

pub(super) struct Parts {
    pub(super) cluster: [u8; 16],
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: LogStore,
    pub(super) store: Arc<StateStore>,
    pub(super) published: Arc<Published>,
    pub(super) group: Arc<RaftGroup<MetaMachine>>,
    pub(super) counters: Arc<AppliedCounters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: super::Limits,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { cluster, disk, log, store, published, group, counters, clock, limits } = parts;
        let proposer = Proposer::new(group.clone(), limits);
        Arc::new(Self {
            cluster,
            disk,
            log,
            store,
            published,
            group,
            proposer,
            counters,
            clock,
            low_space: AtomicBool::new(false),
            room: AtomicU64::new(u64::MAX),
            pending: AtomicU64::new(0),
            refused_for_space: AtomicU64::new(0),
            taken_since_measured: AtomicU64::new(0),
            told_grants: Mutex::default(),
            told_recalls: Mutex::default(),
            told_damage: Seldom::new(TELL_EVERY),
        })
    }

    /// Time for the next command, never behind an earlier one.
    fn stamp(&self) -> Timestamp {
        self.published.advance_time(self.clock.now())
    }

    pub(super) fn execute(&self, call: &Call) -> impl Future<Output = Result<Response, FsError>> + use<> {
        // Encoded before anybody waits, so that the future holds no call.
        let ready = match self.has_bytes(call) {
            Ok(true) => self.encoded(call),
            Ok(false) => self.refusal(call),
            Err(error) => Err(error),
        };
        let answer = ready.and_then(|command| self.proposer.submit(command));
        async { answered(answer?).await }
    }

    /// Has a call run that nobody waits for.
    fn execute_aside(&self, call: &Call, done: Aside) -> Result<(), FsError> {
        self.proposer.submit_aside(self.encoded(call)?, done)
    }

    /// Whether a call may be proposed, or else is refused because it needs stored bytes which cannot be read here. From the log each member that finds them damaged would lose
    /// them for good, and one that fails to read them would stop; refused before, the call alone fails. Only who leads is asked: what others have, they look at when they lead.
    ///
    /// A repetition of what was executed before the bytes were damaged needs none of them: the state machine answers what it answered then.
    ///
    /// # Errors
    /// Not even that can be read. Nothing of the call may come into the log.
    fn has_bytes(&self, call: &Call) -> Result<bool, FsError> {
        if !read::may_need_bytes(&call.op, |ino| self.published.cached_attr(ino)) || !self.group.leads() {
            return Ok(true);
        }
        let current = self.published.current();
        let Err(Unreadable { ino, error }) = read::needed(current.view.reader(), &call.op) else {
            return Ok(true);
        };
        if self.is_answered(call.once.as_ref()).map_err(|error| unreadable(&error))? {
            return Ok(true);
        }
        if let Some(suppressed) = self.told_damage.at(Instant::now()) {
            tracing::error!(%ino, %error, suppressed, "a change of a damaged file is refused; `atoll fsck` tells its path");
        }
        Ok(false)
    }

    /// What is proposed instead of a refused call. A delayed duplicate must not be executed later either, when the bytes are whole again or were
    /// written over: so its key gets the refusal as its outcome.
    fn refusal(&self, call: &Call) -> Result<Bytes, FsError> {
        let error = FsError::Io;
        // Steps of owners need no bytes.
        let Some(once @ (Once::Request(_) | Once::Slot(_))) = &call.once else { return Err(error) };
        let Call { origin, cred, client, .. } = call;
        let (origin, once, client) = (*origin, Some(once.clone()), *client);
        self.encoded(&Call { origin, once, cred: cred.clone(), client, op: Op::Refused(error) })
    }

    /// Whether the outcome of a call, or of a later part of its request, is stored, so that it is not executed any more.
    fn is_answered(&self, once: Option<&Once>) -> Result<bool, KvError> {
        match once {
            Some(Once::Request(key)) => Ok(self.published.outcome(key)?.is_some()),
            Some(Once::Slot(key)) => {
                let current = self.published.current();
                let kept = read::slot(current.view.reader(), key.session, key.slot)?.ok().flatten();
                Ok(kept.is_some_and(|kept| kept.seqid == key.seqid && kept.index >= key.index))
            }
            Some(Once::Owner(_)) | None => Ok(false),
        }
    }

    /// The command of a call that may be proposed.
    fn encoded(&self, call: &Call) -> Result<Bytes, FsError> {
        if takes_space(&call.op) && self.is_low_on_space() {
            self.refused_for_space.fetch_add(1, Ordering::Relaxed);
            return Err(FsError::NoSpace);
        }
        if self.log.failed().is_some() {
            self.proposer.fail();
        }
        // No command may come before the genesis in the log; once that is applied here, it cannot.
        if !self.published.is_founded() {
            return Err(FsError::Delay);
        }
        let encoded = Command::encode_call(self.stamp(), call);
        self.taken_since_measured.fetch_add(encoded.len() as u64, Ordering::Relaxed);
        self.pending.fetch_add(2 * encoded.len() as u64 + PAGES_PER_CALL, Ordering::Relaxed);
        Ok(encoded)
    }

    fn is_low_on_space(&self) -> bool {
        self.low_space.load(Ordering::Relaxed)
            || self.pending.load(Ordering::Relaxed) >= self.room.load(Ordering::Relaxed)
            || self.log.low_space()
    }

    /// Waits until the published state is the newest there is.
    async fn ready(&self) -> Result<(), FsError> {
        if self.group.reads_locally() {
            return Ok(());
        }
        // Boxed: the future is 3 KB, and would be in those of all reads, so of all requests.
        Box::pin(self.linearize()).await
    }

    #[cold]
    async fn linearize(&self) -> Result<(), FsError> {
        match self.group.linearize().await {
            Ok(()) if self.published.is_founded() => Ok(()),
            Ok(()) | Err(GroupError::NotLeader) => Err(FsError::Delay),
            Err(error) => {
                tracing::warn!(%error, "a read cannot be made sure to be the newest");
                Err(FsError::Delay)
            }
        }
    }

    /// Reads from the published view.
    async fn read<R>(&self, f: impl FnOnce(&StateReader) -> Result<Read<R>, KvError>) -> Read<R> {
        self.ready().await?;
        f(self.published.current().view.reader()).unwrap_or_else(|error| Err(unreadable(&error)))
    }

    /// Granted waiters that nobody was told of in this term.
    fn untold_grants(&self, leadership: Leadership) -> Result<Vec<GrantedWaiter>, KvError> {
        let current = self.published.current();
        let (mut pending, mut after) = (Vec::new(), None);
        loop {
            let page = read::pending_grants(current.view.reader(), after, PAGE)?;
            after = page.last().map(|grant| grant.ino);
            pending.extend(page);
            if after.is_none() {
                break;
            }
        }
        let mut told = self.told_grants.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain_untold(leadership.term, &mut pending, |g| (g.ino, g.grant));
        Ok(pending)
    }

    /// Delegations to be returned that nobody was told of in this term.
    fn untold_recalls(&self, leadership: Leadership) -> Result<Vec<State>, KvError> {
        let current = self.published.current();
        let (mut pending, mut after) = (Vec::new(), StateId(0));
        loop {
            let page = read::recalled(current.view.reader(), after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.stateid.id;
            pending.extend(page);
        }
        let mut told = self.told_recalls.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain_untold(leadership.term, &mut pending, |state| state.stateid.id);
        Ok(pending)
    }

    /// Waits until this member leads and there is something to tell.
    async fn to_tell<T>(
        &self,
        news: &Notify,
        untold: impl Fn(&Self, Leadership) -> Result<Vec<T>, KvError>,
    ) -> Vec<T> {
        let mut leadership = self.group.leadership();
        loop {
            // Before looking, so that nothing that comes meanwhile is missed.
            let told = news.notified();
            let now = *leadership.borrow_and_update();
            if now.leads {
                match untold(self, now) {
                    Ok(pending) if !pending.is_empty() => return pending,
                    Ok(_) => {}
                    Err(error) => drop(unreadable(&error)),
                }
            }
            tokio::select! {
                () = told => {}
                changed = leadership.changed() => if changed.is_err() {
                    // The group has stopped; there will never be anything to tell.
                    std::future::pending::<()>().await;
                },
            }
        }
    }
}

#[cold]
fn unreadable(error: &KvError) -> FsError {
    tracing::error!(%error, "the metadata store cannot be read");
    FsError::Io
}

/// The metadata service of this process.
pub struct LocalMetadata {
    pub(super) shared: Arc<Shared>,
    pub(super) maintenance: super::maintenance::Maintenance,
}

impl MetadataService for LocalMetadata {
    async fn getattr(&self, ino: Ino) -> Read<Attr> {
        self.shared.ready().await?;
        self.shared.published.getattr(ino).unwrap_or_else(|error| Err(unreadable(&error)))
    }

    async fn lookup(&self, dir: Ino, name: &[u8]) -> Read<Found> {
        self.shared.ready().await?;
        self.shared.published.lookup(dir, name).unwrap_or_else(|error| Err(unreadable(&error)))
    }

    async fn parent(&self, dir: Ino) -> Read<Ino> {
        self.shared.read(|kv| read::parent(kv, dir)).await
    }

    async fn readdir(
        &self,
        dir: Ino,
        after: Cookie,
        max_entries: usize,
        max_bytes: usize,
        with_attrs: bool,
    ) -> Read<DirPage> {
        self.shared.read(|kv| read::readdir(kv, dir, after, max_entries, max_bytes, with_attrs)).await
    }

    async fn readlink(&self, ino: Ino) -> Read<(Attr, Bytes)> {
        self.shared.read(|kv| read::readlink(kv, ino)).await
    }

    async fn map(&self, ino: Ino, offset: u64, len: u64) -> Read<FileMap> {
        self.shared.ready().await?;
        self.shared.published.map(ino, offset, len).unwrap_or_else(|error| Err(unreadable(&error)))
    }

    async fn stretch(&self, ino: Ino, offset: u64) -> Read<Stretch> {
        self.shared.read(|kv| read::stretch(kv, ino, offset)).await
    }

    async fn refused_bytes(&self, ino: Ino, pieces: &[Piece]) -> Read<Vec<Range<u64>>> {
        self.shared.read(|kv| read::refused(kv, ino, pieces).map(Ok)).await
    }

    async fn get_xattr(&self, ino: Ino, name: &[u8]) -> Read<Bytes> {
        self.shared.read(|kv| read::get_xattr(kv, ino, name)).await
    }

    async fn list_xattrs(&self, ino: Ino) -> Read<Vec<Bytes>> {
        self.shared.read(|kv| read::list_xattrs(kv, ino)).await
    }

    async fn test_lock(&self, test: LockTest) -> Read<Option<Conflict>> {
        self.shared.read(|kv| read::test_lock(kv, &test)).await
    }

    async fn outcome(&self, key: &OnceKey) -> Read<Option<Response>> {
        self.shared.ready().await?;
        self.shared.published.outcome(key).map_err(|error| unreadable(&error))
    }

    async fn slot(&self, session: SessionId, slot: u32) -> Read<Option<SlotOutcome>> {
        self.shared.read(|kv| read::slot(kv, session, slot)).await
    }

    async fn client(&self, id: ClientId) -> Read<Option<Client>> {
        self.shared.read(|kv| read::client(kv, id).map(Ok)).await
    }

    async fn clients(&self, after: ClientId, most: usize) -> Read<Vec<Client>> {
        self.shared.read(|kv| read::clients(kv, after, most).map(Ok)).await
    }

    async fn standing(&self, id: ClientId, minor: u8) -> Read<()> {
        self.shared.read(|kv| read::standing(kv, id, minor)).await
    }

    async fn session(&self, id: SessionId) -> Read<Option<Session>> {
        self.shared.read(|kv| read::session(kv, id).map(Ok)).await
    }

    async fn sessions(&self, client: ClientId) -> Read<Vec<Session>> {
        self.shared.read(|kv| read::sessions(kv, client).map(Ok)).await
    }

    async fn state(&self, id: StateId) -> Read<Option<State>> {
        self.shared.read(|kv| read::state(kv, id).map(Ok)).await
    }

    async fn client_of(&self, id: StateId) -> Read<Option<ClientId>> {
        self.shared.read(|kv| read::client_of(kv, id).map(Ok)).await
    }

    async fn states_of(&self, ino: Ino, after: StateId, most: usize) -> Read<Vec<State>> {
        self.shared.read(|kv| read::states_of(kv, ino, after, most).map(Ok)).await
    }

    async fn has_locks(&self, open: StateId) -> Read<bool> {
        self.shared.read(|kv| read::has_locks(kv, open).map(Ok)).await
    }

    async fn states_by(&self, client: ClientId, after: StateId, most: usize) -> Read<Vec<State>> {
        self.shared.read(|kv| read::states_by(kv, client, after, most).map(Ok)).await
    }

    async fn is_denied(&self, ino: Ino, access: ShareBits) -> Read<bool> {
        self.shared.read(|kv| read::is_denied(kv, ino, access)).await
    }

    async fn volume(&self, id: VolumeId) -> Read<Volume> {
        self.shared.read(|kv| read::volume(kv, id)).await
    }

    async fn volumes(&self) -> Read<Vec<Volume>> {
        self.shared.read(|kv| read::volumes(kv).map(Ok)).await
    }

    fn exports(&self) -> Arc<Exports> {
        self.shared.published.exports()
    }

    fn ended(&self) -> Option<u64> {
        self.shared.group.reads_locally().then(|| self.shared.published.ended())
    }

    fn verifier(&self) -> u64 {
        self.shared.published.verifier()
    }

    fn now(&self) -> Timestamp {
        self.shared.stamp()
    }

    async fn recalled(&self) -> Vec<State> {
        self.shared.to_tell(&self.shared.published.recalls, Shared::untold_recalls).await
    }

    async fn noticed(&self) {
        self.shared.published.notices.notified().await;
    }

    async fn notices(&self, after: StateId, most: usize) -> Read<Vec<Noticed>> {
        self.shared.read(|kv| read::notices(kv, after, most).map(Ok)).await
    }

    async fn offloaded(&self) {
        self.shared.published.offloads.notified().await;
    }

    async fn offload(&self, id: StateId) -> Read<Option<Offload>> {
        self.shared.read(|kv| read::offload(kv, id).map(Ok)).await
    }

    async fn offloads(&self, after: StateId, most: usize) -> Read<Vec<Offload>> {
        self.shared.read(|kv| read::offloads(kv, after, most).map(Ok)).await
    }

    async fn granted_waiters(&self) -> Vec<GrantedWaiter> {
        self.shared.to_tell(&self.shared.published.grants, Shared::untold_grants).await
    }

    fn execute(&self, call: Call) -> impl Future<Output = Result<Response, FsError>> + Send {
        self.shared.execute(&call)
    }

    fn execute_kept(&self, call: &Call) -> impl Future<Output = Result<Response, FsError>> + Send {
        self.shared.execute(call)
    }

    fn execute_aside(&self, call: &Call, done: Aside) -> bool {
        self.shared.execute_aside(call, done).is_ok()
    }
}

impl LocalMetadata {
    /// The cluster's id, as given when it was founded.
    pub fn cluster(&self) -> [u8; 16] {
        self.shared.cluster
    }

    /// Who leads the group.
    pub fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        self.shared.group.leadership()
    }

    /// Runs a pure read of the model on the published state: what the collector, the repacker, fsck and status need beyond the
    /// service's operations. As new as the last answered call, on this member.
    pub async fn with_state<R>(
        &self,
        f: impl FnOnce(&StateReader) -> Result<R, KvError>,
    ) -> Result<R, FsError> {
        self.shared.read(|kv| f(kv).map(Ok)).await
    }

    /// Takes no more changes, finishes those accepted, makes the state durable and stops the group: the next start has nothing
    /// to repeat. Reads go on from the last state.
    pub async fn stop(&self) -> Result<(), GroupError> {
        self.shared.proposer.close().await;
        self.maintenance.stop().await;
        self.shared.group.stop().await
    }
}
