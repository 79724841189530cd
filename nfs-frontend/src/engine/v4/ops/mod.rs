//! The operations, a file per family. Each returns its result, or how the COMPOUND ends.

mod clients;
mod copies;
mod delegations;
mod fill;
mod handles;
mod io;
mod listing;
mod locks;
mod names;
mod objects;
mod open;
mod opens;
mod ranges;
mod secinfo;
mod sessions;
mod stateids;
pub(crate) mod xattrs;

pub(crate) use locks::failure;
pub(crate) use sessions::Opened;
pub(crate) use stateids::wire_stateid;
