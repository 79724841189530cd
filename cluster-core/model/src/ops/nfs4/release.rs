//! What is left of clients that are gone: freed up to a bound at once, the rest by Sweep.
//!
//! Until a client's row in `ClientRelease` goes, its opens still count and its locks are still held in the files' tables, but nobody can
//! use them any more. Who meets them is told to come again ([`is_remainder`]); nothing is granted against them.

use super::{notices, offloads, sessions, states};
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::RELEASE_STATES_MAX;
use crate::once::owners;
use crate::record::nfs4::OwnerRecord;
use crate::store;
use crate::transaction::{Step, Transaction};
use atoll_lockd::{LockClient, LockOwner};
use atoll_meta::nfs4::{ClientId, SessionId, StateId};
use std::ops::{Bound, ControlFlow};

/// Begins to free what a client has.
pub(super) fn begin<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId) -> Step<()> {
    // Few, and none may move another byte on behalf of who is gone.
    offloads::remove_all(t, id)?;
    let mut budget = RELEASE_STATES_MAX;
    if !free(t, id, &mut budget)? {
        t.kv.put(Table::ClientRelease, &keys::client(id), &[])?;
    }
    Ok(())
}

/// Goes on with clients whose release was too much for one command.
pub(crate) fn sweep<K: KvWrite>(t: &mut Transaction<'_, K>, budget: &mut usize) -> Step<()> {
    while *budget > 0 {
        let mut first = None;
        store::each_from(t.kv, Table::ClientRelease, Bound::Unbounded, Bound::Unbounded, |key, _| {
            first = Some(ClientId(keys::parse_one(Table::ClientRelease, key)?));
            Ok(ControlFlow::Break(()))
        })?;
        let Some(id) = first else { return Ok(()) };
        if !free(t, id, budget)? {
            return Ok(());
        }
        t.kv.delete(Table::ClientRelease, &keys::client(id))?;
    }
    Ok(())
}

/// Rows of a client, as far as the budget goes, and whether these are all.
fn rows<K: KvWrite>(
    t: &Transaction<'_, K>,
    table: Table,
    id: ClientId,
    budget: &mut usize,
) -> Result<(Vec<Vec<u8>>, bool), KvError> {
    let (mut rows, mut complete) = (Vec::new(), true);
    store::each_prefixed(t.kv, table, &keys::client(id), |key, _| {
        if *budget == 0 {
            complete = false;
            return Ok(ControlFlow::Break(()));
        }
        *budget -= 1;
        rows.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((rows, complete))
}

/// Frees what a client that has ended had; whether that is all.
fn free<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId, budget: &mut usize) -> Step<bool> {
    let (found, mut complete) = rows(t, Table::ClientState, id, &mut { *budget })?;
    let mut all = Vec::new();
    for row in found {
        let state = StateId(keys::parse_pair(Table::ClientState, &row)?.1);
        // With a delegation goes what its holder was still to be told.
        let cost = 1 + notices::waiting(t.kv, state)? as usize;
        if cost > *budget && !all.is_empty() {
            complete = false;
            break;
        }
        *budget = budget.saturating_sub(cost);
        all.push((state, states::follow(t.kv, state)?));
    }
    states::remove(t, &all)?;
    if !complete {
        return Ok(false);
    }
    let (found, complete) = rows(t, Table::Owner, id, budget)?;
    for row in found {
        let (_, kind, owner) = keys::parse_owner(Table::Owner, &row)?;
        if let Some(record) = store::get::<OwnerRecord>(t.kv, Table::Owner, &row)? {
            owners::drop_record(t.kv, id, kind, owner, &record)?;
        }
    }
    if !complete {
        return Ok(false);
    }
    let (found, complete) = rows(t, Table::ClientSession, id, budget)?;
    for row in found {
        let session = SessionId(keys::parse_pair(Table::ClientSession, &row)?.1);
        if !sessions::remove(t, session, id, budget)? {
            return Ok(false);
        }
    }
    Ok(complete)
}

/// Whether this client has ended, and what it has is only still to be freed.
pub(super) fn is_over(kv: &impl KvRead, id: ClientId) -> Result<bool, KvError> {
    store::has(kv, Table::ClientRelease, &keys::client(id))
}

/// Whether clients are being released: then counted opens may be theirs.
pub(crate) fn is_pending(kv: &impl KvRead) -> Result<bool, KvError> {
    store::any(kv, Table::ClientRelease)
}

/// Whether what this owner holds is only what is left of a client.
pub(crate) fn is_remainder(kv: &impl KvRead, owner: &LockOwner) -> Result<bool, KvError> {
    match owner.client() {
        LockClient::V4(id) => is_over(kv, ClientId(*id)),
        LockClient::Nlm(_) => Ok(false),
    }
}
