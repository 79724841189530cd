//! Telling clients that they have their locks.

use super::client::{Came, Does, Machine};
use super::*;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

fn quick(machine: &Machine) -> Config {
    Config {
        portmap_port: machine.port,
        patience: Duration::from_millis(200),
        retry_first: Duration::from_millis(20),
        retry_most: Duration::from_millis(50),
        ..Config::default()
    }
}

struct Running {
    stop: DropGuard,
    task: JoinHandle<()>,
}

fn run(manager: &Arc<Manager>) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(manager.clone().run(stop.clone()));
    Running { stop: stop.drop_guard(), task }
}

impl Running {
    async fn end(self) {
        drop(self.stop);
        tokio::time::timeout(PATIENCE, self.task).await.expect("it does not stop").unwrap();
    }
}

async fn next(machine: &mut Machine) -> Came {
    tokio::time::timeout(PATIENCE, machine.came.recv()).await.expect("the client is not called").unwrap()
}

/// Waits until no grant is unsettled.
async fn settled(store: &Store) {
    let settled = async {
        while store.pending_grants() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("the grant is never settled");
}

/// `a` holds, `b` waits, and then `a` unlocks.
async fn hand_over(manager: &Manager, fh: &[u8], a: &Host, b: &Host) {
    assert_eq!(a.lock(manager, fh, 1, false).await, NlmStat::Granted);
    assert_eq!(b.lock(manager, fh, 2, true).await, NlmStat::Blocked);
    assert_eq!(a.unlock(manager, fh, 1).await, NlmStat::Granted);
}

#[tokio::test]
async fn a_client_takes_its_lock() {
    for (address, host, transport) in [
        ("127.0.0.1:0", "127.0.0.1", Transport::Tcp),
        ("127.0.0.1:0", "127.0.0.1", Transport::Udp),
        ("[::1]:0", "::1", Transport::Tcp),
        ("[::1]:0", "::1", Transport::Udp),
    ] {
        let store = Store::new();
        let mut machine = Machine::start_on(address, &[Does::Answer(NlmStat::Granted)]);
        let manager = manager(&store, quick(&machine));
        let _running = run(&manager);
        let fh = store.file("f", 1000, 0o600);
        let a = Host::new("a");
        let b = Host { address: host.parse().unwrap(), transport, ..Host::new("b") };
        hand_over(&manager, &fh, &a, &b).await;
        let Came::Granted { version, transport: by, args, reserved } = next(&mut machine).await else {
            panic!()
        };
        assert_eq!((version, by), (4, transport));
        // Tests run as root or not: a privileged server calls from a reserved port.
        let may = std::net::TcpListener::bind("127.0.0.1:1023").is_ok();
        assert!(reserved || !may, "from a reserved port where it may");
        assert_eq!((args.cookie, args.exclusive), (cookie(2), true));
        assert_eq!(args.lock, b.lock_of(&fh, 2, 0, 100));
        settled(&store).await;
        assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Denied, "it is taken");
        assert_eq!(b.unlock(&manager, &fh, 2).await, NlmStat::Granted);
        assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    }
}

#[tokio::test]
async fn each_version_is_called_in_its_own() {
    for version in [1, 3] {
        let store = Store::new();
        let mut machine = Machine::start(&[Does::Answer(NlmStat::Granted)]);
        let manager = manager(&store, quick(&machine));
        let _running = run(&manager);
        let fh = store.file("f", 1000, 0o600);
        let (a, b) = (Host::new("a"), Host::new("b"));
        assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
        let LockArgs { cookie, block, exclusive, lock, reclaim, state } = b.lock_args(&fh, 2, true);
        let lock = lock.narrow().unwrap();
        let args = LockArgs { cookie, block, exclusive, lock, reclaim, state };
        assert_eq!(stat(&manager, b.call(nlm::PROGRAM, version, 2, &args), 2).await, NlmStat::Blocked);
        assert_eq!(a.unlock(&manager, &fh, 1).await, NlmStat::Granted);
        let Came::Granted { version: by, args, .. } = next(&mut machine).await else { panic!() };
        assert_eq!((by, args.lock), (version, b.lock_of(&fh, 2, 0, 100)));
        settled(&store).await;
    }
}

#[tokio::test]
async fn a_client_that_refuses_the_first_time_gives_way_to_the_next() {
    let store = Store::new();
    let mut machine = Machine::start(&[Does::Answer(NlmStat::Denied), Does::Answer(NlmStat::Granted)]);
    let manager = manager(&store, quick(&machine));
    let _running = run(&manager);
    let fh = store.file("f", 1000, 0o600);
    let (a, b, c) = (Host::new("a"), Host::new("b"), Host::new("c"));
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    assert_eq!(b.lock(&manager, &fh, 2, true).await, NlmStat::Blocked);
    assert_eq!(c.lock(&manager, &fh, 3, true).await, NlmStat::Blocked);
    assert_eq!(a.unlock(&manager, &fh, 1).await, NlmStat::Granted);
    for name in [&b"b"[..], b"c"] {
        let Came::Granted { args, .. } = next(&mut machine).await else { panic!() };
        assert_eq!(&args.lock.caller_name[..], name);
    }
    settled(&store).await;
    assert_eq!(c.lock(&manager, &fh, 3, false).await, NlmStat::Granted, "it has it");
    assert_eq!(b.lock(&manager, &fh, 2, false).await, NlmStat::Denied);
}

#[tokio::test]
async fn a_refusal_of_a_repetition_takes_nothing_away() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let store = Store::new();
        let mut machine = Machine::start(&[Does::Nothing, Does::Answer(NlmStat::Denied)]);
        let manager = manager(&store, quick(&machine));
        let _running = run(&manager);
        let fh = store.file("f", 1000, 0o600);
        let (a, b) = (Host::new("a"), Host { transport, ..Host::new("b") });
        hand_over(&manager, &fh, &a, &b).await;
        next(&mut machine).await;
        next(&mut machine).await;
        settled(&store).await;
        assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Denied, "b keeps it");
    }
}

#[tokio::test]
async fn after_a_restart_a_refusal_takes_nothing_away() {
    let store = Store::new();
    let mut machine = Machine::start(&[]);
    let first = manager(&store, quick(&machine));
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host::new("b"));
    let running = run(&first);
    hand_over(&first, &fh, &a, &b).await;
    // Told once, the answer lost, and then the process ends.
    next(&mut machine).await;
    running.end().await;
    let second = manager(&store, quick(&machine));
    machine.will(Does::Answer(NlmStat::Denied));
    store.lose_leader();
    let _running = run(&second);
    settled(&store).await;
    assert_eq!(a.lock(&second, &fh, 1, false).await, NlmStat::Denied, "b keeps it");
}

#[tokio::test]
async fn a_client_in_its_grace_period_is_told_again() {
    let store = Store::new();
    let grace = Does::Answer(NlmStat::DeniedGracePeriod);
    let mut machine = Machine::start(&[grace, grace, Does::Answer(NlmStat::Granted)]);
    let manager = manager(&store, quick(&machine));
    let _running = run(&manager);
    let fh = store.file("f", 1000, 0o600);
    hand_over(&manager, &fh, &Host::new("a"), &Host::new("b")).await;
    for _ in 0..3 {
        next(&mut machine).await;
    }
    settled(&store).await;
}

#[tokio::test]
async fn a_client_that_is_gone_loses_its_lock_after_a_while() {
    let store = Store::new();
    let machine = Machine::start(&[]);
    let config = Config { give_up: Duration::from_millis(200), ..quick(&machine) };
    let manager = manager(&store, config);
    drop(machine);
    let _running = run(&manager);
    let fh = store.file("f", 1000, 0o600);
    let a = Host::new("a");
    // An address on which nothing listens.
    let b = Host { address: "127.0.0.9".parse().unwrap(), ..Host::new("b") };
    hand_over(&manager, &fh, &a, &b).await;
    settled(&store).await;
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
}

#[tokio::test]
async fn a_client_that_may_have_taken_it_keeps_it() {
    let store = Store::new();
    let mut machine = Machine::start(&[]);
    let config = Config { give_up: Duration::from_millis(500), ..quick(&machine) };
    let manager = manager(&store, config);
    let _running = run(&manager);
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host::new("b"));
    hand_over(&manager, &fh, &a, &b).await;
    next(&mut machine).await;
    settled(&store).await;
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Denied);
}

#[tokio::test]
async fn a_cancelled_request_is_not_granted() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host::new("b"));
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    assert_eq!(b.lock(&manager, &fh, 2, true).await, NlmStat::Blocked);
    assert_eq!(b.cancel(&manager, &fh, 2).await, NlmStat::Granted);
    assert_eq!(b.cancel(&manager, &fh, 2).await, NlmStat::Granted, "nothing waits");
    assert_eq!(a.unlock(&manager, &fh, 1).await, NlmStat::Granted);
    assert_eq!(store.pending_grants(), 0);
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
}

#[tokio::test]
async fn messages_are_answered_by_calls() {
    let store = Store::new();
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut machine = Machine::start(&[]);
        let manager = manager(&store, quick(&machine));
        let fh = store.file(&format!("{transport:?}"), 1000, 0o600);
        let (a, b) = (Host { transport, ..Host::new("a") }, Host { transport, ..Host::new("b") });
        for (host, process, expected) in [(&a, 1, NlmStat::Granted), (&b, 2, NlmStat::Denied)] {
            let args = host.lock_args(&fh, process, false);
            results::<()>(&manager, host.call(nlm::PROGRAM, 4, 7, &args)).await;
            let Came::Results { procedure, res } = next(&mut machine).await else { panic!() };
            assert_eq!((procedure, res), (12, StatRes { cookie: cookie(process), stat: expected }));
        }
    }
}
