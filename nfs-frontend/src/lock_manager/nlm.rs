//! NLM on the wire: three versions, and each request as a procedure with results or as a message.
//!
//! A `*_MSG` procedure is answered by a call of the matching `*_RES` procedure of the client's own lock manager. One that is lost on
//! the way is not repeated: the client repeats its message, and the key of the request gives the same answer.

use super::LockManager;
use super::once;
use super::resolve::Resolve;
use crate::rpc::{Answer, RpcCall};
use crate::server::client::{Route, Target, call_target};
use atoll_meta::MetadataService;
use atoll_proto::nlm::{
    CancelArgs, LockArgs, NetObj, NlmStat, Notify, PROGRAM, ShareArgs, ShareRes, StatRes, TestAnswer,
    TestArgs, UnlockArgs,
};
use atoll_xdr::{Decode, Encode, Encoder};
use std::sync::Arc;

/// Procedures (`nlm_prot.x`); those from SHARE on since version 3.
mod procedure {
    pub(super) const NULL: u32 = 0;
    pub(super) const TEST: u32 = 1;
    pub(super) const LOCK: u32 = 2;
    pub(super) const CANCEL: u32 = 3;
    pub(super) const UNLOCK: u32 = 4;
    pub(super) const GRANTED: u32 = 5;
    pub(super) const TEST_MSG: u32 = 6;
    pub(super) const GRANTED_MSG: u32 = 10;
    pub(super) const TEST_RES: u32 = 11;
    pub(super) const GRANTED_RES: u32 = 15;
    pub(super) const SHARE: u32 = 20;
    pub(super) const UNSHARE: u32 = 21;
    pub(super) const NM_LOCK: u32 = 22;
    pub(super) const FREE_ALL: u32 = 23;
}

/// From TEST to TEST_MSG, and from TEST_MSG to TEST_RES.
const MESSAGE: u32 = procedure::TEST_MSG - procedure::TEST;

/// Results, not yet of a version.
enum Results {
    Test(TestAnswer<u64>),
    Stat(StatRes),
    Share(ShareRes),
}

/// Results in the form of a version.
struct Versioned {
    results: Results,
    narrow: bool,
}

impl Encode for Versioned {
    fn encode(&self, e: &mut Encoder) {
        let narrow = |stat: NlmStat| if self.narrow { stat.narrow() } else { stat };
        match &self.results {
            Results::Test(answer) if self.narrow => {
                e.put(&TestAnswer { cookie: answer.cookie.clone(), reply: answer.reply.clone().narrow() })
            }
            Results::Test(answer) => e.put(answer),
            Results::Stat(res) => e.put(&StatRes { cookie: res.cookie.clone(), stat: narrow(res.stat) }),
            Results::Share(res) => {
                e.put(&ShareRes {
                    cookie: res.cookie.clone(),
                    stat: narrow(res.stat),
                    sequence: res.sequence,
                });
            }
        }
    }
}

fn decode<T: Decode>(call: &RpcCall) -> Result<T, Answer> {
    call.args.clone().decode().map_err(|_| Answer::GarbageArgs)
}

/// Arguments of the call's version, widened.
macro_rules! arguments {
    ($call:expr, $narrow:expr, $t:ident) => {
        if $narrow { decode::<$t<u32>>($call)?.widen() } else { decode::<$t<u64>>($call)? }
    };
}

fn stat(cookie: NetObj, result: Result<NlmStat, NlmStat>) -> Results {
    Results::Stat(StatRes { cookie, stat: result.unwrap_or_else(|stat| stat) })
}

impl<M: MetadataService, R: Resolve> LockManager<M, R> {
    pub(super) async fn answer_nlm(&self, call: RpcCall, mut reply: Encoder) -> Answer {
        match self.results(&call).await {
            Ok(None) => Answer::Success(reply),
            Ok(Some(results)) if is_message(call.procedure) => {
                self.send_results(&call, results);
                Answer::Success(reply)
            }
            Ok(Some(results)) => {
                reply.put(&results);
                Answer::Success(reply)
            }
            Err(answer) => answer,
        }
    }

    /// Runs a request; `None` if it has no results.
    async fn results(&self, call: &RpcCall) -> Result<Option<Versioned>, Answer> {
        use procedure::*;
        let narrow = call.version != 4;
        let procedure = if is_message(call.procedure) { call.procedure - MESSAGE } else { call.procedure };
        if call.version == 1 && procedure >= SHARE {
            return Err(Answer::ProcedureUnavailable);
        }
        let once = once::key(call);
        let results = match procedure {
            NULL => return Ok(None),
            TEST => {
                let args = arguments!(call, narrow, TestArgs);
                let reply = self.test(call, &args).await;
                Results::Test(TestAnswer { cookie: args.cookie, reply })
            }
            LOCK | NM_LOCK => {
                let args = arguments!(call, narrow, LockArgs);
                let result = self.lock(call, once, &args, procedure == LOCK).await;
                stat(args.cookie, result)
            }
            CANCEL => {
                let args = arguments!(call, narrow, CancelArgs);
                let result = self.cancel(call, once, &args).await;
                stat(args.cookie, result)
            }
            UNLOCK => {
                let args = arguments!(call, narrow, UnlockArgs);
                let result = self.unlock(call, once, &args).await;
                stat(args.cookie, result)
            }
            // This server waits for no lock of another: there is nothing that could be granted to it.
            GRANTED => {
                let args = arguments!(call, narrow, TestArgs);
                stat(args.cookie, Ok(NlmStat::Denied))
            }
            // Grants are told by the procedure that is answered, so no answer by message is waited for.
            TEST_RES..=GRANTED_RES => return Ok(None),
            SHARE | UNSHARE => {
                let args = decode::<ShareArgs>(call)?;
                let result = match procedure {
                    SHARE => self.share(call, once, &args).await,
                    _ => self.unshare(call, once, &args).await,
                };
                let stat = result.unwrap_or_else(|stat| stat);
                Results::Share(ShareRes { cookie: args.cookie, stat, sequence: 0 })
            }
            FREE_ALL => {
                let args = decode::<Notify>(call)?;
                // Without an answer the client sends it again.
                return match self.free_all(call, once, &args.name).await {
                    Ok(()) => Ok(None),
                    Err(_) => Err(Answer::Drop),
                };
            }
            _ => return Err(Answer::ProcedureUnavailable),
        };
        Ok(Some(Versioned { results, narrow }))
    }

    /// Answers a message by a call to the client's lock manager.
    fn send_results(&self, call: &RpcCall, results: Versioned) {
        let Ok(permit) = self.messages.clone().try_acquire_owned() else {
            tracing::debug!(peer = %call.peer, "too many answers to messages on their way");
            return;
        };
        let target = Target { program: PROGRAM, version: call.version, procedure: call.procedure + MESSAGE };
        let (peer, local, transport) = (call.peer.ip(), call.local.ip(), call.transport);
        let ports = self.ports.clone();
        let calls = Arc::clone(&self.calls);
        let patience = self.config.patience;
        tokio::spawn(async move {
            let _permit = permit;
            let Ok(_call) = calls.acquire_owned().await else { return };
            let sent = async {
                let to = ports.find(peer, local, target.version, transport).await?;
                let route = Route { to, transport, from: Some(local) };
                call_target::<()>(route, patience, target, &results).await.inspect_err(|_| ports.forget(peer))
            };
            if let Err(error) = sent.await {
                tracing::debug!(%peer, %error, "answering a message of NLM");
            }
        });
    }
}

fn is_message(procedure: u32) -> bool {
    (procedure::TEST_MSG..=procedure::GRANTED_MSG).contains(&procedure)
}
