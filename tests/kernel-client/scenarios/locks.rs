//! POSIX locks between two clients, over NLM and over NFSv4: conflicts, waiting, release by every way a holder can go, and the
//! promise that a restart of the server loses no lock and needs no grace period.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, Job, MNT};
use crate::lab::server::{Kind, Server};

/// For an answer that needs no waiting. The client polls a blocked lock by itself every 30 s, so that a grant
/// within this time was the server's callback.
const PROMPT: Duration = Duration::from_secs(15);
/// For a process in a client to start.
const START: Duration = Duration::from_secs(60);
/// Long enough for a wrong grant to show.
const WATCH: Duration = Duration::from_secs(2);
/// For a client to find a restarted server: it tries again after 3 s, 6 s, 12 s …
const RECONNECT: Duration = Duration::from_secs(60);

/// A process in a client that locks and unlocks as told, with the shared file open as `f`.
struct Locker {
    client: Client,
    job: Job,
}

/// Starts a process that locks as told. Its interpreter is of no concern to the server, and may take long to start in a guest.
fn start(client: &mut Client) -> Job {
    let job = client.talk("python3", include_str!("../guest/locker.py"));
    assert_eq!(client.hear(job, START).as_deref(), Some("ready"), "the locking process does not start");
    job
}

impl Locker {
    fn new(mut client: Client) -> Locker {
        let job = start(&mut client);
        let mut locker = Locker { client, job };
        locker.expect("open f /mnt/nfs/shared", "ok");
        locker
    }

    /// The client, when the process has ended.
    fn end(mut self) -> Client {
        self.client.kill(self.job);
        self.client.wait(self.job, PROMPT);
        self.client
    }

    fn expect(&mut self, command: &str, answer: &str) {
        self.expect_within(command, answer, PROMPT);
    }

    fn expect_within(&mut self, command: &str, answer: &str, limit: Duration) {
        self.client.say(self.job, command);
        assert_eq!(self.client.hear(self.job, limit).as_deref(), Some(answer), "{command}");
    }

    /// Asks for a lock that cannot be had yet.
    fn wait_for(&mut self, command: &str) {
        self.client.say(self.job, command);
        assert_eq!(self.client.hear(self.job, WATCH), None, "{command}");
    }

    /// The lock waited for has come.
    fn granted(&mut self, limit: Duration) {
        assert_eq!(
            self.client.hear(self.job, limit).as_deref(),
            Some("ok"),
            "the waiting lock is not granted"
        );
    }
}

/// For a client's boot notice to reach the server: statd repeats a lost one with growing pauses, and a direct client has
/// been seen to take two minutes, as the lockd of the client that died is still in the kernel and trying.
const NOTICE: Duration = Duration::from_secs(240);

const EX: &str = "lock f ex 0 0 try";
const EX_WAIT: &str = "lock f ex 0 0 wait";
const UNLOCK: &str = "unlock f 0 0";

#[test]
fn locks_between_two_clients() {
    scenario("locks", |client, server| client.mount(server, "mountproto=tcp"));
}

#[test]
fn locks_between_two_clients_of_v4_1() {
    scenario("locks41", |client, server| client.mount4(server, "4.1", MNT));
}

#[test]
fn locks_between_two_clients_of_v4_0_and_v4_2() {
    let lab = Arc::new(Lab::new("locks42"));
    let (mut a, mut b) = (Client::boot(&lab, 'a'), Client::boot(&lab, 'b'));
    let mut server = Server::start(&lab);
    for version in ["4.0", "4.2"] {
        a.mount4(&server, version, MNT);
        b.mount4(&server, version, MNT);
        a.sh("echo shared > /mnt/nfs/shared");
        let (mut with_a, mut with_b) = (Locker::new(a), Locker::new(b));
        conflicts(&mut with_a, &mut with_b);
        waiting(&mut with_a, &mut with_b);
        release_at_close_and_death(&mut with_a, &mut with_b);
        restart_of_the_server(&mut with_a, &mut with_b, &mut server);
        (a, b) = (with_a.end(), with_b.end());
        for client in [&mut a, &mut b] {
            client.no_complaints();
            client.sh(&format!("umount {MNT}"));
        }
    }
    server.no_complaints();
}

fn scenario(name: &str, mount: fn(&mut Client, &Server)) {
    let lab = Arc::new(Lab::new(name));
    let (mut a, mut b) = (Client::boot(&lab, 'a'), Client::boot(&lab, 'b'));
    let mut server = Server::start(&lab);
    mount(&mut a, &server);
    mount(&mut b, &server);
    a.sh("echo shared > /mnt/nfs/shared");
    let (mut a, mut b) = (Locker::new(a), Locker::new(b));

    conflicts(&mut a, &mut b);
    waiting(&mut a, &mut b);
    release_at_close_and_death(&mut a, &mut b);
    let mut a = reboot_of_a_client(&lab, &server, a, &mut b, mount);
    restart_of_the_server(&mut a, &mut b, &mut server);
    a.client.no_complaints();
    b.client.no_complaints();
}

fn conflicts(a: &mut Locker, b: &mut Locker) {
    a.expect(EX, "ok");
    b.expect(EX, "busy");
    b.expect("lock f sh 0 0 try", "busy");
    a.expect("lock f sh 0 0 try", "ok");
    b.expect("lock f sh 0 0 try", "ok");
    b.expect(EX, "busy");
    a.expect(UNLOCK, "ok");
    b.expect(UNLOCK, "ok");

    // Ranges: neighbours do not meet, and a hole made in the middle of a lock is free.
    a.expect("lock f ex 0 100 try", "ok");
    b.expect("lock f ex 100 10 try", "ok");
    b.expect("lock f ex 99 1 try", "busy");
    a.expect("unlock f 40 20", "ok");
    b.expect("lock f ex 40 20 try", "ok");
    b.expect("lock f ex 39 1 try", "busy");
    b.expect("lock f ex 60 1 try", "busy");
    a.expect("lock f ex 9223372036854775806 1 try", "ok");
    b.expect("lock f ex 9223372036854775806 1 try", "busy");
    a.expect(UNLOCK, "ok");
    b.expect(UNLOCK, "ok");
}

fn waiting(a: &mut Locker, b: &mut Locker) {
    for _ in 0..3 {
        a.expect(EX, "ok");
        b.wait_for(EX_WAIT);
        a.expect(UNLOCK, "ok");
        b.granted(PROMPT);
        a.expect(EX, "busy");
        b.expect(UNLOCK, "ok");
    }
}

fn release_at_close_and_death(a: &mut Locker, b: &mut Locker) {
    b.expect(EX, "ok");
    // POSIX: closing any descriptor of the file ends the process's locks.
    b.expect("open g /mnt/nfs/shared", "ok");
    b.expect("close g", "ok");
    a.expect(EX, "ok");
    a.expect(UNLOCK, "ok");

    let mortal = start(&mut b.client);
    b.client.say(mortal, "open f /mnt/nfs/shared");
    b.client.say(mortal, EX);
    for _ in 0..2 {
        assert_eq!(b.client.hear(mortal, PROMPT).as_deref(), Some("ok"));
    }
    a.wait_for(EX_WAIT);
    b.client.kill(mortal);
    a.granted(PROMPT);
    a.expect(UNLOCK, "ok");

    // A waiter that is killed must not get the lock later.
    a.expect(EX, "ok");
    let waiter = start(&mut b.client);
    b.client.say(waiter, "open f /mnt/nfs/shared");
    assert_eq!(b.client.hear(waiter, PROMPT).as_deref(), Some("ok"));
    b.client.say(waiter, EX_WAIT);
    assert_eq!(b.client.hear(waiter, WATCH), None);
    b.client.kill(waiter);
    b.client.wait(waiter, PROMPT);
    a.expect(UNLOCK, "ok");
    // Over version 4 it is reserved for the dead for a moment: nobody tells that they wait no more.
    a.expect(EX_WAIT, "ok");
    a.expect(UNLOCK, "ok");
}

/// Returns the client that has come back.
fn reboot_of_a_client(
    lab: &Arc<Lab>,
    server: &Server,
    mut a: Locker,
    b: &mut Locker,
    mount: fn(&mut Client, &Server),
) -> Locker {
    a.expect(EX, "ok");
    b.expect(EX, "busy");
    a.client.crash();
    // A silent client keeps its locks: NLM has no leases, and the one of version 4 is longer than this.
    b.wait_for(EX_WAIT);
    let mut again = Client::boot(lab, 'a');
    again.ready();
    // Its status monitor tells the server, which frees what the client held before; in version 4 the lease runs out.
    b.granted(NOTICE);
    mount(&mut again, server);
    let mut again = Locker::new(again);
    again.expect(EX, "busy");
    b.expect(UNLOCK, "ok");
    again.expect(EX, "ok");
    again.expect(UNLOCK, "ok");
    again
}

fn restart_of_the_server(a: &mut Locker, b: &mut Locker, server: &mut Server) {
    if server.kind() == Kind::Ganesha {
        return; // It keeps locks in memory only, and the clients take 90 s to get theirs back.
    }
    a.expect("lock f ex 0 10 try", "ok");
    server.kill();
    server.start_again();
    // Not granted at once, and not after a while.
    b.expect_within("lock f ex 0 10 try", "busy", RECONNECT);
    std::thread::sleep(WATCH);
    b.expect("lock f ex 0 10 try", "busy");
    if server.kind() == Kind::Atoll {
        // No grace period: new locks are there to be had.
        b.expect("lock f ex 20 10 try", "ok");
        b.expect("unlock f 20 10", "ok");
    }
    // The holder goes on with what it has.
    a.expect_within("lock f ex 10 10 try", "ok", RECONNECT);
    b.expect("lock f ex 15 1 try", "busy");
    a.expect(UNLOCK, "ok");
    b.expect(EX, "ok");
    b.expect(UNLOCK, "ok");

    // A lock that was waited for during the restart comes when it is free.
    a.expect(EX, "ok");
    b.wait_for(EX_WAIT);
    server.kill();
    server.start_again();
    a.expect_within(UNLOCK, "ok", RECONNECT);
    // The waiting client asks again by itself every 30 s, should it have had to.
    b.granted(RECONNECT);
    b.expect(UNLOCK, "ok");
}
