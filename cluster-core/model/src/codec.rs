//! How commands, responses and records become bytes: one byte of format version, then postcard.
//!
//! What is read back is what this program (or an earlier release of it) wrote, over a log or a store with checksums of
//! its own; still nothing here trusts it: a wrong version, a truncated value or bytes left over are errors.

use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The format written today, and the only one so far.
pub const FORMAT: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are none.
    #[error("no bytes")]
    Empty,
    /// A format this release does not know.
    #[error("unknown format version {0}")]
    Version(u8),
    /// The body is damaged or of another type.
    #[error("undecodable: {0}")]
    Body(String),
    /// More bytes than the value has.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

/// The bytes of a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    encode_sized(value, 0)
}

/// Longest value that needs no memory of its own while it is written: nearly all rows but those of outcomes.
const SHORT: usize = 512;

/// Calls `f` with the bytes of a value.
pub(crate) fn encoded<T: Serialize + ?Sized, R>(value: &T, f: impl FnOnce(&[u8]) -> R) -> R {
    let mut short = [0; SHORT];
    short[0] = FORMAT;
    match postcard::to_slice(value, &mut short[1..]).map(|body| 1 + body.len()) {
        Ok(len) => f(&short[..len]),
        // It is longer.
        Err(_) => f(&encode_sized(value, 2 * SHORT)),
    }
}

/// The bytes of a value, of which about `size` are expected: a vector that grows copies them again and again.
pub(crate) fn encode_sized<T: Serialize + ?Sized>(value: &T, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size.max(64));
    bytes.push(FORMAT);
    match postcard::to_extend(value, bytes) {
        Ok(bytes) => bytes,
        // The types have no maps of unknown length and no fallible Serialize; a Vec does not run full.
        Err(e) => panic!("a value of {} cannot be encoded: {e}", std::any::type_name::<T>()),
    }
}

/// Appends the bytes of a value to others.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    bytes.push(FORMAT);
    match postcard::to_extend(value, std::mem::take(bytes)) {
        Ok(longer) => *bytes = longer,
        // As for `encode`.
        Err(e) => panic!("a value of {} cannot be encoded: {e}", std::any::type_name::<T>()),
    }
}

/// The value of bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = take(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(rest.len())) }
}

/// What the bytes of a value begin with: `T` has the first fields of the value's type.
pub(crate) fn decode_head<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    Ok(take(bytes)?.0)
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != FORMAT {
        return Err(DecodeError::Version(version));
    }
    postcard::take_from_bytes(body).map_err(|e| DecodeError::Body(e.to_string()))
}

/// Bytes in the head of a value that nobody looks at.
pub(crate) struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Skip;

        impl Visitor<'_> for Skip {
            type Value = Skipped;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, _bytes: &[u8]) -> Result<Skipped, E> {
                Ok(Skipped)
            }
        }

        from.deserialize_bytes(Skip)
    }
}
