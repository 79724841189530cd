//! Sessions (RFC 8881 §18.36, §18.37): rows, made and destroyed. What their slots keep is in [`crate::once`].

use super::clients;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{OPAQUE_MAX, SESSIONS_MAX, SLOTS_MAX};
use crate::record::nfs4::{MinorRecord, SessionRecord};
use crate::store;
use crate::transaction::{Step, Transaction, require};
use atoll_meta::FsError;
use atoll_meta::nfs4::{
    ChannelLimits, ClientId, ClientOutcome, Principal, SessionId, SessionTerms, StateError,
};
use bytes::Bytes;
use serde::Deserialize;
use std::ops::ControlFlow;

/// A session; none of a client that has ended.
pub(crate) fn load(kv: &impl KvRead, id: SessionId) -> Result<Option<SessionRecord>, KvError> {
    let Some(record): Option<SessionRecord> = store::get(kv, Table::Session, &keys::session(id))? else {
        return Ok(None);
    };
    Ok(clients::exists(kv, record.client)?.then_some(record))
}

/// What a [`SessionRecord`] begins with.
#[derive(Deserialize)]
struct Head {
    client: ClientId,
    fore: ChannelLimits,
}

/// How many slots a session has; `None` also of a client that has ended.
pub(crate) fn slots(kv: &impl KvRead, id: SessionId) -> Result<Option<u32>, KvError> {
    let head: Option<Head> = store::head(kv, Table::Session, &keys::session(id))?;
    let Some(Head { client, fore }) = head else { return Ok(None) };
    Ok(clients::exists(kv, client)?.then_some(fore.max_requests))
}

/// CREATE_SESSION (§18.36.4).
pub(super) fn create<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: u32,
    principal: &Principal,
    terms: &SessionTerms,
) -> Step<ClientOutcome> {
    let stale = FsError::State(StateError::StaleClient);
    let mut record = clients::load(t.kv, client)?.ok_or(stale)?;
    let MinorRecord::V41 { sequence, created } = &mut record.minor else { return Err(stale.into()) };
    if sent == *sequence {
        return Ok(created.clone().ok_or(FsError::State(StateError::Misordered))?);
    }
    require(sent == sequence.wrapping_add(1), StateError::Misordered.into())?;
    require(record.confirmed || record.principal == *principal, StateError::ClientInUse.into())?;
    let slots = terms.fore.max_requests;
    let fits = (1..=SLOTS_MAX).contains(&slots) && terms.callback_security.len() <= OPAQUE_MAX;
    require(fits, FsError::Invalid)?;
    require(clients::counts(t.kv, client)?.sessions < SESSIONS_MAX, FsError::TableFull)?;

    let session = SessionId(t.model.meta.nfs4.last_session + 1);
    let outcome = ClientOutcome::Session { session, sequence: sent, terms: terms.clone() };
    *sequence = sent;
    *created = Some(outcome.clone());
    if record.confirmed {
        clients::put(t.kv, client, &record)?;
    } else {
        // The last that may refuse.
        clients::make_confirmed(t, client, record)?;
    }
    t.model.meta.nfs4.last_session = session.0;
    store::put(
        t.kv,
        Table::Session,
        &keys::session(session),
        &SessionRecord { client, terms: terms.clone() },
    )?;
    t.kv.put(Table::ClientSession, &keys::client_session(client, session), &[])?;
    clients::count(t.kv, client, |c| c.sessions += 1)?;
    Ok(outcome)
}

fn demand<K: KvWrite>(t: &Transaction<'_, K>, id: SessionId) -> Step<SessionRecord> {
    Ok(load(t.kv, id)?.ok_or(FsError::State(StateError::BadSession))?)
}

/// New terms for callbacks.
pub(super) fn set_callback<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: SessionId,
    program: u32,
    security: &Bytes,
) -> Step<ClientOutcome> {
    require(security.len() <= OPAQUE_MAX, FsError::Invalid)?;
    let mut record = demand(t, id)?;
    record.terms.callback_program = program;
    record.terms.callback_security = security.clone();
    store::put(t.kv, Table::Session, &keys::session(id), &record)?;
    Ok(ClientOutcome::Done)
}

/// Removes what slots keep that their client has let go. The caller knows that no request of theirs is on its way.
pub(super) fn retire_slots<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: SessionId,
    keep: u32,
) -> Step<ClientOutcome> {
    demand(t, id)?;
    let (session, first) = (keys::session(id), keys::slot(id, keep));
    let mut slots = Vec::new();
    store::each_key_prefixed(t.kv, Table::Slot, &session, |key| {
        if *key >= first[..] {
            slots.push(key.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    for slot in slots {
        t.kv.delete(Table::Slot, &slot)?;
    }
    Ok(ClientOutcome::Done)
}

/// DESTROY_SESSION.
pub(super) fn destroy<K: KvWrite>(t: &mut Transaction<'_, K>, id: SessionId) -> Step<ClientOutcome> {
    let record = demand(t, id)?;
    t.touched.ended = true;
    let mut all = usize::MAX;
    remove(t, id, record.client, &mut all)?;
    clients::count(t.kv, record.client, |c| c.sessions -= 1)?;
    Ok(ClientOutcome::Done)
}

/// Removes a session and up to `budget` of its slots; whether that is all.
pub(super) fn remove<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: SessionId,
    client: ClientId,
    budget: &mut usize,
) -> Step<bool> {
    let mut slots = Vec::new();
    let mut complete = true;
    store::each_key_prefixed(t.kv, Table::Slot, &keys::session(id), |key| {
        if *budget == 0 {
            complete = false;
            return ControlFlow::Break(());
        }
        *budget -= 1;
        slots.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    for slot in slots {
        t.kv.delete(Table::Slot, &slot)?;
    }
    if complete {
        t.kv.delete(Table::Session, &keys::session(id))?;
        t.kv.delete(Table::ClientSession, &keys::client_session(client, id))?;
    }
    Ok(complete)
}
