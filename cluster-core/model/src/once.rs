//! Stored outcomes: what makes a retransmitted request get its first answer. Here is the frame for every kind of key, and the table of those
//! by request; what slots of sessions and owners of NFSv4.0 keep is in [`slots`] and [`owners`].
//!
//! By request: each outcome has a row by key and a row by age (a counter, so the order is that of storing; times in it never
//! go back). Whoever stores one removes a few that are expired, so the table's size follows the rate of requests and
//! needs no pass of its own; [`crate::ops::sweep`] empties it when nothing comes.
//!
//! Not stored: refusals that say nothing about the request itself (`Delay`, `Fenced`, `TableFull`). All others are, because a
//! delayed duplicate of a refused request must not be executed later either.

pub(crate) mod owners;
pub(crate) mod slots;

use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::limits::{EXPIRE_STEP, OUTCOME_KEEP, OUTCOMES_MAX};
use crate::model::Model;
use crate::record::{OutcomeAge, StoredOutcome};
use crate::store;
use atoll_base::time::Timestamp;
use atoll_meta::{FsError, Once, OnceKey, Op, Response, SlotKey};
use std::ops::{Bound, ControlFlow};

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
    key: &'a Once,
    op: &Op,
) -> Result<Result<Admitted<'a>, Response>, KvError> {
    match key {
        Once::Request(key) => Ok(lookup(kv, key)?.map_or(Ok(Admitted::Request(key)), Err)),
        Once::Slot(key) => Ok(slots::admit(kv, key)?.map_or(Ok(Admitted::Slot(key)), Err)),
        Once::Owner(key) => Ok(owners::admit(kv, key, op)?.map(Admitted::Owner)),
    }
}

/// Stores what came of a call.
pub(crate) fn settle(
    kv: &mut impl KvWrite,
    model: &mut Model,
    admitted: Admitted<'_>,
    response: &Response,
) -> Result<(), KvError> {
    match admitted {
        Admitted::Free => Ok(()),
        Admitted::Request(key) => store(kv, model, key, response),
        Admitted::Slot(key) => slots::settle(kv, key, response),
        Admitted::Owner(step) => owners::settle(kv, model, step, response),
    }
}

/// The stored response of a request, if it was executed.
pub(crate) fn lookup(kv: &impl KvRead, key: &OnceKey) -> Result<Option<Response>, KvError> {
    let stored: Option<StoredOutcome> = store::get(kv, Table::Outcome, &keys::once(key))?;
    Ok(stored.map(|s| s.response))
}

fn is_final(response: &Response) -> bool {
    !matches!(response.result, Err(FsError::Delay | FsError::Fenced | FsError::TableFull))
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
    expire(kv, model, EXPIRE_STEP)?;
    let row = keys::once(key);
    if let Some(former) = store::get::<StoredOutcome>(kv, Table::Outcome, &row)? {
        kv.delete(Table::OutcomeAge, &former.number.to_be_bytes())?;
        model.meta.outcomes -= 1;
        if model.oldest_outcome.is_some_and(|(number, _)| number == former.number) {
            model.oldest_outcome = oldest(kv)?;
        }
    }
    let number = model.meta.next_outcome;
    model.meta.next_outcome += 1;
    model.meta.outcomes += 1;
    let age = OutcomeAge { time: model.meta.last_time, key: *key };
    store::put(kv, Table::Outcome, &row, &StoredOutcome { number, response: response.clone() })?;
    store::put(kv, Table::OutcomeAge, &number.to_be_bytes(), &age)?;
    if model.oldest_outcome.is_none() {
        model.oldest_outcome = Some((number, age));
    }
    Ok(())
}

/// Whether an outcome of this time may go.
fn is_expired(time: Timestamp, now: Timestamp) -> bool {
    now.since(time) > OUTCOME_KEEP.as_nanos() as i128
}

/// Whether there is something to expire.
pub(crate) fn has_expired(model_oldest: Option<(u64, OutcomeAge)>, now: Timestamp) -> bool {
    model_oldest.is_some_and(|(_, age)| is_expired(age.time, now))
}

/// Removes up to `most` outcomes that are expired or too many.
pub(crate) fn expire(kv: &mut impl KvWrite, model: &mut Model, most: usize) -> Result<(), KvError> {
    for _ in 0..most {
        let Some((number, age)) = model.oldest_outcome else { return Ok(()) };
        if !is_expired(age.time, model.meta.last_time) && model.meta.outcomes < OUTCOMES_MAX {
            return Ok(());
        }
        kv.delete(Table::Outcome, &keys::once(&age.key))?;
        kv.delete(Table::OutcomeAge, &number.to_be_bytes())?;
        model.meta.outcomes -= 1;
        model.oldest_outcome = after(kv, number)?;
    }
    Ok(())
}

/// The oldest stored outcome.
pub(crate) fn oldest(kv: &impl KvRead) -> Result<Option<(u64, OutcomeAge)>, KvError> {
    first(kv, Bound::Unbounded)
}

fn after(kv: &impl KvRead, number: u64) -> Result<Option<(u64, OutcomeAge)>, KvError> {
    first(kv, Bound::Excluded(&number.to_be_bytes()))
}

fn first(kv: &impl KvRead, from: Bound<&[u8]>) -> Result<Option<(u64, OutcomeAge)>, KvError> {
    let mut found = None;
    store::each_from(kv, Table::OutcomeAge, from, Bound::Unbounded, |key, value| {
        let number = Parts::new(Table::OutcomeAge, key).u64()?;
        found = Some((number, store::parse(Table::OutcomeAge, key, value)?));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}
