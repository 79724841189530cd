//! NFSv4's state through the service: read at once, and there after a restart.

use super::*;
use atoll_base::attr::{Attr, Delegated};
use atoll_base::id::ExportId;
use atoll_lockd::{Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationWish, Intrusion};
use atoll_meta::nfs4::{
    ChannelLimits, ClientAbout, ClientId, ClientOp, ClientOutcome, OpenTarget, Principal, SessionId,
    SessionTerms, StateError, StateId, StateOp, StateOutcome,
};
use atoll_meta::{Outcome, SlotKey};
use futures_util::FutureExt;

fn terms() -> SessionTerms {
    let channel = ChannelLimits {
        header_pad: 0,
        max_request: 1 << 20,
        max_response: 1 << 20,
        max_response_cached: 4096,
        max_operations: 16,
        max_requests: 8,
    };
    SessionTerms {
        fore: channel,
        back: channel,
        persist: false,
        backchannel: false,
        callback_program: 0,
        callback_security: bytes::Bytes::new(),
    }
}

async fn on_client(meta: &LocalMetadata, op: ClientOp) -> ClientOutcome {
    match done(meta.execute(call(Op::Client(op), None)).await).result {
        Ok(Outcome::Client(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

/// A client with a session.
pub(super) async fn new_client(meta: &LocalMetadata, name: &str) -> (ClientId, SessionId) {
    let exchange = ClientOp::ExchangeId {
        owner: name.to_owned().into(),
        verifier: [1; 8],
        update: false,
        principal: Principal::Sys(0),
        about: ClientAbout::default(),
    };
    let ClientOutcome::Exchanged { client, sequence, .. } = on_client(meta, exchange).await else { panic!() };
    let principal = Principal::Sys(0);
    let create = ClientOp::CreateSession { client, sequence, principal, terms: terms() };
    let ClientOutcome::Session { session, .. } = on_client(meta, create).await else { panic!() };
    (client, session)
}

async fn on_state(meta: &LocalMetadata, op: StateOp) -> StateOutcome {
    match done(meta.execute(call(Op::State(op), None)).await).result {
        Ok(Outcome::State(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

async fn file(meta: &LocalMetadata) -> Attr {
    let root = root(meta).await;
    match done(meta.execute(call(create(root, "f"), None)).await).result {
        Ok(Outcome::Created { attr, .. }) => attr,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opens_and_slots_outlive_a_crash() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let f = file(&meta).await;
    let (client, session) = new_client(&meta, "client").await;
    let slot = SlotKey { session, slot: 2, seqid: 1, fingerprint: 5, index: 1, before: "b".into() };
    let share = Share { access: ShareBits::Both, deny: ShareBits::Write };
    let target = OpenTarget::File { ino: f.ino, generation: f.generation };
    let op = Op::State(StateOp::Open {
        client,
        owner: "owner".into(),
        share,
        target,
        delegate: None,
        under: None,
    });
    let open = Call { origin: None, once: Some(slot.into()), cred: Cred::root(), client: None, op };
    let response = done(meta.execute(open.clone()).await);
    let Ok(Outcome::State(StateOutcome::Opened { open: stateid, .. })) = &response.result else { panic!() };
    drop(meta);

    let meta = start(&disk.crash(1)).await.unwrap();
    // Ready at the first poll.
    let state = meta.state(stateid.id).now_or_never().unwrap().unwrap().unwrap();
    assert_eq!((state.stateid, state.client, state.ino), (*stateid, client, f.ino));
    assert_eq!(meta.states_of(f.ino, StateId(0), 9).now_or_never().unwrap(), Ok(vec![state.clone()]));
    assert_eq!(meta.states_by(client, StateId(0), 9).now_or_never().unwrap(), Ok(vec![state]));
    assert_eq!(meta.is_denied(f.ino, ShareBits::Write).now_or_never().unwrap(), Ok(true));
    let shown = meta.client(client).now_or_never().unwrap().unwrap().unwrap();
    assert_eq!((shown.sessions, shown.states, shown.confirmed), (1, 1, true));
    assert_eq!(meta.clients(ClientId(0), 9).now_or_never().unwrap(), Ok(vec![shown]));
    let shown = meta.session(session).now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(meta.sessions(client).now_or_never().unwrap(), Ok(vec![shown]));
    let kept = meta.slot(session, 2).now_or_never().unwrap().unwrap().unwrap();
    assert_eq!((kept.seqid, kept.index, &kept.response), (1, 1, &response));
    assert_eq!(meta.execute(open).await.unwrap(), response, "the same request again");
    on_client(&meta, ClientOp::Expire(client)).await;
    assert_eq!(meta.state(stateid.id).now_or_never().unwrap(), Ok(None));
    assert_eq!(meta.is_denied(f.ino, ShareBits::Write).now_or_never().unwrap(), Ok(false));
    meta.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_recall_is_told_once_a_life_until_it_is_answered() {
    let disk = SimDisk::new();
    let meta = Arc::new(start(&disk).await.unwrap());
    let f = file(&meta).await;
    let (client, _) = new_client(&meta, "client").await;
    let (ino, generation) = (f.ino, f.generation);
    // What getattr shows, though it was in memory before.
    assert_eq!(meta.getattr(ino).await.unwrap().delegated, Delegated::No);
    let (timestamps, instead_of_open, export) = (false, false, ExportId(1));
    let wish = DelegationWish { kind: DelegationKind::Write, timestamps, instead_of_open, export };
    let outcome = on_state(&meta, StateOp::Delegate { client, ino, generation, wish }).await;
    let StateOutcome::Delegation(DelegationOutcome::Given { stateid, .. }) = outcome else { panic!() };
    assert_eq!(meta.getattr(ino).await.unwrap().delegated, Delegated::Write);
    assert!(meta.recalled().now_or_never().is_none());
    let write = Op::Write { ino, generation, pieces: Vec::new(), flush: None };
    done(meta.execute(call(write, None)).await);
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let set = call(Op::SetAttr { ino, generation, set, guard: None }, once(1));
    let refused = meta.execute(set.clone()).await.unwrap();
    assert_eq!(refused.result, Err(StateError::Delegated.into()));
    let waiting = tokio::spawn({
        let meta = meta.clone();
        async move { meta.recalled().await }
    });
    on_state(&meta, StateOp::Recall { ino, intrusion: Intrusion::Change, except: None }).await;
    let told = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].stateid, told[0].client, told[0].ino), (stateid, client, ino));
    assert!(meta.recalled().now_or_never().is_none(), "told once");
    meta.stop().await.unwrap();
    drop(meta);

    // A new life tells again: nobody knows whether the client heard.
    let meta = start(&disk.crash(6)).await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(10), meta.recalled()).await.unwrap();
    assert_eq!(again, told);
    on_state(&meta, StateOp::Return { client, delegation: stateid }).await;
    assert_eq!(meta.getattr(ino).await.unwrap().delegated, Delegated::No);
    assert!(meta.recalled().now_or_never().is_none());
    done(meta.execute(set).await);
    meta.stop().await.unwrap();
}

/// A CLOSE that nobody waits for comes before what is asked for later, and is done when a stop is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_done_in_order_and_before_a_stop() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let f = file(&meta).await;
    let (client, _) = new_client(&meta, "client").await;
    let open = async || {
        let share = Share { access: ShareBits::Read, deny: ShareBits::None };
        let target = OpenTarget::File { ino: f.ino, generation: f.generation };
        let owner = "owner".into();
        let op = StateOp::Open { client, owner, share, target, delegate: None, under: None };
        match on_state(&meta, op).await {
            StateOutcome::Opened { open, .. } => open,
            other => panic!("{other:?}"),
        }
    };
    let (told, tells) = std::sync::mpsc::channel();
    let close = |open| {
        let told = told.clone();
        let close = call(Op::State(StateOp::Close { client, open }), None);
        assert!(meta.execute_aside(&close, Box::new(move |answer| told.send(answer).unwrap())));
    };
    let first = open().await;
    close(first);
    let second = open().await;
    assert_ne!(first.id, second.id, "the former one is closed");
    assert_eq!(meta.state(first.id).await, Ok(None));
    done(tells.recv().unwrap());
    close(second);
    meta.stop().await.unwrap();
    done(tells.recv().unwrap());
    assert_eq!(meta.state(second.id).await, Ok(None));
}
