//! Benchmark of Atoll beside its peers: a closed-loop load generator for NFSv3, a small client, workloads, servers to
//! run them against, limits of the machine, and the report.
//!
//! [`client`] and [`load`] are of use to tests of a server too; the rest serves the `atoll-bench` command.

pub mod client;
pub mod histogram;
pub mod limits;
pub mod load;
pub mod workload;
pub mod xid;
