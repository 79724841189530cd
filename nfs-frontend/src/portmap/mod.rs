//! The port mapper: telling clients where the programs are (RFC 1833).
//!
//! [`Portmap`] answers versions 2, 3 and 4 wherever the server listens. [`announce`] makes it known on the well-known
//! port: by listening there itself, or by registration with the rpcbind that does.

mod announce;
mod program;
mod rpcbind;

#[cfg(test)]
mod tests;

pub use announce::{Announcement, Config, announce};
pub use program::{Portmap, Service};
pub use rpcbind::{Registered, Registration};
