//! Port mapper version 2 (RFC 1833 §3).

use atoll_xdr::{List, Opaque, xdr_struct};

use super::{MAX_INDIRECT, MAX_MAPPINGS, PROGRAM};
use crate::rpc::rpc_program;

/// This version.
pub const VERSION: u32 = 2;

/// [`Mapping::protocol`] of TCP.
pub const IPPROTO_TCP: u32 = 6;
/// [`Mapping::protocol`] of UDP.
pub const IPPROTO_UDP: u32 = 17;

xdr_struct! {
    /// Where a program is served (`mapping`).
    #[derive(Copy, Hash)]
    pub struct Mapping {
        /// Program number.
        pub program: u32,
        /// Version number; ignored by UNSET.
        pub version: u32,
        /// [`IPPROTO_TCP`] or [`IPPROTO_UDP`]; ignored by UNSET.
        pub protocol: u32,
        /// Port; 0 in a query, and in UNSET ignored. A word on the wire, although ports have 16 bits.
        pub port: u32,
    }

    /// Arguments of CALLIT.
    pub struct CallItArgs {
        /// Program number.
        pub program: u32,
        /// Version number.
        pub version: u32,
        /// Procedure number.
        pub procedure: u32,
        /// Arguments of that procedure, encoded.
        pub args: Opaque<MAX_INDIRECT>,
    }

    /// Results of CALLIT. A call that fails is not answered at all.
    pub struct CallItRes {
        /// Port of the program.
        pub port: u32,
        /// Results of the procedure, encoded.
        pub results: Opaque<MAX_INDIRECT>,
    }
}

rpc_program! {
    /// Procedures of the port mapper.
    program PROGRAM, version VERSION;
    /// Does nothing.
    Null(()) -> () = 0;
    /// Registers a program.
    Set(Mapping) -> bool = 1;
    /// Removes a program's registrations.
    Unset(Mapping) -> bool = 2;
    /// The port of a program, 0 if it is not registered.
    GetPort(Mapping) -> u32 = 3;
    /// All registrations.
    Dump(()) -> List<Mapping, MAX_MAPPINGS> = 4;
    /// Calls a procedure on the caller's behalf.
    CallIt(CallItArgs) -> CallItRes = 5;
}
