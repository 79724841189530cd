//! Exactly once: replay, expiry, bounds.

use super::rig::{ROOT, Rig, at, key, user};
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{OUTCOME_KEEP, OUTCOME_ROW, OUTCOME_TAGS, OUTCOMES_MAX};
use crate::{Command, MemKv, Model, read};
use atoll_base::access::Cred;
use atoll_meta::{Call, FsError, NewNode, OnceKey, Op, Outcome, RemoveKind, Response};
use std::cell::Cell;
use std::ops::{Bound, ControlFlow};

fn remove(once: OnceKey) -> Call {
    let op = Op::Remove { dir: ROOT, name: "f".into(), kind: RemoveKind::Any };
    Call { origin: None, once: Some(once.into()), cred: Cred::root(), client: None, op }
}

#[test]
fn a_retransmission_gets_the_first_answer_and_does_nothing() {
    let mut rig = Rig::new();
    rig.file("f");
    let first = rig.call(remove(key(1)));
    assert_eq!(first.result, Ok(Outcome::Done));
    rig.file("f");
    let before = rig.attr(ROOT);
    assert_eq!(rig.call(remove(key(1))), first);
    assert_eq!(rig.attr(ROOT), before);
    assert!(rig.applied.as_ref().unwrap().touched.inos.is_empty());
    assert_eq!(rig.outcome(&key(1)), Some(first));
    // Of another client, or with other arguments, it is another request.
    for other in [OnceKey { client: [2; 16], ..key(1) }, OnceKey { fingerprint: 1, ..key(1) }] {
        assert_eq!(rig.outcome(&other), None);
    }
    rig.call(remove(OnceKey { fingerprint: 1, ..key(1) })).result.unwrap();
    rig.check();
}

#[test]
fn refusals_are_final_but_for_passing_ones() {
    let mut rig = Rig::new();
    let first = rig.call(remove(key(1)));
    assert_eq!(first.result, Err(FsError::NotFound));
    rig.file("f");
    assert_eq!(rig.call(remove(key(1))), first, "a late duplicate must not remove the new file");
    // Also of what was refused before it was proposed.
    let refused = Call { op: Op::Refused(FsError::Io), ..remove(key(4)) };
    assert_eq!(rig.call(refused).result, Err(FsError::Io));
    assert_eq!(rig.call(remove(key(4))).result, Err(FsError::Io));
    // A full table says nothing about the request.
    let make = |n: u32, once| {
        let op = Op::CreateVolume { name: format!("v{n}") };
        Call { origin: None, once, cred: Cred::root(), client: None, op }
    };
    while rig.call(make(rig.txn as u32, None)).result.is_ok() {}
    assert_eq!(rig.call(make(0, Some(key(2).into()))).result, Err(FsError::TableFull));
    assert_eq!(rig.outcome(&key(2)), None);
    let fenced = Call { origin: Some(rig.register(1)), ..remove(key(3)) };
    rig.register(1);
    assert_eq!(rig.call(fenced.clone()).result, Err(FsError::Fenced));
    assert_eq!(rig.outcome(&key(3)), None);
    // Nor may a fenced frontend hand out what is stored.
    assert_eq!(rig.call(Call { once: Some(key(1).into()), ..fenced }).result, Err(FsError::Fenced));
}

#[test]
fn outcomes_are_kept_for_their_time_and_then_go() {
    let mut rig = Rig::new();
    let keep = OUTCOME_KEEP.as_nanos() as i128;
    let row = OUTCOME_ROW as u32;
    (0..row).for_each(|n| drop(rig.call(remove(key(n)))));
    rig.clock += keep - 20;
    rig.call(remove(key(row)));
    // The first of the row is expired, the last is not, and no row is begun.
    rig.clock += 10;
    assert!((0..=row).all(|n| rig.outcome(&key(n)).is_some()));
    assert!(!read::has_work(&rig.kv).unwrap());
    rig.clock += 100;
    (row + 1..=2 * row).for_each(|n| drop(rig.call(remove(key(n)))));
    for n in 0..=2 * row {
        assert_eq!(rig.outcome(&key(n)).is_some(), n >= row, "outcome {n}");
    }
    assert_eq!(read::counters(&rig.kv).unwrap().outcomes, u64::from(row) + 1);
    rig.check();
    // With nothing stored any more, Sweep removes them, also the row that is not full.
    rig.clock += keep + 10;
    rig.root(Op::Touch(Vec::new())).unwrap();
    assert!(read::has_work(&rig.kv).unwrap());
    rig.sweep();
    let counters = read::counters(&rig.kv).unwrap();
    assert_eq!((counters.outcomes, counters.oldest_outcome), (0, None));
    rig.check();
    rig.call(remove(key(0)));
    assert!(rig.outcome(&key(0)).is_some());
    rig.check();
}

#[test]
fn their_number_is_bounded_and_the_oldest_go_first() {
    let mut rig = Rig::new();
    let all = OUTCOMES_MAX as u32 + 3 * OUTCOME_ROW as u32 + 1;
    (0..all).for_each(|n| drop(rig.call(remove(key(n)))));
    let counters = read::counters(&rig.kv).unwrap();
    // A row is begun when there is room for one outcome, and goes as a whole.
    let row = OUTCOME_ROW as u64;
    assert!((OUTCOMES_MAX - row..OUTCOMES_MAX + row).contains(&counters.outcomes), "{}", counters.outcomes);
    let first = all - counters.outcomes as u32;
    assert!((0..all).all(|n| rig.outcome(&key(n)).is_some() == (n >= first)));
    assert!(counters.oldest_outcome.is_some());
    rig.check();
}

#[test]
fn commands_of_one_batch_make_the_same_rows_as_batches_of_one() {
    let mut states = [1, 2, 7].map(|batch| {
        let mut kv = MemKv::default();
        Model::bootstrap(&mut kv, [3; 16], at(0)).unwrap();
        let mut model = Model::load(&kv).unwrap();
        for n in 0..60_u32 {
            // Some are retransmissions, of this batch and of former ones; some expire.
            let stamp = at(i128::from(n) * 60 + if n > 40 { 2000 } else { 0 });
            let command = Command { stamp, call: remove(key(n - n % 5 % 3)) };
            model.apply(&mut kv, u64::from(n) + 1, &command).unwrap();
            if n % batch == batch - 1 {
                model.end_batch(&mut kv).unwrap();
            }
        }
        model.end_batch(&mut kv).unwrap();
        assert_eq!(Model::load(&kv).unwrap(), model);
        (kv, model)
    });
    let first = states[0].0.clone();
    states.iter_mut().for_each(|(kv, _)| assert!(*kv == first));
}

#[test]
fn an_outcome_stored_again_takes_the_new_answer_and_age() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let origin = rig.register(1);
    for round in 0..3_u64 {
        rig.begin(origin, &f);
        let now = rig.attr(f.ino);
        let error = [FsError::Io, FsError::NoSpace, FsError::Stale][round as usize];
        let flush = atoll_meta::Flush {
            mtime: now.mtime,
            ctime: now.ctime,
            change: now.change,
            size: 0,
            release: true,
            covered: vec![
                (key(1), Response::refused(error).into()),
                (key(2), Response::refused(FsError::Io).into()),
            ],
        };
        let op = Op::Write { ino: f.ino, generation: f.generation, pieces: Vec::new(), flush: Some(flush) };
        rig.by(origin, op).unwrap();
        assert_eq!(rig.outcome(&key(1)).unwrap().result, Err(error));
        rig.check();
    }
    assert_eq!(read::counters(&rig.kv).unwrap().outcomes, 2);
}

#[test]
fn what_a_stored_answer_says_is_all_of_it() {
    let mut rig = Rig::new();
    let dir = rig.make(&Cred::root(), ROOT, "d", NewNode::Directory, 0o777).ino;
    let op = Op::Create {
        dir,
        name: "x".into(),
        node: NewNode::Regular,
        how: atoll_meta::CreateHow::Guarded,
        attrs: atoll_base::attr::SetAttr { mode: Some(0o640), ..Default::default() },
    };
    let call = Call { origin: None, once: Some(key(1).into()), cred: user(1), client: None, op };
    let first = rig.call(call.clone());
    let Ok(Outcome::Created { attr, new: true }) = &first.result else { panic!() };
    rig.op(&user(1), Op::Remove { dir, name: "x".into(), kind: RemoveKind::Any }).result.unwrap();
    let again = rig.call(call);
    assert_eq!(again, first);
    assert_eq!(again.changes[0].after.ino, dir);
    assert_eq!((attr.mode, attr.uid), (0o640, 1));
}

/// Counts the rows of outcomes that are looked at.
struct Counting<'k>(&'k MemKv, Cell<usize>);

impl KvRead for Counting<'_> {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        self.1.set(self.1.get() + usize::from(table == Table::Outcome));
        self.0.get(table, key, f)
    }

    fn walk(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        mut f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.0.walk(table, bounds, back, |key, value| {
            self.1.set(self.1.get() + usize::from(table == Table::Outcome));
            f(key, value)
        })
    }
}

#[test]
fn a_start_reads_the_newest_outcomes_only() {
    let mut rig = Rig::new();
    for n in 0..OUTCOMES_MAX as u32 - 1 {
        rig.call(remove(key(n)));
        let kv = Counting(&rig.kv, Cell::new(0));
        assert_eq!(Model::load(&kv).unwrap(), rig.model);
        // Those without a hash in a row, the one before them, and both ends.
        assert!(kv.1.get() <= OUTCOME_TAGS / OUTCOME_ROW + 5, "{} of {n}", kv.1.get());
    }
    // As an earlier release left it: there are no hashes, or none of the older ones.
    let mut hashes = Vec::new();
    rig.kv
        .walk(Table::OutcomeTag, (Bound::Unbounded, Bound::Unbounded), false, |key, _| {
            hashes.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(hashes.len() > 5);
    for key in hashes {
        rig.kv.delete(Table::OutcomeTag, &key).unwrap();
        assert_eq!(Model::load(&rig.kv).unwrap(), rig.model);
    }
}
