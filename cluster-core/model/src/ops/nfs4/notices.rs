//! Changes of delegated directories that holders are told of instead of losing their delegation (RFC 8881 §10.9, §18.39, §20.4).
//!
//! A delegation with notifications has a row in `Watch`, while it is `Held`, and one in `Notice` for each change that its holder was not told of yet. They are written in the step
//! that changes the directory, whoever changes it, the holder included. While [`NOTICES_MAX`] are there, the delegation is in the way of others' changes as if its holder had not asked; a
//! change by the holder itself, which it is never in the way of, then has it recalled.

use super::delegations;
use crate::keys::{self, Parts, nfs4 as keys4};
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::NOTICES_MAX;
use crate::record::nfs4::Watch;
use crate::store;
use crate::transaction::{At, Step, Transaction};
use atoll_base::attr::Delegated;
use atoll_base::id::{Cookie, Ino};
use atoll_meta::delegation::{Intrusion, NewEntry, Notice, NoticeKinds, NoticedEntry};
use atoll_meta::nfs4::{StateId, StateOutcome};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

pub(crate) fn watch(kv: &impl KvRead, id: StateId) -> Result<Option<Watch>, KvError> {
    store::get(kv, Table::Watch, &keys4::state(id))
}

/// Changes that a delegation is not in the way of now.
pub(crate) fn covered(kv: &impl KvRead, id: StateId) -> Result<NoticeKinds, KvError> {
    let watch = watch(kv, id)?.filter(|watch| watch.next - watch.first < NOTICES_MAX);
    Ok(watch.map_or(NoticeKinds::NONE, |watch| watch.kinds))
}

/// From now on the holder is told.
pub(super) fn begin(kv: &mut impl KvWrite, id: StateId, kinds: NoticeKinds) -> Result<(), KvError> {
    if kinds == NoticeKinds::NONE {
        return Ok(());
    }
    store::put(kv, Table::Watch, &keys4::state(id), &Watch { kinds, first: 0, next: 0 })
}

/// How many changes the holder is still to be told of.
pub(super) fn waiting(kv: &impl KvRead, id: StateId) -> Result<u64, KvError> {
    Ok(watch(kv, id)?.map_or(0, |watch| watch.next - watch.first))
}

/// It is not any more, nor of what it was to be told.
pub(super) fn end(kv: &mut impl KvWrite, id: StateId) -> Result<(), KvError> {
    let Some(watch) = watch(kv, id)? else { return Ok(()) };
    for number in watch.first..watch.next {
        kv.delete(Table::Notice, &keys4::notice(id, number))?;
    }
    kv.delete(Table::Watch, &keys4::state(id))
}

/// The holder was told of what came up to a number.
pub(super) fn told<K: KvWrite>(t: &mut Transaction<'_, K>, id: StateId, upto: u64) -> Step<StateOutcome> {
    if let Some(mut watch) = watch(t.kv, id)?.filter(|watch| watch.first <= upto && upto < watch.next) {
        for number in watch.first..=upto {
            t.kv.delete(Table::Notice, &keys4::notice(id, number))?;
        }
        watch.first = upto + 1;
        store::put(t.kv, Table::Watch, &keys4::state(id), &watch)?;
    }
    Ok(StateOutcome::Released)
}

// ---- changes, which have happened

/// A new entry.
pub(crate) fn added<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: At,
    name: &Bytes,
    cookie: Cookie,
    replaces: bool,
) -> Step<()> {
    if is_watched(t, dir) {
        let new = new_entry(t.kv, t[dir].attr.ino, name, cookie, replaces)?;
        tell(t, dir, &Notice::Added(new))?;
    }
    Ok(())
}

/// An entry less.
pub(crate) fn removed<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: At,
    name: &Bytes,
    cookie: Cookie,
) -> Step<()> {
    tell(t, dir, &Notice::Removed(NoticedEntry { name: name.clone(), cookie }))
}

/// Another name within the directory.
pub(crate) fn renamed<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    dir: At,
    (name, cookie): (&Bytes, Cookie),
    (new_name, new_cookie): (&Bytes, Cookie),
    replaces: bool,
) -> Step<()> {
    if is_watched(t, dir) {
        let to = new_entry(t.kv, t[dir].attr.ino, new_name, new_cookie, replaces)?;
        let from = NoticedEntry { name: name.clone(), cookie };
        tell(t, dir, &Notice::Renamed { from, to })?;
    }
    Ok(())
}

fn is_watched<K: KvWrite>(t: &Transaction<'_, K>, dir: At) -> bool {
    t[dir].attr.delegated != Delegated::No
}

/// An entry among its neighbours.
fn new_entry(
    kv: &impl KvRead,
    dir: Ino,
    name: &Bytes,
    cookie: Cookie,
    replaces: bool,
) -> Result<NewEntry, KvError> {
    let at = keys::cookie(dir, cookie);
    let (first, last) = (keys::cookie(dir, Cookie(0)), keys::cookie(dir, Cookie(u64::MAX)));
    let mut previous = Ok(None);
    kv.scan_back(Table::DirCookie, Bound::Included(&first), Bound::Excluded(&at), |key, value| {
        previous = entry_of(key, value).map(Some);
        ControlFlow::Break(())
    })?;
    let mut is_last = true;
    kv.scan(Table::DirCookie, Bound::Excluded(&at), Bound::Included(&last), |_, _| {
        is_last = false;
        ControlFlow::Break(())
    })?;
    let entry = NoticedEntry { name: name.clone(), cookie };
    Ok(NewEntry { entry, replaces, previous: previous?, is_last })
}

fn entry_of(key: &[u8], value: &[u8]) -> Result<NoticedEntry, KvError> {
    let (_, name) = store::parse_dircookie(value)?;
    let mut parts = Parts::new(Table::DirCookie, key);
    let _dir = parts.ino()?;
    Ok(NoticedEntry { name: Bytes::copy_from_slice(name), cookie: Cookie(parts.u64()?) })
}

fn tell<K: KvWrite>(t: &mut Transaction<'_, K>, dir: At, notice: &Notice) -> Step<()> {
    if !is_watched(t, dir) {
        return Ok(());
    }
    for (id, record, delegation) in delegations::of_file(t.kv, t[dir].attr.ino)? {
        let Some(mut watch) = watch(t.kv, id)?.filter(|watch| watch.kinds.cover(notice.intrusion())) else {
            continue;
        };
        if watch.next - watch.first >= NOTICES_MAX {
            delegations::call_back(t, id, record, delegation)?;
            continue;
        }
        store::put(t.kv, Table::Notice, &keys4::notice(id, watch.next), notice)?;
        watch.next += 1;
        store::put(t.kv, Table::Watch, &keys4::state(id), &watch)?;
        t.touched.notices = true;
    }
    Ok(())
}

/// Whether holders of a delegation are told of such a change.
pub(super) fn cover(kv: &impl KvRead, id: StateId, intrusion: Intrusion) -> Result<bool, KvError> {
    Ok(match intrusion {
        Intrusion::Read | Intrusion::Change => false,
        Intrusion::Add | Intrusion::Remove | Intrusion::Rename => covered(kv, id)?.cover(intrusion),
    })
}
