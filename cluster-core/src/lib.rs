//! Raft group, log, replicated state and the metadata service.
