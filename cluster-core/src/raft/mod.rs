//! The Raft group: openraft behind one module, the log it appends to, the state machine it feeds.

pub mod state_machine;
pub mod types;
