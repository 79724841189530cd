//! Background work in bounded steps: what a command left over because it was too much for one.

use super::{lock_clients, nfs4};
use crate::extent::{self, Head};
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvWrite, Table};
use crate::limits::{COLLECTED_MAX, SWEEP_OUTCOME_ROWS, SWEEP_ROWS};
use crate::record::Orphan;
use crate::transaction::{Step, Transaction, require};
use crate::{extents, once, store};
use atoll_base::block::BlockId;
use atoll_base::id::Ino;
use atoll_meta::{FsError, Outcome};
use std::ops::{Bound, ControlFlow};

/// Sweep.
pub(crate) fn sweep<K: KvWrite>(t: &mut Transaction<'_, K>) -> Step<Outcome> {
    once::expire(t.kv, t.model, SWEEP_OUTCOME_ROWS)?;
    let mut budget = SWEEP_ROWS;
    lock_clients::sweep(t, &mut budget)?;
    nfs4::release::sweep(t, &mut budget)?;
    while budget > 0
        && let Some((ino, orphan)) = first_orphan(t)?
    {
        match orphan {
            Orphan::Removed { volume } => {
                let (rows, complete) = rows(t, ino, 0, u64::MAX, &mut budget)?;
                extents::release_rows(t, ino, volume, &rows)?;
                if complete {
                    t.kv.delete(Table::Orphan, &keys::ino(ino))?;
                }
            }
            Orphan::Tail => sweep_tail(t, ino, &mut budget)?,
        }
    }
    let more = store::any(t.kv, Table::Orphan)?
        || store::any(t.kv, Table::LockRelease)?
        || store::any(t.kv, Table::ClientRelease)?
        || once::has_work(t.model);
    Ok(Outcome::More(more))
}

fn first_orphan<K: KvWrite>(t: &Transaction<'_, K>) -> Step<Option<(Ino, Orphan)>> {
    let mut found = None;
    store::each_from(t.kv, Table::Orphan, Bound::Unbounded, Bound::Unbounded, |key, value| {
        let ino = Parts::new(Table::Orphan, key).ino()?;
        found = Some((ino, store::parse(Table::Orphan, key, value)?));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Rows of a range as far as the budget goes, and whether these are all.
fn rows<K: KvWrite>(
    t: &Transaction<'_, K>,
    ino: Ino,
    start: u64,
    end: u64,
    budget: &mut usize,
) -> Result<(Vec<Head>, bool), KvError> {
    let mut rows = Vec::new();
    let mut complete = true;
    extent::each(t.kv, ino, start, end, |head| {
        if *budget == 0 {
            complete = false;
            return Ok(ControlFlow::Break(()));
        }
        *budget -= 1;
        rows.push(head);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((rows, complete))
}

/// Removes dead rows behind the first of the inode's cuts. The cut shrinks as it is worked off.
fn sweep_tail<K: KvWrite>(t: &mut Transaction<'_, K>, ino: Ino, budget: &mut usize) -> Step<()> {
    let at = t.follow(ino, "the list of orphans")?;
    let Some(cut) = t.file(at).cuts.first().copied() else {
        return Ok(t.kv.delete(Table::Orphan, &keys::ino(ino))?);
    };
    let (rows, complete) = rows(t, ino, cut.start, cut.end, budget)?;
    let dead: Vec<Head> =
        rows.iter().copied().filter(|row| !t.file(at).is_live(row.offset, row.birth)).collect();
    extents::drop_dead(t, at, &dead)?;
    match rows.last() {
        Some(last) if !complete => t.file_mut(at).cuts[0].start = last.offset + 1,
        _ if !complete => {}
        _ => {
            t.file_mut(at).cuts.remove(0);
        }
    }
    if t.file(at).cuts.is_empty() {
        t.kv.delete(Table::Orphan, &keys::ino(ino))?;
    }
    t.touch(ino);
    Ok(())
}

/// Collected.
pub(crate) fn collected<K: KvWrite>(t: &mut Transaction<'_, K>, ids: &[BlockId]) -> Step<Outcome> {
    require(ids.len() <= COLLECTED_MAX, FsError::Invalid)?;
    for id in ids {
        let key = keys::block(*id);
        if store::has(t.kv, Table::Garbage, &key)? {
            t.kv.delete(Table::Garbage, &key)?;
            t.model.meta.garbage -= 1;
        }
    }
    Ok(Outcome::Done)
}
