//! Lock tables and their indexes.

use super::Checker;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::ops::lock_clients::{self, parse_life};
use crate::ops::locks::clients_of;
use crate::record::ClientLife;
use crate::{codec, store};
use atoll_base::attr::FileKind;
use atoll_base::id::Ino;
use atoll_lockd::{ClientMatch, FileLocks, LockClient};

impl<K: KvRead> Checker<'_, K> {
    pub(super) fn lock_tables(&mut self) -> Result<(), KvError> {
        self.rows(Table::Lock, |c, key, value| {
            let Some(ino) = c.ino_key(Table::Lock, key) else { return };
            let Some(locks) = c.decode::<FileLocks>(Table::Lock, key, value) else { return };
            if c.nodes.get(&ino).is_none_or(|node| node.kind != FileKind::Regular) {
                c.general(format!("inode {ino} has locks but is no regular file"));
            }
            if locks.is_empty() {
                c.about(ino, "has a lock table with nothing in it");
            }
            if let Err(why) = locks.verify() {
                c.about(ino, format!("its lock table is damaged: {why}"));
            }
            let pending = store::has(c.kv, Table::PendingGrant, key);
            if !matches!(pending, Ok(has) if has == locks.has_pending_grants()) {
                c.about(ino, "its lock table and the list of pending grants disagree");
            }
            c.lock_table_of_v4(ino, &locks);
            for client in clients_of(&locks).into_iter().filter(|client| lock_clients::is_listed(client)) {
                let row = keys::then_ino(keys::client(client), ino);
                let by_address = keys::client_by_address(client).map(|key| keys::then_ino(key, ino));
                let has = |key: &[u8]| matches!(store::has(c.kv, Table::LockClient, key), Ok(true));
                if !has(&row) || by_address.is_some_and(|key| !has(&key)) {
                    c.about(ino, format!("lock client {client:?} is not in the index"));
                }
            }
        })?;
        self.rows(Table::PendingGrant, |c, key, _| {
            let Some(ino) = c.ino_key(Table::PendingGrant, key) else { return };
            if !matches!(store::has(c.kv, Table::Lock, key), Ok(true)) {
                c.about(ino, "is listed with pending grants but has no locks");
            }
        })
    }

    fn indexed(&mut self, key: &[u8]) -> Option<(LockClient, bool, Ino)> {
        let mut parts = Parts::new(Table::LockClient, key);
        let row = parts.client().and_then(|(client, by_address)| Ok((client, by_address, parts.ino()?)));
        self.noted(row)
    }

    pub(super) fn lock_clients(&mut self) -> Result<(), KvError> {
        self.rows(Table::LockClient, |c, key, value| {
            let Some((client, by_address, ino)) = c.indexed(key) else { return };
            // Versions before listed clients of NFSv4, too. Nobody reads that.
            if !lock_clients::is_listed(&client) {
                return;
            }
            let locks: Option<FileLocks> =
                c.kv.get(Table::Lock, &keys::ino(ino), |v| v.and_then(|v| codec::decode(v).ok()))
                    .ok()
                    .flatten();
            if !locks.is_some_and(|locks| locks.concerns(&ClientMatch::Client(client.clone()))) {
                c.about(ino, format!("the index lists lock client {client:?}, which has nothing there"));
            }
            if !by_address {
                c.noted(parse_life(value));
            }
        })?;
        let mut known = 0;
        self.rows(Table::NsmState, |c, key, value| {
            known += 1;
            c.noted(Parts::new(Table::NsmState, key).client());
            c.decode::<ClientLife>(Table::NsmState, key, value);
        })?;
        if known != self.meta.nsm_clients {
            let what = format!("{} lock clients are counted but {known} known", self.meta.nsm_clients);
            self.general(what);
        }
        self.rows(Table::LockRelease, |c, key, value| {
            c.noted(Parts::new(Table::LockRelease, key).client());
            c.ino_key(Table::LockRelease, value);
            if !matches!(store::has(c.kv, Table::NsmState, key), Ok(true)) {
                c.general("a lock client's release is not finished, but its life is not known");
            }
        })
    }
}
