//! NFS versions 4.0, 4.1 and 4.2 (RFC 7530/7531, RFC 8881/5662, RFC 7862/7863) with the extensions of RFC 8275
//! (`mode_umask`), RFC 8276 (extended attributes) and RFC 9754 (delegated times, `open_arguments`).
//!
//! The minor versions share one set of types: a later version only adds to the earlier ones, and [`CompoundCall`] holds
//! each call to its own. What a peer may make as long as it likes is bounded by [`limits`].
//!
//! Results are `Result<…, NfsStat4>`, with [`Failure`] where a failure carries data and `Status4` where nothing does.
//! `NFS4_OK` is the `Ok` arm and not a value of [`NfsStat4`]. Names, owners and payloads are slices of the received
//! record; whether names are UTF-8 is for the engine to say.

mod acl;
mod attr;
mod basic;
pub mod callback;
mod client;
mod compound;
mod copy;
mod deleg;
mod dir;
mod io;
pub mod limits;
mod lock;
mod object;
mod open;
mod operations;
mod ops;
pub mod pnfs;
mod secinfo;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod xattr;

use crate::rpc::rpc_program;

pub use acl::{Ace4, Acl4, Acl41, ace_flag, ace_mask, ace_type, acl_flag, acl_support, who};
pub use attr::{
    Attr4, AttrError, AttrValue4, Bitmap, ChangeAttrType4, ChangePolicy4, Direction, Fattr4, FattrWriter,
    FsLocation4, FsLocations4, FsLocationsInfo4, FsLocationsItem4, FsLocationsServer4, FsStatus4,
    FsStatusType4, LayoutHint4, LayoutTypes4, MdsThreshold4, ModeMasked4, ModeUmask4, OpenArguments4,
    RetentionGet4, RetentionSet4, SecLabel4, SetAttrs4, ThresholdItem4, charset, fh_expire, open_args_want,
};
pub use basic::{
    ChangeInfo4, FileHandle, FileType4, FsId4, Identity, ImplId4, LinkText4, Name4, NetAddr4, NetLoc4,
    NfsTime4, Path4, Payload, Principal4, SessionId4, SetTime4, SpecData4, StableHow4, StateId4, StateOwner4,
    StateProtectOps4, Tag, Text4, Verifier4,
};
pub use client::*;
pub use compound::{
    Compound4Args, Compound4Res, CompoundCall, CompoundWriter, MAX_MINOR_VERSION, Stop, StopReason,
};
pub use copy::*;
pub use deleg::*;
pub use dir::*;
pub use io::*;
pub use lock::*;
pub use object::*;
pub use open::*;
pub use ops::{ArgOp4, Defined, OpNum4, ResOp4};
pub use secinfo::*;
pub use session::*;
pub use status::{Detail, Failure, NfsStat4, Outcome, Status4};
pub use xattr::*;

/// Program number of NFS.
pub const PROGRAM: u32 = 100_003;
/// This version.
pub const VERSION: u32 = 4;

rpc_program! {
    /// Procedures of NFS version 4 (RFC 8881 §16).
    program PROGRAM, version VERSION;
    /// NULL: does nothing.
    Null(()) -> () = 0;
    /// COMPOUND: operations in order.
    Compound(Compound4Args) -> Compound4Res = 1;
}

/// Every type of arguments and results of an operation.
#[cfg(test)]
pub(crate) fn operation_codecs() -> Vec<crate::tests::Codec> {
    [ops::codecs::all(), callback::codecs::all()].into_iter().flatten().collect()
}
