//! The file system exerciser `fsx`: random reads, writes, truncates and maps of one file, each read compared with
//! what was written. Fixed seeds, so that a failure can be repeated.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::lab::client::{Client, MNT};
use crate::lab::server::Server;
use crate::lab::{Lab, long, tools_dir};

/// Weights for both forms: what any file system must do, and closing and opening again, which over NFS means
/// flushing and asking whether the cache is still good.
const COMMON: &str = "close_open = 3\nread = 10\nwrite = 10\ntruncate = 5\nfsync = 1\nfdatasync = 1\n\
                      invalidate = 1\nsendfile = 3\nposix_fadvise = 2\ncopy_file_range = 2\n";

#[test]
fn fsx() {
    let (lab, mut client) = client("fsx");
    let server = Server::start(&lab);
    client.mount(&server, "mountproto=tcp,nolock");
    if long() { exercise(&mut client, 100_000, 1..=10) } else { exercise(&mut client, 10_000, 1..=2) }
}

#[test]
fn fsx_v4() {
    let (lab, mut client) = client("fsx4");
    let server = Server::start(&lab);
    for (version, seed) in [("4.0", 3), ("4.1", 4), ("4.2", 5)] {
        client.mount4(&server, version, MNT);
        if long() {
            exercise(&mut client, 100_000, seed..=seed + 10);
        } else {
            exercise(&mut client, 2_000, seed..=seed);
        }
        client.sh(&format!("umount {MNT}"));
    }
}

fn client(name: &str) -> (Arc<Lab>, Client) {
    assert!(tools_dir().join("bin/fsx").exists(), "no fsx: run .ci/setup-client.sh");
    let lab = Arc::new(Lab::new(name));
    let client = Client::boot(&lab, 'a');
    (lab, client)
}

/// So many operations with each seed, in both forms.
fn exercise(client: &mut Client, operations: u32, seeds: RangeInclusive<u32>) {
    for (form, weights) in
        [("read-write", "mapread = 0\nmapwrite = 0\n"), ("mapped", "mapread = 10\nmapwrite = 10\n")]
    {
        for seed in seeds.clone() {
            // Files of 1 MiB with operations up to 128 KiB; small pages and odd offsets come from the random sizes.
            client.sh_within(
                &format!(
                    "printf 'flen = 1048576\\n[opsize]\\nmax = 131072\\n[weights]\\n' > /tmp/fsx.toml\n\
                     printf '%s' '{COMMON}{weights}' >> /tmp/fsx.toml\n\
                     fsx -q -N {operations} -S {seed} -f /tmp/fsx.toml -P /tmp /mnt/nfs/{form}.{seed}"
                ),
                Duration::from_secs(1800),
            );
        }
    }
    client.no_complaints();
}
