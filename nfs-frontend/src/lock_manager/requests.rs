//! Requests of clients as transactions, the same for all versions of NLM.

use super::LockManager;
use super::callback::CallbackAddress;
use super::resolve::{LockTarget, Resolve, ResolveError};
use crate::rpc::RpcCall;
use atoll_base::access::{Cred, Perm, permits};
use atoll_base::id::Ino;
use atoll_lockd::{
    ByteRange, ClientMatch, Conflict, LockClient, LockMode, LockOwner, LockRequest, NlmClient, Share,
    ShareBits, Wait,
};
use atoll_meta::lock::{LockOp, LockOutcome, LockTest};
use atoll_meta::nfs4::StateError;
use atoll_meta::{Call, FsError, MetadataService, OnceKey, Op, Outcome, Response};
use atoll_proto::nlm::{
    CancelArgs, Holder, Lock, LockArgs, NetObj, NlmStat, ShareArgs, TestArgs, TestReply, UnlockArgs,
};
use std::time::Duration;

/// Attempts of a call whose outcome is not known, or that came while the frontend is registered anew. Then the client is
/// told to ask again.
const ATTEMPTS: u32 = 5;

/// Pause after the first attempt; it doubles.
const RETRY: Duration = Duration::from_millis(20);

/// A failure of the metadata service as NLM knows it (RFC 1813 §6.1.3). What may succeed later is a grace period to clients: they
/// wait and ask again.
fn status(error: FsError) -> NlmStat {
    match error {
        FsError::Stale => NlmStat::StaleFh,
        FsError::ReadOnly => NlmStat::RoFs,
        FsError::TableFull | FsError::NoSpace => NlmStat::DeniedNoLocks,
        FsError::Deadlock => NlmStat::Deadlock,
        FsError::Delay | FsError::Fenced => NlmStat::DeniedGracePeriod,
        _ => NlmStat::Failed,
    }
}

fn mode(exclusive: bool) -> LockMode {
    if exclusive { LockMode::Exclusive } else { LockMode::Shared }
}

/// The client as all tables know it: name and address, always both.
pub(super) fn client(name: &[u8], call: &RpcCall) -> Result<NlmClient, NlmStat> {
    NlmClient::new(name.to_vec(), Some(call.peer.ip())).map_err(|_| NlmStat::Failed)
}

/// Who locks what.
struct Wanted {
    owner: LockOwner,
    range: ByteRange,
}

fn wanted(lock: &Lock<u64>, call: &RpcCall) -> Result<Wanted, NlmStat> {
    let client = client(&lock.caller_name, call)?;
    // Only compared: the bits are what matters.
    let svid = lock.svid.cast_signed();
    let owner = LockOwner::nlm(client, &lock.oh, svid).map_err(|_| NlmStat::Failed)?;
    let range = ByteRange::from_nlm(lock.offset, lock.len).map_err(|_| NlmStat::FBig)?;
    Ok(Wanted { owner, range })
}

fn holder(conflict: Conflict) -> Holder<u64> {
    let (oh, svid) = conflict.owner.as_nlm_holder();
    let (offset, len) = conflict.range.to_nlm();
    Holder {
        exclusive: conflict.mode == LockMode::Exclusive,
        svid: svid.cast_unsigned(),
        oh: NetObj::copy_from(oh).unwrap_or_default(),
        offset,
        len,
    }
}

/// What an operation on locks came to.
fn lock_outcome(response: Response) -> Result<LockOutcome, FsError> {
    match response.result? {
        Outcome::Lock(outcome) => Ok(outcome),
        other => {
            tracing::error!(?other, "a lock operation has an outcome of another kind");
            Err(FsError::Io)
        }
    }
}

/// What the client of a request is told of its outcome.
fn answer(outcome: &LockOutcome) -> Result<NlmStat, NlmStat> {
    match outcome {
        LockOutcome::Lock(atoll_lockd::LockOutcome::Granted) | LockOutcome::Share(Ok(())) => {
            Ok(NlmStat::Granted)
        }
        LockOutcome::Lock(atoll_lockd::LockOutcome::Denied(_)) | LockOutcome::Share(Err(_)) => {
            Ok(NlmStat::Denied)
        }
        LockOutcome::Lock(atoll_lockd::LockOutcome::Blocked(_)) => Ok(NlmStat::Blocked),
        // Also when nothing was locked, or nothing waits any more: the answer is that nothing does, as with knfsd.
        LockOutcome::Unlocked | LockOutcome::Cancel(_) => Ok(NlmStat::Granted),
        LockOutcome::Settled(_) | LockOutcome::Released(_) => Err(NlmStat::Failed),
    }
}

/// The file that an operation takes something of.
fn file_of(op: &LockOp) -> Option<Ino> {
    match op {
        LockOp::Lock { ino, .. } | LockOp::Share { ino, .. } => Some(*ino),
        _ => None,
    }
}

impl<M: MetadataService, R: Resolve> LockManager<M, R> {
    /// Runs a lock operation, again if its outcome is not known: each is either keyed or may be repeated.
    pub(super) async fn execute(
        &self,
        once: Option<OnceKey>,
        cred: Cred,
        op: LockOp,
    ) -> Result<LockOutcome, FsError> {
        let mut pause = RETRY;
        let mut last = FsError::Delay;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            let origin = self.files.origin().await;
            let once = once.map(Into::into);
            let call = Call { origin, once, cred: cred.clone(), client: None, op: Op::Lock(op.clone()) };
            match self.meta.execute(call).await.and_then(lock_outcome) {
                Ok(outcome) => return Ok(outcome),
                // The client waits as in a grace period, and asks again.
                Err(FsError::State(StateError::Delegated)) => {
                    last = FsError::Delay;
                    match file_of(&op) {
                        Some(ino) if self.files.ask_back(ino).await => {}
                        _ => return Err(last),
                    }
                }
                Err(error @ (FsError::Delay | FsError::Fenced)) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn target(&self, handle: &[u8], call: &RpcCall) -> Result<LockTarget, NlmStat> {
        self.files.resolve(handle, call).await.map_err(|error| match error {
            ResolveError::Stale => NlmStat::StaleFh,
            ResolveError::Refused => NlmStat::Failed,
            ResolveError::Fs(error) => status(error),
        })
    }

    /// A file that the caller may lock.
    async fn lockable(&self, handle: &[u8], call: &RpcCall) -> Result<LockTarget, NlmStat> {
        let target = self.target(handle, call).await?;
        if permits(&target.cred, &target.attr, Perm::READ) || target.cred.owns(&target.attr) {
            Ok(target)
        } else {
            Err(NlmStat::Failed)
        }
    }

    pub(super) async fn test(&self, call: &RpcCall, args: &TestArgs<u64>) -> TestReply<u64> {
        self.try_test(call, args).await.unwrap_or_else(|stat| {
            TestReply::from_stat(stat).expect("only a conflict is Denied, and it has a holder")
        })
    }

    async fn try_test(&self, call: &RpcCall, args: &TestArgs<u64>) -> Result<TestReply<u64>, NlmStat> {
        let Wanted { owner, range } = wanted(&args.lock, call)?;
        let LockTarget { ino, generation, .. } = self.lockable(&args.lock.fh, call).await?;
        let test = LockTest { ino, generation, owner, range, mode: mode(args.exclusive) };
        let conflict = self.files.clear_way(&test).await.map_err(status)?;
        Ok(conflict.map_or(TestReply::Granted, |conflict| TestReply::Denied(holder(conflict))))
    }

    /// Runs a request that a retransmission must find executed, and says what its client is told. What the checks before refuse (the file is gone by
    /// now, or may not be locked any more) gets the answer of its first execution if there was one.
    async fn run_once(
        &self,
        once: OnceKey,
        checked: Result<(Cred, LockOp), NlmStat>,
    ) -> Result<NlmStat, NlmStat> {
        let outcome = match checked {
            Ok((cred, op)) => self.execute(Some(once), cred, op).await,
            Err(refusal) => match self.meta.outcome(&once).await {
                Ok(Some(response)) => lock_outcome(response),
                Ok(None) => return Err(refusal),
                Err(error) => Err(error),
            },
        };
        answer(&outcome.map_err(status)?)
    }

    pub(super) async fn lock(
        &self,
        call: &RpcCall,
        once: OnceKey,
        args: &LockArgs<u64>,
        monitored: bool,
    ) -> Result<NlmStat, NlmStat> {
        let checked = self.check_lock(call, args, monitored).await;
        self.run_once(once, checked).await
    }

    async fn check_lock(
        &self,
        call: &RpcCall,
        args: &LockArgs<u64>,
        monitored: bool,
    ) -> Result<(Cred, LockOp), NlmStat> {
        let Wanted { owner, range } = wanted(&args.lock, call)?;
        let target = self.lockable(&args.lock.fh, call).await?;
        if target.read_only && args.exclusive {
            return Err(NlmStat::RoFs);
        }
        let wait = match args.block {
            true => Wait::Queue(CallbackAddress::of(call, self.life, &args.lock.fh, &args.cookie).encode()),
            false => Wait::No,
        };
        let (ino, generation) = (target.ino, target.generation);
        let test = LockTest { ino, generation, owner: owner.clone(), range, mode: mode(args.exclusive) };
        // What else is wrong is told by the operation itself.
        let _held = self.files.clear_way(&test).await;
        let op = LockOp::Lock {
            ino,
            generation,
            request: LockRequest { owner, range, mode: mode(args.exclusive), wait },
            // A client that asks for no monitoring has no status monitor, so whatever stands there counts nothing.
            client_state: if monitored { args.state } else { 0 },
        };
        Ok((target.cred, op))
    }

    pub(super) async fn unlock(
        &self,
        call: &RpcCall,
        once: OnceKey,
        args: &UnlockArgs<u64>,
    ) -> Result<NlmStat, NlmStat> {
        let Wanted { owner, range } = wanted(&args.lock, call)?;
        let checked = self.target(&args.lock.fh, call).await;
        let op = |LockTarget { ino, generation, cred, .. }| {
            (cred, LockOp::Unlock { ino, generation, owner, range })
        };
        self.run_once(once, checked.map(op)).await
    }

    pub(super) async fn cancel(
        &self,
        call: &RpcCall,
        once: OnceKey,
        args: &CancelArgs<u64>,
    ) -> Result<NlmStat, NlmStat> {
        let Wanted { owner, range } = wanted(&args.lock, call)?;
        let checked = self.target(&args.lock.fh, call).await;
        let mode = mode(args.exclusive);
        let op = |LockTarget { ino, generation, cred, .. }| {
            (cred, LockOp::Cancel { ino, generation, owner, range, mode })
        };
        self.run_once(once, checked.map(op)).await
    }

    pub(super) async fn share(
        &self,
        call: &RpcCall,
        once: OnceKey,
        args: &ShareArgs,
    ) -> Result<NlmStat, NlmStat> {
        let owner = share_owner(call, args)?;
        let bits = |number| ShareBits::from_wire(number).ok_or(NlmStat::Failed);
        let share =
            Share { access: bits(args.share.access.to_u32())?, deny: bits(args.share.mode.to_u32())? };
        let checked = self.lockable(&args.share.fh, call).await;
        let op = |LockTarget { ino, generation, cred, .. }| {
            (cred, LockOp::Share { ino, generation, owner, share, client_state: 0 })
        };
        self.run_once(once, checked.map(op)).await
    }

    pub(super) async fn unshare(
        &self,
        call: &RpcCall,
        once: OnceKey,
        args: &ShareArgs,
    ) -> Result<NlmStat, NlmStat> {
        let owner = share_owner(call, args)?;
        let checked = self.target(&args.share.fh, call).await;
        let op =
            |LockTarget { ino, generation, cred, .. }| (cred, LockOp::Unshare { ino, generation, owner });
        self.run_once(once, checked.map(op)).await
    }

    /// FREE_ALL: of this client, by name and address.
    pub(super) async fn free_all(&self, call: &RpcCall, once: OnceKey, name: &[u8]) -> Result<(), FsError> {
        let Ok(client) = client(name, call) else { return Ok(()) };
        let which = ClientMatch::Client(LockClient::Nlm(client));
        self.execute(Some(once), Cred::root(), LockOp::ReleaseClient(which)).await.map(|_| ())
    }
}

/// SHARE has no `svid`: the owner is `oh` alone.
fn share_owner(call: &RpcCall, args: &ShareArgs) -> Result<LockOwner, NlmStat> {
    let client = client(&args.share.caller_name, call)?;
    LockOwner::nlm(client, &args.share.oh, 0).map_err(|_| NlmStat::Failed)
}
