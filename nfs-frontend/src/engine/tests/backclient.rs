//! A client of v4.1 that answers callbacks, as Linux does.

use super::world::World;
use crate::rpc::Answer;
use crate::server::reverse::Reverse;
use atoll_proto::nfs4::callback::{
    CbArgOp4, CbCompound4Args, CbCompound4Res, CbResOp4, CbSequence4Args, CbSequence4Ok,
};
use atoll_proto::nfs4::{
    ArgOp4, BindConnToSession4Args, CbSecParms4, ChannelAttrs4, ClientOwner4, Compound4Args, Compound4Res,
    CreateSession4Args, DirFromClient4, DirFromServer4, ExchangeId4Args, Failure, FileHandle, Identity,
    Lock4Args, LockType4, LockU4Args, Locker4, Lookup4Args, Name4, NfsStat4, Open4Args, Open4Res, OpenClaim4,
    OpenFlag4, OpenToLockOwner4, PutFh4Args, ReclaimComplete4Args, ResOp4, Sequence4Args, StateId4,
    StateOwner4, StateProtect4Args, Tag, create_session,
};
use atoll_proto::rpc::{CallHeader, ReplyHeader};
use atoll_xdr::{Array, Decoder, Encoder};
use bytes::Bytes;
use std::future::poll_fn;
use std::task::Poll;

pub(super) const BACK: u32 = create_session::CONN_BACK_CHAN;

pub(super) fn put(object: FileHandle) -> ArgOp4 {
    ArgOp4::PutFh(PutFh4Args { object })
}

pub(super) fn lookup(name: &str) -> ArgOp4 {
    ArgOp4::Lookup(Lookup4Args { objname: Name4::copy_from(name.as_bytes()).unwrap() })
}

pub(super) fn root(world: &World) -> FileHandle {
    FileHandle::new(world.root.as_slice()).unwrap()
}

const NFS: u32 = 100_003;

/// A client of v4.1 with one session, its connection, and the slots of its backchannel as Linux keeps them.
pub(super) struct Client<'a> {
    pub(super) world: &'a World,
    pub(super) connection: Option<Reverse>,
    pub(super) session: [u8; 16],
    pub(super) seqid: u32,
    pub(super) slots: Vec<u32>,
    pub(super) flags: u32,
    pub(super) minor: u32,
}

/// A callback as the client got it.
pub(super) struct Called {
    pub(super) xid: u32,
    pub(super) args: CbCompound4Args,
}

impl Called {
    pub(super) fn sequence(&self) -> &CbSequence4Args {
        match self.args.ops.first() {
            Some(CbArgOp4::Sequence(sequence)) => sequence,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn owner(&self) -> Option<Bytes> {
        match self.args.ops.get(1)? {
            CbArgOp4::NotifyLock(args) => Some(args.lock_owner.owner.as_bytes().clone()),
            _ => None,
        }
    }
}

pub(super) fn channel() -> ChannelAttrs4 {
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
    pub(super) async fn new(world: &'a World, name: &str, flags: u32) -> Self {
        Self::of_minor(world, name, flags, 1).await
    }

    pub(super) async fn of_minor(world: &'a World, name: &str, flags: u32, minor: u32) -> Self {
        let connection = Some(Reverse::new());
        let mut new =
            Self { world, connection, session: [0; 16], seqid: 0, slots: vec![0; 4], flags: 0, minor };
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

    /// Sends a COMPOUND.
    pub(super) async fn send(&self, ops: Vec<ArgOp4>) -> Answer {
        let mut e = Encoder::new();
        e.put(&Compound4Args {
            tag: Tag::default(),
            minorversion: self.minor,
            ops: Array::new(ops).unwrap(),
        });
        let mut call = self.world.rpc(self.world.next_xid(), NFS, 4, 1, e.into_bytes());
        call.connection = self.connection.as_ref().map(Reverse::handle);
        self.world.engine.nfs4(call, Encoder::new()).await
    }

    pub(super) async fn compound(&self, ops: Vec<ArgOp4>) -> Vec<ResOp4> {
        let Answer::Success(reply) = self.send(ops).await else { panic!() };
        let res: Compound4Res = Decoder::new(reply.into_bytes()).decode().unwrap();
        res.ops.into_vec()
    }

    /// SEQUENCE of the next request.
    pub(super) fn next_sequence(&mut self) -> ArgOp4 {
        self.seqid += 1;
        ArgOp4::Sequence(Sequence4Args {
            sessionid: self.session,
            sequenceid: self.seqid,
            slotid: 0,
            highest_slotid: 0,
            cachethis: false,
        })
    }

    /// Operations on the session; their results without that of SEQUENCE, whose flags are noted.
    pub(super) async fn ask(&mut self, mut ops: Vec<ArgOp4>) -> Vec<ResOp4> {
        ops.insert(0, self.next_sequence());
        let mut res = self.compound(ops).await;
        match res.remove(0) {
            ResOp4::Sequence(Ok(ok)) => self.flags = ok.status_flags,
            other => panic!("{other:?}"),
        }
        res
    }

    pub(super) async fn open(&mut self, root: FileHandle, name: &str) -> (FileHandle, StateId4, u32) {
        let claim = OpenClaim4::Null(Name4::copy_from(name.as_bytes()).unwrap());
        let open = self.open_as(root, claim, 3).await.unwrap();
        let res = self.ask(vec![put(root), lookup(name), ArgOp4::GetFh]).await;
        match &res[..] {
            [_, _, ResOp4::GetFh(Ok(fh))] => (fh.object, open.stateid, open.rflags),
            other => panic!("{other:?}"),
        }
    }

    /// OPEN without creating, of a directory or file.
    pub(super) async fn open_as(&mut self, at: FileHandle, claim: OpenClaim4, share_access: u32) -> Open4Res {
        let open = Open4Args {
            seqid: 0,
            share_access,
            share_deny: 0,
            owner: owner("o"),
            openhow: OpenFlag4::NoCreate,
            claim,
        };
        match self.ask(vec![put(at), ArgOp4::Open(Box::new(open))]).await.pop() {
            Some(ResOp4::Open(res)) => res,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn lock(&mut self, file: FileHandle, open: StateId4, waits: bool) -> Option<StateId4> {
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

    pub(super) async fn unlock(&mut self, file: FileHandle, lock_stateid: StateId4) {
        let args = LockU4Args { locktype: LockType4::Write, seqid: 0, lock_stateid, offset: 0, length: 10 };
        let put = ArgOp4::PutFh(PutFh4Args { object: file });
        let res = self.ask(vec![put, ArgOp4::LockU(args)]).await;
        assert!(matches!(res[1], ResOp4::LockU(Ok(_))), "{res:?}");
    }

    pub(super) async fn bind(&mut self, dir: DirFromClient4) -> Result<DirFromServer4, NfsStat4> {
        let args = BindConnToSession4Args { sessionid: self.session, dir, use_conn_in_rdma_mode: false };
        let res = self.compound(vec![ArgOp4::BindConnToSession(args)]).await;
        match &res[..] {
            [ResOp4::BindConnToSession(res)] => res.map(|ok| ok.dir),
            other => panic!("{other:?}"),
        }
    }

    /// The next callback.
    pub(super) async fn called(&self) -> Called {
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

    pub(super) fn answer(&self, called: &Called, sequence: Result<(), NfsStat4>, then: Result<(), NfsStat4>) {
        self.answer_with(called, sequence, then, None);
    }

    /// With a result of its own behind CB_SEQUENCE.
    pub(super) fn answer_with(
        &self,
        called: &Called,
        sequence: Result<(), NfsStat4>,
        then: Result<(), NfsStat4>,
        result: Option<CbResOp4>,
    ) {
        let args = called.sequence();
        let ok = CbSequence4Ok {
            sessionid: args.sessionid,
            sequenceid: args.sequenceid,
            slotid: args.slotid,
            highest_slotid: 3,
            target_highest_slotid: 3,
        };
        let mut ops = vec![CbResOp4::Sequence(sequence.map(|()| ok))];
        if sequence.is_ok()
            && let Some(op) = called.args.ops.get(1)
        {
            ops.push(result.unwrap_or_else(|| match then {
                Ok(()) => match op {
                    CbArgOp4::NotifyLock(_) => CbResOp4::NotifyLock(Ok(())),
                    CbArgOp4::Recall(_) => CbResOp4::Recall(Ok(())),
                    CbArgOp4::RecallSlot(_) => CbResOp4::RecallSlot(Ok(())),
                    CbArgOp4::Notify(_) => CbResOp4::Notify(Ok(())),
                    CbArgOp4::Offload(_) => CbResOp4::Offload(Ok(())),
                    other => panic!("{other:?}"),
                },
                Err(status) => op.op().failed(status),
            }));
        }
        let status = sequence.and(then);
        let res = CbCompound4Res { status, tag: Tag::default(), ops: Array::new(ops).unwrap() };
        let mut e = Encoder::new();
        e.put(&ReplyHeader::accepted(called.xid, atoll_proto::rpc::Accepted::Success));
        e.put(&res);
        assert!(self.connection.as_ref().unwrap().reply(called.xid, e.into_bytes()));
    }

    /// Answers callbacks as Linux does, until one tells of a lock; its owner.
    pub(super) async fn told(&mut self) -> Bytes {
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

pub(super) fn owner(name: &str) -> StateOwner4 {
    StateOwner4 { clientid: 0, owner: Identity::copy_from(name.as_bytes()).unwrap() }
}
