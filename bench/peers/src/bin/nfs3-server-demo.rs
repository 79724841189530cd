//! The in-memory file system that `nfs3_server` brings along, on the address given.

use nfs3_server::memfs::{MemFs, MemFsConfig};
use nfs3_server::tcp::{NFSTcp, NFSTcpListener};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: nfs3-server-demo ADDR:PORT")?;
    let fs = MemFs::new(MemFsConfig::default()).map_err(|status| format!("{status:?}"))?;
    let listener = NFSTcpListener::bind(&address, fs).await?;
    println!("ready nfs={address}");
    listener.handle_forever().await?;
    Ok(())
}
