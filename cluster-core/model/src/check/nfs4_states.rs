//! NFSv4: opens, lock states, delegations, owners, and that files' lock tables agree with them.

use super::Checker;
use super::nfs4_delegations::Found;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, Table};
use crate::record::nfs4::{ClientRecord, Held, OwnerKind, OwnerRecord, StateRecord};
use crate::store;
use atoll_base::attr::FileKind;
use atoll_base::id::Ino;
use atoll_lockd::{FileLocks, LockClient, OpenCounts};
use atoll_meta::nfs4::{ClientId, StateId};
use std::ops::ControlFlow;

impl<K: KvRead> Checker<'_, K> {
    pub(super) fn state(&self, id: u64) -> Option<StateRecord> {
        self.peek(Table::State, &keys::state(StateId(id)))
    }

    pub(super) fn states(&mut self) -> Result<(), KvError> {
        let mut delegations = Found::default();
        self.rows(Table::State, |c, key, value| {
            let Some(id) = c.noted(keys::parse_one(Table::State, key)) else { return };
            let Some(record) = c.decode::<StateRecord>(Table::State, key, value) else { return };
            let say = |c: &mut Self, what: &str| c.general(format!("state {id} {what}"));
            // A lock state whose owner has only waited so far was shown to nobody yet.
            let unseen = record.seqid == 0 && record.kind() != OwnerKind::Lock;
            if id > c.meta.nfs4.last_state || unseen {
                say(c, "has a number that was never given out");
            }
            if !c.is_somebodys(record.client) {
                say(c, "is of a client that does not exist");
            }
            let state = StateId(id);
            let by_owner = keys::owner_state(record.client, record.kind(), &record.owner, record.ino);
            let listed: Option<u64> =
                c.kv.get(Table::OwnerState, &by_owner, |v| {
                    v.and_then(|v| keys::parse_one(Table::OwnerState, v).ok())
                })
                .ok()
                .flatten();
            let in_file = c.has(Table::FileState, &keys::file_state(record.ino, state));
            let by_client = c.has(Table::ClientState, &keys::client_state(record.client, state));
            if listed != Some(id) || in_file == record.is_revoked() || !by_client {
                say(c, "is not in all indexes");
            }
            if let Some(delegation) = record.delegation() {
                return c.delegation(&mut delegations, state, &record, delegation);
            }
            // A file that was removed leaves its states behind.
            if c.nodes.get(&record.ino).is_some_and(|node| node.kind != FileKind::Regular) {
                say(c, "is of what is no file");
            }
            let client: Option<ClientRecord> = c.peek(Table::Client4, &keys::client(record.client));
            let owner = keys::owner(record.client, record.kind(), &record.owner);
            if client.is_some_and(|client| client.minor() == 0) && !c.has(Table::Owner, &owner) {
                say(c, "is of an owner without a sequence");
            }
            let Held::Lock { open } = record.held else { return };
            if !c.has(Table::OpenLocks, &keys::open_lock(open, state)) {
                say(c, "is not listed under its open");
            }
        })?;
        self.delegations(&delegations)?;
        self.state_indexes()?;
        self.open_counts()?;
        self.owners()
    }

    fn state_indexes(&mut self) -> Result<(), KvError> {
        for table in [Table::FileState, Table::ClientState, Table::OpenLocks] {
            self.rows(table, |c, key, _| {
                let Some((first, id)) = c.pair(table, key) else { return };
                let fits = c.state(id).is_some_and(|record| match table {
                    Table::FileState => record.ino.0 == first && !record.is_revoked(),
                    Table::ClientState => record.client.0 == first,
                    // Its open may have gone before it only with the client of both.
                    _ => {
                        let open = c.state(first).is_none_or(|open| {
                            (open.ino, open.client, open.kind())
                                == (record.ino, record.client, OwnerKind::Open)
                        });
                        let there = c.state(first).is_some()
                            || c.has(Table::ClientRelease, &keys::client(record.client));
                        open && there && record.held == (Held::Lock { open: StateId(first) })
                    }
                });
                if !fits {
                    c.general(format!("table {} lists state {id} in the wrong place", table.name()));
                }
            })?;
        }
        self.rows(Table::OwnerState, |c, key, value| {
            let parsed = keys::parse_owner_state(key)
                .map(|(client, kind, owner, ino)| (client, kind, owner.to_vec(), ino));
            let Some((client, kind, owner, ino)) = c.noted(parsed) else { return };
            let Some(id) = c.noted(keys::parse_one(Table::OwnerState, value)) else { return };
            let fits = c.state(id).is_some_and(|record| {
                (record.client, record.kind(), &record.owner[..], record.ino)
                    == (client, kind, &owner[..], ino)
            });
            if !fits {
                c.general(format!("an owner of client {:x} lists state {id}, which is not its", client.0));
            }
        })
    }

    /// Lock tables count the opens that there are.
    fn open_counts(&mut self) -> Result<(), KvError> {
        let mut at: Option<(Ino, OpenCounts)> = None;
        self.rows(Table::FileState, |c, key, _| {
            let Some((ino, id)) = c.pair(Table::FileState, key) else { return };
            let ino = Ino(ino);
            if at.is_none_or(|(last, _)| last != ino) {
                if let Some((ino, counts)) = at {
                    c.compare_opens(ino, counts);
                }
                at = Some((ino, OpenCounts::default()));
            }
            if let (Some((_, counts)), Some(Held::Open { share, .. })) =
                (&mut at, c.state(id).map(|record| record.held))
            {
                *counts = counts.with(share);
            }
        })?;
        if let Some((ino, counts)) = at {
            self.compare_opens(ino, counts);
        }
        Ok(())
    }

    fn compare_opens(&mut self, ino: Ino, counts: OpenCounts) {
        let table: Option<FileLocks> = self.peek(Table::Lock, &crate::keys::ino(ino));
        let expected = if self.nodes.contains_key(&ino) { counts } else { OpenCounts::default() };
        if table.map(|table| table.shares().opens()).unwrap_or_default() != expected {
            self.about(ino, "its lock table counts other opens than it has");
        }
    }

    /// What a lock table says of NFSv4 has its states.
    pub(super) fn lock_table_of_v4(&mut self, ino: Ino, locks: &FileLocks) {
        let none: OpenCounts = OpenCounts::default();
        if locks.shares().opens() != none && !self.has_prefixed(Table::FileState, &crate::keys::ino(ino)) {
            self.about(ino, "its lock table counts opens, but it has none");
        }
        let owners =
            locks.holders().map(|held| held.owner).chain(locks.waiters().map(|waiter| &waiter.owner));
        let holders = owners.filter_map(|owner| match owner.client() {
            LockClient::V4(id) => Some((ClientId(*id), owner.as_v4_holder().1)),
            LockClient::Nlm(_) => None,
        });
        let stray = holders
            .filter(|(client, owner)| {
                !self.has(Table::OwnerState, &keys::owner_state(*client, OwnerKind::Lock, owner, ino))
            })
            .count();
        if stray > 0 {
            self.about(ino, "has locks of NFSv4, or requests that wait, without a lock state");
        }
    }

    fn owners(&mut self) -> Result<(), KvError> {
        self.rows(Table::Owner, |c, key, value| {
            let parsed = keys::parse_owner(Table::Owner, key)
                .map(|(client, kind, owner)| (client, kind, owner.to_vec()));
            let Some((client, kind, owner)) = c.noted(parsed) else { return };
            let Some(record) = c.decode::<OwnerRecord>(Table::Owner, key, value) else { return };
            let say = |c: &mut Self, what: &str| {
                c.general(format!("owner {} of client {:x} {what}", owner.escape_ascii(), client.0));
            };
            let its: Option<ClientRecord> = c.peek(Table::Client4, &keys::client(client));
            if !c.is_somebodys(client) || its.is_some_and(|its| its.minor() != 0) {
                say(c, "is of a client that has no sequences, or does not exist");
            }
            let mut states = 0;
            let prefix = keys::owner_states(client, kind, &owner);
            let counted = store::each_prefixed(c.kv, Table::OwnerState, &prefix, |_, _| {
                states += 1;
                Ok(ControlFlow::Continue(()))
            });
            let is_whole = c.has(Table::Client4, &keys::client(client));
            if c.noted(counted).is_some() && is_whole && states != record.states {
                say(c, "counts another number of states than it has");
            }
            if is_whole && (record.states == 0) != record.idle.is_some() {
                say(c, "is idle but not listed so, or the other way round");
            }
            let row = record.idle.map(|number| keys::idle_owner(client, number, &owner));
            if row.is_some_and(|row| !c.has(Table::IdleOwner, &row)) {
                say(c, "is not in the order of idle owners");
            }
            if record.closed.is_some_and(|closed| !c.has(Table::ClosedState, &keys::state(closed))) {
                say(c, "does not lead from the state that it closed");
            }
        })?;
        self.rows(Table::IdleOwner, |c, key, _| {
            let parsed =
                keys::parse_idle_owner(key).map(|(client, number, owner)| (client, number, owner.to_vec()));
            let Some((client, number, owner)) = c.noted(parsed) else { return };
            let record: Option<OwnerRecord> =
                c.peek(Table::Owner, &keys::owner(client, OwnerKind::Open, &owner));
            if record.is_none_or(|record| record.idle != Some(number)) {
                c.general(format!("client {:x} lists an idle owner that is none", client.0));
            }
        })?;
        self.rows(Table::ClosedState, |c, key, value| {
            let Some(id) = c.noted(keys::parse_one(Table::ClosedState, key)) else { return };
            c.noted(keys::parse_owner(Table::ClosedState, value).map(|_| ()));
            let record: Option<OwnerRecord> = c.peek(Table::Owner, value);
            if record.is_none_or(|record| record.closed != Some(StateId(id))) || c.state(id).is_some() {
                c.general(format!("closed state {id} leads to an owner that did not close it"));
            }
        })
    }
}
