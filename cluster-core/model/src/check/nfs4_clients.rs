//! NFSv4: clients, their names and sessions, and the clients that are being released.

use super::Checker;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, Table};
use crate::record::nfs4::{ClientRecord, Counts, Names, SessionRecord};
use crate::{codec, store};
use atoll_meta::nfs4::{ClientId, SessionId};
use atoll_meta::once::SlotOutcome;
use serde::de::DeserializeOwned;

impl<K: KvRead> Checker<'_, K> {
    /// A record, if it is there and decodes; if it does not, the pass over its own table says so.
    pub(super) fn peek<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Option<T> {
        self.kv.get(table, key, |v| v.and_then(|v| codec::decode(v).ok())).ok().flatten()
    }

    pub(super) fn has(&self, table: Table, key: &[u8]) -> bool {
        matches!(store::has(self.kv, table, key), Ok(true))
    }

    pub(super) fn has_prefixed(&self, table: Table, prefix: &[u8]) -> bool {
        let mut found = false;
        let looked = store::each_prefixed(self.kv, table, prefix, |_, _| {
            found = true;
            Ok(std::ops::ControlFlow::Break(()))
        });
        looked.is_ok() && found
    }

    /// Whether what a row says to be a client's can be: the client is there, or is being released.
    pub(super) fn is_somebodys(&self, client: ClientId) -> bool {
        let key = keys::client(client);
        self.has(Table::Client4, &key) || self.has(Table::ClientRelease, &key)
    }

    fn one(&mut self, table: Table, key: &[u8]) -> Option<u64> {
        self.noted(keys::parse_one(table, key))
    }

    pub(super) fn pair(&mut self, table: Table, key: &[u8]) -> Option<(u64, u64)> {
        self.noted(keys::parse_pair(table, key))
    }

    pub(super) fn clients(&mut self) -> Result<(), KvError> {
        let mark = crate::model::mark(&self.meta);
        let (mut confirmed, mut unconfirmed) = (0, 0);
        self.rows(Table::Client4, |c, key, value| {
            let Some(id) = c.one(Table::Client4, key).map(ClientId) else { return };
            let Some(record) = c.decode::<ClientRecord>(Table::Client4, key, value) else { return };
            let (upper, lower) = ((id.0 >> 32) as u32, id.0 as u32);
            if upper != mark || lower == 0 || lower > c.meta.nfs4.last_client {
                c.general(format!("client {:x} has an id that was never given out", id.0));
            }
            let names: Names =
                c.peek(Table::ClientName, &keys::name(record.minor(), &record.owner)).unwrap_or_default();
            let listed = if record.confirmed { names.confirmed } else { names.unconfirmed };
            if listed != Some(id) {
                c.general(format!("client {:x} is not listed by its name", id.0));
            }
            *(if record.confirmed { &mut confirmed } else { &mut unconfirmed }) += 1;
            if record.confirmed != c.has(Table::ClientCounts, key) {
                c.general(format!("client {:x} is counted for though it has nothing, or is not", id.0));
            }
            if record.confirmed == c.has(Table::Unconfirmed, key) {
                c.general(format!("client {:x} and the list of unconfirmed ones disagree", id.0));
            }
            for table in [Table::ClientRelease, Table::ExpiredClient] {
                if c.has(table, key) {
                    c.general(format!("client {:x} is in table {} but not gone", id.0, table.name()));
                }
            }
        })?;
        if (confirmed, unconfirmed) != (self.meta.nfs4.confirmed, self.meta.nfs4.unconfirmed) {
            let (c, u) = (self.meta.nfs4.confirmed, self.meta.nfs4.unconfirmed);
            self.general(format!(
                "{c} confirmed and {u} unconfirmed clients are counted, but there are {confirmed} and {unconfirmed}"
            ));
        }
        self.client_names()?;
        self.client_lists()
    }

    fn client_names(&mut self) -> Result<(), KvError> {
        self.rows(Table::ClientName, |c, key, value| {
            let Some(names) = c.decode::<Names>(Table::ClientName, key, value) else { return };
            if names == Names::default() {
                c.general(format!("name {} of no client is kept", key.escape_ascii()));
            }
            for (id, confirmed) in [(names.confirmed, true), (names.unconfirmed, false)] {
                let Some(id) = id else { continue };
                let record: Option<ClientRecord> = c.peek(Table::Client4, &keys::client(id));
                let fits = record.is_some_and(|record| {
                    record.confirmed == confirmed && keys::name(record.minor(), &record.owner) == key
                });
                if !fits {
                    let name = key.escape_ascii();
                    c.general(format!("name {name} leads to client {:x}, which has another", id.0));
                }
            }
        })
    }

    fn client_lists(&mut self) -> Result<(), KvError> {
        self.rows(Table::ClientCounts, |c, key, value| {
            let Some(id) = c.one(Table::ClientCounts, key).map(ClientId) else { return };
            let Some(counts) = c.decode::<Counts>(Table::ClientCounts, key, value) else { return };
            let count = |table| {
                let mut rows = 0;
                store::each_prefixed(c.kv, table, &keys::client(id), |_, _| {
                    rows += 1;
                    Ok(std::ops::ControlFlow::Continue(()))
                })
                .map(|()| rows)
            };
            let found = [Table::ClientSession, Table::ClientState, Table::IdleOwner].map(count);
            let said = [counts.sessions, counts.states, counts.idle_owners];
            for (found, said) in found.into_iter().zip(said) {
                if c.noted(found).is_some_and(|found| found != said) {
                    c.general(format!("client {:x} counts {said} of something but has another number", id.0));
                }
            }
            if !c.has(Table::Client4, key) {
                c.general(format!("client {:x} is counted for but does not exist", id.0));
            }
        })?;
        for table in [Table::Unconfirmed, Table::ClientRelease, Table::ExpiredClient] {
            let mut rows = 0;
            self.rows(table, |c, key, _| {
                rows += 1;
                let Some(id) = c.one(table, key).map(ClientId) else { return };
                let own = [Table::ClientState, Table::Owner, Table::ClientSession];
                let fits = match table {
                    Table::Unconfirmed => c.has(Table::Client4, key),
                    Table::ClientRelease => own.into_iter().any(|table| c.has_prefixed(table, key)),
                    _ => id.0 as u32 <= c.meta.nfs4.last_client,
                };
                if !fits {
                    c.general(format!("client {:x} should not be in table {}", id.0, table.name()));
                }
            })?;
            if table == Table::ExpiredClient && rows != self.meta.nfs4.expired {
                let said = self.meta.nfs4.expired;
                self.general(format!("{said} expired clients are counted but {rows} known"));
            }
        }
        Ok(())
    }

    pub(super) fn sessions(&mut self) -> Result<(), KvError> {
        self.rows(Table::Session, |c, key, value| {
            let Some(id) = c.one(Table::Session, key) else { return };
            let Some(record) = c.decode::<SessionRecord>(Table::Session, key, value) else { return };
            if id > c.meta.nfs4.last_session {
                c.general(format!("session {id} has a number that was never given out"));
            }
            let row = keys::client_session(record.client, SessionId(id));
            if !c.is_somebodys(record.client) || !c.has(Table::ClientSession, &row) {
                c.general(format!("session {id} is of client {:x}, which does not have it", record.client.0));
            }
        })?;
        self.rows(Table::ClientSession, |c, key, _| {
            let Some((client, session)) = c.pair(Table::ClientSession, key) else { return };
            let record: Option<SessionRecord> = c.peek(Table::Session, &keys::session(SessionId(session)));
            if record.is_none_or(|record| record.client.0 != client) {
                c.general(format!("client {client:x} lists session {session}, which is not its"));
            }
        })?;
        self.rows(Table::Slot, |c, key, value| {
            c.decode::<SlotOutcome>(Table::Slot, key, value);
            let mut parts = crate::keys::Parts::new(Table::Slot, key);
            let place = parts.u64().and_then(|session| Ok((SessionId(session), parts.u32()?)));
            let Some((session, slot)) = c.noted(place) else { return };
            let record: Option<SessionRecord> = c.peek(Table::Session, &keys::session(session));
            if record.is_none_or(|record| slot >= record.terms.fore.max_requests) {
                c.general(format!("session {} does not have slot {slot}", session.0));
            }
        })
    }
}
