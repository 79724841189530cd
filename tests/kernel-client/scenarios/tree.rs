//! A tree of 20 000 files: unpacked, listed, its contents compared after a new mount, removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::process::finish;
use crate::lab::server::Server;

const FILES: usize = 20_000;
const DIRECTORIES: usize = 200;
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn tree_of_20000_files() {
    let lab = Arc::new(Lab::new("tree"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.ready();
    generate(&lab);
    client.mount(&server, "mountproto=tcp,nolock");

    let phase = |client: &mut Client, name: &str, script: &str| {
        let start = Instant::now();
        let out = client.sh_within(script, LIMIT);
        println!("{name}: {:.1} s", start.elapsed().as_secs_f32());
        out
    };
    phase(&mut client, "unpack", "mkdir /mnt/nfs/tree; tar -xf /mnt/share/tree.tar -C /mnt/nfs/tree");
    // A new mount has nothing cached: all that follows comes from the server.
    client.sh_within(&format!("umount {MNT}"), LIMIT);
    client.mount(&server, "mountproto=tcp,nolock");
    let listed = phase(
        &mut client,
        "list",
        "cd /mnt/nfs/tree; find . -type f | wc -l; find . -mindepth 1 -type d | wc -l; ls -lR | grep -c '^-rw'",
    );
    assert_eq!(listed, format!("{FILES}\n{DIRECTORIES}\n{FILES}\n"));
    phase(
        &mut client,
        "checksum",
        "cd /mnt/nfs/tree; LC_ALL=C find . -type f -print0 | sort -z | xargs -0 sha256sum > /tmp/sums
         cmp /tmp/sums /mnt/share/tree.sums",
    );
    phase(&mut client, "remove", "cd /mnt/nfs; rm -r tree; test ! -e tree");
    client.no_complaints();
}

/// Puts `tree.tar` and `tree.sums` into the client's shared folder: files of 0 to 8 KiB, one in a thousand 300 KiB.
fn generate(lab: &Lab) {
    let program = format!(
        r#"
import hashlib, io, sys, tarfile
sums = []
with tarfile.open(sys.argv[1] + "/tree.tar", "w") as tar:
    for d in range({DIRECTORIES}):
        entry = tarfile.TarInfo(f"d{{d % 10}}{{'/sub' if d >= 10 else ''}}{{d}}" if d >= 10 else f"d{{d}}")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
        for i in range({FILES} // {DIRECTORIES}):
            n = d * ({FILES} // {DIRECTORIES}) + i
            size = 300 * 1024 if n % 1000 == 999 else n * 7919 % 8192
            data = hashlib.sha256(str(n).encode()).digest() * (size // 32 + 1)
            entry_name = f"{{entry.name}}/file{{n}}"
            file = tarfile.TarInfo(entry_name)
            file.size, file.mode = size, 0o644
            tar.addfile(file, io.BytesIO(data[:size]))
            sums.append((f"./{{entry_name}}", hashlib.sha256(data[:size]).hexdigest()))
with open(sys.argv[1] + "/tree.sums", "w") as out:
    for name, digest in sorted(sums):
        out.write(f"{{digest}}  {{name}}\n")
"#
    );
    let mut cmd = std::process::Command::new("python3");
    cmd.arg("-c").arg(program).arg(lab.dir().join("clienta"));
    let done = finish(cmd, LIMIT);
    assert_eq!(done.status, 0, "{}", done.err);
}
