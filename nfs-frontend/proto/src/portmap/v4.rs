//! rpcbind version 4 (RFC 1833 §2.2.2).
//!
//! GETSTAT (12) is not declared: the statistics of a foreign server's calls are nothing to serve or to ask.

use atoll_xdr::{List, xdr_struct};

pub use super::v3::{NetBuf, RmtCallArgs, RmtCallRes, Rpcb};
use super::{MAX_MAPPINGS, PROGRAM, RpcbString};
use crate::rpc::rpc_program;

/// This version.
pub const VERSION: u32 = 4;

/// [`RpcbEntry::semantics`] of a connectionless transport, UDP.
pub const NC_TPI_CLTS: u32 = 1;
/// [`RpcbEntry::semantics`] of a connection-oriented transport.
pub const NC_TPI_COTS: u32 = 2;
/// [`RpcbEntry::semantics`] of a connection-oriented transport with graceful close, TCP.
pub const NC_TPI_COTS_ORD: u32 = 3;
/// [`RpcbEntry::semantics`] of a raw transport.
pub const NC_TPI_RAW: u32 = 4;

xdr_struct! {
    /// An address with what it means (`rpcb_entry`).
    pub struct RpcbEntry {
        /// Universal address of the service, merged with the caller's network.
        pub addr: RpcbString,
        /// Network identifier.
        pub netid: RpcbString,
        /// One of the `NC_TPI_` numbers.
        pub semantics: u32,
        /// Protocol family, such as `inet` or `inet6`.
        pub protocol_family: RpcbString,
        /// Protocol, such as `tcp`.
        pub protocol: RpcbString,
    }
}

rpc_program! {
    /// Procedures of rpcbind version 4.
    program PROGRAM, version VERSION;
    /// Does nothing.
    Null(()) -> () = 0;
    /// Registers a program.
    Set(Rpcb) -> bool = 1;
    /// Removes a registration.
    Unset(Rpcb) -> bool = 2;
    /// The universal address of a program in any version, empty if it is not registered.
    GetAddr(Rpcb) -> RpcbString = 3;
    /// All registrations.
    Dump(()) -> List<Rpcb, MAX_MAPPINGS> = 4;
    /// Calls a procedure for a broadcast; silent about failure.
    Bcast(RmtCallArgs) -> RmtCallRes = 5;
    /// Seconds since 1970.
    GetTime(()) -> u32 = 6;
    /// Universal address to transport address.
    Uaddr2Taddr(RpcbString) -> NetBuf = 7;
    /// Transport address to universal address.
    Taddr2Uaddr(NetBuf) -> RpcbString = 8;
    /// The universal address of exactly this version, empty if it is not registered.
    GetVersAddr(Rpcb) -> RpcbString = 9;
    /// Calls a procedure on the caller's behalf and tells failure.
    Indirect(RmtCallArgs) -> RmtCallRes = 10;
    /// All addresses of a program and version.
    GetAddrList(Rpcb) -> List<RpcbEntry, MAX_MAPPINGS> = 11;
}
