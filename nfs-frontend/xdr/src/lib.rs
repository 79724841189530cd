//! XDR (RFC 4506): bounded decoding from [`bytes::Bytes`], encoding into segments.
//!
//! Decoding never copies an opaque payload: it is a slice that shares the received buffer. Every variable length has
//! a bound in its type, checked before anything is allocated, so hostile bytes end in an [`Error`] and in nothing
//! else. Encoding gathers small fields in one buffer and keeps large payloads as segments of their own, so a reply
//! leaves by one vectored write.
//!
//! Wire types are declared with [`xdr_struct!`], [`xdr_enum!`] and [`xdr_union!`], which follow the language of
//! RFC 4506 §6 closely enough to be read beside a `.x` file.

mod decode;
mod encode;
mod error;
mod macros;
#[cfg(any(test, feature = "sample"))]
mod sample;
#[cfg(test)]
mod tests;
mod types;

pub use decode::{Decode, Decoder};
pub use encode::{Encode, Encoder, Mark, Patch, SPLICE_THRESHOLD, Segments};
pub use error::Error;
#[cfg(any(test, feature = "sample"))]
pub use sample::{Entropy, Sample};
pub use types::{Array, List, Opaque, padding};

/// Result of decoding.
pub type Result<T, E = Error> = std::result::Result<T, E>;
