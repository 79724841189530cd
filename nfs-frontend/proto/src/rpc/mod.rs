//! ONC RPC version 2 (RFC 5531): headers of calls and replies, authentication flavors, procedures as types.

mod auth;
mod message;
mod program;

pub use auth::{
    AUTH_SYS_MAX_GIDS, AuthFlavor, AuthSys, Gids, MAX_AUTH_BODY, MAX_MACHINE_NAME, OpaqueAuth, STARTTLS,
};
pub use message::{
    Accepted, AuthStat, CallError, CallHeader, Denied, MessageType, RPC_VERSION, ReplyBody, ReplyHeader,
    VersionRange, encode_success_header, peek,
};
pub(crate) use program::rpc_program;
pub use program::{Procedure, encode_call};
