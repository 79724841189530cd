//! NFSv4: copies that go on behind their COPY.

use super::Checker;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, Table};
use crate::limits::{CLIENT_OFFLOADS_MAX, OFFLOADS_MAX};
use crate::record::nfs4::OffloadRecord;
use atoll_base::attr::FileKind;
use atoll_meta::nfs4::{ClientId, StateId};
use std::collections::BTreeMap;

impl<K: KvRead> Checker<'_, K> {
    /// Each is somebody's, of two files that are there, and in all indexes; these list nothing else.
    pub(super) fn offloads(&mut self) -> Result<(), KvError> {
        let mut by_client: BTreeMap<ClientId, usize> = BTreeMap::new();
        self.rows(Table::Offload, |c, key, value| {
            let Some(id) = c.noted(keys::parse_one(Table::Offload, key)).map(StateId) else { return };
            let Some(record) = c.decode::<OffloadRecord>(Table::Offload, key, value) else { return };
            let say = |c: &mut Self, what: &str| c.general(format!("offload {} {what}", id.0));
            *by_client.entry(record.client).or_default() += 1;
            if id.0 > c.meta.nfs4.last_state || c.state(id.0).is_some() {
                say(c, "has a number that is not its own");
            }
            // Those of a client go with it, in the same step.
            if !c.has(Table::Client4, &keys::client(record.client)) {
                say(c, "is of a client that does not exist");
            }
            for (place, other) in [(record.from, record.to), (record.to, record.from)] {
                let node = c.nodes.get(&place.ino).map(|node| (node.kind, node.volume));
                if node != Some((FileKind::Regular, record.volume)) || place.ino == other.ino {
                    say(c, "is of what cannot be copied");
                }
                if !c.has(Table::FileOffload, &keys::file_offload(place.ino, id)) {
                    say(c, "does not hold its files");
                }
            }
            if !c.has(Table::ClientOffload, &keys::client_offload(record.client, id)) {
                say(c, "is not in all indexes");
            }
            if record.ended.is_none() && record.left == 0 {
                say(c, "has nothing to do");
            }
        })?;
        if by_client.values().sum::<usize>() > OFFLOADS_MAX {
            self.general("there are too many offloads");
        }
        for (client, _) in by_client.iter().filter(|(_, count)| **count > CLIENT_OFFLOADS_MAX) {
            self.general(format!("client {:x} has too many offloads", client.0));
        }
        for table in [Table::FileOffload, Table::ClientOffload] {
            self.rows(table, |c, key, _| {
                let Some((first, id)) = c.pair(table, key) else { return };
                let record: Option<OffloadRecord> = c.peek(Table::Offload, &keys::state(StateId(id)));
                let fits = record.is_some_and(|record| match table {
                    Table::ClientOffload => record.client.0 == first,
                    _ => [record.from.ino.0, record.to.ino.0].contains(&first),
                });
                if !fits {
                    c.general(format!("table {} lists offload {id} in the wrong place", table.name()));
                }
            })?;
        }
        Ok(())
    }
}
