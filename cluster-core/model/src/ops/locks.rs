//! Locks: lockd's table of each file, and the indexes around it.
//!
//! A file's table is loaded, changed by one call, and stored, or deleted when empty. `LockClient` has a row for each client of
//! NLM and file in which it has anything (holds, waits or reserves); what a client of NFSv4 has is found by its states. `PendingGrant`
//! has one for each file with grants that their clients have not acknowledged.

use super::nfs4::delegations;
use super::{lock_clients, nfs4};
use crate::kv::{KvError, KvWrite, Table};
use crate::transaction::{At, Step, Stop, Transaction, require};
use crate::{keys, store};
use atoll_base::id::Ino;
use atoll_lockd::{
    ByteRange, CancelOutcome, ClientMatch, Effect, FileLocks, GrantId, GrantOutcome, LockClient, LockError,
    LockMode, LockOwner, LockRequest, Share, ShareError, Wait,
};
use atoll_meta::delegation::Intrusion;
use atoll_meta::lock::{GrantedWaiter, LockOp, LockOutcome};
use atoll_meta::{FsError, Outcome};
use std::collections::BTreeSet;

/// A grant as the service speaks of it.
pub(crate) fn granted(ino: Ino, effect: Effect) -> GrantedWaiter {
    let Effect::Granted { grant, owner, range, mode, callback } = effect;
    GrantedWaiter { ino, grant, owner, range, mode, callback }
}

fn refusal(error: LockError) -> FsError {
    match error {
        LockError::TooMany(_) => FsError::TableFull,
        LockError::Deadlock => FsError::Deadlock,
    }
}

/// A lock operation.
pub(crate) fn run<K: KvWrite>(t: &mut Transaction<'_, K>, op: &LockOp) -> Step<Outcome> {
    let outcome = match op {
        LockOp::Lock { ino, generation, request, client_state } => {
            let at = require_file(t, *ino, *generation)?;
            let intrusion = match request.mode {
                LockMode::Shared => Intrusion::Read,
                LockMode::Exclusive => Intrusion::Change,
            };
            delegations::check(t, at, intrusion)?;
            match lock(t, *ino, request, *client_state)? {
                atoll_lockd::LockOutcome::Denied(conflict)
                    if nfs4::release::is_remainder(t.kv, &conflict.owner)? =>
                {
                    return Err(FsError::Delay.into());
                }
                outcome => LockOutcome::Lock(outcome),
            }
        }
        LockOp::Unlock { ino, generation, owner, range } => {
            require_file(t, *ino, *generation)?;
            unlock(t, *ino, owner, *range)?;
            LockOutcome::Unlocked
        }
        LockOp::Cancel { ino, generation, owner, range, mode } => {
            require_file(t, *ino, *generation)?;
            change(t, *ino, owner.client(), |locks, effects| {
                Ok(LockOutcome::Cancel(locks.cancel(owner, *range, *mode, effects)))
            })?
            .unwrap_or(LockOutcome::Cancel(CancelOutcome::NotFound))
        }
        LockOp::Settle { ino, grant, accepted } => settle(t, *ino, *grant, *accepted)?,
        LockOp::Share { ino, generation, owner, share: wanted, client_state } => {
            let at = require_file(t, *ino, *generation)?;
            delegations::check(t, at, delegations::intrusion_of(*wanted))?;
            share(t, *ino, owner, *wanted, *client_state)?
        }
        LockOp::Unshare { ino, generation, owner } => {
            require_file(t, *ino, *generation)?;
            change(t, *ino, owner.client(), |locks, _| {
                locks.unshare(owner);
                Ok(LockOutcome::Unlocked)
            })?
            .unwrap_or(LockOutcome::Unlocked)
        }
        LockOp::ReleaseClient(which) => LockOutcome::Released(lock_clients::release_all(t, which)?),
        LockOp::ClientRebooted { name, address, state } => {
            LockOutcome::Released(lock_clients::rebooted(t, name, *address, *state)?)
        }
    };
    Ok(Outcome::Lock(outcome))
}

pub(super) fn require_file<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, generation: u32) -> Step<At> {
    let at = t.find(ino)?.ok_or(FsError::Stale)?;
    require(t[at].attr.generation == generation, FsError::Stale)?;
    t.require_regular(at)?;
    Ok(at)
}

/// A file's table in an operation of one client, and which rows beside it there are: its contents, as they were loaded, say so, so nobody
/// has to look.
struct Loaded<'c> {
    locks: FileLocks,
    client: &'c LockClient,
    /// Whether the file is in `PendingGrant`.
    had_pending: bool,
    /// Whether the client is in `LockClient` with the file.
    was_there: bool,
}

impl<'c> Loaded<'c> {
    fn new(locks: FileLocks, client: &'c LockClient) -> Self {
        let (had_pending, was_there) = (locks.has_pending_grants(), is_listed(&locks, client));
        Self { locks, client, had_pending, was_there }
    }
}

fn is_listed(locks: &FileLocks, client: &LockClient) -> bool {
    lock_clients::is_listed(client) && locks.concerns(&ClientMatch::Client(client.clone()))
}

fn load<'c, K: KvWrite>(
    t: &Transaction<'_, K>,
    ino: Ino,
    client: &'c LockClient,
) -> Step<Option<Loaded<'c>>> {
    let locks: Option<FileLocks> = store::get(t.kv, Table::Lock, &keys::ino(ino))?;
    Ok(locks.map(|locks| Loaded::new(locks.at(t.now.secs), client)))
}

/// The table of a file to which `client` adds something in this `life`; without what it had in an earlier one.
fn load_for<'c, K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    client: &'c LockClient,
    life: u32,
) -> Step<Loaded<'c>> {
    // There is none before the first.
    if life > 0 && lock_clients::life_in(t, client, ino)?.is_some_and(|there| there < life) {
        free(t, ino, client)?;
    }
    // The transaction's number is given out once, so this table differs from any former one of the file.
    let new = || Loaded::new(FileLocks::new(t.txn).at(t.now.secs), client);
    Ok(load(t, ino, client)?.unwrap_or_else(new))
}

/// Stores a file's table after an operation, and what follows from it. `life` is given if the client may have got something.
fn keep<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    loaded: &Loaded<'_>,
    effects: Vec<Effect>,
    life: Option<u32>,
) -> Step<()> {
    let Loaded { locks, client, had_pending, was_there } = loaded;
    let key = keys::ino(ino);
    if locks.is_empty() {
        t.kv.delete(Table::Lock, &key)?;
    } else {
        store::put(t.kv, Table::Lock, &key, locks)?;
    }
    match (had_pending, locks.has_pending_grants()) {
        (false, true) => t.kv.put(Table::PendingGrant, &key, &[])?,
        (true, false) => t.kv.delete(Table::PendingGrant, &key)?,
        _ => {}
    }
    t.touched.grants.extend(effects.into_iter().map(|effect| granted(ino, effect)));
    match (was_there, is_listed(locks, client)) {
        (true, true) => lock_clients::stays(t, client, ino, life),
        (true, false) => lock_clients::leaves(t, client, ino),
        (false, true) => lock_clients::comes(t, client, ino, life),
        (false, false) => Ok(()),
    }
}

/// Runs an operation that gives nothing to `client`; `None` if the file has no table.
fn change<K: KvWrite, R>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    client: &LockClient,
    f: impl FnOnce(&mut FileLocks, &mut Vec<Effect>) -> Result<R, FsError>,
) -> Step<Option<R>> {
    let Some(mut loaded) = load(t, ino, client)? else { return Ok(None) };
    let mut effects = Vec::new();
    let outcome = f(&mut loaded.locks, &mut effects)?;
    keep(t, ino, &loaded, effects, None)?;
    Ok(Some(outcome))
}

/// Whether the grant of a request that waits would make what its owner holds weaker. A client of NFSv4 is only told that it may ask, and must
/// not lose by it what it has.
fn would_weaken(locks: &FileLocks, request: &LockRequest) -> bool {
    request.mode == LockMode::Shared
        && request.wait != Wait::No
        && locks.holders().any(|held| {
            *held.owner == request.owner
                && held.mode == LockMode::Exclusive
                && held.range.overlaps(&request.range)
        })
}

/// Forgets those requests of the owner that would, granted later, make weaker what it has just got.
fn forget_weaker(locks: &mut FileLocks, got: &LockRequest, effects: &mut Vec<Effect>) {
    if got.mode == LockMode::Shared {
        return;
    }
    let weaker: Vec<ByteRange> = locks
        .waiters()
        .filter(|w| w.owner == got.owner && w.mode == LockMode::Shared && w.range.overlaps(&got.range))
        .map(|waiter| waiter.range)
        .collect();
    for range in weaker {
        locks.cancel(&got.owner, range, LockMode::Shared, effects);
    }
}

/// Locks a range of a file that is known to be there.
pub(super) fn lock<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    request: &LockRequest,
    state: i32,
) -> Step<atoll_lockd::LockOutcome> {
    let client = request.owner.client();
    let life = lock_clients::enter(t, client, state)?;
    let mut loaded = load_for(t, ino, client, life)?;
    let locks = &mut loaded.locks;
    let mut effects = Vec::new();
    let mut sent = request.clone();
    if matches!(client, LockClient::V4(_)) && would_weaken(locks, request) {
        sent.wait = Wait::No;
    }
    let outcome = locks.lock(sent, &mut effects).map_err(refusal)?;
    if !matches!(outcome, atoll_lockd::LockOutcome::Denied(_)) {
        if matches!(client, LockClient::V4(_)) && outcome == atoll_lockd::LockOutcome::Granted {
            forget_weaker(locks, request, &mut effects);
        }
        keep(t, ino, &loaded, effects, Some(life))?;
    }
    Ok(outcome)
}

/// Forgets a request that waits, or a grant of it that is pending.
pub(super) fn forget<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    owner: &LockOwner,
    range: ByteRange,
    mode: LockMode,
) -> Step<()> {
    change(t, ino, owner.client(), |locks, effects| Ok(locks.cancel(owner, range, mode, effects)))?;
    Ok(())
}

/// Unlocks a range.
pub(super) fn unlock<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    owner: &LockOwner,
    range: ByteRange,
) -> Step<()> {
    change(t, ino, owner.client(), |locks, effects| locks.unlock(owner, range, effects).map_err(refusal))?;
    Ok(())
}

/// Gives up opens, and all ranges of some lock owners, of one NFSv4 client in a file. One that was removed has no table any more.
pub(super) fn leave<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    client: &LockClient,
    opens: &[Share],
    owners: &BTreeSet<LockOwner>,
) -> Step<()> {
    let Some(mut loaded) = load(t, ino, client)? else { return Ok(()) };
    let locks = &mut loaded.locks;
    for share in opens {
        locks.close_open(*share).map_err(|_| {
            Stop::Store(KvError::Failed(format!("the lock table of file {ino} does not count an open")))
        })?;
    }
    let mut effects = Vec::new();
    if !owners.is_empty() {
        locks.release_owners(owners, &mut effects);
    }
    keep(t, ino, &loaded, effects, None)
}

fn share<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    owner: &LockOwner,
    share: Share,
    state: i32,
) -> Step<LockOutcome> {
    let client = owner.client();
    let life = lock_clients::enter(t, client, state)?;
    let mut loaded = load_for(t, ino, client, life)?;
    let outcome = match loaded.locks.share(owner.clone(), share) {
        Ok(()) => Ok(()),
        Err(ShareError::Conflict(conflict))
            if conflict.owner.is_some() || !nfs4::release::is_pending(t.kv)? =>
        {
            Err(conflict)
        }
        Err(error) => return Err(nfs4::share_refusal(t, &error)?.into()),
    };
    if outcome.is_ok() {
        keep(t, ino, &loaded, Vec::new(), Some(life))?;
    }
    Ok(LockOutcome::Share(outcome))
}

fn settle<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    ino: Ino,
    grant: GrantId,
    accepted: bool,
) -> Step<LockOutcome> {
    let locks: Option<FileLocks> = store::get(t.kv, Table::Lock, &keys::ino(ino))?;
    let Some(locks) = locks else {
        return Ok(LockOutcome::Settled(GrantOutcome::NotPending));
    };
    let owner = locks.pending_grants().into_iter().find_map(|effect| {
        let Effect::Granted { grant: id, owner, .. } = effect;
        (id == grant).then_some(owner)
    });
    let Some(owner) = owner else { return Ok(LockOutcome::Settled(GrantOutcome::NotPending)) };
    let mut loaded = Loaded::new(locks.at(t.now.secs), owner.client());
    let locks = &mut loaded.locks;
    let mut effects = Vec::new();
    let outcome =
        if accepted { locks.grant_acknowledged(grant) } else { locks.release_grant(grant, &mut effects) };
    keep(t, ino, &loaded, effects, None)?;
    Ok(LockOutcome::Settled(outcome))
}

/// Frees what a client has in a file.
pub(super) fn free<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, client: &LockClient) -> Step<()> {
    let mut loaded = load(t, ino, client)?
        .unwrap_or_else(|| panic!("file {ino}, listed for a lock client, has no lock table"));
    let mut effects = Vec::new();
    loaded.locks.release_client(&ClientMatch::Client(client.clone()), &mut effects);
    keep(t, ino, &loaded, effects, None)
}

/// All that have anything in a file.
pub(crate) fn clients_of(locks: &FileLocks) -> BTreeSet<&LockClient> {
    let holders = locks.holders().map(|held| held.owner);
    let waiters = locks.waiters().map(|waiter| &waiter.owner);
    let shares = locks.shares().iter().map(|(owner, _)| owner);
    holders.chain(waiters).chain(shares).map(LockOwner::client).collect()
}

/// Forgets the locks of a file that is being removed; who waits is not told, for there is nothing to lock any more.
pub(super) fn drop_file<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino) -> Step<()> {
    let locks: Option<FileLocks> = store::get(t.kv, Table::Lock, &keys::ino(ino))?;
    let Some(locks) = locks else { return Ok(()) };
    for client in clients_of(&locks).into_iter().filter(|client| lock_clients::is_listed(client)) {
        lock_clients::leaves(t, client, ino)?;
    }
    t.kv.delete(Table::PendingGrant, &keys::ino(ino))?;
    Ok(t.kv.delete(Table::Lock, &keys::ino(ino))?)
}
