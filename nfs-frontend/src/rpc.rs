//! The seam between sockets and protocol engines: one decoded call in, one answer out.

pub use crate::server::{Connection, ReverseError};
pub use atoll_proto::rpc::Gids;
use atoll_xdr::{Decoder, Encoder};
use std::future::Future;
use std::net::SocketAddr;

/// The arguments of a call whose record is at most so many bytes long come in a buffer that holds this record alone.
pub(crate) const OWN_RECORD: usize = 16 * 1024;

/// How a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over a connection.
    Tcp,
    /// In a datagram.
    Udp,
}

/// Who the caller says it is (RFC 5531 §8.2, §14). A flavour that the server does not speak never gets this far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// AUTH_NONE.
    None,
    /// AUTH_SYS.
    Sys {
        /// Effective user.
        uid: u32,
        /// Effective group.
        gid: u32,
        /// Supplementary groups: 16 at most.
        gids: Gids,
    },
}

/// One RPC call with its header decoded (RFC 5531 §9).
#[derive(Debug)]
pub struct RpcCall {
    /// Source of the call.
    pub peer: SocketAddr,
    /// Our address it came to.
    pub local: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// Transaction id.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Program version.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// Who asks.
    pub credential: Credential,
    /// By which the client can be called over the connection that it called by; `None` of a datagram.
    pub connection: Option<Connection>,
    /// The arguments, from the byte after the verifier on.
    pub args: Decoder,
}

impl RpcCall {
    /// The call without its arguments, for work that outlives the decoding of them.
    pub fn without_args(&self) -> Self {
        Self {
            credential: self.credential.clone(),
            connection: self.connection.clone(),
            args: Decoder::new(bytes::Bytes::new()),
            ..*self
        }
    }
}

/// Why an authentication is refused (RFC 5531 §9 `auth_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// AUTH_BADCRED
    BadCredential = 1,
    /// AUTH_TOOWEAK
    TooWeak = 5,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Answer {
    /// SUCCESS: the results are in the encoder that came with the call.
    Success(Encoder),
    /// PROG_UNAVAIL
    ProgramUnavailable,
    /// PROG_MISMATCH, with the lowest and the highest version spoken.
    ProgramMismatch(u32, u32),
    /// PROC_UNAVAIL
    ProcedureUnavailable,
    /// GARBAGE_ARGS
    GarbageArgs,
    /// SYSTEM_ERR
    SystemError,
    /// MSG_DENIED, AUTH_ERROR
    AuthError(AuthError),
    /// No answer at all: a duplicate of a call in progress, or a protocol's message without reply.
    Drop,
    /// No answer, and the connection is closed: its outcome is not known, and NFSv4 clients ask again only over a new connection
    /// (RFC 8881 §2.9.2, RFC 7530 §3.1.1). In a datagram: no answer.
    Disconnect,
}

/// Answers calls. The server polls the future once on the connection's own task, so what is ready at once costs no
/// task switch; what is not goes on beside the connection's other calls, in any order.
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers one call. `reply` already holds the header of a successful reply; results are appended to it.
    fn handle(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
}
