//! The Raft group: openraft behind one module, the log it appends to, the state machine it feeds.

pub mod group;
pub mod in_process;
pub mod log_store;
pub mod state_machine;
pub mod types;

#[cfg(test)]
mod tests;
