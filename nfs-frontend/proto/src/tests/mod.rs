//! Tests that span programs: every type round trips, hostile bytes cost nothing, hand-written bytes mean what the RFC
//! says.
#![allow(clippy::unwrap_used)]

mod allocations;
mod hostile;
mod registry;
mod vectors;

pub(crate) use allocations::measure;
pub(crate) use registry::{Codec, codec};

use atoll_xdr::{Decode, Decoder, Encode, Encoder};
use bytes::Bytes;

pub(crate) fn encode<T: Encode>(v: &T) -> Bytes {
    let mut e = Encoder::new();
    e.put(v);
    e.into_bytes()
}

pub(crate) fn decode<T: Decode>(bytes: &[u8]) -> atoll_xdr::Result<T> {
    let mut d = Decoder::new(Bytes::copy_from_slice(bytes));
    let v = d.decode()?;
    d.finish()?;
    Ok(v)
}

/// Bytes from hexadecimal digits; blanks are for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0);
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}
