//! Copies that go on behind their COPY ([`atoll_meta::offload`]; RFC 7862 §4, §15.2, §15.8).
//!
//! An offload is a row of `Offload`, with one in `ClientOffload` and one in `FileOffload` for each of its two files, which stay while it is there. It has its number from
//! the same counter as the states, but is none: no other operation takes its stateid. A step moves extents and advances the row in the same command. The table is bounded,
//! by client and in all; what ended counts until its client has heard.

use super::{clients, states};
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{CLIENT_OFFLOADS_MAX, OFFLOADS_MAX};
use crate::ops::link;
use crate::ops::ranges::{self, Place};
use crate::record::nfs4::OffloadRecord;
use crate::store;
use crate::transaction::{Step, Transaction, require};
use atoll_base::id::{ExportId, Ino};
use atoll_meta::nfs4::{ClientId, StateError, StateId, Stateid};
use atoll_meta::offload::{CopyPlace, OffloadOp};
use atoll_meta::{FsError, Outcome};
use std::ops::{Bound, ControlFlow};

/// The version of each: never 0 (RFC 7862 §4.8), and it never changes.
pub(crate) const SEQID: u32 = 1;

/// An operation on offloads.
pub(crate) fn run<K: KvWrite>(t: &mut Transaction<'_, K>, op: &OffloadOp) -> Step<Outcome> {
    match op {
        OffloadOp::Copy { client, export, from, to, len, most } => {
            copy(t, (*client, *export), (*from, *to), *len, *most)
        }
        OffloadOp::Step { offload, most } => step(t, *offload, *most),
        OffloadOp::Fail { offload, error } => fail(t, *offload, *error),
        OffloadOp::Cancel { client, ino, offload } => cancel(t, *client, *ino, *offload),
        OffloadOp::Forget(offload) => forget(t, *offload),
    }
}

// ---- rows

/// An offload, if there is one.
pub(crate) fn load(kv: &impl KvRead, id: StateId) -> Result<Option<OffloadRecord>, KvError> {
    store::get(kv, Table::Offload, &keys::state(id))
}

fn put(kv: &mut impl KvWrite, id: StateId, record: &OffloadRecord) -> Result<(), KvError> {
    store::put(kv, Table::Offload, &keys::state(id), record)
}

/// Those of a client, in order.
fn of_client(kv: &impl KvRead, client: ClientId) -> Result<Vec<StateId>, KvError> {
    let mut found = Vec::new();
    store::each_prefixed(kv, Table::ClientOffload, &keys::client(client), |key, _| {
        found.push(StateId(keys::parse_pair(Table::ClientOffload, key)?.1));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Whether a client has any that has not ended: it would miss the rest of its copy.
pub(super) fn any_in_work(kv: &impl KvRead, client: ClientId) -> Result<bool, KvError> {
    for id in of_client(kv, client)? {
        if load(kv, id)?.is_some_and(|record| record.ended.is_none()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is room for one more. It is asked for seldom, and the table is short.
fn has_room(kv: &impl KvRead, client: ClientId) -> Result<bool, KvError> {
    let mut count = 0;
    kv.keys(Table::Offload, Bound::Unbounded, Bound::Unbounded, |_| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count < OFFLOADS_MAX && of_client(kv, client)?.len() < CLIENT_OFFLOADS_MAX)
}

/// Removes one, and its files if it was the last to hold them.
fn remove<K: KvWrite>(t: &mut Transaction<'_, K>, id: StateId, record: &OffloadRecord) -> Step<()> {
    t.kv.delete(Table::Offload, &keys::state(id))?;
    t.kv.delete(Table::ClientOffload, &keys::client_offload(record.client, id))?;
    let files = [record.from.ino, record.to.ino];
    for ino in files {
        t.kv.delete(Table::FileOffload, &keys::file_offload(ino, id))?;
    }
    files.into_iter().try_for_each(|ino| link::closed(t, ino))
}

/// Removes those of a client that ends.
pub(super) fn remove_all<K: KvWrite>(t: &mut Transaction<'_, K>, client: ClientId) -> Step<()> {
    for id in of_client(t.kv, client)? {
        let record =
            load(t.kv, id)?.ok_or_else(|| states::damaged("an offload is listed and is not there"))?;
        remove(t, id, &record)?;
    }
    Ok(())
}

// ---- operations

fn place(CopyPlace { ino, generation, offset }: CopyPlace) -> Place {
    Place { ino, generation, offset }
}

/// COPY.
fn copy<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    (client, export): (ClientId, ExportId),
    (from, to): (CopyPlace, CopyPlace),
    len: u64,
    most: u32,
) -> Step<Outcome> {
    clients::demand(t, client)?;
    require(from.ino != to.ino, FsError::Invalid)?;
    t.client = Some(client);
    let (len, count) = ranges::share(t, place(from), place(to), len, rows(most), true)?;
    let verifier = t.model.verifier();
    if count == len || !has_room(t.kv, client)? {
        return Ok(Outcome::Cloned { count, verifier });
    }
    let target = t.follow(to.ino, "a copy")?;
    let record = OffloadRecord {
        client,
        cred: t.cred.clone(),
        export,
        volume: t[target].attr.volume,
        from: CopyPlace { offset: from.offset + count, ..from },
        to: CopyPlace { offset: to.offset + count, ..to },
        left: len - count,
        count,
        verifier,
        since: t.now.secs,
        ended: None,
    };
    let id = StateId(t.model.meta.nfs4.last_state + 1);
    t.model.meta.nfs4.last_state = id.0;
    put(t.kv, id, &record)?;
    t.kv.put_new(Table::ClientOffload, &keys::client_offload(client, id), &[])?;
    for ino in [from.ino, to.ino] {
        t.kv.put(Table::FileOffload, &keys::file_offload(ino, id), &[])?;
    }
    t.touched.offloads = true;
    Ok(Outcome::Offloaded { stateid: Stateid { id, seqid: SEQID }, verifier })
}

/// Rows that a step may look at.
pub(crate) fn rows(most: u32) -> usize {
    usize::try_from(most).unwrap_or(usize::MAX).max(1)
}

/// One in work.
fn in_work<K: KvWrite>(
    t: &Transaction<'_, K>,
    offload: Stateid,
) -> Result<Option<(StateId, OffloadRecord)>, KvError> {
    Ok(load(t.kv, offload.id)?.filter(|record| record.ended.is_none()).map(|record| (offload.id, record)))
}

/// The next part.
fn step<K: KvWrite>(t: &mut Transaction<'_, K>, offload: Stateid, most: u32) -> Step<Outcome> {
    let Some((id, mut record)) = in_work(t, offload)? else { return Ok(Outcome::More(false)) };
    t.client = Some(record.client);
    let source = t.follow(record.from.ino, "an offload")?;
    let len = record.left.min(t[source].attr.size.saturating_sub(record.from.offset));
    if len > 0 {
        let (_, count) = ranges::share(t, place(record.from), place(record.to), len, rows(most), true)?;
        record.from.offset += count;
        record.to.offset += count;
        record.left -= count;
        record.count += count;
    }
    // A source that was cut off meanwhile has no more to give.
    if len == 0 || record.left == 0 {
        record.ended = Some(Ok(()));
    }
    put(t.kv, id, &record)?;
    Ok(Outcome::More(record.ended.is_none()))
}

/// It cannot go on.
fn fail<K: KvWrite>(t: &mut Transaction<'_, K>, offload: Stateid, error: FsError) -> Step<Outcome> {
    if let Some((id, mut record)) = in_work(t, offload)? {
        record.ended = Some(Err(error));
        put(t.kv, id, &record)?;
    }
    Ok(Outcome::Done)
}

/// OFFLOAD_CANCEL; also of one that has ended, which the client thereby gives back (§4.8). Of another user it is not seen (§4.1.2: it must not interfere
/// with a copy by another one).
fn cancel<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    client: ClientId,
    ino: Ino,
    offload: Stateid,
) -> Step<Outcome> {
    clients::demand(t, client)?;
    let found = load(t.kv, offload.id)?.filter(|record| {
        offload.seqid == SEQID
            && (record.client, record.to.ino) == (client, ino)
            && (record.cred.uid == t.cred.uid || t.cred.is_superuser())
    });
    let record = found.ok_or(FsError::State(StateError::BadStateid))?;
    remove(t, offload.id, &record)?;
    Ok(Outcome::Done)
}

/// The client has heard.
fn forget<K: KvWrite>(t: &mut Transaction<'_, K>, offload: Stateid) -> Step<Outcome> {
    if let Some(record) = load(t.kv, offload.id)?.filter(|record| record.ended.is_some()) {
        remove(t, offload.id, &record)?;
    }
    Ok(Outcome::Done)
}
