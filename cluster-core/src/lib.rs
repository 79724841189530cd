//! Raft group, log, replicated state and the metadata service.
//!
//! The way of a change: [`service::LocalMetadata`] encodes a call with the leader's time; the proposer gathers what waits into
//! one entry; openraft ([`raft`]) hands it to the log ([`log`]), where one thread at a time writes and syncs for all; committed, it
//! is applied by the model to the state in memory ([`state`]), published to readers, and answered.
//!
//! What is durable: the log is. What was written to the state is in memory, and caught up from the log after a crash; it is
//! flushed to the state's file about every second, when much has gathered, and before the log is purged. So a change costs
//! one sync, of the log.
//!
//! Who reads what: readers share an immutable view of the state and small caches that are exactly in step with it. On a
//! sole voter a read takes no lock but its cache shard's, or a table's in memory while it looks a key up, and is ready at the
//! first poll.

pub mod log;
pub mod raft;
pub mod service;
pub mod state;
mod waiting;
