//! The backchannel of a session, and locks that are offered over it.

use super::backclient::{BACK, Client, root};
use super::world::World;
use crate::server::reverse::Reverse;
use atoll_base::access::Cred;
use atoll_meta::lock::LockOp;
use atoll_meta::{Call, Op};
use atoll_proto::nfs4::callback::CbOpNum4;
use atoll_proto::nfs4::{DirFromClient4, DirFromServer4, NfsStat4, open_result, seq_status};
use std::time::Duration;

fn settle(world: &World) {
    for waiter in world.meta.grants() {
        let op = LockOp::Settle { ino: waiter.ino, grant: waiter.grant, accepted: false };
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::Lock(op) };
        world.meta.apply(call).result.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_becomes_free_is_offered_and_taken() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let mut c = Client::new(&world, "c", 0).await;
    let (file, open_a, flags) = a.open(root(&world), "f").await;
    assert!(flags & open_result::MAY_NOTIFY_LOCK != 0);
    let (_, open_b, _) = b.open(root(&world), "f").await;
    let (_, open_c, flags) = c.open(root(&world), "f").await;
    assert!(flags & open_result::MAY_NOTIFY_LOCK == 0, "it has no backchannel");
    let held = a.lock(file, open_a, true).await.unwrap();
    assert_eq!(c.lock(file, open_c, true).await, None);
    assert_eq!(b.lock(file, open_b, true).await, None);
    a.unlock(file, held).await;
    let grants = world.meta.grants();
    assert_eq!(grants.len(), 1, "only of who can be told");
    let both = async {
        assert_eq!(b.told().await, "l");
        assert_eq!(c.lock(file, open_c, false).await, None, "reserved");
        b.lock(file, open_b, true).await.unwrap()
    };
    let (taken, held) = tokio::join!(world.engine.offer_lock(&grants[0]), both);
    assert!(taken);
    assert_eq!(world.meta.grants(), []);
    // Another round uses the next number of the slot. Not taken in time, it is given up.
    assert_eq!(a.lock(file, open_a, true).await, None);
    b.unlock(file, held).await;
    let grants = world.meta.grants();
    let (taken, _) = tokio::join!(world.engine.offer_lock(&grants[0]), a.told());
    assert!(!taken);
    settle(&world);
    c.lock(file, open_c, false).await.unwrap();
    assert_eq!((a.flags, b.flags, c.flags), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_callback_is_sent_again_over_another_connection_with_its_slot_and_number() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let (file, open_a, _) = a.open(root(&world), "f").await;
    let (_, open_b, _) = b.open(root(&world), "f").await;
    let held = a.lock(file, open_a, false).await.unwrap();
    assert_eq!(b.lock(file, open_b, true).await, None);
    a.unlock(file, held).await;
    let grants = world.meta.grants();
    let rebinds = async {
        let first = b.called().await;
        b.connection = None;
        while b.flags == 0 {
            tokio::task::yield_now().await;
            b.ask(Vec::new()).await;
        }
        assert_eq!(b.flags, seq_status::CB_PATH_DOWN | seq_status::CB_PATH_DOWN_SESSION);
        b.connection = Some(Reverse::new());
        assert_eq!(b.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
        let again = b.called().await;
        assert_eq!(again.args, first.args);
        b.answer(&again, Err(NfsStat4::Delay), Ok(()));
        let later = b.called().await;
        assert_eq!(later.args, first.args);
        b.answer(&later, Ok(()), Err(NfsStat4::RetryUncachedRep));
        b.lock(file, open_b, true).await.unwrap();
        assert_eq!(b.flags, 0);
    };
    let (taken, ()) = tokio::join!(world.engine.offer_lock(&grants[0]), rebinds);
    assert!(taken);
    // One that does not take callbacks loses its turn at once.
    let called = b.lock(file, open_b, true).await.unwrap();
    assert_eq!(a.lock(file, open_a, true).await, None);
    b.unlock(file, called).await;
    let grants = world.meta.grants();
    let refuses = async {
        let called = a.called().await;
        a.answer(&called, Ok(()), Err(NfsStat4::NotSupp));
    };
    let begin = tokio::time::Instant::now();
    let (taken, ()) = tokio::join!(world.engine.offer_lock(&grants[0]), refuses);
    assert!(!taken);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_a_start_the_client_binds_again_and_slots_are_found() {
    let mut world = World::new().await;
    world.create(world.root, "f").await;
    // The states of both clients outlive the frontend.
    let (saved, file) = {
        let mut a = Client::new(&world, "a", BACK).await;
        let mut b = Client::new(&world, "b", BACK).await;
        let (file, open_a, _) = a.open(root(&world), "f").await;
        let (_, open_b, _) = b.open(root(&world), "f").await;
        let mut held = a.lock(file, open_a, false).await.unwrap();
        for _ in 0..2 {
            assert_eq!(b.lock(file, open_b, true).await, None);
            a.unlock(file, held).await;
            let grants = world.meta.grants();
            let (taken, held_b) = tokio::join!(world.engine.offer_lock(&grants[0]), async {
                b.told().await;
                b.lock(file, open_b, true).await.unwrap()
            });
            assert!(taken);
            b.unlock(file, held_b).await;
            held = a.lock(file, open_a, false).await.unwrap();
        }
        assert_eq!(b.lock(file, open_b, true).await, None);
        a.unlock(file, held).await;
        assert_eq!(b.slots, [2, 0, 0, 0]);
        ((b.session, b.seqid, b.slots, open_b), file)
    };
    world.crash().await;
    let (session, seqid, slots, open) = saved;
    let mut b =
        Client { world: &world, connection: Some(Reverse::new()), session, seqid, slots, flags: 0, minor: 1 };
    let grants = world.meta.grants();
    assert_eq!(grants.len(), 1, "the reservation outlives the frontend");
    let (taken, ()) = tokio::join!(world.engine.offer_lock(&grants[0]), async {
        b.ask(Vec::new()).await;
        assert_eq!(b.flags, seq_status::CB_PATH_DOWN | seq_status::CB_PATH_DOWN_SESSION);
        assert_eq!(b.bind(DirFromClient4::BackOrBoth).await, Ok(DirFromServer4::Both));
        assert_eq!(b.told().await, "l");
        assert_eq!(b.slots, [2, 0, 0, 2], "asked alone first");
        b.lock(file, open, true).await.unwrap();
    });
    assert!(taken);
    assert_eq!(b.flags, 0);
    assert_eq!(b.bind(DirFromClient4::Back).await, Ok(DirFromServer4::Back));
    assert_eq!(b.bind(DirFromClient4::Fore).await, Ok(DirFromServer4::Fore));
    b.connection = None;
    assert_eq!(b.bind(DirFromClient4::Back).await, Err(NfsStat4::Inval));
}

#[tokio::test(start_paused = true)]
async fn without_slots_the_backchannel_is_at_fault() {
    let mut world = World::new().await;
    world.create(world.root, "f").await;
    let (session, seqid, open, file) = {
        let mut a = Client::new(&world, "a", BACK).await;
        let mut b = Client::new(&world, "b", BACK).await;
        let (file, open_a, _) = a.open(root(&world), "f").await;
        let (_, open_b, _) = b.open(root(&world), "f").await;
        let held = a.lock(file, open_a, false).await.unwrap();
        assert_eq!(b.lock(file, open_b, true).await, None);
        a.unlock(file, held).await;
        (b.session, b.seqid, open_b, file)
    };
    world.crash().await;
    let connection = Some(Reverse::new());
    let mut b = Client { world: &world, connection, session, seqid, slots: vec![100; 4], flags: 0, minor: 1 };
    assert_eq!(b.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    let grants = world.meta.grants();
    let (taken, ()) = tokio::join!(world.engine.offer_lock(&grants[0]), async {
        for slot in (0..4).rev() {
            let called = b.called().await;
            assert_eq!((called.sequence().slotid, called.args.ops.len()), (slot, 1));
            assert_eq!(called.args.ops[0].op(), CbOpNum4::Sequence);
            b.answer(&called, Err(NfsStat4::SeqMisordered), Ok(()));
        }
    });
    assert!(!taken);
    b.ask(Vec::new()).await;
    assert_eq!(b.flags, seq_status::BACKCHANNEL_FAULT);
    // It can still lock.
    settle(&world);
    b.lock(file, open, true).await.unwrap();
}
