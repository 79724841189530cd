//! One file per scenario.

mod acls;
mod build;
mod coherence;
mod copies;
mod delegations;
mod features;
mod fsx;
mod labels;
mod locks;
mod mount;
mod namespace;
mod pjdfstest;
mod readdir;
mod restart;
mod restart4;
mod tree;
mod unlinked;
