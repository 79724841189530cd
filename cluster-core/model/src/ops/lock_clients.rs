//! Clients of locks: in which files each has something, in which life it is, and how all it has is freed.
//!
//! # Lives of a client
//!
//! A client that has rebooted holds nothing any more (NSM; RFC 1813 §6.3 on state numbers). What it held in its former life may
//! be in more files than one command may touch, while in its new life it takes locks already. So a release that cannot be
//! finished counts the client's life up and leaves a row in `LockRelease`; each row of `LockClient` says in which life the
//! client last took something there, Sweep frees those of former lives, and a client that comes back to such a file first
//! loses there what it had.
//!
//! # Reboots
//!
//! By NSM's notification, or by a lock request with a later state number than the last one known (the notification may come
//! after it, or never). State numbers are compared as NSM increments them, by their signed difference. A request with an
//! earlier number is taken as the client's present one (it was set up anew), but frees nothing. A notification frees
//! what clients hold whose known number is unknown or earlier, and is remembered for them; the same again, or an older
//! one, does nothing.
//!
//! Which clients a notification concerns: those whose address is part of what they are, by the address it comes from; the others
//! by name.

use super::locks;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvWrite, Table};
use crate::limits::{NSM_CLIENTS_MAX, RELEASE_CLIENTS_MAX, RELEASE_FILES_MAX};
use crate::record::{ClientLife, canonical};
use crate::store;
use crate::transaction::{Step, Transaction};
use atoll_base::id::Ino;
use atoll_lockd::{ClientMatch, LockClient, NlmClient};
use std::net::IpAddr;
use std::ops::{Bound, ControlFlow};

/// How many remembered clients are looked at to find one that can be forgotten.
const FORGET_TRIES: usize = 64;

// ---- the index

/// Whether what the client has is listed here. What a client of NFSv4 has is found by its states.
pub(crate) fn is_listed(client: &LockClient) -> bool {
    matches!(client, LockClient::Nlm(_))
}

/// In which of its lives the client last took something in the file.
pub(super) fn life_in<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: &LockClient,
    ino: Ino,
) -> Step<Option<u32>> {
    let key = keys::then_ino(keys::client(client), ino);
    Ok(t.kv.get(Table::LockClient, &key, |v| v.map(parse_life).transpose())??)
}

pub(crate) fn parse_life(value: &[u8]) -> Result<u32, KvError> {
    let mut parts = Parts::new(Table::LockClient, value);
    let life = parts.u32()?;
    parts.end()?;
    Ok(life)
}

/// Rows of a client in a file: by what it is, and by its address if that is part of it.
fn rows(client: &LockClient, ino: Ino) -> (Vec<u8>, Option<Vec<u8>>) {
    let by_address = keys::client_by_address(client).map(|key| keys::then_ino(key, ino));
    (keys::then_ino(keys::client(client), ino), by_address)
}

/// A client has something in a file where it had nothing. It took it in this `life`.
pub(super) fn comes<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: &LockClient,
    ino: Ino,
    life: Option<u32>,
) -> Step<()> {
    let life = life.unwrap_or_else(|| panic!("file {ino} has locks of {client:?} that were given unasked"));
    let (row, by_address) = rows(client, ino);
    t.kv.put_new(Table::LockClient, &row, &life.to_be_bytes())?;
    if let Some(row) = by_address {
        t.kv.put_new(Table::LockClient, &row, &[])?;
    }
    Ok(())
}

/// A client that has something in a file may have taken more, in this `life`.
pub(super) fn stays<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: &LockClient,
    ino: Ino,
    life: Option<u32>,
) -> Step<()> {
    // It cannot have been there before its first.
    let Some(life) = life.filter(|life| *life > 0) else { return Ok(()) };
    if life_in(t, client, ino)? != Some(life) {
        t.kv.put(Table::LockClient, &rows(client, ino).0, &life.to_be_bytes())?;
    }
    Ok(())
}

/// A client has nothing in a file any more.
pub(super) fn leaves<K: KvWrite>(t: &mut Transaction<'_, K>, client: &LockClient, ino: Ino) -> Step<()> {
    let (row, by_address) = rows(client, ino);
    t.kv.delete(Table::LockClient, &row)?;
    if let Some(row) = by_address {
        t.kv.delete(Table::LockClient, &row)?;
    }
    Ok(())
}

/// Files in which a client has something, after `after`: at most `most`, with the life, and whether that is all.
fn files<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: &LockClient,
    after: Option<Ino>,
    most: usize,
) -> Step<(Vec<(Ino, u32)>, bool)> {
    let prefix = keys::client(client);
    let from = after.map(|ino| keys::then_ino(prefix.clone(), ino));
    let from = from.as_deref().map_or(Bound::Included(&prefix[..]), Bound::Excluded);
    let to = keys::after_prefix(&prefix);
    let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let (mut found, mut complete) = (Vec::new(), true);
    store::each_from(t.kv, Table::LockClient, from, to, |key, value| {
        if found.len() >= most {
            complete = false;
            return Ok(ControlFlow::Break(()));
        }
        let mut parts = Parts::new(Table::LockClient, &key[prefix.len()..]);
        let ino = parts.ino()?;
        parts.end()?;
        found.push((ino, parse_life(value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((found, complete))
}

/// Clients that have something in any file: at most [`RELEASE_CLIENTS_MAX`].
fn clients<K: KvWrite>(t: &Transaction<'_, K>, which: &ClientMatch) -> Step<Vec<LockClient>> {
    let prefix = match which {
        ClientMatch::Client(client) => return Ok(vec![client.clone()]),
        ClientMatch::NlmName(name) if name.len() > atoll_lockd::limits::MAX_CALLER_NAME => {
            return Ok(Vec::new());
        }
        ClientMatch::NlmName(name) => keys::clients_named(name),
        ClientMatch::NlmAddress(address) => keys::clients_at(*address),
    };
    let to = keys::after_prefix(&prefix);
    let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut from = prefix.clone();
    let mut found = Vec::new();
    while found.len() < RELEASE_CLIENTS_MAX {
        let mut next = None;
        store::each_from(t.kv, Table::LockClient, Bound::Included(&from), to, |key, _| {
            let (client, by_address) = Parts::new(Table::LockClient, key).client()?;
            next = Some((client, by_address));
            Ok(ControlFlow::Break(()))
        })?;
        let Some((client, by_address)) = next else { break };
        let its = if by_address { keys::client_by_address(&client) } else { Some(keys::client(&client)) };
        let Some(after) = its.and_then(|prefix| keys::after_prefix(&prefix)) else { break };
        from = after;
        found.push(client);
    }
    Ok(found)
}

// ---- lives

fn life<K: KvWrite>(t: &Transaction<'_, K>, client: &LockClient) -> Step<ClientLife> {
    if t.model.meta.nsm_clients == 0 {
        return Ok(ClientLife::default());
    }
    Ok(store::get(t.kv, Table::NsmState, &keys::client(client))?.unwrap_or_default())
}

/// Remembers a client's life. With too many clients and none to forget, only what a release needs is remembered.
fn remember<K: KvWrite>(t: &mut Transaction<'_, K>, client: &LockClient, life: ClientLife) -> Step<()> {
    let key = keys::client(client);
    if !store::has(t.kv, Table::NsmState, &key)? {
        let full = t.model.meta.nsm_clients >= NSM_CLIENTS_MAX;
        if full && !forget_one(t, &key)? && life.life == 0 {
            return Ok(());
        }
        t.model.meta.nsm_clients += 1;
    }
    Ok(store::put(t.kv, Table::NsmState, &key, &life)?)
}

/// Forgets a client that has nothing locked, looking from `near` on.
fn forget_one<K: KvWrite>(t: &mut Transaction<'_, K>, near: &[u8]) -> Step<bool> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for (from, to) in [(Bound::Excluded(near), Bound::Unbounded), (Bound::Unbounded, Bound::Excluded(near))] {
        store::each_from(t.kv, Table::NsmState, from, to, |key, _| {
            if rows.len() >= FORGET_TRIES {
                return Ok(ControlFlow::Break(()));
            }
            rows.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
    }
    for row in rows {
        let (client, _) = Parts::new(Table::NsmState, &row).client()?;
        let idle = files(t, &client, None, 1)?.0.is_empty() && !store::has(t.kv, Table::LockRelease, &row)?;
        if idle {
            t.kv.delete(Table::NsmState, &row)?;
            t.model.meta.nsm_clients -= 1;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether NSM state `a` is of a later life than `b`.
fn is_later(a: i32, b: i32) -> bool {
    a.wrapping_sub(b) > 0
}

/// A lock request of a client comes, with its NSM state if known. Returns the life it is in.
pub(super) fn enter<K: KvWrite>(t: &mut Transaction<'_, K>, client: &LockClient, state: i32) -> Step<u32> {
    if !is_listed(client) {
        return Ok(0);
    }
    let mut known = life(t, client)?;
    if state == 0 || state == known.state {
        return Ok(known.life);
    }
    if known.state != 0 && is_later(state, known.state) {
        release(t, client)?;
        known = life(t, client)?;
    }
    remember(t, client, ClientLife { state, ..known })?;
    Ok(known.life)
}

// ---- releases

/// Frees what a client has: in [`RELEASE_FILES_MAX`] files at once, in more by Sweep. Returns the number of files in which
/// something was freed at once.
fn release<K: KvWrite>(t: &mut Transaction<'_, K>, client: &LockClient) -> Step<u64> {
    let (files, complete) = files(t, client, None, RELEASE_FILES_MAX)?;
    for (ino, _) in &files {
        locks::free(t, *ino, client)?;
    }
    let key = keys::client(client);
    if complete {
        t.kv.delete(Table::LockRelease, &key)?;
    } else {
        let known = life(t, client)?;
        remember(t, client, ClientLife { life: known.life + 1, ..known })?;
        put_release(t, &key, Ino(0))?;
    }
    Ok(files.len() as u64)
}

/// A release goes on after this file.
fn put_release<K: KvWrite>(t: &mut Transaction<'_, K>, key: &[u8], after: Ino) -> Step<()> {
    Ok(t.kv.put(Table::LockRelease, key, &keys::ino(after))?)
}

/// Frees everything of all clients that are meant.
pub(super) fn release_all<K: KvWrite>(t: &mut Transaction<'_, K>, which: &ClientMatch) -> Step<u64> {
    let mut freed = 0;
    for client in clients(t, which)? {
        freed += release(t, &client)?;
    }
    Ok(freed)
}

/// NSM notify.
pub(super) fn rebooted<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    name: &[u8],
    address: Option<IpAddr>,
    state: i32,
) -> Step<u64> {
    let address = canonical(address);
    let mut concerned = match address {
        Some(address) => clients(t, &ClientMatch::NlmAddress(address))?,
        None => Vec::new(),
    };
    // By name those whose address is no part of what they are; without an address to go by, all of that name.
    let named = clients(t, &ClientMatch::NlmName(name.to_vec()))?;
    let by_name = |client: &LockClient| match client {
        LockClient::Nlm(nlm) => address.is_none() || nlm.address().is_none(),
        LockClient::V4(_) => false,
    };
    concerned.extend(named.into_iter().filter(by_name));
    // Those that hold nothing now but are known.
    for address in [address, None] {
        let Ok(nlm) = NlmClient::new(name.to_vec(), address) else { continue };
        let client = LockClient::Nlm(nlm);
        if store::has(t.kv, Table::NsmState, &keys::client(&client))? && !concerned.contains(&client) {
            concerned.push(client);
        }
    }
    let mut freed = 0;
    for client in concerned {
        let known = life(t, &client)?.state;
        if known != 0 && !is_later(state, known) {
            continue;
        }
        freed += release(t, &client)?;
        let known = life(t, &client)?;
        remember(t, &client, ClientLife { state, ..known })?;
    }
    Ok(freed)
}

/// Goes on with releases that were too much for one command.
pub(super) fn sweep<K: KvWrite>(t: &mut Transaction<'_, K>, budget: &mut usize) -> Step<()> {
    while *budget > 0 {
        let mut first = None;
        store::each_from(t.kv, Table::LockRelease, Bound::Unbounded, Bound::Unbounded, |key, value| {
            let (client, _) = Parts::new(Table::LockRelease, key).client()?;
            first = Some((key.to_vec(), client, Parts::new(Table::LockRelease, value).ino()?));
            Ok(ControlFlow::Break(()))
        })?;
        let Some((key, client, after)) = first else { return Ok(()) };
        let present = life(t, &client)?.life;
        let (files, complete) = files(t, &client, Some(after), *budget)?;
        *budget -= files.len();
        for (ino, taken_in) in &files {
            if *taken_in < present {
                locks::free(t, *ino, &client)?;
            }
        }
        match files.last() {
            Some((last, _)) if !complete => put_release(t, &key, *last)?,
            _ => t.kv.delete(Table::LockRelease, &key)?,
        }
    }
    Ok(())
}
