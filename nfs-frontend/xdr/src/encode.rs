//! The encoder: one growing buffer for small fields, large payloads beside it.
//!
//! Payloads of [`SPLICE_THRESHOLD`] bytes and more are not copied: the encoder remembers the place in the buffer and
//! the shared `Bytes`. The buffer itself is cut into segments only at the end, so a reserved word can be filled in
//! at any time and everything behind a [`Mark`] can be taken back.
//!
//! Invariant: the places of `splices` do not decrease and none is above `buf.len()`.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::padding;

/// Payloads from this size on become segments of their own. Copying 4 KiB costs about as much as one more entry in
/// the vector of a `writev` and the reference count that goes with it; below, the copy is cheaper.
pub const SPLICE_THRESHOLD: usize = 4096;

/// First capacity of an encoder's buffer: holds any reply without payload (the largest, RENAME with two full
/// `wcc_data`, is below 300 bytes with its headers).
const FIRST_CAPACITY: usize = 512;

/// A type that can be written as XDR. Writing cannot fail: bounds are part of the types ([`crate::Opaque`],
/// [`crate::Array`], [`crate::List`]).
pub trait Encode {
    /// Appends the value.
    fn encode(&self, e: &mut Encoder);
}

/// A position in an encoder to which [`Encoder::rollback`] can return.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    buf: usize,
    splices: usize,
}

/// A reserved word, to be filled in by [`Encoder::patch_u32`].
#[derive(Debug)]
#[must_use = "a reserved word that is never patched stays 0"]
pub struct Patch {
    at: usize,
}

/// Collects encoded values.
#[derive(Debug, Default)]
pub struct Encoder {
    buf: BytesMut,
    /// (place in `buf` the payload comes before, payload)
    splices: Vec<(usize, Bytes)>,
    spliced: usize,
}

impl Encoder {
    /// An empty encoder.
    pub fn new() -> Self {
        Self::with_buffer(BytesMut::with_capacity(FIRST_CAPACITY))
    }

    /// An encoder that appends to `buf`, for instance one from a pool. Bytes already there are kept and come first.
    pub fn with_buffer(buf: BytesMut) -> Self {
        Self { buf, splices: Vec::new(), spliced: 0 }
    }

    /// Bytes encoded so far, payloads included: differences of it are exact wire sizes.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.len() + self.spliced
    }

    /// Whether nothing was encoded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a value of any wire type.
    #[inline]
    pub fn put<T: Encode + ?Sized>(&mut self, value: &T) {
        value.encode(self);
    }

    /// Unsigned integer (RFC 4506 §4.2).
    #[inline]
    pub fn u32(&mut self, v: u32) {
        self.buf.put_slice(&v.to_be_bytes());
    }

    /// Integer (RFC 4506 §4.1).
    #[inline]
    pub fn i32(&mut self, v: i32) {
        self.buf.put_slice(&v.to_be_bytes());
    }

    /// Unsigned hyper integer (RFC 4506 §4.5).
    #[inline]
    pub fn u64(&mut self, v: u64) {
        self.buf.put_slice(&v.to_be_bytes());
    }

    /// Hyper integer (RFC 4506 §4.5).
    #[inline]
    pub fn i64(&mut self, v: i64) {
        self.buf.put_slice(&v.to_be_bytes());
    }

    /// Boolean (RFC 4506 §4.4).
    #[inline]
    pub fn bool(&mut self, v: bool) {
        self.u32(u32::from(v));
    }

    /// Bytes that are XDR already: no length, no padding. Their length must be a multiple of four.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        debug_assert_eq!(encoded.len() % 4, 0, "XDR items are multiples of four bytes");
        self.buf.put_slice(encoded);
    }

    /// As [`Self::raw`], without a copy when it is large.
    pub fn raw_bytes(&mut self, encoded: Bytes) {
        debug_assert_eq!(encoded.len() % 4, 0, "XDR items are multiples of four bytes");
        self.splice_or_copy(encoded);
    }

    /// Opaque data of fixed length (RFC 4506 §4.9).
    #[inline]
    pub fn fixed(&mut self, data: &[u8]) {
        self.buf.put_slice(data);
        self.pad(data.len());
    }

    /// Variable-length opaque data (RFC 4506 §4.10), copied.
    #[inline]
    pub fn opaque(&mut self, data: &[u8]) {
        self.u32(wire_len(data.len()));
        self.fixed(data);
    }

    /// Variable-length opaque data; from [`SPLICE_THRESHOLD`] bytes on without a copy.
    #[inline]
    pub fn opaque_bytes(&mut self, data: Bytes) {
        let len = data.len();
        self.u32(wire_len(len));
        self.splice_or_copy(data);
        self.pad(len);
    }

    /// Variable-length opaque data in several pieces, as one: a READ that crosses extents. Large pieces are not
    /// copied. Returns the length of the data.
    pub fn opaque_pieces(&mut self, pieces: impl IntoIterator<Item = Bytes>) -> u32 {
        let length = self.reserve_u32();
        let before = self.len();
        for piece in pieces {
            self.splice_or_copy(piece);
        }
        let len = self.len() - before;
        self.patch_u32(length, wire_len(len));
        self.pad(len);
        wire_len(len)
    }

    #[inline]
    fn splice_or_copy(&mut self, data: Bytes) {
        if data.len() < SPLICE_THRESHOLD {
            self.buf.put_slice(&data);
        } else {
            self.spliced += data.len();
            self.splices.push((self.buf.len(), data));
        }
    }

    #[inline]
    fn pad(&mut self, len: usize) {
        self.buf.put_slice(&[0; 3][..padding(len)]);
    }

    /// Reserves a word whose value is known later, such as a record mark.
    #[inline]
    pub fn reserve_u32(&mut self) -> Patch {
        let at = self.buf.len();
        self.u32(0);
        Patch { at }
    }

    /// Fills in a reserved word. It must come from this encoder and not have been rolled back.
    #[inline]
    pub fn patch_u32(&mut self, patch: Patch, v: u32) {
        self.buf[patch.at..patch.at + 4].copy_from_slice(&v.to_be_bytes());
    }

    /// The current end, for [`Self::rollback`].
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { buf: self.buf.len(), splices: self.splices.len() }
    }

    /// Takes back everything encoded since `mark`.
    pub fn rollback(&mut self, mark: Mark) {
        assert!(
            mark.buf <= self.buf.len() && mark.splices <= self.splices.len(),
            "a mark of this encoder lies before its end"
        );
        self.buf.truncate(mark.buf);
        self.spliced -= self.splices.drain(mark.splices..).map(|(_, data)| data.len()).sum::<usize>();
    }

    /// Makes room for `additional` bytes of small fields at once.
    pub fn reserve(&mut self, additional: usize) {
        self.buf.reserve(additional);
    }

    /// Takes what was encoded and leaves the encoder empty. Its buffer is used again once the segments are dropped, so a
    /// connection keeps one encoder, made by [`Self::with_buffer`] with room for the replies of several writes.
    pub fn take(&mut self) -> Segments {
        self.spliced = 0;
        let splices = std::mem::take(&mut self.splices);
        let mut rest = self.buf.split().freeze();
        if splices.is_empty() {
            return Segments { first: rest, more: Vec::new() };
        }
        let mut all = Vec::with_capacity(2 * splices.len());
        let mut cut = 0;
        for (place, data) in splices {
            if place > cut {
                all.push(rest.split_to(place - cut));
                cut = place;
            }
            all.push(data);
        }
        if !rest.is_empty() {
            all.push(rest);
        }
        let first = all.remove(0);
        Segments { first, more: all }
    }

    /// What was encoded.
    pub fn finish(mut self) -> Segments {
        self.take()
    }

    /// What was encoded, borrowed, if it is one piece: no payload was taken in without a copy.
    #[inline]
    pub fn as_contiguous(&self) -> Option<&[u8]> {
        self.splices.is_empty().then_some(&self.buf[..])
    }

    /// Gives the buffer back, emptied, so that the next message needs no new one. What was encoded is dropped.
    pub fn into_buffer(mut self) -> BytesMut {
        self.buf.clear();
        self.buf
    }

    /// What was encoded, as one buffer; copies if there are payload segments. For datagrams, tests and small calls.
    pub fn into_bytes(self) -> Bytes {
        self.finish().into_bytes()
    }
}

fn wire_len(len: usize) -> u32 {
    u32::try_from(len).expect("no payload reaches 4 GiB: records are bounded far below")
}

/// Encoded bytes in the order of the wire. A reply without payload is a single segment and costs no `Vec`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    first: Bytes,
    more: Vec<Bytes>,
}

impl Segments {
    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.iter().all(Bytes::is_empty)
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// The segments in order.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Moves the segments to the end of an output queue.
    pub fn append_to(self, queue: &mut VecDeque<Bytes>) {
        queue.push_back(self.first);
        queue.extend(self.more);
    }

    /// One contiguous buffer; without a copy if there is one segment.
    pub fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            return self.first;
        }
        let mut all = BytesMut::with_capacity(self.len());
        for segment in self.iter() {
            all.put_slice(segment);
        }
        all.freeze()
    }
}

impl From<Bytes> for Segments {
    fn from(first: Bytes) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl IntoIterator for Segments {
    type Item = Bytes;
    type IntoIter = std::iter::Chain<std::iter::Once<Bytes>, std::vec::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.more)
    }
}

macro_rules! primitive {
    ($($t:ident),*) => { $(
        impl Encode for $t {
            #[inline]
            fn encode(&self, e: &mut Encoder) {
                e.$t(*self);
            }
        }
    )* };
}
primitive!(u32, i32, u64, i64, bool);

impl Encode for () {
    #[inline]
    fn encode(&self, _: &mut Encoder) {}
}

impl<const N: usize> Encode for [u8; N] {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        e.fixed(self);
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        (**self).encode(e);
    }
}

impl<T: Encode + ?Sized> Encode for Box<T> {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        (**self).encode(e);
    }
}

/// Optional data, `*T` (RFC 4506 §4.19).
impl<T: Encode> Encode for Option<T> {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        match self {
            Some(v) => {
                e.bool(true);
                v.encode(e);
            }
            None => e.bool(false),
        }
    }
}

/// The counterpart of the decoder's union of success (0) and failure: `E` writes its own discriminant, never 0.
impl<T: Encode, E: Encode> Encode for std::result::Result<T, E> {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        match self {
            Ok(v) => {
                e.u32(0);
                v.encode(e);
            }
            Err(v) => v.encode(e),
        }
    }
}
