//! Atoll as a program: the wiring of its parts, the command line, the admin API, maintenance.

mod admin;
pub mod cli;
pub mod data_dir;
mod export;
pub mod export_syntax;
mod fsck;
pub mod import;
mod import_command;
mod logging;
pub mod maintenance;
pub mod mount_hints;
pub mod node;
mod scrub;
pub mod serve;
pub mod service;
mod states;
mod status;
mod volume;
