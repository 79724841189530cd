//! The replicated state machine: a pure function from state and command to state and response.
//!
//! No clock, no randomness, no I/O, no iteration in hash order: every member that applies the same log holds the same bytes.

pub mod command;
pub mod kv;
