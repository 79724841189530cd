//! Reads of NFSv4's clients, sessions and states. What a client that has ended leaves behind is not shown.

use super::Read;
use super::namespace::inode;
use crate::keys::nfs4 as keys;
use crate::kv::{KvError, KvRead, Table};
use crate::once::owners;
use crate::ops::nfs4::{clients, notices as told, offloads as copies, release, sessions, states};
use crate::record::nfs4::{
    ClientRecord, Delegation, Held, MinorRecord, OffloadRecord, SessionRecord, StateRecord,
};
use crate::store;
use atoll_base::id::Ino;
use atoll_lockd::{FileLocks, Share, ShareBits};
use atoll_meta::FsError;
use atoll_meta::delegation::{DelegationKind, NoticeKinds, Noticed};
use atoll_meta::nfs4::{
    Client, ClientId, Session, SessionId, State, StateError, StateId, StateKind, Stateid,
};
use atoll_meta::offload::Offload;
use atoll_meta::once::SlotOutcome;
use std::ops::{Bound, ControlFlow};

/// What a session's slot keeps; `BadSession` if there is no such session.
pub fn slot(kv: &impl KvRead, session: SessionId, slot: u32) -> Result<Read<Option<SlotOutcome>>, KvError> {
    if sessions::load(kv, session)?.is_none() {
        return Ok(Err(StateError::BadSession.into()));
    }
    Ok(Ok(store::get(kv, Table::Slot, &keys::slot(session, slot))?))
}

fn shown_client(kv: &impl KvRead, id: ClientId, record: ClientRecord) -> Result<Client, KvError> {
    let counts = clients::counts(kv, id)?;
    let minor = record.minor().into();
    let callback = match record.minor {
        MinorRecord::V40 { callback, .. } => Some(callback),
        MinorRecord::V41 { .. } => None,
    };
    Ok(Client {
        id,
        owner: record.owner,
        verifier: record.verifier,
        principal: record.principal,
        minor,
        confirmed: record.confirmed,
        reclaimed: record.reclaimed,
        callback,
        about: record.about,
        sessions: counts.sessions,
        states: counts.states.into(),
        revoked: counts.revoked,
    })
}

/// A client, if there is one.
pub fn client(kv: &impl KvRead, id: ClientId) -> Result<Option<Client>, KvError> {
    clients::load(kv, id)?.map(|record| shown_client(kv, id, record)).transpose()
}

/// Whether there is such a confirmed client of this minor version.
pub fn standing(kv: &impl KvRead, id: ClientId, minor: u8) -> Result<Read<()>, KvError> {
    Ok(clients::confirmed(kv, id, Some(minor))?.map(|_client| ()))
}

/// Clients above an id, at most `most`, in order.
pub fn clients(kv: &impl KvRead, after: ClientId, most: usize) -> Result<Vec<Client>, KvError> {
    let mut found = Vec::new();
    let key = keys::client(after);
    store::each_from(kv, Table::Client4, Bound::Excluded(&key), Bound::Unbounded, |key, value| {
        if found.len() >= most {
            return Ok(ControlFlow::Break(()));
        }
        let id = ClientId(keys::parse_one(Table::Client4, key)?);
        found.push((id, store::parse(Table::Client4, key, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    found.into_iter().map(|(id, record)| shown_client(kv, id, record)).collect()
}

fn shown_session(id: SessionId, record: SessionRecord) -> Session {
    Session { id, client: record.client, terms: record.terms }
}

/// A session, if there is one.
pub fn session(kv: &impl KvRead, id: SessionId) -> Result<Option<Session>, KvError> {
    Ok(sessions::load(kv, id)?.map(|record| shown_session(id, record)))
}

/// A client's sessions, in order.
pub fn sessions(kv: &impl KvRead, client: ClientId) -> Result<Vec<Session>, KvError> {
    let mut ids = Vec::new();
    store::each_prefixed(kv, Table::ClientSession, &keys::client(client), |key, _| {
        ids.push(SessionId(keys::parse_pair(Table::ClientSession, key)?.1));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut found = Vec::new();
    for id in ids {
        found.extend(session(kv, id)?);
    }
    Ok(found)
}

pub(super) fn shown_state(
    kv: &impl KvRead,
    id: StateId,
    record: StateRecord,
) -> Result<Option<State>, KvError> {
    if !clients::exists(kv, record.client)? {
        return Ok(None);
    }
    let stateid = record.stateid(id);
    let kind = match record.held {
        Held::Open { share, confirmed, .. } => StateKind::Open { share, confirmed },
        Held::Lock { open } => {
            let Held::Open { share, .. } = states::follow(kv, open)?.held else {
                return Err(KvError::Failed(format!("lock state {} is under what is no open", id.0)));
            };
            StateKind::Lock { open, share }
        }
        Held::Delegation(Delegation { kind, phase, timestamps, export, change }) => {
            let notices = match kind {
                DelegationKind::Directory => told::covered(kv, id)?,
                DelegationKind::Read | DelegationKind::Write => NoticeKinds::NONE,
            };
            StateKind::Delegation { kind, phase, timestamps, export, change, notices }
        }
    };
    Ok(Some(State {
        stateid,
        client: record.client,
        owner: record.owner,
        ino: record.ino,
        generation: record.generation,
        since: record.since,
        kind,
    }))
}

/// A state, if there is one.
pub fn state(kv: &impl KvRead, id: StateId) -> Result<Option<State>, KvError> {
    match states::load(kv, id)? {
        Some(record) => shown_state(kv, id, record),
        None => Ok(None),
    }
}

/// The client whose state this is, or was until the last step of its v4.0 owner closed it.
pub fn client_of(kv: &impl KvRead, id: StateId) -> Result<Option<ClientId>, KvError> {
    let client = match states::load(kv, id)? {
        Some(record) => Some(record.client),
        None => owners::closed(kv, id)?.map(|(client, ..)| client),
    };
    match client {
        Some(client) if clients::exists(kv, client)? => Ok(Some(client)),
        _ => Ok(None),
    }
}

/// States whose ids `parse` finds in a table's keys, above an id: the rows from `key(id)` (not included) to `end`.
fn listed<K: AsRef<[u8]>>(
    kv: &impl KvRead,
    table: Table,
    key: impl Fn(StateId) -> K,
    end: Bound<&[u8]>,
    parse: impl Fn(&[u8]) -> Result<u64, KvError>,
    (after, most): (StateId, usize),
) -> Result<Vec<State>, KvError> {
    let mut found = Vec::new();
    let mut from = after;
    while found.len() < most {
        let mut ids = Vec::new();
        let start = key(from);
        store::each_from(kv, table, Bound::Excluded(start.as_ref()), end, |key, _| {
            if ids.len() >= most {
                return Ok(ControlFlow::Break(()));
            }
            ids.push(StateId(parse(key)?));
            Ok(ControlFlow::Continue(()))
        })?;
        let Some(last) = ids.last() else { break };
        from = *last;
        for id in ids {
            if found.len() < most {
                found.extend(shown_state(kv, id, states::follow(kv, id)?)?);
            }
        }
    }
    Ok(found)
}

/// States that an index lists under `first`.
fn indexed(
    kv: &impl KvRead,
    table: Table,
    first: u64,
    page: (StateId, usize),
) -> Result<Vec<State>, KvError> {
    let end = keys::pair(first, u64::MAX);
    let parse = |key: &[u8]| Ok(keys::parse_pair(table, key)?.1);
    listed(kv, table, |id| keys::pair(first, id.0), Bound::Included(&end), parse, page)
}

/// Opens, lock states and delegations in force of a file, above an id, at most `most`, in order.
pub fn states_of(kv: &impl KvRead, ino: Ino, after: StateId, most: usize) -> Result<Vec<State>, KvError> {
    indexed(kv, Table::FileState, ino.0, (after, most))
}

/// Whether there are lock states under an open.
pub fn has_locks(kv: &impl KvRead, open: StateId) -> Result<bool, KvError> {
    states::any_under(kv, open)
}

/// Opens, lock states and delegations of a client, above an id, at most `most`, in order.
pub fn states_by(
    kv: &impl KvRead,
    client: ClientId,
    after: StateId,
    most: usize,
) -> Result<Vec<State>, KvError> {
    indexed(kv, Table::ClientState, client.0, (after, most))
}

/// Delegations that are to be returned, above an id, at most `most`, in order.
pub fn recalled(kv: &impl KvRead, after: StateId, most: usize) -> Result<Vec<State>, KvError> {
    let table = Table::Recalled;
    let parse = |key: &[u8]| keys::parse_one(table, key);
    listed(kv, table, keys::state, Bound::Unbounded, parse, (after, most))
}

/// Delegations above an id whose holders are to be told of changes, at most `most`, in order.
pub fn notices(kv: &impl KvRead, after: StateId, most: usize) -> Result<Vec<Noticed>, KvError> {
    let mut found: Vec<Noticed> = Vec::new();
    let mut from = after;
    while found.len() < most {
        let (mut id, mut notices) = (None, Vec::new());
        let start = keys::notice(from, u64::MAX);
        store::each_from(kv, Table::Notice, Bound::Excluded(&start), Bound::Unbounded, |key, value| {
            let (delegation, number) = keys::parse_pair(Table::Notice, key)?;
            if *id.get_or_insert(delegation) != delegation {
                return Ok(ControlFlow::Break(()));
            }
            notices.push((number, store::parse(Table::Notice, key, value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        let Some(id) = id.map(StateId) else { break };
        from = id;
        if let Some(state) = shown_state(kv, id, states::follow(kv, id)?)? {
            found.push(Noticed { state, notices });
        }
    }
    Ok(found)
}

fn shown_offload(id: StateId, record: OffloadRecord) -> Offload {
    let OffloadRecord { client, cred, export, volume, from, to, left, count, verifier, since, ended } =
        record;
    let stateid = Stateid { id, seqid: copies::SEQID };
    Offload { stateid, client, cred, export, volume, from, to, left, count, verifier, since, ended }
}

/// An offload, if there is one.
pub fn offload(kv: &impl KvRead, id: StateId) -> Result<Option<Offload>, KvError> {
    Ok(copies::load(kv, id)?.map(|record| shown_offload(id, record)))
}

/// Offloads above an id, at most `most`, in order.
pub fn offloads(kv: &impl KvRead, after: StateId, most: usize) -> Result<Vec<Offload>, KvError> {
    let mut found = Vec::new();
    let key = keys::state(after);
    store::each_from(kv, Table::Offload, Bound::Excluded(&key), Bound::Unbounded, |key, value| {
        if found.len() >= most {
            return Ok(ControlFlow::Break(()));
        }
        let id = StateId(keys::parse_one(Table::Offload, key)?);
        found.push(shown_offload(id, store::parse(Table::Offload, key, value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Whether a share reservation denies this access; `Delay` if only what is left of clients that ended may deny it.
pub fn is_denied(kv: &impl KvRead, ino: Ino, access: ShareBits) -> Result<Read<bool>, KvError> {
    if let Err(e) = inode(kv, ino)? {
        return Ok(Err(e));
    }
    let table: Option<FileLocks> = store::get(kv, Table::Lock, &crate::keys::ino(ino))?;
    let conflict =
        table.and_then(|table| table.shares().conflict(None, Share { access, deny: ShareBits::None }));
    match conflict {
        Some(conflict) if conflict.owner.is_none() && release::is_pending(kv)? => Ok(Err(FsError::Delay)),
        conflict => Ok(Ok(conflict.is_some())),
    }
}
