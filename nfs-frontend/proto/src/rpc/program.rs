//! Procedures as types: a client names one and gets its argument and result types from the compiler.

use atoll_xdr::{Decode, Encode, Encoder};

use super::{CallHeader, OpaqueAuth};

/// A remote procedure.
pub trait Procedure {
    /// Program number.
    const PROGRAM: u32;
    /// Version number.
    const VERSION: u32;
    /// Procedure number.
    const PROCEDURE: u32;
    /// Arguments.
    type Args: Encode + Decode;
    /// Results.
    type Res: Encode + Decode;
}

/// Writes a whole call of procedure `P` with an AUTH_NONE verifier.
pub fn encode_call<P: Procedure>(e: &mut Encoder, xid: u32, credential: OpaqueAuth, args: &P::Args) {
    e.put(&CallHeader {
        xid,
        program: P::PROGRAM,
        version: P::VERSION,
        procedure: P::PROCEDURE,
        credential,
        verifier: OpaqueAuth::NONE,
    });
    e.put(args);
}

/// Declares one version of a program: the enumeration `Proc` of its procedures for dispatch and, in the module `call`,
/// a type per procedure for clients.
macro_rules! rpc_program {
    (
        $(#[$m:meta])*
        program $program:expr, version $version:expr;
        $( $(#[$pm:meta])* $name:ident ( $args:ty ) -> $res:ty = $number:literal; )+
    ) => {
        atoll_xdr::xdr_enum! {
            $(#[$m])*
            pub enum Proc {
                $( $(#[$pm])* $name = $number ),+
            }
        }

        /// The procedures as types.
        pub mod call {
            #[allow(unused_imports)]
            use super::*;
            $(
                $(#[$pm])*
                #[derive(Debug, Clone, Copy)]
                pub struct $name;

                impl $crate::rpc::Procedure for $name {
                    const PROGRAM: u32 = $program;
                    const VERSION: u32 = $version;
                    const PROCEDURE: u32 = $number;
                    type Args = $args;
                    type Res = $res;
                }
            )+
        }
    };
}
pub(crate) use rpc_program;
