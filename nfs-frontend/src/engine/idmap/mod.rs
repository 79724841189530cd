//! Facts from outside of the cluster: addresses of host names, groups of users.

mod cache;
mod system;

pub(crate) use cache::Cache;
pub use system::SystemResolver;
