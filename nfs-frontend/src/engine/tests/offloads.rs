//! Copies that go on behind their COPY: OFFLOAD_STATUS, OFFLOAD_CANCEL, CB_OFFLOAD (RFC 7862 §4, §15.2, §15.8, §15.9, §16.1).

use super::backclient::{BACK, Called, Client, put, root};
use super::meta::Fault;
use super::world::{World, name_of};
use crate::engine::Config;
use crate::server::reverse::Reverse;
use atoll_base::access::Cred;
use atoll_meta::nfs4::ClientOp;
use atoll_meta::offload::OffloadOp;
use atoll_meta::{Call, FsError, Op};
use atoll_proto::nfs3::{DirOpArgs3, FileHandle as Handle3, NfsStat3, Remove3Args, StableHow, call};
use atoll_proto::nfs4::callback::{CbArgOp4, CbOffload4Args, CbResOp4, OffloadFailed4};
use atoll_proto::nfs4::share_access;
use atoll_proto::nfs4::{
    ArgOp4, ClientId4Args, Copy4Args, Copy4Ok, DestroySession4Args, DirFromClient4, FileHandle, NfsStat4,
    Offload4Args, OffloadStatus4Ok, ResOp4, Sequence4Args, StableHow4, StateId4,
};
use atoll_xdr::Array;
use std::time::Duration;

/// Extents of the source, and bytes from one to the next.
const EXTENTS: u64 = 20;
const STRIDE: u64 = 10_000;

/// Extents that one command may copy.
const MOST: u32 = 4;

fn is_step(op: &Op) -> bool {
    matches!(op, Op::Offload(OffloadOp::Step { .. }))
}

fn handle(file: Handle3) -> FileHandle {
    FileHandle::new(file.as_slice()).unwrap()
}

fn copy_args(synchronous: bool) -> Copy4Args {
    Copy4Args {
        src_stateid: StateId4::ANONYMOUS,
        dst_stateid: StateId4::ANONYMOUS,
        src_offset: 0,
        dst_offset: 0,
        count: 0,
        consecutive: true,
        synchronous,
        source_server: Array::default(),
    }
}

async fn world() -> (World, Handle3, Handle3) {
    let world = World::with(Config { copy_extents: MOST, ..Config::default() }, None).await;
    let (from, to) = (world.create(world.root, "from").await, world.create(world.root, "to").await);
    for i in 0..EXTENTS {
        world.write(from, i * STRIDE, &[i as u8 + 1; 100], StableHow::FileSync).await.unwrap();
    }
    world.meta.take_executed();
    (world, from, to)
}

fn between(from: Handle3, to: Handle3, op: ArgOp4) -> Vec<ArgOp4> {
    vec![put(handle(from)), ArgOp4::SaveFh, put(handle(to)), op]
}

impl Client<'_> {
    async fn copy(&mut self, from: Handle3, to: Handle3, synchronous: bool) -> Copy4Ok {
        let res = self.ask(between(from, to, ArgOp4::Copy(copy_args(synchronous)))).await;
        match &res[..] {
            [.., ResOp4::Copy(Ok(ok))] => *ok,
            other => panic!("{other:?}"),
        }
    }

    /// One that goes on.
    async fn begin(&mut self, from: Handle3, to: Handle3) -> StateId4 {
        let ok = self.copy(from, to, false).await;
        assert_eq!((ok.response.count, ok.response.committed), (0, StableHow4::FileSync));
        assert!(ok.requirements.consecutive && !ok.requirements.synchronous);
        ok.response.callback_id.unwrap()
    }

    async fn status(&mut self, file: Handle3, stateid: StateId4) -> Result<OffloadStatus4Ok, NfsStat4> {
        let op = ArgOp4::OffloadStatus(Offload4Args { stateid });
        match self.ask(vec![put(handle(file)), op]).await.pop() {
            Some(ResOp4::OffloadStatus(res)) => res,
            other => panic!("{other:?}"),
        }
    }

    async fn cancel(&mut self, file: Handle3, stateid: StateId4) -> Result<(), NfsStat4> {
        let op = ArgOp4::OffloadCancel(Offload4Args { stateid });
        match self.ask(vec![put(handle(file)), op]).await.pop() {
            Some(ResOp4::OffloadCancel(res)) => res,
            other => panic!("{other:?}"),
        }
    }

    /// The CB_OFFLOAD that is sent, answered.
    async fn end(&mut self) -> CbOffload4Args {
        let called = self.hear().await;
        self.answer(&called, Ok(()), Ok(()));
        end_of(&called)
    }

    /// Until the copy is not known any more.
    async fn forgotten(&mut self, file: Handle3, stateid: StateId4) {
        while self.status(file, stateid).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.status(file, stateid).await, Err(NfsStat4::BadStateId));
    }
}

fn end_of(called: &Called) -> CbOffload4Args {
    match called.args.ops.get(1) {
        Some(CbArgOp4::Offload(args)) => *args,
        other => panic!("{other:?}"),
    }
}

/// Bytes that were copied, if it went well.
fn copied(end: &CbOffload4Args) -> u64 {
    let ok = end.info.unwrap();
    assert_eq!((ok.callback_id, ok.committed), (None, StableHow4::FileSync));
    ok.count
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_one_command_goes_on_and_its_end_is_told() {
    let (world, from, to) = world().await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    let mut b = Client::of_minor(&world, "b", BACK, 2).await;
    let source = world.read_all(from).await;
    let stateid = a.begin(from, to).await;
    assert_ne!(stateid.seqid, 0);
    let called = a.hear().await;
    let end = end_of(&called);
    assert_eq!((end.fh, end.stateid, copied(&end)), (handle(to), stateid, source.len() as u64));
    assert_eq!(world.read_all(to).await, source);
    let steps = world.meta.take_executed().iter().filter(|call| is_step(&call.op)).count();
    assert_eq!(steps, 4, "and the COPY itself");
    // Until the client has answered, it can ask.
    let ended = OffloadStatus4Ok { count: source.len() as u64, complete: Some(Ok(())) };
    assert_eq!(a.status(to, stateid).await, Ok(ended));
    for (file, stateid) in
        [(from, stateid), (to, StateId4 { seqid: 0, ..stateid }), (to, StateId4::ANONYMOUS)]
    {
        assert_eq!(a.status(file, stateid).await, Err(NfsStat4::BadStateId));
        assert_eq!(a.cancel(file, stateid).await, Err(NfsStat4::BadStateId));
    }
    assert_eq!(b.status(to, stateid).await, Err(NfsStat4::BadStateId));
    assert_eq!(b.cancel(to, stateid).await, Err(NfsStat4::BadStateId));
    a.answer(&called, Ok(()), Ok(()));
    a.forgotten(to, stateid).await;
    assert_eq!(a.cancel(to, stateid).await, Err(NfsStat4::BadStateId));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_synchronous_that_fits_or_is_to_be_or_cannot_be_told_of() {
    let (world, from, to) = world().await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    let mut deaf = Client::of_minor(&world, "deaf", 0, 2).await;
    let small = world.create(world.root, "small").await;
    world.write(small, 0, &[9; 5000], StableHow::FileSync).await.unwrap();
    let size = (EXTENTS - 1) * STRIDE + 100;
    for (ok, count) in [
        (a.copy(small, to, false).await, 5000),
        (a.copy(from, to, true).await, size),
        (deaf.copy(from, to, false).await, size),
    ] {
        assert_eq!((ok.response.callback_id, ok.response.count), (None, count));
        assert!(ok.requirements.synchronous);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retransmitted_copy_begins_nothing_anew() {
    let (world, from, to) = world().await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    let stateid = a.begin(from, to).await;
    let sequence = |a: &Client<'_>| Sequence4Args {
        sessionid: a.session,
        sequenceid: a.seqid,
        slotid: 0,
        highest_slotid: 0,
        cachethis: false,
    };
    let mut again = between(from, to, ArgOp4::Copy(copy_args(false)));
    again.insert(0, ArgOp4::Sequence(sequence(&a)));
    let res = a.compound(again).await;
    let Some(ResOp4::Copy(Ok(ok))) = res.last() else { panic!("{res:?}") };
    assert_eq!((ok.response.callback_id, ok.response.count), (Some(stateid), 0));
    let end = a.end().await;
    assert_eq!(end.stateid, stateid);
    a.forgotten(to, stateid).await;
    let copies = |call: &Call| matches!(call.op, Op::Offload(OffloadOp::Copy { .. }));
    assert_eq!(world.meta.take_executed().iter().filter(|call| copies(call)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_moves_nothing_more() {
    let (world, from, to) = world().await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    world.meta.fail_next(is_step, Fault::LostAfter);
    for _ in 0..1000 {
        world.meta.fail_next(is_step, Fault::LostBefore);
    }
    let stateid = a.begin(from, to).await;
    let part = loop {
        let now = a.status(to, stateid).await.unwrap();
        assert_eq!(now.complete, None);
        if now.count > u64::from(MOST) * STRIDE {
            break now.count;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(part, 2 * u64::from(MOST) * STRIDE);
    assert_eq!(a.cancel(to, stateid).await, Ok(()));
    world.meta.forget_faults();
    assert_eq!(a.status(to, stateid).await, Err(NfsStat4::BadStateId));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.read_all(to).await, world.read_all(from).await[..world.getattr(to).await.size as usize]);
    assert_eq!(world.getattr(to).await.size, part);
}

#[tokio::test(start_paused = true)]
async fn a_copy_and_its_callback_outlive_the_frontend() {
    let (mut world, from, to) = world().await;
    let source = world.read_all(from).await;
    let (saved, stateid) = {
        let mut a = Client::of_minor(&world, "a", BACK, 2).await;
        world.meta.fail_next(is_step, Fault::LostAfter);
        for _ in 0..1000 {
            world.meta.fail_next(is_step, Fault::LostBefore);
        }
        let stateid = a.begin(from, to).await;
        ((a.session, a.seqid, a.slots), stateid)
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.meta.forget_faults();
    world.crash().await;
    let (session, seqid, slots) = saved;
    let connection = Some(Reverse::new());
    let mut a = Client { world: &world, connection, session, seqid, slots, flags: 0, minor: 2 };
    // It is copied before anybody is there to hear.
    loop {
        let now = a.status(to, stateid).await.unwrap();
        if let Some(complete) = now.complete {
            assert_eq!((complete, now.count), (Ok(()), source.len() as u64));
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.read_all(to).await, source);
    tokio::time::sleep(Duration::from_secs(10)).await;
    a.bind(DirFromClient4::BackOrBoth).await.unwrap();
    let end = a.end().await;
    assert_eq!((end.stateid, copied(&end)), (stateid, source.len() as u64));
    a.forgotten(to, stateid).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_refuses_to_hear_is_told_again_and_not_for_ever() {
    let (world, from, to) = world().await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    let stateid = a.begin(from, to).await;
    for _ in 0..3 {
        let called = a.hear().await;
        let refusal = CbResOp4::Offload(Err(NfsStat4::BadStateId));
        a.answer_with(&called, Ok(()), Err(NfsStat4::BadStateId), Some(refusal));
        assert!(a.status(to, stateid).await.unwrap().complete.is_some());
    }
    a.connection = None;
    // One that sleeps finds it when it comes back, as it does its opens.
    a.open(root(&world), "to").await;
    tokio::time::sleep(world.engine.lease() * 5).await;
    let half = world.engine.lease() / 2;
    for _ in 0..3 {
        tokio::time::sleep(half).await;
        assert!(a.status(to, stateid).await.unwrap().complete.is_some());
    }
    tokio::time::sleep(half).await;
    a.forgotten(to, stateid).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_on_says_how_far_it_came() {
    let (world, from, to) = world().await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    world.meta.fail_next(is_step, Fault::LostAfter);
    world.meta.fail_next(is_step, Fault::Refused(FsError::NoSpace));
    let stateid = a.begin(from, to).await;
    let called = a.hear().await;
    let bytes_copied = 2 * u64::from(MOST) * STRIDE;
    assert_eq!(end_of(&called).info, Err(OffloadFailed4 { status: NfsStat4::NoSpc, bytes_copied }));
    let ended = OffloadStatus4Ok { count: bytes_copied, complete: Some(Err(NfsStat4::NoSpc)) };
    assert_eq!(a.status(to, stateid).await, Ok(ended));
    // What has ended can be given back, too.
    assert_eq!(a.cancel(to, stateid).await, Ok(()));
    assert_eq!(a.status(to, stateid).await, Err(NfsStat4::BadStateId));
    assert_eq!(world.getattr(to).await.size, bytes_copied);
}

#[tokio::test(start_paused = true)]
async fn files_that_lose_their_names_stay_until_it_is_through() {
    let (world, from, to) = world().await;
    let source = world.read_all(from).await;
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    for _ in 0..20 {
        world.meta.fail_next(is_step, Fault::LostBefore);
    }
    let stateid = a.begin(from, to).await;
    for name in ["from", "to"] {
        let object = DirOpArgs3 { dir: world.root, name: name_of(name.as_bytes()) };
        world.call::<call::Remove>(Remove3Args { object }).await.unwrap();
    }
    let called = a.hear().await;
    assert_eq!(copied(&end_of(&called)), source.len() as u64);
    assert_eq!(world.read_all(to).await, source);
    a.answer(&called, Ok(()), Ok(()));
    while world.read(to, 0, 1).await.is_ok() || world.read(from, 0, 1).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _its_file_is_gone =
        a.ask(vec![put(handle(to)), ArgOp4::OffloadStatus(Offload4Args { stateid })]).await;
    assert!(matches!(world.read(to, 0, 1).await, Err(e) if e.status == NfsStat3::Stale));
}

#[tokio::test(start_paused = true)]
async fn who_copies_is_busy_and_a_client_that_ends_takes_its_copies_along() {
    let (world, from, to) = world().await;
    for _ in 0..1000 {
        world.meta.fail_next(is_step, Fault::LostBefore);
    }
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    a.begin(from, to).await;
    let client = world
        .meta
        .inspect(|_, kv| atoll_model::read::offloads(kv, atoll_meta::nfs4::StateId(0), 9).unwrap()[0].client);
    let destroy = DestroySession4Args { sessionid: a.session };
    let res = a.compound(vec![ArgOp4::DestroySession(destroy)]).await;
    assert!(matches!(res[..], [ResOp4::DestroySession(Ok(()))]));
    let destroy = ArgOp4::DestroyClientId(ClientId4Args { clientid: client.0 });
    let res = a.compound(vec![destroy]).await;
    assert!(matches!(res[..], [ResOp4::DestroyClientId(Err(NfsStat4::ClientIdBusy))]), "{res:?}");
    // An administrator evicts it.
    let op = Op::Client(ClientOp::Expire(client));
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
    world.meta.apply(call).result.unwrap();
    world.meta.forget_faults();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.getattr(to).await.size, u64::from(MOST) * STRIDE);
}

#[tokio::test(start_paused = true)]
async fn delegations_of_others_are_recalled_for_it() {
    let (world, from, to) = world().await;
    let size = world.getattr(from).await.size;
    for _ in 0..1000 {
        world.meta.fail_next(is_step, Fault::LostBefore);
    }
    let mut a = Client::of_minor(&world, "a", BACK, 2).await;
    let mut reader = Client::of_minor(&world, "reader", BACK, 2).await;
    let mut writer = Client::of_minor(&world, "writer", BACK, 2).await;
    let stateid = a.begin(from, to).await;
    reader.delegated("to", share_access::READ | share_access::WANT_READ_DELEG).await;
    writer.delegated("from", share_access::BOTH | share_access::WANT_WRITE_DELEG).await;
    world.meta.forget_faults();
    let (end, (), ()) = tokio::join!(a.end(), reader.comply(), writer.comply());
    assert_eq!((end.stateid, copied(&end)), (stateid, size));
    assert_eq!(world.read_all(to).await, world.read_all(from).await);
}
