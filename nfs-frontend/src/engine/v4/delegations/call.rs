//! Callbacks to a client, by any of its sessions, or in v4.0 to the address that it gave.

use crate::engine::exports::ExportRef;
use crate::engine::v4::back::BackError;
use crate::engine::{Engine, Handle};
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::{ClientId, State, StateKind};
use atoll_proto::nfs4::callback::{CbArgOp4, CbResOp4};
use atoll_proto::nfs4::{FileHandle, StateId4};
use std::time::Duration;

/// Whether a callback may be sent again that may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Any,
    /// Only what was certainly not sent by one session is sent by another.
    Once,
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Sends one operation to a client and returns its result. It may be executed several times.
    pub(crate) async fn call_back(
        &self,
        client: ClientId,
        op: CbArgOp4,
        patience: Duration,
    ) -> Result<CbResOp4, BackError> {
        self.call_back_times(client, op, patience, Times::Any).await
    }

    /// The same; executed once at most, and of a failure it is not known whether.
    pub(super) async fn call_back_once(
        &self,
        client: ClientId,
        op: CbArgOp4,
        patience: Duration,
    ) -> Result<CbResOp4, BackError> {
        self.call_back_times(client, op, patience, Times::Once).await
    }

    async fn call_back_times(
        &self,
        client: ClientId,
        op: CbArgOp4,
        patience: Duration,
        times: Times,
    ) -> Result<CbResOp4, BackError> {
        let known = self.meta.client(client).await.ok().flatten().ok_or(BackError::NoPath)?;
        if known.minor == 0 {
            let callback = known.callback.as_ref().ok_or(BackError::NoPath)?;
            return self.call_back_40(client, callback, known.about.address, op, patience).await;
        }
        let sessions = self.meta.sessions(client).await.map_err(|_| BackError::NoPath)?;
        let mut last = BackError::NoPath;
        for session in sessions {
            let active = self.v4.sessions.enter(session, false);
            match active.back.call(self.wire_session(active.session.id), op.clone(), patience).await {
                Ok(result) => return Ok(result),
                Err(error) if times == Times::Once && error != BackError::NoPath => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// How the holder of a delegation knows it and its file.
    pub(crate) fn names_of(&self, state: &State) -> Option<(StateId4, FileHandle)> {
        let StateKind::Delegation { export, .. } = state.kind else { return None };
        let volume = ExportRef::find(self.meta.exports(), export)?.spec.volume;
        let handle = Handle { export, volume, ino: state.ino, generation: state.generation };
        let sealed = self.handle_key.seal(&handle);
        let fh = FileHandle::new(sealed.as_slice()).ok()?;
        Some((crate::engine::v4::wire_stateid(state.stateid, Some(state.client)), fh))
    }
}
