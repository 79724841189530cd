//! [`MetadataService`] on a member of the Raft group in this process.
//!
//! Reads never wait where this member is the sole voter: the future is ready at its first poll. Changes go through
//! [`super::calls`] to the [`super::proposer`].

use super::shared::{Shared, unreadable};
use crate::raft::group::{GroupError, Leadership};
use crate::state::StateReader;
use atoll_base::attr::Attr;
use atoll_base::id::{Cookie, Ino, VolumeId};
use atoll_base::time::Timestamp;
use atoll_lockd::ShareBits;
use atoll_meta::data::{FileMap, Stretch};
use atoll_meta::delegation::Noticed;
use atoll_meta::export::Volume;
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use atoll_meta::nfs4::{Client, ClientId, Session, SessionId, State, StateId};
use atoll_meta::offload::Offload;
use atoll_meta::once::SlotOutcome;
use atoll_meta::service::{Aside, DirPage, Found, Read};
use atoll_meta::{Call, Exports, FsError, MetadataService, OnceKey, Piece, Response};
use atoll_model::{KvError, read};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

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
        self.shared.recalled().await
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
        self.shared.granted_waiters().await
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
