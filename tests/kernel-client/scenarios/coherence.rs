//! Two clients at the same files (RFC 8881 §10.3): who opens a file sees what was written before another closed it, who has locked one what was written
//! under the lock before.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::Server;

const LIMIT: Duration = Duration::from_secs(180);

/// Lines that each client appends, and steps that each counts.
const TIMES: usize = 100;

/// Appends lines to one file and counts up in another, each under a lock. The only argument is the client's name.
const APPEND_AND_COUNT: &str = r#"
import fcntl, os, sys
name, times = NAME, TIMES
lines = os.open("/mnt/nfs/lines", os.O_RDWR | os.O_CREAT, 0o666)
count = os.open("/mnt/nfs/count", os.O_RDWR | os.O_CREAT, 0o666)
for n in range(times):
    fcntl.lockf(lines, fcntl.LOCK_EX)
    os.lseek(lines, 0, os.SEEK_END)
    os.write(lines, f"{name} {n}\n".encode())
    fcntl.lockf(lines, fcntl.LOCK_UN)
    # Only the bytes that it needs.
    fcntl.lockf(count, fcntl.LOCK_EX, 8, 0)
    seen = int.from_bytes(os.pread(count, 8, 0), "big")
    os.pwrite(count, (seen + 1).to_bytes(8, "big"), 0)
    fcntl.lockf(count, fcntl.LOCK_UN, 8, 0)
"#;

#[test]
fn two_clients_see_what_the_other_wrote() {
    let lab = Arc::new(Lab::new("coherence"));
    let (mut a, mut b) = (Client::boot(&lab, 'a'), Client::boot(&lab, 'b'));
    let server = Server::start(&lab);
    for version in ["4.0", "4.1", "4.2"] {
        a.mount4(&server, version, MNT);
        b.mount4(&server, version, MNT);
        a.sh("rm -f /mnt/nfs/*");
        closed_to_open(&mut a, &mut b);
        under_locks(&mut a, &mut b);
        for client in [&mut a, &mut b] {
            client.no_complaints();
            client.sh(&format!("umount {MNT}"));
        }
    }
    server.no_complaints();
}

fn closed_to_open(a: &mut Client, b: &mut Client) {
    for i in 0..10 {
        // Of the same length, so that only the change attribute tells.
        a.sh(&format!("echo {i}a > /mnt/nfs/f"));
        assert_eq!(b.sh("cat /mnt/nfs/f"), format!("{i}a\n"));
        b.sh(&format!("printf {i}b | dd of=/mnt/nfs/f conv=notrunc status=none"));
        assert_eq!(a.sh("cat /mnt/nfs/f"), format!("{i}b\n"));
    }
    // What is longer, shorter and longer again shows no old bytes.
    a.sh("head -c 100000 /dev/zero | tr '\\0' x > /mnt/nfs/f");
    assert_eq!(b.sh("tr -d x < /mnt/nfs/f | wc -c; stat -c %s /mnt/nfs/f"), "0\n100000\n");
    b.sh("truncate -s 10 /mnt/nfs/f; truncate -s 5000 /mnt/nfs/f");
    assert_eq!(a.sh("tr -d '\\0' < /mnt/nfs/f; echo; stat -c %s /mnt/nfs/f"), "xxxxxxxxxx\n5000\n");
}

fn under_locks(a: &mut Client, b: &mut Client) {
    let program = |name: &str| {
        APPEND_AND_COUNT.replace("NAME", &format!("{name:?}")).replace("TIMES", &TIMES.to_string())
    };
    let (job_a, job_b) = (a.start("python3", &program("a")), b.start("python3", &program("b")));
    a.succeed(job_a, LIMIT);
    b.succeed(job_b, LIMIT);
    let lines = a.sh("cat /mnt/nfs/lines");
    for name in ["a", "b"] {
        let of_it: Vec<&str> = lines.lines().filter(|line| line.starts_with(name)).collect();
        let wanted: Vec<String> = (0..TIMES).map(|n| format!("{name} {n}")).collect();
        assert_eq!(of_it, wanted);
    }
    assert_eq!(lines.lines().count(), 2 * TIMES);
    let count = b.sh("od -An -tu8 --endian=big /mnt/nfs/count");
    assert_eq!(count.trim(), (2 * TIMES).to_string());
}
