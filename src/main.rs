//! The `atoll` command.
mod data_dir;
mod export_syntax;
fn main() {}
