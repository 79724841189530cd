//! Data between files, dirty map and block store.

mod layers;
mod read;
mod write;

pub(crate) use write::Refusals;
