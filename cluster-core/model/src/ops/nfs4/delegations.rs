//! Delegations (RFC 8881 §10.2, §10.4, §18.6; RFC 9754): their rows, what they forbid to others, and how they end. Who is given one, [`super::wishes`] decides.
//!
//! A delegation is a state like opens and locks, and has a row more:
//!
//! - in `FileDelegation` while it is in force (not revoked), so that those of a file are found among however many opens it has. An
//!   inode's [`Attr::delegated`](atoll_base::attr::Attr::delegated) is the strongest of these: where it is `No`, no row is read;
//! - in `Watch`, of a directory, while its holder is told of changes ([`super::notices`]);
//! - in `Recalled` while its holder is to return it, so that a new leader finds whom to tell.
//!
//! A revoked one leaves the file's indexes: it is its client's memory of a loss, and keeps no removed file.

use super::{clients, notices, release, states, wishes};
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::ops::attributes::is_time;
use crate::ops::link;
use crate::record::nfs4::{Delegation, Held, OwnerKind, StateRecord};
use crate::store;
use crate::transaction::{At, Step, Transaction, require};
use atoll_base::attr::Delegated;
use atoll_base::id::Ino;
use atoll_base::time::Timestamp;
use atoll_lockd::{Share, ShareBits};
use atoll_meta::FsError;
use atoll_meta::delegation::{DelegationKind, DelegationPhase, Intrusion};
use atoll_meta::nfs4::{ClientId, StateError, StateId, StateOutcome, Stateid};
use std::ops::ControlFlow;

// ---- rows

/// Delegations of a file that are in force, in order of age.
pub(crate) fn of_file(
    kv: &impl KvRead,
    ino: Ino,
) -> Result<Vec<(StateId, StateRecord, Delegation)>, KvError> {
    let mut ids = Vec::new();
    store::each_prefixed(kv, Table::FileDelegation, &crate::keys::ino(ino), |key, _| {
        ids.push(StateId(keys::parse_pair(Table::FileDelegation, key)?.1));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut found = Vec::new();
    for id in ids {
        let record = states::follow(kv, id)?;
        let delegation = record.delegation().ok_or_else(|| {
            KvError::Failed(format!("state {} is listed as a delegation and is none", id.0))
        })?;
        found.push((id, record, delegation));
    }
    Ok(found)
}

/// Adds the rows that only a delegation has.
pub(super) fn list(kv: &mut impl KvWrite, id: StateId, record: &StateRecord) -> Result<(), KvError> {
    kv.put(Table::FileDelegation, &keys::file_delegation(record.ino, id), &[])?;
    clients::count(kv, record.client, |c| c.delegations += 1)
}

/// Removes them; the caller then calls [`settle`].
pub(super) fn unlist(
    kv: &mut impl KvWrite,
    id: StateId,
    record: &StateRecord,
    delegation: Delegation,
) -> Result<(), KvError> {
    leave_file(kv, id, record)?;
    clients::count(kv, record.client, |c| {
        c.delegations -= 1;
        c.revoked -= u32::from(delegation.phase == DelegationPhase::Revoked);
    })
}

fn leave_file(kv: &mut impl KvWrite, id: StateId, record: &StateRecord) -> Result<(), KvError> {
    kv.delete(Table::FileDelegation, &keys::file_delegation(record.ino, id))?;
    notices::end(kv, id)?;
    kv.delete(Table::Recalled, &keys::state(id))
}

/// What an inode says of its delegations.
pub(crate) fn strongest(kinds: impl Iterator<Item = DelegationKind>) -> Delegated {
    let one = |kind| match kind {
        DelegationKind::Read | DelegationKind::Directory => Delegated::Read,
        DelegationKind::Write => Delegated::Write,
    };
    kinds.map(one).max().unwrap_or_default()
}

/// Brings an inode in step with its delegations. A directory that was removed leaves its behind.
pub(super) fn settle<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino) -> Step<()> {
    let Some(at) = t.find(ino)? else { return Ok(()) };
    let delegated = strongest(of_file(t.kv, ino)?.into_iter().map(|(.., delegation)| delegation.kind));
    if t[at].attr.delegated != delegated {
        t[at].attr.delegated = delegated;
        t.touch(ino);
    }
    Ok(())
}

// ---- what they forbid

/// What an open or a reservation of this kind is to delegations of others.
pub(crate) fn intrusion_of(share: Share) -> Intrusion {
    let reads = share.access == ShareBits::Read && share.deny == ShareBits::None;
    if reads { Intrusion::Read } else { Intrusion::Change }
}

fn forbids(kind: DelegationKind, intrusion: Intrusion) -> bool {
    kind == DelegationKind::Write || intrusion != Intrusion::Read
}

/// Refuses what a delegation of another client than the caller forbids; to be called before anything changes.
pub(crate) fn check<K: KvWrite>(t: &Transaction<'_, K>, at: At, intrusion: Intrusion) -> Step<()> {
    match (t[at].attr.delegated, intrusion) {
        (Delegated::No, _) | (Delegated::Read, Intrusion::Read) => return Ok(()),
        _ => {}
    }
    let mut remains = false;
    for (id, record, delegation) in of_file(t.kv, t[at].attr.ino)? {
        let is_in_the_way = Some(record.client) != t.client && forbids(delegation.kind, intrusion);
        if !is_in_the_way || notices::cover(t.kv, id, intrusion)? {
            continue;
        }
        require(release::is_over(t.kv, record.client)?, StateError::Delegated.into())?;
        remains = true;
    }
    Ok(require(!remains, FsError::Delay)?)
}

// ---- the holder's operations

/// A delegation of the client's.
fn demand<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<(StateRecord, Delegation)> {
    let (_, record) = states::demand(t, client, sent)?;
    let delegation = record.delegation().ok_or(FsError::State(StateError::BadStateid))?;
    Ok((record, delegation))
}

/// Requires that this delegation is one under which the client could open this file by itself.
pub(super) fn check_under<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
    at: At,
    share: Share,
) -> Step<()> {
    let (record, delegation) = demand(t, client, sent)?;
    let attr = &t[at].attr;
    require((record.ino, record.generation) == (attr.ino, attr.generation), StateError::BadStateid.into())?;
    Ok(require(wishes::covers(delegation.kind, share), FsError::Invalid)?)
}

/// DELEGRETURN.
pub(super) fn give_back<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<StateOutcome> {
    let (_, record) = states::demand_any(t, client, sent)?;
    require(record.kind() == OwnerKind::Delegation, StateError::BadStateid.into())?;
    let last = states::last_stateid(sent.id, &record);
    states::remove(t, &[(sent.id, record)])?;
    Ok(StateOutcome::State(last))
}

/// The times that the holder has kept (RFC 9754 §5): none goes back, nor beyond the present. Of a read delegation only that of access.
pub(super) fn set_times<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
    atime: Option<Timestamp>,
    mtime: Option<Timestamp>,
) -> Step<StateOutcome> {
    let (record, delegation) = demand(t, client, sent)?;
    require(delegation.timestamps, StateError::BadStateid.into())?;
    require(atime.is_none_or(is_time) && mtime.is_none_or(is_time), FsError::Invalid)?;
    require(mtime.is_none() || delegation.kind == DelegationKind::Write, FsError::Invalid)?;
    let at = t.load_generation(record.ino, record.generation)?;
    let now = t.now;
    if let Some(atime) = atime.map(|time| time.min(now)).filter(|time| *time > t[at].attr.atime) {
        t[at].attr.atime = atime;
        t.touch(record.ino);
    }
    if let Some(mtime) = mtime.map(|time| time.min(now)).filter(|time| *time > t[at].attr.mtime) {
        // ctime becomes what mtime does, not the present, if it can: it never stays or goes back when something changes.
        t.changed_at(at, mtime)?;
        t[at].attr.mtime = mtime;
    }
    Ok(StateOutcome::Released)
}

// ---- the server's operations

/// Those in the way of an intention are to be returned.
pub(super) fn recall<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    intrusion: Intrusion,
    except: Option<ClientId>,
) -> Step<StateOutcome> {
    for (id, record, delegation) in of_file(t.kv, ino)? {
        let concerned = Some(record.client) != except && forbids(delegation.kind, intrusion);
        if concerned && !notices::cover(t.kv, id, intrusion)? {
            call_back(t, id, record, delegation)?;
        }
    }
    Ok(StateOutcome::Released)
}

/// One is.
pub(super) fn recall_one<K: KvWrite>(t: &mut Transaction<'_, K>, id: StateId) -> Step<StateOutcome> {
    if let Some(record) = states::load(t.kv, id)?
        && let Some(delegation) = record.delegation()
    {
        call_back(t, id, record, delegation)?;
    }
    Ok(StateOutcome::Released)
}

/// Has one returned, if it is held by somebody who is there. Its holder is not told of changes any more.
pub(super) fn call_back<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: StateId,
    mut record: StateRecord,
    delegation: Delegation,
) -> Step<()> {
    if delegation.phase != DelegationPhase::Held || release::is_over(t.kv, record.client)? {
        return Ok(());
    }
    record.held = Held::Delegation(Delegation { phase: DelegationPhase::Recalled, ..delegation });
    states::put(t.kv, id, &record)?;
    t.kv.put(Table::Recalled, &keys::state(id), &[])?;
    notices::end(t.kv, id)?;
    t.touched.recalls = true;
    Ok(())
}

/// One that was recalled is taken away.
pub(super) fn revoke<K: KvWrite>(t: &mut Transaction<'_, K>, id: StateId) -> Step<StateOutcome> {
    let Some(mut record) = states::load(t.kv, id)? else { return Ok(StateOutcome::Released) };
    let Some(delegation) = record.delegation().filter(|d| d.phase == DelegationPhase::Recalled) else {
        return Ok(StateOutcome::Released);
    };
    if release::is_over(t.kv, record.client)? {
        return Ok(StateOutcome::Released);
    }
    record.held = Held::Delegation(Delegation { phase: DelegationPhase::Revoked, ..delegation });
    states::put(t.kv, id, &record)?;
    leave_file(t.kv, id, &record)?;
    t.kv.delete(Table::FileState, &keys::file_state(record.ino, id))?;
    clients::count(t.kv, record.client, |c| c.revoked += 1)?;
    settle(t, record.ino)?;
    link::closed(t, record.ino)?;
    Ok(StateOutcome::Released)
}

/// The holder has changed data that are not here yet (§10.4.3): change and times move, so that others see it.
pub(super) fn holder_changed<K: KvWrite>(t: &mut Transaction<'_, K>, id: StateId) -> Step<StateOutcome> {
    let Some(record) = states::load(t.kv, id)? else { return Ok(StateOutcome::Released) };
    let in_force = record
        .delegation()
        .is_some_and(|d| d.kind == DelegationKind::Write && d.phase != DelegationPhase::Revoked);
    if in_force
        && !release::is_over(t.kv, record.client)?
        && let Some(at) = t.find(record.ino)?
    {
        t.report(at);
        t.data_changed(at)?;
    }
    Ok(StateOutcome::Released)
}
