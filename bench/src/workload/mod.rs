//! The workloads of the benchmark.

pub mod attributes;
pub mod data;
pub mod listing;
pub mod names;
pub mod raw;
pub mod small_files;
mod template;
