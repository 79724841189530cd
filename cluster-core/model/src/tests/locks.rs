//! Locks: the tables in the state, their indexes, releases in steps, reboots. What a table itself does is lockd's to test.

use super::rig::{ROOT, Rig, at};
use crate::limits::{NSM_CLIENTS_MAX, RELEASE_FILES_MAX};
use crate::{Table, keys, read, store};
use atoll_base::attr::Attr;
use atoll_base::id::Ino;
use atoll_lockd::{
    ByteRange, Callback, CancelOutcome, ClientMatch, FileLocks, GrantOutcome, LockClient, LockMode,
    LockOwner, LockRequest, NlmClient, Share, ShareBits, Wait,
};
use atoll_meta::lock::{GrantedWaiter, LockOp, LockOutcome, LockTest};
use atoll_meta::{FsError, Op, Outcome, RemoveKind};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;

type Answer = Result<LockOutcome, FsError>;

fn client(host: &str, address: Option<u8>) -> NlmClient {
    let address = address.map(|n| IpAddr::from([10, 0, 0, n]));
    NlmClient::new(host.into(), address).unwrap()
}

fn owner(client: NlmClient, svid: i32) -> LockOwner {
    LockOwner::nlm(client, b"oh", svid).unwrap()
}

fn simple(host: &str) -> LockOwner {
    owner(client(host, None), 1)
}

fn range(first: u64, len: u64) -> ByteRange {
    ByteRange::finite(first, len).unwrap()
}

fn queue() -> Wait {
    Wait::Queue(Callback::new(vec![5]).unwrap())
}

impl Rig {
    fn run_lock(&mut self, op: LockOp) -> Answer {
        self.root(Op::Lock(op)).map(|outcome| match outcome {
            Outcome::Lock(outcome) => outcome,
            other => panic!("{other:?}"),
        })
    }

    fn lock_in(&mut self, file: &Attr, owner: &LockOwner, wait: Wait, client_state: i32) -> Answer {
        let request =
            LockRequest { owner: owner.clone(), range: ByteRange::WHOLE, mode: LockMode::Exclusive, wait };
        let (ino, generation) = (file.ino, file.generation);
        self.run_lock(LockOp::Lock { ino, generation, request, client_state })
    }

    fn lock(&mut self, file: &Attr, owner: &LockOwner, wait: Wait) -> Answer {
        self.lock_in(file, owner, wait, 0)
    }

    fn unlock(&mut self, file: &Attr, owner: &LockOwner) -> Answer {
        let (ino, generation) = (file.ino, file.generation);
        self.run_lock(LockOp::Unlock { ino, generation, owner: owner.clone(), range: ByteRange::WHOLE })
    }

    fn grants(&self) -> Vec<GrantedWaiter> {
        self.applied.as_ref().unwrap().touched.grants.clone()
    }

    fn pending(&self) -> Vec<GrantedWaiter> {
        read::pending_grants(&self.kv, None, 100).unwrap()
    }

    fn is_locked(&self, file: &Attr) -> bool {
        let test = LockTest {
            ino: file.ino,
            generation: file.generation,
            owner: simple("nobody"),
            range: ByteRange::WHOLE,
            mode: LockMode::Shared,
        };
        read::test_lock(&self.kv, &test).unwrap().unwrap().is_some()
    }

    fn locked_files(&mut self, owner: &LockOwner, count: usize, state: i32) -> Vec<Attr> {
        let tag = self.txn;
        let files: Vec<Attr> = (0..count).map(|i| self.file(&format!("{tag}-{i}"))).collect();
        for file in &files {
            self.lock_in(file, owner, Wait::No, state).unwrap();
        }
        files
    }
}

const GRANTED: Answer = Ok(LockOutcome::Lock(atoll_lockd::LockOutcome::Granted));

#[test]
fn a_waiter_is_granted_and_settled() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, b) = (simple("a"), simple("b"));
    assert_eq!(rig.lock(&f, &a, Wait::No), GRANTED);
    assert!(matches!(rig.lock(&f, &b, Wait::No), Ok(LockOutcome::Lock(atoll_lockd::LockOutcome::Denied(_)))));
    assert!(matches!(rig.lock(&f, &b, queue()), Ok(LockOutcome::Lock(atoll_lockd::LockOutcome::Blocked(_)))));
    rig.check();
    rig.unlock(&f, &a).unwrap();
    let [grant] = &rig.grants()[..] else { panic!() };
    assert_eq!((grant.ino, &grant.owner, grant.range), (f.ino, &b, ByteRange::WHOLE));
    assert_eq!(rig.pending(), std::slice::from_ref(grant));
    rig.check();
    let settle = |accepted| LockOp::Settle { ino: f.ino, grant: grant.grant, accepted };
    assert_eq!(rig.run_lock(settle(true)), Ok(LockOutcome::Settled(GrantOutcome::Settled)));
    assert_eq!(rig.pending(), []);
    assert_eq!(rig.run_lock(settle(false)), Ok(LockOutcome::Settled(GrantOutcome::NotPending)));
    assert!(rig.is_locked(&f));
    rig.unlock(&f, &b).unwrap();
    for table in [Table::Lock, Table::LockClient, Table::PendingGrant] {
        assert!(!store::any(&rig.kv, table).unwrap());
    }
    // A refusal gives the lock to the next.
    rig.lock(&f, &a, Wait::No).unwrap();
    rig.lock(&f, &b, queue()).unwrap();
    rig.unlock(&f, &a).unwrap();
    let grant = rig.grants()[0].grant;
    rig.run_lock(LockOp::Settle { ino: f.ino, grant, accepted: false }).unwrap();
    assert!(!rig.is_locked(&f));
    rig.check();
}

#[test]
fn cancel_share_and_unshare() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (ino, generation) = (f.ino, f.generation);
    let (a, b) = (simple("a"), simple("b"));
    let cancel = |owner: &LockOwner| LockOp::Cancel {
        ino,
        generation,
        owner: owner.clone(),
        range: ByteRange::WHOLE,
        mode: LockMode::Exclusive,
    };
    assert_eq!(rig.run_lock(cancel(&b)), Ok(LockOutcome::Cancel(CancelOutcome::NotFound)));
    rig.lock(&f, &a, Wait::No).unwrap();
    rig.lock(&f, &b, queue()).unwrap();
    assert_eq!(rig.run_lock(cancel(&b)), Ok(LockOutcome::Cancel(CancelOutcome::Cancelled)));
    rig.unlock(&f, &a).unwrap();
    let share = |owner: &LockOwner, access, deny| LockOp::Share {
        ino,
        generation,
        owner: owner.clone(),
        share: Share { access, deny },
        client_state: 0,
    };
    assert_eq!(rig.run_lock(share(&a, ShareBits::Read, ShareBits::Write)), Ok(LockOutcome::Share(Ok(()))));
    let refused = rig.run_lock(share(&b, ShareBits::Write, ShareBits::None));
    assert!(matches!(refused, Ok(LockOutcome::Share(Err(_)))));
    rig.check();
    rig.run_lock(LockOp::Unshare { ino, generation, owner: a }).unwrap();
    rig.run_lock(share(&b, ShareBits::Write, ShareBits::None)).unwrap();
    rig.check();
}

#[test]
fn locks_are_of_files_that_are_there() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let a = simple("a");
    assert_eq!(
        rig.lock(&Attr { generation: f.generation ^ 1, ..f.clone() }, &a, queue()),
        Err(FsError::Stale)
    );
    assert_eq!(rig.lock(&Attr { ino: Ino(99), ..f.clone() }, &a, queue()), Err(FsError::Stale));
    let root = rig.attr(ROOT);
    assert_eq!(rig.lock(&root, &a, queue()), Err(FsError::IsDirectory));
    // With the file go its locks, and who waits for them.
    rig.lock(&f, &a, Wait::No).unwrap();
    rig.lock(&f, &simple("b"), queue()).unwrap();
    rig.root(Op::Remove { dir: ROOT, name: "f".into(), kind: RemoveKind::Any }).unwrap();
    for table in [Table::Lock, Table::LockClient, Table::PendingGrant] {
        assert!(!store::any(&rig.kv, table).unwrap());
    }
    assert_eq!(rig.unlock(&f, &a), Err(FsError::Stale));
    rig.check();
}

#[test]
fn a_deadlock_within_a_file_is_refused() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, b) = (simple("a"), simple("b"));
    let lock = |rig: &mut Rig, owner: &LockOwner, mode, wait| {
        let request = LockRequest { owner: owner.clone(), range: range(0, 10), mode, wait };
        let (ino, generation) = (f.ino, f.generation);
        rig.run_lock(LockOp::Lock { ino, generation, request, client_state: 0 })
    };
    for owner in [&a, &b] {
        assert_eq!(lock(&mut rig, owner, LockMode::Shared, Wait::No), GRANTED);
    }
    lock(&mut rig, &a, LockMode::Exclusive, queue()).unwrap();
    assert_eq!(lock(&mut rig, &b, LockMode::Exclusive, queue()), Err(FsError::Deadlock));
    rig.check();
}

#[test]
fn a_large_release_goes_on_in_steps_and_spares_the_new_life() {
    let mut rig = Rig::new();
    let a = simple("a");
    let count = RELEASE_FILES_MAX + 7;
    let files = rig.locked_files(&a, count, 0);
    let released = rig.run_lock(LockOp::ReleaseClient(ClientMatch::NlmName(b"a".to_vec())));
    assert_eq!(released, Ok(LockOutcome::Released(RELEASE_FILES_MAX as u64)));
    assert!(read::has_work(&rig.kv).unwrap());
    rig.check();
    // The client comes back: to a new file, and to one that is still locked by its former life.
    let new = rig.locked_files(&a, 1, 0);
    let last = &files[count - 1];
    assert!(rig.is_locked(last));
    let other = owner(client("a", None), 2);
    assert_eq!(rig.lock(last, &other, Wait::No), GRANTED, "its former life holds nothing");
    rig.check();
    rig.sweep();
    let locked = |rig: &Rig| files.iter().filter(|f| rig.is_locked(f)).count();
    assert_eq!(locked(&rig), 1);
    assert!(rig.is_locked(&new[0]) && rig.is_locked(last));
    rig.check();
    // Again, and everything of both lives goes.
    rig.run_lock(LockOp::ReleaseClient(ClientMatch::Client(LockClient::Nlm(client("a", None))))).unwrap();
    rig.sweep();
    assert_eq!(locked(&rig), 0);
    assert!(!store::any(&rig.kv, Table::LockClient).unwrap());
    rig.check();
}

fn notify(name: &str, address: Option<u8>, state: i32) -> LockOp {
    let address = address.map(|n| IpAddr::from([10, 0, 0, n]));
    LockOp::ClientRebooted { name: name.to_owned().into(), address, state }
}

fn released(n: u64) -> Answer {
    Ok(LockOutcome::Released(n))
}

#[test]
fn a_notification_frees_the_former_life_once() {
    let mut rig = Rig::new();
    let a = simple("a");
    let old = rig.locked_files(&a, 1, 3);
    assert_eq!(rig.run_lock(notify("a", None, 3)), released(0), "of the reboot before the locks");
    assert_eq!(rig.run_lock(notify("b", None, 5)), released(0));
    assert_eq!(rig.run_lock(notify("a", None, 5)), released(1));
    assert!(!rig.is_locked(&old[0]));
    // Late and repeated ones leave the present life alone, with or without a number in its requests.
    for state in [5, 0] {
        let new = rig.locked_files(&a, 1, state);
        for late in [5, 3, -1] {
            assert_eq!(rig.run_lock(notify("a", None, late)), released(0));
        }
        assert!(rig.is_locked(&new[0]));
    }
    rig.check();
}

#[test]
fn a_request_of_a_new_life_frees_the_former_too() {
    let mut rig = Rig::new();
    let a = simple("a");
    let old = rig.locked_files(&a, 1, 3);
    let waiting = simple("w");
    rig.lock(&old[0], &waiting, queue()).unwrap();
    let f = rig.file("f");
    rig.lock_in(&f, &a, Wait::No, 5).unwrap();
    assert_eq!(rig.grants().len(), 1, "who waited for the old life has the lock");
    assert_eq!(rig.run_lock(notify("a", None, 5)), released(0));
    assert!(rig.is_locked(&f));
    // Numbers wrap.
    let mut last = i32::MAX;
    rig.lock_in(&f, &a, Wait::No, last).unwrap();
    last = last.wrapping_add(2);
    assert_eq!(rig.run_lock(notify("a", None, last)), released(1));
    rig.check();
}

#[test]
fn whom_a_notification_concerns() {
    let mut rig = Rig::new();
    let files = [("a", Some(1)), ("a", Some(2)), ("b", Some(1)), ("a", None)]
        .map(|(host, address)| rig.locked_files(&owner(client(host, address), 1), 1, 1).remove(0));
    let locked = |rig: &Rig| files.each_ref().map(|f| rig.is_locked(f));
    // By address those that have one, whatever their name; by name the others.
    assert_eq!(rig.run_lock(notify("a", Some(1), 3)), released(3));
    assert_eq!(locked(&rig), [false, true, false, false]);
    assert_eq!(rig.run_lock(notify("a", None, 5)), released(1));
    assert_eq!(locked(&rig), [false; 4]);
    rig.check();
    let v4 = LockOwner::v4(7, b"o".to_vec()).unwrap();
    rig.lock(&files[0], &v4, Wait::No).unwrap();
    rig.run_lock(LockOp::ReleaseClient(ClientMatch::NlmName(Vec::new()))).unwrap();
    assert!(rig.is_locked(&files[0]));
    // What it has goes with its states.
    assert_eq!(rig.run_lock(LockOp::ReleaseClient(ClientMatch::Client(LockClient::V4(7)))), released(0));
    assert!(rig.is_locked(&files[0]));
}

#[test]
fn remembered_states_are_bounded() {
    let mut rig = Rig::new();
    let hosts: Vec<LockOwner> = (0..NSM_CLIENTS_MAX + 2).map(|i| simple(&format!("h{i}"))).collect();
    for host in &hosts {
        let file = rig.locked_files(host, 1, 1).remove(0);
        rig.unlock(&file, host).unwrap();
    }
    rig.check();
    let known = |rig: &Rig, host: &LockOwner| {
        store::has(&rig.kv, Table::NsmState, &keys::client(host.client())).unwrap()
    };
    assert_eq!(hosts.iter().filter(|h| known(&rig, h)).count() as u64, NSM_CLIENTS_MAX);
    // Those that hold something stay; then there is no room, and locks are had all the same.
    let kept: Vec<_> = hosts.iter().filter(|h| known(&rig, h)).cloned().collect();
    for host in &kept {
        rig.locked_files(host, 1, 1);
    }
    let more = simple("more");
    rig.locked_files(&more, 1, 1);
    assert!(kept.iter().all(|h| known(&rig, h)) && !known(&rig, &more));
    rig.check();
}

/// One random lock operation of one of a few owners in one of a few files.
#[derive(Clone, Debug)]
enum Do {
    Lock { file: u8, who: u8, first: u64, len: u64, exclusive: bool, wait: bool },
    Unlock { file: u8, who: u8, first: u64, len: u64 },
    Share { file: u8, who: u8, access: u32, deny: u32 },
    Settle { which: u8, accepted: bool },
    Release { who: u8 },
    Remove { file: u8 },
}

fn act() -> impl Strategy<Value = Do> {
    let place = || (0..4_u8, 0..6_u8, 0..6_u64, 1..6_u64);
    prop_oneof![
        6 => (place(), any::<bool>(), any::<bool>()).prop_map(|((file, who, first, len), exclusive, wait)| {
            Do::Lock { file, who, first, len, exclusive, wait }
        }),
        3 => place().prop_map(|(file, who, first, len)| Do::Unlock { file, who, first, len }),
        1 => (0..4_u8, 0..6_u8, 0..4_u32, 0..4_u32)
            .prop_map(|(file, who, access, deny)| Do::Share { file, who, access, deny }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, accepted)| Do::Settle { which, accepted }),
        1 => (0..6_u8).prop_map(|who| Do::Release { who }),
        1 => (0..4_u8).prop_map(|file| Do::Remove { file }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The state's tables are those that lockd alone makes of the same calls, whatever is stored and loaded between.
    #[test]
    fn tables_are_lockds(acts in prop::collection::vec(act(), 1..60)) {
        let mut rig = Rig::new();
        let mut files: Vec<Attr> = (0..4).map(|i| rig.file(&i.to_string())).collect();
        let mut tables: BTreeMap<Ino, FileLocks> = BTreeMap::new();
        let who = |n: u8| owner(client(["a", "b"][n as usize % 2], [None, Some(1)][n as usize / 2 % 2]), i32::from(n));
        for act in acts {
            let mut effects = Vec::new();
            // The number of the transaction that comes next.
            let txn = rig.txn + 10;
            rig.clock += 1_000_000_000;
            let now = at(rig.clock).secs;
            let table = |tables: &mut BTreeMap<Ino, FileLocks>, file: &Attr| {
                tables.remove(&file.ino).unwrap_or_else(|| FileLocks::new(txn)).at(now)
            };
            match act {
                Do::Lock { file, who: n, first, len, exclusive, wait } => {
                    let file = files[file as usize].clone();
                    let mode = if exclusive { LockMode::Exclusive } else { LockMode::Shared };
                    let wait = if wait { queue() } else { Wait::No };
                    let request = LockRequest { owner: who(n), range: range(first, len), mode, wait };
                    let mut locks = table(&mut tables, &file);
                    let expected = locks.lock(request.clone(), &mut effects);
                    tables.insert(file.ino, locks);
                    let (ino, generation) = (file.ino, file.generation);
                    let result = rig.run_lock(LockOp::Lock { ino, generation, request, client_state: 0 });
                    prop_assert_eq!(result.ok(), expected.ok().map(LockOutcome::Lock));
                }
                Do::Unlock { file, who: n, first, len } => {
                    let file = files[file as usize].clone();
                    let mut locks = table(&mut tables, &file);
                    locks.unlock(&who(n), range(first, len), &mut effects).unwrap();
                    tables.insert(file.ino, locks);
                    let (ino, generation) = (file.ino, file.generation);
                    let op = LockOp::Unlock { ino, generation, owner: who(n), range: range(first, len) };
                    prop_assert_eq!(rig.run_lock(op), Ok(LockOutcome::Unlocked));
                }
                Do::Share { file, who: n, access, deny } => {
                    let file = files[file as usize].clone();
                    let bits = |n| ShareBits::from_wire(n).unwrap();
                    let share = Share { access: bits(access), deny: bits(deny) };
                    let mut locks = table(&mut tables, &file);
                    let expected = locks.share(who(n), share).is_ok();
                    tables.insert(file.ino, locks);
                    let (ino, generation) = (file.ino, file.generation);
                    let op = LockOp::Share { ino, generation, owner: who(n), share, client_state: 0 };
                    prop_assert_eq!(rig.run_lock(op) == Ok(LockOutcome::Share(Ok(()))), expected);
                }
                Do::Settle { which, accepted } => {
                    let pending = rig.pending();
                    if pending.is_empty() {
                        continue;
                    }
                    let GrantedWaiter { ino, grant, .. } = pending[which as usize % pending.len()].clone();
                    let mut locks = tables.remove(&ino).unwrap().at(now);
                    if accepted {
                        locks.grant_acknowledged(grant);
                    } else {
                        locks.release_grant(grant, &mut effects);
                    }
                    tables.insert(ino, locks);
                    rig.run_lock(LockOp::Settle { ino, grant, accepted }).unwrap();
                }
                Do::Release { who: n } => {
                    let client = ClientMatch::Client(who(n).client().clone());
                    for locks in tables.values_mut() {
                        *locks = locks.clone().at(now);
                        locks.release_client(&client, &mut effects);
                    }
                    rig.run_lock(LockOp::ReleaseClient(client)).unwrap();
                    // Some may be left to Sweep, whose grants are not compared one by one.
                    rig.sweep();
                    effects.clear();
                    rig.applied.as_mut().unwrap().touched.grants.clear();
                }
                Do::Remove { file: n } => {
                    let name = n.to_string();
                    let op = Op::Remove { dir: ROOT, name: name.clone().into(), kind: RemoveKind::Any };
                    rig.root(op).unwrap();
                    tables.remove(&files[n as usize].ino);
                    files[n as usize] = rig.file(&name);
                }
            }
            tables.retain(|_, locks| !locks.is_empty());
            prop_assert_eq!(rig.grants().len(), effects.len());
            for file in &files {
                let stored: Option<FileLocks> = store::get(&rig.kv, Table::Lock, &keys::ino(file.ino)).unwrap();
                prop_assert_eq!(stored, tables.get(&file.ino).map(|locks| locks.clone().at(0)));
            }
            let pending: usize = tables.values().map(|locks| locks.pending_grants().len()).sum();
            prop_assert_eq!(rig.pending().len(), pending);
            rig.check();
        }
    }
}
