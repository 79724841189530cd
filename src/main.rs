//! The `atoll` command: serves a directory over NFS, and tends it.

/// The system's allocator gives large buffers (records of 1 MiB) back to the kernel at once and pays for fresh pages each
/// time; this one keeps them for a moment, and is cheaper for small ones that another thread frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    atoll::cli::main()
}
