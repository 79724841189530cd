//! Keys of NFSv4's tables; [`super`] tabulates them.

use super::Parts;
use crate::kv::{KvError, Table};
use crate::record::nfs4::OwnerKind;
use atoll_base::id::Ino;
use atoll_meta::nfs4::{ClientId, SessionId, StateId};

/// Two numbers.
pub(crate) fn pair(a: u64, b: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&a.to_be_bytes());
    key[8..].copy_from_slice(&b.to_be_bytes());
    key
}

pub(crate) fn client(id: ClientId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(crate) fn name(minor: u8, owner: &[u8]) -> Vec<u8> {
    let mut key = vec![minor];
    key.extend_from_slice(owner);
    key
}

pub(crate) fn session(id: SessionId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(crate) fn client_session(client: ClientId, session: SessionId) -> [u8; 16] {
    pair(client.0, session.0)
}

pub(crate) fn slot(session: SessionId, slot: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&session.0.to_be_bytes());
    key[8..].copy_from_slice(&slot.to_be_bytes());
    key
}

pub(crate) fn state(id: StateId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(crate) fn file_state(ino: Ino, state: StateId) -> [u8; 16] {
    pair(ino.0, state.0)
}

pub(crate) fn client_state(client: ClientId, state: StateId) -> [u8; 16] {
    pair(client.0, state.0)
}

pub(crate) fn file_delegation(ino: Ino, state: StateId) -> [u8; 16] {
    pair(ino.0, state.0)
}

pub(crate) fn notice(delegation: StateId, number: u64) -> [u8; 16] {
    pair(delegation.0, number)
}

pub(crate) fn file_offload(ino: Ino, offload: StateId) -> [u8; 16] {
    pair(ino.0, offload.0)
}

pub(crate) fn client_offload(client: ClientId, offload: StateId) -> [u8; 16] {
    pair(client.0, offload.0)
}

pub(crate) fn open_lock(open: StateId, lock: StateId) -> [u8; 16] {
    pair(open.0, lock.0)
}

/// An owner; also what `ClosedState` holds.
pub(crate) fn owner(client: ClientId, kind: OwnerKind, owner: &[u8]) -> Vec<u8> {
    let mut key = client.0.to_be_bytes().to_vec();
    key.push(kind as u8);
    key.extend_from_slice(owner);
    key
}

/// The prefix of an owner's states.
pub(crate) fn owner_states(client: ClientId, kind: OwnerKind, owner: &[u8]) -> Vec<u8> {
    let mut key = client.0.to_be_bytes().to_vec();
    key.push(kind as u8);
    // Operations bound owners to OPAQUE_MAX bytes; one that is longer is damage, and nothing is found under it.
    let len = u16::try_from(owner.len()).unwrap_or(u16::MAX);
    key.extend_from_slice(&len.to_be_bytes());
    key.extend_from_slice(owner);
    key
}

pub(crate) fn owner_state(client: ClientId, kind: OwnerKind, owner: &[u8], ino: Ino) -> Vec<u8> {
    super::then_ino(owner_states(client, kind, owner), ino)
}

pub(crate) fn idle_owner(client: ClientId, number: u64, owner: &[u8]) -> Vec<u8> {
    let mut key = pair(client.0, number).to_vec();
    key.extend_from_slice(owner);
    key
}

fn kind(parts: &mut Parts<'_>, table: Table) -> Result<OwnerKind, KvError> {
    match parts.take()? {
        [1] => Ok(OwnerKind::Open),
        [2] => Ok(OwnerKind::Lock),
        [3] => Ok(OwnerKind::Delegation),
        [other] => {
            Err(KvError::Failed(format!("a key of table {} names owners of kind {other}", table.name())))
        }
    }
}

/// The parts of [`owner`].
pub(crate) fn parse_owner(table: Table, key: &[u8]) -> Result<(ClientId, OwnerKind, &[u8]), KvError> {
    let mut parts = Parts::new(table, key);
    let client = ClientId(parts.u64()?);
    let kind = kind(&mut parts, table)?;
    Ok((client, kind, parts.rest()))
}

/// The parts of [`owner_state`].
pub(crate) fn parse_owner_state(key: &[u8]) -> Result<(ClientId, OwnerKind, &[u8], Ino), KvError> {
    let table = Table::OwnerState;
    let mut parts = Parts::new(table, key);
    let client = ClientId(parts.u64()?);
    let kind = kind(&mut parts, table)?;
    let owner = parts.name()?;
    let ino = parts.ino()?;
    parts.end()?;
    Ok((client, kind, owner, ino))
}

/// The parts of [`idle_owner`].
pub(crate) fn parse_idle_owner(key: &[u8]) -> Result<(ClientId, u64, &[u8]), KvError> {
    let mut parts = Parts::new(Table::IdleOwner, key);
    let (client, number) = (ClientId(parts.u64()?), parts.u64()?);
    Ok((client, number, parts.rest()))
}

/// The two numbers of a key that has no more.
pub(crate) fn parse_pair(table: Table, key: &[u8]) -> Result<(u64, u64), KvError> {
    let mut parts = Parts::new(table, key);
    let pair = (parts.u64()?, parts.u64()?);
    parts.end()?;
    Ok(pair)
}

/// The number of a key or value that has no more.
pub(crate) fn parse_one(table: Table, bytes: &[u8]) -> Result<u64, KvError> {
    let mut parts = Parts::new(table, bytes);
    let one = parts.u64()?;
    parts.end()?;
    Ok(one)
}
