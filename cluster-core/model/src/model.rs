//! The state machine: what it keeps in memory, and the frame around each operation.
//!
//! [`Model`] holds only what it can read back from the store: the singletons, the volumes' counters, the frontends. They change
//! with nearly every command and are written once per batch, by [`Model::end_batch`], which must come before the store's
//! transaction is committed or read by others. So is the row of outcomes that is being filled; where outcomes are
//! ([`OnceIndex`]) is never written.

use crate::command::Command;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, KvWrite, Table};
use crate::once::{self, Admitted, OnceIndex, Outcomes};
use crate::record::nfs4::Meta4;
use crate::record::{FrontendRecord, Meta, VolumeRecord};
use crate::transaction::{Stop, Touched, Transaction};
use crate::{ops, store};
use atoll_base::id::{Epoch, FrontendId, GroupId, Ino, ROOT_VOLUME, VolumeId};
use atoll_base::time::Timestamp;
use atoll_meta::{FsError, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// The one Raft group there is so far.
pub(crate) const GROUP: GroupId = GroupId(0);

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the caller.
    pub response: Response,
    /// For the caches above the state.
    pub touched: Touched,
}

/// The part of the state that is kept in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    pub(crate) meta: Meta,
    volumes: BTreeMap<VolumeId, VolumeRecord>,
    frontends: BTreeMap<FrontendId, FrontendRecord>,
    changed_volumes: BTreeSet<VolumeId>,
    changed_frontends: BTreeSet<FrontendId>,
    pub(crate) outcomes: Outcomes,
}

impl Model {
    /// Whether the store has been bootstrapped.
    pub fn is_bootstrapped(kv: &impl KvRead) -> Result<bool, KvError> {
        store::has(kv, Table::Meta, keys::STATE)
    }

    /// Writes the first state into an empty store: volume 1, `root`, with its root directory (mode 0755, of uid and gid 0).
    pub fn bootstrap(kv: &mut impl KvWrite, cluster_id: [u8; 16], stamp: Timestamp) -> Result<(), KvError> {
        if Self::is_bootstrapped(kv)? {
            return Err(KvError::Failed("bootstrap of a store that holds a state".into()));
        }
        let meta = Meta {
            cluster_id,
            last_time: stamp,
            last_txn: 0,
            next_ino: 1,
            next_volume: ROOT_VOLUME.0,
            next_export: 1,
            exports_version: 0,
            next_epoch: 1,
            loss_epoch: 1,
            next_outcome: 1,
            outcomes: 0,
            nsm_clients: 0,
            garbage: 0,
            nfs4: Meta4::default(),
        };
        let mut model = Self::empty(meta);
        ops::volume::make(kv, &mut model, "root".into(), 0, stamp)?;
        model.end_batch(kv)
    }

    fn empty(meta: Meta) -> Self {
        Self {
            outcomes: Outcomes::empty(meta.cluster_id),
            meta,
            volumes: BTreeMap::new(),
            frontends: BTreeMap::new(),
            changed_volumes: BTreeSet::new(),
            changed_frontends: BTreeSet::new(),
        }
    }

    /// Reads it from a bootstrapped store.
    pub fn load(kv: &impl KvRead) -> Result<Self, KvError> {
        let mut model = Self::empty(meta(kv)?);
        let all = (Bound::Unbounded, Bound::Unbounded);
        store::each_from(kv, Table::Volume, all.0, all.1, |key, value| {
            let id = VolumeId(Parts::new(Table::Volume, key).u32()?);
            model.volumes.insert(id, store::parse(Table::Volume, key, value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        store::each_from(kv, Table::Frontend, all.0, all.1, |key, value| {
            let id = FrontendId(Parts::new(Table::Frontend, key).u32()?);
            model.frontends.insert(id, store::parse(Table::Frontend, key, value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        model.outcomes = Outcomes::load(kv, model.meta.cluster_id, model.meta.next_outcome)?;
        Ok(model)
    }

    /// Applies one command. `txn` must be greater than that of any command before: it becomes the birth of what the
    /// command makes. An error means that the store failed or is damaged; the batch must then not be committed.
    ///
    /// # Panics
    /// If `txn` is not greater than the last one.
    pub fn apply<K: KvWrite>(&mut self, kv: &mut K, txn: u64, command: &Command) -> Result<Applied, KvError> {
        assert!(txn > self.meta.last_txn, "transaction {txn} after {}", self.meta.last_txn);
        self.meta.last_txn = txn;
        let now = self.meta.last_time.max(command.stamp);
        self.meta.last_time = now;
        let call = &command.call;
        if let Some(origin) = call.origin
            && self.frontends.get(&origin.frontend).map(|f| f.epoch) != Some(origin.epoch)
        {
            return Ok(Applied { response: Response::refused(FsError::Fenced), touched: Touched::default() });
        }
        let admitted = match &call.once {
            None => Admitted::Free,
            Some(key) => match once::admit(kv, self, key, &call.op)? {
                Ok(admitted) => admitted,
                Err(response) => return Ok(Applied { response, touched: Touched::default() }),
            },
        };
        let mut transaction = Transaction::new(kv, self, txn, now, &call.cred, call.origin, call.client);
        if let Admitted::Owner(step) = &admitted {
            step.begin(&mut transaction)?;
            transaction.settle()?;
        }
        let (result, refused) = match ops::run(&mut transaction, &call.op) {
            Ok(outcome) => {
                transaction.finish()?;
                (Ok(outcome), false)
            }
            Err(Stop::Refused(e)) => (Err(e), true),
            Err(Stop::Store(e)) => return Err(e),
        };
        let changes = transaction.changes(refused);
        let touched = std::mem::take(&mut transaction.touched);
        let response = Response { result, changes };
        once::settle(kv, self, admitted, &response, touched.ended)?;
        Ok(Applied { response, touched })
    }

    /// Writes what is kept in memory. To be called after the last command of a batch, before the store's commit.
    pub fn end_batch(&mut self, kv: &mut impl KvWrite) -> Result<(), KvError> {
        store::put(kv, Table::Meta, keys::STATE, &self.meta)?;
        once::end_batch(kv, self)?;
        for id in std::mem::take(&mut self.changed_volumes) {
            store::put(kv, Table::Volume, &keys::volume(id), &self.volumes[&id])?;
        }
        for id in std::mem::take(&mut self.changed_frontends) {
            store::put(kv, Table::Frontend, &keys::frontend(id), &self.frontends[&id])?;
        }
        Ok(())
    }

    /// Where stored outcomes are; shared with those who read states that this one is published as.
    pub fn once_index(&self) -> &Arc<OnceIndex> {
        &self.outcomes.index
    }

    /// Time as counted here: never behind any time that a command was given.
    pub fn now(&self) -> Timestamp {
        self.meta.last_time
    }

    /// The write verifier in force.
    pub fn verifier(&self) -> u64 {
        verifier(&self.meta)
    }

    /// Number of the transaction applied last.
    pub fn last_txn(&self) -> u64 {
        self.meta.last_txn
    }

    /// A new inode number and generation.
    pub(crate) fn new_ino(&mut self, txn: u64) -> (Ino, u32) {
        let ino = Ino::new(GROUP, self.meta.next_ino);
        self.meta.next_ino += 1;
        // Any number but zero will do, for inode numbers are not reused; that it is not small or regular keeps a made-up
        // handle from fitting. (The multiplier is 2^64 over the golden ratio.)
        let mixed = (txn ^ ino.0.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (ino, ((mixed >> 32) as u32).max(1))
    }

    pub(crate) fn volumes(&self) -> &BTreeMap<VolumeId, VolumeRecord> {
        &self.volumes
    }

    pub(crate) fn add_volume(&mut self, id: VolumeId, record: VolumeRecord) {
        self.volumes.insert(id, record);
        self.changed_volumes.insert(id);
    }

    pub(crate) fn volume_mut(&mut self, id: VolumeId) -> &mut VolumeRecord {
        self.changed_volumes.insert(id);
        self.volumes.get_mut(&id).unwrap_or_else(|| panic!("volume {} does not exist", id.0))
    }

    pub(crate) fn frontends(&self) -> &BTreeMap<FrontendId, FrontendRecord> {
        &self.frontends
    }

    pub(crate) fn frontend_mut(&mut self, id: FrontendId) -> &mut FrontendRecord {
        self.changed_frontends.insert(id);
        self.frontends.entry(id).or_insert(FrontendRecord { epoch: Epoch(0), leases: 0 })
    }

    pub(crate) fn epoch_of(&self, id: FrontendId) -> Epoch {
        self.frontends.get(&id).unwrap_or_else(|| panic!("frontend {} never registered", id.0)).epoch
    }
}

/// The singletons as stored.
pub(crate) fn meta(kv: &impl KvRead) -> Result<Meta, KvError> {
    store::get(kv, Table::Meta, keys::STATE)?
        .ok_or_else(|| KvError::Failed("the store holds no state: it was never bootstrapped".into()))
}

/// The write verifier: of this cluster in the upper half, of this loss epoch in the lower.
pub(crate) fn verifier(meta: &Meta) -> u64 {
    u64::from(mark(meta)) << 32 | u64::from(meta.loss_epoch)
}

/// A mark of the cluster: FNV-1a (32 bits) of its id, only to make numbers of two clusters differ.
pub(crate) fn mark(meta: &Meta) -> u32 {
    meta.cluster_id.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}
