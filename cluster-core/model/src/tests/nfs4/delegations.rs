//! Delegations: who is given one, and what OPEN has to do with them.

use super::super::rig::{ROOT, Rig, user};
use super::{
    BAD_STATEID, BOTH, Owner40, READ, WRITE, bytes, newest, open_file, open_name, range, refusal, stateid,
};
use crate::limits::{CLIENT_DELEGATIONS_MAX, DELEGATION_LOOK_MAX, FILE_DELEGATIONS_MAX, STATES_MAX};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, Delegated, SetAttr};
use atoll_base::id::ExportId;
use atoll_lockd::{Callback, LockMode, LockOwner, LockRequest, NlmClient, Share, ShareBits, Wait};
use atoll_meta::delegation::{
    DelegationKind, DelegationOutcome, DelegationPhase, DelegationWish, Intrusion, NoticeKinds,
};
use atoll_meta::lock::{LockOp, LockOutcome};
use atoll_meta::nfs4::{
    ClientId, ClientOp, OpenTarget, StateError, StateId, StateKind, StateOp, StateOutcome, Stateid,
};
use atoll_meta::{Call, CreateHow, Flush, FsError, NewNode, Op, Outcome};

pub(super) const fn wish(kind: DelegationKind) -> DelegationWish {
    DelegationWish { kind, timestamps: false, instead_of_open: false, export: ExportId(1) }
}

pub(super) const READING: DelegationWish = wish(DelegationKind::Read);
pub(super) const WRITING: DelegationWish = wish(DelegationKind::Write);

pub(super) fn given(outcome: &DelegationOutcome) -> Stateid {
    match outcome {
        DelegationOutcome::Given { stateid, .. } => *stateid,
        other => panic!("{other:?}"),
    }
}

impl Rig {
    pub(super) fn delegate(
        &mut self,
        client: ClientId,
        file: &Attr,
        wish: DelegationWish,
    ) -> Result<DelegationOutcome, FsError> {
        let (ino, generation) = (file.ino, file.generation);
        match self.on_state(StateOp::Delegate { client, ino, generation, wish })? {
            StateOutcome::Delegation(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn recall(&mut self, file: &Attr, intrusion: Intrusion, except: Option<ClientId>) {
        let ino = file.ino;
        self.on_state(StateOp::Recall { ino, intrusion, except }).unwrap();
    }
}

pub(super) fn nlm(host: &str) -> LockOwner {
    LockOwner::nlm(NlmClient::new(host.into(), None).unwrap(), b"oh", 1).unwrap()
}

/// An OPEN of a file that wishes for a delegation.
pub(super) fn open_wishing(
    client: ClientId,
    owner: &str,
    file: &Attr,
    share: Share,
    wish: DelegationWish,
) -> StateOp {
    let target = OpenTarget::File { ino: file.ino, generation: file.generation };
    StateOp::Open { client, owner: bytes(owner), share, target, delegate: Some(wish), under: None }
}

pub(super) fn opened_with(outcome: &StateOutcome) -> (Stateid, DelegationOutcome) {
    match outcome {
        StateOutcome::Opened { open, delegation, .. } => (*open, *delegation),
        other => panic!("{other:?}"),
    }
}

/// What a delegation allows and how far it is with it.
pub(super) fn shown(rig: &Rig, id: Stateid) -> (DelegationKind, DelegationPhase) {
    match read::state(&rig.kv, id.id).unwrap().unwrap().kind {
        StateKind::Delegation { kind, phase, .. } => (kind, phase),
        other => panic!("{other:?}"),
    }
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let [(a, _), (b, _), (c, _)] = ["a", "b", "c"].map(|name| rig.v41(name));
    let first = given(&rig.delegate(a, &f, READING).unwrap());
    assert_eq!(rig.attr(f.ino).delegated, Delegated::Read);
    assert_eq!(rig.attr(f.ino).change, f.change, "nothing has changed");
    // Again it is the same one, and of the same version.
    assert_eq!(given(&rig.delegate(a, &f, READING).unwrap()), first);
    let second = given(&rig.delegate(b, &f, READING).unwrap());
    rig.check();
    assert_eq!(rig.delegate(a, &f, WRITING), Ok(DelegationOutcome::Contention));
    assert_eq!(rig.delegate(c, &f, WRITING), Ok(DelegationOutcome::Contention));
    rig.on_state(StateOp::Return { client: b, delegation: second }).unwrap();
    // Alone now: the same stateid, of the next version, is a write delegation.
    let upgraded = given(&rig.delegate(a, &f, WRITING).unwrap());
    assert_eq!((upgraded.id, upgraded.seqid), (first.id, first.seqid + 1));
    assert_eq!(shown(&rig, first), (DelegationKind::Write, DelegationPhase::Held));
    assert_eq!(rig.attr(f.ino).delegated, Delegated::Write);
    // Who has a write delegation has what a read delegation allows.
    assert_eq!(given(&rig.delegate(a, &f, READING).unwrap()), upgraded);
    assert_eq!(rig.delegate(b, &f, READING), Ok(DelegationOutcome::Contention));
    rig.check();
    let old = StateOp::Return { client: a, delegation: first };
    assert_eq!(rig.on_state(old), refusal(StateError::OldStateid));
    let foreign = StateOp::Return { client: b, delegation: upgraded };
    assert_eq!(rig.on_state(foreign), Err(BAD_STATEID));
    let last = rig.on_state(StateOp::Return { client: a, delegation: upgraded }).unwrap();
    assert_eq!(stateid(&last).seqid, upgraded.seqid + 1);
    assert_eq!(rig.attr(f.ino).delegated, Delegated::No);
    assert_eq!(rig.on_state(StateOp::Return { client: a, delegation: upgraded }), Err(BAD_STATEID));
    rig.check();
    for client in [a, b, c] {
        rig.on_client(ClientOp::Expire(client)).unwrap();
    }
    rig.check_nothing_left();
}

#[test]
fn what_others_have_is_against_it() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let [(a, _), (b, _)] = ["a", "b"].map(|name| rig.v41(name));
    let contention = Ok(DelegationOutcome::Contention);
    let ours = rig.open(a, "o", &f, BOTH).unwrap();
    rig.lock4(a, ours.id, "l", range(0, 10), LockMode::Exclusive).unwrap();
    let alone = given(&rig.delegate(a, &f, WRITING).unwrap());
    rig.check();
    rig.on_state(StateOp::Return { client: a, delegation: alone }).unwrap();
    // Another reader: a read delegation only. To it, that we have the file open to write is against one.
    let theirs = rig.open(b, "o", &f, READ).unwrap();
    assert_eq!(rig.delegate(a, &f, WRITING), contention);
    let reading = given(&rig.delegate(a, &f, READING).unwrap());
    assert_eq!(rig.delegate(b, &f, READING), contention);
    rig.on_state(StateOp::Return { client: a, delegation: reading }).unwrap();
    rig.close(b, theirs.id).unwrap();
    let theirs = rig.open(b, "o", &f, WRITE).unwrap();
    assert_eq!(rig.delegate(a, &f, READING), contention);
    rig.close(b, theirs.id).unwrap();
    rig.close(a, ours.id).unwrap();
    // Who denies reading.
    let denies = Share { access: ShareBits::Read, deny: ShareBits::Read };
    let theirs = rig.open(b, "o", &f, denies).unwrap();
    assert_eq!(rig.delegate(a, &f, READING), contention);
    rig.close(b, theirs.id).unwrap();
    // A lock that outlives the access that it was taken with.
    let theirs = rig.open(b, "o", &f, READ).unwrap();
    rig.on_state(open_file(b, "o", &f, WRITE)).unwrap();
    rig.lock4(b, theirs.id, "l", range(0, 10), LockMode::Exclusive).unwrap();
    rig.on_state(StateOp::Downgrade { client: b, open: newest(theirs.id), share: READ }).unwrap();
    assert_eq!(rig.delegate(a, &f, READING), contention);
    rig.close(b, theirs.id).unwrap();
    // NLM's.
    let owner = nlm("host");
    let (ino, generation) = (f.ino, f.generation);
    let share =
        |share| Op::Lock(LockOp::Share { ino, generation, owner: owner.clone(), share, client_state: 0 });
    let lock = |mode| {
        let request = LockRequest { owner: owner.clone(), range: range(0, 1), mode, wait: Wait::No };
        Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 })
    };
    let unlock = LockOp::Unlock { ino, generation, owner: owner.clone(), range: range(0, 1) };
    let unshare = LockOp::Unshare { ino, generation, owner: owner.clone() };
    for (op, undo, reading) in [
        (share(READ), &unshare, true),
        (share(WRITE), &unshare, false),
        (lock(LockMode::Shared), &unlock, true),
        (lock(LockMode::Exclusive), &unlock, false),
    ] {
        rig.root(op).unwrap();
        assert_eq!(rig.delegate(a, &f, WRITING), contention);
        let outcome = rig.delegate(a, &f, READING).unwrap();
        assert_eq!(matches!(outcome, DelegationOutcome::Given { .. }), reading);
        if reading {
            let delegation = given(&outcome);
            rig.on_state(StateOp::Return { client: a, delegation }).unwrap();
        }
        rig.root(Op::Lock(undo.clone())).unwrap();
    }
    // Who waits for a lock of ours.
    let ours = rig.open(a, "o", &f, BOTH).unwrap();
    rig.lock4(a, ours.id, "l", range(0, 10), LockMode::Shared).unwrap();
    let wait = Wait::Queue(Callback::new(vec![1]).unwrap());
    let request = LockRequest { owner: owner.clone(), range: range(0, 1), mode: LockMode::Exclusive, wait };
    let waiting = rig.root(Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 }));
    let Ok(Outcome::Lock(LockOutcome::Lock(atoll_lockd::LockOutcome::Blocked(_)))) = waiting else {
        panic!("{waiting:?}")
    };
    for wish in [READING, WRITING] {
        assert_eq!(rig.delegate(a, &f, wish), contention);
    }
    let mode = LockMode::Exclusive;
    rig.root(Op::Lock(LockOp::Cancel { ino, generation, owner, range: range(0, 1), mode })).unwrap();
    given(&rig.delegate(a, &f, WRITING).unwrap());
    rig.check();
}

#[test]
fn data_that_a_frontend_may_hold_are_against_it() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, _) = rig.v41("a");
    let origin = rig.register(1);
    let (change, ctime) = rig.begin(origin, &f);
    assert_eq!(rig.delegate(a, &f, READING), Ok(DelegationOutcome::Contention));
    let flush = Flush { change, ctime, mtime: ctime, size: 0, release: true, covered: Vec::new() };
    let (ino, generation) = (f.ino, f.generation);
    let write = Op::Write { ino, generation, pieces: Vec::new(), flush: Some(flush) };
    rig.by(origin, write).unwrap();
    let delegation = given(&rig.delegate(a, &f, READING).unwrap());
    // The holder may have a lease begun, and then have more.
    let begin = Op::BeginDirty { ino, generation };
    let call = Call { origin: Some(origin), once: None, cred: Cred::root(), client: Some(a), op: begin };
    rig.call(call).result.unwrap();
    assert_eq!(given(&rig.delegate(a, &f, WRITING).unwrap()).id, delegation.id);
    rig.check();
}

#[test]
fn permission_and_types() {
    let mut rig = Rig::new();
    let f = rig.make(&Cred::root(), ROOT, "f", NewNode::Regular, 0o604);
    rig.set(&Cred::root(), &f, SetAttr { uid: Some(1), ..SetAttr::default() }).unwrap();
    let dir = rig.dir(ROOT, "dir");
    let dir = rig.attr(dir);
    let link = rig.make(&Cred::root(), ROOT, "link", NewNode::Symlink("there".into()), 0);
    let (a, _) = rig.v41("a");
    let by = |rig: &mut Rig, who: u32, file: &Attr, kind| {
        let (ino, generation) = (file.ino, file.generation);
        rig.on_state_by(&user(who), StateOp::Delegate { client: a, ino, generation, wish: wish(kind) })
    };
    use DelegationKind::{Directory, Read, Write};
    assert_eq!(by(&mut rig, 2, &f, Write), Err(FsError::AccessDenied));
    by(&mut rig, 2, &f, Read).unwrap();
    by(&mut rig, 1, &f, Write).unwrap();
    assert_eq!(by(&mut rig, 1, &dir, Read), Err(FsError::IsDirectory));
    assert_eq!(by(&mut rig, 1, &f, Directory), Err(FsError::NotDirectory));
    assert_eq!(by(&mut rig, 1, &link, Read), Err(FsError::WrongType));
    let (ino, generation) = (f.ino, f.generation ^ 1);
    let stale = StateOp::Delegate { client: a, ino, generation, wish: READING };
    assert_eq!(rig.on_state(stale), Err(FsError::Stale));
    let stranger = StateOp::Delegate { client: ClientId(7), ino, generation, wish: READING };
    assert_eq!(rig.on_state(stranger), refusal(StateError::StaleClient));
    let mut op = open_file(a, "o", &f, READ);
    if let StateOp::Open { delegate, .. } = &mut op {
        *delegate = Some(wish(Directory));
    }
    assert_eq!(rig.on_state(op), Err(FsError::Invalid));
}

#[test]
fn bounds() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let resource = Ok(DelegationOutcome::Resource);
    // Of a file.
    let clients: Vec<ClientId> = (0..=FILE_DELEGATIONS_MAX).map(|n| rig.v41(&format!("c{n}")).0).collect();
    for client in &clients[..FILE_DELEGATIONS_MAX] {
        given(&rig.delegate(*client, &f, READING).unwrap());
    }
    assert_eq!(rig.delegate(clients[FILE_DELEGATIONS_MAX], &f, READING), resource);
    rig.check();
    // Of a client: delegations, and all states.
    let a = clients[0];
    for n in 1..CLIENT_DELEGATIONS_MAX {
        let file = rig.file(&format!("more{n}"));
        given(&rig.delegate(a, &file, WRITING).unwrap());
    }
    let last = rig.file("last");
    assert_eq!(rig.delegate(a, &last, READING), resource);
    let b = clients[1];
    for n in 2..STATES_MAX {
        rig.open(b, &format!("o{n}"), &last, READ).unwrap();
    }
    let outcome = rig.on_state(open_wishing(b, "x", &last, READ, READING)).unwrap();
    assert!(matches!(outcome, StateOutcome::Opened { delegation: DelegationOutcome::Resource, .. }));
    assert_eq!(rig.open(b, "y", &last, READ), Err(FsError::TableFull));
    // The states of a file are looked at only so far, and readers not at all.
    let many = rig.file("many");
    for n in 0..=DELEGATION_LOOK_MAX {
        rig.open(clients[2], &format!("o{n}"), &many, BOTH).unwrap();
    }
    assert_eq!(rig.delegate(clients[2], &many, WRITING), Ok(DelegationOutcome::Contention));
    let readers = rig.file("readers");
    for n in 0..=DELEGATION_LOOK_MAX {
        rig.open(clients[3], &format!("o{n}"), &readers, READ).unwrap();
    }
    given(&rig.delegate(clients[2], &readers, READING).unwrap());
    rig.check();
}

#[test]
fn an_open_with_a_delegation_or_instead_of_it() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, _) = rig.v41("a");
    let (open, delegation) = opened_with(&rig.on_state(open_wishing(a, "o", &f, READ, READING)).unwrap());
    let delegation = given(&delegation);
    assert_ne!(open.id, delegation.id);
    let states = read::states_of(&rig.kv, f.ino, StateId(0), 9).unwrap();
    assert_eq!(states.iter().map(|s| s.stateid).collect::<Vec<_>>(), [open, delegation]);
    assert!(states[1].owner.is_empty());
    // CLOSE leaves it.
    rig.close(a, open.id).unwrap();
    assert_eq!(rig.attr(f.ino).delegated, Delegated::Read);
    let instead = |wish: DelegationWish| DelegationWish { instead_of_open: true, ..wish };
    // It does not stand for an open to write.
    let (open, same) = opened_with(&rig.on_state(open_wishing(a, "o", &f, BOTH, instead(READING))).unwrap());
    assert_eq!(given(&same), delegation);
    assert_ne!(open.id, delegation.id);
    // Who has the open already gets it again, too.
    let outcome = rig.on_state(open_wishing(a, "o", &f, BOTH, instead(WRITING))).unwrap();
    let (again, upgraded) = opened_with(&outcome);
    assert_eq!((again.id, again.seqid), (open.id, open.seqid + 1));
    let upgraded = given(&upgraded);
    assert_eq!((upgraded.id, upgraded.seqid), (delegation.id, 2));
    // And who has not, does not.
    let states = read::client(&rig.kv, a).unwrap().unwrap().states;
    let (none, same) = opened_with(&rig.on_state(open_wishing(a, "p", &f, BOTH, instead(WRITING))).unwrap());
    assert_eq!((none, given(&same)), (upgraded, upgraded));
    assert_eq!(read::client(&rig.kv, a).unwrap().unwrap().states, states);
    rig.check();
    // A file that is made by it.
    let create = Some((CreateHow::Guarded, SetAttr::default()));
    let target = OpenTarget::Name { dir: ROOT, name: bytes("new"), create };
    let owner = bytes("o");
    let delegate = Some(instead(DelegationWish { timestamps: true, ..WRITING }));
    let op = StateOp::Open { client: a, owner, share: BOTH, target, delegate, under: None };
    let outcome = rig.on_state(op).unwrap();
    let StateOutcome::Opened { attr, created: true, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(attr.delegated, Delegated::Write);
    assert_eq!(*attr, rig.attr(attr.ino));
    let (none, made) = opened_with(&outcome);
    assert_eq!(none, given(&made));
    let its = read::state(&rig.kv, none.id).unwrap().unwrap();
    let (kind, phase) = (DelegationKind::Write, DelegationPhase::Held);
    let export = ExportId(1);
    assert_eq!(
        its.kind,
        StateKind::Delegation {
            kind,
            phase,
            timestamps: true,
            export,
            change: attr.change,
            notices: NoticeKinds::NONE
        }
    );
    rig.check();
}

#[test]
fn an_owner_of_v40_that_must_confirm_gets_none() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let old = rig.v40("old");
    let mut owner = Owner40::new(old, "o", 1);
    let once = owner.by_name();
    let outcome = rig.step(once, open_wishing(old, "o", &f, READ, READING)).unwrap();
    let (open, delegation) = opened_with(&outcome);
    assert_eq!(delegation, DelegationOutcome::Contention);
    let once = owner.of(open.id);
    rig.step(once, StateOp::Confirm { client: old, open }).unwrap();
    let once = owner.by_name();
    let delegation =
        given(&opened_with(&rig.step(once, open_wishing(old, "o", &f, READ, READING)).unwrap()).1);
    rig.check();
    // It has no sequence: a step cannot be one of it.
    rig.recall(&f, Intrusion::Change, None);
    rig.on_state(StateOp::Revoke(delegation.id)).unwrap();
    let once = owner.of(delegation.id);
    let lock = StateOp::Close { client: old, open: newest(delegation.id) };
    assert_eq!(rig.step(once, lock), Err(BAD_STATEID));
    rig.check();
    rig.on_client(ClientOp::Expire(old)).unwrap();
    rig.check_nothing_left();
}

#[test]
fn opens_made_under_a_delegation() {
    let mut rig = Rig::new();
    let f = rig.make(&Cred::root(), ROOT, "f", NewNode::Regular, 0o600);
    let other = rig.file("other");
    let [(a, _), (b, _)] = ["a", "b"].map(|name| rig.v41(name));
    let reading = given(&rig.delegate(a, &f, READING).unwrap());
    let foreign = given(&rig.delegate(a, &other, READING).unwrap());
    rig.recall(&f, Intrusion::Change, None);
    let under = |client, sent, share, op: &dyn Fn(ClientId, Share) -> StateOp| {
        let mut op = op(client, share);
        if let StateOp::Open { under, .. } = &mut op {
            *under = Some(sent);
        }
        op
    };
    let file = |client, share| open_file(client, "o", &f, share);
    let name = |client, share| open_name(client, "n", "f", share);
    // What was opened is an open, whatever else is wished.
    let mut op = under(a, foreign, READ, &|client, share| open_file(client, "x", &other, share));
    if let StateOp::Open { delegate, .. } = &mut op {
        *delegate = Some(DelegationWish { instead_of_open: true, ..READING });
    }
    let (open, same) = opened_with(&rig.on_state(op).unwrap());
    assert_eq!(given(&same), foreign);
    assert_ne!(open.id, foreign.id);
    // Whatever the mode says now.
    rig.on_state_by(&user(5), under(a, reading, READ, &file)).unwrap();
    rig.on_state_by(&user(5), under(a, reading, READ, &name)).unwrap();
    assert_eq!(rig.on_state_by(&user(5), file(a, READ)), Err(FsError::AccessDenied));
    assert_eq!(rig.on_state(under(a, reading, BOTH, &file)), Err(FsError::Invalid));
    assert_eq!(rig.on_state(under(a, foreign, READ, &file)), Err(BAD_STATEID));
    assert_eq!(rig.on_state(under(b, reading, READ, &file)), Err(BAD_STATEID));
    rig.on_state(StateOp::Revoke(reading.id)).unwrap();
    assert_eq!(rig.on_state(under(a, reading, READ, &file)), refusal(StateError::DelegationRevoked));
    rig.check();
}
