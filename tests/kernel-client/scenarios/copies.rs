//! `copy_file_range` of a file in more pieces than one command copies: the client lets the server go on in the background and waits for CB_OFFLOAD, also over the
//! server's death.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::Client;
use crate::lab::server::{Kind, Server};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn a_fragmented_file_is_copied_in_the_background() {
    let lab = Arc::new(Lab::new("copies"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    client.mount4(&server, "4.2", "/mnt/nfs");
    let copier = client.talk("python3", COPIER);
    client.say(copier, "make");
    let size = client.hear(copier, LIMIT).expect("the source is made");
    for round in 0..4 {
        let before = client.operations("/mnt/nfs")["COPY"];
        client.say(copier, &format!("copy copy-{round}"));
        if round > 0 && server.kind() == Kind::Atoll {
            std::thread::sleep(Duration::from_millis(60 * round));
            server.kill();
            server.start_again();
        }
        let parts = client.hear(copier, LIMIT).expect("it is copied");
        if server.kind() == Kind::Atoll && round == 0 {
            // Nobody could have copied it in one command.
            assert_eq!(parts, size);
            assert_eq!(client.operations("/mnt/nfs")["COPY"], before + 1);
        }
        // A COPY that meets a server that has just started may come before there is a way to call back, and is answered with a part.
        println!("round {round}: {parts}");
        let sum: u64 = parts.split(' ').map(|part| part.parse::<u64>().expect(&parts)).sum();
        assert_eq!(sum.to_string(), size);
        client.sh(&format!("cmp /mnt/nfs/source /mnt/nfs/copy-{round} && rm /mnt/nfs/copy-{round}"));
    }
    if server.kind() == Kind::Atoll {
        server.stop();
        let data = server.data().to_string_lossy().into_owned();
        let done = lab.run(&[env!("CARGO_BIN_EXE_atoll"), "fsck", &data], LIMIT);
        assert_eq!(done.status, 0, "{}{}", done.out, done.err);
        server.start_again();
    }
    client.no_complaints();
}

/// Makes a file of bytes that stand alone, by cloning parts of it, and copies it.
const COPIER: &str = r#"
import fcntl, os, struct, sys
FICLONERANGE = 0x4020940d
STRIDE, BYTES, PARTS = 8192, 4096, 8
PART = STRIDE * BYTES
os.chdir("/mnt/nfs")
for line in sys.stdin:
    verb, *rest = line.split()
    try:
        if verb == "make":
            part = os.open("part", os.O_CREAT | os.O_RDWR)
            for n in range(BYTES):
                os.pwrite(part, bytes([n % 251 + 1]), n * STRIDE)
            os.ftruncate(part, PART)
            os.fsync(part)
            source = os.open("source", os.O_CREAT | os.O_RDWR)
            for n in range(PARTS):
                fcntl.ioctl(source, FICLONERANGE, struct.pack("qQQQ", part, 0, PART, n * PART))
                os.pwrite(source, bytes([n + 1]), (n + 1) * PART - 1)
                os.fsync(source)
            print(PART * PARTS, flush=True)
        elif verb == "copy":
            target = os.open(rest[0], os.O_CREAT | os.O_RDWR)
            done = []
            while (left := PART * PARTS - sum(done)) > 0:
                done.append(os.copy_file_range(source, target, left, sum(done), sum(done)))
            os.close(target)
            print(*done, flush=True)
    except OSError as e:
        print(f"error {e}", flush=True)
"#;
