//! The Raft group: openraft behind one module, the log it appends to, the state machine it feeds.

mod executor;
pub mod group;
pub mod in_process;
pub mod log_store;
mod runtime;
pub mod state_machine;
mod thread;
pub mod types;
mod watch;

#[cfg(test)]
mod tests;
