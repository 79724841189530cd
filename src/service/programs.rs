//! Which engine answers which RPC program.

use super::NfsEngine;
use atoll_nfs::rpc::{Answer, RpcCall, RpcHandler};
use atoll_proto::{mount, nfs3, nfsacl, rquota};
use atoll_xdr::Encoder;
use std::sync::Arc;

/// Programs that are answered in datagrams: MOUNT.
pub(super) const IN_DATAGRAMS: [u32; 1] = [mount::PROGRAM];

pub(super) struct Programs {
    engine: Arc<NfsEngine>,
}

impl Programs {
    pub(super) fn new(engine: Arc<NfsEngine>) -> Self {
        Self { engine }
    }
}

impl RpcHandler for Programs {
    async fn handle(&self, call: RpcCall, reply: Encoder) -> Answer {
        match call.program {
            nfs3::PROGRAM => self.engine.nfs3(call, reply).await,
            mount::PROGRAM => self.engine.mount(call, reply).await,
            nfsacl::PROGRAM => self.engine.nfsacl(call, reply).await,
            rquota::PROGRAM => self.engine.rquota(call, reply).await,
            _ => Answer::ProgramUnavailable,
        }
    }
}
