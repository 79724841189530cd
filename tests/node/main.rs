//! A node as a whole: maintenance, import, checks, the process, full disks.

#![allow(clippy::unwrap_used, missing_docs)]

mod checks;
mod collector;
mod full;
mod import;
mod nfs;
mod process;
mod repacker;
mod rig;
