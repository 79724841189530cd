//! Who is given a delegation (RFC 8881 §10.4, §18.16, §18.39, §18.49): OPEN, WANT_DELEGATION and GET_DIR_DELEGATION wish for one.
//!
//! A wish is decided first ([`plan`]), before anything changes, and carried out with the rest of its command ([`carry_out`]). A client has at most one
//! delegation of a file or directory.
//!
//! Who is alone enough: for reading nobody else may have the file open to write, deny reading, or hold or wait for an exclusive lock; for writing nobody else
//! may have it open, locked or reserved at all. What the client itself has is no hindrance. Opens of others are only counted in the file's table, so
//! where there are some that might be the client's own, up to [`DELEGATION_LOOK_MAX`] of its states are looked at. What is left of a client that ended counts
//! as another's. Nobody is given one while one is being recalled, nor while a frontend holds the write lease: it may have acknowledged data
//! that are not here, and would take more without asking.

use super::delegations::{of_file, settle};
use super::{clients, notices, opens, states};
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{CLIENT_DELEGATIONS_MAX, DELEGATION_LOOK_MAX, FILE_DELEGATIONS_MAX, STATES_MAX};
use crate::record::nfs4::{Delegation, Held, OwnerKind, StateRecord};
use crate::store;
use crate::transaction::{At, Step, Transaction, require};
use atoll_base::access::{Perm, permits};
use atoll_base::id::{ExportId, Ino};
use atoll_lockd::{FileLocks, LockClient, LockMode, LockOwner, Share, ShareBits};
use atoll_meta::FsError;
use atoll_meta::delegation::{
    DelegationKind, DelegationOutcome, DelegationPhase, DelegationWish, NoticeKinds,
};
use atoll_meta::nfs4::{ClientId, StateId, StateOutcome, Stateid};
use bytes::Bytes;
use std::ops::ControlFlow;

/// What is to become of a wish, found out before anything changes.
pub(super) enum Plan {
    /// None is given, or it is there already.
    Answer(DelegationOutcome),
    /// A new one.
    Give(DelegationWish),
    /// One that the client has is changed.
    Upgrade(StateId, StateRecord, DelegationWish),
}

impl Plan {
    /// Whether there will be one that stands for an open of this kind.
    pub(super) fn covers(&self, share: Share) -> bool {
        match self {
            Plan::Answer(DelegationOutcome::Given { kind, .. }) => covers(*kind, share),
            Plan::Answer(_) => false,
            Plan::Give(wish) | Plan::Upgrade(.., wish) => covers(wish.kind, share),
        }
    }
}

/// Whether the holder may open so by itself (§10.4).
pub(super) fn covers(kind: DelegationKind, share: Share) -> bool {
    match kind {
        DelegationKind::Write => true,
        DelegationKind::Read => share.access == ShareBits::Read && !share.deny.intersects(ShareBits::Read),
        DelegationKind::Directory => false,
    }
}

/// The delegation of a client and a file, in whatever phase.
fn of_client(
    kv: &impl KvRead,
    client: ClientId,
    ino: Ino,
) -> Result<Option<(StateId, StateRecord, Delegation)>, KvError> {
    let Some(id) = states::of_owner_in(kv, client, OwnerKind::Delegation, b"", ino)? else { return Ok(None) };
    let record = states::follow(kv, id)?;
    Ok(record.delegation().map(|delegation| (id, record, delegation)))
}

fn given(stateid: Stateid, delegation: Delegation) -> DelegationOutcome {
    let Delegation { kind, timestamps, .. } = delegation;
    DelegationOutcome::Given { stateid, kind, timestamps }
}

/// Decides about a wish for a file or directory. `opens` states will be added in the same command.
pub(super) fn plan<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    at: At,
    wish: DelegationWish,
    opens: u32,
) -> Step<Plan> {
    use DelegationKind::{Directory, Read, Write};
    let ino = t[at].attr.ino;
    let contention = Ok(Plan::Answer(DelegationOutcome::Contention));
    let own = of_client(t.kv, client, ino)?;
    match &own {
        // §18.39.3: of a directory there is none a second time.
        Some((.., had)) if had.phase != DelegationPhase::Held || had.kind == Directory => return contention,
        Some((id, record, had)) if had.kind == wish.kind || had.kind == Write => {
            return Ok(Plan::Answer(given(record.stateid(*id), *had)));
        }
        _ => {}
    }
    let mut others = 0;
    for (_, record, delegation) in of_file(t.kv, ino)? {
        if record.client == client {
            continue;
        }
        if delegation.phase != DelegationPhase::Held || delegation.kind == Write || wish.kind == Write {
            return contention;
        }
        others += 1;
    }
    let is_leased = t[at].file.as_ref().is_some_and(|file| file.lease.is_some());
    if t[at].attr.nlink == 0 || (own.is_none() && is_leased) || is_contended(t, client, ino, wish.kind)? {
        return contention;
    }
    if let Some((id, record, Delegation { kind: Read, .. })) = own {
        return Ok(Plan::Upgrade(id, record, wish));
    }
    let counts = clients::counts(t.kv, client)?;
    let room = others < FILE_DELEGATIONS_MAX
        && counts.delegations < CLIENT_DELEGATIONS_MAX
        && counts.states + opens < STATES_MAX;
    Ok(if room { Plan::Give(wish) } else { Plan::Answer(DelegationOutcome::Resource) })
}

/// Whether an open or reservation of another client is against a delegation.
pub(crate) fn hinders(kind: DelegationKind, share: Share) -> bool {
    match kind {
        DelegationKind::Write => true,
        DelegationKind::Read => {
            share.access.intersects(ShareBits::Write) || share.deny.intersects(ShareBits::Read)
        }
        DelegationKind::Directory => false,
    }
}

/// Whether opens, reservations or locks of others are against it, or may be.
fn is_contended<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    ino: Ino,
    kind: DelegationKind,
) -> Step<bool> {
    if kind == DelegationKind::Directory {
        return Ok(false);
    }
    let Some(table) = store::get::<FileLocks>(t.kv, Table::Lock, &crate::keys::ino(ino))? else {
        return Ok(false);
    };
    let writes = kind == DelegationKind::Write;
    let is_others = |owner: &LockOwner| *owner.client() != LockClient::V4(client.0);
    let lock_hinders =
        |owner: &LockOwner, mode: LockMode| is_others(owner) && (writes || mode == LockMode::Exclusive);
    if table.shares().iter().any(|(_, share)| hinders(kind, share))
        || table.holders().any(|held| lock_hinders(held.owner, held.mode))
        || table.waiters().any(|waiter| lock_hinders(&waiter.owner, waiter.mode))
    {
        return Ok(true);
    }
    let opens = table.shares().opens();
    if if writes { opens.opens == 0 } else { opens.write == 0 && opens.deny_read == 0 } {
        return Ok(false);
    }
    Ok(may_be_open(t, client, ino, kind)?)
}

/// Whether an open that another client has of a file is against it. Where there are too many states to look at, one may be.
fn may_be_open<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    ino: Ino,
    kind: DelegationKind,
) -> Result<bool, KvError> {
    let (mut ids, mut complete) = (Vec::new(), true);
    store::each_prefixed(t.kv, Table::FileState, &crate::keys::ino(ino), |key, _| {
        if ids.len() >= DELEGATION_LOOK_MAX {
            complete = false;
            return Ok(ControlFlow::Break(()));
        }
        ids.push(StateId(keys::parse_pair(Table::FileState, key)?.1));
        Ok(ControlFlow::Continue(()))
    })?;
    for id in ids {
        let record = states::follow(t.kv, id)?;
        if let Held::Open { share, .. } = record.held
            && record.client != client
            && hinders(kind, share)
        {
            return Ok(true);
        }
    }
    Ok(!complete)
}

/// Carries a plan out.
pub(super) fn carry_out<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    at: At,
    plan: Plan,
) -> Step<DelegationOutcome> {
    let attr = &t[at].attr;
    let (ino, generation, change) = (attr.ino, attr.generation, attr.change);
    let of = |wish: DelegationWish| {
        let DelegationWish { kind, timestamps, export, .. } = wish;
        Delegation { kind, phase: DelegationPhase::Held, timestamps, export, change }
    };
    let outcome = match plan {
        Plan::Answer(outcome) => return Ok(outcome),
        Plan::Give(wish) => {
            let held = Held::Delegation(of(wish));
            let (owner, since) = (Bytes::new(), t.now.secs);
            let record = StateRecord { client, owner, ino, generation, seqid: 1, since, held };
            let id = states::insert(t, &record)?;
            given(record.stateid(id), of(wish))
        }
        // §18.16.3: another type under the same stateid, of the next version, is an upgrade.
        Plan::Upgrade(id, mut record, wish) => {
            record.held = Held::Delegation(of(wish));
            given(states::advance(t, id, &mut record)?, of(wish))
        }
    };
    settle(t, ino)?;
    Ok(outcome)
}

/// GET_DIR_DELEGATION with notifications.
pub(super) fn delegate_directory<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    dir: (Ino, u32),
    export: ExportId,
    kinds: NoticeKinds,
) -> Step<StateOutcome> {
    let kind = DelegationKind::Directory;
    let wish = DelegationWish { kind, timestamps: false, instead_of_open: false, export };
    let outcome = delegate(t, client, dir, wish)?;
    if let StateOutcome::Delegation(DelegationOutcome::Given { stateid, .. }) = &outcome {
        notices::begin(t.kv, stateid.id, kinds)?;
    }
    Ok(outcome)
}

/// WANT_DELEGATION, GET_DIR_DELEGATION.
pub(super) fn delegate<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    (ino, generation): (Ino, u32),
    wish: DelegationWish,
) -> Step<StateOutcome> {
    clients::demand(t, client)?;
    let at = t.load_generation(ino, generation)?;
    match wish.kind {
        DelegationKind::Directory => {
            require(t[at].is_dir(), FsError::NotDirectory)?;
            require(permits(t.cred, &t[at].attr, Perm::READ), FsError::AccessDenied)?;
        }
        DelegationKind::Read => {
            t.require_regular(at)?;
            opens::check_permission(t, at, ShareBits::Read, false)?;
        }
        DelegationKind::Write => {
            t.require_regular(at)?;
            opens::check_permission(t, at, ShareBits::Both, false)?;
        }
    }
    let plan = plan(t, client, at, wish, 0)?;
    Ok(StateOutcome::Delegation(carry_out(t, client, at, plan)?))
}
