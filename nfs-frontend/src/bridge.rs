//! The engine as the dispatcher and the lock manager see it.

use crate::dispatch::FileService;
use crate::engine::{Engine, HandleError};
use crate::lock_manager::{LockTarget, Resolve, ResolveError};
use crate::rpc::{Answer, RpcCall};
use atoll_base::block::BlockService;
use atoll_meta::{MetadataService, Origin};
use atoll_xdr::Encoder;

impl<M: MetadataService, B: BlockService> FileService for Engine<M, B> {
    async fn nfs3(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::nfs3(self, call, reply).await
    }

    async fn mount(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::mount(self, call, reply).await
    }

    async fn nfsacl(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::nfsacl(self, call, reply).await
    }

    async fn rquota(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::rquota(self, call, reply).await
    }
}

impl<M: MetadataService, B: BlockService> Resolve for Engine<M, B> {
    async fn resolve(&self, handle: &[u8], call: &RpcCall) -> Result<LockTarget, ResolveError> {
        let target = Self::resolve(self, handle, call).await.map_err(|error| match error {
            HandleError::Stale => ResolveError::Stale,
            HandleError::BadHandle | HandleError::Access | HandleError::Auth(_) => ResolveError::Refused,
            HandleError::Fs(error) => ResolveError::Fs(error),
        })?;
        Ok(LockTarget {
            ino: target.ino,
            generation: target.generation,
            read_only: target.export.spec.read_only,
            cred: target.cred,
            attr: target.attr,
        })
    }

    async fn origin(&self) -> Option<Origin> {
        Some(Self::origin(self).await)
    }
}
