//! `rpc_msg`: call and reply headers (RFC 5531 §9).
//!
//! Invariant: whatever a peer sends, a call is either parsed, or answerable ([`CallError`] holds the xid and the
//! answer), or not a call at all.

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Error, Result, xdr_enum, xdr_struct, xdr_union};
use bytes::Bytes;

use super::auth::OpaqueAuth;

/// The only version of the RPC protocol in use.
pub const RPC_VERSION: u32 = 2;

xdr_enum! {
    /// Direction of a message.
    pub enum MessageType {
        /// A call.
        Call = 0,
        /// A reply.
        Reply = 1,
    }

    /// Why authentication failed (`auth_stat` without `AUTH_OK`, RFC 5531 §9).
    pub enum AuthStat {
        /// The credential is malformed.
        BadCred = 1,
        /// The client must begin a new session, or the flavor is not accepted.
        RejectedCred = 2,
        /// The verifier is malformed.
        BadVerf = 3,
        /// The verifier is expired or replayed.
        RejectedVerf = 4,
        /// The flavor is too weak for what was asked.
        TooWeak = 5,
        /// The response's verifier is bogus (client side).
        InvalidResp = 6,
        /// Unknown reason.
        Failed = 7,
        /// Kerberos 4 error, deprecated.
        KerbGeneric = 8,
        /// Time of the credential expired, deprecated.
        TimeExpire = 9,
        /// Problem with the ticket file, deprecated.
        TktFile = 10,
        /// The authenticator cannot be decoded, deprecated.
        Decode = 11,
        /// Wrong net address in the ticket, deprecated.
        NetAddr = 12,
        /// No credentials for the user (RPCSEC_GSS): the client must create a new context.
        GssCredProblem = 13,
        /// Problem with the GSS context: the client must create a new one.
        GssCtxProblem = 14,
    }
}

/// Header of a call; the arguments of the procedure follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallHeader {
    /// Transaction id, chosen by the caller, repeated in the reply.
    pub xid: u32,
    /// Program.
    pub program: u32,
    /// Version of the program.
    pub version: u32,
    /// Procedure of that version.
    pub procedure: u32,
    /// Who calls.
    pub credential: OpaqueAuth,
    /// Proof for the credential.
    pub verifier: OpaqueAuth,
}

/// Why a message is not a call that can be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It is too short or is not a call: there is nobody to answer, the connection is out of step.
    #[error("not an RPC call")]
    NotACall,
    /// It is answered with the reply that [`CallError::reply`] gives.
    #[error("refused call {xid:#x}: {denied:?}")]
    Refused {
        /// Transaction id of the call.
        xid: u32,
        /// The answer.
        denied: Denied,
    },
    /// It has the right version but ends within its header; a server that knows no better answer drops it.
    #[error("call {xid:#x} ends within its header")]
    Truncated {
        /// Transaction id of the call.
        xid: u32,
    },
}

impl CallError {
    /// The reply header to send, if the error has an answer.
    pub fn reply(&self) -> Option<ReplyHeader> {
        match *self {
            Self::Refused { xid, denied } => Some(ReplyHeader { xid, body: ReplyBody::Denied(denied) }),
            Self::NotACall | Self::Truncated { .. } => None,
        }
    }
}

impl CallHeader {
    /// Bytes from the xid to the procedure number.
    const FIXED_LEN: usize = 24;

    /// Reads the header of a call and leaves the decoder at the arguments.
    ///
    /// A version other than 2 is refused with `RPC_MISMATCH` (RFC 5531 §9), a credential or verifier above the bound
    /// of 400 bytes with `AUTH_BADCRED` or `AUTH_BADVERF`.
    pub fn parse(d: &mut Decoder) -> Result<Self, CallError> {
        let not_a_call = |_: Error| CallError::NotACall;
        let xid = d.u32().map_err(not_a_call)?;
        if d.u32().map_err(not_a_call)? != MessageType::Call as u32 {
            return Err(CallError::NotACall);
        }
        let truncated = |_: Error| CallError::Truncated { xid };
        if d.u32().map_err(truncated)? != RPC_VERSION {
            let range = VersionRange { low: RPC_VERSION, high: RPC_VERSION };
            return Err(CallError::Refused { xid, denied: Denied::RpcMismatch(range) });
        }
        let program = d.u32().map_err(truncated)?;
        let version = d.u32().map_err(truncated)?;
        let procedure = d.u32().map_err(truncated)?;
        let refused = |stat: AuthStat| {
            move |e: Error| match e {
                Error::TooLong { .. } => CallError::Refused { xid, denied: Denied::AuthError(stat) },
                _ => CallError::Truncated { xid },
            }
        };
        let credential = d.decode().map_err(refused(AuthStat::BadCred))?;
        let verifier = d.decode().map_err(refused(AuthStat::BadVerf))?;
        Ok(Self { xid, program, version, procedure, credential, verifier })
    }
}

impl Encode for CallHeader {
    fn encode(&self, e: &mut Encoder) {
        let mut fixed = [0; Self::FIXED_LEN];
        let words =
            [self.xid, MessageType::Call as u32, RPC_VERSION, self.program, self.version, self.procedure];
        for (place, word) in fixed.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        e.raw(&fixed);
        e.put(&self.credential);
        e.put(&self.verifier);
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for CallHeader {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        Self {
            xid: u32::sample(s),
            program: u32::sample(s),
            version: u32::sample(s),
            procedure: u32::sample(s),
            credential: OpaqueAuth::sample(s),
            verifier: OpaqueAuth::sample(s),
        }
    }
}

xdr_struct! {
    /// Lowest and highest version supported.
    #[derive(Copy)]
    pub struct VersionRange {
        /// Lowest.
        pub low: u32,
        /// Highest.
        pub high: u32,
    }

    /// Header of a reply; results follow it if it is [`Accepted::Success`].
    pub struct ReplyHeader {
        /// Transaction id of the call.
        pub xid: u32,
        /// What became of the call.
        pub body: ReplyBody,
    }
}

xdr_union! {
    /// What became of an accepted call (`accept_stat`, RFC 5531 §9).
    #[derive(Copy)]
    pub enum Accepted {
        /// Executed; the results follow.
        0 => Success,
        /// The program is not served here.
        1 => ProgUnavail,
        /// The program is served in other versions.
        2 => ProgMismatch(versions: VersionRange),
        /// The version has no such procedure.
        3 => ProcUnavail,
        /// The arguments do not decode.
        4 => GarbageArgs,
        /// The server failed, for instance for want of memory.
        5 => SystemErr,
    }

    /// Why a call was denied (`reject_stat`, RFC 5531 §9).
    #[derive(Copy)]
    pub enum Denied {
        /// The RPC version is not 2.
        0 => RpcMismatch(versions: VersionRange),
        /// The caller is not authenticated.
        1 => AuthError(stat: AuthStat),
    }
}

/// `reply_body` (RFC 5531 §9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// The caller was authenticated.
    Accepted {
        /// Proof of the server, AUTH_NONE for all flavors but GSS and TLS probes.
        verifier: OpaqueAuth,
        /// Outcome.
        stat: Accepted,
    },
    /// The call was denied.
    Denied(Denied),
}

impl ReplyHeader {
    /// An accepted call without a verifier.
    pub fn accepted(xid: u32, stat: Accepted) -> Self {
        Self { xid, body: ReplyBody::Accepted { verifier: OpaqueAuth::NONE, stat } }
    }

    /// A denied call.
    pub fn denied(xid: u32, denied: Denied) -> Self {
        Self { xid, body: ReplyBody::Denied(denied) }
    }
}

/// Writes the header of a successful reply with an empty AUTH_NONE verifier: the one almost every reply has.
#[inline]
pub fn encode_success_header(e: &mut Encoder, xid: u32) {
    // xid, REPLY, MSG_ACCEPTED, AUTH_NONE, length 0, SUCCESS
    let mut header = [0; 24];
    header[..4].copy_from_slice(&xid.to_be_bytes());
    header[7] = MessageType::Reply as u8;
    e.raw(&header);
}

/// The xid and direction of a message that is not parsed yet: a connection that carries callbacks sees both.
pub fn peek(message: &Bytes) -> Option<(u32, MessageType)> {
    let (xid, rest) = message.split_first_chunk::<4>()?;
    let kind = rest.first_chunk::<4>()?;
    Some((u32::from_be_bytes(*xid), MessageType::from_u32(u32::from_be_bytes(*kind))?))
}

const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

impl Encode for ReplyBody {
    fn encode(&self, e: &mut Encoder) {
        e.put(&MessageType::Reply);
        match self {
            Self::Accepted { verifier, stat } => {
                e.u32(MSG_ACCEPTED);
                e.put(verifier);
                e.put(stat);
            }
            Self::Denied(denied) => {
                e.u32(MSG_DENIED);
                e.put(denied);
            }
        }
    }
}

/// Includes the direction word, so that a [`ReplyHeader`] is `xid` and body.
impl Decode for ReplyBody {
    const MIN_LEN: usize = 16;

    fn decode(d: &mut Decoder) -> Result<Self> {
        match d.u32()? {
            1 => {}
            value => return Err(Error::BadDiscriminant { kind: "reply", value }),
        }
        match d.u32()? {
            MSG_ACCEPTED => Ok(Self::Accepted { verifier: d.decode()?, stat: d.decode()? }),
            MSG_DENIED => Ok(Self::Denied(d.decode()?)),
            value => Err(Error::BadDiscriminant { kind: "reply_stat", value }),
        }
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for ReplyBody {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        if bool::sample(s) {
            Self::Accepted { verifier: OpaqueAuth::sample(s), stat: Accepted::sample(s) }
        } else {
            Self::Denied(Denied::sample(s))
        }
    }
}
