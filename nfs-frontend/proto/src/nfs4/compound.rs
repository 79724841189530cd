//! COMPOUND (RFC 8881 §16.2): what a server reads of a call, and how it writes the reply.
//!
//! Operations are not delimited by lengths, so a call is decoded whole before the first is executed. An operation that
//! cannot be decoded ends that, but those before it stand: they are executed, and then [`Stop`] says what is answered.

use atoll_xdr::{Array, Decoder, Encoder, Error, Mark, Patch, Result as XdrResult, xdr_struct};

use super::limits::MAX_OPS;
use super::{ArgOp4, Defined, NfsStat4, OpNum4, ResOp4, Status4, Tag};

/// The highest minor version whose operations decode.
pub const MAX_MINOR_VERSION: u32 = 2;

xdr_struct! {
    /// Arguments of COMPOUND, as a client makes them. A server reads a [`CompoundCall`].
    pub struct Compound4Args {
        /// Repeated in the reply.
        pub tag: Tag,
        /// Minor version.
        pub minorversion: u32,
        /// The operations.
        pub ops: Array<ArgOp4, MAX_OPS>,
    }

    /// Results of COMPOUND, as a client reads them. A server writes them by a [`CompoundWriter`].
    pub struct Compound4Res {
        /// Status of the last operation executed.
        pub status: Status4,
        /// As in the call.
        pub tag: Tag,
        /// Results of the operations executed.
        pub ops: Array<ResOp4, MAX_OPS>,
    }
}

/// A COMPOUND as a server reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompoundCall {
    /// Repeated in the reply.
    pub tag: Tag,
    /// Minor version.
    pub minorversion: u32,
    /// Number of operations that the call announces. With sessions the limit of the channel applies to it
    /// (`NFS4ERR_TOO_MANY_OPS`, RFC 8881 §18.46.3).
    pub announced: u32,
    /// Operations that decoded and that the minor version has or had ([`Defined::Obsolete`] is for the engine to
    /// answer).
    pub ops: Vec<ArgOp4>,
    /// Why `ops` does not hold all of them, if so.
    pub stop: Option<Stop>,
}

/// Where and why the decoding of a COMPOUND ended early: at the operation behind the last of [`CompoundCall::ops`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Number of the operation as it stands in the call, if it could be read.
    pub op: Option<u32>,
    /// Why.
    pub why: StopReason,
}

/// Why the decoding of a COMPOUND ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The minor version is not known, so no operation is looked at: `NFS4ERR_MINOR_VERS_MISMATCH` without results.
    MinorVersion,
    /// The arguments, or the number itself, do not decode.
    BadXdr(Error),
    /// The minor version has no operation of this number.
    Illegal,
    /// There are more operations than the bound given.
    TooMany,
}

impl Stop {
    /// The status that ends the COMPOUND once all operations before were executed. [`StopReason::TooMany`] is
    /// `NFS4ERR_RESOURCE` in minor version 0 and `NFS4ERR_TOO_MANY_OPS` above.
    pub fn status(&self, minorversion: u32) -> NfsStat4 {
        match self.why {
            StopReason::MinorVersion => NfsStat4::MinorVersMismatch,
            StopReason::BadXdr(_) => NfsStat4::BadXdr,
            StopReason::Illegal => NfsStat4::OpIllegal,
            StopReason::TooMany if minorversion == 0 => NfsStat4::Resource,
            StopReason::TooMany => NfsStat4::TooManyOps,
        }
    }

    /// The result that stands for the operation: its own with [`Self::status`], or that of ILLEGAL if there is no such
    /// operation or its number could not be read (RFC 8881 §16.2.3, §18.52). None if the minor version is not known.
    pub fn result(&self, minorversion: u32) -> Option<ResOp4> {
        let status = self.status(minorversion);
        let op = self.op.and_then(OpNum4::from_u32).filter(|op| op.defined_in(minorversion) != Defined::No);
        match self.why {
            StopReason::MinorVersion => None,
            _ => Some(op.unwrap_or(OpNum4::Illegal).failed(status)),
        }
    }
}

impl CompoundCall {
    /// Reads a call with at most `max_ops` operations. It fails, which is `GARBAGE_ARGS`, only if tag, minor version and
    /// count do not decode; anything wrong behind them is told by [`Self::stop`].
    ///
    /// Memory: `max_ops` times the size of [`ArgOp4`] at most, besides what the bounds of the types permit; payloads,
    /// names and owners are slices of the record.
    pub fn decode(d: &mut Decoder, max_ops: usize) -> XdrResult<Self> {
        let tag = d.decode()?;
        let minorversion = d.u32()?;
        let announced = d.u32()?;
        let mut call = Self { tag, minorversion, announced, ops: Vec::new(), stop: None };
        if minorversion > MAX_MINOR_VERSION {
            call.stop = Some(Stop { op: None, why: StopReason::MinorVersion });
            return Ok(call);
        }
        // Every operation takes four bytes at least: an announced count claims no more memory than it can fill.
        call.ops.reserve_exact(max_ops.min(announced as usize).min(d.remaining() / 4));
        for _ in 0..announced {
            match Self::decode_op(d, minorversion, call.ops.len() < max_ops) {
                Ok(op) => call.ops.push(op),
                Err(stop) => {
                    call.stop = Some(stop);
                    break;
                }
            }
        }
        Ok(call)
    }

    fn decode_op(d: &mut Decoder, minorversion: u32, room: bool) -> Result<ArgOp4, Stop> {
        let number = d.u32().map_err(|e| Stop { op: None, why: StopReason::BadXdr(e) })?;
        let stop = |why| Stop { op: Some(number), why };
        if !room {
            return Err(stop(StopReason::TooMany));
        }
        let op = OpNum4::from_u32(number)
            .filter(|op| op.defined_in(minorversion) != Defined::No)
            .ok_or(stop(StopReason::Illegal))?;
        let arguments = op.decode_arguments(d).map_err(|e| stop(StopReason::BadXdr(e)))?;
        match &arguments {
            ArgOp4::Open(open) if minorversion == 0 && !open.is_in_minor_0() => {
                let error = Error::BadDiscriminant { kind: "OPEN4args of minor version 0", value: number };
                Err(stop(StopReason::BadXdr(error)))
            }
            _ => Ok(arguments),
        }
    }
}

/// Writes the results of a COMPOUND one by one: status, tag, results.
#[derive(Debug)]
#[must_use = "results are complete after finish"]
pub struct CompoundWriter<'e> {
    e: &'e mut Encoder,
    status: Patch,
    count: Patch,
    written: u32,
    /// Before the last result.
    last: Mark,
}

impl<'e> CompoundWriter<'e> {
    /// Writes the tag. What the encoder holds already, such as the RPC header, stays before it.
    pub fn begin(e: &'e mut Encoder, tag: &Tag) -> Self {
        let status = e.reserve_u32();
        e.put(tag);
        let count = e.reserve_u32();
        let last = e.mark();
        Self { e, status, count, written: 0, last }
    }

    /// Writes the results of an operation.
    pub fn put(&mut self, result: &ResOp4) {
        self.put_with(|e| e.put(result));
    }

    /// Has `write` write the results of one operation, its number and status included, as
    /// [`encode_read_ok`](super::encode_read_ok), [`begin_getattr_ok`](super::begin_getattr_ok) and
    /// [`ReadDirWriter`](super::ReadDirWriter) do.
    pub fn put_with<T>(&mut self, write: impl FnOnce(&mut Encoder) -> T) -> T {
        self.last = self.e.mark();
        self.written += 1;
        write(self.e)
    }

    /// Takes the last result back and writes another in its place: that of a reply which got too big
    /// (`NFS4ERR_REP_TOO_BIG`, RFC 8881 §2.10.6.4). Without any result it writes the first.
    pub fn replace_last(&mut self, result: &ResOp4) {
        self.e.rollback(self.last);
        self.written = self.written.saturating_sub(1);
        self.put(result);
    }

    /// Bytes in the encoder so far, for limits on the size of a reply.
    pub fn encoded(&self) -> usize {
        self.e.len()
    }

    /// Ends the results with the status of the last operation.
    pub fn finish(self, status: Status4) {
        self.e.patch_u32(self.status, status.map_or_else(NfsStat4::to_u32, |()| 0));
        self.e.patch_u32(self.count, self.written);
    }
}
