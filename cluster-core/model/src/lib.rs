//! The replicated state machine: a pure function from state and command to state and response.
//!
//! No clock, no randomness, no I/O, no iteration in hash order: every member that applies the same log holds the same bytes.
//!
//! - [`Model`] applies [`Command`]s to a [`kv::KvWrite`];
//! - [`read`] answers every question about the state from a [`kv::KvRead`];
//! - [`check`] finds what is wrong with a state;
//! - [`keys`] tabulates how the state is laid out, [`limits`] what bounds it.

pub mod check;
pub mod codec;
pub mod command;
mod extent;
mod extents;
pub mod keys;
pub mod kv;
pub mod limits;
pub mod model;
mod once;
mod ops;
pub mod read;
pub mod record;
mod store;
pub mod transaction;

pub use codec::DecodeError;
pub use command::{Command, decode_response, encode_response};
pub use kv::{KvError, KvRead, KvWrite, MemKv, Table};
pub use model::{Applied, Model};
pub use once::OnceIndex;
pub use transaction::Touched;

#[cfg(test)]
mod tests;
