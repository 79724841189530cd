//! Record marking on streams (RFC 5531 §11), sans IO.
//!
//! Invariants: no more than [`RecordLimits::max_record`] bytes of a record are ever held besides the read buffer; a record
//! has at most [`RecordLimits::max_fragments`] fragments, empty ones included; memory grows with bytes received, not with
//! bytes announced.

use atoll_xdr::{Encoder, Patch};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes for the headers around a payload: RPC header with two 400-byte auth bodies, handles, attributes, and the
/// other operations of a COMPOUND.
pub const MAX_RECORD_HEADERS: usize = 64 * 1024;

/// Largest payload of a READ or WRITE (`rtmax`, `wtmax`) by default.
pub const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// Largest record by default.
pub const DEFAULT_MAX_RECORD: usize = DEFAULT_MAX_PAYLOAD + MAX_RECORD_HEADERS;

/// Most fragments of a record by default. Clients send one; libtirpc cuts at its buffer size (9000 bytes in old
/// versions), which makes about 125 of the largest record.
pub const DEFAULT_MAX_FRAGMENTS: u32 = 1024;

/// Length of a fragment header.
const HEADER: usize = 4;
const LAST_FRAGMENT: u32 = 1 << 31;

/// Bounds of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Bytes of a record without fragment headers.
    pub max_record: usize,
    /// Fragments of a record.
    pub max_fragments: u32,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { max_record: DEFAULT_MAX_RECORD, max_fragments: DEFAULT_MAX_FRAGMENTS }
    }
}

/// The stream is not one of acceptable records. There is no way to find the next record: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The fragments announced add up to more than the bound.
    #[error("record of {len} bytes or more is above the bound {max}")]
    TooLarge {
        /// Sum of the fragments announced so far.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// More fragments than the bound.
    #[error("record has more than {max} fragments")]
    TooManyFragments {
        /// The bound.
        max: u32,
    },
    /// The record is empty: no RPC message is, and a stream of them would cost more to serve than to send.
    #[error("empty record")]
    Empty,
}

/// Finds records in a stream of bytes.
///
/// The reader appends what it receives to a `BytesMut` and calls [`next_record`](Self::next_record) until it gets `None`. A
/// record of one fragment is split off that buffer without a copy, so the slices decoded from it keep the allocation
/// of the buffer alive; one of several fragments is copied together.
#[derive(Debug)]
pub struct RecordReader {
    limits: RecordLimits,
    fragment: Option<Fragment>,
    /// Fragments of the current record whose header was seen.
    fragments: u32,
    /// Bytes of the current record announced so far.
    announced: usize,
    /// What was received of a record of several fragments.
    gathered: BytesMut,
    wanted: usize,
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    left: usize,
    last: bool,
}

impl RecordReader {
    /// A reader at the start of a stream.
    pub fn new(limits: RecordLimits) -> Self {
        Self { limits, fragment: None, fragments: 0, announced: 0, gathered: BytesMut::new(), wanted: HEADER }
    }

    /// Takes the next whole record from the front of `buf`, or `None` if more bytes are needed. After an error the
    /// reader is of no further use.
    pub fn next_record(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, RecordError> {
        loop {
            let fragment = match self.fragment {
                Some(fragment) => fragment,
                None if buf.len() < HEADER => {
                    self.wanted = HEADER - buf.len();
                    return Ok(None);
                }
                None => self.open_fragment(buf.get_u32())?,
            };
            // The usual case: the whole record is one fragment. Wait until all of it is in the buffer.
            if fragment.last && self.gathered.is_empty() {
                if buf.len() < fragment.left {
                    self.wanted = fragment.left - buf.len();
                    return Ok(None);
                }
                let record = buf.split_to(fragment.left).freeze();
                self.begin_record();
                return Ok(Some(record));
            }
            let here = fragment.left.min(buf.len());
            self.gathered.extend_from_slice(&buf[..here]);
            buf.advance(here);
            let left = fragment.left - here;
            if left > 0 {
                self.fragment = Some(Fragment { left, ..fragment });
                self.wanted = left;
                return Ok(None);
            }
            self.fragment = None;
            if fragment.last {
                let record = std::mem::take(&mut self.gathered).freeze();
                self.begin_record();
                return Ok(Some(record));
            }
        }
    }

    /// How many more bytes the current fragment (or fragment header) needs, after `next_record` returned `None`.
    ///
    /// It is bounded by `max_record`, but it is what the peer *announced*: a reader that serves many connections
    /// reserves a moderate piece of it at a time, so that memory follows the bytes that arrive.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Bytes of the record begun that are held here and no longer in the read buffer (a record of several fragments).
    pub fn gathered(&self) -> usize {
        self.gathered.len()
    }

    /// Whether the stream may end here: no record is begun. What is left in the read buffer is for the caller to see.
    pub fn is_between_records(&self) -> bool {
        self.fragments == 0
    }

    fn open_fragment(&mut self, header: u32) -> Result<Fragment, RecordError> {
        let left = (header & !LAST_FRAGMENT) as usize;
        let fragment = Fragment { left, last: header & LAST_FRAGMENT != 0 };
        self.announced = self.announced.saturating_add(left);
        if self.announced > self.limits.max_record {
            return Err(RecordError::TooLarge { len: self.announced, max: self.limits.max_record });
        }
        self.fragments += 1;
        if self.fragments > self.limits.max_fragments {
            return Err(RecordError::TooManyFragments { max: self.limits.max_fragments });
        }
        if fragment.last && self.announced == 0 {
            return Err(RecordError::Empty);
        }
        self.fragment = Some(fragment);
        Ok(fragment)
    }

    fn begin_record(&mut self) {
        self.fragment = None;
        self.fragments = 0;
        self.announced = 0;
        self.wanted = HEADER;
    }
}

/// A record that is being encoded: its mark is filled in by [`end_record`].
#[derive(Debug)]
#[must_use = "the record mark is written by end_record"]
pub struct OpenRecord {
    mark: Patch,
    start: usize,
}

/// Begins a record of one fragment. Several records may be encoded one behind the other and leave by one write.
pub fn begin_record(e: &mut Encoder) -> OpenRecord {
    let mark = e.reserve_u32();
    OpenRecord { mark, start: e.len() }
}

/// Ends the record and returns its length without the mark.
pub fn end_record(e: &mut Encoder, record: OpenRecord) -> usize {
    let len = e.len() - record.start;
    let mark = u32::try_from(len).ok().filter(|len| len & LAST_FRAGMENT == 0);
    let mark = mark.expect("records that are sent are far below 2 GiB");
    e.patch_u32(record.mark, mark | LAST_FRAGMENT);
    len
}

#[cfg(test)]
mod tests;
