//! Requests and their answers.

use super::store::read_only;
use super::*;
use atoll_proto::nlm::{
    Notify, Share, ShareAccess, ShareArgs, ShareMode, ShareRes, TestAnswer, TestArgs, TestReply,
};
use atoll_proto::nsm::{self, MonArgs, MonId, MonitorResult, MyId, SmStatRes, StateChange};

#[tokio::test]
async fn lock_test_unlock_in_each_version() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let (a, b) = (Host::new("a"), Host::new("b"));
    for version in [1, 3, 4] {
        let fh = store.file(&format!("f{version}"), 1000, 0o600);
        let narrow = version != 4;
        let lock = |host: &Host, procedure, process| {
            let args = host.lock_args(&fh, process, false);
            if narrow {
                let LockArgs { cookie, block, exclusive, lock, reclaim, state } = args;
                let lock = lock.narrow().unwrap();
                let args = LockArgs { cookie, block, exclusive, lock, reclaim, state };
                host.call(nlm::PROGRAM, version, procedure, &args)
            } else {
                host.call(nlm::PROGRAM, version, procedure, &args)
            }
        };
        assert_eq!(stat(&manager, lock(&a, 2, 7), 7).await, NlmStat::Granted);
        assert_eq!(stat(&manager, lock(&a, 2, 7), 7).await, NlmStat::Granted, "again, by its owner");
        assert_eq!(stat(&manager, lock(&b, 2, 7), 7).await, NlmStat::Denied);
        assert_eq!(stat(&manager, lock(&a, 2, 8), 8).await, NlmStat::Denied, "another process");
        let test = TestArgs { cookie: cookie(7), exclusive: false, lock: b.lock_of(&fh, 7, 50, 0) };
        if narrow {
            let lock = test.lock.narrow().unwrap();
            let test = TestArgs { cookie: test.cookie, exclusive: test.exclusive, lock };
            let answer: TestAnswer<u32> = results(&manager, b.call(nlm::PROGRAM, version, 1, &test)).await;
            let TestReply::Denied(holder) = answer.reply else { panic!("{answer:?}") };
            assert_eq!((holder.svid, holder.offset, holder.len, holder.exclusive), (7, 0, 100, true));
            assert_eq!(&holder.oh[..], b"7@a");
        } else {
            let answer: TestAnswer<u64> = results(&manager, b.call(nlm::PROGRAM, 4, 1, &test)).await;
            assert_eq!(answer.cookie, cookie(7));
            let TestReply::Denied(holder) = answer.reply else { panic!("{answer:?}") };
            assert_eq!((holder.svid, holder.offset, holder.len, holder.exclusive), (7, 0, 100, true));
            assert_eq!(a.unlock(&manager, &fh, 7).await, NlmStat::Granted);
            assert_eq!(a.unlock(&manager, &fh, 7).await, NlmStat::Granted, "what is not locked");
            let answer: TestAnswer<u64> = results(&manager, b.call(nlm::PROGRAM, 4, 1, &test)).await;
            assert_eq!(answer.reply, TestReply::Granted);
        }
    }
}

#[tokio::test]
async fn a_retransmission_changes_nothing() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host::new("b"));
    let call = || {
        let mut call = a.call(nlm::PROGRAM, 4, 2, &a.lock_args(&fh, 1, false));
        call.xid = 0x7777_0001;
        call
    };
    assert_eq!(stat(&manager, call(), 1).await, NlmStat::Granted);
    assert_eq!(a.unlock(&manager, &fh, 1).await, NlmStat::Granted);
    // The delayed duplicate gets its first answer, and the lock is not taken again.
    let mut late = call();
    late.peer.set_port(801);
    assert_eq!(stat(&manager, late, 1).await, NlmStat::Granted);
    assert_eq!(b.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
}

/// A server that has lost nothing gives each request one answer, however the file fares between the request and its retransmission.
#[tokio::test]
async fn a_retransmission_is_answered_as_before_when_the_file_is_gone_or_forbidden() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let (a, b) = (Host::new("a"), Host { uid: 2000, ..Host::new("b") });
    let share = |fh: &[u8]| {
        let share = Share {
            caller_name: Opaque::copy_from(a.name.as_bytes()).unwrap(),
            fh: NetObj::copy_from(fh).unwrap(),
            oh: NetObj::from_static(b"owner"),
            mode: ShareMode::DenyNone,
            access: ShareAccess::Read,
        };
        ShareArgs { cookie: cookie(1), share, reclaim: false }
    };
    for gone in [true, false] {
        let fh = store.file("f", 1, 0o644);
        let held = store.file("held", 1, 0o644);
        assert_eq!(b.lock(&manager, &held, 1, false).await, NlmStat::Granted);
        let range = |fh: &[u8]| a.lock_of(fh, 1, 0, 100);
        let cancel = CancelArgs { cookie: cookie(1), block: true, exclusive: true, lock: range(&fh) };
        let unlock = UnlockArgs { cookie: cookie(1), lock: range(&fh) };
        let calls = [
            a.call(nlm::PROGRAM, 4, 2, &a.lock_args(&fh, 1, false)),
            a.call(nlm::PROGRAM, 4, 2, &a.lock_args(&held, 1, false)),
            a.call(nlm::PROGRAM, 4, 2, &a.lock_args(&held, 1, true)),
            a.call(nlm::PROGRAM, 4, 3, &cancel),
            a.call(nlm::PROGRAM, 4, 4, &unlock),
            a.call(nlm::PROGRAM, 4, 20, &share(&fh)),
            a.call(nlm::PROGRAM, 4, 21, &share(&fh)),
        ];
        let again = |call: &RpcCall| RpcCall { args: call.args.clone(), ..call.without_args() };
        let mut first = Vec::new();
        for call in &calls {
            let Answer::Success(reply) = manager.nlm(again(call), Encoder::new()).await else { panic!() };
            first.push(reply.into_bytes());
        }
        for name in ["f", "held"] {
            if gone { store.remove(name) } else { store.forbid(name) }
        }
        for (call, first) in calls.into_iter().zip(first) {
            let procedure = call.procedure;
            let Answer::Success(reply) = manager.nlm(call, Encoder::new()).await else { panic!() };
            assert_eq!(reply.into_bytes(), first, "procedure {procedure}");
        }
        let refused = if gone { NlmStat::StaleFh } else { NlmStat::Failed };
        assert_eq!(a.lock(&manager, &fh, 1, false).await, refused, "a new request");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_now_is_tried_again_and_then_put_off() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let a = Host::new("a");
    let before = store.executed();
    store.delay_next(2);
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    assert_eq!(store.executed() - before, 3);
    store.delay_next(usize::MAX);
    assert_eq!(a.lock(&manager, &fh, 1, false).await, NlmStat::DeniedGracePeriod);
    let notify = Notify { name: Opaque::from_static(b"a"), state: 0 };
    let answer = manager.nlm(a.call(nlm::PROGRAM, 4, 23, &notify), Encoder::new()).await;
    assert!(matches!(answer, Answer::Drop));
}

#[tokio::test]
async fn who_may_lock() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let private = store.file("private", 1000, 0o000);
    let readable = store.file("readable", 0, 0o644);
    let (owner, other) = (Host::new("a"), Host { uid: 2000, ..Host::new("b") });
    assert_eq!(owner.lock(&manager, &private, 1, false).await, NlmStat::Granted, "the owner always");
    assert_eq!(other.lock(&manager, &private, 1, false).await, NlmStat::Failed);
    // An exclusive lock takes no more than reading, as with knfsd.
    assert_eq!(other.lock(&manager, &readable, 1, false).await, NlmStat::Granted);
    // On a read-only export.
    let fixed = read_only(readable.clone());
    assert_eq!(other.lock(&manager, &fixed, 2, false).await, NlmStat::RoFs);
    let mut shared = other.lock_args(&fixed, 1, false);
    shared.exclusive = false;
    assert_eq!(stat(&manager, other.call(nlm::PROGRAM, 4, 2, &shared), 1).await, NlmStat::Granted);
    // Handles that are none.
    let mut stale = readable.clone();
    stale[11] ^= 1;
    assert_eq!(owner.lock(&manager, &stale, 1, false).await, NlmStat::StaleFh);
    assert_eq!(owner.lock(&manager, b"handle", 1, false).await, NlmStat::Failed);
    // Version 3 has no words for these.
    let args = owner.lock_args(&stale, 1, false);
    let lock = args.lock.narrow().unwrap();
    let args =
        LockArgs { cookie: args.cookie, block: false, exclusive: true, lock, reclaim: false, state: 0 };
    let call = owner.call(nlm::PROGRAM, 3, 2, &args);
    assert_eq!(stat(&manager, call, 1).await, NlmStat::DeniedNoLocks);
}

#[tokio::test]
async fn ranges_beyond_64_bits() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let a = Host::new("a");
    let mut args = a.lock_args(&fh, 1, false);
    args.lock = a.lock_of(&fh, 1, u64::MAX, 2);
    assert_eq!(stat(&manager, a.call(nlm::PROGRAM, 4, 2, &args), 1).await, NlmStat::FBig);
}

#[tokio::test]
async fn clients_are_told_apart_by_name_and_address() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let here = Host::new("localhost");
    let there = Host { address: "127.0.0.2".parse().unwrap(), ..here.clone() };
    assert_eq!(here.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    assert_eq!(there.lock(&manager, &fh, 1, false).await, NlmStat::Denied, "the same name and process");
    let mapped = Host { address: "::ffff:127.0.0.1".parse().unwrap(), ..here.clone() };
    assert_eq!(mapped.lock(&manager, &fh, 1, false).await, NlmStat::Granted, "the same client");
}

#[tokio::test]
async fn shares() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host::new("b"));
    let call = |host: &Host, version, procedure, mode, access| {
        let share = Share {
            caller_name: Opaque::copy_from(host.name.as_bytes()).unwrap(),
            fh: NetObj::copy_from(&fh).unwrap(),
            oh: NetObj::from_static(b"owner"),
            mode,
            access,
        };
        let args = ShareArgs { cookie: cookie(1), share, reclaim: false };
        host.call(nlm::PROGRAM, version, procedure, &args)
    };
    let share = async |host: &Host, version, procedure, mode, access| {
        let res: ShareRes = results(&manager, call(host, version, procedure, mode, access)).await;
        assert_eq!((res.cookie, res.sequence), (cookie(1), 0));
        res.stat
    };
    use ShareAccess::{Read, Write};
    use ShareMode::{DenyNone, DenyWrite};
    assert_eq!(share(&a, 3, 20, DenyWrite, Read).await, NlmStat::Granted);
    assert_eq!(share(&b, 4, 20, DenyNone, Write).await, NlmStat::Denied);
    assert_eq!(share(&b, 4, 20, DenyNone, Read).await, NlmStat::Granted);
    assert_eq!(share(&a, 4, 21, DenyWrite, Read).await, NlmStat::Granted);
    assert_eq!(share(&b, 3, 20, DenyNone, Write).await, NlmStat::Granted);
    // Not in version 1; and what is no number of a procedure is in none.
    for (version, procedure) in [(1, 20), (1, 22), (1, 23), (4, 16), (3, 24), (4, u32::MAX)] {
        let answer = manager.nlm(call(&a, version, procedure, DenyNone, Read), Encoder::new()).await;
        assert!(matches!(answer, Answer::ProcedureUnavailable), "{version} {procedure}");
    }
}

#[tokio::test]
async fn the_other_procedures() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host::new("b"));
    for version in [1, 3, 4] {
        results::<()>(&manager, a.call(nlm::PROGRAM, version, 0, &())).await;
    }
    // A lock without monitoring, and FREE_ALL by the client that has it.
    let args = a.lock_args(&fh, 1, false);
    assert_eq!(stat(&manager, a.call(nlm::PROGRAM, 4, 22, &args), 1).await, NlmStat::Granted);
    let free = |name: &'static [u8]| Notify { name: Opaque::from_static(name), state: 0 };
    results::<()>(&manager, b.call(nlm::PROGRAM, 4, 23, &free(b"b"))).await;
    assert_eq!(b.lock(&manager, &fh, 1, false).await, NlmStat::Denied);
    results::<()>(&manager, a.call(nlm::PROGRAM, 4, 23, &free(b"a"))).await;
    assert_eq!(b.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    // We wait for no grant.
    let granted = TestArgs { cookie: cookie(1), exclusive: true, lock: a.lock_of(&fh, 1, 0, 0) };
    assert_eq!(stat(&manager, a.call(nlm::PROGRAM, 4, 5, &granted), 1).await, NlmStat::Denied);
    // Answers to messages that were never sent.
    let res = StatRes { cookie: cookie(1), stat: NlmStat::Granted };
    results::<()>(&manager, a.call(nlm::PROGRAM, 4, 15, &res)).await;
    // Arguments that end too soon.
    for procedure in (1..=10).chain(20..=23) {
        let answer = manager.nlm(a.call(nlm::PROGRAM, 4, procedure, &1u32), Encoder::new()).await;
        assert!(matches!(answer, Answer::GarbageArgs), "{procedure}");
    }
}

#[tokio::test]
async fn a_client_that_rebooted_has_no_locks() {
    let store = Store::new();
    let manager = manager(&store, Config::default());
    let fh = store.file("f", 1000, 0o600);
    let (a, b) = (Host::new("a"), Host { address: "127.0.0.2".parse().unwrap(), ..Host::new("b") });
    let locked = async |state| {
        let mut args = a.lock_args(&fh, 1, false);
        args.state = state;
        stat(&manager, a.call(nlm::PROGRAM, 4, 2, &args), 1).await
    };
    let notify = async |host: &Host, state| {
        let change = StateChange { mon_name: Opaque::from_static(b"a.example"), state };
        results::<()>(&manager, host.call(nsm::PROGRAM, 1, 6, &change)).await;
    };
    assert_eq!(locked(3).await, NlmStat::Granted);
    notify(&b, 5).await;
    assert_eq!(b.lock(&manager, &fh, 1, false).await, NlmStat::Denied, "not by another host's word");
    notify(&a, 5).await;
    assert_eq!(b.lock(&manager, &fh, 1, false).await, NlmStat::Granted);
    assert_eq!(b.unlock(&manager, &fh, 1).await, NlmStat::Granted);
    // In its present life; the notification comes again.
    assert_eq!(locked(5).await, NlmStat::Granted);
    notify(&a, 5).await;
    assert_eq!(b.lock(&manager, &fh, 1, false).await, NlmStat::Denied);
}

#[tokio::test]
async fn status_monitor() {
    let store = Store::new();
    let manager = manager(&store, Config { nsm_state: 77, ..Config::default() });
    let (local, remote) = (Host::new("a"), Host { address: "192.0.2.1".parse().unwrap(), ..Host::new("b") });
    let my_id = MyId { my_name: Opaque::from_static(b"a"), my_prog: 1, my_vers: 2, my_proc: 3 };
    let mon_id = MonId { mon_name: Opaque::from_static(b"b"), my_id };
    let mon = MonArgs { mon_id, private: [0; 16] };
    let res: SmStatRes = results(&manager, local.call(nsm::PROGRAM, 1, 2, &mon)).await;
    assert_eq!((res.result, res.state), (MonitorResult::Failed, 77));
    results::<()>(&manager, local.call(nsm::PROGRAM, 1, 5, &())).await;
    let answer = manager.nsm(remote.call(nsm::PROGRAM, 1, 5, &()), Encoder::new()).await;
    assert!(matches!(answer, Answer::AuthError(_)));
    let answer = manager.nsm(local.call(nsm::PROGRAM, 1, 7, &()), Encoder::new()).await;
    assert!(matches!(answer, Answer::ProcedureUnavailable));
    let answer = manager.nsm(local.call(nsm::PROGRAM, 1, 6, &7u32), Encoder::new()).await;
    assert!(matches!(answer, Answer::GarbageArgs));
}
