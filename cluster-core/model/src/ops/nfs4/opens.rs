//! OPEN, OPEN_CONFIRM, OPEN_DOWNGRADE, CLOSE (RFC 8881 §18.16, §18.18, §18.2; RFC 7530 §16.16, §16.18, §16.19, §16.2).
//!
//! # Permission
//!
//! As knfsd (`do_open_permission`): reading needs permission to read or, since programs are read to be executed, to execute; writing
//! permission to write. Whoever made the file by this call may open it whatever its mode, and its owner if it comes by the same
//! exclusive creation again, or if the file itself is named, not a name in a directory: that is how a client opens again
//! what it had open before the owner took the permission away, while open(2) of a name must fail. What was opened under a delegation was
//! permitted when it was given.
//!
//! # Delegations
//!
//! A wish is decided about when nothing can refuse the open any more, as of before it, for what the client itself has open is no hindrance; and carried out after it.

use super::clients::{self, Caller};
use super::{delegations, release, states, wishes};
use crate::kv::{KvWrite, Table};
use crate::limits::OPAQUE_MAX;
use crate::ops::{create, names};
use crate::record::nfs4::{Held, Opened, OwnerKind, StateRecord};
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, once, store};
use atoll_base::access::{Perm, may_write, permits};
use atoll_base::attr::{FileKind, SetAttr};
use atoll_base::id::Ino;
use atoll_lockd::{FileLocks, Share, ShareBits, ShareError};
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationWish, Intrusion};
use atoll_meta::nfs4::{ClientId, OpenTarget, StateError, StateId, StateOutcome, Stateid};
use atoll_meta::{CreateHow, FsError, NewNode, Outcome};
use bytes::Bytes;

/// What a name stands for, with search permission on the directory.
fn look_up<K: KvWrite>(t: &mut Transaction<'_, K>, dir: Ino, name: &Bytes) -> Step<Option<At>> {
    let dir = t.load_dir(dir)?;
    names::check(name, FsError::IsDirectory)?;
    require(permits(t.cred, &t[dir].attr, Perm::EXEC), FsError::AccessDenied)?;
    match store::dirent(t.kv, t[dir].attr.ino, name)? {
        Some((ino, _)) => {
            let at = t.follow(ino, "a directory entry")?;
            t.report(at);
            Ok(Some(at))
        }
        None => Ok(None),
    }
}

pub(super) fn check_permission<K: KvWrite>(
    t: &Transaction<'_, K>,
    at: At,
    access: ShareBits,
    by_name: bool,
) -> Result<(), FsError> {
    let attr = &t[at].attr;
    let permitted = match access {
        ShareBits::None => return Err(FsError::Invalid),
        ShareBits::Read => permits(t.cred, attr, Perm::READ) || permits(t.cred, attr, Perm::EXEC),
        // Who may only append opens to write, too; each write says where.
        ShareBits::Write => may_write(t.cred, attr, u64::MAX),
        ShareBits::Both => permits(t.cred, attr, Perm::READ) && may_write(t.cred, attr, u64::MAX),
    };
    require(permitted || (!by_name && t.cred.owns(attr)), FsError::AccessDenied)
}

/// The table of a file, to reserve a share in.
fn table<K: KvWrite>(t: &Transaction<'_, K>, ino: Ino) -> Step<FileLocks> {
    Ok(store::get(t.kv, Table::Lock, &keys::ino(ino))?.unwrap_or_else(|| FileLocks::new(t.txn)))
}

fn keep<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, table: &FileLocks) -> Step<()> {
    let key = keys::ino(ino);
    if table.is_empty() {
        return Ok(t.kv.delete(Table::Lock, &key)?);
    }
    Ok(store::put(t.kv, Table::Lock, &key, table)?)
}

/// A share reservation is refused, or has to wait for what is left of a client.
pub(crate) fn share_refusal<K: KvWrite>(t: &Transaction<'_, K>, error: &ShareError) -> Step<FsError> {
    Ok(match error {
        ShareError::Conflict(conflict) if conflict.owner.is_none() && release::is_pending(t.kv)? => {
            FsError::Delay
        }
        ShareError::Conflict(_) => StateError::ShareDenied.into(),
        ShareError::TooMany(_) => FsError::TableFull,
        ShareError::NoAccess | ShareError::NotHeld => FsError::Invalid,
    })
}

/// What OPEN asks for.
pub(super) struct Wanted<'a> {
    pub(super) client: ClientId,
    pub(super) owner: &'a Bytes,
    pub(super) share: Share,
    pub(super) target: &'a OpenTarget,
    pub(super) delegate: Option<DelegationWish>,
    pub(super) under: Option<Stateid>,
}

/// What an OPEN will do with the state, found out before anything changes.
struct Plan {
    former: Option<(StateId, StateRecord)>,
    table: FileLocks,
    share: Share,
}

/// Reserves the share in the file's table as it will be stored.
fn plan<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    owner: &Bytes,
    ino: Ino,
    wanted: Share,
) -> Step<Plan> {
    let former = match states::of_owner_in(t.kv, client, OwnerKind::Open, owner, ino)? {
        Some(id) => Some((id, states::follow(t.kv, id)?)),
        None => None,
    };
    let held = former.as_ref().and_then(|(_, record)| match record.held {
        Held::Open { share, .. } => Some(share),
        Held::Lock { .. } | Held::Delegation(_) => None,
    });
    let mut table = table(t, ino)?;
    let share = match table.open(held, wanted) {
        Ok(share) => share,
        Err(error) => return Err(share_refusal(t, &error)?.into()),
    };
    if former.is_none() {
        states::check_room(t, client)?;
    }
    Ok(Plan { former, table, share })
}

/// The file of an OPEN, made if need be; nothing refuses after it. Returns whether it was made, and what to do with the state.
fn resolve<K: KvWrite>(t: &mut Transaction<'_, K>, what: &Wanted<'_>) -> Step<(At, bool, Plan)> {
    let wanted = what.share;
    let (dir, name, create) = match what.target {
        OpenTarget::File { ino, generation } => {
            let at = t.load_generation(*ino, *generation)?;
            return Ok((at, false, existing(t, what, at, false)?));
        }
        OpenTarget::Name { dir, name, create } => (*dir, name, create.as_ref()),
    };
    let found = look_up(t, dir, name)?;
    let Some((how, attrs)) = create else {
        let at = found.ok_or(FsError::NotFound)?;
        return Ok((at, false, existing(t, what, at, true)?));
    };
    require(what.under.is_none(), FsError::Invalid)?;
    let mut attrs = attrs.clone();
    let plan = match found {
        Some(at) => {
            // Of an existing file nothing is set but a size of zero (RFC 7530 §16.16.4, RFC 8881 §18.16.3).
            attrs.size = attrs.size.filter(|size| *size == 0);
            check_existing(t, at, *how, &attrs, wanted)?;
            let plain = *how == CreateHow::Unchecked && attrs.size.is_none();
            let intrusion = if plain { delegations::intrusion_of(wanted) } else { Intrusion::Change };
            delegations::check(t, at, intrusion)?;
            plan(t, what.client, what.owner, t[at].attr.ino, wanted)?
        }
        None => {
            states::check_room(t, what.client)?;
            Plan { former: None, table: FileLocks::new(t.txn), share: wanted }
        }
    };
    let made = create::create(t, dir, name, &NewNode::Regular, *how, &attrs)?;
    let Outcome::Created { attr, new } = made else {
        return Err(states::damaged("a creation without a file"));
    };
    let at = t.follow(attr.ino, "a creation")?;
    t.report(at);
    Ok((at, new, plan))
}

/// Checks for the OPEN of a file that is there and is to stay as it is.
fn existing<K: KvWrite>(t: &mut Transaction<'_, K>, what: &Wanted<'_>, at: At, by_name: bool) -> Step<Plan> {
    t.require_regular(at)?;
    match what.under {
        None => check_permission(t, at, what.share.access, by_name)?,
        Some(delegation) => delegations::check_under(t, what.client, delegation, at, what.share)?,
    }
    delegations::check(t, at, delegations::intrusion_of(what.share))?;
    plan(t, what.client, what.owner, t[at].attr.ino, what.share)
}

/// What OPEN asks beyond CREATE of a name that exists.
fn check_existing<K: KvWrite>(
    t: &Transaction<'_, K>,
    at: At,
    how: CreateHow,
    attrs: &SetAttr,
    wanted: Share,
) -> Step<()> {
    match how {
        CreateHow::Unchecked => {
            t.require_regular(at)?;
            // As knfsd: cutting a file off is writing it.
            let cuts = attrs.size.is_some();
            require(!cuts || wanted.access.contains(ShareBits::Write), FsError::Invalid)?;
            check_permission(t, at, wanted.access, true)?;
        }
        CreateHow::Exclusive(verifier) if t[at].attr.kind == FileKind::Regular => {
            require(t.file(at).verifier == Some(verifier), FsError::Exists)?;
            check_permission(t, at, wanted.access, false)?;
        }
        CreateHow::Exclusive(_) | CreateHow::Guarded => return Err(FsError::Exists.into()),
    }
    Ok(())
}

/// OPEN.
pub(super) fn open<K: KvWrite>(t: &mut Transaction<'_, K>, what: &Wanted<'_>) -> Step<StateOutcome> {
    let (client, owner, wanted) = (what.client, what.owner, what.share);
    let caller = clients::demand(t, client)?;
    let valid = owner.len() <= OPAQUE_MAX && wanted.access != ShareBits::None;
    require(valid, FsError::Invalid)?;
    let is_for_file = what.delegate.is_none_or(|wish| wish.kind != DelegationKind::Directory);
    require(is_for_file, FsError::Invalid)?;
    let (at, created, plan) = resolve(t, what)?;

    // Nothing refuses from here on.
    let confirmed = caller.minor != 0 || once::owners::is_confirmed(t.kv, client, owner)?;
    let is_new = plan.former.is_none();
    let delegation = match what.delegate {
        None => wishes::Plan::Answer(DelegationOutcome::NotAsked),
        // RFC 7530 §9.1.11: not with an open that must be confirmed.
        Some(_) if !confirmed => wishes::Plan::Answer(DelegationOutcome::Contention),
        Some(wish) => wishes::plan(t, client, at, wish, is_new.into())?,
    };
    // RFC 9754 §4: whoever has an open already is not to wonder about its version.
    let instead = what.delegate.is_some_and(|wish| wish.instead_of_open)
        && is_new
        && what.under.is_none()
        && delegation.covers(wanted);
    let open = if instead { None } else { Some(take(t, caller, what, at, created, plan, confirmed)?) };
    let delegation = wishes::carry_out(t, client, at, delegation)?;
    let open = match (open, delegation) {
        (None, DelegationOutcome::Given { stateid, .. }) => stateid,
        (Some(open), _) => open,
        (None, _) => return Err(states::damaged("an OPEN gives neither an open nor a delegation")),
    };
    Ok(StateOutcome::Opened { open, attr: t[at].attr.clone(), created, confirm: !confirmed, delegation })
}

/// Makes or upgrades an open as planned.
fn take<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    caller: Caller,
    what: &Wanted<'_>,
    at: At,
    created: bool,
    plan: Plan,
    confirmed: bool,
) -> Step<Stateid> {
    let (ino, generation) = (t[at].attr.ino, t[at].attr.generation);
    let mut table = plan.table;
    if created {
        // In the table of a file that is new there is nothing in the way.
        table.open(None, what.share).map_err(|_| states::damaged("a new file cannot be opened"))?;
    }
    keep(t, ino, &table)?;
    match plan.former {
        Some((id, mut record)) => {
            if let Held::Open { share, opened, .. } = &mut record.held {
                (*share, *opened) = (plan.share, opened.with(what.share));
            }
            states::advance(t, id, &mut record)
        }
        None => {
            let opened = Opened::default().with(what.share);
            let record = StateRecord {
                client: what.client,
                owner: what.owner.clone(),
                ino,
                generation,
                seqid: 1,
                since: t.now.secs,
                held: Held::Open { share: plan.share, opened, confirmed },
            };
            let id = states::add(t, caller.minor, &record)?;
            Ok(record.stateid(id))
        }
    }
}

/// An open of the client, with what it holds.
fn demand<K: KvWrite>(
    t: &Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<(u8, StateRecord, Share, Opened, bool)> {
    let (caller, record) = states::demand_held(t, client, sent)?;
    let Held::Open { share, opened, confirmed } = record.held else {
        return Err(StateError::BadStateid.into());
    };
    Ok((caller.minor, record, share, opened, confirmed))
}

/// OPEN_CONFIRM.
pub(super) fn confirm<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<StateOutcome> {
    let (minor, mut record, _, _, confirmed) = demand(t, client, sent)?;
    require(minor == 0 && !confirmed, StateError::BadStateid.into())?;
    if let Held::Open { confirmed, .. } = &mut record.held {
        *confirmed = true;
    }
    once::owners::confirm(t, client, &record.owner)?;
    Ok(StateOutcome::State(states::advance(t, sent.id, &mut record)?))
}

/// OPEN_DOWNGRADE.
pub(super) fn downgrade<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
    to: Share,
) -> Step<StateOutcome> {
    let (_, mut record, held, opened, confirmed) = demand(t, client, sent)?;
    require(confirmed, StateError::BadStateid.into())?;
    require(to.access != ShareBits::None, FsError::Invalid)?;
    let opened = opened.downgraded(to).ok_or(FsError::Invalid)?;
    if let Some(mut table) = load(t, record.ino)? {
        table
            .downgrade_open(held, to)
            .map_err(|_| states::damaged("a file's table does not count an open"))?;
        keep(t, record.ino, &table)?;
    }
    record.held = Held::Open { share: to, opened, confirmed };
    Ok(StateOutcome::State(states::advance(t, sent.id, &mut record)?))
}

fn load<K: KvWrite>(t: &Transaction<'_, K>, ino: Ino) -> Step<Option<FileLocks>> {
    Ok(store::get(t.kv, Table::Lock, &keys::ino(ino))?)
}

/// CLOSE. Locks under the open go with it, as Linux's server does it and RFC 8881 §18.2.3 allows.
pub(super) fn close<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    sent: Stateid,
) -> Step<StateOutcome> {
    let (minor, record, ..) = demand(t, client, sent)?;
    let last = states::last_stateid(sent.id, &record);
    let states = states::with_locks(t, sent.id, record)?;
    states::remove_of(t, minor, &states, Some(sent.id))?;
    Ok(StateOutcome::State(last))
}
