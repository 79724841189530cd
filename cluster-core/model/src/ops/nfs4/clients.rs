//! NFSv4 clients: their records, names and counts, and how one ends.
//!
//! A name has at most one confirmed client and one unconfirmed one. Only a confirmed client has anything. Of unconfirmed ones the oldest
//! gives way when there are too many. A client that ends is unknown at once; what it had is freed by [`super::release`].

use super::{offloads, release};
use crate::codec::Skipped;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{CLIENTS_MAX, EXPIRED_MAX, OPAQUE_MAX, UNCONFIRMED_MAX};
use crate::record::nfs4::{ClientRecord, Counts, Names};
use crate::store;
use crate::transaction::{Step, Transaction, require};
use atoll_meta::FsError;
use atoll_meta::nfs4::{Callback40, ClientAbout, ClientId, ClientOutcome, Principal, StateError};
use serde::Deserialize;
use std::net::IpAddr;
use std::ops::{Bound, ControlFlow};

// ---- records

/// A client's record.
pub(crate) fn load(kv: &impl KvRead, id: ClientId) -> Result<Option<ClientRecord>, KvError> {
    store::get(kv, Table::Client4, &keys::client(id))
}

pub(super) fn put(kv: &mut impl KvWrite, id: ClientId, record: &ClientRecord) -> Result<(), KvError> {
    store::put(kv, Table::Client4, &keys::client(id), record)
}

/// Whether there is such a client: with everything of a client that ended it must be asked, for the rest is freed later.
pub(crate) fn exists(kv: &impl KvRead, id: ClientId) -> Result<bool, KvError> {
    store::has(kv, Table::Client4, &keys::client(id))
}

/// What every operation of a client needs of its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// As [`ClientRecord::minor`].
    pub(crate) minor: u8,
}

/// What a [`ClientRecord`] begins with.
#[derive(Deserialize)]
struct Head {
    _owner: Skipped,
    _verifier: [u8; 8],
    _principal: Principal,
    confirmed: bool,
    _reclaimed: bool,
    _about: AboutHead,
    minor: MinorHead,
}

/// A [`ClientAbout`].
#[derive(Deserialize)]
struct AboutHead {
    _address: Option<IpAddr>,
    _implementation: Skipped,
}

/// Which [`MinorRecord`](crate::record::nfs4::MinorRecord) follows.
#[derive(Deserialize)]
enum MinorHead {
    V40,
    V41,
}

/// A confirmed client (of this minor version), or why there is none.
pub(crate) fn confirmed(
    kv: &impl KvRead,
    id: ClientId,
    minor: Option<u8>,
) -> Result<Result<Caller, FsError>, KvError> {
    let found: Option<Head> = store::head(kv, Table::Client4, &keys::client(id))?;
    let caller = found.filter(|found| found.confirmed).map(|found| match found.minor {
        MinorHead::V40 => Caller { minor: 0 },
        MinorHead::V41 => Caller { minor: 1 },
    });
    if let Some(caller) = caller.filter(|caller| minor.is_none_or(|minor| caller.minor == minor)) {
        return Ok(Ok(caller));
    }
    let expired = store::has(kv, Table::ExpiredClient, &keys::client(id))?;
    Ok(Err(if expired { StateError::Expired } else { StateError::StaleClient }.into()))
}

/// The same within an operation.
pub(super) fn demand<K: KvWrite>(t: &Transaction<'_, K>, id: ClientId) -> Step<Caller> {
    Ok(confirmed(t.kv, id, None)??)
}

/// Lengths within bounds.
pub(super) fn check_texts(
    owner: &[u8],
    about: &ClientAbout,
    callback: Option<&Callback40>,
) -> Result<(), FsError> {
    let fits = |text: &[u8]| text.len() <= OPAQUE_MAX;
    let callback_fits = callback.is_none_or(|c| fits(&c.netid) && fits(&c.address));
    require(fits(owner) && fits(&about.implementation) && callback_fits, FsError::Invalid)
}

// ---- counts

/// How much a client has.
pub(crate) fn counts(kv: &impl KvRead, id: ClientId) -> Result<Counts, KvError> {
    Ok(store::get(kv, Table::ClientCounts, &keys::client(id))?.unwrap_or_default())
}

/// Changes a client's counts; those of one that has ended are not kept any more.
pub(crate) fn count(
    kv: &mut impl KvWrite,
    id: ClientId,
    change: impl FnOnce(&mut Counts),
) -> Result<(), KvError> {
    let key = keys::client(id);
    let Some(mut counts) = store::get(kv, Table::ClientCounts, &key)? else { return Ok(()) };
    change(&mut counts);
    store::put(kv, Table::ClientCounts, &key, &counts)
}

/// Whether a client has anything that would be lost with it.
pub(super) fn is_busy(kv: &impl KvRead, id: ClientId) -> Result<bool, KvError> {
    let counts = counts(kv, id)?;
    Ok(counts.sessions > 0 || counts.states > 0 || offloads::any_in_work(kv, id)?)
}

// ---- names

pub(super) fn names(kv: &impl KvRead, minor: u8, owner: &[u8]) -> Result<Names, KvError> {
    Ok(store::get(kv, Table::ClientName, &keys::name(minor, owner))?.unwrap_or_default())
}

fn put_names(kv: &mut impl KvWrite, minor: u8, owner: &[u8], names: Names) -> Result<(), KvError> {
    let key = keys::name(minor, owner);
    if names == Names::default() {
        kv.delete(Table::ClientName, &key)
    } else {
        store::put(kv, Table::ClientName, &key, &names)
    }
}

/// A client that a row names: that there is none is damage.
pub(super) fn follow(kv: &impl KvRead, id: ClientId) -> Result<ClientRecord, KvError> {
    load(kv, id)?.ok_or_else(|| KvError::Failed(format!("client {:x} is named but does not exist", id.0)))
}

// ---- beginnings

/// A new client id. They are never given out again, so there is an end.
pub(super) fn new_id<K>(t: &mut Transaction<'_, K>) -> Result<ClientId, FsError> {
    let meta = &mut t.model.meta.nfs4;
    meta.last_client = meta.last_client.checked_add(1).ok_or(FsError::TableFull)?;
    let number = u64::from(meta.last_client);
    Ok(ClientId(u64::from(crate::model::mark(&t.model.meta)) << 32 | number))
}

/// Adds an unconfirmed client, in the place of another unconfirmed one of its name.
pub(super) fn add<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId, record: &ClientRecord) -> Step<()> {
    drop_unconfirmed(t, record.minor(), &record.owner)?;
    if t.model.meta.nfs4.unconfirmed >= UNCONFIRMED_MAX
        && let Some(oldest) = first(t, Table::Unconfirmed)?
    {
        let record = follow(t.kv, oldest)?;
        end(t, oldest, &record)?;
    }
    let names = names(t.kv, record.minor(), &record.owner)?;
    put_names(t.kv, record.minor(), &record.owner, Names { unconfirmed: Some(id), ..names })?;
    t.kv.put(Table::Unconfirmed, &keys::client(id), &[])?;
    t.model.meta.nfs4.unconfirmed += 1;
    Ok(put(t.kv, id, record)?)
}

fn first<K: KvWrite>(t: &Transaction<'_, K>, table: Table) -> Step<Option<ClientId>> {
    let mut found = None;
    store::each_from(t.kv, table, Bound::Unbounded, Bound::Unbounded, |key, _| {
        found = Some(ClientId(keys::parse_one(table, key)?));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Forgets the unconfirmed client of a name, if there is one.
pub(super) fn drop_unconfirmed<K: KvWrite>(t: &mut Transaction<'_, K>, minor: u8, owner: &[u8]) -> Step<()> {
    let Some(id) = names(t.kv, minor, owner)?.unconfirmed else { return Ok(()) };
    let record = follow(t.kv, id)?;
    end(t, id, &record)
}

/// Makes an unconfirmed client the confirmed one of its name; a former one ends. May refuse, having changed nothing.
pub(super) fn make_confirmed<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: ClientId,
    mut record: ClientRecord,
) -> Step<()> {
    let former = match names(t.kv, record.minor(), &record.owner)?.confirmed {
        Some(former) => Some((former, follow(t.kv, former)?)),
        None => None,
    };
    match &former {
        // It was idle when the other principal came, and is not any more.
        Some((former, its)) if its.principal != record.principal => {
            require(!is_busy(t.kv, *former)?, StateError::ClientInUse.into())?;
        }
        Some(_) => {}
        None => require(t.model.meta.nfs4.confirmed < CLIENTS_MAX, FsError::TableFull)?,
    }
    if let Some((former, its)) = former {
        end(t, former, &its)?;
        // Its lease is cancelled, and in v4.0 its stateids say so (RFC 7530 §13.1.5.3).
        if record.minor() == 0 {
            note_expired(t, former)?;
        }
    }
    t.kv.delete(Table::Unconfirmed, &keys::client(id))?;
    let names = Names { confirmed: Some(id), unconfirmed: None };
    put_names(t.kv, record.minor(), &record.owner, names)?;
    let meta = &mut t.model.meta.nfs4;
    meta.unconfirmed -= 1;
    meta.confirmed += 1;
    record.confirmed = true;
    put(t.kv, id, &record)?;
    Ok(store::put(t.kv, Table::ClientCounts, &keys::client(id), &Counts::default())?)
}

// ---- ends

/// A client is forgotten; what it had is freed, at once or in the background.
pub(super) fn end<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId, record: &ClientRecord) -> Step<()> {
    let key = keys::client(id);
    t.touched.ended = true;
    let mut names = names(t.kv, record.minor(), &record.owner)?;
    let meta = &mut t.model.meta.nfs4;
    if record.confirmed {
        names.confirmed = None;
        meta.confirmed -= 1;
    } else {
        names.unconfirmed = None;
        meta.unconfirmed -= 1;
        t.kv.delete(Table::Unconfirmed, &key)?;
    }
    put_names(t.kv, record.minor(), &record.owner, names)?;
    t.kv.delete(Table::Client4, &key)?;
    t.kv.delete(Table::ClientCounts, &key)?;
    if record.confirmed { release::begin(t, id) } else { Ok(()) }
}

/// DESTROY_CLIENTID.
pub(super) fn destroy<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId) -> Step<ClientOutcome> {
    let record = load(t.kv, id)?.ok_or(FsError::State(StateError::StaleClient))?;
    require(!is_busy(t.kv, id)?, StateError::ClientBusy.into())?;
    end(t, id, &record)?;
    Ok(ClientOutcome::Done)
}

/// RECLAIM_COMPLETE.
pub(super) fn reclaim_complete<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId) -> Step<ClientOutcome> {
    demand(t, id)?;
    let mut record = follow(t.kv, id)?;
    require(!record.reclaimed, StateError::CompleteAlready.into())?;
    record.reclaimed = true;
    put(t.kv, id, &record)?;
    Ok(ClientOutcome::Done)
}

/// Expire: of a client that is gone already, nothing happens.
pub(super) fn expire<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId) -> Step<ClientOutcome> {
    let Some(record) = load(t.kv, id)? else { return Ok(ClientOutcome::Done) };
    end(t, id, &record)?;
    if record.confirmed {
        note_expired(t, id)?;
    }
    Ok(ClientOutcome::Done)
}

/// Remembers for some time that a client lost its lease.
fn note_expired<K: KvWrite>(t: &mut Transaction<'_, K>, id: ClientId) -> Step<()> {
    if t.model.meta.nfs4.expired >= EXPIRED_MAX
        && let Some(oldest) = first(t, Table::ExpiredClient)?
    {
        t.kv.delete(Table::ExpiredClient, &keys::client(oldest))?;
        t.model.meta.nfs4.expired -= 1;
    }
    t.kv.put(Table::ExpiredClient, &keys::client(id), &[])?;
    t.model.meta.nfs4.expired += 1;
    Ok(())
}
