//! Facts from outside of the cluster: addresses of host names, users and groups.

mod cache;
mod principals;
mod system;

pub(crate) use cache::Cache;
pub(crate) use principals::{Kind, Meant, Principals, Shown};
pub use system::SystemResolver;
