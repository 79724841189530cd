//! The backchannel of a session, and locks that are offered over it.

use super::world::World;
use crate::rpc::Answer;
use crate::server::reverse::Reverse;
use atoll_base::access::Cred;
use atoll_meta::lock::LockOp;
use atoll_meta::{Call, Op};
use atoll_proto::nfs4::callback::{
    CbArgOp4, CbCompound4Args, CbCompound4Res, CbOpNum4, CbResOp4, CbSequence4Args, CbSequence4Ok,
};
use atoll_proto::nfs4::{
    ArgOp4, BindConnToSession4Args, CbSecParms4, ChannelAttrs4, ClientOwner4, Compound4Args, Compound4Res,
    CreateSession4Args, DirFromClient4, DirFromServer4, ExchangeId4Args, Failure, FileHandle, Identity,
    Lock4Args, LockType4, LockU4Args, Locker4, Name4, NfsStat4, Open4Args, OpenClaim4, OpenFlag4,
    OpenToLockOwner4, PutFh4Args, ReclaimComplete4Args, ResOp4, Sequence4Args, StateId4, StateOwner4,
    StateProtect4Args, Tag, create_session, open_result, seq_status,
};
use atoll_proto::rpc::{CallHeader, ReplyHeader};
use atoll_xdr::{Array, Decoder, Encoder};
use bytes::Bytes;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

const NFS: u32 = 100_003;

/// A client of v4.1 with one session, its connection, and the slots of its backchannel as Linux keeps them.
struct Client<'a> {
    world: &'a World,
    connection: Option<Reverse>,
    session: [u8; 16],
    seqid: u32,
    slots: Vec<u32>,
    flags: u32,
}

/// A callback as the client got it.
struct Called {
    xid: u32,
    args: CbCompound4Args,
}

impl Called {
    fn sequence(&self) -> &CbSequence4Args {
        match self.args.ops.first() {
            Some(CbArgOp4::Sequence(sequence)) => sequence,
            other => panic!("{other:?}"),
        }
    }

    fn owner(&self) -> Option<Bytes> {
        match self.args.ops.get(1)? {
            CbArgOp4::NotifyLock(args) => Some(args.lock_owner.owner.as_bytes().clone()),
            other => panic!("{other:?}"),
        }
    }
}

fn channel() -> ChannelAttrs4 {
    ChannelAttrs4 {
        headerpadsize: 0,
        maxrequestsize: 4096,
        maxresponsesize: 4096,
        maxresponsesize_cached: 1024,
        maxoperations: 8,
        maxrequests: 4,
        rdma_ird: None,
    }
}

impl<'a> Client<'a> {
    async fn new(world: &'a World, name: &str, flags: u32) -> Self {
        let connection = Some(Reverse::new());
        let mut new = Self { world, connection, session: [0; 16], seqid: 0, slots: vec![0; 4], flags: 0 };
        let id = ExchangeId4Args {
            clientowner: ClientOwner4 {
                verifier: [1; 8],
                ownerid: Identity::copy_from(name.as_bytes()).unwrap(),
            },
            flags: 0,
            state_protect: StateProtect4Args::None,
            client_impl_id: None,
        };
        let res = new.compound(vec![ArgOp4::ExchangeId(Box::new(id))]).await;
        let [ResOp4::ExchangeId(Ok(id))] = &res[..] else { panic!("{res:?}") };
        let make = CreateSession4Args {
            clientid: id.clientid,
            sequence: id.sequenceid,
            flags,
            fore_chan_attrs: channel(),
            back_chan_attrs: channel(),
            cb_program: 0x4000_0000,
            sec_parms: Array::new(vec![CbSecParms4::None]).unwrap(),
        };
        let res = new.compound(vec![ArgOp4::CreateSession(make)]).await;
        let [ResOp4::CreateSession(Ok(made))] = &res[..] else { panic!("{res:?}") };
        assert_eq!(made.flags, flags);
        new.session = made.sessionid;
        new.ask(vec![ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false })]).await;
        new
    }

    async fn compound(&self, ops: Vec<ArgOp4>) -> Vec<ResOp4> {
        let mut e = Encoder::new();
        e.put(&Compound4Args { tag: Tag::default(), minorversion: 1, ops: Array::new(ops).unwrap() });
        let mut call = self.world.rpc(self.world.next_xid(), NFS, 4, 1, e.into_bytes());
        call.connection = self.connection.as_ref().map(Reverse::handle);
        let Answer::Success(reply) = self.world.engine.nfs4(call, Encoder::new()).await else { panic!() };
        let res: Compound4Res = Decoder::new(reply.into_bytes()).decode().unwrap();
        res.ops.into_vec()
    }

    /// Operations on the session; their results without that of SEQUENCE, whose flags are noted.
    async fn ask(&mut self, mut ops: Vec<ArgOp4>) -> Vec<ResOp4> {
        self.seqid += 1;
        let sequence = Sequence4Args {
            sessionid: self.session,
            sequenceid: self.seqid,
            slotid: 0,
            highest_slotid: 0,
            cachethis: false,
        };
        ops.insert(0, ArgOp4::Sequence(sequence));
        let mut res = self.compound(ops).await;
        match res.remove(0) {
            ResOp4::Sequence(Ok(ok)) => self.flags = ok.status_flags,
            other => panic!("{other:?}"),
        }
        res
    }

    async fn open(&mut self, root: FileHandle, name: &str) -> (FileHandle, StateId4, u32) {
        let open = Open4Args {
            seqid: 0,
            share_access: 3,
            share_deny: 0,
            owner: owner("o"),
            openhow: OpenFlag4::NoCreate,
            claim: OpenClaim4::Null(Name4::copy_from(name.as_bytes()).unwrap()),
        };
        let put = ArgOp4::PutFh(PutFh4Args { object: root });
        let res = self.ask(vec![put, ArgOp4::Open(Box::new(open)), ArgOp4::GetFh]).await;
        match &res[..] {
            [_, ResOp4::Open(Ok(open)), ResOp4::GetFh(Ok(fh))] => (fh.object, open.stateid, open.rflags),
            other => panic!("{other:?}"),
        }
    }

    async fn lock(&mut self, file: FileHandle, open: StateId4, waits: bool) -> Option<StateId4> {
        let lock = Lock4Args {
            locktype: if waits { LockType4::WriteBlocking } else { LockType4::Write },
            reclaim: false,
            offset: 0,
            length: 10,
            locker: Locker4::New(OpenToLockOwner4 {
                open_seqid: 0,
                open_stateid: open,
                lock_seqid: 0,
                lock_owner: owner("l"),
            }),
        };
        let put = ArgOp4::PutFh(PutFh4Args { object: file });
        let res = self.ask(vec![put, ArgOp4::Lock(lock)]).await;
        match &res[1] {
            ResOp4::Lock(Ok(ok)) => Some(ok.lock_stateid),
            ResOp4::Lock(Err(Failure::With(_))) => None,
            other => panic!("{other:?}"),
        }
    }

    async fn unlock(&mut self, file: FileHandle, lock_stateid: StateId4) {
        let args = LockU4Args { locktype: LockType4::Write, seqid: 0, lock_stateid, offset: 0, length: 10 };
        let put = ArgOp4::PutFh(PutFh4Args { object: file });
        let res = self.ask(vec![put, ArgOp4::LockU(args)]).await;
        assert!(matches!(res[1], ResOp4::LockU(Ok(_))), "{res:?}");
    }

    async fn bind(&mut self, dir: DirFromClient4) -> Result<DirFromServer4, NfsStat4> {
        let args = BindConnToSession4Args { sessionid: self.session, dir, use_conn_in_rdma_mode: false };
        let res = self.compound(vec![ArgOp4::BindConnToSession(args)]).await;
        match &res[..] {
            [ResOp4::BindConnToSession(res)] => res.map(|ok| ok.dir),
            other => panic!("{other:?}"),
        }
    }

    /// The next callback.
    async fn called(&self) -> Called {
        let connection = self.connection.as_ref().unwrap();
        let message = poll_fn(|cx| {
            connection.register(cx);
            connection.next_call().map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let mut d = Decoder::new(message);
        let header = CallHeader::parse(&mut d).unwrap();
        assert_eq!((header.program, header.procedure), (0x4000_0000, 1));
        Called { xid: header.xid, args: d.decode().unwrap() }
    }

    fn answer(&self, called: &Called, sequence: Result<(), NfsStat4>, then: Result<(), NfsStat4>) {
        let args = called.sequence();
        let ok = CbSequence4Ok {
            sessionid: args.sessionid,
            sequenceid: args.sequenceid,
            slotid: args.slotid,
            highest_slotid: 3,
            target_highest_slotid: 3,
        };
        let mut ops = vec![CbResOp4::Sequence(sequence.map(|()| ok))];
        if sequence.is_ok() && called.args.ops.len() > 1 {
            ops.push(CbResOp4::NotifyLock(then));
        }
        let status = sequence.and(then);
        let res = CbCompound4Res { status, tag: Tag::default(), ops: Array::new(ops).unwrap() };
        let mut e = Encoder::new();
        e.put(&ReplyHeader::accepted(called.xid, atoll_proto::rpc::Accepted::Success));
        e.put(&res);
        assert!(self.connection.as_ref().unwrap().reply(called.xid, e.into_bytes()));
    }

    /// Answers callbacks as Linux does, until one tells of a lock; its owner.
    async fn told(&mut self) -> Bytes {
        loop {
            let called = self.called().await;
            let (slot, seqid) = (called.sequence().slotid as usize, called.sequence().sequenceid);
            let last = self.slots[slot];
            if seqid == last.wrapping_add(1) {
                self.slots[slot] = seqid;
                self.answer(&called, Ok(()), Ok(()));
                if let Some(owner) = called.owner() {
                    return owner;
                }
            } else if seqid == last {
                self.answer(&called, Ok(()), Err(NfsStat4::RetryUncachedRep));
            } else {
                self.answer(&called, Err(NfsStat4::SeqMisordered), Ok(()));
            }
        }
    }
}

fn owner(name: &str) -> StateOwner4 {
    StateOwner4 { clientid: 0, owner: Identity::copy_from(name.as_bytes()).unwrap() }
}

fn settle(world: &World) {
    for waiter in world.meta.grants() {
        let op = LockOp::Settle { ino: waiter.ino, grant: waiter.grant, accepted: false };
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::Lock(op) };
        world.meta.apply(call).result.unwrap();
    }
}

fn root(world: &World) -> FileHandle {
    FileHandle::new(world.root.as_slice()).unwrap()
}

const BACK: u32 = create_session::CONN_BACK_CHAN;

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
    let mut b = Client { world: &world, connection: Some(Reverse::new()), session, seqid, slots, flags: 0 };
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
    let mut b = Client { world: &world, connection, session, seqid, slots: vec![100; 4], flags: 0 };
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
