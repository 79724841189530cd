//! RQUOTA: there are no quotas, which is what every question is answered with.

use super::Engine;
use crate::rpc::{Answer, RpcCall};
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_proto::rquota::{ExtGetQuotaArgs, GetQuotaArgs, GetQuotaRes, v1, v2};
use atoll_xdr::Encoder;

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Answers a call of RQUOTA.
    pub async fn rquota(&self, mut call: RpcCall, mut reply: Encoder) -> Answer {
        let decoded = match call.version {
            v1::VERSION => match v1::Proc::from_u32(call.procedure) {
                Some(v1::Proc::Null) => return Answer::Success(reply),
                Some(v1::Proc::GetQuota | v1::Proc::GetActiveQuota) => {
                    call.args.decode::<GetQuotaArgs>().map(|_| ())
                }
                None => return Answer::ProcedureUnavailable,
            },
            v2::VERSION => match v2::Proc::from_u32(call.procedure) {
                Some(v2::Proc::Null) => return Answer::Success(reply),
                Some(v2::Proc::GetQuota | v2::Proc::GetActiveQuota) => {
                    call.args.decode::<ExtGetQuotaArgs>().map(|_| ())
                }
                None => return Answer::ProcedureUnavailable,
            },
            _ => return Answer::ProgramMismatch(v1::VERSION, v2::VERSION),
        };
        if decoded.is_err() {
            return Answer::GarbageArgs;
        }
        reply.put(&GetQuotaRes::NoQuota);
        Answer::Success(reply)
    }
}
