<<<<<<< HEAD
//! The Raft group: openraft behind one module, the log it appends to, the state machine it feeds.

pub mod group;
pub mod in_process;
pub mod log_store;
pub mod state_machine;
=======
//! Raft: the types of the group, and the log in openraft's terms. Nothing outside this module knows openraft.

pub mod log_store;
>>>>>>> refs/heads/wal
pub mod types;
