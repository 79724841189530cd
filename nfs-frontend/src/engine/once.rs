//! Exactly once (RFC 1813 §4.5, RFC 8881 §2.10.6 in spirit): a retransmitted request that changes something gets
//! the reply of its first execution.
//!
//! Outcomes are found in three places: the dirty map (UNSTABLE writes not yet in the store), the requests in progress,
//! and the replicated state. They are asked in the order *in progress, dirty map, state*: a request leaves the first
//! only when its outcome is in one of the others, and moves from the second to the third before it leaves the second.
//!
//! A refusal by the engine's own checks leaves no outcome: such a request changed nothing, and is checked again.

use super::{Engine, Interrupt};
use crate::rpc::{Credential, RpcCall};
use atoll_base::block::BlockService;
use atoll_meta::{FsError, MetadataService, OnceKey, Response};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const SHARDS: usize = 64;

/// Most requests in progress in one shard. More than servers let through; beyond, requests wait at their clients.
const IN_PROGRESS_MAX: usize = 4096;

/// Names the request, by its bytes from the program number on.
pub(crate) fn key(call: &RpcCall) -> OnceKey {
    let mut head = [0; 4 * (3 + 1 + 2 + 1 + 16)];
    let mut words = head.chunks_exact_mut(4);
    let mut put = |v: u32| {
        if let Some(place) = words.next() {
            place.copy_from_slice(&v.to_be_bytes());
        }
    };
    put(call.program);
    put(call.version);
    put(call.procedure);
    match &call.credential {
        Credential::None => put(0),
        Credential::Sys { uid, gid, gids } => {
            put(1);
            put(*uid);
            put(*gid);
            put(gids.len() as u32);
            gids.iter().for_each(|gid| put(*gid));
        }
    }
    let args = call.args.unread();
    let fingerprint = if args.len() <= 4096 {
        let mut hash = Xxh3::new();
        hash.update(&head);
        hash.update(args);
        hash.digest()
    } else {
        // One pass over a large payload without the copying of the streaming form.
        xxh3_64(&[xxh3_64(&head).to_be_bytes(), xxh3_64(args).to_be_bytes()].concat())
    };
    OnceKey::new(call.peer.ip().to_canonical(), call.xid, fingerprint)
}

/// Requests that are being executed.
#[derive(Debug)]
pub(crate) struct InProgress(Vec<Mutex<HashSet<OnceKey>>>);

impl Default for InProgress {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl InProgress {
    fn shard(&self, key: &OnceKey) -> MutexGuard<'_, HashSet<OnceKey>> {
        self.0[key.fingerprint as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a request as being executed; false if it is, or if there are too many.
    pub(super) fn enter(&self, key: OnceKey) -> bool {
        let mut shard = self.shard(&key);
        shard.len() < IN_PROGRESS_MAX && shard.insert(key)
    }

    /// It is executed.
    pub(super) fn leave(&self, key: &OnceKey) {
        self.shard(key).remove(key);
    }
}

/// Keeps a request marked as being in progress.
pub(crate) struct Running<M: MetadataService, B: BlockService> {
    engine: Arc<Engine<M, B>>,
    key: OnceKey,
}

impl<M: MetadataService, B: BlockService> Drop for Running<M, B> {
    fn drop(&mut self) {
        self.engine.once.leave(&self.key);
    }
}

/// Whether a request is new.
pub(crate) enum Begun<M: MetadataService, B: BlockService> {
    /// It is.
    Fresh(Running<M, B>),
    /// It was executed before, with this outcome.
    Known(Arc<Response>),
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Begins a request that must not be executed twice. Dropped if it is in progress already.
    pub(crate) async fn begin(self: &Arc<Self>, key: OnceKey) -> Result<Begun<M, B>, Interrupt> {
        if !self.once.enter(key) {
            return Err(Interrupt::Drop);
        }
        let running = Running { engine: self.clone(), key };
        if let Some(response) = self.dirty.outcome(&key) {
            return Ok(Begun::Known(response));
        }
        match self.meta.outcome(&key).await {
            Ok(Some(response)) => Ok(Begun::Known(Arc::new(response))),
            Ok(None) => Ok(Begun::Fresh(running)),
            // Not to be executed while it is unknown whether it was.
            Err(FsError::Delay) => Err(Interrupt::Drop),
            Err(error) => {
                tracing::error!(%error, "cannot look up the outcome of a request");
                Err(Interrupt::Drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rpc::{Gids, Transport};
    use atoll_xdr::Decoder;
    use bytes::Bytes;

    fn call(xid: u32, peer: &str, gids: &[u32], args: Vec<u8>) -> RpcCall {
        RpcCall {
            peer: peer.parse().unwrap(),
            local: "127.0.0.1:2049".parse().unwrap(),
            transport: Transport::Tcp,
            xid,
            program: 100_003,
            version: 3,
            procedure: 8,
            credential: Credential::Sys { uid: 1, gid: 2, gids: Gids::new(gids).unwrap() },
            connection: None,
            args: Decoder::new(Bytes::from(args)),
        }
    }

    #[test]
    fn a_key_is_the_same_from_another_port_and_differs_in_all_else() {
        for len in [8, 10_000] {
            let first = key(&call(1, "10.0.0.1:700", &[3], vec![0; len]));
            assert_eq!(first, key(&call(1, "10.0.0.1:701", &[3], vec![0; len])));
            assert_eq!(first, key(&call(1, "[::ffff:10.0.0.1]:701", &[3], vec![0; len])));
            let others = [
                call(2, "10.0.0.1:700", &[3], vec![0; len]),
                call(1, "10.0.0.2:700", &[3], vec![0; len]),
                call(1, "10.0.0.1:700", &[4], vec![0; len]),
                call(1, "10.0.0.1:700", &[3, 3], vec![0; len]),
                call(1, "10.0.0.1:700", &[3], vec![1; len]),
                call(1, "10.0.0.1:700", &[3], vec![0; len + 4]),
            ];
            for other in &others {
                assert_ne!(first, key(other));
            }
        }
    }
}
