//! What NFSv4.2 adds: extended attributes, holes, clones and copies, by COMPOUNDs as clients encode them.

use super::meta::Fault;
use super::world::World;
use crate::engine::Config;
use crate::rpc::Answer;
use atoll_meta::{Op, Source};
use atoll_proto::nfs3::{FileHandle as Handle3, StableHow};
use atoll_proto::nfs4::{
    Allocate4Args, AppDataBlock4, ArgOp4, Attr4, AttrValue4, Bitmap, CbSecParms, ChannelAttrs4, ClientOwner4,
    Clone4Args, Compound4Args, Compound4Res, Content4, Copy4Args, CreateSession4Args, ExchangeId4Args,
    FileHandle, GetAttr4Args, Identity, ListXattrs4Args, Name4, NetLoc4, NfsStat4, PutFh4Args, Read4Args,
    ReadPlusContent4, ResOp4, Seek4Args, Sequence4Args, SetXattr4Args, SetXattrOption4, StableHow4, StateId4,
    StateProtect4Args, WriteSame4Args, Xattr4Args, XattrValue4, access,
};
use atoll_xdr::{Array, Decoder, Encoder, Opaque};
use std::sync::atomic::{AtomicU32, Ordering};

/// A client of 4.2 with a session of one slot.
struct Client<'w> {
    w: &'w World,
    session: [u8; 16],
    seqid: AtomicU32,
}

async fn send(w: &World, xid: u32, ops: Vec<ArgOp4>) -> Option<Compound4Res> {
    let args = Compound4Args { tag: Default::default(), minorversion: 2, ops: Array::new(ops).unwrap() };
    let mut e = Encoder::new();
    e.put(&args);
    let call = w.rpc(xid, 100_003, 4, 1, e.into_bytes());
    match w.engine.nfs4(call, Encoder::new()).await {
        Answer::Success(reply) => {
            let mut d = Decoder::new(reply.into_bytes());
            let res = d.decode().unwrap();
            d.finish().unwrap();
            Some(res)
        }
        Answer::Disconnect => None,
        other => panic!("{other:?}"),
    }
}

impl<'w> Client<'w> {
    async fn new(w: &'w World) -> Self {
        let ownerid = Identity::copy_from(&w.next_xid().to_be_bytes()).unwrap();
        let exchange = ExchangeId4Args {
            clientowner: ClientOwner4 { verifier: [1; 8], ownerid },
            flags: 0,
            state_protect: StateProtect4Args::None,
            client_impl_id: None,
        };
        let res = send(w, w.next_xid(), vec![ArgOp4::ExchangeId(Box::new(exchange))]).await.unwrap();
        let [ResOp4::ExchangeId(Ok(client))] = &res.ops[..] else { panic!("{res:?}") };
        let channel = ChannelAttrs4 {
            headerpadsize: 0,
            maxrequestsize: 1 << 20,
            maxresponsesize: 1 << 20,
            maxresponsesize_cached: 4096,
            maxoperations: 16,
            maxrequests: 1,
            rdma_ird: None,
        };
        let create = CreateSession4Args {
            clientid: client.clientid,
            sequence: client.sequenceid,
            flags: 0,
            fore_chan_attrs: channel,
            back_chan_attrs: channel,
            cb_program: 1,
            sec_parms: CbSecParms::default(),
        };
        let res = send(w, w.next_xid(), vec![ArgOp4::CreateSession(create)]).await.unwrap();
        let [ResOp4::CreateSession(Ok(made))] = &res.ops[..] else { panic!("{res:?}") };
        Self { w, session: made.sessionid, seqid: AtomicU32::new(0) }
    }

    fn sequence(&self) -> ArgOp4 {
        ArgOp4::Sequence(Sequence4Args {
            sessionid: self.session,
            sequenceid: self.seqid.load(Ordering::Relaxed),
            slotid: 0,
            highest_slotid: 0,
            cachethis: false,
        })
    }

    /// Sends the request of the slot's present number (again).
    async fn again(&self, ops: &[ArgOp4]) -> Option<Compound4Res> {
        let mut all = vec![self.sequence()];
        all.extend_from_slice(ops);
        send(self.w, self.w.next_xid(), all).await
    }

    /// The results behind SEQUENCE.
    async fn send(&self, ops: &[ArgOp4]) -> Vec<ResOp4> {
        self.seqid.fetch_add(1, Ordering::Relaxed);
        let res = self.again(ops).await.unwrap();
        res.ops.iter().skip(1).cloned().collect()
    }

    /// The result of an operation on a file.
    async fn on(&self, file: Handle3, op: ArgOp4) -> ResOp4 {
        self.send(&[put(file), op]).await.pop().unwrap()
    }

    /// The result of an operation between two files, whose status is all there is if it fails.
    async fn between(&self, from: Handle3, to: Handle3, op: ArgOp4) -> ResOp4 {
        self.send(&[put(from), ArgOp4::SaveFh, put(to), op]).await.pop().unwrap()
    }

    async fn seek(&self, file: Handle3, offset: u64, what: Content4) -> Result<(bool, u64), NfsStat4> {
        let args = Seek4Args { stateid: StateId4::ANONYMOUS, offset, what };
        let ResOp4::Seek(res) = self.on(file, ArgOp4::Seek(args)).await else { panic!() };
        res.map(|ok| (ok.eof, ok.offset))
    }
}

fn put(file: Handle3) -> ArgOp4 {
    ArgOp4::PutFh(PutFh4Args { object: FileHandle::new(file.as_slice()).unwrap() })
}

fn name(text: &str) -> Name4 {
    Name4::copy_from(text.as_bytes()).unwrap()
}

fn set(option: SetXattrOption4, key: &str, value: &[u8]) -> ArgOp4 {
    let value = XattrValue4::copy_from(value).unwrap();
    ArgOp4::SetXattr(SetXattr4Args { option, key: name(key), value })
}

fn get(key: &str) -> ArgOp4 {
    ArgOp4::GetXattr(Xattr4Args { name: name(key) })
}

fn range(offset: u64, length: u64) -> Allocate4Args {
    Allocate4Args { stateid: StateId4::ANONYMOUS, offset, length }
}

fn clone_args(src_offset: u64, dst_offset: u64, count: u64) -> Clone4Args {
    Clone4Args {
        src_stateid: StateId4::ANONYMOUS,
        dst_stateid: StateId4::ANONYMOUS,
        src_offset,
        dst_offset,
        count,
    }
}

fn copy_args(src_offset: u64, dst_offset: u64, count: u64) -> Copy4Args {
    Copy4Args {
        src_stateid: StateId4::ANONYMOUS,
        dst_stateid: StateId4::ANONYMOUS,
        src_offset,
        dst_offset,
        count,
        consecutive: true,
        synchronous: true,
        source_server: Array::default(),
    }
}

#[tokio::test]
async fn extended_attributes_come_and_go() {
    use SetXattrOption4 as How;
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let c = Client::new(&w).await;
    let value = |bytes: &[u8]| ResOp4::GetXattr(Ok(XattrValue4::copy_from(bytes).unwrap()));
    assert_eq!(c.on(file, get("a")).await, ResOp4::GetXattr(Err(NfsStat4::NoXattr)));
    assert_eq!(c.on(file, set(How::Replace, "a", b"1")).await, ResOp4::SetXattr(Err(NfsStat4::NoXattr)));
    let change = Bitmap::of(&[Attr4::Change as u32]);
    let attr = ArgOp4::GetAttr(GetAttr4Args { attr_request: change });
    let change_of = |res: &ResOp4| match res {
        ResOp4::GetAttr(Ok(ok)) => match ok.obj_attributes.read().unwrap()[..] {
            [AttrValue4::Change(change)] => change,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let res = c.send(&[put(file), attr.clone(), set(How::Create, "a", b"1"), attr]).await;
    let [_, before, ResOp4::SetXattr(Ok(info)), after] = &res[..] else { panic!("{res:?}") };
    assert!(info.atomic);
    assert_eq!((info.before, info.after), (change_of(before), change_of(after)));
    assert!(info.after > info.before);
    assert_eq!(c.on(file, set(How::Create, "a", b"2")).await, ResOp4::SetXattr(Err(NfsStat4::Exist)));
    assert_eq!(c.on(file, get("a")).await, value(b"1"));
    let ResOp4::SetXattr(Ok(same)) = c.on(file, set(How::Either, "a", b"1")).await else { panic!() };
    assert_eq!((same.before, same.after), (info.after, info.after), "the same value changes nothing");
    assert!(matches!(c.on(file, set(How::Replace, "a", b"")).await, ResOp4::SetXattr(Ok(_))));
    assert_eq!(c.on(file, get("a")).await, value(b""));
    let list = |cookie, maxcount| ArgOp4::ListXattrs(ListXattrs4Args { cookie, maxcount });
    let ResOp4::ListXattrs(Ok(listed)) = c.on(file, list(0, 4096)).await else { panic!() };
    assert_eq!((&listed.names[..], listed.eof), (&[name("a")][..], true));
    assert_eq!(c.on(file, list(0, 20)).await, ResOp4::ListXattrs(Err(NfsStat4::TooSmall)));
    let remove = || ArgOp4::RemoveXattr(Xattr4Args { name: name("a") });
    assert!(matches!(c.on(file, remove()).await, ResOp4::RemoveXattr(Ok(_))));
    assert_eq!(c.on(file, remove()).await, ResOp4::RemoveXattr(Err(NfsStat4::NoXattr)));
    // A directory has them, too.
    assert!(matches!(c.on(w.root, set(How::Create, "d", b"1")).await, ResOp4::SetXattr(Ok(_))));
}

#[tokio::test]
async fn extended_attributes_have_bounds_and_permissions() {
    use SetXattrOption4::Either;
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.as_user(5, 5);
    let c = Client::new(&w).await;
    let long = "n".repeat(256);
    assert_eq!(c.on(file, get(&long)).await, ResOp4::GetXattr(Err(NfsStat4::NameTooLong)));
    assert_eq!(c.on(file, get("")).await, ResOp4::GetXattr(Err(NfsStat4::Inval)));
    // The file is the superuser's, 0644.
    assert_eq!(c.on(file, set(Either, "a", b"")).await, ResOp4::SetXattr(Err(NfsStat4::Access)));
    assert_eq!(c.on(file, get("a")).await, ResOp4::GetXattr(Err(NfsStat4::NoXattr)));
    let bits = access::XAREAD | access::XAWRITE | access::XALIST;
    let ask = ArgOp4::Access(atoll_proto::nfs4::Access4Args { access: bits });
    let ResOp4::Access(Ok(told)) = c.on(file, ask).await else { panic!() };
    assert_eq!((told.supported, told.access), (bits, access::XAREAD | access::XALIST));
    w.as_user(0, 0);
    let c = Client::new(&w).await;
    let big = vec![0; (64 << 10) + 1];
    assert_eq!(c.on(file, set(Either, "a", &big)).await, ResOp4::SetXattr(Err(NfsStat4::Xattr2Big)));
    assert!(matches!(c.on(file, set(Either, "a", &big[1..])).await, ResOp4::SetXattr(Ok(_))));
}

#[tokio::test]
async fn a_change_that_was_executed_is_not_executed_again() {
    let w = World::new().await;
    let (a, b) = (w.create(w.root, "a").await, w.create(w.root, "b").await);
    w.write(a, 0, &[1; 100], StableHow::FileSync).await.unwrap();
    let c = Client::new(&w).await;
    let clone = [put(a), ArgOp4::SaveFh, put(b), ArgOp4::Clone(clone_args(0, 0, 0))];
    let create = [put(a), set(SetXattrOption4::Create, "x", b"1")];
    let punch = [put(a), ArgOp4::Deallocate(range(0, 10))];
    for (ops, last) in [(&clone[..], 4), (&create[..], 2), (&punch[..], 2)] {
        c.seqid.fetch_add(1, Ordering::Relaxed);
        let wanted = |op: &Op| matches!(op, Op::Clone { .. } | Op::SetXattr { .. } | Op::Punch { .. });
        w.meta.fail_next(wanted, Fault::LostAfter);
        let mut res = c.again(ops).await;
        while res.is_none() {
            res = c.again(ops).await;
        }
        let first = res.unwrap();
        assert_eq!(first.ops.len(), last + 1, "{first:?}");
        assert_eq!(first.status, Ok(()));
        let before = w.getattr(a).await;
        assert_eq!(c.again(ops).await.unwrap(), first);
        assert_eq!(w.getattr(a).await, before);
    }
}

#[tokio::test]
async fn holes_are_found_under_what_is_dirty() {
    use Content4::{Data, Hole};
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let c = Client::new(&w).await;
    assert_eq!(c.seek(file, 0, Data).await, Err(NfsStat4::Nxio));
    w.write(file, 100, &[1; 100], StableHow::FileSync).await.unwrap();
    w.write(file, 1000, &[2; 100], StableHow::FileSync).await.unwrap();
    assert_eq!(c.seek(file, 0, Hole).await, Ok((false, 0)));
    assert_eq!(c.seek(file, 0, Data).await, Ok((false, 100)));
    assert_eq!(c.seek(file, 150, Data).await, Ok((false, 150)));
    assert_eq!(c.seek(file, 100, Hole).await, Ok((false, 200)));
    assert_eq!(c.seek(file, 1050, Hole).await, Ok((true, 1100)));
    assert_eq!(c.seek(file, 1100, Hole).await, Err(NfsStat4::Nxio));
    // Dirty: joins the first, and one behind the end.
    w.write_dirty(file, 200, &[3; 50]).await;
    w.write(file, 5000, &[4; 50], StableHow::Unstable).await.unwrap();
    assert!(w.engine.stats().dirty_files > 0);
    assert_eq!(c.seek(file, 100, Hole).await, Ok((false, 250)));
    assert_eq!(c.seek(file, 250, Data).await, Ok((false, 1000)));
    assert_eq!(c.seek(file, 1100, Data).await, Ok((false, 5000)));
    assert_eq!(c.seek(file, 1000, Hole).await, Ok((false, 1100)));
    assert_eq!(c.seek(file, 5000, Hole).await, Ok((true, 5050)));
    let dir =
        c.on(w.root, ArgOp4::Seek(Seek4Args { stateid: StateId4::ANONYMOUS, offset: 0, what: Data })).await;
    assert_eq!(dir, ResOp4::Seek(Err(NfsStat4::WrongType)));
}

#[tokio::test]
async fn a_hole_is_made_in_what_is_dirty_and_in_what_is_stored() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let c = Client::new(&w).await;
    w.write(file, 0, &vec![1; 300_000], StableHow::FileSync).await.unwrap();
    w.write_dirty(file, 100_000, &[2; 50_000]).await;
    let mut expected = w.read_all(file).await;
    let before = w.getattr(file).await;
    let args = range(90_000, 50_000);
    assert_eq!(c.on(file, ArgOp4::Deallocate(args)).await, ResOp4::Deallocate(Ok(())));
    expected[90_000..140_000].fill(0);
    assert_eq!(w.read_all(file).await, expected);
    let after = w.getattr(file).await;
    assert_eq!(after.size, before.size);
    assert!(after.mtime > before.mtime && after.ctime > before.ctime && after.used < before.used);
    assert_eq!(c.on(file, ArgOp4::Deallocate(range(0, 0))).await, ResOp4::Deallocate(Err(NfsStat4::Inval)));

    // READ_PLUS shows it.
    let read = Read4Args { stateid: StateId4::ANONYMOUS, offset: 50_000, count: 200_000 };
    let ResOp4::ReadPlus(Ok(res)) = c.on(file, ArgOp4::ReadPlus(read)).await else { panic!() };
    assert!(!res.eof);
    let (mut at, mut holes) = (50_000, Vec::new());
    for content in &res.contents[..] {
        match content {
            ReadPlusContent4::Data(data) => {
                assert_eq!(data.offset, at);
                let bytes = data.data.as_bytes();
                assert_eq!(bytes[..], expected[at as usize..][..bytes.len()]);
                at += bytes.len() as u64;
            }
            ReadPlusContent4::Hole(hole) => {
                assert_eq!(hole.offset, at);
                holes.push((hole.offset, hole.length));
                at += hole.length;
            }
        }
    }
    assert_eq!((at, holes), (250_000, vec![(90_000, 50_000)]));
}

#[tokio::test]
async fn room_is_promised_as_far_as_there_is_some() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let c = Client::new(&w).await;
    w.write(file, 0, &[1; 100], StableHow::FileSync).await.unwrap();
    assert_eq!(c.on(file, ArgOp4::Allocate(range(0, 50))).await, ResOp4::Allocate(Ok(())));
    assert_eq!(w.getattr(file).await.size, 100);
    assert_eq!(c.on(file, ArgOp4::Allocate(range(50, 150))).await, ResOp4::Allocate(Ok(())));
    assert_eq!(w.getattr(file).await.size, 200);
    assert_eq!(w.read_all(file).await[100..], [0; 100]);
    let all = 1 << 60;
    assert_eq!(c.on(file, ArgOp4::Allocate(range(0, all))).await, ResOp4::Allocate(Err(NfsStat4::NoSpc)));
    let most = u64::MAX;
    assert_eq!(c.on(file, ArgOp4::Allocate(range(1, most))).await, ResOp4::Allocate(Err(NfsStat4::FBig)));
    assert_eq!(c.on(w.root, ArgOp4::Allocate(range(0, 1))).await, ResOp4::Allocate(Err(NfsStat4::WrongType)));
}

#[tokio::test]
async fn a_clone_shares_what_is_dirty_of_both() {
    let w = World::new().await;
    let (a, b) = (w.create(w.root, "a").await, w.create(w.root, "b").await);
    let c = Client::new(&w).await;
    for (file, byte) in [(a, 1), (b, 2)] {
        w.write(file, 0, &vec![byte; 300_000], StableHow::FileSync).await.unwrap();
        w.write_dirty(file, 150_000, &vec![byte + 2; 200_000]).await;
        w.write(file, 400_000, &[byte + 4; 10], StableHow::Unstable).await.unwrap();
    }
    let (source, mut target) = (w.read_all(a).await, w.read_all(b).await);
    w.meta.take_executed();
    let res = c.between(a, b, ArgOp4::Clone(clone_args(100_000, 1_000, 250_000))).await;
    assert_eq!(res, ResOp4::Clone(Ok(())));
    assert_eq!(w.engine.stats().dirty_files, 0);
    let executed = w.meta.take_executed();
    assert!(matches!(executed.last().unwrap().op, Op::Clone { .. }));
    let puts = executed.iter().filter_map(|call| match &call.op {
        Op::Write { pieces, .. } => {
            Some(pieces.iter().filter(|p| matches!(p.source, Source::Block { .. })).count())
        }
        _ => None,
    });
    assert!(puts.sum::<usize>() > 0, "what was dirty became blocks before");
    target[1_000..251_000].copy_from_slice(&source[100_000..350_000]);
    assert_eq!(w.read_all(b).await, target);
    assert_eq!(w.read_all(a).await, source);
    // From one place of a file to another.
    let res = c.between(a, a, ArgOp4::Clone(clone_args(0, 500_000, 100_000))).await;
    assert_eq!(res, ResOp4::Clone(Ok(())));
    assert_eq!(w.read_all(a).await[500_000..], source[..100_000]);
    let over = c.between(a, a, ArgOp4::Clone(clone_args(0, 50_000, 100_000))).await;
    assert_eq!(over, ResOp4::Clone(Err(NfsStat4::Inval)));
}

#[tokio::test]
async fn a_copy_is_answered_when_it_is_done() {
    let w = World::new().await;
    let (a, b) = (w.create(w.root, "a").await, w.create(w.root, "b").await);
    let c = Client::new(&w).await;
    w.write(a, 0, &vec![7; 200_000], StableHow::FileSync).await.unwrap();
    let blocks = w.blocks.count();
    let ResOp4::Copy(Ok(copied)) = c.between(a, b, ArgOp4::Copy(copy_args(0, 0, 0))).await else { panic!() };
    assert_eq!(copied.response.count, 200_000);
    assert_eq!((copied.response.callback_id, copied.requirements.synchronous), (None, true));
    assert_eq!(w.read_all(b).await, vec![7; 200_000]);
    assert_eq!(w.blocks.count(), blocks, "no byte was copied");
    let same = c.between(a, a, ArgOp4::Copy(copy_args(0, 300_000, 10))).await;
    assert!(matches!(same, ResOp4::Copy(Err(e)) if e.status() == NfsStat4::Inval));
    let behind = c.between(a, b, ArgOp4::Copy(copy_args(100_000, 0, 100_001))).await;
    assert!(matches!(behind, ResOp4::Copy(Err(e)) if e.status() == NfsStat4::Inval));
    let mut other = copy_args(0, 0, 0);
    other.source_server = Array::new(vec![NetLoc4::Name(Default::default())]).unwrap();
    let other = c.between(a, b, ArgOp4::Copy(other)).await;
    assert!(matches!(other, ResOp4::Copy(Err(e)) if e.status() == NfsStat4::NotSupp));
}

#[tokio::test]
async fn who_may_not_read_the_source_or_write_the_target_cannot_clone() {
    let mut w = World::new().await;
    let (open, shut) = (w.create(w.root, "open").await, w.create(w.root, "shut").await);
    let dir = w.mkdir(w.root, "d", 0o777).await;
    w.write(open, 0, &[1; 10], StableHow::FileSync).await.unwrap();
    let mode = atoll_proto::nfs3::Sattr3 { mode: Some(0o600), ..Default::default() };
    let args = atoll_proto::nfs3::SetAttr3Args { object: shut, new_attributes: mode, guard: None };
    w.call::<atoll_proto::nfs3::call::SetAttr>(args).await.unwrap();
    w.as_user(5, 5);
    let own = w.create(dir, "own").await;
    let c = Client::new(&w).await;
    let clone = || ArgOp4::Clone(clone_args(0, 0, 0));
    assert_eq!(c.between(shut, own, clone()).await, ResOp4::Clone(Err(NfsStat4::Access)));
    assert_eq!(c.between(open, shut, clone()).await, ResOp4::Clone(Err(NfsStat4::Access)));
    assert_eq!(c.between(open, own, clone()).await, ResOp4::Clone(Ok(())));
    assert_eq!(c.between(dir, own, clone()).await, ResOp4::Clone(Err(NfsStat4::WrongType)));
}

#[tokio::test]
async fn a_clone_that_another_life_executed_is_answered_from_its_outcome() {
    let mut w = World::new().await;
    let (a, b) = (w.create(w.root, "a").await, w.create(w.root, "b").await);
    w.write(a, 0, &[1; 100], StableHow::FileSync).await.unwrap();
    let c = Client::new(&w).await;
    let ops = [put(a), ArgOp4::SaveFh, put(b), ArgOp4::Copy(copy_args(0, 0, 0))];
    c.seqid.fetch_add(1, Ordering::Relaxed);
    let first = c.again(&ops).await.unwrap();
    assert_eq!(first.status, Ok(()));
    let (session, seqid) = (c.session, c.seqid);
    // What a second execution would bring over.
    w.write(a, 0, &[2; 200], StableHow::FileSync).await.unwrap();
    w.crash().await;
    let c = Client { w: &w, session, seqid };
    assert_eq!(c.again(&ops).await.unwrap(), first);
    assert_eq!(w.read_all(b).await, [1; 100]);
}

/// Rooms of files are entered in order, or this would never end.
#[tokio::test]
async fn clones_both_ways_and_writes_do_not_wait_for_each_other() {
    for seed in 0..20 {
        let w = World::with(Config::default(), Some(seed)).await;
        let (a, b) = (w.create(w.root, "a").await, w.create(w.root, "b").await);
        w.write_dirty(a, 0, &[1; 5000]).await;
        w.write_dirty(b, 0, &[2; 5000]).await;
        let (one, two) = (Client::new(&w).await, Client::new(&w).await);
        let (there, back, first, second) = tokio::join!(
            one.between(a, b, ArgOp4::Clone(clone_args(0, 0, 5000))),
            two.between(b, a, ArgOp4::Clone(clone_args(0, 0, 5000))),
            w.write(a, 5000, &[3; 10], StableHow::Unstable),
            w.write(b, 5000, &[3; 10], StableHow::Unstable),
        );
        assert_eq!((there, back), (ResOp4::Clone(Ok(())), ResOp4::Clone(Ok(()))));
        assert!(first.is_ok() && second.is_ok());
        let (a, b) = (w.read_all(a).await, w.read_all(b).await);
        assert_eq!(a[..5000], b[..5000], "whichever came first, the other brought the same back");
        assert!(a[..5000] == [1; 5000] || a[..5000] == [2; 5000]);
    }
}

#[tokio::test]
async fn a_block_is_written_again_and_again_as_far_as_one_write_goes() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let c = Client::new(&w).await;
    let same = |block_count| WriteSame4Args {
        stateid: StateId4::ANONYMOUS,
        stable: StableHow4::FileSync,
        adb: AppDataBlock4 {
            offset: 10,
            block_size: 300_000,
            block_count,
            reloff_blocknum: 0,
            block_num: 1,
            reloff_pattern: 299_998,
            pattern: Opaque::copy_from(b"ok").unwrap(),
        },
    };
    let ResOp4::WriteSame(Ok(done)) = c.on(file, ArgOp4::WriteSame(same(4))).await else { panic!() };
    assert_eq!((done.count, done.committed, done.callback_id), (900_000, StableHow4::FileSync, None));
    // The same reply when it is asked for again.
    let again = c.again(&[put(file), ArgOp4::WriteSame(same(4))]).await.unwrap();
    assert_eq!(again.ops.last(), Some(&ResOp4::WriteSame(Ok(done))));
    let data = w.read_all(file).await;
    assert_eq!((data.len(), &data[..14]), (900_010, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..]));
    assert_eq!(data[300_006..300_014], [0, 0, b'o', b'k', 0, 0, 0, 2]);
    let ResOp4::WriteSame(Ok(none)) = c.on(file, ArgOp4::WriteSame(same(0))).await else { panic!() };
    assert_eq!(none.count, 0);
    let refused = c.on(w.root, ArgOp4::WriteSame(same(1))).await;
    assert_eq!(refused, ResOp4::WriteSame(Err(NfsStat4::IsDir)));
}
