//! Volumes, leases, outcomes, exports.

use super::Checker;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::once::row::{self, Row};
use crate::once::tags;
use crate::record::{FrontendRecord, Inode, Lease, VolumeRecord};
use crate::{codec, store};
use atoll_base::id::{ExportId, FrontendId, VolumeId};
use atoll_base::time::Timestamp;
use atoll_meta::ExportSpec;
use std::collections::{BTreeMap, BTreeSet};

impl<K: KvRead> Checker<'_, K> {
    pub(super) fn volume_counts(&mut self) -> Result<(), KvError> {
        let mut names = BTreeSet::new();
        let mut roots = BTreeSet::new();
        self.rows(Table::Volume, |c, key, value| {
            let Some(id) = c.noted(Parts::new(Table::Volume, key).u32().map(VolumeId)) else { return };
            let Some(record) = c.decode::<VolumeRecord>(Table::Volume, key, value) else { return };
            let (inodes, bytes) = c.volumes.remove(&id).unwrap_or_default();
            let mut say = |what: String| c.find(Some(id), String::new(), what);
            if (inodes, bytes) != (record.inodes, record.bytes) {
                let (i, b) = (record.inodes, record.bytes);
                say(format!("counts {i} inodes and {b} bytes but has {inodes} and {bytes}"));
            }
            if id.0 >= c.meta.next_volume {
                c.find(Some(id), String::new(), "its number was never given out".into());
            }
            if !names.insert(record.name.clone()) {
                c.find(Some(id), String::new(), format!("its name {} is taken twice", record.name));
            }
            let root = c.nodes.get(&record.root).map(|node| (node.parent, node.volume));
            if root != Some((Some(record.root), id)) {
                c.find(Some(id), "/".into(), "is not a root directory".into());
            }
            roots.insert(record.root);
        })?;
        for (id, _) in std::mem::take(&mut self.volumes) {
            self.find(Some(id), String::new(), "has inodes but does not exist".into());
        }
        let false_roots: Vec<_> = self
            .nodes
            .iter()
            .filter(|(ino, node)| node.parent == Some(**ino) && !roots.contains(ino))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in false_roots {
            self.about(ino, "says that it is a root, but is no volume's");
        }
        Ok(())
    }

    pub(super) fn leases(&mut self) -> Result<(), KvError> {
        let mut held: BTreeMap<FrontendId, u32> = BTreeMap::new();
        let mut epochs: BTreeMap<FrontendId, BTreeSet<u32>> = BTreeMap::new();
        self.rows(Table::Dirty, |c, key, value| {
            let mut parts = Parts::new(Table::Dirty, key);
            let place = parts.u32().and_then(|frontend| Ok((FrontendId(frontend), parts.ino()?)));
            let Some((frontend, ino)) = c.noted(place) else { return };
            let Some(lease) = c.decode::<Lease>(Table::Dirty, key, value) else { return };
            *held.entry(frontend).or_default() += 1;
            epochs.entry(frontend).or_default().insert(lease.epoch.0);
            let inode: Option<Inode> =
                c.kv.get(Table::Inode, &keys::ino(ino), |v| v.and_then(|v| codec::decode(v).ok()))
                    .ok()
                    .flatten();
            if inode.and_then(|i| i.file).and_then(|f| f.lease) != Some(frontend) {
                let what =
                    format!("frontend {} has a write lease on it that it does not know of", frontend.0);
                c.about(ino, what);
            }
        })?;
        self.rows(Table::Frontend, |c, key, value| {
            let Some(id) = c.noted(Parts::new(Table::Frontend, key).u32().map(FrontendId)) else { return };
            let Some(record) = c.decode::<FrontendRecord>(Table::Frontend, key, value) else { return };
            let leases = held.remove(&id).unwrap_or_default();
            if leases != record.leases {
                c.general(format!(
                    "frontend {} counts {} write leases but has {leases}",
                    id.0, record.leases
                ));
            }
            if record.epoch.0 >= c.meta.next_epoch {
                c.general(format!("frontend {} has an epoch that was never given out", id.0));
            }
            if epochs.get(&id).is_some_and(|e| e.iter().any(|e| *e != record.epoch.0)) {
                c.general(format!("frontend {} has write leases of a former life", id.0));
            }
        })?;
        for (id, _) in held {
            self.general(format!("frontend {} has write leases but never registered", id.0));
        }
        Ok(())
    }

    pub(super) fn outcomes(&mut self) -> Result<(), KvError> {
        let (mut known, mut tags, mut next) = (BTreeSet::new(), BTreeMap::new(), 0);
        self.rows(Table::OutcomeTag, |c, key, value| {
            let Some((first, row)) = c.noted(tags::parse(key, value)) else { return };
            if first.saturating_add(row.len() as u64) > c.meta.next_outcome {
                c.general(format!("hashes of outcomes from {first} on, which are still to come"));
            }
            tags.extend((first..).zip(row));
        })?;
        let mut latest = Timestamp { secs: i64::MIN, nanos: 0 };
        self.rows(Table::Outcome, |c, key, value| {
            let Some(first) = c.noted(row::number(key)) else { return };
            let Some(row) = c.noted(Row::parse(value)) else { return };
            if row.since < latest || row.last < row.since {
                c.general(format!("outcome {first} is older than one before it"));
            }
            latest = row.last;
            let mut count = 0;
            for stored in row {
                let Some(stored) = c.noted(stored) else { break };
                c.noted(stored.response());
                let tag = tags::tag(c.meta.cluster_id, &stored.key);
                if tags.get(&first.saturating_add(count)).is_some_and(|stored| *stored != tag) {
                    c.general(format!("outcome {} has the hash of another key", first.saturating_add(count)));
                }
                known.insert(stored.key);
                count += 1;
            }
            let after = first.saturating_add(count);
            if count == 0 || first < next || after > c.meta.next_outcome {
                c.general(format!("{count} outcomes from {first} on do not fit between their neighbours"));
            }
            next = after;
        })?;
        let count = known.len() as u64;
        if count != self.meta.outcomes {
            self.general(format!("{} outcomes are counted, {count} stored", self.meta.outcomes));
        }
        Ok(())
    }

    pub(super) fn exports(&mut self) -> Result<(), KvError> {
        let mut paths = BTreeSet::new();
        self.rows(Table::Export, |c, key, value| {
            let Some(id) = c.noted(Parts::new(Table::Export, key).u32().map(ExportId)) else { return };
            let Some(spec) = c.decode::<ExportSpec>(Table::Export, key, value) else { return };
            if id.0 >= c.meta.next_export {
                c.general(format!("export {} has a number that was never given out", id.0));
            }
            if !matches!(store::has(c.kv, Table::Volume, &keys::volume(spec.volume)), Ok(true)) {
                c.general(format!(
                    "export {} is of volume {}, which does not exist",
                    spec.path, spec.volume.0
                ));
            }
            if !paths.insert(spec.path.clone()) {
                c.general(format!("path {} is exported twice", spec.path));
            }
        })
    }
}
