//! Network Lock Manager versions 1, 3 and 4 (`nlm_prot.x`, X/Open XNFS, RFC 1813 appendix II).
//!
//! The versions differ in the width of offsets and lengths only, so the types are generic over it: `u32` in versions 1
//! and 3, `u64` in version 4. A server widens requests ([`Lock::widen`]) and narrows answers ([`Holder::narrow`]).

mod types;

use crate::rpc::rpc_program;

pub use types::{
    CancelArgs, Holder, Lock, LockArgs, MAX_CALLER_NAME, MAX_NETOBJ, NetObj, NlmStat, Notify, NotifyName,
    Share, ShareAccess, ShareArgs, ShareMode, ShareRes, StatRes, TestAnswer, TestArgs, TestReply, UnlockArgs,
};

/// Program number of NLM.
pub const PROGRAM: u32 = 100_021;

/// Declares the procedures of a version. TEST to GRANTED are answered; the `Msg` forms are answered by a call of the
/// matching `Res` procedure in the other direction, with the same cookie.
macro_rules! nlm_version {
    ($(#[$m:meta])* $name:ident, $version:literal, $offset:ty; $($rest:tt)*) => {
        $(#[$m])*
        pub mod $name {
            #[allow(unused_imports)]
            use super::{
                CancelArgs, LockArgs, Notify, PROGRAM, ShareArgs, ShareRes, StatRes, TestAnswer, TestArgs, UnlockArgs,
                rpc_program,
            };

            /// This version.
            pub const VERSION: u32 = $version;
            /// Offsets and lengths of this version.
            pub type Offset = $offset;

            rpc_program! {
                /// Procedures of this version.
                program PROGRAM, version VERSION;
                /// Does nothing.
                Null(()) -> () = 0;
                /// Whether a lock would be granted.
                Test(TestArgs<Offset>) -> TestAnswer<Offset> = 1;
                /// Requests a lock.
                Lock(LockArgs<Offset>) -> StatRes = 2;
                /// Withdraws a blocked request.
                Cancel(CancelArgs<Offset>) -> StatRes = 3;
                /// Releases a lock.
                Unlock(UnlockArgs<Offset>) -> StatRes = 4;
                /// Server to client: a blocked request is granted.
                Granted(TestArgs<Offset>) -> StatRes = 5;
                /// TEST as a message.
                TestMsg(TestArgs<Offset>) -> () = 6;
                /// LOCK as a message.
                LockMsg(LockArgs<Offset>) -> () = 7;
                /// CANCEL as a message.
                CancelMsg(CancelArgs<Offset>) -> () = 8;
                /// UNLOCK as a message.
                UnlockMsg(UnlockArgs<Offset>) -> () = 9;
                /// GRANTED as a message.
                GrantedMsg(TestArgs<Offset>) -> () = 10;
                /// Answers TEST_MSG.
                TestRes(TestAnswer<Offset>) -> () = 11;
                /// Answers LOCK_MSG.
                LockRes(StatRes) -> () = 12;
                /// Answers CANCEL_MSG.
                CancelRes(StatRes) -> () = 13;
                /// Answers UNLOCK_MSG.
                UnlockRes(StatRes) -> () = 14;
                /// Answers GRANTED_MSG.
                GrantedRes(StatRes) -> () = 15;
                $($rest)*
            }
        }
    };
}

nlm_version! {
    /// Version 1: 32-bit offsets, no share reservations.
    v1, 1, u32;
}

nlm_version! {
    /// Version 3: 32-bit offsets, share reservations of DOS clients.
    v3, 3, u32;
    /// Reserves a share mode.
    Share(ShareArgs) -> ShareRes = 20;
    /// Gives a share reservation back.
    Unshare(ShareArgs) -> ShareRes = 21;
    /// A lock without monitoring: the client's crash is not noticed.
    NmLock(LockArgs<Offset>) -> StatRes = 22;
    /// The client restarted: all its locks and reservations are void.
    FreeAll(Notify) -> () = 23;
}

nlm_version! {
    /// Version 4: 64-bit offsets (RFC 1813 §6).
    v4, 4, u64;
    /// Reserves a share mode.
    Share(ShareArgs) -> ShareRes = 20;
    /// Gives a share reservation back.
    Unshare(ShareArgs) -> ShareRes = 21;
    /// A lock without monitoring: the client's crash is not noticed.
    NmLock(LockArgs<Offset>) -> StatRes = 22;
    /// The client restarted: all its locks and reservations are void.
    FreeAll(Notify) -> () = 23;
}
