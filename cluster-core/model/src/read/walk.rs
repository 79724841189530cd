//! Walks over whole tables in bounded steps, for administrators' listings and for the names of files: each step looks at so many rows
//! and says where the next goes on, so that whoever reads lets others in between.

use super::nfs4::shown_state;
use crate::keys::{self, Parts, nfs4 as keys4};
use crate::kv::{KvError, KvRead, Table};
use crate::record::nfs4::StateRecord;
use crate::store;
use atoll_base::id::Ino;
use atoll_lockd::{FileLocks, LockClient, NlmClient};
use atoll_meta::nfs4::{State, StateId};
use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

/// One step of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked<T, C> {
    /// What was found.
    pub found: Vec<T>,
    /// After what the next step goes on; `None` at the end.
    pub next: Option<C>,
}

/// States of all clients above an id, in order of id, which is that of their making: those among the next `most` rows. Of clients
/// that ended, none.
pub fn all_states(kv: &impl KvRead, after: StateId, most: usize) -> Result<Walked<State, StateId>, KvError> {
    let (mut rows, mut next) = (Vec::new(), None);
    let from = keys4::state(after);
    store::each_from(kv, Table::State, Bound::Excluded(&from), Bound::Unbounded, |key, value| {
        if rows.len() >= most {
            next = rows.last().map(|(id, _)| *id);
            return Ok(ControlFlow::Break(()));
        }
        let record: StateRecord = store::parse(Table::State, key, value)?;
        rows.push((StateId(keys4::parse_one(Table::State, key)?), record));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut found = Vec::with_capacity(rows.len());
    for (id, record) in rows {
        found.extend(shown_state(kv, id, record)?);
    }
    Ok(Walked { found, next })
}

/// Lock tables of the files above an inode: those of the next `most` files that have one, in order.
pub fn lock_tables(
    kv: &impl KvRead,
    after: Ino,
    most: usize,
) -> Result<Walked<(Ino, FileLocks), Ino>, KvError> {
    let mut found: Vec<(Ino, FileLocks)> = Vec::new();
    let mut next = None;
    let from = keys::ino(after);
    store::each_from(kv, Table::Lock, Bound::Excluded(&from), Bound::Unbounded, |key, value| {
        if found.len() >= most {
            next = found.last().map(|(ino, _)| *ino);
            return Ok(ControlFlow::Break(()));
        }
        let ino = Parts::new(Table::Lock, key).ino()?;
        found.push((ino, store::parse(Table::Lock, key, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Walked { found, next })
}

/// A file in which a lock client of NLM has something.
pub type NlmFile = (NlmClient, Ino);

/// Which files each lock client of NLM has something in, in order of clients: the next `most` pairs.
pub fn nlm_files(
    kv: &impl KvRead,
    after: Option<&NlmFile>,
    most: usize,
) -> Result<Walked<NlmFile, NlmFile>, KvError> {
    let mut found: Vec<NlmFile> = Vec::new();
    let mut next = None;
    let from =
        after.map(|(client, ino)| keys::then_ino(keys::client(&LockClient::Nlm(client.clone())), *ino));
    let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    store::each_from(kv, Table::LockClient, from, Bound::Unbounded, |key, _| {
        let mut parts = Parts::new(Table::LockClient, key);
        // Those of NLM, by client, come first; then those of NFSv4, and those of NLM by address.
        let (LockClient::Nlm(client), false) = parts.client()? else { return Ok(ControlFlow::Break(())) };
        if found.len() >= most {
            next = found.last().cloned();
            return Ok(ControlFlow::Break(()));
        }
        found.push((client, parts.ino()?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Walked { found, next })
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Directory.
    pub dir: Ino,
    /// Name.
    pub name: Vec<u8>,
}

/// Entries that lead to any of `wanted`, of one directory or of all, after an entry: those among the next `most` entries.
pub fn names(
    kv: &impl KvRead,
    within: Option<Ino>,
    after: Option<&Entry>,
    wanted: &BTreeSet<Ino>,
    most: usize,
) -> Result<Walked<(Ino, Entry), Entry>, KvError> {
    let from = match (after, within) {
        (Some(entry), _) => Some(keys::named(entry.dir, &entry.name)),
        (None, Some(dir)) => Some(keys::named(dir, &[])),
        (None, None) => None,
    };
    let end = within.map(|dir| keys::named(Ino(dir.0.saturating_add(1)), &[]));
    let (mut found, mut next) = (Vec::new(), None);
    let (mut looked, mut last) = (0, None);
    store::each_from(
        kv,
        Table::Dirent,
        from.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        |key, value| {
            if looked >= most {
                next = last.take();
                return Ok(ControlFlow::Break(()));
            }
            looked += 1;
            let (ino, _) = store::parse_dirent(value)?;
            let is_wanted = wanted.contains(&ino);
            if is_wanted || looked == most {
                let mut parts = Parts::new(Table::Dirent, key);
                let entry = Entry { dir: parts.ino()?, name: parts.rest().to_vec() };
                if is_wanted {
                    found.push((ino, entry.clone()));
                }
                last = Some(entry);
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(Walked { found, next })
}
