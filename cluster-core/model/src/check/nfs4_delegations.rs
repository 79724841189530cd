//! NFSv4: delegations, their lists, what inodes and clients say of them, and that they are beside nothing that they forbid.

use super::Checker;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, Table};
use crate::ops::nfs4::delegations::strongest;
use crate::ops::nfs4::wishes::hinders;
use crate::record::nfs4::{Counts, Delegation, Held, StateRecord, Watch};
use atoll_base::attr::FileKind;
use atoll_base::id::Ino;
use atoll_meta::delegation::{DelegationKind, DelegationPhase, Notice, NoticeKinds};
use atoll_meta::nfs4::{ClientId, StateId};
use std::collections::BTreeMap;

/// What was found while the states were looked at.
#[derive(Default)]
pub(super) struct Found {
    /// In force, by file: whose, and what they allow.
    files: BTreeMap<Ino, Vec<(ClientId, DelegationKind)>>,
    /// All, and revoked ones, by client.
    clients: BTreeMap<ClientId, (u32, u32)>,
}

impl<K: KvRead> Checker<'_, K> {
    /// Looks at one delegation, and remembers it.
    pub(super) fn delegation(
        &mut self,
        found: &mut Found,
        id: StateId,
        record: &StateRecord,
        delegation: Delegation,
    ) {
        let is_revoked = delegation.phase == DelegationPhase::Revoked;
        let counts = found.clients.entry(record.client).or_default();
        counts.0 += 1;
        counts.1 += u32::from(is_revoked);
        if !is_revoked {
            found.files.entry(record.ino).or_default().push((record.client, delegation.kind));
        }
        let listed = self.has(Table::FileDelegation, &keys::file_delegation(record.ino, id));
        let recalled = self.has(Table::Recalled, &keys::state(id));
        if listed == is_revoked || recalled != (delegation.phase == DelegationPhase::Recalled) {
            self.general(format!("delegation {} is listed for what it is not, or not for what it is", id.0));
        }
        if !record.owner.is_empty() {
            self.general(format!("delegation {} has an owner", id.0));
        }
        let of = match delegation.kind {
            DelegationKind::Directory => FileKind::Directory,
            DelegationKind::Read | DelegationKind::Write => FileKind::Regular,
        };
        if self.nodes.get(&record.ino).is_some_and(|node| node.kind != of) {
            self.general(format!("delegation {} is of what has none such", id.0));
        }
    }

    /// The lists of delegations, and what others say of them.
    pub(super) fn delegations(&mut self, found: &Found) -> Result<(), KvError> {
        self.rows(Table::FileDelegation, |c, key, _| {
            let Some((ino, id)) = c.pair(Table::FileDelegation, key) else { return };
            let its = c.state(id).filter(|record| record.ino.0 == ino).and_then(|record| record.delegation());
            if its.is_none_or(|delegation| delegation.phase == DelegationPhase::Revoked) {
                c.about(Ino(ino), format!("lists delegation {id}, which is not in force there"));
            }
        })?;
        self.rows(Table::Recalled, |c, key, _| {
            let Some(id) = c.noted(keys::parse_one(Table::Recalled, key)) else { return };
            let its = c.state(id).and_then(|record| record.delegation());
            if its.is_none_or(|delegation| delegation.phase != DelegationPhase::Recalled) {
                c.general(format!("delegation {id} is listed as recalled and is not"));
            }
        })?;
        self.notices()?;
        self.delegated(found);
        self.beside_opens(found)?;
        self.rows(Table::ClientCounts, |c, key, value| {
            let Some(id) = c.noted(keys::parse_one(Table::ClientCounts, key)).map(ClientId) else { return };
            let Some(counts) = c.decode::<Counts>(Table::ClientCounts, key, value) else { return };
            let there = found.clients.get(&id).copied().unwrap_or_default();
            if (counts.delegations, counts.revoked) != there {
                c.general(format!("client {:x} counts other delegations than it has", id.0));
            }
        })
    }

    /// Who is told of changes holds a delegation of a directory, and what it is to be told is there.
    fn notices(&mut self) -> Result<(), KvError> {
        let mut pending: BTreeMap<StateId, (u64, u64)> = BTreeMap::new();
        self.rows(Table::Watch, |c, key, value| {
            let Some(id) = c.noted(keys::parse_one(Table::Watch, key)).map(StateId) else { return };
            let Some(watch) = c.decode::<Watch>(Table::Watch, key, value) else { return };
            let its = c.state(id.0).and_then(|record| record.delegation());
            let held =
                |d: Delegation| d.kind == DelegationKind::Directory && d.phase == DelegationPhase::Held;
            if !its.is_some_and(held) || watch.kinds == NoticeKinds::NONE || watch.first > watch.next {
                c.general(format!("delegation {} is watched and cannot be", id.0));
            }
            pending.insert(id, (watch.first, watch.next));
        })?;
        self.rows(Table::Notice, |c, key, value| {
            let Some((id, number)) = c.pair(Table::Notice, key) else { return };
            let _entry = c.decode::<Notice>(Table::Notice, key, value);
            // In their order, and none left out.
            match pending.get_mut(&StateId(id)) {
                Some((first, next)) if *first == number && number < *next => *first += 1,
                _ => c.general(format!("notice {number} of delegation {id} is out of its place")),
            }
        })?;
        for (id, _) in pending.iter().filter(|(_, (first, next))| first != next) {
            self.general(format!("delegation {} misses notices", id.0));
        }
        Ok(())
    }

    /// Inodes say which delegations they have, and those of a file can be beside each other.
    fn delegated(&mut self, found: &Found) {
        let said: Vec<(Ino, bool)> = self
            .nodes
            .iter()
            .map(|(ino, node)| {
                let of_file = found.files.get(ino).into_iter().flatten();
                (*ino, node.delegated == strongest(of_file.map(|(_, kind)| *kind)))
            })
            .filter(|(_, right)| !right)
            .collect();
        for (ino, _) in said {
            self.about(ino, "says of its delegations what is not so");
        }
        for (ino, delegations) in &found.files {
            let writes = delegations.iter().any(|(_, kind)| *kind == DelegationKind::Write);
            if writes && delegations.len() > 1 {
                self.about(*ino, "has a write delegation beside another");
            }
        }
    }

    /// No open is beside a delegation of another client that it would have had to wait for.
    fn beside_opens(&mut self, found: &Found) -> Result<(), KvError> {
        self.rows(Table::FileState, |c, key, _| {
            let Some((ino, id)) = c.pair(Table::FileState, key) else { return };
            let Some(delegations) = found.files.get(&Ino(ino)) else { return };
            let Some(StateRecord { client, held: Held::Open { share, .. }, .. }) = c.state(id) else {
                return;
            };
            if delegations.iter().any(|(holder, kind)| *holder != client && hinders(*kind, share)) {
                c.about(Ino(ino), format!("open {id} is beside a delegation that forbids it"));
            }
        })
    }
}
