//! What the stateid of a delegation may be used for (RFC 8881 §8.2.5, §9.1.2, §18.10.3; RFC 9754 §4).

use super::backclient::{BACK, Client, owner, put, root};
use super::world::World;
use atoll_proto::nfs4::{
    Allocate4Args, ArgOp4, AttrValue4, Clone4Args, Close4Args, Content4, DelegReturn4Args, ExistLockOwner4,
    Failure, Fattr4, FileHandle, FreeStateId4Args, Lock4Args, LockT4Args, LockType4, LockU4Args, Locker4,
    Name4, NfsStat4, OpenClaim4, OpenDelegation4, OpenDowngrade4Args, OpenToLockOwner4, Payload, Read4Args,
    ResOp4, Seek4Args, SetAttr4Args, StableHow4, StateId4, Write4Args, share_access,
};

const XOR: u32 = share_access::WANT_OPEN_XOR_DELEGATION;
const READING: u32 = share_access::READ | share_access::WANT_READ_DELEG | XOR;
const WRITING: u32 = share_access::BOTH | share_access::WANT_WRITE_DELEG | XOR;

async fn setting<'a>(world: &'a World, access: u32) -> (Client<'a>, FileHandle, StateId4) {
    let file = world.create(world.root, "f").await;
    let file = FileHandle::new(file.as_slice()).unwrap();
    let mut a = Client::new(world, "a", BACK).await;
    a.minor = 2;
    let by_name = OpenClaim4::Null(Name4::copy_from(b"f").unwrap());
    let open = a.open_as(root(world), by_name, access).await.unwrap();
    assert_eq!(open.stateid, StateId4::ANONYMOUS, "the delegation is all that it has");
    let stateid = match open.delegation {
        OpenDelegation4::Read(it) => it.stateid,
        OpenDelegation4::Write(it) => it.stateid,
        other => panic!("{other:?}"),
    };
    (a, file, stateid)
}

/// Status of an operation on a file.
async fn status(a: &mut Client<'_>, file: FileHandle, op: ArgOp4) -> Result<(), NfsStat4> {
    let res = a.ask(vec![put(file), ArgOp4::SaveFh, op]).await;
    res.last().unwrap().status()
}

fn reads(stateid: StateId4) -> Vec<ArgOp4> {
    vec![
        ArgOp4::Read(Read4Args { stateid, offset: 0, count: 10 }),
        ArgOp4::ReadPlus(Read4Args { stateid, offset: 0, count: 10 }),
        ArgOp4::Seek(Seek4Args { stateid, offset: 0, what: Content4::Data }),
    ]
}

fn writes(stateid: StateId4) -> Vec<ArgOp4> {
    let data = Payload::copy_from(b"held").unwrap();
    let range = Allocate4Args { stateid, offset: 0, length: 4096 };
    let size = Fattr4::build(&[AttrValue4::Size(9000)]).unwrap();
    let clone = Clone4Args {
        src_stateid: stateid,
        dst_stateid: stateid,
        src_offset: 0,
        dst_offset: 4096,
        count: 4096,
    };
    vec![
        ArgOp4::Write(Write4Args { stateid, offset: 0, stable: StableHow4::FileSync, data }),
        ArgOp4::SetAttr(SetAttr4Args { stateid, obj_attributes: size }),
        ArgOp4::Clone(clone),
        ArgOp4::Allocate(range),
        ArgOp4::Deallocate(range),
    ]
}

fn lock(locker: Locker4) -> ArgOp4 {
    ArgOp4::Lock(Lock4Args { locktype: LockType4::Write, reclaim: false, offset: 0, length: 10, locker })
}

fn first_lock(open_stateid: StateId4) -> ArgOp4 {
    let lock_owner = owner("l");
    lock(Locker4::New(OpenToLockOwner4 { open_seqid: 0, open_stateid, lock_seqid: 0, lock_owner }))
}

#[tokio::test(start_paused = true)]
async fn data_are_read_and_written_by_it() {
    let world = World::new().await;
    let (mut a, file, held) = setting(&world, WRITING).await;
    for op in writes(held).into_iter().chain(reads(held)) {
        assert_eq!(status(&mut a, file, op.clone()).await, Ok(()), "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn its_kind_is_its_access_mode() {
    let world = World::new().await;
    let (mut a, file, held) = setting(&world, READING).await;
    assert_eq!(status(&mut a, file, reads(held).remove(0)).await, Ok(()));
    for op in writes(held) {
        assert_eq!(status(&mut a, file, op.clone()).await, Err(NfsStat4::OpenMode), "{op:?}");
    }
}

/// "the stateid of the open file with which this lock is to be associated": an open's, or later the lock's own. A client that has nothing but a
/// delegation opens the file by it first.
#[tokio::test(start_paused = true)]
async fn locks_and_closes_take_an_open() {
    let world = World::new().await;
    let (mut a, file, held) = setting(&world, WRITING).await;
    let unlock =
        LockU4Args { locktype: LockType4::Write, seqid: 0, lock_stateid: held, offset: 0, length: 10 };
    let downgrade = OpenDowngrade4Args { open_stateid: held, seqid: 0, share_access: 1, share_deny: 0 };
    let refused = [
        first_lock(held),
        lock(Locker4::Exist(ExistLockOwner4 { lock_stateid: held, lock_seqid: 0 })),
        ArgOp4::LockU(unlock),
        ArgOp4::Close(Close4Args { seqid: 0, open_stateid: held }),
        ArgOp4::OpenDowngrade(downgrade),
    ];
    for op in refused {
        assert_eq!(status(&mut a, file, op.clone()).await, Err(NfsStat4::BadStateId), "{op:?}");
    }
    let free = ArgOp4::FreeStateId(FreeStateId4Args { stateid: held });
    assert_eq!(status(&mut a, file, free).await, Err(NfsStat4::LocksHeld));
    let open = a.open_as(file, OpenClaim4::DelegCurFh(held), share_access::BOTH).await.unwrap();
    assert_eq!(status(&mut a, file, first_lock(open.stateid)).await, Ok(()));
    // The lock stays with the open.
    let give_back = ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid: held });
    assert_eq!(status(&mut a, file, give_back).await, Ok(()));
    let mut b = Client::new(&world, "b", 0).await;
    let test = LockT4Args { locktype: LockType4::Read, offset: 0, length: 1, owner: owner("l") };
    let res = b.ask(vec![put(file), ArgOp4::LockT(test)]).await;
    assert!(matches!(&res[1], ResOp4::LockT(Err(Failure::With(_)))), "{res:?}");
}
