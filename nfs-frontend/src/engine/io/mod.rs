//! Data between files, dirty map and block store.

mod layers;
mod read;
mod seek;
mod streams;
mod write;

pub(crate) use read::Contents;
pub(crate) use seek::Looked;
pub(crate) use streams::Streams;
pub(crate) use write::Refusals;
