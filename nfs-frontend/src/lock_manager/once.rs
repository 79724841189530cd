//! The key under which the outcome of a request is kept, so that its retransmission gets the same.

use crate::rpc::{Credential, RpcCall};
use atoll_meta::OnceKey;
use xxhash_rust::xxh3::Xxh3;

/// Names a request: client address without port, xid, and a hash over program, version, procedure, credential and
/// arguments, which are those not yet decoded.
pub(super) fn key(call: &RpcCall) -> OnceKey {
    let mut hash = Xxh3::new();
    for word in [call.program, call.version, call.procedure] {
        hash.update(&word.to_be_bytes());
    }
    if let Credential::Sys { uid, gid, gids } = &call.credential {
        for word in [*uid, *gid].iter().chain(gids.iter()) {
            hash.update(&word.to_be_bytes());
        }
    }
    hash.update(call.args.unread());
    OnceKey::new(call.peer.ip().to_canonical(), call.xid, hash.digest())
}
