//! NFSv4.1: COMPOUNDs as the Linux client sends them, in a session with a slot for each call in flight (RFC 8881 §2.10.6).

mod attributes;
mod data;
mod locks;
mod opens;
#[cfg(test)]
mod tests;

pub use attributes::Attributes;
pub use data::{OpenBlocks, Reads4, Writes4};
pub use locks::Locks;
pub use opens::{OpenClose, SmallFiles4};

use atoll_proto::nfs4::{
    ArgOp4, Compound4Args, Compound4Res, NfsStat4, ResOp4, Sequence4Args, SessionId4, call,
};
use atoll_proto::rpc::OpaqueAuth;
use atoll_xdr::{Array, Decoder};
use bytes::Bytes;

use super::template::{args_at, encode};
use crate::load::{BadReply, CallWriter};

/// A session as the load generator uses it.
#[derive(Debug, Clone)]
pub struct Slots {
    session: SessionId4,
    credential: OpaqueAuth,
    /// Of each slot the number of its last request.
    last: Vec<u32>,
}

/// Bytes of SEQUENCE's result.
const SEQUENCE_LEN: usize = 4 + 4 + 16 + 5 * 4;

/// A COMPOUND encoded once: SEQUENCE and some operations.
#[derive(Debug, Clone)]
struct Template {
    call: Bytes,
    /// Where the arguments of SEQUENCE begin.
    sequence_at: usize,
    /// Operations in all.
    ops: u32,
}

impl Slots {
    /// A session that was made just now.
    pub fn new(session: SessionId4, slots: usize, credential: &OpaqueAuth) -> Self {
        Self { session, credential: credential.clone(), last: vec![0; slots] }
    }

    /// Encodes SEQUENCE and these operations. `cache` as the Linux client asks for it: if they must not be executed twice.
    fn template(&self, ops: Vec<ArgOp4>, cache: bool) -> Template {
        let highest = u32::try_from(self.last.len() - 1).expect("slots are few");
        let sequence = Sequence4Args {
            sessionid: self.session,
            sequenceid: 0,
            slotid: 0,
            highest_slotid: highest,
            cachethis: cache,
        };
        let all: Vec<ArgOp4> = std::iter::once(ArgOp4::Sequence(sequence)).chain(ops).collect();
        let count = u32::try_from(all.len()).expect("operations are few");
        let ops = Array::new(all).expect("operations are few");
        let args = Compound4Args { tag: Default::default(), minorversion: 1, ops };
        let call = encode::<call::Compound>(&self.credential, &args);
        // Tag, minor version, number of operations; number of SEQUENCE.
        Template { call, sequence_at: args_at(&self.credential) + 12 + 4, ops: count }
    }

    /// Puts a call of a slot.
    fn put(&mut self, slot: usize, template: &Template, out: &mut CallWriter<'_>) {
        out.put(&template.call);
        self.number(slot, template, out);
    }

    /// Numbers a call that was put.
    fn number(&mut self, slot: usize, template: &Template, out: &mut CallWriter<'_>) {
        self.last[slot] = self.last[slot].wrapping_add(1);
        out.patch(template.sequence_at + 16, &self.last[slot].to_be_bytes());
        let slot = u32::try_from(slot).expect("slots are few");
        out.patch(template.sequence_at + 20, &slot.to_be_bytes());
    }
}

/// The results of the operations behind SEQUENCE, all of which must have succeeded.
fn results<'a>(what: &'static str, template: &Template, results: &'a [u8]) -> Result<&'a [u8], BadReply> {
    let word = |at: usize| results.get(at..at + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
    let short = || BadReply("the results are cut short".into());
    let status = word(0).ok_or_else(short)?;
    if status != 0 {
        return Err(BadReply(match NfsStat4::from_u32(status) {
            Some(status) => format!("{what}: {status:?}"),
            None => format!("{what}: status {status}"),
        }));
    }
    let tag = word(4).ok_or_else(short)? as usize;
    let at = 8 + tag.next_multiple_of(4);
    if word(at).ok_or_else(short)? != template.ops {
        return Err(BadReply(format!("{what}: results are missing")));
    }
    results.get(at + 4 + SEQUENCE_LEN..).ok_or_else(short)
}

/// The same, decoded.
fn decoded(what: &'static str, results: &[u8]) -> Result<Vec<ResOp4>, BadReply> {
    let res: Compound4Res = Decoder::new(Bytes::copy_from_slice(results))
        .decode()
        .map_err(|e| BadReply(format!("{what}: {e}")))?;
    match res.status {
        Ok(()) => Ok(res.ops.into_iter().collect()),
        Err(status) => Err(BadReply(format!("{what}: {status:?}"))),
    }
}
