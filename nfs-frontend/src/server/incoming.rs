//! From a message to a call, or to the answer that it gets without one (RFC 5531 §9).

use crate::rpc::{Answer, Credential, RpcCall, Transport};
use atoll_proto::rpc::{
    Accepted, AuthFlavor, AuthStat, CallError, CallHeader, Denied, OpaqueAuth, ReplyHeader, VersionRange,
    encode_success_header,
};
use atoll_xdr::{Decoder, Encoder};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;

/// Where messages come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) transport: Transport,
}

/// What a message is.
pub(super) enum Opened {
    Call(RpcCall),
    Refused(ReplyHeader),
    /// Nothing that can be answered.
    NotACall,
}

/// Reads the header of a call. Programs other than `programs` (if given) are not served where it came from.
pub(super) fn open(message: Bytes, origin: &Origin, programs: Option<&[u32]>) -> Opened {
    let mut args = Decoder::new(message);
    let header = match CallHeader::parse(&mut args) {
        Ok(header) => header,
        // As knfsd answers a header that is cut short.
        Err(CallError::Truncated { xid }) => {
            return Opened::Refused(ReplyHeader::accepted(xid, Accepted::GarbageArgs));
        }
        Err(error) => return error.reply().map_or(Opened::NotACall, Opened::Refused),
    };
    let xid = header.xid;
    let credential = match credential(&header.credential) {
        Ok(credential) => credential,
        Err(stat) => return Opened::Refused(ReplyHeader::denied(xid, Denied::AuthError(stat))),
    };
    if programs.is_some_and(|programs| !programs.contains(&header.program)) {
        return Opened::Refused(ReplyHeader::accepted(xid, Accepted::ProgUnavail));
    }
    Opened::Call(RpcCall {
        peer: origin.peer,
        local: origin.local,
        transport: origin.transport,
        xid,
        program: header.program,
        version: header.version,
        procedure: header.procedure,
        credential,
        connection: None,
        args,
    })
}

fn credential(auth: &OpaqueAuth) -> Result<Credential, AuthStat> {
    match auth.known_flavor() {
        Some(AuthFlavor::None) => Ok(Credential::None),
        Some(AuthFlavor::Sys) => {
            let sys = auth.auth_sys().map_err(|_| AuthStat::BadCred)?;
            Ok(Credential::Sys { uid: sys.uid, gid: sys.gid, gids: sys.gids })
        }
        // Not spoken. A client that asks for TLS (RFC 9289 §4.1) or GSS learns by it that there is none.
        Some(AuthFlavor::Short | AuthFlavor::Dh | AuthFlavor::RpcsecGss | AuthFlavor::Tls) | None => {
            Err(AuthStat::RejectedCred)
        }
    }
}

/// An encoder that begins with the header of a successful reply.
pub(super) fn begin_reply(buffer: BytesMut, xid: u32) -> Encoder {
    let mut reply = Encoder::with_buffer(buffer);
    encode_success_header(&mut reply, xid);
    reply
}

/// The header of any answer that has no results; `Err` is the reply of one that has, `None` no reply.
pub(super) fn reply_header(xid: u32, answer: Answer) -> Option<Result<ReplyHeader, Encoder>> {
    let stat = match answer {
        Answer::Success(reply) => return Some(Err(reply)),
        Answer::Drop | Answer::Disconnect => return None,
        Answer::AuthError(error) => {
            let stat = match error {
                crate::rpc::AuthError::BadCredential => AuthStat::BadCred,
                crate::rpc::AuthError::TooWeak => AuthStat::TooWeak,
            };
            return Some(Ok(ReplyHeader::denied(xid, Denied::AuthError(stat))));
        }
        Answer::ProgramUnavailable => Accepted::ProgUnavail,
        Answer::ProgramMismatch(low, high) => Accepted::ProgMismatch(VersionRange { low, high }),
        Answer::ProcedureUnavailable => Accepted::ProcUnavail,
        Answer::GarbageArgs => Accepted::GarbageArgs,
        Answer::SystemError => Accepted::SystemErr,
    };
    Some(Ok(ReplyHeader::accepted(xid, stat)))
}
