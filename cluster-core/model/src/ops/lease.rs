//! Write leases, the frontends that hold them, and the loss of what was acknowledged under them.
//!
//! Under a lease its holder answers UNSTABLE writes from its memory, showing change values and times of its own above those
//! stored here. What makes that safe:
//!
//! - nothing above the lease's ceilings is shown, and whatever ends the lease without the data moves change and ctime past
//!   them: a value once shown never stands for other bytes;
//! - a lease ends only by the holder's `release`, by the loss of the data (which moves the write verifier), or with the
//!   inode. Another's change of the inode moves past the ceilings and reserves a new range (see
//!   [`Transaction::changed`]); a holder that finds the stored change above its ceiling renews before it shows anything;
//! - while there is a lease, only its holder may show size, times and data of the inode: others make it flush first.
//!
//! A second frontend is refused with `Conflict`; it writes through instead.

use super::data;
use super::nfs4::delegations;
use crate::kv::{KvError, KvWrite, Table};
use crate::limits::{FRONTENDS_MAX, LEASE_CHANGES, LEASE_NANOS, LEASES_MAX};
use crate::record::Lease;
use crate::transaction::{At, Step, Transaction, require};
use crate::{keys, store};
use atoll_base::id::{Epoch, FrontendId, Ino};
use atoll_meta::delegation::Intrusion;
use atoll_meta::{FsError, Outcome};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// BeginDirty.
pub(crate) fn begin<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, generation: u32) -> Step<Outcome> {
    let at = t.load_generation(ino, generation)?;
    t.require_regular(at)?;
    let origin = t.origin.ok_or(FsError::Invalid)?;
    data::check_append_permission(t, at)?;
    let holder = t.file(at).lease;
    require(holder.is_none_or(|f| f == origin.frontend), FsError::Conflict)?;
    if holder.is_none() {
        let leases = t.model.frontend_mut(origin.frontend).leases;
        require(leases < LEASES_MAX, FsError::TableFull)?;
    }
    delegations::check(t, at, Intrusion::Change)?;

    let mode = data::mode_after_write(t.cred, t[at].attr.mode);
    if mode != t[at].attr.mode {
        t.changed(at)?;
        t[at].attr.mode = mode;
    }
    let attr = &t[at].attr;
    let (mut change, mut ctime) = (attr.change, t.now.max(attr.ctime).plus_nanos(LEASE_NANOS));
    if holder.is_some() {
        let former = store::lease(t.kv, origin.frontend, ino)?;
        change = change.max(former.change_ceiling);
        ctime = ctime.max(former.ctime_ceiling);
    } else {
        t.file_mut(at).lease = Some(origin.frontend);
        t.model.frontend_mut(origin.frontend).leases += 1;
    }
    let lease = Lease { epoch: origin.epoch, change_ceiling: change + LEASE_CHANGES, ctime_ceiling: ctime };
    t.put_lease(origin.frontend, ino, &lease)?;
    Ok(Outcome::Dirty { change_ceiling: lease.change_ceiling, ctime_ceiling: lease.ctime_ceiling })
}

/// Ends the lease on a file, if there is one: nothing of it is outstanding, or nothing matters any more.
pub(crate) fn end<K: KvWrite>(t: &mut Transaction<'_, K>, at: At) -> Step<()> {
    let ino = t[at].attr.ino;
    let Some(frontend) = t.file(at).lease else { return Ok(()) };
    t.file_mut(at).lease = None;
    let record = t.model.frontend_mut(frontend);
    record.leases = record.leases.checked_sub(1).expect("a frontend counts fewer leases than it holds");
    Ok(t.kv.delete(Table::Dirty, &keys::lease(frontend, ino))?)
}

/// Ends a lease whose data are lost: what the holder has shown must not be shown again for what is stored. mtime moves
/// too, because there are clients that know their cached data by it alone.
fn lose<K: KvWrite>(t: &mut Transaction<'_, K>, frontend: FrontendId, ino: Ino) -> Step<()> {
    let lease = store::lease(t.kv, frontend, ino)?;
    let mut inode = store::inode(t.kv, ino)?
        .ok_or_else(|| KvError::Failed(format!("inode {ino}, which a write lease is on, does not exist")))?;
    let now = t.now;
    let attr = &mut inode.attr;
    attr.change = attr.change.max(lease.change_ceiling) + 1;
    attr.ctime = now.max(attr.ctime.max(lease.ctime_ceiling).next());
    attr.mtime = attr.ctime;
    let file = inode.file.as_mut().expect("a write lease on what is no file");
    assert_eq!(file.lease, Some(frontend), "inode {ino} and its write lease disagree");
    file.lease = None;
    store::put_inode(t.kv, &inode)?;
    t.kv.delete(Table::Dirty, &keys::lease(frontend, ino))?;
    t.touch(ino);
    Ok(())
}

fn move_verifier<K: KvWrite>(t: &mut Transaction<'_, K>) {
    t.model.meta.loss_epoch = t.model.meta.loss_epoch.wrapping_add(1);
    t.touched.verifier = Some(t.model.verifier());
}

/// RegisterFrontend.
pub(crate) fn register<K: KvWrite>(t: &mut Transaction<'_, K>, frontend: FrontendId) -> Step<Outcome> {
    let known = t.model.frontends().contains_key(&frontend);
    require(known || t.model.frontends().len() < FRONTENDS_MAX, FsError::TableFull)?;
    let epoch = Epoch(t.model.meta.next_epoch);
    t.model.meta.next_epoch = epoch.0.checked_add(1).ok_or(FsError::TableFull)?;
    let mut inos = Vec::new();
    store::each_prefixed(t.kv, Table::Dirty, &keys::frontend(frontend), |key, _| {
        let mut parts = keys::Parts::new(Table::Dirty, key);
        let _frontend = parts.u32()?;
        inos.push(parts.ino()?);
        Ok(ControlFlow::Continue(()))
    })?;
    for ino in &inos {
        lose(t, frontend, *ino)?;
    }
    let mark = keys::refused(frontend);
    let refused = store::has(t.kv, Table::Meta, &mark)?;
    if refused {
        t.kv.delete(Table::Meta, &mark)?;
    }
    if refused || !inos.is_empty() {
        move_verifier(t);
    }
    let record = t.model.frontend_mut(frontend);
    record.epoch = epoch;
    record.leases = 0;
    Ok(Outcome::Registered { epoch, verifier: t.model.verifier() })
}

/// DataRefused. The file's lease may end as if nothing had happened, and COMMIT's error is told from the frontend's memory: what is left for a life to
/// come is that data were lost.
pub(crate) fn data_refused<K: KvWrite>(t: &mut Transaction<'_, K>) -> Step<Outcome> {
    let origin = t.origin.ok_or(FsError::Invalid)?;
    t.kv.put(Table::Meta, &keys::refused(origin.frontend), &[])?;
    Ok(Outcome::Done)
}

/// DataLost.
pub(crate) fn data_lost<K: KvWrite>(t: &mut Transaction<'_, K>, inos: &[Ino]) -> Step<Outcome> {
    let origin = t.origin.ok_or(FsError::Invalid)?;
    require(inos.len() <= LEASES_MAX as usize, FsError::Invalid)?;
    let mut any = false;
    for ino in inos.iter().copied().collect::<BTreeSet<_>>() {
        if !store::has(t.kv, Table::Dirty, &keys::lease(origin.frontend, ino))? {
            continue;
        }
        lose(t, origin.frontend, ino)?;
        t.model.frontend_mut(origin.frontend).leases -= 1;
        any = true;
    }
    if any {
        move_verifier(t);
    }
    Ok(Outcome::Done)
}
