//! NSM version 1: how a rebooted client tells that its locks are void (X/Open XNFS chapter 11).
//!
//! This server monitors nobody itself. It needs no list of whom to notify, for no restart of its own loses locks; and it calls no
//! local lock manager back, so MON is refused: a client on this machine needs the status monitor of its own system.

use super::LockManager;
use super::resolve::Resolve;
use crate::rpc::{Answer, AuthError, RpcCall};
use atoll_base::access::Cred;
use atoll_meta::MetadataService;
use atoll_meta::lock::LockOp;
use atoll_proto::nsm::{MonArgs, MonId, MonitorResult, MyId, Proc, SmName, SmStat, SmStatRes, StateChange};
use atoll_xdr::{Decode, Encoder};
use bytes::Bytes;

fn decode<T: Decode>(call: &RpcCall) -> Result<T, Answer> {
    call.args.clone().decode().map_err(|_| Answer::GarbageArgs)
}

impl<M: MetadataService, R: Resolve> LockManager<M, R> {
    pub(super) async fn answer_nsm(&self, call: RpcCall, reply: Encoder) -> Answer {
        self.try_nsm(call, reply).await.unwrap_or_else(|answer| answer)
    }

    async fn try_nsm(&self, call: RpcCall, mut reply: Encoder) -> Result<Answer, Answer> {
        let state = self.config.nsm_state;
        match Proc::from_u32(call.procedure).ok_or(Answer::ProcedureUnavailable)? {
            Proc::Null => {}
            Proc::Stat => {
                decode::<SmName>(&call)?;
                reply.put(&SmStatRes { result: MonitorResult::Failed, state });
            }
            Proc::Mon => {
                decode::<MonArgs>(&call)?;
                reply.put(&SmStatRes { result: MonitorResult::Failed, state });
            }
            Proc::Unmon => {
                decode::<MonId>(&call)?;
                reply.put(&SmStat { state });
            }
            Proc::UnmonAll => {
                decode::<MyId>(&call)?;
                reply.put(&SmStat { state });
            }
            // With nobody monitored there is nobody to tell; from elsewhere it is not even asked.
            Proc::SimuCrash if call.peer.ip().to_canonical().is_loopback() => {}
            Proc::SimuCrash => return Err(Answer::AuthError(AuthError::TooWeak)),
            Proc::Notify => {
                let change = decode::<StateChange>(&call)?;
                let op = LockOp::ClientRebooted {
                    name: Bytes::copy_from_slice(&change.mon_name),
                    address: Some(call.peer.ip().to_canonical()),
                    state: change.state,
                };
                let done = self.execute(None, Cred::root(), op).await;
                match done {
                    Ok(freed) => {
                        let name = change.mon_name.escape_ascii();
                        tracing::info!(peer = %call.peer, %name, state = change.state, ?freed, "client rebooted");
                    }
                    // Without an answer it notifies again.
                    Err(error) => {
                        tracing::warn!(peer = %call.peer, %error, "notification of a reboot");
                        return Err(Answer::Drop);
                    }
                }
            }
        }
        Ok(Answer::Success(reply))
    }
}
