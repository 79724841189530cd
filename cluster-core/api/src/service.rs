//! The metadata service as a frontend sees it.
//!
//! Each read is linearizable: it sees every call whose response was sent before the read began, by whichever
//! frontend. Where the state is local and the lease valid, the futures are ready at the first poll, so that a
//! frontend can answer inline.

use crate::call::Call;
use crate::data::{FileMap, Piece, Stretch};
use crate::delegation::Noticed;
use crate::error::FsError;
use crate::export::{Exports, Volume};
use crate::lock::{Conflict, GrantedWaiter, LockTest};
use crate::nfs4::{Client, ClientId, Session, SessionId, State, StateId};
use crate::offload::Offload;
use crate::once::{OnceKey, SlotOutcome};
use crate::response::Response;
use atoll_base::attr::Attr;
use atoll_base::id::{Cookie, Ino, VolumeId};
use atoll_base::time::Timestamp;
use atoll_lockd::ShareBits;
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

/// Result of a read.
pub type Read<T> = Result<T, FsError>;

/// What is to happen when a call that nobody waits for is over, with its answer as [`MetadataService::execute`] would give it. Must not wait.
pub type Aside = Box<dyn FnOnce(Result<Response, FsError>) + Send>;

/// A name looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Attributes of the directory.
    pub dir: Attr,
    /// Attributes of what the name stands for; `NotFound` if nothing.
    pub child: Result<Attr, FsError>,
}

/// One entry of a directory page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Where to go on after this entry.
    pub cookie: Cookie,
    /// Name.
    pub name: Bytes,
    /// Inode.
    pub ino: Ino,
    /// Attributes, if asked for.
    pub attr: Option<Attr>,
}

/// Part of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirPage {
    /// Attributes of the directory.
    pub dir: Attr,
    /// The directory's parent (itself for a volume's root): the inode of `..`.
    pub parent: Ino,
    /// Entries in order of cookie, without `.` and `..`.
    pub entries: Vec<DirEntry>,
    /// Whether the directory ends here.
    pub end: bool,
}

/// Replicated metadata. A name given to a read must already be within [`atoll_base::limits::NAME_MAX`].
pub trait MetadataService: Send + Sync + 'static {
    /// Attributes of an inode; `Stale` if there is none.
    fn getattr(&self, ino: Ino) -> impl Future<Output = Read<Attr>> + Send;

    /// Looks a name up; `.` and `..` are names like any other here and not found. `NotDirectory` if `dir` is none.
    fn lookup(&self, dir: Ino, name: &[u8]) -> impl Future<Output = Read<Found>> + Send;

    /// The parent of a directory; itself for a volume's root.
    fn parent(&self, dir: Ino) -> impl Future<Output = Read<Ino>> + Send;

    /// Entries after a cookie: at most `max_entries`, and few enough that names add up to at most `max_bytes`
    /// (but one at least).
    fn readdir(
        &self,
        dir: Ino,
        after: Cookie,
        max_entries: usize,
        max_bytes: usize,
        with_attrs: bool,
    ) -> impl Future<Output = Read<DirPage>> + Send;

    /// Attributes and target of a symbolic link; `WrongType` if it is none.
    fn readlink(&self, ino: Ino) -> impl Future<Output = Read<(Attr, Bytes)>> + Send;

    /// Extents of a byte range of a regular file.
    fn map(&self, ino: Ino, offset: u64, len: u64) -> impl Future<Output = Read<FileMap>> + Send;

    /// What is at an offset of a regular file, and how far; behind its end, nothing and no further.
    fn stretch(&self, ino: Ino, offset: u64) -> impl Future<Output = Read<Stretch>> + Send;

    /// Of the bytes that pieces would bring into a regular file, those whose writing is refused because what they need is damaged: ranges in order.
    fn refused_bytes(
        &self,
        _ino: Ino,
        _pieces: &[Piece],
    ) -> impl Future<Output = Read<Vec<Range<u64>>>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Value of an extended attribute.
    fn get_xattr(&self, ino: Ino, name: &[u8]) -> impl Future<Output = Read<Bytes>> + Send;

    /// Names of all extended attributes.
    fn list_xattrs(&self, ino: Ino) -> impl Future<Output = Read<Vec<Bytes>>> + Send;

    /// The lock that stands in the way of `test`, if any.
    fn test_lock(&self, test: LockTest) -> impl Future<Output = Read<Option<Conflict>>> + Send;

    /// The stored response of a request, if it was executed before.
    fn outcome(&self, key: &OnceKey) -> impl Future<Output = Read<Option<Response>>> + Send;

    /// What a session's slot keeps; `BadSession` if there is no such session.
    fn slot(&self, session: SessionId, slot: u32) -> impl Future<Output = Read<Option<SlotOutcome>>> + Send;

    /// An NFSv4 client, if there is one.
    fn client(&self, id: ClientId) -> impl Future<Output = Read<Option<Client>>> + Send;

    /// Whether there is such a confirmed client of this minor version (4.1 stands for later ones, too): `Expired` if it lost its
    /// lease, else `StaleClient`.
    fn standing(&self, id: ClientId, minor: u8) -> impl Future<Output = Read<()>> + Send;

    /// NFSv4 clients above an id, at most `most`, in order.
    fn clients(&self, after: ClientId, most: usize) -> impl Future<Output = Read<Vec<Client>>> + Send;

    /// A session, if there is one.
    fn session(&self, id: SessionId) -> impl Future<Output = Read<Option<Session>>> + Send;

    /// A client's sessions.
    fn sessions(&self, client: ClientId) -> impl Future<Output = Read<Vec<Session>>> + Send;

    /// A state, if there is one. What a client that ended leaves behind is not shown, here and below.
    fn state(&self, id: StateId) -> impl Future<Output = Read<Option<State>>> + Send;

    /// The client whose state this is, or was until the last step of its v4.0 owner closed it: that step may come again
    /// (RFC 7530 §9.1.9).
    fn client_of(&self, id: StateId) -> impl Future<Output = Read<Option<ClientId>>> + Send;

    /// Opens, lock states and delegations in force of a file, above an id, at most `most`, in order.
    fn states_of(
        &self,
        ino: Ino,
        after: StateId,
        most: usize,
    ) -> impl Future<Output = Read<Vec<State>>> + Send;

    /// Whether there are lock states under an open.
    fn has_locks(&self, open: StateId) -> impl Future<Output = Read<bool>> + Send;

    /// Opens, lock states and delegations of a client, above an id, at most `most`, in order.
    fn states_by(
        &self,
        client: ClientId,
        after: StateId,
        most: usize,
    ) -> impl Future<Output = Read<Vec<State>>> + Send;

    /// Whether a share reservation of anybody denies this access to the file (I/O with a special stateid, RFC 8881 §8.2.3). `Delay` while
    /// it may be that of a client that ended; so also [`MetadataService::test_lock`].
    fn is_denied(&self, ino: Ino, access: ShareBits) -> impl Future<Output = Read<bool>> + Send;

    /// A volume.
    fn volume(&self, id: VolumeId) -> impl Future<Output = Read<Volume>> + Send;

    /// All volumes.
    fn volumes(&self) -> impl Future<Output = Read<Vec<Volume>>> + Send;

    /// The exports in force, as of the last applied change.
    fn exports(&self) -> Arc<Exports>;

    /// How often clients or sessions have ended, as of the last applied change: while the number is the same, a session that was found
    /// after it was asked still is. `None` if it cannot be told here and now.
    fn ended(&self) -> Option<u64> {
        None
    }

    /// The write verifier in force (the cluster's loss epoch).
    fn verifier(&self) -> u64;

    /// Time as the state machine counts it: never behind any time it has handed out.
    fn now(&self) -> Timestamp;

    /// Waits until there are blocked lock requests that were granted and whose holders have not yet been told
    /// (or must be told again by a new leader), and returns them. Only the leader's caller gets any.
    fn granted_waiters(&self) -> impl Future<Output = Vec<GrantedWaiter>> + Send;

    /// Waits until there are delegations whose holders are to be told to return them and have not yet been told (or must be told again by a new leader), and
    /// returns them. Only the leader's caller gets any.
    fn recalled(&self) -> impl Future<Output = Vec<State>> + Send;

    /// Waits until there may be notices for holders of directory delegations that were not there when it was waited for last. For one who waits.
    fn noticed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Delegations above an id whose holders are to be told of changes, at most `most`, in order, each with all that it is to be told.
    fn notices(&self, _after: StateId, _most: usize) -> impl Future<Output = Read<Vec<Noticed>>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Waits until there may be offloads that were not there when it was waited for last. For one who waits.
    fn offloaded(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// An offload, if there is one.
    fn offload(&self, _id: StateId) -> impl Future<Output = Read<Option<Offload>>> + Send {
        std::future::ready(Ok(None))
    }

    /// Offloads above an id, at most `most`, in order, in work or ended.
    fn offloads(&self, _after: StateId, _most: usize) -> impl Future<Output = Read<Vec<Offload>>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Runs a call. `Ok` only after it is durable on a quorum and applied; `Err` if it certainly had no
    /// effect, except `Delay`, after which it may have had: only a call with a key, or one that can be repeated, may
    /// be sent again.
    fn execute(&self, call: Call) -> impl Future<Output = Result<Response, FsError>> + Send;

    /// The same for a call that the caller keeps, to send it again.
    fn execute_kept(&self, call: &Call) -> impl Future<Output = Result<Response, FsError>> + Send {
        self.execute(call.clone())
    }

    /// Has a call run that nobody waits for. True if it was taken: then it comes before whatever is asked for later, within moments, and may be
    /// lost only with whoever leads. False if not; it had no effect. `done` is called when the state shows what came of a call that was taken, or it was lost; it is dropped
    /// without if the call was not taken, or the service has ended.
    fn execute_aside(&self, _call: &Call, _done: Aside) -> bool {
        false
    }
}
