//! The `atoll` command: serves a directory over NFS, and tends it.

fn main() -> std::process::ExitCode {
    atoll::cli::main()
}
