//! Port mapper version 2 and rpcbind versions 3 and 4 (RFC 1833), universal addresses (RFC 5665).

mod uaddr;
pub mod v2;
pub mod v3;
pub mod v4;

use atoll_xdr::Opaque;

pub use uaddr::{NetId, format_uaddr, parse_uaddr};

/// Program number of the port mapper and of rpcbind.
pub const PROGRAM: u32 = 100_000;

/// Well-known port, TCP and UDP.
pub const PORT: u16 = 111;

/// Longest string that decodes. RFC 1833 sets no bound; the longest in use is the path of a local socket, 108 bytes.
pub const MAX_STRING: usize = 1024;

/// Longest argument or result of an indirect call. They travel in datagrams, so 64 KiB is as much as there can be.
pub const MAX_INDIRECT: usize = 64 * 1024;

/// Most registrations that decode: a client that dumps a peer's table. Real tables have some dozens.
pub const MAX_MAPPINGS: usize = 4096;

/// A string of rpcbind: netid, universal address or owner.
pub type RpcbString = Opaque<MAX_STRING>;
