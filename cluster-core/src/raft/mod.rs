//! Raft: the types of the group and the log in openraft's terms.
