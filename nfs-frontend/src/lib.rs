//! The NFS frontend: protocol engines over two service traits, and the sockets in front of them.
//!
//! A frontend holds nothing that outlives it: caches, connections, and UNSTABLE data not yet flushed, whose loss the
//! write verifier tells clients.

mod bridge;
pub mod dispatch;
pub mod engine;
pub mod lock_manager;
mod pause;
pub mod portmap;
pub mod rpc;
pub mod server;
