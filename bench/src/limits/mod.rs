//! What the machine allows: the network without a file system, the log without a network, the disk without either.

pub mod append;
pub mod reply_server;
pub mod streaming;
