//! The hashes of the outcomes' keys in rows of their own, so that a start need not read the outcomes: hundreds of bytes each, and
//! there may be millions.
//!
//! Key: the number of the first of [`OUTCOME_TAGS`] outcomes, a multiple of that; value: version 1, then four bytes for each. A row is written when
//! it is full, and goes with the last of its outcomes; hashes of outcomes that went before are left in it, and are zero if they went before it was
//! written. What no row has (the newest outcomes, and those of earlier releases) a start finds in the outcomes.

use super::hash;
use super::row::{self, Row};
use super::{Bound, OnceIndex};
use crate::keys::Parts;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::OUTCOME_TAGS;
use crate::store::{self, RAW, check_raw};
use atoll_meta::OnceKey;
use std::ops::{ControlFlow, Range};

const EACH: u64 = OUTCOME_TAGS as u64;

/// The row that is being filled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OpenTags(Vec<u32>);

impl OpenTags {
    /// Adds the hash of the outcome with this number, the next.
    pub(super) fn push(&mut self, kv: &mut impl KvWrite, number: u64, tag: u32) -> Result<(), KvError> {
        self.0.push(tag);
        let first = number - number % EACH;
        if number + 1 < first + EACH {
            return Ok(());
        }
        let mut value = Vec::with_capacity(1 + 4 * OUTCOME_TAGS);
        value.push(RAW);
        value.extend(self.0.drain(..).flat_map(u32::to_be_bytes));
        kv.put(Table::OutcomeTag, &first.to_be_bytes(), &value)
    }

    /// Forgets those of a row of outcomes, the oldest. `next` is the number of the one after it, or of the next outcome.
    pub(super) fn expire(
        &mut self,
        kv: &mut impl KvWrite,
        row: Range<u64>,
        next: u64,
    ) -> Result<(), KvError> {
        for group in row.start / EACH..row.end / EACH {
            kv.delete(Table::OutcomeTag, &(group * EACH).to_be_bytes())?;
        }
        let first = next - next % EACH;
        let gone = row.end.saturating_sub(first) as usize;
        self.0.iter_mut().take(gone).for_each(|tag| *tag = 0);
        Ok(())
    }

    /// Builds the index of the outcomes in `all`.
    pub(super) fn load(kv: &impl KvRead, index: &OnceIndex, all: Range<u64>) -> Result<Self, KvError> {
        let open = all.end - all.end % EACH;
        let mut tags = vec![0; (all.end - open) as usize];
        let mut at = all.start;
        let mut from_outcomes = |range: Range<u64>| {
            each_key(kv, range, |number, key| {
                let tag = index.tag(key);
                if number >= open {
                    tags[(number - open) as usize] = tag;
                }
                add(kv, index, tag, number)
            })
        };
        store::each_from(kv, Table::OutcomeTag, Bound::Unbounded, Bound::Unbounded, |key, value| {
            let (first, row) = parse(key, value)?;
            from_outcomes(at..first.min(all.end))?;
            for (number, tag) in (first..).zip(row) {
                if all.contains(&number) {
                    add(kv, index, tag, number)?;
                }
            }
            at = at.max(first.saturating_add(EACH));
            Ok(ControlFlow::Continue(()))
        })?;
        from_outcomes(at..all.end)?;
        Ok(Self(tags))
    }
}

/// The number of the first hash of a row, and the hashes.
pub(crate) fn parse(key: &[u8], value: &[u8]) -> Result<(u64, Vec<u32>), KvError> {
    let mut parts = Parts::new(Table::OutcomeTag, key);
    let first = parts.u64()?;
    parts.end()?;
    let mut parts = Parts::new(Table::OutcomeTag, value);
    check_raw(Table::OutcomeTag, parts.take()?)?;
    let (tags, rest) = parts.rest().as_chunks();
    if first % EACH != 0 || tags.len() != OUTCOME_TAGS || !rest.is_empty() {
        return Err(store::undecodable(Table::OutcomeTag, key, "of the wrong length"));
    }
    Ok((first, tags.iter().map(|tag| u32::from_be_bytes(*tag)).collect()))
}

/// The hash that is stored for a key.
pub(crate) fn tag(secret: [u8; 16], key: &OnceKey) -> u32 {
    hash::tag(secret, key)
}

/// Calls `f` for the outcomes in `range`, in order.
fn each_key(
    kv: &impl KvRead,
    range: Range<u64>,
    mut f: impl FnMut(u64, &OnceKey) -> Result<(), KvError>,
) -> Result<(), KvError> {
    if range.is_empty() {
        return Ok(());
    }
    let upto = range.start.to_be_bytes();
    let before = row::one(kv, (Bound::Unbounded, Bound::Included(&upto[..])), true, |first, _| Ok(first))?;
    let from = before.unwrap_or(range.start).to_be_bytes();
    let to = range.end.to_be_bytes();
    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    store::each_from(kv, Table::Outcome, bounds.0, bounds.1, |key, value| {
        for (number, stored) in (row::number(key)?..).zip(Row::parse(value)?) {
            let stored = stored?;
            if range.contains(&number) {
                f(number, &stored.key)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Adds an outcome to the index, in the place of a former one of the same key.
fn add(kv: &impl KvRead, index: &OnceIndex, tag: u32, number: u64) -> Result<(), KvError> {
    let alike = index.with_tag(tag);
    if !alike.is_empty() {
        let key = key_of(kv, number)?;
        for former in alike {
            if key.is_some() && key_of(kv, former)? == key {
                index.remove_tag(tag, former);
            }
        }
    }
    index.insert_tag(tag, number);
    Ok(())
}

fn key_of(kv: &impl KvRead, number: u64) -> Result<Option<OnceKey>, KvError> {
    let mut found = None;
    each_key(kv, number..number.saturating_add(1), |_, key| {
        found = Some(*key);
        Ok(())
    })?;
    Ok(found)
}
