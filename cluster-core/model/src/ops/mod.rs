//! The operations, one family per file.

pub(crate) mod create;
pub(crate) mod data;
pub(crate) mod locks;
pub(crate) mod names;
pub(crate) mod volume;

use crate::kv::KvWrite;
use crate::transaction::{Step, Transaction};
use atoll_meta::{FsError, Op, Outcome};

/// Runs one operation.
pub(crate) fn run<K: KvWrite>(t: &mut Transaction<'_, K>, op: &Op) -> Step<Outcome> {
    match op {
        Op::Create { dir, name, node, how, attrs } => create::create(t, *dir, name, node, *how, attrs),
        Op::CreateVolume { name } => volume::create(t, name),
        _ => Err(FsError::NotSupported.into()),
    }
}
