//! Sessions that are to have fewer slots: CB_RECALL_SLOT, and what is kept of the slots that go (RFC 8881 §2.10.6.1, §20.8).

use super::backclient::{BACK, Client, put, root};
use super::world::World;
use crate::engine::v4::shares::Bounds;
use crate::server::reverse::Reverse;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::SessionId;
use atoll_proto::nfs4::callback::CbArgOp4;
use atoll_proto::nfs4::{
    ArgOp4, Create4Args, CreateType4, DestroySession4Args, DirFromClient4, DirFromServer4, Fattr4, Name4,
    NfsStat4, ResOp4, Sequence4Args, seq_status,
};

/// A request on any slot of a session: what SEQUENCE tells of slots, and the status of what follows.
async fn request(
    a: &Client<'_>,
    (slotid, sequenceid): (u32, u32),
    highest_slotid: u32,
    then: Option<&str>,
) -> Result<(u32, u32), NfsStat4> {
    let sessionid = a.session;
    let sequence = Sequence4Args { sessionid, sequenceid, slotid, highest_slotid, cachethis: true };
    let mut ops = vec![ArgOp4::Sequence(sequence)];
    if let Some(name) = then {
        let objname = Name4::copy_from(name.as_bytes()).unwrap();
        let create = Create4Args {
            objtype: CreateType4::Directory,
            objname,
            createattrs: Fattr4::build(&[]).unwrap(),
        };
        ops.extend([put(root(a.world)), ArgOp4::Create(create)]);
    }
    let res = a.compound(ops).await;
    res.last().unwrap().status()?;
    match &res[0] {
        ResOp4::Sequence(Ok(ok)) => Ok((ok.highest_slotid, ok.target_highest_slotid)),
        other => panic!("{other:?}"),
    }
}

/// Takes CB_RECALL_SLOT.
async fn recalled(a: &Client<'_>) -> u32 {
    loop {
        let called = a.called().await;
        match called.args.ops.get(1) {
            Some(CbArgOp4::RecallSlot(args)) => {
                a.answer(&called, Ok(()), Ok(()));
                return args.target_highest_slotid;
            }
            // A question for the slot's number.
            None => a.answer(&called, Ok(()), Ok(())),
            other => panic!("{other:?}"),
        }
    }
}

async fn is_kept(a: &Client<'_>, slot: u32) -> bool {
    let id = SessionId(u64::from_be_bytes(a.session[..8].try_into().unwrap()));
    a.world.meta.slot(id, slot).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_second_session_takes_slots_of_the_first() {
    let world = World::new().await;
    world.engine.v4.sessions.set_bounds(Bounds { client: 4, all: 100 });
    let a = Client::new(&world, "a", BACK).await;
    assert_eq!(request(&a, (3, 1), 3, Some("x")).await, Ok((3, 3)));
    assert!(is_kept(&a, 3).await);
    // Another client's are its own business.
    let b = Client::new(&world, "b", BACK).await;
    assert_eq!(request(&b, (3, 1), 3, None).await, Ok((3, 3)));
    let mut second = Client::new(&world, "a", BACK).await;
    assert_eq!(request(&second, (1, 1), 1, None).await, Ok((1, 1)), "it is given what is left for it");
    assert_eq!(recalled(&a).await, 1);
    // The client waits for its requests above, then says so by a request of its own (§20.8.3).
    assert_eq!(request(&a, (0, 2), 3, None).await, Ok((3, 1)));
    assert_eq!(request(&a, (3, 1), 3, Some("x")).await, Ok((3, 3)), "the first reply");
    assert_eq!(request(&a, (0, 3), 1, None).await, Ok((3, 1)));
    while is_kept(&a, 3).await {
        tokio::task::yield_now().await;
    }
    while request(&a, (3, 1), 3, Some("x")).await == Err(NfsStat4::Delay) {
        tokio::task::yield_now().await;
    }
    assert_eq!(request(&a, (3, 1), 3, Some("x")).await, Err(NfsStat4::RetryUncachedRep));
    assert_eq!(request(&a, (3, 3), 3, None).await, Err(NfsStat4::SeqMisordered));
    // There is room again.
    let gone = ArgOp4::DestroySession(DestroySession4Args { sessionid: second.session });
    assert!(second.compound(vec![gone]).await[0].status().is_ok());
    second.connection = None;
    assert_eq!(request(&a, (3, 2), 3, Some("y")).await, Ok((3, 3)));
    assert!(is_kept(&a, 3).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_not_reached_is_called_when_it_binds() {
    let world = World::new().await;
    world.engine.v4.sessions.set_bounds(Bounds { client: 4, all: 100 });
    let mut a = Client::new(&world, "a", BACK).await;
    a.connection = None;
    let _second = Client::new(&world, "a", BACK).await;
    while a.flags == 0 {
        tokio::task::yield_now().await;
        a.ask(Vec::new()).await;
    }
    assert_eq!(a.flags, seq_status::CB_PATH_DOWN_SESSION);
    a.connection = Some(Reverse::new());
    assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    assert_eq!(recalled(&a).await, 1);
    assert_eq!(a.flags, seq_status::CB_PATH_DOWN_SESSION);
    a.ask(Vec::new()).await;
    assert_eq!(a.flags, 0);
}
