//! What others' delegations forbid, in the naive file system.

use super::{Answer, World};
use atoll_base::attr::Delegated;
use atoll_base::id::Ino;
use atoll_meta::delegation::{DelegationKind, DelegationWish, Intrusion};
use atoll_meta::nfs4::{StateError, StateId};

#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Delegation {
    pub(in super::super) id: StateId,
    pub(in super::super) kind: DelegationKind,
    pub(in super::super) recalled: bool,
}

/// What must become of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    Given,
    Contention,
    Resource,
}

impl World {
    pub(super) fn is_named(&self, ino: Ino) -> bool {
        self.nodes.values().any(|node| node.names.iter().any(|(_, child)| *child == ino))
    }

    pub(super) fn is_delegated(&self, ino: Ino) -> bool {
        self.delegations.keys().any(|(_, at)| *at == ino)
    }

    pub(super) fn delegated(&self, ino: Ino) -> Delegated {
        let its = self.delegations.iter().filter(|((_, at), _)| *at == ino);
        its.map(|(_, d)| if d.kind == DelegationKind::Write { Delegated::Write } else { Delegated::Read })
            .max()
            .unwrap_or_default()
    }

    /// Refuses what a delegation of another than the caller forbids.
    pub(super) fn allow(&self, ino: Ino, intrusion: Intrusion) -> Answer<()> {
        let forbids = |d: &Delegation| intrusion == Intrusion::Change || d.kind == DelegationKind::Write;
        let mut all = self.delegations.iter();
        if all.any(|((client, at), d)| *at == ino && Some(*client) != self.caller && forbids(d)) {
            return Err(StateError::Delegated.into());
        }
        Ok(())
    }

    /// What must become of a client's wish, where nobody has opens or locks.
    pub(in super::super) fn fate(&self, client: usize, ino: Ino, wish: DelegationWish, most: u32) -> Fate {
        let own = self.delegations.get(&(client, ino));
        match own {
            Some(own) if own.recalled || own.kind == DelegationKind::Directory => return Fate::Contention,
            Some(own) if own.kind == wish.kind || own.kind == DelegationKind::Write => return Fate::Given,
            _ => {}
        }
        let in_the_way = |d: &Delegation| {
            d.recalled || d.kind == DelegationKind::Write || wish.kind == DelegationKind::Write
        };
        let mut all = self.delegations.iter();
        let is_root = self.nodes[&ino].names.is_empty() && !self.is_named(ino);
        let is_gone = is_root && wish.kind != DelegationKind::Directory;
        if all.any(|((other, at), d)| *other != client && *at == ino && in_the_way(d))
            || is_gone
            || own.is_none() && self.nodes[&ino].lease.is_some()
        {
            return Fate::Contention;
        }
        let count = self.delegations.keys().filter(|(holder, _)| *holder == client).count();
        if own.is_none() && count >= most as usize { Fate::Resource } else { Fate::Given }
    }

    /// A delegation is no more: a file that stayed for it goes.
    pub(in super::super) fn undelegate(&mut self, client: usize, ino: Ino) {
        self.delegations.remove(&(client, ino));
        let is_file =
            self.nodes.get(&ino).is_some_and(|node| node.kind != atoll_base::attr::FileKind::Directory);
        if is_file && !self.is_named(ino) && !self.is_delegated(ino) {
            self.nodes.remove(&ino);
        }
    }
}
