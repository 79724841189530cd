//! Raft: the types of the group, and the log in openraft's terms. Nothing outside this module knows openraft.

pub mod log_store;
pub mod types;
