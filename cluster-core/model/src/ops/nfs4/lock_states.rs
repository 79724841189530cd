//! LOCK, LOCKU, FREE_STATEID, RELEASE_LOCKOWNER (RFC 8881 §18.10, §18.12, §18.38; RFC 7530 §16.10, §16.12, §16.37).
//!
//! A lock owner has one lock state in a file, whichever open it was made under; the ranges are in the file's lock table. So are requests that were
//! denied and are remembered. An owner has a lock state, of version 0, also if it has nothing else: by it CLOSE and the end of the client find them.

use super::{clients, release, states};
use crate::kv::{KvWrite, Table};
use crate::limits::{OPAQUE_MAX, OPEN_LOCKS_MAX, OWNER_LOCKS_MAX};
use crate::once::owners;
use crate::ops::locks;
use crate::record::nfs4::{Held, OwnerKind, StateRecord};
use crate::transaction::{Step, Stop, Transaction, require};
use crate::{keys, store};
use atoll_base::id::Ino;
use atoll_lockd::{
    ByteRange, Callback, FileLocks, LockMode, LockOutcome, LockRequest, Share, ShareBits, Wait,
};
use atoll_meta::FsError;
use atoll_meta::nfs4::{ClientId, LockState, StateError, StateId, StateOutcome, Stateid};
use bytes::Bytes;

/// A lock state, there already or to be made.
struct Place {
    minor: u8,
    id: Option<StateId>,
    record: StateRecord,
    /// What the open allows.
    share: Share,
}

fn share_of(open: &StateRecord) -> Step<Share> {
    match open.held {
        Held::Open { share, .. } => Ok(share),
        Held::Lock { .. } | Held::Delegation(_) => Err(StateError::BadStateid.into()),
    }
}

/// The state that LOCK goes on with, or will make.
fn place<K: KvWrite>(t: &Transaction<'_, K>, client: ClientId, state: &LockState) -> Step<Place> {
    match state {
        LockState::Held(sent) => {
            let (caller, record) = states::demand_held(t, client, *sent)?;
            let Held::Lock { open } = record.held else { return Err(StateError::BadStateid.into()) };
            let share = share_of(&states::follow(t.kv, open)?)?;
            Ok(Place { minor: caller.minor, id: Some(sent.id), record, share })
        }
        LockState::New { open, owner, seqid } => {
            let (caller, opened) = states::demand_held(t, client, *open)?;
            let share = share_of(&opened)?;
            require(
                matches!(opened.held, Held::Open { confirmed: true, .. }),
                StateError::BadStateid.into(),
            )?;
            require(owner.len() <= OPAQUE_MAX, FsError::Invalid)?;
            let minor = caller.minor;
            if minor == 0
                && let Some(known) = owners::load(t.kv, client, OwnerKind::Lock, owner)?
                && let Some(last) = known.last
            {
                require(owners::follows(last.seqid, *seqid), StateError::BadSeqid.into())?;
            }
            if let Some(id) = states::of_owner_in(t.kv, client, OwnerKind::Lock, owner, opened.ino)? {
                let record = states::follow(t.kv, id)?;
                return Ok(Place { minor, id: Some(id), record, share });
            }
            let record = StateRecord {
                client,
                owner: owner.clone(),
                ino: opened.ino,
                generation: opened.generation,
                seqid: 0,
                since: t.now.secs,
                held: Held::Lock { open: open.id },
            };
            Ok(Place { minor, id: None, record, share })
        }
    }
}

/// Whether there may be one more lock state.
fn check_room<K: KvWrite>(t: &Transaction<'_, K>, minor: u8, record: &StateRecord) -> Step<()> {
    states::check_room(t, record.client)?;
    if let Held::Lock { open } = record.held {
        require(states::locks_under(t.kv, open)?.len() < OPEN_LOCKS_MAX, FsError::TableFull)?;
    }
    if minor == 0 {
        let known = owners::load(t.kv, record.client, OwnerKind::Lock, &record.owner)?;
        require(known.is_none_or(|owner| owner.states < OWNER_LOCKS_MAX), FsError::TableFull)?;
    }
    Ok(())
}

/// LOCK.
pub(super) fn lock<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    state: &LockState,
    range: ByteRange,
    mode: LockMode,
    wait: Option<&Callback>,
) -> Step<StateOutcome> {
    // The file is there as long as it has any state, and is the same one.
    let Place { minor, id, mut record, share } = place(t, client, state)?;
    let needed = match mode {
        LockMode::Shared => ShareBits::Read,
        LockMode::Exclusive => ShareBits::Write,
    };
    require(share.access.contains(needed), StateError::OpenMode.into())?;
    if id.is_none() {
        check_room(t, minor, &record)?;
    }
    let owner = states::lock_owner(client, &record.owner)?;
    let mut request = LockRequest { owner, range, mode, wait: Wait::No };
    // A client need not say that it does not wait any more, so nobody but holders stands in the way of one that asks.
    if let LockOutcome::Denied(conflict) | LockOutcome::Blocked(conflict) =
        locks::lock(t, record.ino, &request, 0)?
    {
        let remains = release::is_remainder(t.kv, &conflict.owner)?;
        require(!remains, FsError::Delay)?;
        match wait.filter(|_| minor > 0) {
            Some(callback) => {
                request.wait = Wait::Queue(callback.clone());
                if remember(t, record.ino, &request)? && id.is_none() {
                    states::add(t, minor, &record)?;
                }
            }
            None if id.is_some() => locks::forget(t, record.ino, &request.owner, range, mode)?,
            None => {}
        }
        return Ok(StateOutcome::Denied(conflict));
    }
    let stateid = match id {
        Some(id) => states::advance(t, id, &mut record)?,
        None => {
            record.seqid = 1;
            let id = states::add(t, minor, &record)?;
            record.stateid(id)
        }
    };
    Ok(StateOutcome::Locked(stateid))
}

/// Remembers a request that was denied, if there is room. Whether it was. A deadlock is no reason for an error: who seems to wait may have
/// given up without a word.
fn remember<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, request: &LockRequest) -> Step<bool> {
    match locks::lock(t, ino, request, 0) {
        Ok(outcome) => Ok(matches!(outcome, LockOutcome::Blocked(_))),
        Err(Stop::Refused(FsError::TableFull | FsError::Deadlock)) => Ok(false),
        Err(stop) => Err(stop),
    }
}

/// LOCKU.
pub(super) fn unlock<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
    range: ByteRange,
) -> Step<StateOutcome> {
    let (_, mut record) = states::demand_held(t, client, sent)?;
    require(record.kind() == OwnerKind::Lock, StateError::BadStateid.into())?;
    locks::unlock(t, record.ino, &states::lock_owner(client, &record.owner)?, range)?;
    Ok(StateOutcome::State(states::advance(t, sent.id, &mut record)?))
}

/// Whether a lock state has any range.
fn holds<K: KvWrite>(t: &Transaction<'_, K>, record: &StateRecord) -> Step<bool> {
    let table: Option<FileLocks> = store::get(t.kv, Table::Lock, &keys::ino(record.ino))?;
    let owner = states::lock_owner(record.client, &record.owner)?;
    Ok(table.is_some_and(|table| table.holds_any(&owner)))
}

/// FREE_STATEID: of locks if none is left, of an open if its file is gone, of a delegation if so or if it is revoked.
pub(super) fn free<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<StateOutcome> {
    let (caller, record) = states::demand_any(t, client, sent)?;
    let held = match record.held {
        Held::Lock { .. } => holds(t, &record)?,
        Held::Delegation(_) if record.is_revoked() => false,
        Held::Open { .. } | Held::Delegation(_) => t.find(record.ino)?.is_some(),
    };
    require(!held, StateError::LocksHeld.into())?;
    let last = states::last_stateid(sent.id, &record);
    let states = states::with_locks(t, sent.id, record)?;
    states::remove_of(t, caller.minor, &states, None)?;
    Ok(StateOutcome::State(last))
}

/// RELEASE_LOCKOWNER.
pub(super) fn release_owner<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    owner: &Bytes,
) -> Step<StateOutcome> {
    let caller = clients::demand(t, client)?;
    require(owner.len() <= OPAQUE_MAX, FsError::Invalid)?;
    let mut its = Vec::new();
    for (id, _) in states::of_owner(t.kv, client, OwnerKind::Lock, owner)? {
        its.push((id, states::follow(t.kv, id)?));
    }
    for (_, record) in &its {
        require(!holds(t, record)?, StateError::LocksHeld.into())?;
    }
    states::remove_of(t, caller.minor, &its, None)?;
    Ok(StateOutcome::Released)
}
