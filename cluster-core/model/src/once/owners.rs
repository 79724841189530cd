//! Sequences of NFSv4.0 open owners and lock owners (RFC 7530 §9.1.7 to §9.1.11, §16.18).
//!
//! An owner's record keeps the last step of its sequence with the response. A refusal is a step like any other, but those after
//! which a client does not count on ([`counts`]); among those that count is `Delay`, but not
//! `Delegated`: the frontend repeats such a call, or refuses it ([`StateOp::Refuse`]).
//!
//! - An owner that is new takes any number. An open owner must then confirm it; until it does, another OPEN takes the place of the
//!   first, and everything else but OPEN_CONFIRM is `BadStateid`.
//! - A lock owner has a record from its first lock state to its last.
//! - An open owner without opens is kept, so that it need not confirm again, and because the answer to its last CLOSE is there; which
//!   state that closed is in `ClosedState`. There are at most [`IDLE_OWNERS_MAX`] such owners of a client; the oldest gives way.
//! - LOCK that makes a lock state is a step of the open owner, and of the lock owner if that is known.

use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{IDLE_OWNERS_MAX, OPAQUE_MAX};
use crate::model::Model;
use crate::ops::nfs4::{clients, states};
use crate::record::nfs4::{OwnerKind, OwnerRecord, OwnerStep};
use crate::store;
use crate::transaction::{Stop, Transaction};
use atoll_meta::nfs4::{ClientId, LockState, StateError, StateId, StateOp};
use atoll_meta::once::OwnerSequence;
use atoll_meta::{FsError, Op, OwnerKey, Response};
use bytes::Bytes;
use std::ops::ControlFlow;

/// A step that is to be executed.
pub(crate) struct Step {
    client: ClientId,
    kind: OwnerKind,
    owner: Bytes,
    seqid: u32,
    fingerprint: u64,
    /// The owner is not confirmed, and this OPEN takes the place of the one that it made.
    replaces: bool,
    /// What the owner closed by its former step.
    closed: Option<StateId>,
    /// The lock owner that counts, too, and its number.
    lock_owner: Option<(Bytes, u32)>,
}

/// The record of an owner.
pub(crate) fn load(
    kv: &impl KvRead,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
) -> Result<Option<OwnerRecord>, KvError> {
    store::get(kv, Table::Owner, &keys::owner(client, kind, owner))
}

fn put(
    kv: &mut impl KvWrite,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
    record: &OwnerRecord,
) -> Result<(), KvError> {
    store::put(kv, Table::Owner, &keys::owner(client, kind, owner), record)
}

/// Whether `next` follows `last`: past the largest number comes 1 (RFC 7530 §9.1.3), and clients are known that send 0.
pub(crate) fn follows(last: u32, next: u32) -> bool {
    next == last.wrapping_add(1) || (last == u32::MAX && next == 1)
}

/// Statuses after which a client does not count on (RFC 7530 §9.1.7): RESOURCE, MOVED, NOFILEHANDLE, STALE_CLIENTID, STALE_STATEID,
/// BAD_STATEID, BAD_SEQID, BADXDR.
const UNCOUNTED: [u32; 8] = [10018, 10019, 10020, 10022, 10023, 10025, 10026, 10036];

/// Whether a client counts on after this answer (RFC 7530 §9.1.7). `TableFull` is NFS4ERR_RESOURCE.
fn counts(response: &Response) -> bool {
    use StateError::{BadSeqid, BadStateid, Delegated, StaleClient};
    match response.result {
        Err(FsError::Fenced | FsError::TableFull) => false,
        Err(FsError::State(StaleClient | BadStateid | BadSeqid | Delegated)) => false,
        Err(FsError::State(StateError::Wire(status))) => !UNCOUNTED.contains(&status),
        Ok(_) | Err(_) => true,
    }
}

type Owned = (OwnerKind, Bytes);

/// The owner whose last step closed this state.
pub(crate) fn closed(kv: &impl KvRead, id: StateId) -> Result<Option<(ClientId, OwnerKind, Bytes)>, KvError> {
    kv.get(Table::ClosedState, &keys::state(id), |row| {
        row.map(|row| {
            let (client, kind, owner) = keys::parse_owner(Table::ClosedState, row)?;
            Ok((client, kind, Bytes::copy_from_slice(owner)))
        })
        .transpose()
    })?
}

/// The owner that a key means.
fn resolve(kv: &impl KvRead, key: &OwnerKey) -> Result<Result<Owned, FsError>, KvError> {
    match &key.sequence {
        OwnerSequence::Open(owner) if owner.len() > OPAQUE_MAX => Ok(Err(FsError::Invalid)),
        OwnerSequence::Open(owner) => Ok(Ok((OwnerKind::Open, owner.clone()))),
        OwnerSequence::Of(id) => {
            if let Some(state) = states::load(kv, *id)?.filter(|state| state.client == key.client) {
                // A delegation has no sequence.
                let has_sequence = state.kind() != OwnerKind::Delegation;
                let found = has_sequence.then(|| (state.kind(), state.owner));
                return Ok(found.ok_or(StateError::BadStateid.into()));
            }
            let its = closed(kv, *id)?.filter(|(client, ..)| *client == key.client);
            Ok(its.map(|(_, kind, owner)| (kind, owner)).ok_or(StateError::BadStateid.into()))
        }
    }
}

/// Whether the operation is one of the owner that the key means.
fn fits(key: &OwnerKey, op: &Op) -> bool {
    let Op::State(op) = op else { return false };
    let (client, id) = match op {
        StateOp::Open { client, owner, .. } => {
            return *client == key.client && key.sequence == OwnerSequence::Open(owner.clone());
        }
        StateOp::Confirm { client, open }
        | StateOp::Downgrade { client, open, .. }
        | StateOp::Close { client, open }
        | StateOp::Lock { client, state: LockState::New { open, .. }, .. } => (client, open.id),
        StateOp::Lock { client, state: LockState::Held(lock), .. } | StateOp::Unlock { client, lock, .. } => {
            (client, lock.id)
        }
        StateOp::Refuse(_) => return true,
        StateOp::Free { .. }
        | StateOp::ReleaseOwner { .. }
        | StateOp::Delegate { .. }
        | StateOp::Return { .. }
        | StateOp::Recall { .. }
        | StateOp::Revoke(_)
        | StateOp::DelegatedTimes { .. }
        | StateOp::HolderChanged(_)
        | StateOp::DelegateDirectory { .. }
        | StateOp::Noticed { .. }
        | StateOp::RecallOne(_) => return false,
    };
    *client == key.client && key.sequence == OwnerSequence::Of(id)
}

/// The step that a call is, or what to answer instead.
pub(super) fn admit(kv: &impl KvRead, key: &OwnerKey, op: &Op) -> Result<Result<Step, Response>, KvError> {
    if !fits(key, op) {
        return Ok(Err(Response::refused(FsError::Invalid)));
    }
    if let Err(error) = clients::confirmed(kv, key.client, Some(0))? {
        return Ok(Err(Response::refused(error)));
    }
    let (kind, owner) = match resolve(kv, key)? {
        Ok(found) => found,
        Err(error) => return Ok(Err(Response::refused(error))),
    };
    let mut step = Step {
        client: key.client,
        kind,
        owner,
        seqid: key.seqid,
        fingerprint: key.fingerprint,
        replaces: false,
        closed: None,
        lock_owner: match op {
            Op::State(StateOp::Lock { state: LockState::New { owner, seqid, .. }, .. }) => {
                Some((owner.clone(), *seqid))
            }
            _ => None,
        },
    };
    let Some(record) = load(kv, step.client, step.kind, &step.owner)? else { return Ok(Ok(step)) };
    step.closed = record.closed;
    let Some(last) = record.last else { return Ok(Ok(step)) };
    if last.seqid == key.seqid && last.fingerprint == key.fingerprint {
        return Ok(Err(last.response));
    }
    let refused = |error: StateError| Ok(Err(Response::refused(error.into())));
    let is_established = record.confirmed || step.kind == OwnerKind::Lock;
    match op {
        Op::State(StateOp::Open { .. }) if !is_established => {
            step.replaces = true;
            Ok(Ok(step))
        }
        _ if !follows(last.seqid, key.seqid) => refused(StateError::BadSeqid),
        // With this step the state that was closed is forgotten, and a retransmission would not find its owner.
        Op::State(StateOp::Refuse(_))
            if step.closed.is_some_and(|id| key.sequence == OwnerSequence::Of(id)) =>
        {
            refused(StateError::BadStateid)
        }
        Op::State(StateOp::Confirm { .. } | StateOp::Refuse(_)) => Ok(Ok(step)),
        _ if !is_established => refused(StateError::BadStateid),
        _ => Ok(Ok(step)),
    }
}

impl Step {
    /// What comes before the operation, whether that will be refused or not.
    pub(crate) fn begin<K: KvWrite>(&self, t: &mut Transaction<'_, K>) -> Result<(), KvError> {
        if !self.replaces {
            return Ok(());
        }
        match forget(t, self.client, self.kind, &self.owner) {
            Ok(()) => Ok(()),
            Err(Stop::Store(e)) => Err(e),
            Err(Stop::Refused(e)) => Err(KvError::Failed(format!("an owner cannot be forgotten: {e}"))),
        }
    }
}

/// Forgets an owner with all that it has, which must be little.
fn forget<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    kind: OwnerKind,
    owner: &Bytes,
) -> Result<(), Stop> {
    for (id, _) in states::of_owner(t.kv, client, kind, owner)? {
        let record = states::follow(t.kv, id)?;
        let states = states::with_locks(t, id, record)?;
        states::remove_of(t, 0, &states, None)?;
    }
    if let Some(record) = load(t.kv, client, kind, owner)? {
        drop_record(t.kv, client, kind, owner, &record)?;
    }
    Ok(())
}

/// Removes an owner's record and its rows elsewhere.
pub(crate) fn drop_record(
    kv: &mut impl KvWrite,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
    record: &OwnerRecord,
) -> Result<(), KvError> {
    if let Some(number) = record.idle {
        kv.delete(Table::IdleOwner, &keys::idle_owner(client, number, owner))?;
        clients::count(kv, client, |c| c.idle_owners -= 1)?;
    }
    if let Some(closed) = record.closed {
        kv.delete(Table::ClosedState, &keys::state(closed))?;
    }
    kv.delete(Table::Owner, &keys::owner(client, kind, owner))
}

/// Notes that an owner of a v4.0 client has one more state.
pub(crate) fn gained<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
) -> Result<(), KvError> {
    let mut record = load(t.kv, client, kind, owner)?.unwrap_or_default();
    record.states += 1;
    if let Some(number) = record.idle.take() {
        t.kv.delete(Table::IdleOwner, &keys::idle_owner(client, number, owner))?;
        clients::count(t.kv, client, |c| c.idle_owners -= 1)?;
    }
    put(t.kv, client, kind, owner, &record)
}

/// Notes that an owner of a v4.0 client has lost a state; `closed` if by CLOSE of the owner.
pub(crate) fn lost<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    kind: OwnerKind,
    owner: &[u8],
    closed: Option<StateId>,
) -> Result<(), KvError> {
    let Some(mut record) = load(t.kv, client, kind, owner)? else {
        return Err(KvError::Failed(format!("an owner of client {:x} has states but no record", client.0)));
    };
    record.states = record.states.checked_sub(1).ok_or_else(|| {
        KvError::Failed(format!("an owner of client {:x} counts fewer states than it has", client.0))
    })?;
    if kind == OwnerKind::Lock && record.states == 0 {
        return drop_record(t.kv, client, kind, owner, &record);
    }
    if let Some(id) = closed {
        if let Some(former) = record.closed.replace(id) {
            t.kv.delete(Table::ClosedState, &keys::state(former))?;
        }
        t.kv.put(Table::ClosedState, &keys::state(id), &keys::owner(client, kind, owner))?;
    }
    rest(t.kv, client, owner, &mut record, t.txn)?;
    put(t.kv, client, kind, owner, &record)?;
    make_room(t.kv, client, owner)
}

/// Lists an open owner that has nothing open.
fn rest(
    kv: &mut impl KvWrite,
    client: ClientId,
    owner: &[u8],
    record: &mut OwnerRecord,
    txn: u64,
) -> Result<(), KvError> {
    if record.states > 0 || record.idle.is_some() {
        return Ok(());
    }
    record.idle = Some(txn);
    kv.put(Table::IdleOwner, &keys::idle_owner(client, txn, owner), &[])?;
    clients::count(kv, client, |c| c.idle_owners += 1)
}

/// Notes that an open owner has confirmed.
pub(crate) fn confirm<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    owner: &[u8],
) -> Result<(), KvError> {
    let mut record = load(t.kv, client, OwnerKind::Open, owner)?.unwrap_or_default();
    record.confirmed = true;
    put(t.kv, client, OwnerKind::Open, owner, &record)
}

/// Stores a step with its response.
pub(super) fn settle(
    kv: &mut impl KvWrite,
    model: &mut Model,
    step: Step,
    response: &Response,
) -> Result<(), KvError> {
    // Whoever ended the client ended its sequences.
    if !counts(response) || clients::load(kv, step.client)?.is_none() {
        return Ok(());
    }
    let known = load(kv, step.client, step.kind, &step.owner)?;
    if known.is_none() && step.kind == OwnerKind::Lock {
        return Ok(());
    }
    let mut record = known.unwrap_or_default();
    if let Some(former) = step.closed.filter(|former| record.closed == Some(*former)) {
        kv.delete(Table::ClosedState, &keys::state(former))?;
        record.closed = None;
    }
    let stored = |seqid| OwnerStep { seqid, fingerprint: step.fingerprint, response: response.clone() };
    record.last = Some(stored(step.seqid));
    if step.kind == OwnerKind::Open {
        rest(kv, step.client, &step.owner, &mut record, model.meta.last_txn)?;
    }
    put(kv, step.client, step.kind, &step.owner, &record)?;
    if let Some((owner, seqid)) = &step.lock_owner
        && let Some(mut record) = load(kv, step.client, OwnerKind::Lock, owner)?
    {
        record.last = Some(stored(*seqid));
        put(kv, step.client, OwnerKind::Lock, owner, &record)?;
    }
    make_room(kv, step.client, &step.owner)
}

/// Forgets the owner that has been idle longest, if there are too many; not `present`, whose step this is.
fn make_room(kv: &mut impl KvWrite, client: ClientId, present: &[u8]) -> Result<(), KvError> {
    if clients::counts(kv, client)?.idle_owners <= IDLE_OWNERS_MAX {
        return Ok(());
    }
    let mut oldest = None;
    store::each_prefixed(kv, Table::IdleOwner, &keys::client(client), |key, _| {
        let (_, _, owner) = keys::parse_idle_owner(key)?;
        if owner == present {
            return Ok(ControlFlow::Continue(()));
        }
        oldest = Some(owner.to_vec());
        Ok(ControlFlow::Break(()))
    })?;
    let Some(owner) = oldest else { return Ok(()) };
    let record = load(kv, client, OwnerKind::Open, &owner)?
        .ok_or_else(|| KvError::Failed("an idle owner has no record".into()))?;
    drop_record(kv, client, OwnerKind::Open, &owner, &record)
}

/// Whether a v4.0 open owner is known and has confirmed.
pub(crate) fn is_confirmed(kv: &impl KvRead, client: ClientId, owner: &[u8]) -> Result<bool, KvError> {
    Ok(load(kv, client, OwnerKind::Open, owner)?.is_some_and(|record| record.confirmed))
}
