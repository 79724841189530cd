//! The `atoll` command.
mod data_dir;
mod export_syntax;
mod import;
fn main() {}
