//! Opens, lock states and delegations as rows, with their indexes.

use super::clients::{self, Caller};
use super::delegations;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::STATES_MAX;
use crate::once::owners;
use crate::ops::{link, locks};
use crate::record::nfs4::{Held, OwnerKind, StateRecord};
use crate::store;
use crate::transaction::{Step, Stop, Transaction, require};
use atoll_base::id::Ino;
use atoll_lockd::{LockClient, LockOwner, OwnerError, Share};
use atoll_meta::FsError;
use atoll_meta::nfs4::{ClientId, StateError, StateId, Stateid};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

pub(super) fn damaged(what: &str) -> Stop {
    Stop::Store(KvError::Failed(what.into()))
}

/// A state, also of a client that has ended.
pub(crate) fn load(kv: &impl KvRead, id: StateId) -> Result<Option<StateRecord>, KvError> {
    store::get(kv, Table::State, &keys::state(id))
}

/// A state that a row names: that there is none is damage.
pub(crate) fn follow(kv: &impl KvRead, id: StateId) -> Result<StateRecord, KvError> {
    load(kv, id)?.ok_or_else(|| KvError::Failed(format!("state {} is named but does not exist", id.0)))
}

pub(super) fn put(kv: &mut impl KvWrite, id: StateId, record: &StateRecord) -> Result<(), KvError> {
    store::put(kv, Table::State, &keys::state(id), record)
}

/// The open or lock state that a client means (RFC 8881 §8.2.4), and the client. What wants one of these has no word for a delegation that was revoked
/// (§15.2): it is not one of these.
pub(super) fn demand_held<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<(Caller, StateRecord)> {
    let found = demand_any(t, client, sent)?;
    require(!found.1.is_revoked(), FsError::State(StateError::BadStateid))?;
    Ok(found)
}

/// The state that a client means, and the client. It is not revoked.
pub(super) fn demand<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<(Caller, StateRecord)> {
    let found = demand_any(t, client, sent)?;
    require(!found.1.is_revoked(), StateError::DelegationRevoked.into())?;
    Ok(found)
}

/// The same; it may be revoked.
pub(super) fn demand_any<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<(Caller, StateRecord)> {
    let caller = clients::demand(t, client)?;
    let record = load(t.kv, sent.id)?.filter(|record| record.client == client);
    let record = record.ok_or(FsError::State(StateError::BadStateid))?;
    if sent.seqid != 0 && sent.seqid != record.seqid {
        // By the shorter way round: the number wraps (RFC 7530 §9.1.3).
        let is_older = record.seqid.wrapping_sub(sent.seqid).cast_signed() > 0;
        return Err(if is_older { StateError::OldStateid } else { StateError::BadStateid }.into());
    }
    Ok((caller, record))
}

impl From<StateError> for Stop {
    fn from(e: StateError) -> Self {
        Stop::Refused(e.into())
    }
}

/// Past the largest comes 1: 0 means "the newest".
fn next_seqid(seqid: u32) -> u32 {
    seqid.checked_add(1).unwrap_or(1)
}

/// Stores a changed state, with its next version; returns its stateid.
pub(super) fn advance<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: StateId,
    record: &mut StateRecord,
) -> Step<Stateid> {
    record.seqid = next_seqid(record.seqid);
    put(t.kv, id, record)?;
    Ok(record.stateid(id))
}

/// The last stateid of a state that goes.
pub(super) fn last_stateid(id: StateId, record: &StateRecord) -> Stateid {
    Stateid { id, seqid: next_seqid(record.seqid) }
}

/// Whether the client may have one more.
pub(super) fn check_room<K: KvWrite>(t: &Transaction<'_, K>, client: ClientId) -> Step<()> {
    Ok(require(clients::counts(t.kv, client)?.states < STATES_MAX, FsError::TableFull)?)
}

/// The state of an owner in a file.
pub(super) fn of_owner_in(
    kv: &impl KvRead,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
    ino: Ino,
) -> Result<Option<StateId>, KvError> {
    let key = keys::owner_state(client, kind, owner, ino);
    kv.get(Table::OwnerState, &key, |value| {
        value.map(|value| keys::parse_one(Table::OwnerState, value).map(StateId)).transpose()
    })?
}

/// All states of an owner, with their files.
pub(crate) fn of_owner(
    kv: &impl KvRead,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
) -> Result<Vec<(StateId, Ino)>, KvError> {
    let mut found = Vec::new();
    store::each_prefixed(kv, Table::OwnerState, &keys::owner_states(client, kind, owner), |key, value| {
        let (.., ino) = keys::parse_owner_state(key)?;
        found.push((StateId(keys::parse_one(Table::OwnerState, value)?), ino));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Lock states under an open.
pub(super) fn locks_under(kv: &impl KvRead, open: StateId) -> Result<Vec<StateId>, KvError> {
    let mut found = Vec::new();
    store::each_prefixed(kv, Table::OpenLocks, &keys::state(open), |key, _| {
        found.push(StateId(keys::parse_pair(Table::OpenLocks, key)?.1));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Whether there is any lock state under an open.
pub(crate) fn any_under(kv: &impl KvRead, open: StateId) -> Result<bool, KvError> {
    store::any_prefixed(kv, Table::OpenLocks, &keys::state(open))
}

/// Adds an open or lock state with its rows.
pub(super) fn add<K: KvWrite>(t: &mut Transaction<'_, K>, minor: u8, record: &StateRecord) -> Step<StateId> {
    let id = insert(t, record)?;
    if minor == 0 {
        owners::gained(t, record.client, record.kind(), &record.owner)?;
    }
    Ok(id)
}

/// Adds a state with its rows, but for the sequence of its owner.
pub(super) fn insert<K: KvWrite>(t: &mut Transaction<'_, K>, record: &StateRecord) -> Step<StateId> {
    let id = StateId(t.model.meta.nfs4.last_state + 1);
    t.model.meta.nfs4.last_state = id.0;
    store::put_new(t.kv, Table::State, &keys::state(id), record)?;
    t.kv.put_new(Table::FileState, &keys::file_state(record.ino, id), &[])?;
    t.kv.put_new(Table::ClientState, &keys::client_state(record.client, id), &[])?;
    let row = keys::owner_state(record.client, record.kind(), &record.owner, record.ino);
    t.kv.put_new(Table::OwnerState, &row, &keys::state(id))?;
    match record.held {
        Held::Open { .. } => {}
        Held::Lock { open } => t.kv.put_new(Table::OpenLocks, &keys::open_lock(open, id), &[])?,
        Held::Delegation(_) => delegations::list(t.kv, id, record)?,
    }
    clients::count(t.kv, record.client, |c| c.states += 1)?;
    Ok(id)
}

/// Whether anybody has opens, locks or delegations of a file, or it is being copied.
pub(crate) fn any_of(kv: &impl KvRead, ino: Ino) -> Result<bool, KvError> {
    Ok(store::any_prefixed(kv, Table::FileState, &crate::keys::ino(ino))?
        || store::any_prefixed(kv, Table::FileOffload, &crate::keys::ino(ino))?)
}

/// Removes states with their rows, and what they have in their files; each file's table is loaded once, for it can be long.
pub(crate) fn remove<K: KvWrite>(t: &mut Transaction<'_, K>, states: &[(StateId, StateRecord)]) -> Step<()> {
    let mut places: BTreeMap<(ClientId, Ino), (Vec<Share>, BTreeSet<LockOwner>)> = BTreeMap::new();
    let mut delegated = BTreeSet::new();
    for (id, record) in states {
        t.kv.delete(Table::State, &keys::state(*id))?;
        t.kv.delete(Table::FileState, &keys::file_state(record.ino, *id))?;
        t.kv.delete(Table::ClientState, &keys::client_state(record.client, *id))?;
        let row = keys::owner_state(record.client, record.kind(), &record.owner, record.ino);
        t.kv.delete(Table::OwnerState, &row)?;
        clients::count(t.kv, record.client, |c| c.states -= 1)?;
        let place = (record.client, record.ino);
        match record.held {
            Held::Open { share, .. } => places.entry(place).or_default().0.push(share),
            Held::Lock { open } => {
                t.kv.delete(Table::OpenLocks, &keys::open_lock(open, *id))?;
                let owner = lock_owner(record.client, &record.owner)?;
                places.entry(place).or_default().1.insert(owner);
            }
            Held::Delegation(delegation) => {
                delegations::unlist(t.kv, *id, record, delegation)?;
                delegated.insert(record.ino);
            }
        }
    }
    let files: BTreeSet<Ino> = places.keys().map(|(_, ino)| *ino).chain(delegated.iter().copied()).collect();
    for ((client, ino), (opens, owners)) in places {
        locks::leave(t, ino, &LockClient::V4(client.0), &opens, &owners)?;
    }
    for ino in delegated {
        delegations::settle(t, ino)?;
    }
    for ino in files {
        link::closed(t, ino)?;
    }
    Ok(())
}

/// Removes states of a client that goes on; `closed` is the one that CLOSE names.
pub(crate) fn remove_of<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    minor: u8,
    states: &[(StateId, StateRecord)],
    closed: Option<StateId>,
) -> Step<()> {
    remove(t, states)?;
    if minor != 0 {
        return Ok(());
    }
    for (id, record) in states.iter().filter(|(_, record)| record.kind() != OwnerKind::Delegation) {
        owners::lost(t, record.client, record.kind(), &record.owner, closed.filter(|closed| closed == id))?;
    }
    Ok(())
}

/// An open with the lock states under it; of a lock state only itself.
pub(crate) fn with_locks<K: KvWrite>(
    t: &Transaction<'_, K>,
    id: StateId,
    record: StateRecord,
) -> Result<Vec<(StateId, StateRecord)>, KvError> {
    let mut states = Vec::new();
    for lock in locks_under(t.kv, id)? {
        states.push((lock, follow(t.kv, lock)?));
    }
    states.push((id, record));
    Ok(states)
}

/// A lock owner as lock tables know it.
pub(super) fn lock_owner(client: ClientId, owner: &Bytes) -> Step<LockOwner> {
    Ok(LockOwner::v4(client.0, owner.to_vec()).map_err(|OwnerError { .. }| FsError::Invalid)?)
}
