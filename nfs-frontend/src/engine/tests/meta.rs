//! The metadata service in one process: the real state machine over its store in memory, behind a mutex.

use super::turns::Turns;
use atoll_base::attr::Attr;
use atoll_base::id::{Cookie, Ino, VolumeId};
use atoll_base::time::Timestamp;
use atoll_lockd::ShareBits;
use atoll_meta::data::{FileMap, Stretch};
use atoll_meta::delegation::Noticed;
use atoll_meta::export::{Exports, Volume};
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use atoll_meta::nfs4::{Client, ClientId, Session, SessionId, State as OpenState, StateId};
use atoll_meta::offload::Offload;
use atoll_meta::once::SlotOutcome;
use atoll_meta::service::{Aside, DirPage, Found, Read};
use atoll_meta::{Call, FsError, MetadataService, OnceKey, Op, Piece, Response};
use atoll_model::{Command, KvError, KvRead, MemKv, Model, Table, read};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::{Bound, ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not applied, and its outcome is said to be unknown.
    LostBefore,
    /// It is applied, and its outcome is said to be unknown.
    LostAfter,
    /// It is refused without effect.
    Refused(FsError),
}

/// Whether a fault is for an operation.
type Applies = fn(&Op) -> bool;

/// The store, with some values damaged.
#[derive(Default)]
struct Rotting {
    kv: MemKv,
    /// Inline bytes that cannot be read, as long as they are what they are.
    rotten: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl KvRead for Rotting {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        let rotten = self.rotten.get(key).filter(|_| table == Table::Inline);
        let is_rotten = |value: Option<&[u8]>| rotten.is_some_and(|rotten| value == Some(rotten));
        if self.kv.get(table, key, is_rotten)? {
            return Err(KvError::Damaged("rotten".into()));
        }
        self.kv.get(table, key, f)
    }

    fn walk(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.kv.walk(table, bounds, back, f)
    }
}

struct State {
    model: Model,
    store: Rotting,
    exports: Arc<Exports>,
    ended: u64,
    /// Faults for calls to come, in order, with a test of the operation they are for.
    faults: VecDeque<(Applies, Fault)>,
    /// Calls applied, if anybody wants to know.
    executed: Option<Vec<Call>>,
    stamp: i128,
}

/// Holds one read of the store between the moment it read and the moment its caller learns.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) reached: Notify,
    pub(crate) go_on: Notify,
}

/// See the module.
pub(crate) struct Meta {
    gate: Mutex<Option<Arc<Gate>>>,
    state: Mutex<State>,
    turns: Turns,
    /// Delegations of whose recall somebody was told.
    told: Mutex<HashSet<StateId>>,
    /// Calls that nobody waits for, if they are held.
    aside: Mutex<Option<Vec<(Call, Aside)>>>,
    applied: Notify,
    noticed: Notify,
    offloaded: Notify,
}

impl Meta {
    pub(crate) fn new(seed: Option<u64>) -> Arc<Self> {
        let mut kv = MemKv::default();
        let stamp = 1_700_000_000_000_000_000;
        Model::bootstrap(&mut kv, [7; 16], Timestamp::from_nanos(stamp)).unwrap();
        let model = Model::load(&kv).unwrap();
        let exports = Arc::default();
        let store = Rotting { kv, ..Rotting::default() };
        let state = State { model, store, exports, ended: 0, faults: VecDeque::new(), executed: None, stamp };
        Arc::new(Self {
            gate: Mutex::default(),
            state: Mutex::new(state),
            turns: Turns::new(seed),
            told: Mutex::default(),
            aside: Mutex::default(),
            applied: Notify::new(),
            noticed: Notify::new(),
            offloaded: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Holds the next read of attributes, a name or extents.
    pub(crate) fn hold_next_read(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    async fn read_held<T>(&self, f: impl FnOnce(&Rotting) -> Result<Read<T>, KvError>) -> Read<T> {
        let result = self.read(f);
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.go_on.notified().await;
        }
        result
    }

    fn read<T>(&self, f: impl FnOnce(&Rotting) -> Result<Read<T>, KvError>) -> Read<T> {
        match f(&self.lock().store) {
            Err(KvError::Damaged(_)) => Err(FsError::Io),
            read => read.unwrap(),
        }
    }

    async fn turns(&self) {
        self.turns.pause().await;
    }

    /// Arranges for the next call whose operation `applies` to go wrong.
    pub(crate) fn fail_next(&self, applies: Applies, fault: Fault) {
        self.lock().faults.push_back((applies, fault));
    }

    /// Grants that their clients have not taken.
    pub(crate) fn grants(&self) -> Vec<GrantedWaiter> {
        read::pending_grants(&self.lock().store, None, 100).unwrap()
    }

    /// As a new leader: everything is to be told again.
    pub(crate) fn tell_again(&self) {
        self.told.lock().unwrap().clear();
        self.applied.notify_waiters();
    }

    /// How many faults are to come. (Of use to the stateful fuzzer alone.)
    #[allow(dead_code)]
    pub(crate) fn faults(&self) -> usize {
        self.lock().faults.len()
    }

    /// No more faults.
    pub(crate) fn forget_faults(&self) {
        self.lock().faults.clear();
    }

    /// The calls that were applied since the last time this was asked; noted from the first time on.
    pub(crate) fn take_executed(&self) -> Vec<Call> {
        self.lock().executed.replace(Vec::new()).unwrap_or_default()
    }

    /// Looks at the whole state. (Of use to `examples/stateful` alone, which shares this file.)
    #[allow(dead_code)]
    pub(crate) fn inspect<T>(&self, f: impl FnOnce(&Model, &MemKv) -> T) -> T {
        let state = self.lock();
        f(&state.model, &state.store.kv)
    }

    /// Moves the clock.
    pub(crate) fn advance(&self, nanos: i128) {
        self.lock().stamp += nanos;
    }

    /// From now on, calls that nobody waits for wait until they are let go.
    pub(crate) fn hold_aside(&self) {
        self.aside.lock().unwrap().get_or_insert_default();
    }

    /// Executes the calls that nobody waits for.
    pub(crate) fn let_aside_go(&self) {
        for (call, done) in self.aside.lock().unwrap().take().unwrap_or_default() {
            done(self.try_apply(call));
        }
    }

    /// Applies a call unless something is to go wrong with it.
    fn try_apply(&self, call: Call) -> Result<Response, FsError> {
        let fault = {
            let mut state = self.lock();
            let at = state.faults.iter().position(|(applies, _)| applies(&call.op));
            at.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault)
        };
        match fault {
            None => self.refused(&call).unwrap_or_else(|| Ok(self.apply(call))),
            Some(Fault::LostBefore) => Err(FsError::Delay),
            Some(Fault::LostAfter) => {
                let _lost = self.apply(call);
                Err(FsError::Delay)
            }
            Some(Fault::Refused(e)) => Err(e),
        }
    }

    /// Damages the inline bytes that a file has now, but for the first of each row. (Of use to the tests alone.)
    #[allow(dead_code)]
    pub(crate) fn rot(&self, ino: Ino) {
        let mut state = self.lock();
        let Rotting { kv, rotten } = &mut state.store;
        let from = ino.0.to_be_bytes();
        let bounds = (Bound::Included(&from[..]), Bound::Unbounded);
        kv.walk(Table::Inline, bounds, false, |key, value| {
            if !key.starts_with(&from) {
                return ControlFlow::Break(());
            }
            rotten.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }

    /// What becomes of a call that needs damaged bytes, as whoever leads decides.
    fn refused(&self, call: &Call) -> Option<Result<Response, FsError>> {
        read::needed(&self.lock().store, &call.op).err()?;
        let op = Op::Refused(FsError::Io);
        let refusal = |_: &_| self.apply(Call { op, ..call.clone() });
        Some(call.once.as_ref().map(refusal).ok_or(FsError::Io))
    }

    pub(crate) fn apply(&self, call: Call) -> Response {
        let mut state = self.lock();
        let State { model, store: Rotting { kv, .. }, executed, stamp, exports, ended, .. } = &mut *state;
        *stamp += 1000;
        if let Some(executed) = executed {
            executed.push(call.clone());
        }
        let command = Command { stamp: Timestamp::from_nanos(*stamp), call };
        let applied = model.apply(kv, model.last_txn() + 1, &command).unwrap();
        model.end_batch(kv).unwrap();
        *ended += u64::from(applied.touched.ended);
        if applied.touched.exports {
            *exports = Arc::new(read::exports(kv).unwrap());
        }
        drop(state);
        self.applied.notify_waiters();
        if applied.touched.notices {
            self.noticed.notify_one();
        }
        if applied.touched.offloads {
            self.offloaded.notify_one();
        }
        applied.response
    }
}

impl MetadataService for Meta {
    async fn getattr(&self, ino: Ino) -> Read<Attr> {
        self.read_held(|kv| read::getattr(kv, ino)).await
    }

    async fn lookup(&self, dir: Ino, name: &[u8]) -> Read<Found> {
        self.read_held(|kv| read::lookup(kv, dir, name)).await
    }

    async fn parent(&self, dir: Ino) -> Read<Ino> {
        self.read(|kv| read::parent(kv, dir))
    }

    async fn readdir(
        &self,
        dir: Ino,
        after: Cookie,
        entries: usize,
        bytes: usize,
        attrs: bool,
    ) -> Read<DirPage> {
        self.read(|kv| read::readdir(kv, dir, after, entries, bytes, attrs))
    }

    async fn readlink(&self, ino: Ino) -> Read<(Attr, Bytes)> {
        self.read(|kv| read::readlink(kv, ino))
    }

    async fn map(&self, ino: Ino, offset: u64, len: u64) -> Read<FileMap> {
        self.turns().await;
        let map = self.read_held(|kv| read::map(kv, ino, offset, len)).await;
        self.turns().await;
        map
    }

    async fn stretch(&self, ino: Ino, offset: u64) -> Read<Stretch> {
        self.read_held(|kv| read::stretch(kv, ino, offset)).await
    }

    async fn refused_bytes(&self, ino: Ino, pieces: &[Piece]) -> Read<Vec<Range<u64>>> {
        self.read(|kv| read::refused(kv, ino, pieces).map(Ok))
    }

    async fn get_xattr(&self, ino: Ino, name: &[u8]) -> Read<Bytes> {
        self.read(|kv| read::get_xattr(kv, ino, name))
    }

    async fn list_xattrs(&self, ino: Ino) -> Read<Vec<Bytes>> {
        self.read(|kv| read::list_xattrs(kv, ino))
    }

    async fn test_lock(&self, test: LockTest) -> Read<Option<Conflict>> {
        self.read(|kv| read::test_lock(kv, &test))
    }

    async fn outcome(&self, key: &OnceKey) -> Read<Option<Response>> {
        let state = self.lock();
        Ok(read::outcome(state.model.once_index(), key, || &state.store).unwrap())
    }

    async fn slot(&self, session: SessionId, slot: u32) -> Read<Option<SlotOutcome>> {
        self.read(|kv| read::slot(kv, session, slot))
    }

    async fn client(&self, id: ClientId) -> Read<Option<Client>> {
        self.read(|kv| Ok(Ok(read::client(kv, id)?)))
    }

    async fn clients(&self, after: ClientId, most: usize) -> Read<Vec<Client>> {
        self.read(|kv| Ok(Ok(read::clients(kv, after, most)?)))
    }

    async fn standing(&self, id: ClientId, minor: u8) -> Read<()> {
        self.read(|kv| read::standing(kv, id, minor))
    }

    async fn session(&self, id: SessionId) -> Read<Option<Session>> {
        self.read(|kv| Ok(Ok(read::session(kv, id)?)))
    }

    async fn sessions(&self, client: ClientId) -> Read<Vec<Session>> {
        self.read(|kv| Ok(Ok(read::sessions(kv, client)?)))
    }

    async fn state(&self, id: StateId) -> Read<Option<OpenState>> {
        self.read(|kv| Ok(Ok(read::state(kv, id)?)))
    }

    async fn client_of(&self, id: StateId) -> Read<Option<ClientId>> {
        self.read(|kv| Ok(Ok(read::client_of(kv, id)?)))
    }

    async fn states_of(&self, ino: Ino, after: StateId, most: usize) -> Read<Vec<OpenState>> {
        self.read(|kv| Ok(Ok(read::states_of(kv, ino, after, most)?)))
    }

    async fn has_locks(&self, open: StateId) -> Read<bool> {
        self.read(|kv| Ok(Ok(read::has_locks(kv, open)?)))
    }

    async fn states_by(&self, client: ClientId, after: StateId, most: usize) -> Read<Vec<OpenState>> {
        self.read(|kv| Ok(Ok(read::states_by(kv, client, after, most)?)))
    }

    async fn is_denied(&self, ino: Ino, access: ShareBits) -> Read<bool> {
        self.read(|kv| read::is_denied(kv, ino, access))
    }

    async fn volume(&self, id: VolumeId) -> Read<Volume> {
        self.read(|kv| read::volume(kv, id))
    }

    async fn volumes(&self) -> Read<Vec<Volume>> {
        self.read(|kv| Ok(Ok(read::volumes(kv)?)))
    }

    fn exports(&self) -> Arc<Exports> {
        self.lock().exports.clone()
    }

    fn ended(&self) -> Option<u64> {
        Some(self.lock().ended)
    }

    fn verifier(&self) -> u64 {
        self.lock().model.verifier()
    }

    fn now(&self) -> Timestamp {
        let mut state = self.lock();
        state.stamp += 1000;
        state.model.now().max(Timestamp::from_nanos(state.stamp))
    }

    async fn recalled(&self) -> Vec<OpenState> {
        loop {
            let mut applied = std::pin::pin!(self.applied.notified());
            applied.as_mut().enable();
            let all = read::recalled(&self.lock().store, StateId(0), 1000).unwrap();
            let new: Vec<_> = {
                let mut told = self.told.lock().unwrap();
                all.into_iter().filter(|state| told.insert(state.stateid.id)).collect()
            };
            if !new.is_empty() {
                return new;
            }
            applied.await;
        }
    }

    async fn noticed(&self) {
        self.noticed.notified().await;
    }

    async fn notices(&self, after: StateId, most: usize) -> Read<Vec<Noticed>> {
        self.read(|kv| read::notices(kv, after, most).map(Ok))
    }

    async fn offloaded(&self) {
        self.offloaded.notified().await;
    }

    async fn offload(&self, id: StateId) -> Read<Option<Offload>> {
        self.read(|kv| read::offload(kv, id).map(Ok))
    }

    async fn offloads(&self, after: StateId, most: usize) -> Read<Vec<Offload>> {
        self.read(|kv| read::offloads(kv, after, most).map(Ok))
    }

    async fn granted_waiters(&self) -> Vec<GrantedWaiter> {
        std::future::pending().await
    }

    fn execute_aside(&self, call: &Call, done: Aside) -> bool {
        let mut aside = self.aside.lock().unwrap();
        match &mut *aside {
            Some(held) => held.push((call.clone(), done)),
            None => {
                drop(aside);
                done(self.try_apply(call.clone()));
            }
        }
        true
    }

    async fn execute(&self, call: Call) -> Result<Response, FsError> {
        self.turns().await;
        let answer = self.try_apply(call);
        self.turns().await;
        answer
    }
}
