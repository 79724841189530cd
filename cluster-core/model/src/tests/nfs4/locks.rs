//! LOCK, LOCKU, FREE_STATEID, RELEASE_LOCKOWNER, and locks of NFSv4 beside those of NLM.

use super::super::rig::Rig;
use super::{BAD_STATEID, BOTH, READ, WRITE, bytes, newest, range, refusal, stateid};
use crate::limits::{OPEN_LOCKS_MAX, OWNER_LOCKS_MAX};
use crate::{Table, read};
use atoll_base::attr::Attr;
use atoll_lockd::LockMode::{Exclusive, Shared};
use atoll_lockd::{ByteRange, Callback, LockMode, LockOwner, LockRequest, NlmClient, Wait};
use atoll_meta::lock::{LockOp, LockOutcome, LockTest};
use atoll_meta::nfs4::{ClientId, LockState, StateError, StateId, StateKind, StateOp, StateOutcome, Stateid};
use atoll_meta::{FsError, Op, Outcome};

impl Rig {
    fn lock_again(
        &mut self,
        client: ClientId,
        lock: Stateid,
        range: ByteRange,
        mode: LockMode,
    ) -> Result<StateOutcome, FsError> {
        self.on_state(StateOp::Lock { client, state: LockState::Held(lock), range, mode, wait: None })
    }

    fn nlm_lock(&mut self, file: &Attr, host: &str, wait: Wait) -> Result<LockOutcome, FsError> {
        let client = NlmClient::new(host.into(), None).unwrap();
        let owner = LockOwner::nlm(client, b"oh", 1).unwrap();
        let request = LockRequest { owner, range: ByteRange::WHOLE, mode: Exclusive, wait };
        let (ino, generation) = (file.ino, file.generation);
        self.root(Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 })).map(|o| match o {
            Outcome::Lock(outcome) => outcome,
            other => panic!("{other:?}"),
        })
    }
}

#[test]
fn one_lock_state_of_an_owner_in_a_file() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = rig.open(client, "o", &f, BOTH).unwrap();
    let lock = stateid(&rig.lock4(client, open.id, "l", range(0, 10), Exclusive).unwrap());
    assert_eq!(lock.seqid, 1);
    let again = stateid(&rig.lock4(client, open.id, "l", range(20, 10), Shared).unwrap());
    assert_eq!(again, Stateid { id: lock.id, seqid: 2 });
    assert_eq!(rig.lock_again(client, lock, range(5, 1), Shared), refusal(StateError::OldStateid));
    let third = stateid(&rig.lock_again(client, again, range(5, 1), Shared).unwrap());
    assert_eq!(third.seqid, 3);
    let other = stateid(&rig.lock4(client, open.id, "m", range(40, 1), Exclusive).unwrap());
    assert_ne!(other.id, lock.id);
    let shown = read::state(&rig.kv, lock.id).unwrap().unwrap();
    assert_eq!(shown.kind, StateKind::Lock { open: open.id, share: BOTH });
    assert_eq!(shown.owner, bytes("l"));
    // An open owner of the same name is another owner.
    assert_ne!(rig.open(client, "l", &f, READ).unwrap().id, lock.id);
    rig.check();
    let unlock = |lock| StateOp::Unlock { client, lock, range: range(0, 100) };
    assert_eq!(stateid(&rig.on_state(unlock(third)).unwrap()).seqid, 4);
    assert_eq!(rig.on_state(unlock(newest(open.id))), Err(BAD_STATEID));
    assert_eq!(rig.lock_again(client, newest(open.id), range(0, 1), Shared), Err(BAD_STATEID));
    assert_eq!(rig.lock4(client, lock.id, "n", range(0, 1), Shared), Err(BAD_STATEID));
    rig.check();
}

#[test]
fn conflicts_name_the_holder_and_leave_nothing() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (a, _) = rig.v41("a");
    let (b, _) = rig.v41("b");
    let (oa, ob) = (rig.open(a, "o", &f, BOTH).unwrap(), rig.open(b, "o", &f, BOTH).unwrap());
    rig.lock4(a, oa.id, "l", range(0, 10), Exclusive).unwrap();
    let states = rig.rows(Table::State);
    let Ok(StateOutcome::Denied(conflict)) = rig.lock4(b, ob.id, "l", range(5, 10), Shared) else { panic!() };
    assert_eq!(conflict.owner.as_v4_holder(), (a.0, &b"l"[..]));
    assert_eq!((conflict.range, conflict.mode), (range(0, 10), Exclusive));
    assert_eq!(rig.rows(Table::State), states);
    rig.lock4(b, ob.id, "l", range(10, 10), Shared).unwrap();
    rig.check();
}

#[test]
fn the_open_must_allow_the_lock() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let (r, w) = (rig.open(client, "r", &f, READ).unwrap(), rig.open(client, "w", &f, WRITE).unwrap());
    let mode = refusal(StateError::OpenMode);
    assert_eq!(rig.lock4(client, r.id, "l", range(0, 1), Exclusive), mode);
    assert_eq!(rig.lock4(client, w.id, "l", range(0, 1), Shared), mode);
    let lock = stateid(&rig.lock4(client, r.id, "l", range(0, 1), Shared).unwrap());
    assert_eq!(rig.lock_again(client, lock, range(0, 1), Exclusive), mode);
    rig.open(client, "r", &f, WRITE).unwrap();
    rig.lock_again(client, lock, range(0, 1), Exclusive).unwrap();
    rig.check();
}

#[test]
fn close_frees_the_locks_under_it() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = rig.open(client, "o", &f, BOTH).unwrap();
    let kept = rig.open(client, "p", &f, BOTH).unwrap();
    let lock = stateid(&rig.lock4(client, open.id, "l", range(0, 10), Exclusive).unwrap());
    rig.lock4(client, kept.id, "m", range(20, 10), Exclusive).unwrap();
    rig.nlm_lock(&f, "h", Wait::Queue(Callback::new(vec![]).unwrap())).unwrap();
    rig.close(client, open.id).unwrap();
    rig.check();
    assert_eq!(read::state(&rig.kv, lock.id).unwrap(), None);
    assert!(rig.applied.as_ref().unwrap().touched.grants.is_empty());
    rig.close(client, kept.id).unwrap();
    let grants = &rig.applied.as_ref().unwrap().touched.grants;
    assert_eq!(grants.len(), 1, "who waited by NLM has it now");
    rig.check();
}

#[test]
fn nlm_and_v4_see_each_other() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = rig.open(client, "o", &f, BOTH).unwrap();
    rig.nlm_lock(&f, "h", Wait::No).unwrap();
    assert!(matches!(rig.lock4(client, open.id, "l", range(0, 1), Shared), Ok(StateOutcome::Denied(_))));
    let owner = LockOwner::v4(client.0, b"l".to_vec()).unwrap();
    let test = LockTest { ino: f.ino, generation: f.generation, owner, range: range(0, 1), mode: Shared };
    assert!(read::test_lock(&rig.kv, &test).unwrap().unwrap().is_some());
    rig.check();
}

#[test]
fn unlocking_and_expiry_grant_to_who_waits() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    for expires in [false, true] {
        let (client, _) = rig.v41("c");
        let open = rig.open(client, "o", &f, BOTH).unwrap();
        let lock = stateid(&rig.lock4(client, open.id, "l", range(0, 10), Exclusive).unwrap());
        let wait = Wait::Queue(Callback::new(vec![]).unwrap());
        let outcome = rig.nlm_lock(&f, "h", wait).unwrap();
        assert!(matches!(outcome, LockOutcome::Lock(atoll_lockd::LockOutcome::Blocked(_))));
        if expires {
            rig.on_client(atoll_meta::nfs4::ClientOp::Expire(client)).unwrap();
        } else {
            rig.on_state(StateOp::Unlock { client, lock, range: range(0, 10) }).unwrap();
        }
        assert_eq!(rig.applied.as_ref().unwrap().touched.grants.len(), 1);
        rig.check();
        let freed = atoll_lockd::ClientMatch::NlmName(b"h".to_vec());
        rig.root(Op::Lock(LockOp::ReleaseClient(freed))).unwrap();
    }
    rig.check();
}

#[test]
fn a_state_is_freed_when_it_holds_nothing() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = rig.open(client, "o", &f, BOTH).unwrap();
    let lock = stateid(&rig.lock4(client, open.id, "l", range(0, 10), Exclusive).unwrap());
    let free = |id| StateOp::Free { client, state: newest(id) };
    assert_eq!(rig.on_state(free(open.id)), refusal(StateError::LocksHeld));
    assert_eq!(rig.on_state(free(lock.id)), refusal(StateError::LocksHeld));
    rig.on_state(StateOp::Unlock { client, lock: newest(lock.id), range: range(0, 10) }).unwrap();
    assert_eq!(stateid(&rig.on_state(free(lock.id)).unwrap()), Stateid { id: lock.id, seqid: 3 });
    assert_eq!(rig.on_state(free(lock.id)), Err(BAD_STATEID));
    assert_eq!(rig.on_state(free(StateId(99))), Err(BAD_STATEID));
    rig.check();
}

#[test]
fn a_lock_owner_is_released_when_it_holds_nothing() {
    let mut rig = Rig::new();
    let (f, g) = (rig.file("f"), rig.file("g"));
    let client = rig.v40("c");
    let mut locks = Vec::new();
    for file in [&f, &g] {
        let open = rig.open(client, "o", file, BOTH).unwrap();
        rig.on_state(StateOp::Confirm { client, open }).ok();
        locks.push(stateid(&rig.lock4(client, open.id, "l", range(0, 10), Exclusive).unwrap()));
    }
    rig.check();
    let release = |owner: &str| StateOp::ReleaseOwner { client, owner: bytes(owner) };
    assert_eq!(rig.on_state(release("other")), Ok(StateOutcome::Released));
    for lock in locks {
        assert_eq!(rig.on_state(release("l")), refusal(StateError::LocksHeld));
        rig.on_state(StateOp::Unlock { client, lock, range: range(0, 10) }).unwrap();
    }
    assert_eq!(rig.on_state(release("l")), Ok(StateOutcome::Released));
    assert_eq!(rig.rows(Table::OpenLocks), 0);
    assert_eq!(rig.rows(Table::Owner), 1);
    rig.check();
}

#[test]
fn lock_states_are_bounded() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let (client, _) = rig.v41("c");
    let open = rig.open(client, "o", &f, READ).unwrap();
    for n in 0..OPEN_LOCKS_MAX {
        rig.lock4(client, open.id, &n.to_string(), range(0, 1), Shared).unwrap();
    }
    assert_eq!(rig.lock4(client, open.id, "more", range(0, 1), Shared), Err(FsError::TableFull));
    rig.lock4(client, open.id, "0", range(1, 1), Shared).unwrap();
    rig.check();
    let old = rig.v40("old");
    for n in 0..=OWNER_LOCKS_MAX {
        let g = rig.file(&n.to_string());
        let open = rig.open(old, "o", &g, READ).unwrap();
        rig.on_state(StateOp::Confirm { client: old, open }).ok();
        let full = n == OWNER_LOCKS_MAX;
        let expected = if full { Err(FsError::TableFull) } else { Ok(()) };
        assert_eq!(rig.lock4(old, open.id, "l", range(0, 1), Shared).map(drop), expected);
    }
    rig.check();
}
