//! Stored outcomes: what makes a retransmitted request get its first answer. Here is the frame for every kind of key, and the outcomes by
//! request; what slots of sessions and owners of NFSv4.0 keep is in [`slots`] and [`owners`].
//!
//! Those by request are numbered in the order of storing, and times in it never go back. A [`row`] holds several, so that storing one costs the
//! state no row of its own; which number a key has, an [`index`] in memory knows. Rows end by what they hold and never by when a batch
//! did, so all members have the same.
//!
//! A row goes as a whole, when its last outcome is expired or there are too many. Whoever begins a row removes some that may
//! go, so the table's size follows the rate of requests and needs no pass of its own; [`crate::ops::sweep`] empties it when
//! nothing comes. An outcome stored again under the same key takes the place of the former, which is then in its row but not in the
//! index.
//!
//! Not stored: refusals that say nothing about the request itself (`Delay`, `Delegated`, `Fenced`, `TableFull`). All others are, because a
//! delayed duplicate of a refused request must not be executed later either.

mod hash;
mod index;
pub(crate) mod owners;
pub(crate) mod row;
pub(crate) mod slots;
pub(crate) mod tags;

pub use self::index::OnceIndex;
use self::row::{OpenRow, Row};
use self::tags::OpenTags;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{EXPIRE_ROWS, OUTCOME_KEEP, OUTCOMES_MAX};
use crate::model::Model;
use atoll_base::time::Timestamp;
use atoll_meta::nfs4::StateError;
use atoll_meta::{FsError, Once, OnceKey, Op, Response, SlotKey};
use std::ops::Bound;
use std::sync::Arc;

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// How a call that is to be executed is stored afterwards.
pub(crate) enum Admitted<'a> {
    /// Not at all.
    Free,
    /// By the request.
    Request(&'a OnceKey),
    /// By a slot.
    Slot(&'a SlotKey),
    /// As a step of an owner.
    Owner(owners::Step),
}

/// Decides by its key whether a call is to be executed, or what to answer instead.
pub(crate) fn admit<'a>(
    kv: &impl KvRead,
    model: &Model,
    key: &'a Once,
    op: &Op,
) -> Result<Result<Admitted<'a>, Response>, KvError> {
    match key {
        Once::Request(key) => Ok(lookup(kv, model, key)?.map_or(Ok(Admitted::Request(key)), Err)),
        Once::Slot(key) => Ok(slots::admit(kv, key)?.map_or(Ok(Admitted::Slot(key)), Err)),
        Once::Owner(key) => Ok(owners::admit(kv, key, op)?.map(Admitted::Owner)),
    }
}

/// Stores what came of a call, by which clients or sessions may have `ended`.
pub(crate) fn settle(
    kv: &mut impl KvWrite,
    model: &mut Model,
    admitted: Admitted<'_>,
    response: &Response,
    ended: bool,
) -> Result<(), KvError> {
    match admitted {
        Admitted::Free => Ok(()),
        Admitted::Request(key) => store(kv, model, key, response),
        Admitted::Slot(key) => slots::settle(kv, key, response, ended),
        Admitted::Owner(step) => owners::settle(kv, model, step, response),
    }
}

/// What is kept of the outcomes in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) index: Arc<OnceIndex>,
    open: Option<OpenRow>,
    tags: OpenTags,
    /// Number of the first row, and when the last of its outcomes was stored.
    oldest: Option<(u64, Timestamp)>,
}

impl Outcomes {
    pub(crate) fn empty(secret: [u8; 16]) -> Self {
        Self { index: Arc::new(OnceIndex::new(secret)), open: None, tags: OpenTags::default(), oldest: None }
    }

    /// Reads it from the rows. `next` is the number of the next outcome.
    pub(crate) fn load(kv: &impl KvRead, secret: [u8; 16], next: u64) -> Result<Self, KvError> {
        let mut outcomes = Self::empty(secret);
        outcomes.oldest = oldest(kv)?;
        let first = outcomes.oldest.map_or(next, |(first, _)| first);
        outcomes.tags = OpenTags::load(kv, &outcomes.index, first..next)?;
        let last = row::one(kv, ALL, true, |first, value| {
            let count = Row::parse(value)?.count();
            Ok(OpenRow { first, count, value: value.to_vec(), is_new: false })
        })?;
        outcomes.open = last.filter(|row| !row.is_full());
        Ok(outcomes)
    }
}

/// The response with this number in the store, if it is the key's.
fn stored(kv: &impl KvRead, number: u64, key: &OnceKey) -> Result<Option<Response>, KvError> {
    let upto = number.to_be_bytes();
    let bounds = (Bound::Unbounded, Bound::Included(&upto[..]));
    let found = row::one(kv, bounds, true, |first, value| row::response_in(first, value, number, key))?;
    Ok(found.flatten())
}

/// The stored response of a request, if it was executed. `kv` gives a state that is not older than the call.
pub(crate) fn read<'k, K: KvRead + 'k>(
    index: &OnceIndex,
    key: &OnceKey,
    kv: impl FnOnce() -> &'k K,
) -> Result<Option<Response>, KvError> {
    let numbers = index.find(key);
    if numbers.is_empty() {
        return Ok(None);
    }
    let kv = kv();
    for number in numbers {
        if let Some(response) = stored(kv, number, key)? {
            return Ok(Some(response));
        }
    }
    Ok(None)
}

/// The stored response of a request and its number, if it was executed.
fn find(kv: &impl KvRead, outcomes: &Outcomes, key: &OnceKey) -> Result<Option<(u64, Response)>, KvError> {
    for number in outcomes.index.find(key) {
        let found = match &outcomes.open {
            Some(open) if open.first <= number => row::response_in(open.first, &open.value, number, key)?,
            _ => stored(kv, number, key)?,
        };
        if let Some(response) = found {
            return Ok(Some((number, response)));
        }
    }
    Ok(None)
}

/// The stored response of a request, if it was executed, as of the command that is being applied.
pub(crate) fn lookup(kv: &impl KvRead, model: &Model, key: &OnceKey) -> Result<Option<Response>, KvError> {
    Ok(find(kv, &model.outcomes, key)?.map(|(_, response)| response))
}

fn is_final(response: &Response) -> bool {
    let passing = FsError::State(StateError::Delegated);
    !matches!(response.result, Err(FsError::Delay | FsError::Fenced | FsError::TableFull))
        && response.result != Err(passing)
}

/// Stores an outcome, instead of what was under the key before, and makes room.
pub(crate) fn store(
    kv: &mut impl KvWrite,
    model: &mut Model,
    key: &OnceKey,
    response: &Response,
) -> Result<(), KvError> {
    if !is_final(response) {
        return Ok(());
    }
    if model.outcomes.open.is_none() {
        expire(kv, model, EXPIRE_ROWS)?;
    }
    if let Some((former, _)) = find(kv, &model.outcomes, key)? {
        model.outcomes.index.remove(key, former);
        model.meta.outcomes -= 1;
    }
    let (number, now) = (model.meta.next_outcome, model.meta.last_time);
    model.meta.next_outcome += 1;
    model.meta.outcomes += 1;
    let outcomes = &mut model.outcomes;
    let tag = outcomes.index.insert(key, number);
    outcomes.tags.push(kv, number, tag)?;
    let open = outcomes.open.get_or_insert_with(|| OpenRow::new(number, now));
    open.push(now, key, response);
    match &mut outcomes.oldest {
        Some((first, last)) if *first == open.first => *last = now,
        Some(_) => {}
        oldest @ None => *oldest = Some((open.first, now)),
    }
    if open.is_full() {
        write(kv, open)?;
        outcomes.open = None;
    }
    Ok(())
}

fn write(kv: &mut impl KvWrite, open: &mut OpenRow) -> Result<(), KvError> {
    if std::mem::take(&mut open.is_new) {
        kv.put(Table::Outcome, &open.first.to_be_bytes(), &open.value)?;
    }
    Ok(())
}

/// Writes what a batch has added.
pub(crate) fn end_batch(kv: &mut impl KvWrite, model: &mut Model) -> Result<(), KvError> {
    model.outcomes.open.as_mut().map_or(Ok(()), |open| write(kv, open))
}

/// Whether an outcome of this time may go.
fn is_expired(time: Timestamp, now: Timestamp) -> bool {
    now.since(time) > OUTCOME_KEEP.as_nanos() as i128
}

/// Whether there is something to expire.
pub(crate) fn has_expired(oldest: Option<(u64, Timestamp)>, now: Timestamp) -> bool {
    oldest.is_some_and(|(_, last)| is_expired(last, now))
}

/// The same, as of the command that is being applied.
pub(crate) fn has_work(model: &Model) -> bool {
    has_expired(model.outcomes.oldest, model.meta.last_time)
}

/// Removes up to `most` rows whose outcomes are expired or too many.
pub(crate) fn expire(kv: &mut impl KvWrite, model: &mut Model, most: usize) -> Result<(), KvError> {
    for _ in 0..most {
        let Some((first, last)) = model.outcomes.oldest else { return Ok(()) };
        if !is_expired(last, model.meta.last_time) && model.meta.outcomes < OUTCOMES_MAX {
            return Ok(());
        }
        let key = first.to_be_bytes();
        let open = model.outcomes.open.take_if(|open| open.first == first);
        let outcomes = &model.outcomes;
        let mut removed = 0;
        let mut forget = |value: &[u8]| -> Result<(), KvError> {
            for (number, stored) in (first..).zip(Row::parse(value)?) {
                removed += u64::from(outcomes.index.remove(&stored?.key, number));
            }
            Ok(())
        };
        match open {
            Some(open) => forget(&open.value)?,
            None => kv.get(Table::Outcome, &key, |value| value.map_or(Ok(()), forget))??,
        }
        model.meta.outcomes -= removed;
        kv.delete(Table::Outcome, &key)?;
        let next = row::one(kv, (Bound::Excluded(&key[..]), Bound::Unbounded), false, head)?;
        let open = model.outcomes.open.as_ref();
        model.outcomes.oldest = match open {
            // It may not be in the store yet, or not as it is.
            Some(open) if next.is_none_or(|(first, _)| first == open.first) => {
                Some(head(open.first, &open.value)?)
            }
            _ => next,
        };
        let next = model.meta.next_outcome;
        let end = model.outcomes.oldest.map_or(next, |(first, _)| first);
        model.outcomes.tags.expire(kv, first..end, next)?;
    }
    Ok(())
}

fn head(first: u64, value: &[u8]) -> Result<(u64, Timestamp), KvError> {
    Ok((first, Row::parse(value)?.last))
}

/// The first row in the store: its number and when its last outcome was stored.
pub(crate) fn oldest(kv: &impl KvRead) -> Result<Option<(u64, Timestamp)>, KvError> {
    row::one(kv, ALL, false, head)
}

/// When the oldest outcome was stored.
pub(crate) fn oldest_time(kv: &impl KvRead) -> Result<Option<Timestamp>, KvError> {
    row::one(kv, ALL, false, |_, value| Ok(Row::parse(value)?.since))
}
