//! The metadata service on a local member of the Raft group.

mod calls;
mod file_maps;
mod local;
mod machine;
mod maintenance;
mod open;
mod proposer;
mod published;
mod shared;
mod status;
mod telling;

pub use local::LocalMetadata;
pub use machine::MetaMachine;
pub use maintenance::MaintenanceOptions;
pub use open::{
    FORMAT, OnProgress, OpenError, Options, Progress, SYNC_FORMAT, SYNC_META_DIR, open, open_member,
};
pub use proposer::{Limits, ProposerStatus};
pub use published::{CacheSizes, CachesStatus};
pub use status::MetadataStatus;

#[cfg(test)]
mod tests;
