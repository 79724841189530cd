//! The server is killed and started again under clients of NFSv4.0, 4.1 and 4.2 that hold opens and locks and go on
//! changing files: no error, the same client and session, nothing reclaimed, and nobody else gets what they hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::lab::client::{Client, Job};
use crate::lab::server::{Kind, Server};
use crate::lab::{Lab, long};

const LIMIT: Duration = Duration::from_secs(300);
const VERSIONS: [&str; 3] = ["4.0", "4.1", "4.2"];

/// Operations by which a client would take up or reclaim what a server has lost.
const RECOVERY: [&str; 7] = [
    "SETCLIENTID",
    "SETCLIENTID_CONFIRM",
    "EXCHANGE_ID",
    "CREATE_SESSION",
    "DESTROY_SESSION",
    "RECLAIM_COMPLETE",
    "TEST_STATEID",
];

fn at(version: &str) -> String {
    format!("/mnt/v{version}")
}

fn recovery(client: &mut Client) -> Vec<HashMap<String, u64>> {
    let counts = VERSIONS.map(|version| {
        let mut all = client.operations(&at(version));
        assert!(all.contains_key("OPEN"), "no counters for {version}: {all:?}");
        all.retain(|name, _| RECOVERY.contains(&name.as_str()));
        all
    });
    counts.into()
}

/// Hears until every writer has done so many rounds more.
fn go_on(client: &mut Client, writers: &[Job], done: &mut [u64], rounds: u64) {
    for (writer, done) in writers.iter().zip(done) {
        let target = *done + rounds;
        while *done < target {
            let line = client.hear(*writer, LIMIT).expect("the writer goes on");
            *done = line.parse().unwrap_or_else(|_| panic!("{line}"));
        }
    }
}

#[test]
fn killed_server_keeps_opens_and_locks() {
    let lab = Arc::new(Lab::new("restart4"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    let mut writers = Vec::new();
    for version in VERSIONS {
        client.mount4(&server, version, &at(version));
        writers.push(client.talk("python3", &WRITER.replace("DIR", &format!("{}/{version}", at(version)))));
    }
    let mut done = [0; VERSIONS.len()];
    go_on(&mut client, &writers, &mut done, 10);
    let before = recovery(&mut client);
    for round in 0..if long() { 50 } else { 6 } {
        std::thread::sleep(Duration::from_millis(round * 37 % 100));
        server.kill();
        if round == 3 {
            // Longer than the lease: the server's own downtime expires nobody.
            std::thread::sleep(Duration::from_secs(15));
        }
        server.start_again();
        // What a client holds is not to be had by another one: each version's mount is a client of its own.
        if server.kind() == Kind::Atoll {
            for (holder, other) in [("4.0", "4.1"), ("4.1", "4.2"), ("4.2", "4.0")] {
                let thief = THIEF.replace("PATH", &format!("{}/{holder}/held", at(other)));
                assert_eq!(client.python(&thief, LIMIT), "busy\nshared\n", "the lock of {holder}");
            }
        }
        go_on(&mut client, &writers, &mut done, 8);
    }
    if server.kind() == Kind::Atoll {
        assert_eq!(recovery(&mut client), before, "a client has taken something up again");
    }
    for (writer, version) in writers.into_iter().zip(VERSIONS) {
        client.say(writer, "stop");
        let ended = client.wait(writer, LIMIT);
        assert_eq!(ended.status, 0, "{version}: the writer met an error: {}", ended.err);
        print!("{version}: {}", ended.err);
    }
    client.no_complaints();
}

/// Holds files open and parts of one locked, and changes files meanwhile. Every step must succeed, exactly once.
const WRITER: &str = r#"
import fcntl, os, sys, threading, time

stop = threading.Event()
threading.Thread(target=lambda: (os.read(0, 1), stop.set()), daemon=True).start()
os.mkdir("DIR")
os.chdir("DIR")
held = open("held", "w+b", buffering=0)
fcntl.lockf(held, fcntl.LOCK_EX, 100, 0)
fcntl.lockf(held, fcntl.LOCK_SH, 100, 500)
open_files = [open(f"open-{i}", "w+b", buffering=0) for i in range(10)]
log = open("log", "w+b", buffering=0)
n = 0
longest = 0
while not stop.is_set():
    begin = time.monotonic()
    log.write(f"{n}\n".encode())
    os.fsync(log.fileno())
    f = open_files[n % 10]
    f.seek(0)
    f.write(f"{n:08}".encode())
    os.fsync(f.fileno())
    fd = os.open(f"new-{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.write(fd, b"data")
    os.close(fd)
    os.rename(f"new-{n}", f"kept-{n}")
    if n:
        os.unlink(f"kept-{n - 1}")
    fcntl.lockf(held, fcntl.LOCK_EX, 10, 1000 + n % 7)
    fcntl.lockf(held, fcntl.LOCK_UN, 10, 1000 + n % 7)
    longest = max(longest, time.monotonic() - begin)
    n += 1
    print(n)
log.seek(0)
assert log.read() == "".join(f"{i}\n" for i in range(n)).encode(), "log"
for i, f in enumerate(open_files):
    f.seek(0)
    last = max(k for k in range(n) if k % 10 == i)
    assert f.read() == f"{last:08}".encode(), i
print(f"{n} rounds, the longest took {longest:.1f} s", file=sys.stderr)
"#;

/// Tries for what the writer holds.
const THIEF: &str = r#"
import fcntl
f = open("PATH", "r+b")
for start in (0, 500):
    try:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)
        print("stolen")
    except OSError:
        if start == 0:
            print("busy")
        else:
            fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, start)
            print("shared")
"#;
