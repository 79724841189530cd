//! Data between files, dirty map and block store.

mod layers;
mod read;
mod streams;
mod write;

pub(crate) use streams::Streams;
pub(crate) use write::Refusals;
