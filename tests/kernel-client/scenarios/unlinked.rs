//! A file that loses its name while programs have it open: removed by the same client, removed and replaced by another.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, Job};
use crate::lab::server::{Kind, Server};

const LIMIT: Duration = Duration::from_secs(60);
const VERSIONS: [&str; 3] = ["4.0", "4.1", "4.2"];

fn step(client: &mut Client, job: Job, command: &str, answer: &str) {
    client.say(job, command);
    assert_eq!(client.hear(job, LIMIT).as_deref(), Some(answer), "{command}");
}

/// Each version's mount is a client of its own for the server, and has what it does seen by the next.
#[test]
fn removed_files_stay_while_they_are_open() {
    let lab = Arc::new(Lab::new("unlinked"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    for version in VERSIONS {
        client.mount4(&server, version, &format!("/mnt/v{version}"));
    }
    for (version, other) in [("4.0", "4.1"), ("4.1", "4.2"), ("4.2", "4.0")] {
        let (here, there) = (format!("/mnt/v{version}"), format!("/mnt/v{other}"));
        let holder = client.talk("python3", HOLDER);
        for name in ["own", "removed", "replaced"] {
            step(&mut client, holder, &format!("open {name} {here}/{name}-{version}"), "ok");
        }
        client.sh(&format!(
            "rm {here}/own-{version} {there}/removed-{version}; echo new > {there}/new
             mv {there}/new {there}/replaced-{version}"
        ));
        for name in ["own", "removed", "replaced"] {
            step(&mut client, holder, &format!("append {name}"), "ok");
        }
        if server.kind() == Kind::Atoll {
            // They are there after a restart, too.
            server.kill();
            server.start_again();
        }
        for name in ["own", "removed", "replaced"] {
            step(&mut client, holder, &format!("append {name}"), "ok");
            step(&mut client, holder, &format!("read {name}"), "first,second,second");
            step(&mut client, holder, &format!("close {name}"), "ok");
        }
        assert_eq!(
            client.sh(&format!("cat {here}/replaced-{version}; rm {here}/replaced-{version}")),
            "new\n"
        );
    }
    if server.kind() == Kind::Atoll {
        // Nothing of them is left behind.
        server.stop();
        let data = server.data().to_string_lossy().into_owned();
        let done = lab.run(&[env!("CARGO_BIN_EXE_atoll"), "fsck", &data], LIMIT);
        assert_eq!(done.status, 0, "{}{}", done.out, done.err);
        server.start_again();
    }
    client.no_complaints();
}

/// Opens, appends, reads past the cache, closes.
const HOLDER: &str = r#"
import os, sys
files = {}
for line in sys.stdin:
    verb, name, *rest = line.split()
    answer = "ok"
    try:
        if verb == "open":
            files[name] = os.open(rest[0], os.O_CREAT | os.O_RDWR | os.O_APPEND)
            os.write(files[name], b"first")
            os.fsync(files[name])
        elif verb == "append":
            os.write(files[name], b",second")
            os.fsync(files[name])
        elif verb == "read":
            os.posix_fadvise(files[name], 0, 0, os.POSIX_FADV_DONTNEED)
            answer = os.pread(files[name], 100, 0).decode()
        elif verb == "close":
            os.close(files.pop(name))
    except OSError as e:
        answer = f"error {e}"
    print(answer, flush=True)
"#;
