//! A node as a whole: maintenance, import, checks, the process, full disks, large directories.

#![allow(clippy::unwrap_used, missing_docs)]

mod checks;
mod collector;
mod full;
mod import;
mod listing;
mod nfs;
mod process;
mod repacker;
mod rig;
mod states;
