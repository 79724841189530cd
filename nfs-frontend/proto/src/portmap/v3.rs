//! rpcbind version 3 (RFC 1833 §2.2.1), whose types version 4 shares.

use atoll_xdr::{List, Opaque, xdr_struct};

use super::{MAX_INDIRECT, MAX_MAPPINGS, PROGRAM, RpcbString};
use crate::rpc::rpc_program;

/// This version.
pub const VERSION: u32 = 3;

/// Longest transport address (`netbuf`) that decodes: `sockaddr_storage` has 128 bytes.
pub const MAX_NETBUF: usize = 1024;

xdr_struct! {
    /// Where a program is served (`rpcb`).
    #[derive(Hash)]
    pub struct Rpcb {
        /// Program number.
        pub program: u32,
        /// Version number.
        pub version: u32,
        /// Network identifier, see [`super::NetId`].
        pub netid: RpcbString,
        /// Universal address, see [`super::parse_uaddr`]. In GETADDR it may hold the address the caller reached.
        pub addr: RpcbString,
        /// Who registered it.
        pub owner: RpcbString,
    }

    /// Arguments of CALLIT, BCAST and INDIRECT (`rpcb_rmtcallargs`).
    pub struct RmtCallArgs {
        /// Program number.
        pub program: u32,
        /// Version number.
        pub version: u32,
        /// Procedure number.
        pub procedure: u32,
        /// Arguments of that procedure, encoded.
        pub args: Opaque<MAX_INDIRECT>,
    }

    /// Results of CALLIT, BCAST and INDIRECT (`rpcb_rmtcallres`).
    pub struct RmtCallRes {
        /// Universal address of the program.
        pub addr: RpcbString,
        /// Results of the procedure, encoded.
        pub results: Opaque<MAX_INDIRECT>,
    }

    /// A transport address in the form of the server's own machine (`netbuf`).
    pub struct NetBuf {
        /// Size of the buffer it came from.
        pub maxlen: u32,
        /// The address, a `sockaddr`.
        pub buf: Opaque<MAX_NETBUF>,
    }
}

rpc_program! {
    /// Procedures of rpcbind version 3.
    program PROGRAM, version VERSION;
    /// Does nothing.
    Null(()) -> () = 0;
    /// Registers a program.
    Set(Rpcb) -> bool = 1;
    /// Removes a registration.
    Unset(Rpcb) -> bool = 2;
    /// The universal address of a program, empty if it is not registered.
    GetAddr(Rpcb) -> RpcbString = 3;
    /// All registrations.
    Dump(()) -> List<Rpcb, MAX_MAPPINGS> = 4;
    /// Calls a procedure on the caller's behalf.
    CallIt(RmtCallArgs) -> RmtCallRes = 5;
    /// Seconds since 1970.
    GetTime(()) -> u32 = 6;
    /// Universal address to transport address.
    Uaddr2Taddr(RpcbString) -> NetBuf = 7;
    /// Transport address to universal address.
    Taddr2Uaddr(NetBuf) -> RpcbString = 8;
}
