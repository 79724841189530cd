//! Wire types of ONC RPC, portmap, MOUNT, NFSv3, NFSv4, NLM, NSM, RQUOTA and NFSACL, and nothing else: no state, no sockets.
//!
//! A module per program. Every type encodes *and* decodes, so the same definitions serve the server, its callbacks
//! (NLM_GRANTED, NSM) and clients such as the load generator. A procedure is a type that implements
//! [`rpc::Procedure`]; it ties the numbers on the wire to argument and result types.
//!
//! Results whose `.x` form is a union of success and failure are [`Result`]s: the discriminant 0 is the `Ok` arm and
//! cannot be stored in the error type.

pub use atoll_xdr as xdr;

pub mod handle;
pub mod mount;
pub mod nfs3;
pub mod nfs4;
pub mod nfsacl;
pub mod nlm;
pub mod nsm;
pub mod portmap;
pub mod record;
pub mod rpc;
pub mod rquota;

#[cfg(test)]
mod tests;
