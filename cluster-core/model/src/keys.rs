//! Layout of keys. Numbers are big-endian, so the store's order is theirs.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `Meta` | `"state"` | [`crate::record::Meta`] |
//! | `Meta` | `"refused/"`, frontend 4 | nothing |
//! | `Inode` | ino 8 | [`crate::record::Inode`] |
//! | `Dirent` | dir 8, name | version 1, ino 8, cookie 8 |
//! | `DirCookie` | dir 8, cookie 8 | version 1, ino 8, name |
//! | `Extent` | ino 8, offset 8 | [`crate::extent`]: version 1, kind 1, birth 8, len 4; in a block: block 16, offset 4; inline: the first 64 bytes |
//! | `Inline` | ino 8, offset 8 | further bytes of the inline extent with this key |
//! | `Symlink` | ino 8 | the target |
//! | `Xattr` | ino 8, name | the value |
//! | `Acl` | ino 8 | [`atoll_base::acl::Acl`] |
//! | `Label` | ino 8 | [`atoll_base::label::Label`] |
//! | `Block` | block 16 | number of extents that reference it, 8 |
//! | `Garbage` | block 16 | [`crate::record::Garbage`]: since when nothing references it |
//! | `Orphan` | ino 8 | [`crate::record::Orphan`] |
//! | `Dirty` | frontend 4, ino 8 | [`crate::record::Lease`] |
//! | `Outcome` | number 8, of the first in the row | [`crate::once::row`] |
//! | `Lock` | ino 8 | [`atoll_lockd::FileLocks`] |
//! | `LockClient` | client of NLM (below), ino 8 | life 4: in which of the client's lives it last took something there |
//! | `LockClient` | by address (below), ino 8 | nothing |
//! | `PendingGrant` | ino 8 | nothing: the grants are in the file's `Lock` record |
//! | `NsmState` | client | [`crate::record::ClientLife`] |
//! | `LockRelease` | client | ino 8: up to which file what it holds from former lives has been freed |
//! | `Export` | id 4 | [`atoll_meta::ExportSpec`] |
//! | `Volume` | id 4 | [`crate::record::VolumeRecord`] |
//! | `Frontend` | id 4 | [`crate::record::FrontendRecord`] |
//! | `Repack` | ino 8 | nothing: the inode's own counters say why |
//!
//! NFSv4 ([`nfs4`]); values are in [`crate::record::nfs4`]:
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `Client4` | client 8 | `ClientRecord` |
//! | `ClientCounts` | client 8 | `Counts` |
//! | `ClientName` | minor version 1, the client's name | `Names` |
//! | `Unconfirmed` | client 8 | nothing |
//! | `ClientRelease` | client 8 | nothing |
//! | `ExpiredClient` | client 8 | nothing |
//! | `Session` | session 8 | `SessionRecord` |
//! | `ClientSession` | client 8, session 8 | nothing |
//! | `Slot` | session 8, slot 4 | [`atoll_meta::once::SlotOutcome`] |
//! | `State` | state 8 | `StateRecord` |
//! | `FileState` | ino 8, state 8 | nothing |
//! | `ClientState` | client 8, state 8 | nothing |
//! | `OwnerState` | client 8, kind 1, length of the owner 2, owner, ino 8 | state 8 |
//! | `OpenLocks` | open 8, lock state 8 | nothing |
//! | `FileDelegation` | ino 8, state 8 | nothing |
//! | `Recalled` | state 8 | nothing |
//! | `Watch` | state 8 | `Watch` |
//! | `Notice` | state 8, number 8 | [`atoll_meta::delegation::Notice`] |
//! | `Offload` | state 8 | `OffloadRecord` |
//! | `FileOffload` | ino 8, state 8 | nothing |
//! | `ClientOffload` | client 8, state 8 | nothing |
//! | `Owner` | client 8, kind 1, owner | `OwnerRecord` |
//! | `IdleOwner` | client 8, transaction 8, the open owner | nothing |
//! | `ClosedState` | state 8 | client 8, kind 1, owner |
//!
//! The kind of an owner: `1` open owner, `2` lock owner, `3` none, of delegations (in `OwnerState` only).
//!
//! A lock client: `1`, length of the name 2, name, address; or `2`, NFSv4 client id 8. By address: `3`, address,
//! length of the name 2, name. An address: `0`, or `4` and 4 bytes, or `6` and 16 bytes.

pub(crate) mod nfs4;

use crate::kv::{KvError, Table};
use atoll_base::block::BlockId;
use atoll_base::id::{Cookie, ExportId, FrontendId, Ino, VolumeId};
use atoll_lockd::{LockClient, NlmClient};
use atoll_meta::OnceKey;
use std::net::IpAddr;

/// Key in [`Table::Meta`] of the singletons.
pub(crate) const STATE: &[u8] = b"state";

/// Key in [`Table::Meta`] of the mark that a frontend refused UNSTABLE data in its present life. The value is empty.
pub(crate) fn refused(id: FrontendId) -> Vec<u8> {
    [b"refused/", &id.0.to_be_bytes()[..]].concat()
}

const CLIENT_NLM: u8 = 1;
const CLIENT_V4: u8 = 2;
const CLIENT_BY_ADDRESS: u8 = 3;

pub(crate) fn ino(ino: Ino) -> [u8; 8] {
    ino.0.to_be_bytes()
}

pub(crate) fn with_u64(ino: Ino, second: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&ino.0.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    key
}

pub(crate) fn cookie(dir: Ino, cookie: Cookie) -> [u8; 16] {
    with_u64(dir, cookie.0)
}

pub(crate) fn named(ino: Ino, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + name.len());
    key.extend_from_slice(&ino.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

pub(crate) fn block(id: BlockId) -> [u8; 16] {
    id.0.to_be_bytes()
}

pub(crate) fn once(key: &OnceKey) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(&key.client);
    bytes[16..20].copy_from_slice(&key.xid.to_be_bytes());
    bytes[20..].copy_from_slice(&key.fingerprint.to_be_bytes());
    bytes
}

pub(crate) fn lease(frontend: FrontendId, ino: Ino) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&frontend.0.to_be_bytes());
    key[4..].copy_from_slice(&ino.0.to_be_bytes());
    key
}

pub(crate) fn volume(id: VolumeId) -> [u8; 4] {
    id.0.to_be_bytes()
}

pub(crate) fn export(id: ExportId) -> [u8; 4] {
    id.0.to_be_bytes()
}

pub(crate) fn frontend(id: FrontendId) -> [u8; 4] {
    id.0.to_be_bytes()
}

fn push_name(key: &mut Vec<u8>, name: &[u8]) {
    // lockd bounds names to 1024 bytes.
    let len = u16::try_from(name.len()).expect("a caller name is longer than lockd allows");
    key.extend_from_slice(&len.to_be_bytes());
    key.extend_from_slice(name);
}

fn push_address(key: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => key.push(0),
        Some(IpAddr::V4(a)) => {
            key.push(4);
            key.extend_from_slice(&a.octets());
        }
        Some(IpAddr::V6(a)) => {
            key.push(6);
            key.extend_from_slice(&a.octets());
        }
    }
}

/// The key of a client, which is also the prefix of its files.
pub(crate) fn client(client: &LockClient) -> Vec<u8> {
    match client {
        LockClient::Nlm(nlm) => {
            let mut key = clients_named(nlm.name());
            push_address(&mut key, nlm.address());
            key
        }
        LockClient::V4(id) => {
            let mut key = vec![CLIENT_V4];
            key.extend_from_slice(&id.to_be_bytes());
            key
        }
    }
}

/// The prefix of NLM clients of this name.
pub(crate) fn clients_named(name: &[u8]) -> Vec<u8> {
    let mut key = vec![CLIENT_NLM];
    push_name(&mut key, name);
    key
}

/// The prefix of NLM clients of this address.
pub(crate) fn clients_at(address: IpAddr) -> Vec<u8> {
    let mut key = vec![CLIENT_BY_ADDRESS];
    push_address(&mut key, Some(address.to_canonical()));
    key
}

/// The prefix of a client's files in the index by address; `None` if its address is not part of what it is.
pub(crate) fn client_by_address(client: &LockClient) -> Option<Vec<u8>> {
    let LockClient::Nlm(nlm) = client else { return None };
    let mut key = clients_at(nlm.address()?);
    push_name(&mut key, nlm.name());
    Some(key)
}

/// A key with an inode number behind.
pub(crate) fn then_ino(mut prefix: Vec<u8>, ino: Ino) -> Vec<u8> {
    prefix.extend_from_slice(&ino.0.to_be_bytes());
    prefix
}

/// Least key above all that begin with `prefix`; `None` if there is none such.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != u8::MAX)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// Reads the parts of a key or fixed-width value from the front.
pub(crate) struct Parts<'a> {
    table: Table,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(crate) fn new(table: Table, bytes: &'a [u8]) -> Self {
        Self { table, rest: bytes }
    }

    fn broken(&self) -> KvError {
        KvError::Failed(format!("a key or value of table {} is cut short or malformed", self.table.name()))
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], KvError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.broken())?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], KvError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.broken())?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, KvError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, KvError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    pub(crate) fn ino(&mut self) -> Result<Ino, KvError> {
        self.u64().map(Ino)
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), KvError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.broken()) }
    }

    pub(crate) fn name(&mut self) -> Result<&'a [u8], KvError> {
        let len = u16::from_be_bytes(self.take()?);
        self.bytes(len.into())
    }

    fn address(&mut self) -> Result<Option<IpAddr>, KvError> {
        let [tag] = self.take()?;
        match tag {
            0 => Ok(None),
            4 => Ok(Some(IpAddr::from(self.take::<4>()?))),
            6 => Ok(Some(IpAddr::from(self.take::<16>()?))),
            _ => Err(self.broken()),
        }
    }

    /// A lock client, by whichever index.
    pub(crate) fn client(&mut self) -> Result<(LockClient, bool), KvError> {
        let [tag] = self.take()?;
        let (name, address) = match tag {
            CLIENT_V4 => return Ok((LockClient::V4(self.u64()?), false)),
            CLIENT_NLM => {
                let name = self.name()?;
                (name, self.address()?)
            }
            CLIENT_BY_ADDRESS => {
                let address = self.address()?;
                (self.name()?, address)
            }
            _ => return Err(self.broken()),
        };
        let nlm = NlmClient::new(name.to_vec(), address).map_err(|_| self.broken())?;
        Ok((LockClient::Nlm(nlm), tag == CLIENT_BY_ADDRESS))
    }
}
