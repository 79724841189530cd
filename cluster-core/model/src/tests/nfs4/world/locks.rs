//! LOCK, LOCKU, FREE_STATEID, RELEASE_LOCKOWNER.

use super::super::{Owner40, bytes, newest, range, stateid};
use super::{BYTES, Lock, World, name};
use crate::Table;
use crate::limits::{OPEN_LOCKS_MAX, OWNER_LOCKS_MAX, STATES_MAX};
use atoll_lockd::{LockMode, ShareBits};
use atoll_meta::nfs4::{LockState, StateError, StateId, StateOp, StateOutcome};
use atoll_meta::{FsError, Once};

impl World {
    pub(super) fn lock(
        &mut self,
        client: usize,
        owner: usize,
        locker: usize,
        file: usize,
        at: (usize, usize),
        mode: LockMode,
    ) {
        let life = self.life(client);
        let (id, Some(open)) = (life.id, life.opens.get(&(owner, file)).cloned()) else { return };
        let known = life.locks.get(&(locker, file)).cloned();
        if known.is_some() && at.0.is_multiple_of(2) {
            return self.lock_more(client, locker, file, at, mode);
        }
        let under = life.locks.values().filter(|lock| lock.open == open.id).count();
        let of_owner = life.locks.keys().filter(|(l, _)| *l == locker).count();
        let crowded = life.states() >= STATES_MAX as usize
            || under >= OPEN_LOCKS_MAX
            || (!Self::is_v41(client) && of_owner >= OWNER_LOCKS_MAX as usize);
        let full = known.is_none() && crowded;
        let seqid = life.lock_owners.get(&locker).copied().unwrap_or(50);
        let once = self.owner_key(client, owner, Some(open.id));
        let state = LockState::New { open: newest(open.id), owner: bytes(&name(locker)), seqid };
        let span = range(at.0 as u64, at.1 as u64);
        let pending = self.rig.rows(Table::ClientRelease) > 0;
        let answer =
            self.send(client, once, StateOp::Lock { client: id, state, range: span, mode, wait: None });
        let needed = if mode == LockMode::Shared { ShareBits::Read } else { ShareBits::Write };
        let clash = self.lock_conflict(client, locker, file, at, mode);
        let dead = self.dead_conflict(file, None, Some((at, mode)));
        let is_v41 = Self::is_v41(client);
        let life = self.life(client);
        if of_owner > 0 && !is_v41 && !matches!(answer, Err(FsError::TableFull)) {
            life.lock_owners.insert(locker, seqid + 1);
        }
        match answer {
            Err(FsError::State(StateError::OpenMode)) => assert!(!open.share.access.contains(needed)),
            Err(FsError::TableFull) => {
                assert!(full);
                self.uncount(client, owner);
            }
            Err(FsError::Delay) => assert!(pending && dead),
            Ok(StateOutcome::Denied(conflict)) => {
                assert!(clash && open.share.access.contains(needed) && !full, "{conflict:?}");
            }
            other => {
                let stateid = stateid(&other.unwrap());
                assert!(!clash && !full && open.share.access.contains(needed));
                let mut lock =
                    known.unwrap_or(Lock { id: stateid.id, seqid: 0, open: open.id, held: [None; BYTES] });
                lock.seqid += 1;
                assert_eq!((stateid.id, stateid.seqid), (lock.id, lock.seqid));
                lock.held[at.0..at.0 + at.1].fill(Some(mode));
                life.locks.insert((locker, file), lock);
                if !is_v41 {
                    life.lock_owners.insert(locker, seqid + 1);
                }
            }
        }
    }

    /// The key of the next step of a v4.0 lock owner.
    fn locker_key(&mut self, client: usize, locker: usize, lock: StateId) -> Option<Once> {
        if Self::is_v41(client) {
            return None;
        }
        let life = self.life(client);
        let seqid = life.lock_owners.get_mut(&locker).unwrap();
        let mut owner = Owner40::new(life.id, &name(locker), *seqid);
        *seqid += 1;
        Some(owner.of(lock))
    }

    /// LOCK by the stateid of the lock state.
    fn lock_more(&mut self, client: usize, locker: usize, file: usize, at: (usize, usize), mode: LockMode) {
        let life = self.life(client);
        let (id, lock) = (life.id, life.locks[&(locker, file)].clone());
        let access = life.opens.values().find(|open| open.id == lock.open).unwrap().share.access;
        let once = self.locker_key(client, locker, lock.id);
        let (state, span) = (LockState::Held(newest(lock.id)), range(at.0 as u64, at.1 as u64));
        let answer =
            self.send(client, once, StateOp::Lock { client: id, state, range: span, mode, wait: None });
        let needed = if mode == LockMode::Shared { ShareBits::Read } else { ShareBits::Write };
        let clash = self.lock_conflict(client, locker, file, at, mode);
        let dead = self.dead_conflict(file, None, Some((at, mode)));
        match answer {
            Err(FsError::State(StateError::OpenMode)) => assert!(!access.contains(needed)),
            Err(FsError::Delay) => assert!(dead),
            Ok(StateOutcome::Denied(_)) => assert!(clash && access.contains(needed)),
            other => {
                assert!(!clash && access.contains(needed));
                let lock = self.life(client).locks.get_mut(&(locker, file)).unwrap();
                lock.seqid += 1;
                lock.held[at.0..at.0 + at.1].fill(Some(mode));
                assert_eq!(stateid(&other.unwrap()).seqid, lock.seqid);
            }
        }
    }

    pub(super) fn unlock(&mut self, client: usize, locker: usize, file: usize, at: (usize, usize)) {
        let life = self.life(client);
        let (id, Some(lock)) = (life.id, life.locks.get(&(locker, file)).cloned()) else { return };
        let once = self.locker_key(client, locker, lock.id);
        let range = range(at.0 as u64, at.1 as u64);
        let answer = self.send(client, once, StateOp::Unlock { client: id, lock: newest(lock.id), range });
        let lock = self.life(client).locks.get_mut(&(locker, file)).unwrap();
        lock.seqid += 1;
        lock.held[at.0..at.0 + at.1].fill(None);
        assert_eq!(stateid(&answer.unwrap()).seqid, lock.seqid);
    }

    pub(super) fn free(&mut self, client: usize, locker: usize, file: usize) {
        let life = self.life(client);
        let (id, Some(lock)) = (life.id, life.locks.get(&(locker, file)).cloned()) else { return };
        let answer = self.rig.on_state(StateOp::Free { client: id, state: newest(lock.id) });
        if lock.held.iter().any(Option::is_some) {
            return assert_eq!(answer, Err(StateError::LocksHeld.into()));
        }
        answer.unwrap();
        self.life(client).locks.remove(&(locker, file));
        self.forget_lockers(client);
    }

    pub(super) fn release_owner(&mut self, client: usize, locker: usize) {
        let id = self.life(client).id;
        let owner = bytes(&name(locker));
        let answer = self.rig.on_state(StateOp::ReleaseOwner { client: id, owner });
        let life = self.life(client);
        let mut its = life.locks.iter().filter(|((l, _), _)| *l == locker);
        if its.any(|(_, lock)| lock.held.iter().any(Option::is_some)) {
            return assert_eq!(answer, Err(StateError::LocksHeld.into()));
        }
        answer.unwrap();
        life.locks.retain(|(l, _), _| *l != locker);
        self.forget_lockers(client);
    }
}
