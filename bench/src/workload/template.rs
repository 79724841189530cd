//! Calls encoded once and patched for each use, and the parts of results that every workload looks at.

use atoll_proto::nfs3::{FileHandle, NfsStat3};
use atoll_proto::record::{begin_record, end_record};
use atoll_proto::rpc::{OpaqueAuth, Procedure, encode_call};
use atoll_xdr::{Encoder, padding};
use bytes::Bytes;

use crate::load::BadReply;

/// A whole record: mark, header of the call, arguments. The generator fills in the xid.
pub(super) fn encode<P: Procedure>(credential: &OpaqueAuth, args: &P::Args) -> Bytes {
    let mut e = Encoder::new();
    let record = begin_record(&mut e);
    encode_call::<P>(&mut e, 0, credential.clone(), args);
    end_record(&mut e, record);
    e.into_bytes()
}

/// Where the arguments of a call begin in its record.
pub(super) fn args_at(credential: &OpaqueAuth) -> usize {
    // Mark; xid, CALL, 2, program, version, procedure; credential; an empty verifier.
    4 + 24 + 8 + credential.body.len().next_multiple_of(4) + 8
}

/// Bytes of a handle on the wire.
pub(super) fn handle_len(handle: &FileHandle) -> usize {
    let len = handle.as_slice().len();
    4 + len + padding(len)
}

/// Reads results front to back without allocating.
#[derive(Debug, Clone, Copy)]
pub(super) struct Results<'a>(&'a [u8]);

impl<'a> Results<'a> {
    /// Results of `procedure`, which must be a success.
    #[inline]
    pub(super) fn of(procedure: &'static str, results: &'a [u8]) -> Result<Self, BadReply> {
        let mut this = Self(results);
        match this.u32()? {
            0 => Ok(this),
            status => Err(failure(procedure, status)),
        }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], BadReply> {
        match self.0.split_at_checked(len) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => Err(BadReply("the results are cut short".into())),
        }
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, BadReply> {
        let word = self.take(4)?;
        Ok(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    }

    /// Skips `post_op_attr`.
    #[inline]
    pub(super) fn post_op_attr(&mut self) -> Result<(), BadReply> {
        let len = if self.u32()? == 0 { 0 } else { atoll_proto::nfs3::Fattr3::WIRE_LEN };
        self.take(len).map(drop)
    }

    /// Skips `wcc_data`.
    #[inline]
    pub(super) fn wcc_data(&mut self) -> Result<(), BadReply> {
        let len = if self.u32()? == 0 { 0 } else { 24 };
        self.take(len)?;
        self.post_op_attr()
    }

    /// `post_op_fh3`.
    pub(super) fn post_op_fh3(&mut self) -> Result<Option<FileHandle>, BadReply> {
        if self.u32()? == 0 {
            return Ok(None);
        }
        let len = self.u32()? as usize;
        let handle = FileHandle::new(self.take(len)?).map_err(|e| BadReply(format!("handle: {e}")))?;
        self.take(padding(len))?;
        Ok(Some(handle))
    }
}

#[cold]
fn failure(procedure: &'static str, status: u32) -> BadReply {
    match NfsStat3::from_u32(status) {
        Some(status) => BadReply(format!("{procedure}: {status:?}")),
        None => BadReply(format!("{procedure}: status {status}")),
    }
}

/// Length of the names that the benchmark makes: a letter and eleven digits, so that all calls have the same size.
pub(super) const NAME_LEN: usize = 12;

/// The n-th name with a letter in front.
pub(super) fn name(letter: u8, mut number: u64) -> [u8; NAME_LEN] {
    let mut name = [b'0'; NAME_LEN];
    name[0] = letter;
    for digit in name[1..].iter_mut().rev() {
        #[allow(clippy::cast_possible_truncation)] // below ten
        let value = (number % 10) as u8;
        *digit = b'0' + value;
        number /= 10;
    }
    name
}
