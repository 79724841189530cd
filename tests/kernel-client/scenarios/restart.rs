//! The server is killed and started again while a client writes: the client's programs see no error, and nothing
//! that was acknowledged is lost.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};
use crate::lab::{Lab, long};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn killed_server_loses_nothing() {
    let lab = Arc::new(Lab::new("restart"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    client.mount(&server, "mountproto=tcp,nolock");
    let exactly_once = if server.kind() == Kind::Atoll { "True" } else { "False" };
    let writer = client.talk("python3", &WRITER.replace("EXACTLY_ONCE", exactly_once));
    let mut acknowledged = 0;
    for round in 0..if long() { 50 } else { 8 } {
        // At least twenty more files are safe, then a moment that differs from round to round.
        let target = acknowledged + 20;
        while acknowledged < target {
            let line = client.hear(writer, LIMIT).expect("the writer goes on");
            acknowledged = line.parse().unwrap_or_else(|_| panic!("{line}"));
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 100));
        server.kill();
        server.start_again();
    }
    let target = acknowledged + 20;
    while acknowledged < target {
        acknowledged = client.hear(writer, LIMIT).expect("the writer goes on").parse().unwrap();
    }
    client.say(writer, "stop");
    let ended = client.wait(writer, LIMIT);
    assert_eq!(ended.status, 0, "the writer met an error: {}", ended.err);

    // From a new mount, so that nothing comes from the client's cache, and after one more restart.
    client.sh_within(&format!("umount {MNT}"), LIMIT);
    server.kill();
    server.start_again();
    client.mount(&server, "mountproto=tcp,nolock");
    let checked: u64 = client.python(CHECKER, LIMIT).trim().parse().unwrap();
    println!("{checked} files survived");
    assert!(checked >= acknowledged);
    client.no_complaints();
}

/// Each round: an exclusive create, data with fsync, a rename over an older name, a removal. Every step must
/// succeed exactly once, whether or not its reply was lost in a restart; the peers keep replies in memory only, and
/// from them a second execution's error is put up with. Prints the number of files that are safe.
const WRITER: &str = r#"
import os, threading

def once(step, *args):
    try:
        return step(*args)
    except (FileExistsError, FileNotFoundError):
        if EXACTLY_ONCE:
            raise
        if step is os.open:
            return os.open(args[0], os.O_WRONLY)

stop = threading.Event()
threading.Thread(target=lambda: (os.read(0, 1), stop.set()), daemon=True).start()
os.mkdir("/mnt/nfs/safe")
os.chdir("/mnt/nfs/safe")
log = open("/mnt/nfs/safe/log", "ab", buffering=0)
n = 0
while not stop.is_set():
    fd = once(os.open, f"new-{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    data = f"file {n}\n".encode() * (n % 50 * 40 + 1)
    assert os.write(fd, data) == len(data)
    os.fsync(fd)
    os.close(fd)
    once(os.rename, f"new-{n}", f"kept-{n}")
    once(os.link, f"kept-{n}", f"link-{n}")
    if n:
        once(os.unlink, f"link-{n - 1}")
    once(os.mkdir, f"folder-{n}")
    once(os.rmdir, f"folder-{n}")
    assert log.write(f"{n}\n".encode())
    os.fsync(log.fileno())
    n += 1
    with open("/tmp/acknowledged", "w") as f:
        f.write(str(n))
    print(n)
"#;

/// Prints how many files are there, whole.
const CHECKER: &str = r#"
import os
n = int(open("/tmp/acknowledged").read())
os.chdir("/mnt/nfs/safe")
for i in range(n):
    data = open(f"kept-{i}", "rb").read()
    assert data == f"file {i}\n".encode() * (i % 50 * 40 + 1), f"kept-{i}: {len(data)} bytes"
assert open("log").read() == "".join(f"{i}\n" for i in range(n)), "log"
left = sorted(x for x in os.listdir(".") if not x.startswith("kept-"))
assert left == [f"link-{n - 1}", "log"], left
assert os.stat(f"link-{n - 1}").st_nlink == 2 and os.stat("kept-0").st_nlink == 1
print(n)
"#;
