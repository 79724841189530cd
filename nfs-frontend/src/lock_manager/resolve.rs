//! What the lock manager needs of the file system engine.

use crate::rpc::RpcCall;
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::id::Ino;
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use atoll_meta::{FsError, Origin};
use std::future::Future;

/// What a file handle stands for, and who asks.
#[derive(Clone, Debug)]
pub struct LockTarget {
    /// The inode.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
    /// Whether the export is read-only.
    pub read_only: bool,
    /// The caller under the export's rules.
    pub cred: Cred,
    /// The file.
    pub attr: Attr,
}

/// Why a file handle cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The object, or its export, is gone.
    #[error("stale file handle")]
    Stale,
    /// It was not made by this cluster, or the export's rules exclude the caller.
    #[error("refused")]
    Refused,
    /// The metadata service failed.
    #[error(transparent)]
    Fs(FsError),
}

/// Opens file handles, and speaks to clients of NFSv4; the file system engine does.
pub trait Resolve: Send + Sync + 'static {
    /// What a file handle stands for.
    fn resolve(
        &self,
        handle: &[u8],
        call: &RpcCall,
    ) -> impl Future<Output = Result<LockTarget, ResolveError>> + Send;

    /// The frontend's present life, for the calls that change something.
    fn origin(&self) -> impl Future<Output = Option<Origin>> + Send;

    /// Has clients of NFSv4 whose leases have run out make way for a lock. Returns the lock that is in the way all the same.
    fn clear_way(&self, test: &LockTest) -> impl Future<Output = Result<Option<Conflict>, FsError>> + Send;

    /// Has delegations of NFSv4 clients that are in the way of a lock operation on a file returned, and waits a moment for that. Says whether it is
    /// worth trying again.
    fn ask_back(&self, ino: Ino) -> impl Future<Output = bool> + Send;

    /// Tells a client of NFSv4 that a lock is reserved for it. Returns when the client has taken the lock (true), or when the reservation is to be
    /// given up (false; should the lock have been taken meanwhile, giving it up changes nothing).
    fn offer_lock(&self, waiter: &GrantedWaiter) -> impl Future<Output = bool> + Send;
}
