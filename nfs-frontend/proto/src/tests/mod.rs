//! Tests of the wire types.
#![allow(clippy::unwrap_used)]
