//! Slots of NFSv4.1 sessions (RFC 8881 §2.10.6): each keeps the outcome of its last request that changed something.
//!
//! Not stored: refusals that say nothing about the request itself (`Delay`, `Delegated`, `Fenced`, `TableFull`), and what ended the session.

use super::is_final;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::ops::nfs4::sessions;
use crate::store;
use atoll_meta::nfs4::StateError;
use atoll_meta::once::{SLOT_BEFORE_MAX, SlotOutcome};
use atoll_meta::{FsError, Response, SlotKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How far behind the slot's record a late duplicate may be: more requests than a slot sees while one is under way. All other
/// numbers are ahead; there is no bound to how far, for requests that change nothing leave no record.
const LATE: u32 = 1 << 20;

/// What a [`SlotOutcome`] begins with: of a slot's last outcome the rest is wanted only when it is asked for again.
#[derive(Deserialize)]
struct Head {
    seqid: u32,
    fingerprint: u64,
    index: u32,
}

/// A [`SlotOutcome`] that is stored.
#[derive(Serialize)]
struct Kept<'a> {
    seqid: u32,
    fingerprint: u64,
    index: u32,
    before: &'a Bytes,
    response: &'a Response,
}

/// What to answer to a call that is not to be executed.
pub(super) fn admit(kv: &impl KvRead, key: &SlotKey) -> Result<Option<Response>, KvError> {
    let refused = |error: FsError| Ok(Some(Response::refused(error)));
    if key.before.len() > SLOT_BEFORE_MAX {
        return refused(FsError::Invalid);
    }
    if sessions::slots(kv, key.session)?.is_none_or(|slots| key.slot >= slots) {
        return refused(StateError::BadSession.into());
    }
    let row = keys::slot(key.session, key.slot);
    let stored: Option<Head> = store::head(kv, Table::Slot, &row)?;
    let Some(stored) = stored else { return Ok(None) };
    let behind = stored.seqid.wrapping_sub(key.seqid);
    match behind {
        0 if key.fingerprint != stored.fingerprint => refused(StateError::FalseRetry.into()),
        0 if key.index > stored.index => Ok(None),
        0 if key.index == stored.index => {
            Ok(store::get(kv, Table::Slot, &row)?.map(|stored: SlotOutcome| stored.response))
        }
        // Executed elsewhere, and more of the request, too: the answer to this operation is in the later one's `before`.
        0 => refused(FsError::Conflict),
        1..=LATE => refused(StateError::Misordered.into()),
        _ => Ok(None),
    }
}

/// Stores an outcome in its slot. `ended` tells whether the call may have ended the session.
pub(super) fn settle(
    kv: &mut impl KvWrite,
    key: &SlotKey,
    response: &Response,
    ended: bool,
) -> Result<(), KvError> {
    if !is_final(response) || (ended && sessions::slots(kv, key.session)?.is_none()) {
        return Ok(());
    }
    let outcome = Kept {
        seqid: key.seqid,
        fingerprint: key.fingerprint,
        index: key.index,
        before: &key.before,
        response,
    };
    store::put(kv, Table::Slot, &keys::slot(key.session, key.slot), &outcome)
}
