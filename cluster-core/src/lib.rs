//! Raft group, log, replicated state and the metadata service.

pub mod log;
pub mod raft;
pub mod service;
pub mod state;
