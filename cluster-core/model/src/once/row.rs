//! Rows of the outcome table: some outcomes each, in the order in which they were stored.
//!
//! Key: the number of its first outcome; the others have the numbers after it. Value: version 1, the time of the first
//! and of the last (seconds 8, nanoseconds 4 each), then of each outcome its key (client 16, xid 4, fingerprint 8), the length of
//! its response 4, and the response.
//!
//! The last row is open until it is full: it is written anew with each batch that adds to it.

use crate::codec;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::limits::{OUTCOME_ROW, OUTCOME_ROW_BYTES};
use crate::store::{RAW, check_raw, undecodable};
use atoll_base::time::Timestamp;
use atoll_meta::{OnceKey, Response};
use std::ops::{Bound, ControlFlow};

const TIME: usize = 12;
/// Where the time of the last outcome stands.
const LAST: usize = 1 + TIME;

fn time_bytes(time: Timestamp) -> [u8; TIME] {
    let mut bytes = [0; TIME];
    bytes[..8].copy_from_slice(&time.secs.to_be_bytes());
    bytes[8..].copy_from_slice(&time.nanos.to_be_bytes());
    bytes
}

fn time(parts: &mut Parts<'_>) -> Result<Timestamp, KvError> {
    Ok(Timestamp { secs: i64::from_be_bytes(parts.take()?), nanos: parts.u32()? })
}

/// The open row, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenRow {
    /// Number of its first outcome.
    pub(super) first: u64,
    pub(super) count: usize,
    pub(super) value: Vec<u8>,
    /// Whether the store does not have it as it is.
    pub(super) is_new: bool,
}

impl OpenRow {
    pub(super) fn new(first: u64, now: Timestamp) -> Self {
        let mut value = vec![RAW];
        value.extend_from_slice(&time_bytes(now));
        value.extend_from_slice(&time_bytes(now));
        Self { first, count: 0, value, is_new: true }
    }

    pub(super) fn push(&mut self, now: Timestamp, key: &OnceKey, response: &Response) {
        self.value[LAST..LAST + TIME].copy_from_slice(&time_bytes(now));
        self.value.extend_from_slice(&keys::once(key));
        let len_at = self.value.len();
        self.value.extend_from_slice(&[0; 4]);
        codec::encode_into(response, &mut self.value);
        // A response holds a few attributes and names.
        let len = (self.value.len() - len_at - 4) as u32;
        self.value[len_at..len_at + 4].copy_from_slice(&len.to_be_bytes());
        self.count += 1;
        self.is_new = true;
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= OUTCOME_ROW || self.value.len() >= OUTCOME_ROW_BYTES
    }
}

/// A stored outcome, its response not decoded.
pub(crate) struct Stored<'v> {
    pub(crate) key: OnceKey,
    response: &'v [u8],
}

impl Stored<'_> {
    pub(crate) fn response(&self) -> Result<Response, KvError> {
        codec::decode(self.response).map_err(|e| undecodable(Table::Outcome, &keys::once(&self.key), e))
    }
}

/// A row being read: its outcomes in order.
pub(crate) struct Row<'v> {
    /// When its first outcome was stored.
    pub(crate) since: Timestamp,
    /// When its last outcome was stored.
    pub(crate) last: Timestamp,
    rest: &'v [u8],
}

impl<'v> Row<'v> {
    pub(crate) fn parse(value: &'v [u8]) -> Result<Self, KvError> {
        let mut parts = Parts::new(Table::Outcome, value);
        check_raw(Table::Outcome, parts.take()?)?;
        Ok(Self { since: time(&mut parts)?, last: time(&mut parts)?, rest: parts.rest() })
    }
}

impl<'v> Iterator for Row<'v> {
    type Item = Result<Stored<'v>, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut parts = Parts::new(Table::Outcome, std::mem::take(&mut self.rest));
        let mut step = || {
            let key = OnceKey { client: parts.take()?, xid: parts.u32()?, fingerprint: parts.u64()? };
            let len = parts.u32()? as usize;
            Ok(Stored { key, response: parts.bytes(len)? })
        };
        let stored = step();
        if stored.is_ok() {
            self.rest = parts.rest();
        }
        Some(stored)
    }
}

pub(crate) fn number(key: &[u8]) -> Result<u64, KvError> {
    let mut parts = Parts::new(Table::Outcome, key);
    let number = parts.u64()?;
    parts.end().map(|()| number)
}

/// Calls `f` with the first row from `from` on, or the last up to `to` if `back`, and its number.
pub(super) fn one<R>(
    kv: &impl KvRead,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    back: bool,
    f: impl FnOnce(u64, &[u8]) -> Result<R, KvError>,
) -> Result<Option<R>, KvError> {
    let (mut f, mut found) = (Some(f), None);
    kv.walk(Table::Outcome, bounds, back, |key, value| {
        found = f.take().map(|f| f(number(key)?, value));
        ControlFlow::Break(())
    })?;
    found.transpose()
}

/// The response of the outcome with this number, if it is stored here and the key's.
pub(super) fn response_in(
    first: u64,
    value: &[u8],
    number: u64,
    key: &OnceKey,
) -> Result<Option<Response>, KvError> {
    let Some(skip) = number.checked_sub(first).and_then(|n| usize::try_from(n).ok()) else { return Ok(None) };
    match Row::parse(value)?.nth(skip).transpose()? {
        Some(stored) if stored.key == *key => stored.response().map(Some),
        _ => Ok(None),
    }
}
