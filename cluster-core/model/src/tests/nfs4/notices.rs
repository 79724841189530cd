//! Changes of a delegated directory that its holder is told of: whoever applies them in their order has the listing.

use super::super::rig::{ROOT, Rig};
use super::delegations::given;
use super::{bytes, refusal};
use crate::limits::NOTICES_MAX;
use crate::{Table, read};
use atoll_base::access::Cred;
use atoll_base::attr::{Delegated, SetAttr};
use atoll_base::id::{Cookie, ExportId, Ino};
use atoll_meta::delegation::{DelegationOutcome, DelegationPhase, NewEntry, Notice, NoticeKinds};
use atoll_meta::nfs4::{ClientId, ClientOp, StateError, StateId, StateKind, StateOp, StateOutcome, Stateid};
use atoll_meta::{Call, CreateHow, FsError, NewNode, Op, Outcome, RemoveKind};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ALL: NoticeKinds = NoticeKinds { adds: true, removes: true, renames: true };
const DELEGATED: FsError = FsError::State(StateError::Delegated);

impl Rig {
    fn watch(&mut self, client: ClientId, dir: Ino, notices: NoticeKinds) -> Stateid {
        let (generation, export) = (self.attr(dir).generation, ExportId(1));
        let op = StateOp::DelegateDirectory { client, ino: dir, generation, export, notices };
        match self.on_state(op).unwrap() {
            StateOutcome::Delegation(outcome) => given(&outcome),
            other => panic!("{other:?}"),
        }
    }

    fn by_client(&mut self, client: ClientId, op: Op) -> Result<Outcome, FsError> {
        let call = Call { origin: None, once: None, cred: Cred::root(), client: Some(client), op };
        self.call(call).result
    }

    fn to_tell(&self, id: StateId) -> Vec<(u64, Notice)> {
        let all = read::notices(&self.kv, StateId(0), 9).unwrap();
        all.into_iter().find(|its| its.state.stateid.id == id).map(|its| its.notices).unwrap_or_default()
    }

    fn phase(&self, id: StateId) -> (DelegationPhase, NoticeKinds) {
        match read::state(&self.kv, id).unwrap().unwrap().kind {
            StateKind::Delegation { phase, notices, .. } => (phase, notices),
            other => panic!("{other:?}"),
        }
    }

    fn listing(&self, dir: Ino) -> BTreeMap<u64, Bytes> {
        let page = read::readdir(&self.kv, dir, Cookie(0), 1000, usize::MAX, false).unwrap().unwrap();
        page.entries.into_iter().map(|entry| (entry.cookie.0, entry.name)).collect()
    }
}

fn make(dir: Ino, name: &str) -> Op {
    let (how, attrs) = (CreateHow::Guarded, SetAttr::default());
    Op::Create { dir, name: bytes(name), node: NewNode::Regular, how, attrs }
}

fn remove(dir: Ino, name: &str) -> Op {
    Op::Remove { dir, name: bytes(name), kind: RemoveKind::Any }
}

fn rename(from_dir: Ino, from: &str, to_dir: Ino, to: &str) -> Op {
    Op::Rename { from_dir, from_name: bytes(from), to_dir, to_name: bytes(to) }
}

/// A listing after a change, which fits where it says.
fn apply(listing: &mut BTreeMap<u64, Bytes>, notice: &Notice) {
    let add = |listing: &mut BTreeMap<u64, Bytes>, new: &NewEntry| {
        let (name, cookie) = (new.entry.name.clone(), new.entry.cookie.0);
        assert_eq!(listing.insert(cookie, name), new.replaces.then(|| new.entry.name.clone()));
        let previous = listing.range(..cookie).next_back();
        let told = new.previous.as_ref().map(|entry| (&entry.cookie.0, &entry.name));
        assert_eq!(previous, told);
        assert_eq!(listing.range(cookie + 1..).next().is_none(), new.is_last);
    };
    match notice {
        Notice::Added(new) => add(listing, new),
        Notice::Removed(old) => assert_eq!(listing.remove(&old.cookie.0).as_ref(), Some(&old.name)),
        Notice::Renamed { from, to } => {
            assert_eq!(listing.remove(&from.cookie.0).as_ref(), Some(&from.name));
            add(listing, to);
        }
    }
}

#[test]
fn only_what_the_holder_is_told_of_is_not_in_its_way() {
    let mut rig = Rig::new();
    let (dir, outside) = (rig.dir(ROOT, "dir"), rig.dir(ROOT, "outside"));
    let [(holder, _), (stranger, _), (plain, _)] = ["holder", "stranger", "plain"].map(|name| rig.v41(name));
    let id = rig.watch(holder, dir, NoticeKinds { adds: true, ..NoticeKinds::NONE }).id;
    rig.by_client(stranger, make(dir, "a")).unwrap();
    assert!(rig.applied.as_ref().unwrap().touched.notices);
    for op in [remove(dir, "a"), rename(dir, "a", dir, "b"), rename(dir, "a", outside, "b")] {
        assert_eq!(rig.by_client(stranger, op), Err(DELEGATED));
    }
    let mode = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let generation = rig.attr(dir).generation;
    let set = Op::SetAttr { ino: dir, generation, set: mode, guard: None };
    assert_eq!(rig.by_client(stranger, set), Err(DELEGATED));
    // It did not ask to be told of its own removals, either.
    rig.by_client(holder, remove(dir, "a")).unwrap();
    assert_eq!(rig.to_tell(id).len(), 1);
    // Beside one that is told of nothing.
    let export = ExportId(1);
    let notices = NoticeKinds::NONE;
    let other = StateOp::DelegateDirectory { client: plain, ino: dir, generation, export, notices };
    let StateOutcome::Delegation(DelegationOutcome::Given { stateid, .. }) = rig.on_state(other).unwrap()
    else {
        panic!()
    };
    assert_eq!(rig.by_client(stranger, make(dir, "c")), Err(DELEGATED));
    rig.on_state(StateOp::Recall {
        ino: dir,
        intrusion: atoll_meta::delegation::Intrusion::Add,
        except: None,
    })
    .unwrap();
    assert_eq!(rig.phase(id).0, DelegationPhase::Held, "it was not in the way");
    assert_eq!(rig.phase(stateid.id).0, DelegationPhase::Recalled);
    rig.check();
    rig.on_state(StateOp::Return { client: plain, delegation: stateid }).unwrap();
    rig.by_client(stranger, make(dir, "c")).unwrap();
    rig.check();
}

#[test]
fn what_a_client_was_to_be_told_goes_with_it_in_bounded_steps() {
    let mut rig = Rig::new();
    let dirs = ["one", "two", "three"].map(|name| rig.dir(ROOT, name));
    let [(holder, _), (stranger, _)] = ["holder", "stranger"].map(|name| rig.v41(name));
    for dir in dirs {
        rig.watch(holder, dir, ALL);
        for n in 0..NOTICES_MAX {
            rig.by_client(stranger, make(dir, &format!("f{n}"))).unwrap();
        }
    }
    rig.on_client(ClientOp::Expire(holder)).unwrap();
    for left in [2, 1, 0] {
        assert_eq!(rig.rows(Table::Notice), left * NOTICES_MAX as usize);
        rig.check();
        rig.root(Op::Sweep).unwrap();
    }
}

#[test]
fn who_is_told_too_much_or_too_late_loses_it() {
    let mut rig = Rig::new();
    let dir = rig.dir(ROOT, "dir");
    let [(holder, _), (stranger, _)] = ["holder", "stranger"].map(|name| rig.v41(name));
    let first = rig.watch(holder, dir, ALL);
    for n in 0..NOTICES_MAX {
        rig.by_client(stranger, make(dir, &format!("f{n}"))).unwrap();
    }
    assert_eq!(rig.phase(first.id), (DelegationPhase::Held, NoticeKinds::NONE));
    assert_eq!(rig.by_client(stranger, make(dir, "more")), Err(DELEGATED));
    // Told of some, there is room for more; numbers that are not there change nothing.
    for upto in [NOTICES_MAX, 0, 0] {
        rig.on_state(StateOp::Noticed { delegation: first.id, upto }).unwrap();
        rig.check();
    }
    assert_eq!(rig.to_tell(first.id)[0].0, 1);
    rig.by_client(stranger, make(dir, "more")).unwrap();
    // The holder's own change is not refused.
    rig.by_client(holder, make(dir, "own")).unwrap();
    assert!(rig.applied.as_ref().unwrap().touched.recalls);
    assert_eq!((rig.phase(first.id).0, rig.rows(Table::Notice)), (DelegationPhase::Recalled, 0));
    rig.check();
    rig.on_state(StateOp::Noticed { delegation: first.id, upto: 1 }).unwrap();
    assert_eq!(rig.by_client(stranger, make(dir, "still")), Err(DELEGATED));
    rig.on_state(StateOp::Revoke(first.id)).unwrap();
    rig.by_client(stranger, make(dir, "still")).unwrap();
    rig.check();
    assert_eq!(
        rig.on_state(StateOp::Free { client: holder, state: first }),
        Ok(StateOutcome::State(Stateid { seqid: 2, ..first }))
    );
    // One that is recalled for reasons of the frontend's.
    let second = rig.watch(holder, dir, ALL);
    rig.by_client(stranger, make(dir, "again")).unwrap();
    for _ in 0..2 {
        rig.on_state(StateOp::RecallOne(second.id)).unwrap();
        rig.check();
    }
    assert_eq!(rig.to_tell(second.id), []);
    rig.on_client(ClientOp::Expire(holder)).unwrap();
    rig.sweep();
    rig.on_state(StateOp::RecallOne(second.id)).unwrap();
    assert_eq!((rig.attr(dir).delegated, rig.rows(Table::Watch)), (Delegated::No, 0));
    rig.check();
    assert_eq!(refusal::<()>(StateError::Delegated), Err(DELEGATED));
}

proptest! {
    /// The holder's copy of the listing, after all that it was told of and is to be told of, is the listing. Nothing is refused to others while there
    /// is room for what they do.
    #[test]
    fn what_is_told_makes_the_listing(
        adds: bool, removes: bool, renames: bool,
        steps in prop::collection::vec((0..8_u8, any::<bool>(), 0..4_usize, 0..4_usize, any::<(bool, bool)>()), 1..60),
    ) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let kinds = NoticeKinds { adds, removes, renames };
        let mut rig = Rig::new();
        let dirs = [rig.dir(ROOT, "watched"), rig.dir(ROOT, "other")];
        let [(holder, _), (stranger, _)] = ["holder", "stranger"].map(|name| rig.v41(name));
        let mut held = rig.watch(holder, dirs[0], kinds);
        let mut copy = rig.listing(dirs[0]);
        for (what, by_holder, a, b, (from_watched, to_watched)) in steps {
            let (from, to) = (dirs[usize::from(!from_watched)], dirs[usize::from(!to_watched)]);
            let ino_of = |rig: &Rig, dir, name: &str| {
                rig.names(dir).into_iter().find(|(its, _)| its == name).map(|(_, ino)| ino)
            };
            let (old, new) = (ino_of(&rig, from, NAMES[a]), ino_of(&rig, to, NAMES[b]));
            let (op, watched) = match what {
                0 | 1 => (make(to, NAMES[b]), new.is_none() && to_watched && !kinds.adds),
                2 => (remove(from, NAMES[a]), old.is_some() && from_watched && !kinds.removes),
                3 | 4 => {
                    let uncovered = match (from_watched, to_watched) {
                        (true, true) => !kinds.renames,
                        (true, false) => !kinds.removes,
                        (false, true) => !kinds.adds,
                        (false, false) => false,
                    };
                    (rename(from, NAMES[a], to, NAMES[b]), old.is_some() && old != new && uncovered)
                }
                5 => {
                    let Some(ino) = old else { continue };
                    let (generation, dir) = (rig.attr(ino).generation, to);
                    let uncovered = new.is_none() && to_watched && !kinds.adds;
                    (Op::Link { ino, generation, dir, name: bytes(NAMES[b]) }, uncovered)
                }
                _ => {
                    // Some are told.
                    let pending = rig.to_tell(held.id);
                    for (number, notice) in pending.into_iter().take(a) {
                        apply(&mut copy, &notice);
                        rig.on_state(StateOp::Noticed { delegation: held.id, upto: number }).unwrap();
                    }
                    continue;
                }
            };
            let before = rig.to_tell(held.id).len() as u64;
            // Of what it is not told of, it knows only what it does.
            let who = if by_holder && kinds == ALL { holder } else { stranger };
            let listing = rig.listing(dirs[0]);
            match rig.by_client(who, op) {
                Err(DELEGATED) => {
                    prop_assert!(who == stranger && (watched || before == NOTICES_MAX || kinds == NoticeKinds::NONE));
                    prop_assert_eq!(&rig.listing(dirs[0]), &listing);
                }
                Err(_) => prop_assert_eq!(&rig.listing(dirs[0]), &listing),
                Ok(_) => {
                    let changed = rig.listing(dirs[0]) != listing;
                    prop_assert!(!(watched && who == stranger));
                    if rig.phase(held.id).0 == DelegationPhase::Recalled {
                        prop_assert!(who == holder && before == NOTICES_MAX);
                        rig.on_state(StateOp::Return { client: holder, delegation: held }).unwrap();
                        held = rig.watch(holder, dirs[0], kinds);
                        copy = rig.listing(dirs[0]);
                    } else {
                        prop_assert!(!changed || rig.to_tell(held.id).len() as u64 == before + 1);
                    }
                }
            }
            let mut told = copy.clone();
            rig.to_tell(held.id).iter().for_each(|(_, notice)| apply(&mut told, notice));
            prop_assert_eq!(told, rig.listing(dirs[0]));
            rig.check();
        }
    }
}
