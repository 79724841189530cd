//! Delegations of NFSv4 (RFC 8881 §10.4): a client that opens a file again and again does it alone, until another one needs the file; then each sees
//! what the other wrote before, whoever dies meanwhile.

use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn delegations_between_two_clients_of_v4_0() {
    scenario("deleg40", "4.0");
}

#[test]
fn delegations_between_two_clients_of_v4_1() {
    scenario("deleg41", "4.1");
}

#[test]
fn delegations_between_two_clients_of_v4_2() {
    scenario("deleg42", "4.2");
}

/// How many the server has given, asked back, and taken away since it was started.
fn counted(lab: &Lab, server: &Server) -> [u64; 3] {
    let mut command = lab.command(env!("CARGO_BIN_EXE_atoll"));
    let output = command.args(["status", "--json"]).arg(server.data()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["granted", "recalled", "revoked"].map(|what| report["delegations"][what].as_u64().unwrap())
}

fn opens(client: &mut Client) -> u64 {
    let all = client.operations(MNT);
    all.iter().filter(|(name, _)| name.starts_with("OPEN")).map(|(_, count)| count).sum()
}

fn scenario(name: &str, version: &str) {
    let lab = Arc::new(Lab::new(name));
    let (mut a, mut b) = (Client::boot(&lab, 'a'), Client::boot(&lab, 'b'));
    let mut server = Server::start(&lab);
    a.mount4(&server, version, MNT);
    b.mount4(&server, version, MNT);
    let is_atoll = server.kind() == Kind::Atoll;

    // Read again and again: the server hears of the first few times only.
    a.sh("echo one > /mnt/nfs/f; for i in 1 2 3 4; do cat /mnt/nfs/f > /dev/null; sleep 0.2; done");
    let before = opens(&mut a);
    a.sh("for i in $(seq 50); do cat /mnt/nfs/f > /dev/null; done");
    if is_atoll {
        assert_eq!(opens(&mut a) - before, 0, "opened at the server all the same");
        let [granted, _, revoked] = counted(&lab, &server);
        assert!(granted > 0 && revoked == 0);
    }

    // Another writes: the reader sees it at once.
    for i in 0..5 {
        b.sh(&format!("echo {i} > /mnt/nfs/f"));
        assert_eq!(a.sh("cat /mnt/nfs/f"), format!("{i}\n"));
    }

    // Written under a delegation: the other sees it when it opens the file, and by its size.
    a.sh("echo 1 > /mnt/nfs/g; for i in 2 3 4 5; do echo $i >> /mnt/nfs/g; sleep 0.1; done");
    assert_eq!(b.sh("stat -c %s /mnt/nfs/g; cat /mnt/nfs/g"), "10\n1\n2\n3\n4\n5\n");
    a.sh("echo 6 >> /mnt/nfs/g");
    assert_eq!(b.sh("tail -n 1 /mnt/nfs/g"), "6\n");

    // A listing does not know better.
    a.sh("for i in 1 2 3 4; do echo $i >> /mnt/nfs/listed; sleep 0.1; done");
    assert_eq!(b.sh("ls -ln /mnt/nfs | awk '$9 == \"listed\" { print $5 }'"), "8\n");

    // Names change under it. (Names are cached for some seconds, delegation or not; who changes the directory itself looks again.)
    a.sh("for i in 1 2 3; do cat /mnt/nfs/g > /dev/null; done");
    b.sh("mv /mnt/nfs/g /mnt/nfs/g2; echo new > /mnt/nfs/g");
    assert_eq!(a.sh("touch /mnt/nfs/x; cat /mnt/nfs/g"), "new\n");
    b.sh("rm /mnt/nfs/g2");

    // A copy of many files pays for none.
    let many = "mkdir /mnt/nfs/many; for i in $(seq 200); do echo $i > /mnt/nfs/many/$i; done";
    let given = counted_if(is_atoll, &lab, &server);
    a.sh_within(many, LIMIT);
    assert_eq!(counted_if(is_atoll, &lab, &server), given);

    // The server dies between recall and return, again and again.
    for i in 0..3 {
        a.sh("echo old > /mnt/nfs/k; for i in 1 2 3; do cat /mnt/nfs/k > /dev/null; done");
        let write = b.start("sh -eu", &format!("echo {i} > /mnt/nfs/k"));
        std::thread::sleep(Duration::from_millis(i * 7));
        server.kill();
        server.start_again();
        b.succeed(write, LIMIT);
        assert_eq!(a.sh_within("cat /mnt/nfs/k", LIMIT), format!("{i}\n"));
    }
    server.no_complaints();
    a.no_complaints();
    b.no_complaints();
}

fn counted_if(is_atoll: bool, lab: &Lab, server: &Server) -> Option<u64> {
    is_atoll.then(|| counted(lab, server)[0])
}
