//! The real state machine over a store in memory, as a metadata service.

use crate::lock_manager::{LockTarget, Resolve, ResolveError};
use crate::rpc::{Credential, RpcCall};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::id::{Cookie, Ino, VolumeId};
use atoll_base::time::Timestamp;
use atoll_lockd::ShareBits;
use atoll_meta::data::{FileMap, Stretch};
use atoll_meta::export::{Exports, Volume};
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use atoll_meta::nfs4::{Client, ClientId, Session, SessionId, State as OpenState, StateId};
use atoll_meta::once::SlotOutcome;
use atoll_meta::service::{DirPage, Found, Read};
use atoll_meta::{
    Call, CreateHow, FsError, MetadataService, NewNode, OnceKey, Op, Origin, Outcome, RemoveKind, Response,
};
use atoll_model::{Command, MemKv, Model, read};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

const ROOT: Ino = Ino(1);

pub(super) struct Store {
    state: Mutex<State>,
    granted: Notify,
}

struct State {
    kv: MemKv,
    model: Model,
    txn: u64,
    grants: Vec<GrantedWaiter>,
    /// How many calls are to be answered with `Delay`: after they took effect, so that only a key keeps them from doing so twice.
    delays: usize,
    executed: usize,
}

impl Store {
    pub(super) fn new() -> Arc<Self> {
        let mut kv = MemKv::default();
        Model::bootstrap(&mut kv, [3; 16], Timestamp::from_nanos(1)).unwrap();
        let model = Model::load(&kv).unwrap();
        let state = State { kv, model, txn: 0, grants: Vec::new(), delays: 0, executed: 0 };
        Arc::new(Self { state: Mutex::new(state), granted: Notify::new() })
    }

    fn apply(&self, call: Call) -> Response {
        let mut state = self.state.lock().unwrap();
        let State { kv, model, txn, grants, executed, .. } = &mut *state;
        *txn += 1;
        *executed += 1;
        let command = Command { stamp: Timestamp::from_nanos(i128::from(*txn)), call };
        let applied = model.apply(kv, *txn, &command).unwrap();
        model.end_batch(kv).unwrap();
        grants.extend(applied.touched.grants);
        if !grants.is_empty() {
            self.granted.notify_one();
        }
        applied.response
    }

    fn read<T>(&self, f: impl FnOnce(&MemKv) -> T) -> T {
        f(&self.state.lock().unwrap().kv)
    }

    pub(super) fn executed(&self) -> usize {
        self.state.lock().unwrap().executed
    }

    pub(super) fn delay_next(&self, calls: usize) {
        self.state.lock().unwrap().delays = calls;
    }

    /// Makes a file of this owner and mode and returns its handle.
    pub(super) fn file(&self, name: &str, uid: u32, mode: u32) -> Vec<u8> {
        let attrs = SetAttr { mode: Some(mode), uid: Some(uid), gid: Some(uid), ..SetAttr::default() };
        let name = Bytes::copy_from_slice(name.as_bytes());
        let op = Op::Create { dir: ROOT, name, node: NewNode::Regular, how: CreateHow::Guarded, attrs };
        let made = self.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op });
        let Ok(Outcome::Created { attr, .. }) = made.result else { panic!("{made:?}") };
        handle(&attr, false)
    }

    fn done(&self, op: Op) {
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
        assert!(self.apply(call).result.is_ok());
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &str) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.done(Op::Remove { dir: ROOT, name, kind: RemoveKind::NonDirectory });
    }

    /// Takes all permissions of a file away.
    pub(super) fn forbid(&self, name: &str) {
        let child = self.read(|kv| read::lookup(kv, ROOT, name.as_bytes())).unwrap().unwrap().child.unwrap();
        let set = SetAttr { mode: Some(0), ..SetAttr::default() };
        self.done(Op::SetAttr { ino: child.ino, generation: child.generation, set, guard: None });
    }

    /// As a new leader finds it: all that has not been settled is to be told.
    pub(super) fn lose_leader(&self) {
        let mut state = self.state.lock().unwrap();
        state.grants = read::pending_grants(&state.kv, None, usize::MAX).unwrap();
        self.granted.notify_one();
    }

    pub(super) fn pending_grants(&self) -> usize {
        self.read(|kv| read::pending_grants(kv, None, usize::MAX)).unwrap().len()
    }
}

/// Inode, generation, and whether the export is read-only.
fn handle(attr: &Attr, read_only: bool) -> Vec<u8> {
    let mut handle = attr.ino.0.to_be_bytes().to_vec();
    handle.extend(attr.generation.to_be_bytes());
    handle.push(read_only.into());
    handle
}

pub(super) fn read_only(mut handle: Vec<u8>) -> Vec<u8> {
    handle[12] = 1;
    handle
}

/// Opens the handles of [`Store::file`].
pub(super) struct Files(pub(super) Arc<Store>);

impl Resolve for Files {
    async fn resolve(&self, handle: &[u8], call: &RpcCall) -> Result<LockTarget, ResolveError> {
        let Ok(handle) = <[u8; 13]>::try_from(handle) else { return Err(ResolveError::Refused) };
        let ino = Ino(u64::from_be_bytes(handle[..8].try_into().unwrap()));
        let generation = u32::from_be_bytes(handle[8..12].try_into().unwrap());
        let attr = self.0.getattr(ino).await.map_err(|_| ResolveError::Stale)?;
        if attr.generation != generation {
            return Err(ResolveError::Stale);
        }
        let cred = match &call.credential {
            Credential::None => Cred::new(65534, 65534, Vec::new()),
            Credential::Sys { uid, gid, gids } => Cred::new(*uid, *gid, gids.to_vec()),
        };
        Ok(LockTarget { ino, generation, read_only: handle[12] == 1, cred, attr })
    }

    async fn origin(&self) -> Option<Origin> {
        None
    }

    async fn clear_way(&self, test: &LockTest) -> Result<Option<Conflict>, FsError> {
        self.0.test_lock(test.clone()).await
    }

    async fn ask_back(&self, _: Ino) -> bool {
        false
    }

    async fn offer_lock(&self, _: &GrantedWaiter) -> bool {
        false
    }
}

impl MetadataService for Store {
    async fn getattr(&self, ino: Ino) -> Read<Attr> {
        self.read(|kv| read::getattr(kv, ino)).unwrap()
    }
    async fn lookup(&self, dir: Ino, name: &[u8]) -> Read<Found> {
        self.read(|kv| read::lookup(kv, dir, name)).unwrap()
    }
    async fn parent(&self, dir: Ino) -> Read<Ino> {
        self.read(|kv| read::parent(kv, dir)).unwrap()
    }
    async fn readdir(&self, dir: Ino, after: Cookie, n: usize, bytes: usize, attrs: bool) -> Read<DirPage> {
        self.read(|kv| read::readdir(kv, dir, after, n, bytes, attrs)).unwrap()
    }
    async fn readlink(&self, ino: Ino) -> Read<(Attr, Bytes)> {
        self.read(|kv| read::readlink(kv, ino)).unwrap()
    }
    async fn map(&self, ino: Ino, offset: u64, len: u64) -> Read<FileMap> {
        self.read(|kv| read::map(kv, ino, offset, len)).unwrap()
    }
    async fn stretch(&self, ino: Ino, offset: u64) -> Read<Stretch> {
        self.read(|kv| read::stretch(kv, ino, offset)).unwrap()
    }
    async fn get_xattr(&self, ino: Ino, name: &[u8]) -> Read<Bytes> {
        self.read(|kv| read::get_xattr(kv, ino, name)).unwrap()
    }
    async fn list_xattrs(&self, ino: Ino) -> Read<Vec<Bytes>> {
        self.read(|kv| read::list_xattrs(kv, ino)).unwrap()
    }
    async fn test_lock(&self, test: LockTest) -> Read<Option<Conflict>> {
        self.read(|kv| read::test_lock(kv, &test)).unwrap()
    }
    async fn outcome(&self, key: &OnceKey) -> Read<Option<Response>> {
        let state = self.state.lock().unwrap();
        Ok(read::outcome(state.model.once_index(), key, || &state.kv).unwrap())
    }
    async fn slot(&self, session: SessionId, slot: u32) -> Read<Option<SlotOutcome>> {
        self.read(|kv| read::slot(kv, session, slot)).unwrap()
    }
    async fn client(&self, id: ClientId) -> Read<Option<Client>> {
        Ok(self.read(|kv| read::client(kv, id)).unwrap())
    }
    async fn clients(&self, after: ClientId, most: usize) -> Read<Vec<Client>> {
        Ok(self.read(|kv| read::clients(kv, after, most)).unwrap())
    }
    async fn standing(&self, id: ClientId, minor: u8) -> Read<()> {
        self.read(|kv| read::standing(kv, id, minor)).unwrap()
    }
    async fn session(&self, id: SessionId) -> Read<Option<Session>> {
        Ok(self.read(|kv| read::session(kv, id)).unwrap())
    }
    async fn sessions(&self, client: ClientId) -> Read<Vec<Session>> {
        Ok(self.read(|kv| read::sessions(kv, client)).unwrap())
    }
    async fn state(&self, id: StateId) -> Read<Option<OpenState>> {
        Ok(self.read(|kv| read::state(kv, id)).unwrap())
    }
    async fn client_of(&self, id: StateId) -> Read<Option<ClientId>> {
        Ok(self.read(|kv| read::client_of(kv, id)).unwrap())
    }
    async fn states_of(&self, ino: Ino, after: StateId, most: usize) -> Read<Vec<OpenState>> {
        Ok(self.read(|kv| read::states_of(kv, ino, after, most)).unwrap())
    }
    async fn has_locks(&self, open: StateId) -> Read<bool> {
        Ok(self.read(|kv| read::has_locks(kv, open)).unwrap())
    }
    async fn states_by(&self, client: ClientId, after: StateId, most: usize) -> Read<Vec<OpenState>> {
        Ok(self.read(|kv| read::states_by(kv, client, after, most)).unwrap())
    }
    async fn is_denied(&self, ino: Ino, access: ShareBits) -> Read<bool> {
        self.read(|kv| read::is_denied(kv, ino, access)).unwrap()
    }
    async fn volume(&self, id: VolumeId) -> Read<Volume> {
        self.read(|kv| read::volume(kv, id)).unwrap()
    }
    async fn volumes(&self) -> Read<Vec<Volume>> {
        Ok(self.read(read::volumes).unwrap())
    }
    fn exports(&self) -> Arc<Exports> {
        Arc::new(self.read(read::exports).unwrap())
    }
    fn verifier(&self) -> u64 {
        self.read(read::verifier).unwrap()
    }
    fn now(&self) -> Timestamp {
        self.read(read::now).unwrap()
    }
    async fn recalled(&self) -> Vec<atoll_meta::nfs4::State> {
        std::future::pending().await
    }

    async fn granted_waiters(&self) -> Vec<GrantedWaiter> {
        loop {
            let notified = self.granted.notified();
            let granted = std::mem::take(&mut self.state.lock().unwrap().grants);
            if !granted.is_empty() {
                return granted;
            }
            notified.await;
        }
    }
    async fn execute(&self, call: Call) -> Result<Response, FsError> {
        let response = self.apply(call);
        let mut state = self.state.lock().unwrap();
        if state.delays > 0 {
            state.delays -= 1;
            return Err(FsError::Delay);
        }
        Ok(response)
    }
}
