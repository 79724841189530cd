//! The service on one member, on a simulated disk.

#![allow(clippy::unwrap_used)]

mod basics;
mod coherence;
mod crash;
mod damage;
mod grants;
mod maps;
mod members;
mod nfs4;

use super::{CacheSizes, LocalMetadata, MaintenanceOptions, OpenError, Options, open};
use crate::log;
use atoll_base::access::Cred;
use atoll_base::attr::SetAttr;
use atoll_base::disk::sim::SimDisk;
use atoll_base::id::{Ino, ROOT_VOLUME};
use atoll_base::time::SystemClock;
use atoll_meta::{Call, CreateHow, MetadataService, NewNode, OnceKey, Op, Response};
use std::sync::Arc;
use std::time::Duration;

/// Small sizes, and maintenance quick enough to take part in short lives.
pub(super) fn options() -> Options {
    Options {
        log: log::Config {
            segment_bytes: 16 << 10,
            cache_bytes: 64 << 10,
            queue_bytes: 64 << 10,
            group_bytes: 16 << 10,
        },
        state: crate::state::Config { cache_bytes: 1 << 20, flush_bytes: 32 << 10 },
        caches: CacheSizes { inodes: 200, names: 200, maps: 64 },
        maintenance: MaintenanceOptions {
            durable_every: Duration::from_millis(5),
            look_every: Duration::from_millis(2),
            log_bytes: 48 << 10,
            log_bytes_max: 96 << 10,
            reserve_bytes: 0,
            measure_every: Duration::from_millis(20),
            sweep: true,
        },
        ..Options::single([3; 16])
    }
}

pub(super) async fn start(disk: &SimDisk) -> Result<LocalMetadata, OpenError> {
    open(Arc::new(disk.clone()), options(), Arc::new(SystemClock), Arc::new(|_| {})).await
}

pub(super) async fn root(meta: &LocalMetadata) -> Ino {
    meta.volume(ROOT_VOLUME).await.unwrap().root
}

pub(super) fn call(op: Op, once: Option<OnceKey>) -> Call {
    Call { origin: None, once: once.map(Into::into), cred: Cred::root(), client: None, op }
}

pub(super) fn create(dir: Ino, name: &str) -> Op {
    Op::Create {
        dir,
        name: name.to_owned().into(),
        node: NewNode::Regular,
        how: CreateHow::Guarded,
        attrs: SetAttr { mode: Some(0o644), ..SetAttr::default() },
    }
}

pub(super) fn once(xid: u32) -> Option<OnceKey> {
    Some(OnceKey::new([127, 0, 0, 1].into(), xid, u64::from(xid) * 7))
}

pub(super) fn done(response: Result<Response, atoll_meta::FsError>) -> Response {
    let response = response.unwrap();
    assert!(response.result.is_ok(), "{response:?}");
    response
}
