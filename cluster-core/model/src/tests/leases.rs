//! Write leases, flushes, and losses.

use super::rig::{ROOT, Rig, at, key, user};
use crate::limits::{LEASE_CHANGES, LEASES_MAX};
use crate::read;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::id::{Epoch, FrontendId};
use atoll_base::time::Timestamp;
use atoll_meta::{Call, Flush, FsError, Op, Origin, Outcome, Piece, RemoveKind, Response};

fn flush(shown: &Attr) -> Flush {
    Flush {
        mtime: shown.mtime,
        ctime: shown.ctime,
        change: shown.change,
        size: shown.size,
        release: true,
        covered: Vec::new(),
    }
}

fn write(attr: &Attr, pieces: Vec<Piece>, flush: Flush) -> Op {
    Op::Write { ino: attr.ino, generation: attr.generation, pieces, flush: Some(flush) }
}

/// What a holder shows after so many writes.
fn shown(attr: &Attr, writes: u64, size: u64) -> Attr {
    let ctime = attr.ctime.plus_nanos(writes as i64);
    Attr { change: attr.change + writes, ctime, mtime: ctime, size, ..attr.clone() }
}

fn chmod(rig: &mut Rig, attr: &Attr, mode: u32) {
    rig.set(&Cred::root(), attr, SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
}

#[test]
fn a_flush_makes_true_what_was_shown() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    let (change, ctime) = rig.begin(origin, &f);
    assert_eq!(change, f.change + LEASE_CHANGES);
    assert!(ctime > f.ctime);
    assert_eq!(rig.attr(f.ino), f, "the lease alone changes nothing");
    let seen = shown(&f, 3, 20);
    let mut plan = flush(&seen);
    plan.covered = vec![(key(1), Response::refused(FsError::Io).into())];
    let pieces = vec![rig.inline(4, b"data")];
    rig.by(origin, write(&f, pieces.clone(), plan.clone())).unwrap();
    let after = rig.attr(f.ino);
    assert_eq!(after, Attr { used: 4, ..seen });
    assert!(rig.outcome(&key(1)).is_some());
    assert_eq!(read::dirty_leases(&rig.kv, None, 9).unwrap(), []);
    // The same again, as after an uncertain answer: refused, nothing is put over what came since.
    assert_eq!(rig.by(origin, write(&f, pieces, plan)), Err(FsError::Conflict));
    rig.check();
}

#[test]
fn the_ceilings_hold() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    let (change, ctime) = rig.begin(origin, &f);
    for (change, ctime) in [(change + 1, ctime), (change, ctime.next())] {
        let plan = Flush { change, ctime, ..flush(&f) };
        assert_eq!(rig.by(origin, write(&f, Vec::new(), plan)), Err(FsError::Invalid));
    }
    // Renewed, they never come down.
    let (again, later) = rig.begin(origin, &f);
    assert!(again >= change && later >= ctime);
    let plan = Flush { change: again, ctime: later, ..flush(&f) };
    rig.by(origin, write(&f, Vec::new(), plan)).unwrap();
    assert_eq!((rig.attr(f.ino).change, rig.attr(f.ino).ctime), (again, later));
}

#[test]
fn another_change_moves_past_the_ceilings_and_keeps_the_lease() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    let (change, ctime) = rig.begin(origin, &f);
    chmod(&mut rig, &f, 0o600);
    let after = rig.attr(f.ino);
    assert!(after.change > change && after.ctime > ctime);
    let [lease] = read::dirty_leases(&rig.kv, None, 9).unwrap()[..] else { panic!() };
    assert_eq!(lease.lease.change_ceiling, after.change + LEASE_CHANGES);
    // What the holder had shown by then comes late: the data go in, change and ctime move on, nothing goes back.
    let seen = shown(&f, 2, 30);
    let pieces = vec![rig.inline(0, b"late")];
    rig.by(origin, write(&f, pieces, flush(&seen))).unwrap();
    let last = rig.attr(f.ino);
    assert_eq!((last.change, last.mode, last.size), (after.change + 1, 0o600, 4));
    assert!(last.ctime > after.ctime);
    assert_eq!(rig.content(f.ino), b"late");
}

#[test]
fn a_truncation_between_is_not_undone_by_the_size_shown() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let pieces = vec![rig.inline(0, &[1; 50])];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    let f = rig.attr(f.ino);
    let origin = rig.register(1);
    rig.begin(origin, &f);
    rig.set(&Cred::root(), &f, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    let pieces = vec![rig.inline(10, b"xy")];
    rig.by(origin, write(&f, pieces, flush(&shown(&f, 1, 50)))).unwrap();
    assert_eq!(rig.content(f.ino), b"\0\0\0\0\0\0\0\0\0\0xy");
}

#[test]
fn an_empty_flush_of_nothing_new_leaves_the_times() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    rig.begin(origin, &f);
    let past = SetAttr { mtime: atoll_base::attr::SetTime::Client(at(-500)), ..SetAttr::default() };
    rig.set(&Cred::root(), &f, past).unwrap();
    let f = rig.attr(f.ino);
    // The holder gives the lease back and still has the old mtime in mind.
    let plan = Flush { mtime: at(100), ..flush(&f) };
    rig.by(origin, write(&f, Vec::new(), plan)).unwrap();
    assert_eq!(rig.attr(f.ino), f);
}

#[test]
fn a_new_life_ends_the_leases_of_the_former() {
    let mut rig = Rig::new();
    let (f, g, h) = (rig.file("f"), rig.file("g"), rig.file("h"));
    let (one, two) = (rig.register(1), rig.register(2));
    let verifier = rig.model.verifier();
    let ceilings = [&f, &g].map(|file| rig.begin(one, file));
    rig.begin(two, &h);
    let fresh = rig.register(1);
    assert!(fresh.epoch > two.epoch, "epochs are the cluster's");
    assert_ne!(rig.model.verifier(), verifier);
    assert_eq!(rig.model.verifier() >> 32, verifier >> 32);
    let touched = rig.applied.as_ref().unwrap().touched.clone();
    assert_eq!((touched.inos, touched.verifier), (vec![f.ino, g.ino], Some(rig.model.verifier())));
    for (file, (change, ctime)) in [&f, &g].into_iter().zip(ceilings) {
        let after = rig.attr(file.ino);
        assert!(after.change > change && after.ctime > ctime && after.mtime == after.ctime);
    }
    assert_eq!(rig.attr(h.ino), h);
    // The former life is refused whatever it says.
    let verifier = rig.model.verifier();
    for op in [write(&f, Vec::new(), flush(&f)), Op::Sweep, Op::DataLost { inos: vec![f.ino] }] {
        assert_eq!(rig.by(one, op), Err(FsError::Fenced));
    }
    let never = Origin { frontend: FrontendId(9), epoch: Epoch(0) };
    assert_eq!(rig.by(never, Op::Sweep), Err(FsError::Fenced));
    // Nothing was outstanding: nothing is lost.
    rig.register(1);
    assert_eq!(rig.model.verifier(), verifier);
    rig.check();
}

#[test]
fn a_loss_is_counted_once() {
    let mut rig = Rig::new();
    let (f, g) = (rig.file("f"), rig.file("g"));
    let (one, two) = (rig.register(1), rig.register(2));
    rig.begin(one, &f);
    rig.begin(two, &g);
    let verifier = rig.model.verifier();
    let lost = || Op::DataLost { inos: vec![f.ino, f.ino, g.ino, ROOT] };
    rig.by(one, lost()).unwrap();
    assert_eq!(rig.model.verifier(), verifier + 1);
    assert_eq!(rig.attr(g.ino), g, "not the reporter's");
    rig.by(one, lost()).unwrap();
    assert_eq!(rig.model.verifier(), verifier + 1);
    assert_eq!(read::counters(&rig.kv).unwrap().losses, 1);
    rig.check();
}

#[test]
fn refused_data_move_the_verifier_at_the_next_registration() {
    let mut rig = Rig::new();
    let (one, other) = (rig.register(1), rig.register(2));
    let before = rig.model.verifier();
    assert_eq!(rig.root(Op::DataRefused), Err(FsError::Invalid));
    for _ in 0..2 {
        rig.by(one, Op::DataRefused).unwrap();
    }
    rig.register(2);
    assert_eq!(rig.by(other, Op::DataRefused), Err(FsError::Fenced));
    assert_eq!(rig.model.verifier(), before);
    rig.register(1);
    assert_eq!(rig.model.verifier(), before + 1);
    rig.register(1);
    assert_eq!(rig.model.verifier(), before + 1);
    rig.check();
}

#[test]
fn removing_the_inode_ends_its_lease_without_a_loss() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    rig.begin(origin, &f);
    let verifier = rig.model.verifier();
    rig.root(Op::Remove { dir: ROOT, name: "f".into(), kind: RemoveKind::Any }).unwrap();
    assert_eq!(rig.by(origin, write(&f, Vec::new(), flush(&f))), Err(FsError::Stale));
    rig.register(1);
    assert_eq!(rig.model.verifier(), verifier);
    rig.check();
}

#[test]
fn who_gets_a_lease() {
    let mut rig = Rig::new();
    let f = rig.make(&Cred::root(), ROOT, "f", atoll_meta::NewNode::Regular, 0o6777);
    let (one, two) = (rig.register(1), rig.register(2));
    let begin = |attr: &Attr| Op::BeginDirty { ino: attr.ino, generation: attr.generation };
    let by = |rig: &mut Rig, cred: &Cred, origin, op| {
        rig.call(Call { origin, once: None, cred: cred.clone(), client: None, op }).result
    };
    assert_eq!(by(&mut rig, &Cred::root(), None, begin(&f)), Err(FsError::Invalid));
    by(&mut rig, &user(1), Some(one), begin(&f)).unwrap();
    assert_eq!(rig.attr(f.ino).mode, 0o777, "as a write by this caller");
    assert_eq!(by(&mut rig, &Cred::root(), Some(two), begin(&f)), Err(FsError::Conflict));
    assert_eq!(
        by(&mut rig, &Cred::root(), Some(two), write(&f, Vec::new(), flush(&f))),
        Err(FsError::Conflict)
    );
    chmod(&mut rig, &f, 0o444);
    assert_eq!(by(&mut rig, &user(1), Some(one), begin(&f)), Err(FsError::AccessDenied));
    let root = rig.attr(ROOT);
    assert_eq!(by(&mut rig, &Cred::root(), Some(one), begin(&root)), Err(FsError::IsDirectory));
    for i in 1..LEASES_MAX {
        let g = rig.file(&format!("g{i}"));
        rig.begin(one, &g);
    }
    let last = rig.file("last");
    assert_eq!(by(&mut rig, &Cred::root(), Some(one), begin(&last)), Err(FsError::TableFull));
    rig.begin(one, &f);
    rig.check();
}

#[test]
fn times_of_a_flush_are_checked() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    rig.begin(origin, &f);
    let broken = Timestamp { nanos: 1_000_000_000, ..f.mtime };
    let plan = Flush { mtime: broken, ..flush(&f) };
    assert_eq!(rig.by(origin, write(&f, Vec::new(), plan)), Err(FsError::Invalid));
    let plan = Flush { size: u64::MAX, ..flush(&f) };
    assert_eq!(rig.by(origin, write(&f, Vec::new(), plan)), Err(FsError::TooLarge));
    assert!(matches!(
        rig.by(origin, write(&f, Vec::new(), flush(&f))),
        Ok(Outcome::Written { verifier }) if verifier == rig.model.verifier()
    ));
}
