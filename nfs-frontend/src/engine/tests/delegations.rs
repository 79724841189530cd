//! Delegations: given, in the way of others, returned or revoked (RFC 8881 §10.4; RFC 9754).

use super::backclient::{BACK, Called, Client, put, root};
use super::world::World;
use crate::engine::tests::world::name_of;
use crate::server::reverse::Reverse;
use atoll_proto::nfs3::{DirOpArgs3, NfsStat3, Remove3Args, StableHow, call};
use atoll_proto::nfs4::callback::{CbArgOp4, CbRecall4Args, CbResOp4};
use atoll_proto::nfs4::{
    ArgOp4, Attr4, AttrValue4, Bitmap, Content4, DelegReturn4Args, DirFromClient4, DirFromServer4, Fattr4,
    FileHandle, FreeStateId4Args, GetAttr4Args, GetAttr4Ok, GetDirDelegation4Args, GetDirDelegation4Ok,
    IoAdvise4Args, Name4, NfsStat4, NfsTime4, Open4Ok, OpenClaim4, OpenDelegation4, Read4Args, Remove4Args,
    ResOp4, Seek4Args, SetAttr4Args, StateId4, TestStateId4Args, WhyNoDelegation4, open_result, seq_status,
    share_access,
};
use atoll_xdr::Array;
use std::time::Duration;

pub(super) const READ: u32 = share_access::READ;
pub(super) const BOTH: u32 = share_access::BOTH;
pub(super) const WANT_READ: u32 = share_access::WANT_READ_DELEG;
pub(super) const WANT_WRITE: u32 = share_access::WANT_WRITE_DELEG;

pub(super) fn by_name(name: &str) -> OpenClaim4 {
    OpenClaim4::Null(Name4::copy_from(name.as_bytes()).unwrap())
}

fn given(open: &Open4Ok) -> Option<StateId4> {
    match &open.delegation {
        OpenDelegation4::Read(it) | OpenDelegation4::ReadAttrs(it) => Some(it.stateid),
        OpenDelegation4::Write(it) | OpenDelegation4::WriteAttrs(it) => Some(it.stateid),
        OpenDelegation4::None | OpenDelegation4::NoneExt(_) => None,
    }
}

pub(super) fn handle(file: &atoll_proto::nfs3::FileHandle) -> FileHandle {
    FileHandle::new(file.as_slice()).unwrap()
}

impl Client<'_> {
    /// A delegation of a file in the root.
    pub(super) async fn delegated(&mut self, name: &str, access: u32) -> StateId4 {
        let open = self.open_as(root(self.world), by_name(name), access).await.unwrap();
        given(&open).unwrap()
    }

    async fn give_back(&mut self, file: FileHandle, deleg_stateid: StateId4) {
        let res = self.ask(vec![put(file), ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid })]).await;
        assert!(matches!(res[1], ResOp4::DelegReturn(Ok(()))), "{res:?}");
    }

    /// The next callback behind CB_SEQUENCE, which is answered as Linux does, if it is not CB_GETATTR.
    async fn next(&mut self) -> CbArgOp4 {
        let called = self.called().await;
        let slot = called.sequence().slotid as usize;
        self.slots[slot] = called.sequence().sequenceid;
        match called.args.ops.get(1) {
            Some(op @ CbArgOp4::Recall(_)) => {
                self.answer(&called, Ok(()), Ok(()));
                op.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the recall of a delegation and returns it.
    pub(super) async fn comply(&mut self) {
        match self.next().await {
            CbArgOp4::Recall(recall) => self.give_back(recall.fh, recall.stateid).await,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn attrs(&mut self, file: FileHandle) -> Result<(u64, u64), NfsStat4> {
        let attr_request = Bitmap::of(&[Attr4::Change as u32, Attr4::Size as u32]);
        let res = self.ask(vec![put(file), ArgOp4::GetAttr(GetAttr4Args { attr_request })]).await;
        match &res[1] {
            ResOp4::GetAttr(Ok(ok)) => match ok.obj_attributes.read().unwrap()[..] {
                [AttrValue4::Change(change), AttrValue4::Size(size)] => Ok((change, size)),
                ref other => panic!("{other:?}"),
            },
            ResOp4::GetAttr(Err(status)) => Err(*status),
            other => panic!("{other:?}"),
        }
    }

    /// Answers a CB_GETATTR.
    pub(super) fn tell(&self, called: &Called, values: &[AttrValue4]) {
        assert!(matches!(called.args.ops.get(1), Some(CbArgOp4::GetAttr(_))), "{:?}", called.args);
        let ok = GetAttr4Ok { obj_attributes: Fattr4::build(values).unwrap() };
        self.answer_with(called, Ok(()), Ok(()), Some(CbResOp4::GetAttr(Ok(ok))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delegation_is_recalled_for_another_and_given_back() {
    let world = World::new().await;
    let file = handle(&world.create(world.root, "f").await);
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let held = a.delegated("f", READ | WANT_READ).await;
    // It does not disturb readers, nor the client's own OPEN for writing, nor its own removal of other names.
    assert!(given(&b.open_as(root(&world), by_name("f"), READ | WANT_READ).await.unwrap()).is_some());
    let again = b.open_as(root(&world), by_name("f"), READ | WANT_READ).await.unwrap();
    b.give_back(file, given(&again).unwrap()).await;
    a.open_as(
        root(&world),
        OpenClaim4::DelegateCur(atoll_proto::nfs4::ClaimDelegateCur4 {
            delegate_stateid: held,
            file: Name4::copy_from(b"f").unwrap(),
        }),
        READ,
    )
    .await
    .unwrap();
    let (opened, ()) = tokio::join!(b.open_as(root(&world), by_name("f"), BOTH), a.comply());
    opened.unwrap();
    let stats = world.engine.stats();
    assert_eq!((stats.delegations_granted, stats.delegations_recalled), (2, 1));
    // Lately recalled: nobody gets one.
    let open = a.open_as(root(&world), by_name("f"), READ | WANT_READ).await.unwrap();
    assert_eq!(open.delegation, OpenDelegation4::NoneExt(WhyNoDelegation4::Resource(false)));
}

#[tokio::test(start_paused = true)]
async fn only_who_can_be_called_gets_one_and_without_a_wish_the_second_time() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut deaf = Client::new(&world, "deaf", 0).await;
    let open = deaf.open_as(root(&world), by_name("f"), READ | WANT_READ).await.unwrap();
    assert_eq!(open.delegation, OpenDelegation4::NoneExt(WhyNoDelegation4::Resource(false)));
    let mut a = Client::new(&world, "a", BACK).await;
    let ask = async |a: &mut Client<'_>, want: u32| a.open_as(root(&world), by_name("f"), READ | want).await;
    assert_eq!(ask(&mut a, 0).await.unwrap().delegation, OpenDelegation4::None);
    assert!(given(&ask(&mut a, 0).await.unwrap()).is_some());
    let why = ask(&mut a, share_access::WANT_NO_DELEG).await.unwrap().delegation;
    assert_eq!(why, OpenDelegation4::NoneExt(WhyNoDelegation4::NotWanted));
    assert_eq!(ask(&mut a, 0x700).await, Err(NfsStat4::Inval));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_return_it_loses_it() {
    let world = World::new().await;
    let file = handle(&world.create(world.root, "f").await);
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let held = a.delegated("f", READ | WANT_READ).await;
    let (opened, _) = tokio::join!(b.open_as(root(&world), by_name("f"), BOTH), a.next());
    assert_eq!(opened, Err(NfsStat4::Delay));
    loop {
        // Both are heard all the time.
        a.ask(Vec::new()).await;
        match b.open_as(root(&world), by_name("f"), BOTH).await {
            Ok(_) => break,
            Err(status) => assert_eq!(status, NfsStat4::Delay),
        }
    }
    assert_eq!(world.engine.stats().delegations_revoked, 1);
    let read = ArgOp4::Read(Read4Args { stateid: held, offset: 0, count: 10 });
    let res = a.ask(vec![put(file), read]).await;
    assert!(matches!(res[1], ResOp4::Read(Err(NfsStat4::DelegRevoked))), "{res:?}");
    assert_eq!(a.flags, seq_status::RECALLABLE_STATE_REVOKED);
    let stateids = Array::new(vec![held]).unwrap();
    let test = ArgOp4::TestStateId(TestStateId4Args { stateids });
    let res = a.ask(vec![test, ArgOp4::FreeStateId(FreeStateId4Args { stateid: held })]).await;
    let [ResOp4::TestStateId(Ok(tested)), ResOp4::FreeStateId(Ok(()))] = &res[..] else { panic!("{res:?}") };
    assert_eq!(tested.status_codes[..], [Err(NfsStat4::DelegRevoked)]);
    a.ask(Vec::new()).await;
    assert_eq!((a.flags, b.flags), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_has_heard_is_not_told_again_when_another_client_ends() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    a.delegated("f", READ | WANT_READ).await;
    let (opened, _) = tokio::join!(b.open_as(root(&world), by_name("f"), BOTH), a.next());
    assert_eq!(opened, Err(NfsStat4::Delay));
    world.engine.v4.delegations.client_gone(atoll_meta::nfs4::ClientId(99));
    let again = tokio::time::timeout(Duration::from_secs(5), a.called()).await;
    assert!(again.is_err());
}

#[tokio::test(start_paused = true)]
async fn whatever_reads_waits_for_a_writer_or_is_told_to_come_again() {
    let world = World::new().await;
    let file = handle(&world.create(world.root, "f").await);
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    b.minor = 2;
    a.delegated("f", BOTH | WANT_WRITE).await;
    let stateid = StateId4::ANONYMOUS;
    let advise = IoAdvise4Args { stateid, offset: 0, count: 1, hints: Bitmap::of(&[1]) };
    let read = Read4Args { stateid, offset: 0, count: 10 };
    let seek = Seek4Args { stateid, offset: 0, what: Content4::Data };
    for op in [ArgOp4::IoAdvise(advise), ArgOp4::Read(read), ArgOp4::ReadPlus(read), ArgOp4::Seek(seek)] {
        let res = b.ask(vec![put(file), op]).await;
        assert_eq!(res[1].status(), Err(NfsStat4::Delay), "{res:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_is_not_waited_for() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    a.delegated("f", BOTH | WANT_WRITE).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let begin = tokio::time::Instant::now();
    b.open_as(root(&world), by_name("f"), BOTH).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn version_3_waits_for_the_data_of_a_holder() {
    let world = World::new().await;
    let file = world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    a.delegated("f", BOTH | WANT_WRITE).await;
    // The holder writes back what it has before it returns the delegation.
    let writes_back = async {
        let CbArgOp4::Recall(recall) = a.next().await else { panic!() };
        let write = ArgOp4::Write(atoll_proto::nfs4::Write4Args {
            stateid: recall.stateid,
            offset: 0,
            stable: atoll_proto::nfs4::StableHow4::Unstable,
            data: atoll_proto::nfs4::Payload::copy_from(b"held").unwrap(),
        });
        let res = a.ask(vec![put(recall.fh), write]).await;
        assert!(matches!(res[1], ResOp4::Write(Ok(_))), "{res:?}");
        a.give_back(recall.fh, recall.stateid).await;
    };
    let (read, ()) = tokio::join!(world.read(file, 0, 100), writes_back);
    assert_eq!(&read.unwrap().data[..], b"held");
    // One that does not answer is waited for in vain, and version 3 is told to come again.
    world.meta.advance(60_000_000_000);
    a.delegated("f", BOTH | WANT_WRITE).await;
    let remove = Remove3Args { object: DirOpArgs3 { dir: world.root, name: name_of(b"f") } };
    let refused = world.call::<call::Remove>(remove.clone()).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Jukebox);
    let refused = world.write(file, 0, b"x", StableHow::FileSync).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Jukebox);
    a.comply().await;
    world.call::<call::Remove>(remove).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn unstable_data_of_others_are_not_taken_in_beside_a_delegation() {
    let world = World::new().await;
    let file = world.create(world.root, "f").await;
    world.write_dirty(file, 0, b"dirty").await;
    assert_eq!(world.engine.stats().dirty_files, 1);
    let mut a = Client::new(&world, "a", BACK).await;
    a.delegated("f", READ | WANT_READ).await;
    assert_eq!(world.engine.stats().dirty_files, 0, "put into the store before it is given");
    let (written, ()) = tokio::join!(world.write(file, 0, b"DIRTY", StableHow::Unstable), a.comply());
    written.unwrap();
    // The holder's own lease is no way in for others.
    world.meta.advance(60_000_000_000);
    let held = a.delegated("f", BOTH | WANT_WRITE).await;
    for offset in 0..3 {
        let write = ArgOp4::Write(atoll_proto::nfs4::Write4Args {
            stateid: held,
            offset,
            stable: atoll_proto::nfs4::StableHow4::Unstable,
            data: atoll_proto::nfs4::Payload::copy_from(b"b").unwrap(),
        });
        let res = a.ask(vec![put(handle(&file)), write]).await;
        assert!(matches!(res[1], ResOp4::Write(Ok(_))), "{res:?}");
    }
    assert_eq!(world.engine.stats().dirty_files, 1);
    let refused = world.write(file, 0, b"x", StableHow::Unstable).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Jukebox);
    let (written, ()) = tokio::join!(world.write(file, 0, b"x", StableHow::Unstable), a.comply());
    written.unwrap();
    assert_eq!(world.read_all(file).await, b"xbbTY");
}

#[tokio::test(start_paused = true)]
async fn times_are_kept_by_the_holder_and_a_delegation_stands_for_the_open() {
    let world = World::new().await;
    let file = handle(&world.create(world.root, "f").await);
    let mut a = Client::new(&world, "a", BACK).await;
    a.minor = 2;
    let wants = share_access::WANT_DELEG_TIMESTAMPS | share_access::WANT_OPEN_XOR_DELEGATION;
    let open =
        a.open_as(root(&world), by_name("f"), BOTH | share_access::WANT_ANY_DELEG | wants).await.unwrap();
    let OpenDelegation4::WriteAttrs(held) = &open.delegation else { panic!("{open:?}") };
    assert_eq!(open.stateid, StateId4::ANONYMOUS);
    assert!(open.rflags & open_result::NO_OPEN_STATEID != 0);
    let modified = NfsTime4 { seconds: 1_700_000_000, nseconds: 5 };
    let set = |values: &[AttrValue4]| {
        let obj_attributes = Fattr4::build(values).unwrap();
        ArgOp4::SetAttr(SetAttr4Args { stateid: held.stateid, obj_attributes })
    };
    let times = [AttrValue4::TimeDelegAccess(modified), AttrValue4::TimeDelegModify(modified)];
    let get = |attr| ArgOp4::GetAttr(GetAttr4Args { attr_request: Bitmap::of(&[attr as u32]) });
    let res = a.ask(vec![put(file), set(&times), get(Attr4::TimeModify)]).await;
    let [_, ResOp4::SetAttr(done), ResOp4::GetAttr(Ok(_))] = &res[..] else { panic!("{res:?}") };
    assert_eq!(done.status, Ok(()));
    let res = a.ask(vec![put(file), set(&[AttrValue4::Mode(0o600), times[1].clone()])]).await;
    assert!(matches!(&res[1], ResOp4::SetAttr(refused) if refused.status == Err(NfsStat4::Inval)), "{res:?}");
    let res = a.ask(vec![put(file), get(Attr4::TimeDelegModify)]).await;
    assert!(matches!(res[1], ResOp4::GetAttr(Err(NfsStat4::Inval))), "{res:?}");
    a.give_back(file, held.stateid).await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_recalled_when_another_changes_it() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let get = || {
        ArgOp4::GetDirDelegation(GetDirDelegation4Args {
            signal_deleg_avail: false,
            notification_types: Bitmap::of(&[0, 1, 5]),
            child_attr_delay: NfsTime4 { seconds: 0, nseconds: 0 },
            dir_attr_delay: NfsTime4 { seconds: 0, nseconds: 0 },
            child_attributes: Bitmap::EMPTY,
            dir_attributes: Bitmap::EMPTY,
        })
    };
    let res = a.ask(vec![put(root(&world)), get(), get()]).await;
    let [_, ResOp4::GetDirDelegation(Ok(first)), ResOp4::GetDirDelegation(Ok(second))] = &res[..] else {
        panic!("{res:?}")
    };
    let GetDirDelegation4Ok::Granted(held) = first else { panic!("{first:?}") };
    assert_eq!(held.notification, Bitmap::EMPTY);
    assert_eq!(*second, GetDirDelegation4Ok::Unavailable(false));
    let remove =
        vec![put(root(&world)), ArgOp4::Remove(Remove4Args { target: Name4::copy_from(b"f").unwrap() })];
    let (res, ()) = tokio::join!(b.ask(remove), a.comply());
    assert!(matches!(res[1], ResOp4::Remove(Ok(_))), "{res:?}");
    let res = a.ask(vec![put(root(&world)), get()]).await;
    assert!(
        matches!(&res[1], ResOp4::GetDirDelegation(Ok(GetDirDelegation4Ok::Unavailable(false)))),
        "{res:?}"
    );
}

/// A delegation that is recalled for another client, and what the holder has of it and of its session when the server dies.
async fn recalled_before_a_crash(world: &mut World) -> (FileHandle, StateId4, ([u8; 16], u32, Vec<u32>)) {
    let file = handle(&world.create(world.root, "f").await);
    let (held, saved) = {
        let mut a = Client::new(world, "a", BACK).await;
        let held = a.delegated("f", BOTH | WANT_WRITE).await;
        let mut b = Client::new(world, "b", BACK).await;
        let (opened, _) = tokio::join!(b.open_as(root(world), by_name("f"), READ), a.next());
        assert_eq!(opened, Err(NfsStat4::Delay));
        (held, (a.session, a.seqid, a.slots.clone()))
    };
    world.crash().await;
    (file, held, saved)
}

impl<'a> Client<'a> {
    /// With another connection, after a start of the server.
    fn again(world: &'a World, saved: ([u8; 16], u32, Vec<u32>)) -> Self {
        let (session, seqid, slots) = saved;
        Client { world, connection: Some(Reverse::new()), session, seqid, slots, flags: 0, minor: 1 }
    }

    /// The next recall, whatever numbers of slots the server asks for before.
    async fn recalled(&mut self) -> CbRecall4Args {
        loop {
            let called = self.called().await;
            let (slot, seqid) = (called.sequence().slotid as usize, called.sequence().sequenceid);
            match seqid == self.slots[slot].wrapping_add(1) {
                true => {
                    self.slots[slot] = seqid;
                    self.answer(&called, Ok(()), Ok(()));
                    if let Some(CbArgOp4::Recall(recall)) = called.args.ops.get(1) {
                        return *recall;
                    }
                }
                false if seqid == self.slots[slot] => {
                    self.answer(&called, Ok(()), Err(NfsStat4::RetryUncachedRep));
                }
                false => self.answer(&called, Err(NfsStat4::SeqMisordered), Ok(())),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_start_a_recall_is_sent_again() {
    let mut world = World::new().await;
    let (file, held, saved) = recalled_before_a_crash(&mut world).await;
    let mut a = Client::again(&world, saved);
    assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    let again = a.recalled().await;
    assert_eq!((again.stateid, again.fh), (held, file));
    a.give_back(file, held).await;
    let mut b = Client::new(&world, "b", BACK).await;
    b.open_as(root(&world), by_name("f"), READ).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_start_who_comes_late_has_a_lease_to_return() {
    let mut world = World::new().await;
    let (file, held, saved) = recalled_before_a_crash(&mut world).await;
    let mut a = Client::again(&world, saved);
    let lease = world.engine.lease();
    // An idle client is heard when it renews its lease, and asks for callbacks a moment later.
    tokio::time::sleep(lease * 9 / 10).await;
    a.ask(Vec::new()).await;
    assert_eq!(a.flags, seq_status::CB_PATH_DOWN | seq_status::CB_PATH_DOWN_SESSION);
    tokio::time::sleep(lease / 5).await;
    assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    // Told at once, not when the next try is due.
    let again = tokio::time::timeout(Duration::from_secs(1), a.recalled()).await.unwrap();
    assert_eq!((again.stateid, again.fh), (held, file));
    tokio::time::sleep(lease * 9 / 10).await;
    a.give_back(file, held).await;
    assert_eq!(world.engine.stats().delegations_revoked, 0);
}
