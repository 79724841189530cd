//! A directory that one client lists while another creates and removes in it: every entry that stays is listed
//! exactly once, every time.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::client::Client;
use crate::lab::server::Server;
use crate::lab::{Lab, long};

const ENTRIES: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn listing_while_the_directory_changes() {
    let lab = Arc::new(Lab::new("readdir"));
    let (mut a, mut b) = (Client::boot(&lab, 'a'), Client::boot(&lab, 'b'));
    let server = Server::start(&lab);
    a.mount(&server, "mountproto=tcp,nolock");
    b.mount(&server, "mountproto=tcp,nolock");
    a.sh("mkdir /mnt/nfs/big");
    // Half of the entries by each client, and some to be removed between the ones that stay.
    let fill = |from: u32, to: u32| {
        format!(
            "import os\nfor i in range({from}, {to}):\n    \
             os.mknod(f'/mnt/nfs/big/stay-{{i:05}}')\n    \
             if i % 20 == 0: os.mknod(f'/mnt/nfs/big/old-{{i:05}}')\n"
        )
    };
    let halves = [a.start("python3", &fill(0, ENTRIES / 2)), b.start("python3", &fill(ENTRIES / 2, ENTRIES))];
    a.succeed(halves[0], LIMIT);
    b.succeed(halves[1], LIMIT);

    let churn = b.talk("python3", CHURN);
    assert_eq!(b.hear(churn, LIMIT).as_deref(), Some("started"));
    let rounds = if long() { 100 } else { 15 };
    a.python(&LISTER.replace("ENTRIES", &ENTRIES.to_string()).replace("ROUNDS", &rounds.to_string()), LIMIT);
    b.say(churn, "stop");
    let changes: u32 = b.hear(churn, LIMIT).unwrap().parse().unwrap();
    a.no_complaints();
    b.no_complaints();
    println!("{changes} entries came or went during {rounds} listings");
    // Whether the test tests anything; how fast a busy machine is does not matter.
    assert!(changes > 5 * rounds, "the directory hardly changed while it was listed: {changes} changes");
}

/// Creates and removes, with names that are used once, until told to stop; old entries go one by one.
const CHURN: &str = r#"
import glob, os, threading
stop = threading.Event()
threading.Thread(target=lambda: (os.read(0, 1), stop.set()), daemon=True).start()
old = sorted(glob.glob("/mnt/nfs/big/old-*"))
print("started")
n = changes = 0
while not stop.is_set():
    n += 1
    os.mknod(f"/mnt/nfs/big/new-{n}")
    changes += 1
    if n > 10:
        os.unlink(f"/mnt/nfs/big/new-{n - 10}")
        changes += 1
    if n % 3 == 0 and old:
        os.unlink(old.pop(n * 7919 % len(old)))
        changes += 1
print(changes)
"#;

/// Lists again and again and compares.
const LISTER: &str = r#"
import collections, os, sys
stay = {f"stay-{i:05}" for i in range(ENTRIES)}
for round in range(ROUNDS):
    names = collections.Counter(os.listdir("/mnt/nfs/big"))
    missed = stay - names.keys()
    twice = [n for n, count in names.items() if count > 1]
    strange = [n for n in names if not n.startswith(("stay-", "old-", "new-"))]
    if missed or twice or strange:
        sys.exit(f"listing {round}: {len(missed)} missed {sorted(missed)[:5]}, "
                 f"{len(twice)} repeated {twice[:5]}, strange {strange[:5]}")
"#;
