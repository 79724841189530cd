//! The frame around operations: which may come where, their results in order, and the end of the COMPOUND
//! (RFC 8881 §2.10.6.1, §16.2.3, §18.46.3).

use super::changes;
use super::compound::{Compound, Done, Halt, Identity};
use super::ops::{Opened, failure};
use crate::engine::Patience;
use crate::rpc::Answer;
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::ClientId;
use atoll_proto::nfs4::{ArgOp4, CompoundCall, Failure, NfsStat4, OpNum4, ResOp4, Sequence4Args, Status4};
use bytes::Bytes;

/// The result of an operation, or the end without an answer.
macro_rules! result {
    ($done:expr) => {
        match $done {
            Ok(value) => Ok(value),
            Err(Halt::Status(status)) => Err(status),
            Err(halt) => return Err(halt),
        }
    };
}

/// Room that an operation which changes something must find in the reply: its result cannot be refused afterwards.
const ROOM: usize = 256;

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// Executes it and answers.
    pub(crate) async fn run(&mut self, compound: CompoundCall, fingerprint: u64, size: usize) -> Answer {
        let start = self.reply.mark();
        let status_at = self.reply.reserve_u32();
        self.reply.put(&compound.tag);
        let count_at = self.reply.reserve_u32();
        let whole = self.begin;
        self.begin = self.reply.len();
        let alone = compound.announced == 1;
        let (status, count) = match self.all(compound, fingerprint, size).await {
            Ok(Ended::Executed(status, count)) => (status, count),
            Ok(Ended::Replayed(reply)) => {
                self.reply.rollback(start);
                self.reply.raw(&reply);
                return Answer::Success(std::mem::take(&mut self.reply));
            }
            Err(_unknown) => return Answer::Disconnect,
        };
        self.reply.patch_u32(status_at, status.err().map_or(0, NfsStat4::to_u32));
        self.reply.patch_u32(count_at, count);
        if let Identity::Slot { turn, .. } = std::mem::replace(&mut self.identity, Identity::None) {
            let kept =
                (self.cache_this || alone || self.changed).then(|| self.reply.as_contiguous()).flatten();
            let kept = kept.map(|all| &all[whole..]).filter(|body| body.len() <= self.cached_max.max(1024));
            turn.finish(kept.map(Bytes::copy_from_slice), self.changed);
        }
        Answer::Success(std::mem::take(&mut self.reply))
    }

    async fn all(&mut self, compound: CompoundCall, fingerprint: u64, size: usize) -> Done<Ended> {
        let minor = self.minor;
        let mut count = 0;
        let stop = compound.stop;
        let announced = compound.announced;
        let has_sequence = matches!(compound.ops.first(), Some(ArgOp4::Sequence(_)));
        let second = compound.ops.get(1).map_or(OpNum4::Illegal, ArgOp4::op);
        self.learn_client(&compound.ops).await;
        let mut ops = compound.ops.into_iter().enumerate();
        // Results before a stored outcome are repeated, not executed.
        let mut skip = 0;
        if minor > 0 && has_sequence {
            let Some((_, ArgOp4::Sequence(args))) = ops.next() else { unreachable!("just seen") };
            count = 1;
            match self.take_slot(&args, fingerprint, announced, size, second).await? {
                Slotted::Fresh => {}
                Slotted::Resumed => {
                    skip = self.index;
                    count = self.index;
                }
                Slotted::Ended(ended) => return Ok(ended),
            }
        }
        for (index, op) in ops {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if index < skip {
                continue;
            }
            (self.index, self.attempt) = (index, 0);
            count = index + 1;
            let number = op.op();
            let status = match self.misplaced(&op, announced, has_sequence) {
                Some(status) => {
                    self.reply.put(&number.failed(status));
                    Err(status)
                }
                None => self.execute_within(op).await?,
            };
            if status.is_err() {
                return Ok(Ended::Executed(status, count));
            }
        }
        match stop {
            Some(stop) => {
                if let Some(result) = stop.result(minor) {
                    self.reply.put(&result);
                    count += 1;
                }
                Ok(Ended::Executed(Err(stop.status(minor)), count))
            }
            None => Ok(Ended::Executed(Ok(()), count)),
        }
    }

    /// Takes the slot and writes the result of SEQUENCE.
    async fn take_slot(
        &mut self,
        args: &Sequence4Args,
        fingerprint: u64,
        announced: u32,
        size: usize,
        second: OpNum4,
    ) -> Done<Slotted> {
        let opened = match self.sequence(args, fingerprint, announced, size).await {
            Ok(opened) => opened,
            Err(Halt::Status(status)) => {
                self.reply.put(&OpNum4::Sequence.failed(status));
                return Ok(Slotted::Ended(Ended::Executed(Err(status), 1)));
            }
            Err(halt) => return Err(halt),
        };
        match opened {
            Opened::Fresh(ok) => {
                let mark = self.reply.mark();
                self.reply.put(&ResOp4::Sequence(Ok(ok)));
                if let Err(status) = self.fits(0) {
                    // Refused here, it leaves the slot as it was.
                    self.reply.rollback(mark);
                    self.identity = Identity::None;
                    self.reply.put(&OpNum4::Sequence.failed(status));
                    return Ok(Slotted::Ended(Ended::Executed(Err(status), 1)));
                }
                Ok(Slotted::Fresh)
            }
            Opened::Replay(reply) => Ok(Slotted::Ended(Ended::Replayed(reply))),
            Opened::Uncached(ok) => {
                // §2.10.6.1.3: the operation behind SEQUENCE says so. Only a request of more than SEQUENCE is not kept.
                self.reply.put(&ResOp4::Sequence(Ok(ok)));
                self.reply.put(&second.failed(NfsStat4::RetryUncachedRep));
                Ok(Slotted::Ended(Ended::Executed(Err(NfsStat4::RetryUncachedRep), 2)))
            }
            Opened::Resume(outcome) => match self.resume_from(outcome).await {
                Ok(()) => Ok(Slotted::Resumed),
                Err(Halt::Status(status)) => {
                    self.reply.put(&OpNum4::Sequence.failed(status));
                    Ok(Slotted::Ended(Ended::Executed(Err(status), 1)))
                }
                Err(halt) => Err(halt),
            },
        }
    }

    /// Why an operation may not stand where it does.
    fn misplaced(&self, args: &ArgOp4, announced: u32, has_sequence: bool) -> Option<NfsStat4> {
        let op = args.op();
        if self.minor == 0 {
            return None;
        }
        let alone = matches!(
            op,
            OpNum4::ExchangeId
                | OpNum4::CreateSession
                | OpNum4::DestroySession
                | OpNum4::BindConnToSession
                | OpNum4::DestroyClientId
        );
        match op {
            OpNum4::Sequence => Some(NfsStat4::SequencePos),
            OpNum4::BindConnToSession if has_sequence => Some(NfsStat4::NotOnlyOp),
            // §18.37.3: what ends its own session is the last.
            OpNum4::DestroySession if has_sequence => match args {
                ArgOp4::DestroySession(a) if self.index + 1 < announced && self.is_within(&a.sessionid) => {
                    Some(NfsStat4::NotOnlyOp)
                }
                _ => None,
            },
            _ if has_sequence => None,
            _ if !alone => Some(NfsStat4::OpNotInSession),
            _ if announced > 1 => Some(NfsStat4::NotOnlyOp),
            _ => None,
        }
    }

    /// Whether the reply with `more` bytes is within the limits of the session (RFC 8881 §2.10.6.4).
    fn fits(&self, more: usize) -> Result<(), NfsStat4> {
        match self.reply.len() + more {
            len if len > self.reply_max => Err(NfsStat4::RepTooBig),
            len if self.cache_this && len > self.cached_max => Err(NfsStat4::RepTooBigToCache),
            _ => Ok(()),
        }
    }

    /// Executes an operation within the limits of the session's replies.
    async fn execute_within(&mut self, op: ArgOp4) -> Result<Status4, Halt> {
        let number = op.op();
        if !matches!(self.identity, Identity::Slot { .. }) {
            return self.execute_patiently(op).await;
        }
        let changing = changes(&op);
        let room = if changing { self.fits(ROOM) } else { Ok(()) };
        if let Err(status) = room {
            self.reply.put(&number.failed(status));
            return Ok(Err(status));
        }
        let mark = self.reply.mark();
        let status = self.execute_patiently(op).await?;
        match self.fits(0) {
            Err(status) if !changing => {
                self.reply.rollback(mark);
                self.reply.put(&number.failed(status));
                Ok(Err(status))
            }
            _ => Ok(status),
        }
    }

    /// Executes an operation, and again while delegations of others are in its way and come back in time.
    async fn execute_patiently(&mut self, op: ArgOp4) -> Result<Status4, Halt> {
        self.impatient = false;
        let number = op.op();
        let mark = self.reply.mark();
        if !may_meet_delegations(&op) {
            return match self.execute(op).await {
                // It does all the same: nothing is recalled, but it is answered.
                Err(Halt::Delegated(met)) => {
                    debug_assert!(false, "{number:?} met {met:?}");
                    self.reply.rollback(mark);
                    self.reply.put(&number.failed(NfsStat4::Delay));
                    Ok(Err(NfsStat4::Delay))
                }
                done => done,
            };
        }
        let mut patience = Patience::v4();
        loop {
            let met = match self.execute(op.clone()).await {
                Err(Halt::Delegated(met)) => met,
                done => return done,
            };
            self.reply.rollback(mark);
            let engine = self.engine.clone();
            if Box::pin(engine.ask_back(met, self.asking(), &mut patience)).await {
                continue;
            }
            if self.minor > 0 || !is_step(number) || self.impatient {
                self.reply.put(&number.failed(NfsStat4::Delay));
                return Ok(Err(NfsStat4::Delay));
            }
            // The client counts the refusal (RFC 7530 §9.1.7), so the owner's sequence must know it.
            self.impatient = true;
        }
    }

    /// Executes an operation and writes its result.
    async fn execute(&mut self, op: ArgOp4) -> Result<Status4, Halt> {
        use ArgOp4 as A;
        use ResOp4 as R;
        let number = op.op();
        self.stepped = false;
        /// The refusal of an operation that otherwise writes its result itself, which ends this.
        macro_rules! written {
            ($operation:expr) => {{
                let mark = self.reply.mark();
                match result!($operation.await) {
                    Ok(()) => return Ok(Ok(())),
                    Err(status) => {
                        self.reply.rollback(mark);
                        status
                    }
                }
            }};
        }
        let result = match op {
            A::Access(a) => R::Access(result!(self.access(a.access).await)),
            A::Close(a) => R::Close(result!(self.close(&a).await)),
            A::Commit(a) => R::Commit(result!(self.commit(&a).await)),
            A::Create(a) => R::Create(result!(self.create(a).await)),
            A::DelegReturn(a) => R::DelegReturn(result!(self.delegation_return(&a).await)),
            A::GetAttr(a) => R::GetAttr(Err(written!(self.get_attr(&a.attr_request)))),
            A::GetFh => R::GetFh(result!(self.get_fh())),
            A::Link(a) => R::Link(result!(self.link(a.newname).await)),
            A::Lock(a) => R::Lock(match self.lock(&a).await {
                Ok(ok) => Ok(ok),
                Err(refused) => Err(failure(refused)?),
            }),
            A::LockT(a) => R::LockT(match self.lock_test(&a).await {
                Ok(()) => Ok(()),
                Err(refused) => Err(failure(refused)?),
            }),
            A::LockU(a) => R::LockU(result!(self.unlock(&a).await)),
            A::Lookup(a) => R::Lookup(result!(self.lookup(&a.objname).await)),
            A::LookupP => R::LookupP(result!(self.lookup_parent().await)),
            A::NVerify(a) => R::NVerify(result!(self.verify(&a.obj_attributes, false).await)),
            A::Open(a) => R::Open(result!(self.open(*a).await)),
            A::OpenConfirm(a) if self.minor == 0 => R::OpenConfirm(result!(self.open_confirm(&a).await)),
            A::OpenDowngrade(a) => R::OpenDowngrade(result!(self.open_downgrade(&a).await)),
            A::PutFh(a) => R::PutFh(result!(self.put_fh(&a.object).await)),
            A::PutPubFh => R::PutPubFh(result!(self.put_root_fh().await)),
            A::PutRootFh => R::PutRootFh(result!(self.put_root_fh().await)),
            A::Read(a) => R::Read(Err(written!(self.read(&a)))),
            A::ReadDir(a) => R::ReadDir(Err(written!(Box::pin(self.read_dir(&a))))),
            A::ReadLink => R::ReadLink(result!(self.read_link().await)),
            A::Remove(a) => R::Remove(result!(self.remove(a.target).await)),
            A::Rename(a) => R::Rename(result!(self.rename(a).await)),
            A::Renew(a) if self.minor == 0 => R::Renew(result!(self.renew(a.clientid).await)),
            A::RestoreFh => R::RestoreFh(result!(self.restore_fh())),
            A::SaveFh => R::SaveFh(result!(self.save_fh())),
            A::SecInfo(a) => R::SecInfo(result!(self.sec_info(&a.name).await)),
            A::SetAttr(a) => R::SetAttr(self.set_attr(a).await?),
            A::SetClientId(a) if self.minor == 0 => R::SetClientId(self.set_client_id(a).await?),
            A::SetClientIdConfirm(a) if self.minor == 0 => {
                R::SetClientIdConfirm(result!(self.confirm_client_id(&a).await))
            }
            A::Verify(a) => R::Verify(result!(self.verify(&a.obj_attributes, true).await)),
            A::Write(a) => R::Write(result!(self.write(a).await)),
            A::ReleaseLockOwner(a) if self.minor == 0 => {
                R::ReleaseLockOwner(result!(self.release_owner(&a.lock_owner).await))
            }
            A::BackchannelCtl(a) => R::BackchannelCtl(result!(self.backchannel_ctl(&a).await)),
            A::BindConnToSession(a) => R::BindConnToSession(result!(self.bind_connection(&a).await)),
            A::ExchangeId(a) => R::ExchangeId(result!(self.exchange_id(*a).await)),
            A::CreateSession(a) => R::CreateSession(result!(self.create_session(a).await)),
            A::DestroySession(a) => R::DestroySession(result!(self.destroy_session(&a.sessionid).await)),
            A::FreeStateId(a) => R::FreeStateId(result!(self.free_stateid(&a.stateid).await)),
            A::TestStateId(a) => R::TestStateId(result!(self.test_stateids(&a).await)),
            A::SecInfoNoName(a) => R::SecInfoNoName(result!(self.sec_info_no_name(a).await)),
            A::WantDelegation(a) => R::WantDelegation(result!(self.want_delegation(&a).await)),
            A::GetDirDelegation(a) => R::GetDirDelegation(result!(self.get_dir_delegation(&a).await)),
            A::DestroyClientId(a) => {
                R::DestroyClientId(result!(self.destroy_client(ClientId(a.clientid)).await))
            }
            A::ReclaimComplete(a) => R::ReclaimComplete(result!(self.reclaim_complete(&a).await)),
            A::GetXattr(a) => R::GetXattr(result!(self.get_xattr(&a.name).await)),
            A::SetXattr(a) => R::SetXattr(result!(self.set_xattr(a).await)),
            A::ListXattrs(a) => R::ListXattrs(result!(self.list_xattrs(&a).await)),
            A::RemoveXattr(a) => R::RemoveXattr(result!(self.remove_xattr(a.name).await)),
            A::Allocate(a) => R::Allocate(result!(self.allocate(&a).await)),
            A::Deallocate(a) => R::Deallocate(result!(self.deallocate(&a).await)),
            A::IoAdvise(a) => R::IoAdvise(result!(self.io_advise(&a).await)),
            A::Seek(a) => R::Seek(result!(self.seek(&a).await)),
            A::ReadPlus(a) => R::ReadPlus(Err(written!(self.read_plus(&a)))),
            A::WriteSame(a) => R::WriteSame(result!(self.write_same(&a).await)),
            A::Clone(a) => R::Clone(result!(self.clone_range(&a).await)),
            A::Copy(a) => R::Copy(result!(self.copy(&a).await).map_err(Failure::Plain)),
            A::OffloadStatus(a) => R::OffloadStatus(result!(self.offload_status(&a).await)),
            A::OffloadCancel(a) => R::OffloadCancel(result!(self.offload_cancel(&a).await)),
            // Everything else is not served, and not advertised.
            _ => number.failed(NfsStat4::NotSupp),
        };
        let status = result.status();
        if status == Err(NfsStat4::Delay) && self.minor == 0 && !self.stepped && is_step(number) {
            // The client would count it (RFC 7530 §9.1.7), and its next step would be out of order: it is to send this one again.
            return Err(Halt::Unknown);
        }
        self.reply.put(&result);
        Ok(status)
    }
}

/// Whether an operation may end with [`Halt::Delegated`].
fn may_meet_delegations(op: &ArgOp4) -> bool {
    use ArgOp4 as A;
    changes(op)
        || matches!(
            op,
            A::GetAttr(_)
                | A::IoAdvise(_)
                | A::Read(_)
                | A::ReadDir(_)
                | A::ReadPlus(_)
                | A::Seek(_)
                | A::Verify(_)
                | A::NVerify(_)
        )
}

/// Whether an operation is a step in the sequence of an owner of v4.0.
fn is_step(op: OpNum4) -> bool {
    use OpNum4 as O;
    matches!(op, O::Close | O::Lock | O::LockU | O::Open | O::OpenConfirm | O::OpenDowngrade)
}

/// How a COMPOUND ended.
enum Ended {
    /// With this status behind so many results.
    Executed(Status4, u32),
    /// By the reply of its first execution.
    Replayed(Bytes),
}

/// What SEQUENCE led to.
enum Slotted {
    Fresh,
    Resumed,
    Ended(Ended),
}
