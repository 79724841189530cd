//! Copies that go on behind their COPY.

mod histories;

use super::super::rig::{ROOT, Rig, user};
use super::{BAD_STATEID, READ, refusal};
use crate::limits::{CLIENT_OFFLOADS_MAX, OFFLOADS_MAX};
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::id::{Epoch, ExportId};
use atoll_meta::delegation::{DelegationKind, Intrusion};
use atoll_meta::nfs4::{ClientId, ClientOp, StateError, StateId, Stateid};
use atoll_meta::offload::{CopyPlace, Offload, OffloadOp};
use atoll_meta::{FsError, Op, Outcome, RemoveKind};

/// A file of so many extents of 9 bytes, 10 apart.
pub(super) fn scattered(rig: &mut Rig, name: &str, extents: u64) -> Attr {
    let file = rig.file(name);
    for n in 0..extents {
        let piece = rig.block(Epoch(1), n * 10, &[n as u8 + 1; 9]);
        rig.write(&Cred::root(), &file, vec![piece]).unwrap();
    }
    file
}

fn place((file, offset): (&Attr, u64)) -> CopyPlace {
    CopyPlace { ino: file.ino, generation: file.generation, offset }
}

fn copy(
    rig: &mut Rig,
    (client, cred): (ClientId, &Cred),
    from: (&Attr, u64),
    to: (&Attr, u64),
    len: u64,
    most: u32,
) -> Result<Outcome, FsError> {
    let op = OffloadOp::Copy { client, export: ExportId(1), from: place(from), to: place(to), len, most };
    rig.op(cred, Op::Offload(op)).result
}

/// A COPY that goes on.
pub(super) fn begin(
    rig: &mut Rig,
    client: ClientId,
    from: (&Attr, u64),
    to: (&Attr, u64),
    len: u64,
    most: u32,
) -> Option<Stateid> {
    match copy(rig, (client, &Cred::root()), from, to, len, most).unwrap() {
        Outcome::Offloaded { stateid, verifier } => {
            assert_eq!(verifier, rig.model.verifier());
            Some(stateid)
        }
        Outcome::Cloned { .. } => None,
        other => panic!("{other:?}"),
    }
}

impl Rig {
    fn offload_op(&mut self, op: OffloadOp) -> Result<Outcome, FsError> {
        self.root(Op::Offload(op))
    }

    fn offload_step(&mut self, offload: Stateid, most: u32) -> Result<bool, FsError> {
        self.offload_op(OffloadOp::Step { offload, most }).map(|outcome| match outcome {
            Outcome::More(more) => more,
            other => panic!("{other:?}"),
        })
    }

    fn offload(&self, id: Stateid) -> Option<Offload> {
        read::offload(&self.kv, id.id).unwrap()
    }
}

#[test]
fn steps_bring_what_the_copy_left() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("a");
    let (a, b) = (scattered(&mut rig, "a", 20), rig.file("b"));
    let size = rig.attr(a.ino).size;
    let stateid = begin(&mut rig, client, (&a, 5), (&b, 3), 0, 1).unwrap();
    assert!(rig.applied.as_ref().unwrap().touched.offloads);
    let first = rig.offload(stateid).unwrap();
    assert_eq!((first.count, first.left, first.ended), (15, size - 20, None));
    assert_eq!((first.client, first.to.ino, first.to.offset), (client, b.ino, 18));
    let change = rig.attr(b.ino).change;
    let mut steps = 0;
    while rig.offload_step(stateid, 3).unwrap() {
        steps += 1;
        rig.check();
    }
    assert_eq!(steps, 5);
    assert_eq!(rig.attr(b.ino).change, change + steps + 1, "each is a change of the target");
    let last = rig.offload(stateid).unwrap();
    assert_eq!((last.count, last.left, last.ended), (size - 5, 0, Some(Ok(()))));
    assert_eq!(rig.content(b.ino)[3..], rig.content(a.ino)[5..]);
    // One more comes to nothing.
    assert_eq!(rig.offload_step(stateid, 3), Ok(false));
    assert_eq!(rig.offload(stateid).unwrap(), last);
    rig.offload_op(OffloadOp::Forget(stateid)).unwrap();
    rig.offload_op(OffloadOp::Forget(stateid)).unwrap();
    assert_eq!(rig.offload(stateid), None);
    assert_eq!(rig.offload_step(stateid, 3), Ok(false));
    rig.on_client(ClientOp::Expire(client)).unwrap();
    rig.check_nothing_left();
    rig.check();
}

#[test]
fn a_copy_that_fits_is_no_offload() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("a");
    let (a, b) = (scattered(&mut rig, "a", 3), rig.file("b"));
    assert_eq!(begin(&mut rig, client, (&a, 0), (&b, 0), 0, u32::MAX), None);
    assert!(!rig.applied.as_ref().unwrap().touched.offloads);
    assert_eq!(rig.content(b.ino), rig.content(a.ino));
    assert_eq!(rig.rows(Table::Offload), 0);
    let stranger = (ClientId(client.0 + 1), &Cred::root());
    let refused = copy(&mut rig, stranger, (&a, 0), (&b, 0), 0, 1);
    assert_eq!(refused, refusal(StateError::StaleClient));
    rig.check();
}

#[test]
fn there_are_not_too_many() {
    let mut rig = Rig::new();
    let clients: Vec<ClientId> = (0..3).map(|n| rig.v41(&format!("client{n}")).0).collect();
    let (a, b) = (scattered(&mut rig, "a", 9), rig.file("b"));
    let mut begun = 0;
    for client in clients {
        let mut its = 0;
        while begin(&mut rig, client, (&a, 0), (&b, 0), 0, 1).is_some() {
            (its, begun) = (its + 1, begun + 1);
        }
        assert!(its == CLIENT_OFFLOADS_MAX || begun == OFFLOADS_MAX);
        // It was done as far as one command goes.
        assert!(rig.attr(b.ino).size > 0);
        rig.check();
    }
    assert_eq!(begun, OFFLOADS_MAX);
}

#[test]
fn only_who_began_it_cancels_it() {
    let mut rig = Rig::new();
    let ((client, _), (other, _)) = (rig.v41("a"), rig.v41("b"));
    let (a, b) = (scattered(&mut rig, "a", 9), rig.file("b"));
    rig.set(&Cred::root(), &b, SetAttr { mode: Some(0o666), ..SetAttr::default() }).unwrap();
    let Ok(Outcome::Offloaded { stateid, .. }) = copy(&mut rig, (client, &user(7)), (&a, 0), (&b, 0), 0, 1)
    else {
        panic!()
    };
    let cancel = |client, ino, offload| Op::Offload(OffloadOp::Cancel { client, ino, offload });
    for (cred, op) in [
        (user(7), cancel(other, b.ino, stateid)),
        (user(8), cancel(client, b.ino, stateid)),
        (user(7), cancel(client, a.ino, stateid)),
        (user(7), cancel(client, b.ino, Stateid { seqid: 0, ..stateid })),
        (user(7), cancel(client, b.ino, Stateid { seqid: 2, ..stateid })),
        (user(7), cancel(client, b.ino, Stateid { id: StateId(stateid.id.0 + 1), ..stateid })),
    ] {
        assert_eq!(rig.op(&cred, op).result, Err(BAD_STATEID));
    }
    rig.offload_op(OffloadOp::Forget(stateid)).unwrap();
    assert!(rig.offload(stateid).is_some(), "it has not ended");
    assert_eq!(rig.op(&user(7), cancel(client, b.ino, stateid)).result, Ok(Outcome::Done));
    assert_eq!(rig.op(&user(7), cancel(client, b.ino, stateid)).result, Err(BAD_STATEID));
    let size = rig.attr(b.ino).size;
    assert_eq!(rig.offload_step(stateid, 9), Ok(false));
    assert_eq!(rig.attr(b.ino).size, size);
    rig.check();
}

#[test]
fn a_step_is_refused_as_a_write_is() {
    let mut rig = Rig::new();
    let ((client, _), (other, _)) = (rig.v41("a"), rig.v41("b"));
    let (a, b) = (scattered(&mut rig, "a", 20), rig.file("b"));
    rig.set(&Cred::root(), &b, SetAttr { mode: Some(0o666), ..SetAttr::default() }).unwrap();
    let Ok(Outcome::Offloaded { stateid, .. }) = copy(&mut rig, (client, &user(7)), (&a, 0), (&b, 0), 0, 1)
    else {
        panic!()
    };
    let step = Op::Offload(OffloadOp::Step { offload: stateid, most: 1 });
    let before = rig.offload(stateid);
    rig.set(&Cred::root(), &b, SetAttr { mode: Some(0o644), ..SetAttr::default() }).unwrap();
    assert_eq!(rig.op(&user(7), step.clone()).result, Err(FsError::AccessDenied));
    rig.set(&Cred::root(), &b, SetAttr { mode: Some(0o666), ..SetAttr::default() }).unwrap();
    // A delegation of another client is in its way, one of its own is not.
    let reading = super::delegations::READING;
    assert_eq!(reading.kind, DelegationKind::Read);
    rig.delegate(client, &b, reading).unwrap();
    assert_eq!(rig.op(&user(7), step.clone()).result, Ok(Outcome::More(true)));
    rig.delegate(other, &b, reading).unwrap();
    let met = rig.op(&user(7), step.clone());
    assert_eq!(met.result, refusal(StateError::Delegated));
    assert_eq!(met.changes.len(), 1);
    rig.recall(&b, Intrusion::Change, Some(client));
    assert_ne!(rig.offload(stateid), before);
    rig.offload_op(OffloadOp::Fail { offload: stateid, error: FsError::NoSpace }).unwrap();
    rig.offload_op(OffloadOp::Fail { offload: stateid, error: FsError::Stale }).unwrap();
    assert_eq!(rig.offload(stateid).unwrap().ended, Some(Err(FsError::NoSpace)));
    assert_eq!(rig.op(&user(7), step).result, Ok(Outcome::More(false)));
    rig.check();
}

#[test]
fn a_client_with_a_copy_in_work_is_busy() {
    let mut rig = Rig::new();
    let (client, session) = rig.v41("a");
    let (a, b) = (scattered(&mut rig, "a", 9), rig.file("b"));
    let stateid = begin(&mut rig, client, (&a, 0), (&b, 0), 0, 1).unwrap();
    rig.on_client(ClientOp::DestroySession(session)).unwrap();
    assert_eq!(rig.on_client(ClientOp::DestroyClient(client)), refusal(StateError::ClientBusy));
    while rig.offload_step(stateid, 3).unwrap() {}
    rig.on_client(ClientOp::DestroyClient(client)).unwrap();
    rig.check_nothing_left();
    rig.check();
}

#[test]
fn it_holds_its_files_as_an_open_does() {
    let mut rig = Rig::new();
    let (client, _) = rig.v41("a");
    let (a, b) = (scattered(&mut rig, "a", 9), rig.file("b"));
    let open = rig.open(client, "o", &b, READ).unwrap();
    let stateid = begin(&mut rig, client, (&a, 0), (&b, 0), 0, 1).unwrap();
    let expected = rig.content(a.ino);
    for name in ["a", "b"] {
        let removed = rig.root(Op::Remove { dir: ROOT, name: name.into(), kind: RemoveKind::Any });
        assert_eq!(removed, Ok(Outcome::Unnamed));
    }
    rig.close(client, open.id).unwrap();
    while rig.offload_step(stateid, 3).unwrap() {
        rig.check();
    }
    assert_eq!(rig.content(b.ino), expected);
    rig.offload_op(OffloadOp::Forget(stateid)).unwrap();
    for file in [a, b] {
        assert_eq!(read::getattr(&rig.kv, file.ino).unwrap(), Err(FsError::Stale));
    }
    rig.sweep();
    rig.check();
}
