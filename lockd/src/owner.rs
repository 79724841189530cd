//! Who holds a lock: a client, and an owner (a process) within it. Both are identities compared byte by byte;
//! lengths are bounded when the value is made, also when it is read back from storage.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

use crate::limits::{MAX_CALLBACK_BYTES, MAX_CALLER_NAME, MAX_OWNER_BYTES, MAX_OWNER_OPAQUE};

/// A name of client, owner or callback that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {length} bytes exceeds {limit}")]
pub struct OwnerError {
    /// Which name.
    pub what: &'static str,
    /// Its length, bytes.
    pub length: usize,
    /// The bound, bytes.
    pub limit: usize,
}

fn bounded(what: &'static str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, OwnerError> {
    if bytes.len() > limit { Err(OwnerError { what, length: bytes.len(), limit }) } else { Ok(bytes) }
}

/// An NLM client: the `caller_name` it sends and, if the server tells clients apart by it, the address it calls from.
///
/// The name alone is what FREE_ALL and NSM's notify carry, and it stays when the address changes; but nothing makes it
/// unique ("localhost"). The engine decides once per server whether the address is part of the identity and fills
/// it in always or never.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Vec<u8>, Option<IpAddr>)", into = "(Vec<u8>, Option<IpAddr>)")]
pub struct NlmClient {
    name: Vec<u8>,
    address: Option<IpAddr>,
}

impl NlmClient {
    /// A client by its `caller_name` (≤ [`MAX_CALLER_NAME`] bytes) and perhaps address; an IPv4-mapped IPv6 address is
    /// the IPv4 address, as one socket may show a client either way.
    pub fn new(caller_name: Vec<u8>, address: Option<IpAddr>) -> Result<Self, OwnerError> {
        let name = bounded("caller name", caller_name, MAX_CALLER_NAME)?;
        Ok(Self { name, address: address.map(|a| a.to_canonical()) })
    }

    /// The `caller_name`, any bytes.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The address, if it is part of the identity.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

impl TryFrom<(Vec<u8>, Option<IpAddr>)> for NlmClient {
    type Error = OwnerError;

    fn try_from((name, address): (Vec<u8>, Option<IpAddr>)) -> Result<Self, OwnerError> {
        Self::new(name, address)
    }
}

impl From<NlmClient> for (Vec<u8>, Option<IpAddr>) {
    fn from(client: NlmClient) -> Self {
        (client.name, client.address)
    }
}

impl fmt::Debug for NlmClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name.escape_ascii())?;
        match self.address {
            Some(address) => write!(f, "[{address}]"),
            None => Ok(()),
        }
    }
}

/// The client (host) that a lock belongs to: the unit of [`crate::FileLocks::release_client`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockClient {
    /// A client of NLM version 1, 3 or 4.
    Nlm(NlmClient),
    /// An NFSv4 client by its client id (RFC 7530 §9.1.1, RFC 8881 §2.4).
    V4(u64),
}

impl LockClient {
    fn name_bytes(&self) -> usize {
        match self {
            Self::Nlm(client) => client.name.len(),
            Self::V4(_) => 0,
        }
    }
}

/// Which clients to release: what FREE_ALL, NSM and lease expiry can say about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMatch {
    /// This one.
    Client(LockClient),
    /// NLM clients of this `caller_name`, from any address (NLM FREE_ALL, NSM notify: both carry only a name).
    NlmName(Vec<u8>),
    /// NLM clients of this address, under any name (NSM notify whose name differs from the `caller_name`; `atoll lock`).
    NlmAddress(IpAddr),
}

impl ClientMatch {
    /// Whether `client` is meant.
    pub fn matches(&self, client: &LockClient) -> bool {
        match (self, client) {
            (Self::Client(this), client) => this == client,
            (Self::NlmName(name), LockClient::Nlm(client)) => client.name == *name,
            (Self::NlmAddress(address), LockClient::Nlm(client)) => {
                client.address == Some(address.to_canonical())
            }
            (Self::NlmName(_) | Self::NlmAddress(_), LockClient::V4(_)) => false,
        }
    }
}

impl From<LockClient> for ClientMatch {
    fn from(client: LockClient) -> Self {
        Self::Client(client)
    }
}

/// The owner of locks: requests of the same owner never conflict with each other and replace each other (POSIX).
///
/// NLM: `svid` and `oh`, as one string of bytes, because they are only ever compared together (RFC 1813 §6.1.4).
/// NFSv4: the opaque of the lock-owner; open-owners are not here, since opens are counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "(LockClient, Vec<u8>)")]
pub struct LockOwner {
    client: LockClient,
    owner: Vec<u8>,
}

impl LockOwner {
    /// The owner of an NLM lock: `oh` (≤ [`MAX_OWNER_OPAQUE`] bytes) and `svid`. For NLM SHARE, which has no
    /// `svid`, pass 0.
    pub fn nlm(client: NlmClient, oh: &[u8], svid: i32) -> Result<Self, OwnerError> {
        if oh.len() > MAX_OWNER_OPAQUE {
            return Err(OwnerError { what: "oh", length: oh.len(), limit: MAX_OWNER_OPAQUE });
        }
        let mut owner = Vec::with_capacity(oh.len() + 4);
        owner.extend_from_slice(&svid.to_be_bytes());
        owner.extend_from_slice(oh);
        Ok(Self { client: LockClient::Nlm(client), owner })
    }

    /// A lock-owner of NFSv4 (RFC 7530 §9.1.5): opaque of ≤ [`MAX_OWNER_OPAQUE`] bytes.
    pub fn v4(client_id: u64, opaque: Vec<u8>) -> Result<Self, OwnerError> {
        let owner = bounded("lock owner", opaque, MAX_OWNER_OPAQUE)?;
        Ok(Self { client: LockClient::V4(client_id), owner })
    }

    /// The client it is of.
    pub fn client(&self) -> &LockClient {
        &self.client
    }

    /// `(oh, svid)` as the NLM client sent them; `None` for an owner of NFSv4 (shown to NLM by [`Self::as_nlm_holder`]).
    pub fn nlm_parts(&self) -> Option<(&[u8], i32)> {
        match self.client {
            LockClient::Nlm(_) => {
                let (svid, oh) = self.owner.split_first_chunk::<4>()?;
                Some((oh, i32::from_be_bytes(*svid)))
            }
            LockClient::V4(_) => None,
        }
    }

    /// `(oh, svid)` for `nlm4_holder` (RFC 1813 §6.1.4), whatever protocol the holder speaks: of NFSv4 the opaque, svid 0.
    pub fn as_nlm_holder(&self) -> (&[u8], i32) {
        self.nlm_parts().unwrap_or((&self.owner, 0))
    }

    /// `(clientid, owner)` for `LOCK4denied` (RFC 7530 §16.10.3), whatever protocol the holder speaks. Of an NLM holder the
    /// client id is 0, which no v4 client has, and the owner is `svid` and `oh`, cut to the opaque limit.
    pub fn as_v4_holder(&self) -> (u64, &[u8]) {
        let client = match self.client {
            LockClient::Nlm(_) => 0,
            LockClient::V4(id) => id,
        };
        (client, &self.owner[..self.owner.len().min(MAX_OWNER_OPAQUE)])
    }

    /// Bytes that this identity takes in a record, towards [`crate::limits::MAX_IDENTITY_BYTES`].
    pub(crate) fn identity_bytes(&self) -> usize {
        self.client.name_bytes() + self.owner.len()
    }
}

impl TryFrom<(LockClient, Vec<u8>)> for LockOwner {
    type Error = OwnerError;

    fn try_from((client, owner): (LockClient, Vec<u8>)) -> Result<Self, OwnerError> {
        Ok(Self { client, owner: bounded("owner", owner, MAX_OWNER_BYTES)? })
    }
}

impl Serialize for LockOwner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.client, &self.owner).serialize(serializer)
    }
}

impl fmt::Debug for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            LockClient::Nlm(client) => {
                let (oh, svid) = self.as_nlm_holder();
                write!(f, "{client:?}/{svid}/{}", oh.escape_ascii())
            }
            LockClient::V4(id) => write!(f, "v4:{id:x}/{}", self.owner.escape_ascii()),
        }
    }
}

/// How to reach the client of a blocked request: bytes that the front end writes when it queues (netid, address,
/// program version, the file handle as the client sent it, cookie …) and reads back when the lock is granted. The table
/// only keeps them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Callback(Vec<u8>);

impl Callback {
    /// At most [`MAX_CALLBACK_BYTES`] bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, OwnerError> {
        bounded("callback", bytes, MAX_CALLBACK_BYTES).map(Self)
    }

    /// The bytes as they were given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Callback {
    type Error = OwnerError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, OwnerError> {
        Self::new(bytes)
    }
}

impl From<Callback> for Vec<u8> {
    fn from(callback: Callback) -> Self {
        callback.0
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(name: &str, address: Option<&str>) -> NlmClient {
        NlmClient::new(name.as_bytes().to_vec(), address.map(|a| a.parse().unwrap())).unwrap()
    }

    #[test]
    fn an_nlm_owner_gives_back_its_parts() {
        let owner = LockOwner::nlm(client("c", None), b"12@host", -2).unwrap();
        assert_eq!(owner.nlm_parts(), Some((&b"12@host"[..], -2)));
        // The longest oh with its svid is longer than a v4 opaque may be.
        let longest = LockOwner::nlm(client("c", None), &[7; MAX_OWNER_OPAQUE], 1).unwrap();
        assert_eq!(longest.as_v4_holder().1.len(), MAX_OWNER_OPAQUE);
        let stored = postcard::to_stdvec(&longest).unwrap();
        assert_eq!(postcard::from_bytes::<LockOwner>(&stored).unwrap(), longest);
        assert_eq!(LockOwner::v4(1, b"o".to_vec()).unwrap().nlm_parts(), None);
    }

    #[test]
    fn owners_differ_by_each_part() {
        let owners = [
            LockOwner::nlm(client("c", None), b"oh", 1).unwrap(),
            LockOwner::nlm(client("c", None), b"oh", 2).unwrap(),
            LockOwner::nlm(client("c", None), b"ho", 1).unwrap(),
            LockOwner::nlm(client("d", None), b"oh", 1).unwrap(),
            LockOwner::nlm(client("c", Some("10.0.0.1")), b"oh", 1).unwrap(),
            LockOwner::v4(1, b"\0\0\0\x01oh".to_vec()).unwrap(),
        ];
        for (i, a) in owners.iter().enumerate() {
            assert!(owners[..i].iter().all(|b| a != b), "{a:?}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = client("c", Some("::ffff:10.0.0.1"));
        assert_eq!(mapped, client("c", Some("10.0.0.1")));
        let which = ClientMatch::NlmAddress("::ffff:10.0.0.1".parse().unwrap());
        assert!(which.matches(&LockClient::Nlm(mapped)));
    }

    #[test]
    fn what_notify_means() {
        let here = LockClient::Nlm(client("c", Some("10.0.0.1")));
        let there = LockClient::Nlm(client("c", Some("10.0.0.2")));
        let by_name = ClientMatch::NlmName(b"c".to_vec());
        assert!(by_name.matches(&here) && by_name.matches(&there) && !by_name.matches(&LockClient::V4(0)));
        let one = ClientMatch::from(here.clone());
        assert!(one.matches(&here) && !one.matches(&there));
        assert!(!ClientMatch::NlmAddress("10.0.0.1".parse().unwrap()).matches(&there));
        assert!(!ClientMatch::NlmAddress("10.0.0.1".parse().unwrap()).matches(&LockClient::V4(1)));
    }
}
