//! The metadata service on a local member of the Raft group.

mod clock_cache;
mod machine;
mod proposer;
mod published;

pub use clock_cache::CacheStatus;
pub use proposer::{Limits, ProposerStatus};
pub use published::CacheSizes;
