//! One test for each deviation from the RFCs that conformance suites found.

use super::{Client40, Session41, compound, identity, name, put};
use crate::engine::tests::world::{World, sys};
use crate::rpc::Answer;
use atoll_base::access::Cred;
use atoll_lockd::{ByteRange, LockMode, LockOwner, NlmClient};
use atoll_meta::lock::LockTest;
use atoll_meta::nfs4::{ClientId, ClientOp};
use atoll_meta::{Call, MetadataService, Op};
use atoll_proto::nfs4::{
    ArgOp4, Attr4, AttrValue4, Bitmap, ClientId4Args, Close4Args, Compound4Args, Create4Args, CreateHow4,
    CreateType4, DestroySession4Args, Failure, Fattr4, FileHandle, GetAttr4Args, LinkText4, Lock4Args,
    LockType4, Locker4, NfsStat4, Open4Args, OpenClaim4, OpenFlag4, OpenToLockOwner4, Payload, ReadDir4Args,
    ReclaimComplete4Args, Remove4Args, Rename4Args, ResOp4, SetAttr4Args, StableHow4, StateId4, StateOwner4,
    Write4Args, call,
};
use atoll_xdr::{Array, Opaque};
use std::time::Duration;

/// RFC 8881 §18.23.2.
#[tokio::test]
async fn a_listing_has_its_operation_number_once() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    client.open("f", 3, 0).await;
    let list = ReadDir4Args {
        cookie: 0,
        cookieverf: [0; 8],
        dircount: 4096,
        maxcount: 4096,
        attr_request: Bitmap::of(&[Attr4::Type as u32]),
    };
    let res = compound(&w, 0, vec![ArgOp4::PutRootFh, ArgOp4::ReadDir(list)]).await;
    let Some(ResOp4::ReadDir(Ok(listed))) = res.ops.last() else { panic!("{res:?}") };
    assert_eq!(listed.entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>(), [name("f")]);
    assert!(listed.eof);
}

/// RFC 7530 §9.1.9: what matches the owner's last step is a retransmission, also when that closed the only state.
#[tokio::test]
async fn a_close_that_comes_again_gets_its_reply() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    let (fh, open_stateid) = client.open("f", 3, 0).await;
    let close = |seqid| vec![put(&fh), ArgOp4::Close(Close4Args { seqid, open_stateid })];
    let seqid = client.next();
    let first = client.send(close(seqid)).await;
    assert_eq!(first.status, Ok(()));
    assert_eq!(client.send(close(seqid)).await, first);
    // Another step of the owner on the same state is none.
    assert_eq!(client.send(close(seqid + 1)).await.status, Err(NfsStat4::BadStateId));
}

/// RFC 7530 §16.36.5 lists NFS4ERR_ACCESS: who has learnt of a stateid may not write for that reason.
#[tokio::test]
async fn a_stateid_is_no_permission() {
    let mut w = World::new().await;
    let (fh, stateid) = {
        let mut client = Client40::new(&w, "a").await;
        client.open("f", 3, 0).await
    };
    let write = || {
        let data = Payload::copy_from(b"x").unwrap();
        let args = Write4Args { stateid, offset: 0, stable: StableHow4::FileSync, data };
        vec![put(&fh), ArgOp4::Write(args)]
    };
    assert_eq!(compound(&w, 0, write()).await.status, Ok(()));
    w.who = sys(3912, 2422, &[]);
    assert_eq!(compound(&w, 0, write()).await.status, Err(NfsStat4::Access));
}

fn lock(client: &mut Client40<'_>, fh: &FileHandle, open_stateid: StateId4, clientid: u64) -> Vec<ArgOp4> {
    let lock_owner = StateOwner4 { clientid, owner: identity("locker") };
    let new = OpenToLockOwner4 { open_seqid: client.next(), open_stateid, lock_seqid: 1, lock_owner };
    let args = Lock4Args {
        locktype: LockType4::Write,
        reclaim: false,
        offset: 0,
        length: 10,
        locker: Locker4::New(new),
    };
    vec![put(fh), ArgOp4::Lock(args)]
}

/// RFC 7530 §16.10.4: the lock owner is one of the client that has the open.
#[tokio::test]
async fn a_lock_is_for_an_owner_of_the_opens_client() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    let other = Client40::new(&w, "b").await;
    let (fh, open) = client.open("f", 3, 0).await;
    let (id, others, unknown) = (client.id, other.id, client.id + 1000);
    let ops = lock(&mut client, &fh, open, unknown);
    assert_eq!(client.send(ops).await.status, Err(NfsStat4::StaleClientId));
    client.seqid -= 1;
    let ops = lock(&mut client, &fh, open, others);
    assert_eq!(client.send(ops).await.status, Err(NfsStat4::BadStateId));
    client.seqid -= 1;
    let ops = lock(&mut client, &fh, open, id);
    assert_eq!(client.send(ops).await.status, Ok(()));
}

/// Time passes, and one client says that it is there.
async fn outlive(w: &World, living: &Client40<'_>) {
    let step = w.engine.lease() / 2;
    for _ in 0..3 {
        tokio::time::advance(step + Duration::from_secs(1)).await;
        let renew = ArgOp4::Renew(ClientId4Args { clientid: living.id });
        assert_eq!(living.send(vec![renew]).await.status, Ok(()));
    }
}

/// RFC 7530 §9.6.3: the first OPEN that conflicts with a lapsed client's succeeds, and that client is told so.
#[tokio::test(start_paused = true)]
async fn an_open_of_a_lapsed_client_makes_way() {
    let w = World::new().await;
    let mut lapsed = Client40::new(&w, "a").await;
    let (fh, open_stateid) = lapsed.open("f", 3, 2).await;
    let mut bystander = Client40::new(&w, "c").await;
    let (_, kept) = bystander.open("f", 1, 0).await;
    let mut living = Client40::new(&w, "b").await;
    outlive(&w, &living).await;
    living.open("f", 2, 0).await;

    let seqid = lapsed.next();
    let close = ArgOp4::Close(Close4Args { seqid, open_stateid });
    assert_eq!(lapsed.send(vec![put(&fh), close]).await.status, Err(NfsStat4::Expired));
    let renew = ArgOp4::Renew(ClientId4Args { clientid: lapsed.id });
    assert_eq!(lapsed.send(vec![renew]).await.status, Err(NfsStat4::Expired));
    // Who was in nobody's way goes on, though its lease is over, too.
    let seqid = bystander.next();
    let close = ArgOp4::Close(Close4Args { seqid, open_stateid: kept });
    assert_eq!(bystander.send(vec![put(&fh), close]).await.status, Ok(()));
}

/// The same for LOCK.
#[tokio::test(start_paused = true)]
async fn a_lock_of_a_lapsed_client_makes_way() {
    let w = World::new().await;
    let mut lapsed = Client40::new(&w, "a").await;
    let (fh, open) = lapsed.open("f", 3, 0).await;
    let id = lapsed.id;
    let ops = lock(&mut lapsed, &fh, open, id);
    assert_eq!(lapsed.send(ops).await.status, Ok(()));
    let mut living = Client40::new(&w, "b").await;
    let (_, open) = living.open("f", 3, 0).await;
    let id = living.id;
    let ops = lock(&mut living, &fh, open, id);
    assert_eq!(living.send(ops).await.status, Err(NfsStat4::Denied));
    outlive(&w, &living).await;
    let ops = lock(&mut living, &fh, open, id);
    assert_eq!(living.send(ops).await.status, Ok(()));
}

/// A denial names who is in the way now, not who just went.
#[tokio::test(start_paused = true)]
async fn a_denied_lock_names_a_holder_that_is_there() {
    let w = World::new().await;
    let shared = |mut ops: Vec<ArgOp4>| {
        let Some(ArgOp4::Lock(args)) = ops.last_mut() else { panic!() };
        args.locktype = LockType4::Read;
        ops
    };
    let mut lapsed = Client40::new(&w, "a").await;
    let mut living = Client40::new(&w, "b").await;
    let mut fh = None;
    for holder in [&mut lapsed, &mut living] {
        let (handle, open) = holder.open("f", 3, 0).await;
        let id = holder.id;
        let ops = shared(lock(holder, &handle, open, id));
        assert_eq!(holder.send(ops).await.status, Ok(()));
        fh = Some(handle);
    }
    let fh = fh.unwrap();
    outlive(&w, &living).await;
    let mut asking = Session41::new(&w, "c").await;
    let reclaimed = ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false });
    assert_eq!(asking.send(vec![reclaimed]).await.status, Ok(()));
    let open = Open4Args {
        seqid: 0,
        share_access: 3,
        share_deny: 0,
        owner: StateOwner4 { clientid: 0, owner: identity("o") },
        openhow: OpenFlag4::NoCreate,
        claim: OpenClaim4::Fh,
    };
    let res = asking.send(vec![put(&fh), ArgOp4::Open(Box::new(open))]).await;
    let Some(ResOp4::Open(Ok(opened))) = res.ops.last() else { panic!("{res:?}") };
    let new = OpenToLockOwner4 {
        open_seqid: 0,
        open_stateid: opened.stateid,
        lock_seqid: 0,
        lock_owner: StateOwner4 { clientid: 0, owner: identity("locker") },
    };
    let args = Lock4Args {
        locktype: LockType4::Write,
        reclaim: false,
        offset: 0,
        length: 10,
        locker: Locker4::New(new),
    };
    let res = asking.send(vec![put(&fh), ArgOp4::Lock(args)]).await;
    let Some(ResOp4::Lock(Err(Failure::With(denied)))) = res.ops.last() else { panic!("{res:?}") };
    assert_eq!(denied.owner.clientid, living.id);
    let renew = ArgOp4::Renew(ClientId4Args { clientid: lapsed.id });
    assert_eq!(lapsed.send(vec![renew]).await.status, Err(NfsStat4::Expired));
}

/// Who may not remove a file has nobody make way.
#[tokio::test(start_paused = true)]
async fn a_removal_that_is_forbidden_ends_nobody() {
    let mut w = World::new().await;
    let (root, living) = (sys(0, 0, &[]), sys(1000, 1000, &[]));
    let (fh, open_stateid, id, seqid) = {
        let mut holder = Client40::new(&w, "a").await;
        let (fh, open) = holder.open("f", 3, 3).await;
        (fh, open, holder.id, holder.next())
    };
    let other = Client40::new(&w, "b").await.id;
    for _ in 0..3 {
        tokio::time::advance(w.engine.lease() / 2 + Duration::from_secs(1)).await;
        let renew = ArgOp4::Renew(ClientId4Args { clientid: other });
        assert_eq!(compound(&w, 0, vec![renew]).await.status, Ok(()));
    }
    w.who = living;
    let mut remover = Session41::new(&w, "c").await;
    let remove = vec![ArgOp4::PutRootFh, ArgOp4::Remove(Remove4Args { target: name("f") })];
    assert_eq!(remover.send(remove).await.status, Err(NfsStat4::Access));
    w.who = root;
    let close = ArgOp4::Close(Close4Args { seqid, open_stateid });
    assert_eq!(compound(&w, 0, vec![put(&fh), close]).await.status, Ok(()), "client {id} is still there");
}

/// RFC 8881 §18.25.4, §18.26.4: a file that is open and denies writing keeps its name.
#[tokio::test(start_paused = true)]
async fn what_is_open_and_denies_writing_is_not_removed() {
    let w = World::new().await;
    let mut holder = Client40::new(&w, "a").await;
    let (fh, open_stateid) = holder.open("kept", 3, 2).await;
    for (file, access, deny) in [("read", 1, 1), ("other", 3, 0), ("old", 3, 2)] {
        holder.open(file, access, deny).await;
    }
    let living = Client40::new(&w, "b").await;
    let mut remover = Session41::new(&w, "c").await;
    let remove = |file: &str| vec![ArgOp4::PutRootFh, ArgOp4::Remove(Remove4Args { target: name(file) })];
    let rename = |from: &str, to: &str| {
        let args = Rename4Args { oldname: name(from), newname: name(to) };
        vec![ArgOp4::PutRootFh, ArgOp4::SaveFh, ArgOp4::Rename(args)]
    };
    assert_eq!(remover.send(remove("kept")).await.status, Err(NfsStat4::FileOpen));
    assert_eq!(remover.send(rename("other", "kept")).await.status, Err(NfsStat4::FileOpen));
    assert_eq!(remover.send(rename("kept", "kept")).await.status, Err(NfsStat4::FileOpen));
    assert_eq!(remover.send(remove("read")).await.status, Ok(()));
    assert_eq!(remover.send(rename("kept", "moved")).await.status, Ok(()), "it has a name all the time");
    assert_eq!(remover.send(remove("moved")).await.status, Err(NfsStat4::FileOpen));
    assert_eq!(living.send(remove("old")).await.status, Ok(()), "clients of v4.0 are not used to it");
    let seqid = holder.next();
    let close = ArgOp4::Close(Close4Args { seqid, open_stateid });
    assert_eq!(holder.send(vec![put(&fh), close]).await.status, Ok(()));
    assert_eq!(remover.send(remove("moved")).await.status, Ok(()));
    holder.open("left", 3, 3).await;
    outlive(&w, &living).await;
    let mut remover = Session41::new(&w, "d").await;
    assert_eq!(remover.send(remove("left")).await.status, Ok(()), "its holder is not heard any more");
}

/// RFC 7530 §9.1.9: the step's stored reply, although the file went with it. A handle is not looked up before an operation needs its object.
#[tokio::test]
async fn a_close_that_was_the_end_of_its_file_is_answered_again() {
    let mut w = World::new().await;
    let mut holder = Client40::new(&w, "a").await;
    let (fh, open_stateid) = holder.open("f", 3, 0).await;
    let remove = ArgOp4::Remove(Remove4Args { target: name("f") });
    assert_eq!(holder.send(vec![ArgOp4::PutRootFh, remove]).await.status, Ok(()));
    let seqid = holder.next();
    let close = || vec![put(&fh), ArgOp4::Close(Close4Args { seqid, open_stateid })];
    let first = holder.send(close()).await;
    assert_eq!(first.status, Ok(()));
    assert_eq!(holder.send(close()).await, first);
    let gone = vec![put(&fh), ArgOp4::GetAttr(GetAttr4Args { attr_request: Bitmap::of(&[1]) })];
    assert_eq!(holder.send(gone).await.status, Err(NfsStat4::Stale));
    w.crash().await;
    assert_eq!(compound(&w, 0, close()).await, first);
}

/// And for a lock of NLM, whose clients know nothing of leases.
#[tokio::test(start_paused = true)]
async fn a_lock_of_a_lapsed_client_makes_way_for_nlm() {
    let w = World::new().await;
    let mut lapsed = Client40::new(&w, "a").await;
    let (fh, open) = lapsed.open("f", 3, 0).await;
    let id = lapsed.id;
    let ops = lock(&mut lapsed, &fh, open, id);
    assert_eq!(lapsed.send(ops).await.status, Ok(()));
    let handle = w.engine.handle_key.open(fh.as_slice()).unwrap();
    let owner = LockOwner::nlm(NlmClient::new(b"host".to_vec(), None).unwrap(), b"oh", 1).unwrap();
    let (ino, generation) = (handle.ino, handle.generation);
    let test = LockTest { ino, generation, owner, range: ByteRange::WHOLE, mode: LockMode::Exclusive };
    assert!(w.engine.clear_way(&test).await.unwrap().is_some());
    let living = Client40::new(&w, "b").await;
    outlive(&w, &living).await;
    assert_eq!(w.engine.clear_way(&test).await, Ok(None));
}

/// RFC 7530 §13.1.5.3: a lease is cancelled when its client comes back after a restart of its own.
#[tokio::test]
async fn stateids_from_before_a_clients_restart_have_expired() {
    let w = World::new().await;
    let mut before = Client40::new(&w, "a").await;
    let (fh, open_stateid) = before.open("f", 3, 0).await;
    let after = Client40::with_verifier(&w, "a", [2; 8]).await;
    assert_ne!(before.id, after.id);
    let seqid = before.next();
    let close = ArgOp4::Close(Close4Args { seqid, open_stateid });
    assert_eq!(before.send(vec![put(&fh), close]).await.status, Err(NfsStat4::Expired));
    // One that nobody ever had is another cluster's.
    let mut foreign = open_stateid;
    foreign.other[8] ^= 1;
    let close = ArgOp4::Close(Close4Args { seqid, open_stateid: foreign });
    assert_eq!(before.send(vec![put(&fh), close]).await.status, Err(NfsStat4::StaleStateId));
}

/// RFC 7530 §16.16.5: SYMLINK "is returned for both symlinks and for special files of other types".
#[tokio::test]
async fn special_files_are_refused_as_symbolic_links_are() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    client.open("f", 3, 0).await;
    let createattrs = Fattr4 { mask: Bitmap::EMPTY, values: Default::default() };
    let fifo = Create4Args { objtype: CreateType4::Fifo, objname: name("p"), createattrs };
    assert_eq!(client.send(vec![ArgOp4::PutRootFh, ArgOp4::Create(fifo)]).await.status, Ok(()));
    let open = client.open_args("p", 1, 0, false);
    let res = client.send(vec![ArgOp4::PutRootFh, open]).await;
    assert_eq!(res.status, Err(NfsStat4::Symlink));
}

/// RFC 7530 §16.16.4: of an existing file nothing is set but a size of zero.
#[tokio::test]
async fn unchecked_creation_of_an_existing_file_only_cuts_it_off() {
    let w = World::new().await;
    let mut client = Client40::new(&w, "a").await;
    let (fh, stateid) = client.open("f", 3, 0).await;
    let data = Payload::copy_from(&[1; 32]).unwrap();
    let write = Write4Args { stateid, offset: 0, stable: StableHow4::FileSync, data };
    assert_eq!(client.send(vec![put(&fh), ArgOp4::Write(write)]).await.status, Ok(()));
    for (size, left, set) in [(16_u64, 32, Bitmap::EMPTY), (0, 0, Bitmap::of(&[Attr4::Size as u32]))] {
        let ArgOp4::Open(open) = client.open_args("f", 3, 0, true) else { unreachable!() };
        let values = Opaque::copy_from(&size.to_be_bytes()).unwrap();
        let attrs = Fattr4 { mask: Bitmap::of(&[Attr4::Size as u32]), values };
        let open = Open4Args { openhow: OpenFlag4::Create(CreateHow4::Unchecked(attrs)), ..*open };
        let res = client.send(vec![ArgOp4::PutRootFh, ArgOp4::Open(Box::new(open))]).await;
        let Some(ResOp4::Open(Ok(opened))) = res.ops.last() else { panic!("{res:?}") };
        assert_eq!(opened.attrset, set);
        assert_eq!(w.getattr(w.lookup(w.root, "f").await.unwrap().object).await.size, left);
    }
}

/// RFC 8881 §18.37.3: DESTROY_SESSION "MUST be the final operation" of a request of that session.
#[tokio::test]
async fn a_session_is_not_destroyed_in_the_middle_of_its_request() {
    let w = World::new().await;
    let (mut one, mut other) = (Session41::new(&w, "a").await, Session41::new(&w, "b").await);
    let destroy = |sessionid| ArgOp4::DestroySession(DestroySession4Args { sessionid });
    let res = one.send(vec![destroy(one.id), ArgOp4::PutRootFh]).await;
    assert_eq!((res.status, res.ops.len()), (Err(NfsStat4::NotOnlyOp), 2));
    let res = one.send(vec![destroy(other.id), ArgOp4::PutRootFh]).await;
    assert_eq!(res.status, Ok(()), "another session may end anywhere");
    assert_eq!(other.send(vec![]).await.status, Err(NfsStat4::BadSession));
    let res = one.send(vec![ArgOp4::PutRootFh, destroy(one.id)]).await;
    assert_eq!(res.status, Ok(()));
    assert_eq!(one.send(vec![]).await.status, Err(NfsStat4::BadSession));
}

/// RFC 8881 §15.2: BADSESSION is for SEQUENCE to say. Who meets it behind SEQUENCE gets no answer, and hears it when it asks again.
#[tokio::test]
async fn a_session_that_ends_under_its_request_is_told_of_by_sequence() {
    let w = World::new().await;
    for (file, size) in [("small", 10), ("large", 200_000), ("read", 0)] {
        let mut session = Session41::new(&w, file).await;
        let fh = FileHandle::new(w.create(w.root, file).await.as_slice()).unwrap();
        let data = Payload::copy_from(&vec![1; size]).unwrap();
        let write =
            Write4Args { stateid: StateId4::ANONYMOUS, offset: 0, stable: StableHow4::FileSync, data };
        let attr_request = Bitmap::of(&[Attr4::Size as u32]);
        let ops = match file {
            "read" => vec![
                put(&fh),
                ArgOp4::GetAttr(GetAttr4Args { attr_request }),
                ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false }),
            ],
            _ => vec![put(&fh), ArgOp4::Write(write)],
        };
        let ops = Array::new(session.next(ops)).unwrap();
        let args = Compound4Args { tag: Default::default(), minorversion: 1, ops };
        let gate = w.meta.hold_next_read();
        let behind_sequence = async {
            gate.reached.notified().await;
            expire_first(&w).await;
            gate.go_on.notify_one();
        };
        let (answer, ()) = tokio::join!(w.raw::<call::Compound>(1, &args), behind_sequence);
        assert!(matches!(answer, Answer::Disconnect), "{answer:?}");
        assert_eq!(w.call::<call::Compound>(args).await.status, Err(NfsStat4::BadSession));
        assert_eq!(w.getattr(w.lookup(w.root, file).await.unwrap().object).await.size, 0);
        assert_eq!(w.blocks.count(), 0, "nothing is left of it");
    }
}

/// Has the oldest client forgotten, by another frontend.
async fn expire_first(w: &World) {
    let client = w.meta.clients(ClientId(0), 1).await.unwrap().pop().unwrap();
    let op = Op::Client(ClientOp::Expire(client.id));
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
    assert_eq!(w.meta.apply(call).result.map(drop), Ok(()));
}

/// What this frontend has seen of a session does not outlive it, whoever ended it.
#[tokio::test]
async fn a_session_that_ended_elsewhere_is_unknown() {
    let w = World::new().await;
    let mut session = Session41::new(&w, "a").await;
    let mut other = Session41::new(&w, "b").await;
    for _ in 0..2 {
        assert_eq!(session.send(vec![]).await.status, Ok(()));
    }
    expire_first(&w).await;
    assert_eq!(session.send(vec![]).await.status, Err(NfsStat4::BadSession));
    assert_eq!(other.send(vec![]).await.status, Ok(()));
}

/// RFC 8881 §15.2: CREATE and its like know no SYMLINK and no FBIG, SETATTR no ISDIR.
#[tokio::test]
async fn statuses_are_those_of_the_operation() {
    let w = World::new().await;
    let mut session = Session41::new(&w, "a").await;
    let fifo = |name_of: &str, attrs: &[AttrValue4]| {
        let createattrs = Fattr4::build(attrs).unwrap();
        ArgOp4::Create(Create4Args { objtype: CreateType4::Fifo, objname: name(name_of), createattrs })
    };
    let link = Create4Args {
        objtype: CreateType4::SymLink(LinkText4::copy_from(b"x").unwrap()),
        objname: name("link"),
        createattrs: Fattr4::default(),
    };
    let in_link = vec![ArgOp4::PutRootFh, ArgOp4::Create(link), fifo("f", &[])];
    assert_eq!(session.send(in_link).await.status, Err(NfsStat4::NotDir));
    let huge = vec![ArgOp4::PutRootFh, fifo("f", &[AttrValue4::Size(u64::MAX)])];
    assert_eq!(session.send(huge).await.status, Err(NfsStat4::Inval));
    let obj_attributes = Fattr4::build(&[AttrValue4::Size(0)]).unwrap();
    let cut = ArgOp4::SetAttr(SetAttr4Args { stateid: StateId4::ANONYMOUS, obj_attributes });
    assert_eq!(session.send(vec![ArgOp4::PutRootFh, cut]).await.status, Err(NfsStat4::Inval));
}
