//! Reads of volumes, exports, outcomes and counters.

use super::Read;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::model;
use crate::once::OnceIndex;
use crate::record::VolumeRecord;
use crate::{once, store};
use atoll_base::id::{ExportId, VolumeId};
use atoll_base::time::Timestamp;
use atoll_meta::export::{Export, Exports, Volume};
use atoll_meta::{FsError, OnceKey, Response};
use std::ops::{Bound, ControlFlow};

/// The stored response of a request, if it was executed before. `kv` is called after the look into the index and only if there is
/// something to be read; the state it gives must not be older than the call, or what the index says is not in it.
pub fn outcome<'k, K: KvRead + 'k>(
    index: &OnceIndex,
    key: &OnceKey,
    kv: impl FnOnce() -> &'k K,
) -> Result<Option<Response>, KvError> {
    once::read(index, key, kv)
}

fn shown(id: VolumeId, record: VolumeRecord) -> Volume {
    Volume { id, name: record.name, root: record.root, inodes: record.inodes, bytes: record.bytes }
}

/// A volume; `NotFound` if there is none.
pub fn volume(kv: &impl KvRead, id: VolumeId) -> Result<Read<Volume>, KvError> {
    let record = store::get(kv, Table::Volume, &keys::volume(id))?;
    Ok(record.map(|r| shown(id, r)).ok_or(FsError::NotFound))
}

/// All volumes, in order of id.
pub fn volumes(kv: &impl KvRead) -> Result<Vec<Volume>, KvError> {
    let mut found = Vec::new();
    store::each_from(kv, Table::Volume, Bound::Unbounded, Bound::Unbounded, |key, value| {
        let id = VolumeId(Parts::new(Table::Volume, key).u32()?);
        found.push(shown(id, store::parse(Table::Volume, key, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The exports in force.
pub fn exports(kv: &impl KvRead) -> Result<Exports, KvError> {
    let version = model::meta(kv)?.exports_version;
    let mut list = Vec::new();
    store::each_from(kv, Table::Export, Bound::Unbounded, Bound::Unbounded, |key, value| {
        let id = ExportId(Parts::new(Table::Export, key).u32()?);
        list.push(Export { id, spec: store::parse(Table::Export, key, value)? });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Exports { version, list })
}

/// The write verifier in force.
pub fn verifier(kv: &impl KvRead) -> Result<u64, KvError> {
    Ok(model::verifier(&model::meta(kv)?))
}

/// Time as the state machine counts it.
pub fn now(kv: &impl KvRead) -> Result<Timestamp, KvError> {
    Ok(model::meta(kv)?.last_time)
}

/// Whether a `Sweep` would find something to do.
pub fn has_work(kv: &impl KvRead) -> Result<bool, KvError> {
    for table in [Table::Orphan, Table::LockRelease, Table::ClientRelease] {
        if store::any(kv, table)? {
            return Ok(true);
        }
    }
    Ok(once::has_expired(once::oldest(kv)?, model::meta(kv)?.last_time))
}

/// Figures for `atoll status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Time as the state machine counts it.
    pub now: Timestamp,
    /// Transaction applied last.
    pub last_txn: u64,
    /// Inodes of all volumes.
    pub inodes: u64,
    /// Bytes of data of all volumes, as GETATTR's `used` adds them up.
    pub bytes: u64,
    /// Outcomes stored for replay.
    pub outcomes: u64,
    /// When the oldest of them was stored.
    pub oldest_outcome: Option<Timestamp>,
    /// Blocks waiting for the collector.
    pub garbage_blocks: u64,
    /// Write leases.
    pub leases: u64,
    /// Frontends that ever registered.
    pub frontends: u64,
    /// How often acknowledged UNSTABLE data were lost.
    pub losses: u32,
}

/// The figures.
pub fn counters(kv: &impl KvRead) -> Result<Counters, KvError> {
    let meta = model::meta(kv)?;
    let (mut leases, mut frontends) = (0, 0);
    store::each_from(kv, Table::Frontend, Bound::Unbounded, Bound::Unbounded, |key, value| {
        let record: crate::record::FrontendRecord = store::parse(Table::Frontend, key, value)?;
        leases += u64::from(record.leases);
        frontends += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    let volumes = volumes(kv)?;
    Ok(Counters {
        now: meta.last_time,
        last_txn: meta.last_txn,
        inodes: volumes.iter().map(|v| v.inodes).sum(),
        bytes: volumes.iter().map(|v| v.bytes).sum(),
        outcomes: meta.outcomes,
        oldest_outcome: once::oldest_time(kv)?,
        garbage_blocks: meta.garbage,
        leases,
        frontends,
        losses: meta.loss_epoch - 1,
    })
}
