//! The vocabulary every other crate shares: identifiers, attributes, credentials, time, the disk trait
//! and the block service trait. No dependency of ours, no tokio, no clock read but [`time::SystemClock`].

pub mod access;
pub mod acl;
pub mod attr;
pub mod block;
pub mod checksum;
pub mod clock_cache;
pub mod disk;
pub mod id;
pub mod label;
pub mod leave;
pub mod limits;
pub mod panic;
pub mod seldom;
pub mod time;
