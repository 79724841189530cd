//! CLOSEs that are answered before they are in the state: lost and refused behind their answer, and asked for again (RFC 8881 §18.2, §2.10.6).

use super::backclient::{BACK, Client, put, root};
use super::meta::Fault;
use super::world::World;
use crate::rpc::Answer;
use atoll_base::access::Cred;
use atoll_meta::nfs4::{StateId, StateOp};
use atoll_meta::{Call, FsError, MetadataService, Op};
use atoll_proto::nfs4::{
    ArgOp4, Close4Args, CreateHow4, DestroySession4Args, Fattr4, FileHandle, Name4, NfsStat4, Open4Args,
    OpenClaim4, OpenFlag4, Read4Args, ResOp4, StableHow4, StateId4, StateOwner4, Write4Args, share_access,
};
use atoll_xdr::Opaque;
use std::time::Duration;

fn closes(op: &Op) -> bool {
    matches!(op, Op::State(StateOp::Close { .. }))
}

fn id(stateid: StateId4) -> StateId {
    StateId(u64::from_be_bytes(stateid.other[..8].try_into().unwrap()))
}

fn close(seqid: u32, open_stateid: StateId4) -> ArgOp4 {
    ArgOp4::Close(Close4Args { seqid: 0, open_stateid: StateId4 { seqid, ..open_stateid } })
}

fn read(stateid: StateId4) -> ArgOp4 {
    ArgOp4::Read(Read4Args { stateid, offset: 0, count: 2000 })
}

impl Client<'_> {
    /// Opens `f`, which is made if it is not there.
    async fn opened(&mut self) -> Result<StateId4, NfsStat4> {
        let open = Open4Args {
            seqid: 0,
            share_access: share_access::BOTH | share_access::WANT_NO_DELEG,
            share_deny: 0,
            owner: StateOwner4 { clientid: 0, owner: Default::default() },
            openhow: OpenFlag4::Create(CreateHow4::Unchecked(Fattr4::build(&[]).unwrap())),
            claim: OpenClaim4::Null(Name4::copy_from(b"f").unwrap()),
        };
        let ops = vec![put(root(self.world)), ArgOp4::Open(Box::new(open))];
        match self.ask(ops).await.pop() {
            Some(ResOp4::Open(opened)) => Ok(opened?.stateid),
            other => panic!("{other:?}"),
        }
    }

    /// The same with the file's handle.
    async fn opened_f(&mut self) -> (FileHandle, StateId4) {
        let open = self.opened().await.unwrap();
        let found =
            self.ask(vec![put(root(self.world)), super::backclient::lookup("f"), ArgOp4::GetFh]).await;
        let Some(ResOp4::GetFh(Ok(file))) = found.last() else { panic!("{found:?}") };
        (file.object, open)
    }

    async fn ends(&mut self, ops: Vec<ArgOp4>) -> Result<(), NfsStat4> {
        self.ask(ops).await.last().unwrap().status()
    }

    /// Sends the slot's last request again.
    async fn sent_again(&mut self, ops: Vec<ArgOp4>) -> Vec<ResOp4> {
        self.seqid -= 1;
        self.ask(ops).await
    }
}

async fn is_open(world: &World, open: StateId4) -> bool {
    world.meta.state(id(open)).await.unwrap().is_some()
}

/// Lets everything go on that needs no more than some time.
async fn pass() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_went_wrong_behind_its_answer_is_tried_again() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let faults = [Fault::LostBefore, Fault::LostAfter, Fault::Refused(FsError::Fenced), Fault::LostBefore];
    for seqid in [1, 0] {
        for upto in 1..=faults.len() {
            let (file, open) = a.opened_f().await;
            for fault in &faults[..upto] {
                world.meta.fail_next(closes, *fault);
            }
            world.meta.take_executed();
            let ops = vec![put(file), close(seqid, open)];
            let first = a.ask(ops.clone()).await;
            assert_eq!(first.last().unwrap().status(), Ok(()));
            pass().await;
            assert!(!is_open(&world, open).await);
            world.meta.forget_faults();
            assert_eq!(a.sent_again(ops).await, first);
            assert_eq!(a.ends(vec![put(file), read(open)]).await, Err(NfsStat4::BadStateId));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_of_a_former_life_is_done_in_the_next() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    world.meta.hold_aside();
    assert_eq!(a.ends(vec![put(file), close(1, open)]).await, Ok(()));
    // Another process takes this one's place, and is put out by it again.
    let frontend = world.engine.origin().await.frontend;
    let op = Op::RegisterFrontend { frontend };
    world.meta.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op }).result.unwrap();
    world.meta.let_aside_go();
    assert!(is_open(&world, open).await);
    assert_eq!(a.opened().await, Err(NfsStat4::Delay), "what is closed comes first");
    pass().await;
    assert!(!is_open(&world, open).await);
    assert_ne!(id(a.opened().await.unwrap()), id(open));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_given_up_between_two_lives_leaves_the_way_to_the_next() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    world.meta.fail_next(closes, Fault::Refused(FsError::Fenced));
    let registers: fn(&Op) -> bool = |op| matches!(op, Op::RegisterFrontend { .. });
    (0..3000).for_each(|_| world.meta.fail_next(registers, Fault::LostBefore));
    // As another process does that takes this one's place.
    let frontend = world.engine.origin().await.frontend;
    let op = Op::RegisterFrontend { frontend };
    world.meta.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op }).result.unwrap();
    assert_eq!(a.ends(vec![put(file), close(1, open)]).await, Ok(()));
    for _ in 0..14 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        a.ask(Vec::new()).await;
    }
    world.meta.forget_faults();
    // Nothing here needs time to pass. Who waits in vain for the next life is not idle, so that time would not.
    let newer = tokio::select! {
        biased;
        newer = a.opened() => newer.unwrap(),
        () = async { for _ in 0..10_000 { tokio::task::yield_now().await } } => panic!("no life comes"),
    };
    assert_eq!(a.ends(vec![put(file), close(newer.seqid, newer)]).await, Ok(()));
    assert!(!is_open(&world, open).await);
}

#[tokio::test(start_paused = true)]
async fn a_close_outlives_its_slots_number_and_its_session() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    world.meta.hold_aside();
    assert_eq!(a.ends(vec![put(file), close(1, open)]).await, Ok(()));
    // The slot goes on before it is executed, as the log never does it, but a repetition may.
    world.meta.fail_next(closes, Fault::LostBefore);
    let write = Write4Args {
        stateid: StateId4::ANONYMOUS,
        offset: 0,
        stable: StableHow4::FileSync,
        data: Opaque::copy_from(b"x").unwrap(),
    };
    assert_eq!(a.ends(vec![put(file), ArgOp4::Write(write)]).await, Ok(()));
    world.meta.let_aside_go();
    pass().await;
    assert!(!is_open(&world, open).await);

    let (file, open) = a.opened_f().await;
    world.meta.hold_aside();
    assert_eq!(a.ends(vec![put(file), close(1, open)]).await, Ok(()));
    let mut second = Client::new(&world, "a", BACK).await;
    let gone = ArgOp4::DestroySession(DestroySession4Args { sessionid: a.session });
    assert_eq!(second.compound(vec![gone]).await[0].status(), Ok(()));
    world.meta.let_aside_go();
    pass().await;
    assert!(!is_open(&world, open).await);
    second.opened().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_newer_open_is_neither_refused_nor_closed() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    world.meta.hold_aside();
    // Whichever is current: of that moment.
    assert_eq!(a.ends(vec![put(file), close(0, open)]).await, Ok(()));
    assert_eq!(a.ends(vec![put(file), read(open)]).await, Err(NfsStat4::BadStateId));
    // An OPEN that overtakes it, as one does that was lost with it.
    let newer = a.opened().await.unwrap();
    assert_eq!((id(newer), newer.seqid), (id(open), 2));
    assert_eq!(a.ends(vec![put(file), read(newer)]).await, Ok(()));
    world.meta.fail_next(closes, Fault::LostBefore);
    world.meta.let_aside_go();
    pass().await;
    assert_eq!(a.ends(vec![put(file), read(newer)]).await, Ok(()));
    assert_eq!(a.ends(vec![put(file), close(2, newer)]).await, Ok(()));
    assert!(!is_open(&world, open).await);
}

#[tokio::test(start_paused = true)]
async fn a_close_is_not_tried_for_ever() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    (0..3000).for_each(|_| world.meta.fail_next(closes, Fault::LostBefore));
    assert_eq!(a.ends(vec![put(file), close(1, open)]).await, Ok(()));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        a.ask(Vec::new()).await;
    }
    world.meta.forget_faults();
    pass().await;
    assert!(is_open(&world, open).await);
    // Opened again, it can be closed.
    let newer = a.opened().await.unwrap();
    assert_eq!((id(newer), newer.seqid), (id(open), 2));
    assert_eq!(a.ends(vec![put(file), close(2, newer)]).await, Ok(()));
    assert!(!is_open(&world, open).await);
}

#[tokio::test(start_paused = true)]
async fn a_close_whose_reply_is_not_kept_is_answered_again() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    let data = Opaque::copy_from(&[7; 2000]).unwrap();
    let write = Write4Args { stateid: open, offset: 0, stable: StableHow4::FileSync, data };
    assert_eq!(a.ends(vec![put(file), ArgOp4::Write(write)]).await, Ok(()));
    world.meta.hold_aside();
    // Its reply is larger than what is kept.
    let request = vec![a.next_sequence(), put(file), read(open), close(1, open)];
    let first = a.compound(request.clone()).await;
    assert_eq!((first.len(), first[3].status()), (4, Ok(())));
    // While it is not in the state, it is waited for,
    let asked = a.compound(request.clone()).await;
    assert_eq!(asked[0].status(), Err(NfsStat4::Delay));
    let (again, ()) = tokio::join!(a.compound(request.clone()), async {
        tokio::task::yield_now().await;
        world.meta.let_aside_go();
    });
    // and answered from what is stored then.
    assert_eq!(again[1..], first[1..]);
    assert_eq!(a.compound(request).await[1..], first[1..]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_executed_again_finds_its_own_close() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let (file, open) = a.opened_f().await;
    let writes: fn(&Op) -> bool = |op| matches!(op, Op::Write { .. });
    (0..1000).for_each(|_| world.meta.fail_next(writes, Fault::LostBefore));
    let data = Opaque::copy_from(b"x").unwrap();
    let write = Write4Args { stateid: StateId4::ANONYMOUS, offset: 0, stable: StableHow4::FileSync, data };
    let request = vec![a.next_sequence(), put(file), close(1, open), ArgOp4::Write(write)];
    // Behind the CLOSE nobody knows what came of the WRITE: there is no answer.
    assert!(matches!(a.send(request.clone()).await, Answer::Disconnect));
    assert!(!is_open(&world, open).await);
    world.meta.forget_faults();
    let again = a.compound(request).await;
    assert_eq!(again.iter().map(ResOp4::status).collect::<Vec<_>>(), [Ok(()); 4]);
}
