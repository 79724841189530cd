//! Benchmark of Atoll beside its peers: a closed-loop load generator for NFSv3, a small client, workloads, servers to
//! run them against, limits of the machine, and the report.
//!
//! [`client`] and [`load`] are of use to tests of a server too; the rest serves the `atoll-bench` command.

pub mod bed;
pub mod client;
pub mod histogram;
pub mod limits;
pub mod load;
pub mod machine;
pub mod peer;
pub mod report;
pub mod runner;
pub mod scale;
pub mod workload;
pub mod xid;
