//! A small asynchronous client of NFSv3 and NFSv4.1 over TCP, for preparing what is measured and for tests of a server.
//!
//! [`RpcClient`] is one connection: any number of calls may be in flight, replies are matched by xid. [`Nfs3Client`]
//! adds MOUNT and the procedures that need no ceremony, [`Nfs41Client`] a session and COMPOUNDs. Nothing is retransmitted: a connection that fails, fails its
//! calls.

mod connection;
mod nfs3;
mod nfs41;

pub use connection::{RpcClient, RpcError};
pub use nfs3::{Nfs3Client, Nfs3Error, Nfs3Result, Sequential};
pub use nfs41::{Nfs41Client, usual_attributes};

use atoll_proto::rpc::{AuthSys, Gids, OpaqueAuth};
use atoll_xdr::Opaque;

/// An AUTH_SYS credential of a user without supplementary groups.
pub fn credential(uid: u32, gid: u32) -> OpaqueAuth {
    let machine_name = Opaque::from_static(b"bench");
    OpaqueAuth::sys(&AuthSys { stamp: 0, machine_name, uid, gid, gids: Gids::default() })
}

#[cfg(test)]
mod tests;
