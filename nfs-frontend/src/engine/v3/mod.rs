//! NFS version 3 (RFC 1813 §3.3): a file per family of procedures.
//!
//! Each procedure returns its result type, or an [`Interrupt`] when the call gets no result. Those that only read
//! run on the caller's poll and allocate little; those that change something are shielded from being dropped.

// Failures carry attributes, as RFC 1813 has it, and live for one encoding: boxing them would cost more than moving.
#![allow(clippy::result_large_err)]

mod attributes;
mod create;
mod filesystem;
mod lookup;
mod names;
mod read;
mod readdir;
mod remove;
mod write;

pub(crate) use attributes::access_granted;
pub(crate) use readdir::cookie_verifier;

use super::shield::shield;
use super::{Engine, Interrupt, Refused, attrs, once};
use crate::rpc::{Answer, RpcCall};
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::MetadataService;
use atoll_proto::nfs3::{Failure, PROGRAM, PostOpAttr, Proc, VERSION, WccData};
use atoll_xdr::{Decode, Encode, Encoder};
use std::sync::Arc;
use std::time::Instant;

/// Result of a procedure with success `T` and attributes `F` on failure.
pub(crate) type Result3<T, F> = Result<Result<T, Failure<F>>, Interrupt>;

/// Failure of a procedure before any attributes are known.
pub(crate) fn fail<T, F: Default>(refused: impl Into<Refused>) -> Result3<T, F> {
    match refused.into() {
        Refused::Status(status) => Ok(Err(status.into())),
        Refused::Interrupt(interrupt) => Err(interrupt),
    }
}

/// Failure with the attributes of the object, if they can be had.
pub(crate) fn fail_with<T>(refused: impl Into<Refused>, attr: Option<&Attr>) -> Result3<T, PostOpAttr> {
    match refused.into() {
        Refused::Status(status) => Ok(Err(Failure { status, detail: attr.map(attrs::fattr) })),
        Refused::Interrupt(interrupt) => Err(interrupt),
    }
}

/// Unwraps, or ends the procedure with the failure.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(refused) => return $crate::engine::v3::fail(refused),
        }
    };
}
pub(crate) use attempt;

/// Runs a procedure, and again while delegations of others are in its way and come back in time.
macro_rules! patiently {
    ($engine:expr, $attempt:expr) => {{
        let mut patience = $crate::engine::Patience::v3();
        loop {
            match $attempt.await {
                Err($crate::engine::Interrupt::Delegated(met)) => {
                    // Boxed: it is rare, and the future of a call is moved.
                    if !Box::pin($engine.ask_back(met, None, &mut patience)).await {
                        break $crate::engine::v3::fail(atoll_proto::nfs3::NfsStat3::Jukebox);
                    }
                }
                done => break done,
            }
        }
    }};
}
pub(crate) use patiently;

fn decode<T: Decode>(call: &mut RpcCall) -> Result<T, Interrupt> {
    call.args.decode().map_err(|_| Interrupt::Garbage)
}

/// Ends a call without result.
pub(crate) fn interrupted(interrupt: Interrupt) -> Answer {
    match interrupt {
        Interrupt::Garbage => Answer::GarbageArgs,
        Interrupt::Auth(e) => Answer::AuthError(e),
        // Whoever met delegations was not within a frame that waits for them: the client asks again.
        Interrupt::Drop | Interrupt::Delegated(_) => Answer::Drop,
    }
}

/// Encodes a result; says whether it is a failure.
pub(crate) fn answer<T: Encode, F: Encode>(mut reply: Encoder, result: Result3<T, F>) -> (Answer, bool) {
    match result {
        Ok(result) => {
            reply.put(&result);
            (Answer::Success(reply), result.is_err())
        }
        Err(interrupt) => (interrupted(interrupt), true),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Answers a call of NFS.
    pub async fn nfs3(&self, mut call: RpcCall, reply: Encoder) -> Answer {
        debug_assert_eq!(call.program, PROGRAM);
        if call.version != VERSION {
            return Answer::ProgramMismatch(VERSION, VERSION);
        }
        let Some(procedure) = Proc::from_u32(call.procedure) else { return Answer::ProcedureUnavailable };
        let begun = Instant::now();
        self.stats.heard(call.peer.ip().to_canonical(), || self.clock.now());
        let (answer, failed) = self.dispatch(procedure, &mut call, reply).await;
        self.stats.call(procedure, failed, begun.elapsed());
        answer
    }

    async fn dispatch(&self, procedure: Proc, call: &mut RpcCall, mut reply: Encoder) -> (Answer, bool) {
        /// Decodes the arguments and runs a procedure that only reads.
        macro_rules! run {
            ($method:ident) => {
                match decode(call) {
                    Ok(args) => answer(reply, self.$method(call, &args).await),
                    Err(interrupt) => (interrupted(interrupt), true),
                }
            };
        }
        /// The same for those that may meet a delegation.
        macro_rules! run_patiently {
            ($method:ident) => {
                match decode(call) {
                    Ok(args) => answer(reply, patiently!(self, self.$method(call, &args))),
                    Err(interrupt) => (interrupted(interrupt), true),
                }
            };
        }
        /// The same for procedures that write their result themselves.
        macro_rules! run_writing {
            ($method:ident) => {
                match decode(call) {
                    Ok(args) => match self.$method(call, &args, &mut reply).await {
                        Ok(failed) => (Answer::Success(reply), failed),
                        Err(interrupt) => (interrupted(interrupt), true),
                    },
                    Err(interrupt) => (interrupted(interrupt), true),
                }
            };
        }
        /// The same for procedures that change something: they own all they need and run to their end.
        macro_rules! run_once {
            ($method:ident) => {{
                let key = once::key(call);
                match (decode(call), self.this.upgrade()) {
                    (Ok(args), Some(this)) => {
                        let who = call.without_args();
                        let this: Arc<Self> = this;
                        let attempts =
                            shield(
                                async move { patiently!(this, this.$method(&who, key, Clone::clone(&args))) },
                            );
                        answer(reply, attempts.await)
                    }
                    (Err(interrupt), _) => (interrupted(interrupt), true),
                    (_, None) => (Answer::Drop, true),
                }
            }};
        }
        match procedure {
            Proc::Null => (Answer::Success(reply), false),
            Proc::GetAttr => run_patiently!(getattr),
            Proc::Lookup => run_patiently!(lookup),
            Proc::Access => run_patiently!(access),
            Proc::Read => run_writing!(read),
            Proc::ReadLink => run!(readlink),
            Proc::ReadDir => run_writing!(readdir),
            Proc::ReadDirPlus => run_writing!(readdirplus),
            Proc::FsStat => run!(fsstat),
            Proc::FsInfo => run!(fsinfo),
            Proc::PathConf => run!(pathconf),
            Proc::SetAttr => run_once!(setattr),
            Proc::Write => run_once!(write),
            Proc::Create => run_once!(create),
            Proc::MkDir => run_once!(mkdir),
            Proc::SymLink => run_once!(symlink),
            Proc::MkNod => run_once!(mknod),
            Proc::Remove => run_once!(remove),
            Proc::RmDir => run_once!(rmdir),
            Proc::Rename => run_once!(rename),
            Proc::Link => run_once!(link),
            Proc::Commit => run_once!(commit),
        }
    }

    /// `wcc_data` of an object that was not touched: only what it is like now, if that can be had.
    pub(crate) async fn wcc_now(&self, ino: Ino) -> WccData {
        WccData { before: None, after: self.attr(ino).await.ok().as_ref().map(attrs::fattr) }
    }
}
