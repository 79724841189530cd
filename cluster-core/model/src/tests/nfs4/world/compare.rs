//! What is shown, compared with the reference.

use super::super::range;
use super::{Act, BYTES, Delegation, World, name};
use crate::read;
use atoll_base::attr::Delegated;
use atoll_base::id::{ExportId, Ino};
use atoll_lockd::{LockMode, LockOwner, NlmClient};
use atoll_meta::FsError;
use atoll_meta::delegation::{DelegationKind, DelegationPhase, NoticeKinds};
use atoll_meta::lock::LockTest;
use atoll_meta::nfs4::{StateId, StateKind};
use std::collections::BTreeSet;

/// A state without what depends on how often its file was changed.
fn without_change(kind: StateKind) -> StateKind {
    match kind {
        StateKind::Delegation { kind, phase, timestamps, export, .. } => {
            StateKind::Delegation { kind, phase, timestamps, export, change: 0, notices: NoticeKinds::NONE }
        }
        other => other,
    }
}

impl World {
    pub(in super::super) fn check(&self) {
        self.rig.check();
        for life in self.clients.iter().flatten() {
            let mut expected: Vec<(u64, u32, Ino, Vec<u8>, StateKind)> = Vec::new();
            for ((owner, file), open) in &life.opens {
                let kind = StateKind::Open { share: open.share, confirmed: true };
                let ino = self.files[*file].ino;
                expected.push((open.id.0, open.seqid, ino, name(*owner).into_bytes(), kind));
            }
            for ((owner, file), lock) in &life.locks {
                let share = life.opens.values().find(|open| open.id == lock.open).unwrap().share;
                let kind = StateKind::Lock { open: lock.open, share };
                let ino = self.files[*file].ino;
                expected.push((lock.id.0, lock.seqid, ino, name(*owner).into_bytes(), kind));
            }
            for (file, delegation) in &life.delegations {
                let Delegation { kind, phase, timestamps, .. } = *delegation;
                let kind = StateKind::Delegation {
                    kind,
                    phase,
                    timestamps,
                    export: ExportId(1),
                    change: 0,
                    notices: NoticeKinds::NONE,
                };
                let ino = self.files[*file].ino;
                expected.push((delegation.id.0, delegation.seqid, ino, Vec::new(), kind));
            }
            expected.sort_by_key(|(id, ..)| *id);
            let shown = read::states_by(&self.rig.kv, life.id, StateId(0), 100).unwrap();
            let shown: Vec<_> = shown
                .into_iter()
                .map(|s| (s.stateid.id.0, s.stateid.seqid, s.ino, s.owner.to_vec(), without_change(s.kind)))
                .collect();
            assert_eq!(shown, expected);
            let revoked = life.delegations.values().filter(|d| d.phase == DelegationPhase::Revoked).count();
            assert_eq!(read::client(&self.rig.kv, life.id).unwrap().unwrap().revoked as usize, revoked);
        }
        let stranger = LockOwner::nlm(NlmClient::new(b"x".to_vec(), None).unwrap(), b"", 0).unwrap();
        self.check_delegations();
        for (n, file) in self.files.iter().enumerate() {
            for byte in 0..BYTES {
                for mode in [LockMode::Shared, LockMode::Exclusive] {
                    let at = (byte, 1);
                    let test = LockTest {
                        ino: file.ino,
                        generation: file.generation,
                        owner: stranger.clone(),
                        range: range(byte as u64, 1),
                        mode,
                    };
                    let live = self.lock_conflict(usize::MAX, 0, n, at, mode);
                    match read::test_lock(&self.rig.kv, &test).unwrap() {
                        Ok(held) => assert_eq!(held.is_some(), live),
                        Err(e) => {
                            assert!(e == FsError::Delay && self.dead_conflict(n, None, Some((at, mode))))
                        }
                    }
                }
            }
        }
    }

    /// What inodes say, and who is to be told.
    fn check_delegations(&self) {
        let all = || {
            let lives = self.clients.iter().flatten();
            lives.flat_map(|life| &life.delegations).filter(|(_, d)| d.phase != DelegationPhase::Revoked)
        };
        for (n, file) in self.files.iter().enumerate() {
            let delegated =
                all().filter(|(file, _)| **file == n).map(|(_, delegation)| match delegation.kind {
                    DelegationKind::Write => Delegated::Write,
                    _ => Delegated::Read,
                });
            let (said, least) = (self.rig.attr(file.ino).delegated, delegated.max().unwrap_or_default());
            let is_dead = self.dead_delegations.iter().any(|(ino, _)| *ino == file.ino);
            assert!(said == least || is_dead && said > least);
        }
        let recalled = all().filter(|(_, d)| d.phase == DelegationPhase::Recalled);
        let recalled: BTreeSet<StateId> = recalled.map(|(_, d)| d.id).collect();
        let told = read::recalled(&self.rig.kv, StateId(0), 100).unwrap();
        assert_eq!(told.iter().map(|state| state.stateid.id).collect::<BTreeSet<_>>(), recalled);
    }

    /// Everybody goes; nothing may be left.
    pub(in super::super) fn end(&mut self) {
        for client in 0..self.clients.len() {
            self.act(&Act::Expire(client));
        }
        self.rig.sweep();
        self.rig.check();
        self.rig.check_nothing_left();
    }
}
