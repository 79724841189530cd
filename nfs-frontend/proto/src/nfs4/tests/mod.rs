//! Tests of NFSv4 beside those that try every type: hand-written bytes, attributes, the reading of a COMPOUND.
#![allow(clippy::unwrap_used)]

mod attributes;
mod callbacks;
mod compounds;
mod listing;
mod opens;
mod vectors;

use atoll_xdr::{Decode, Encode};

use crate::tests::{decode, encode, hex};

/// The value is written as these bytes, and read from them.
#[track_caller]
fn both_ways<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: &T, text: &str) {
    let bytes = hex(text);
    assert_eq!(&encode(value)[..], &bytes[..], "{value:?}");
    assert_eq!(&decode::<T>(&bytes).unwrap(), value);
}

/// A stateid whose bytes are easily seen: `seqid` and then twelve times `byte`.
fn stateid(seqid: u32, byte: u8) -> super::StateId4 {
    super::StateId4 { seqid, other: [byte; 12] }
}
