//! Exactly once: a request sent again gets the bytes of its first reply.

use super::backclient::{BACK, Client, put};
use super::meta::Fault;
use super::world::{World, open_export, put_export, write_args};
use crate::engine::Config;
use crate::rpc::Answer;
use atoll_meta::export::ExportSpec;
use atoll_meta::{FsError, Op};
use atoll_proto::nfs3::{
    Create3Args, CreateHow3, Link3Args, MkDir3Args, MkNod3Args, MkNodData3, Path3, Remove3Args, Rename3Args,
    RmDir3Args, Sattr3, SetAttr3Args, StableHow, SymLink3Args, SymLinkData3, call,
};
use atoll_proto::nfs4::{
    ArgOp4, Commit4Args, FileHandle, NfsStat4, Read4Args, ResOp4, StableHow4, StateId4, Write4Args,
};
use atoll_proto::nfsacl;
use atoll_proto::rpc::Procedure;
use atoll_xdr::Opaque;
use futures_util::FutureExt;
use std::time::Duration;

/// Sends a request, then something else, then the request again over another connection, and after a restart.
async fn twice<P: Procedure>(w: &mut World, args: P::Args) {
    let xid = w.next_xid();
    let first = w.bytes::<P>(xid, &args).await;
    assert_eq!(&first[..4], [0; 4], "the request succeeds");
    w.create(w.root, &format!("between-{xid}")).await;
    w.peer.set_port(w.peer.port() + 1);
    assert_eq!(w.bytes::<P>(xid, &args).await, first);
    w.crash().await;
    assert_eq!(w.bytes::<P>(xid, &args).await, first, "after a restart");
    // The export's rules may be others by now.
    put_export(&w.meta, ExportSpec { read_only: true, ..open_export() });
    assert_eq!(w.bytes::<P>(xid, &args).await, first, "what was done was done");
    put_export(&w.meta, open_export());
}

#[tokio::test]
async fn every_procedure_that_changes_something() {
    let mut w = World::new().await;
    let how = CreateHow3::Guarded(Sattr3::default());
    let args = Create3Args { at: w.at(w.root, "f"), how };
    twice::<call::Create>(&mut w, args).await;
    let file = w.lookup(w.root, "f").await.unwrap().object;
    let args = MkDir3Args { at: w.at(w.root, "d"), attributes: Sattr3::default() };
    twice::<call::MkDir>(&mut w, args).await;
    let symlink = SymLinkData3 { attributes: Sattr3::default(), data: Path3::copy_from(b"x").unwrap() };
    let args = SymLink3Args { at: w.at(w.root, "l"), symlink };
    twice::<call::SymLink>(&mut w, args).await;
    let args = MkNod3Args { at: w.at(w.root, "n"), what: MkNodData3::Fifo(Sattr3::default()) };
    twice::<call::MkNod>(&mut w, args).await;
    let new_attributes = Sattr3 { size: Some(100), ..Sattr3::default() };
    twice::<call::SetAttr>(&mut w, SetAttr3Args { object: file, new_attributes, guard: None }).await;
    twice::<call::Write>(&mut w, write_args(file, 0, b"data", StableHow::FileSync)).await;
    twice::<call::Write>(&mut w, write_args(file, 0, &[7; 200_000], StableHow::DataSync)).await;
    twice::<call::Write>(&mut w, write_args(file, 0, b"through", StableHow::Unstable)).await;
    let args = Link3Args { file, link: w.at(w.root, "f2") };
    twice::<call::Link>(&mut w, args).await;
    let args = Rename3Args { from: w.at(w.root, "f2"), to: w.at(w.root, "f3") };
    twice::<call::Rename>(&mut w, args).await;
    let args = Remove3Args { object: w.at(w.root, "f3") };
    twice::<call::Remove>(&mut w, args).await;
    let args = RmDir3Args { object: w.at(w.root, "d") };
    twice::<call::RmDir>(&mut w, args).await;
    let entry = |tag, perm| nfsacl::AclEntry { tag, id: 0, perm };
    let acl = vec![entry(1, 6), entry(4, 0), entry(0x20, 0)];
    let acl = nfsacl::SecAttr {
        mask: 1,
        acl_count: 3,
        acl: atoll_xdr::Array::new(acl).unwrap(),
        ..Default::default()
    };
    twice::<nfsacl::call::SetAcl>(&mut w, nfsacl::SetAcl3Args { object: file, acl }).await;
}

#[tokio::test]
async fn an_unstable_write_is_known_again_before_and_after_its_flush() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 100]).await;
    let args = write_args(file, 50, &[2; 100], StableHow::Unstable);
    let xid = w.next_xid();
    let first = w.bytes::<call::Write>(xid, &args).await;
    w.write(file, 0, &[3; 500], StableHow::Unstable).await.unwrap();
    assert_eq!(w.bytes::<call::Write>(xid, &args).await, first);
    w.commit(file).await.unwrap();
    assert_eq!(w.engine.stats().dirty_files, 0);
    assert_eq!(w.bytes::<call::Write>(xid, &args).await, first);
    assert_eq!(w.read_all(file).await, [3; 500], "a late duplicate does not undo what came after");
    w.crash().await;
    assert_eq!(w.bytes::<call::Write>(xid, &args).await, first);
    assert_eq!(w.read_all(file).await, [3; 500]);
}

#[tokio::test]
async fn a_duplicate_of_a_call_in_progress_is_dropped() {
    let w = World::with(Config::default(), Some(3)).await;
    let how = CreateHow3::Guarded(Sattr3::default());
    let args = Create3Args { at: w.at(w.root, "f"), how };
    let xid = w.next_xid();
    let mut first = Box::pin(w.raw::<call::Create>(xid, &args));
    let mut polls = 0;
    // Until it is on its way.
    while (&mut first).now_or_never().is_none() && polls < 1 {
        polls += 1;
    }
    let second = w.raw::<call::Create>(xid, &args).await;
    assert!(matches!(second, Answer::Drop), "{second:?}");
    assert!(matches!(first.await, Answer::Success(_)));
}

#[tokio::test]
async fn a_call_whose_caller_went_away_is_finished() {
    let w = World::with(Config::default(), Some(5)).await;
    let how = CreateHow3::Guarded(Sattr3::default());
    let args = Create3Args { at: w.at(w.root, "f"), how };
    let xid = w.next_xid();
    assert!(w.raw::<call::Create>(xid, &args).now_or_never().is_none(), "dropped at the first pause");
    let mut answer = w.raw::<call::Create>(xid, &args).await;
    while matches!(answer, Answer::Drop) {
        tokio::task::yield_now().await;
        answer = w.raw::<call::Create>(xid, &args).await;
    }
    assert!(matches!(answer, Answer::Success(_)), "{answer:?}");
    assert!(w.lookup(w.root, "f").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_found_out() {
    let w = World::new().await;
    let is_create = |op: &Op| matches!(op, Op::Create { .. });
    w.meta.fail_next(is_create, Fault::LostBefore);
    w.meta.fail_next(is_create, Fault::LostAfter);
    w.create(w.root, "f").await;
    assert_eq!(w.lookup(w.root, "f").await.unwrap().obj_attributes.unwrap().nlink, 1);

    for _ in 0..10_000 {
        w.meta.fail_next(is_create, Fault::LostAfter);
    }
    let args = Create3Args { at: w.at(w.root, "g"), how: CreateHow3::Guarded(Sattr3::default()) };
    let xid = w.next_xid();
    let begun = tokio::time::Instant::now();
    let answer = w.raw::<call::Create>(xid, &args).await;
    assert!(matches!(answer, Answer::Drop), "no answer rather than a wrong one");
    assert!(begun.elapsed() <= w.config.patience + Duration::from_secs(1));
    let again = w.bytes::<call::Create>(xid, &args).await;
    assert_eq!(&again[..4], [0; 4], "it had been executed");
}

/// As of a log that failed: the command is in it, was not answered, and the next is refused.
#[tokio::test(start_paused = true)]
async fn blocks_of_a_command_that_may_be_in_the_log_stay() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let is_write = |op: &Op| matches!(op, Op::Write { .. });
    for error in [FsError::Io, FsError::NoSpace, FsError::Fenced] {
        w.meta.fail_next(is_write, Fault::LostAfter);
        w.meta.fail_next(is_write, Fault::Refused(error));
        w.write(file, 0, &[1; 200_000], StableHow::FileSync).await.unwrap_err();
        assert!(w.read_all(file).await == [1; 200_000]);
    }
    let blocks = w.blocks.count();
    w.meta.fail_next(is_write, Fault::Refused(FsError::Io));
    w.write(file, 0, &[2; 200_000], StableHow::FileSync).await.unwrap_err();
    assert_eq!(w.blocks.count(), blocks, "nothing points at these, nor ever will");
}

/// A file with data that the frontend accepted after somebody else had taken its name, and the write verifier they were answered with.
async fn accepted_after_the_end(w: &World) -> (atoll_proto::nfs3::FileHandle, [u8; 8]) {
    let file = w.create(w.root, "f").await;
    let written = w.write_dirty(file, 0, b"to be lost").await;
    let op = Op::RegisterFrontend { frontend: atoll_base::id::FrontendId(1) };
    let call = atoll_meta::Call {
        origin: None,
        once: None,
        cred: atoll_base::access::Cred::root(),
        client: None,
        op,
    };
    w.meta.apply(call).result.unwrap();
    let late = w.write(file, 0, b"accepted", StableHow::Unstable).await.unwrap();
    assert_ne!(late.verf, written.verf, "whoever fenced us moved the verifier");
    (file, late.verf)
}

#[tokio::test(start_paused = true)]
async fn a_life_whose_loss_cannot_be_recorded_ends_with_failing_commits() {
    let w = World::new().await;
    let (file, _) = accepted_after_the_end(&w).await;
    w.meta.fail_next(|op| matches!(op, Op::BeginDirty { .. }), Fault::Refused(FsError::Io));
    w.create(w.root, "g").await;
    assert!(w.commit(file).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_fenced_frontend_begins_another_life() {
    let w = World::new().await;
    let epoch = w.engine.origin().await.epoch;
    let (file, late) = accepted_after_the_end(&w).await;
    w.create(w.root, "g").await;
    assert!(w.engine.origin().await.epoch > epoch);
    let committed = w.commit(file).await.unwrap();
    assert_ne!(committed.verf, late, "what was accepted after that is lost too, and it shows");
    w.write_dirty(file, 0, b"anew").await;
    w.commit(file).await.unwrap();
    assert_eq!(&w.read_all(file).await[..4], b"anew");
    assert_eq!(w.blocks.reserved(), 0);
    w.meta.fail_next(|op| matches!(op, Op::SetAttr { .. }), Fault::Refused(FsError::Io));
    let set = SetAttr3Args { object: file, new_attributes: Sattr3::default(), guard: None };
    assert!(w.call::<call::SetAttr>(set).await.is_err());
}

/// What is UNSTABLE leaves no outcome in the state, so only the slot knows that it was written (RFC 8881 §2.10.6.1.3).
#[tokio::test]
async fn an_unstable_write_is_not_repeated_for_a_session_that_was_forgotten() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let file = world.create(world.root, "f").await;
    world.write_dirty(file, 0, b"start").await;
    let file = FileHandle::new(file.as_slice()).unwrap();
    let write = |data: &[u8]| {
        let data = Opaque::copy_from(data).unwrap();
        let (stateid, stable) = (StateId4::ANONYMOUS, StableHow4::Unstable);
        vec![put(file), ArgOp4::Write(Write4Args { stateid, offset: 0, stable, data })]
    };
    let mut first = write(b"first");
    first.insert(0, a.next_sequence());
    assert_eq!(a.compound(first.clone()).await[2].status(), Ok(()));
    assert_eq!(b.ask(write(b"other")).await[1].status(), Ok(()));
    let commit = ArgOp4::Commit(Commit4Args { offset: 0, count: 0 });
    assert_eq!(b.ask(vec![put(file), commit]).await[1].status(), Ok(()));
    world.engine.v4.sessions.forget_all_idle();
    // A copy of it comes late.
    let again = a.compound(first).await;
    assert_eq!(again.last().unwrap().status(), Err(NfsStat4::RetryUncachedRep));
    let read = ArgOp4::Read(Read4Args { stateid: StateId4::ANONYMOUS, offset: 0, count: 100 });
    match b.ask(vec![put(file), read]).await.pop() {
        Some(ResOp4::Read(Ok(read))) => assert_eq!(read.data[..], *b"other"),
        other => panic!("{other:?}"),
    }
}
