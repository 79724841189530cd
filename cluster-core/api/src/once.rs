//! Exactly-once keys: how a retransmitted request is known again.
//!
//! - NFSv3, NLM and NFSv4.0 outside of its owners' sequences: by client, transaction id and content, [`OnceKey`];
//! - NFSv4.1: by the slot of a session, [`SlotKey`];
//! - what an NFSv4.0 owner opens and locks: by the owner's sequence, [`OwnerKey`].
//!
//! Of an [`OnceKey`] the source port is left out, because a client reconnects from another; the transaction id alone is not
//! enough, because a rebooted client may draw it again; hence the fingerprint of procedure, credential and arguments.

use crate::nfs4::{ClientId, SessionId};
use crate::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Under what the outcome of a call is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Once {
    /// By the request itself.
    Request(OnceKey),
    /// By a session's slot.
    Slot(SlotKey),
    /// By an owner's sequence.
    Owner(OwnerKey),
}

/// One modifying operation of one COMPOUND of a session (RFC 8881 §2.10.6). The slot keeps the outcome of the last one, in the same step
/// as the change; all of the reply that comes before is in `before`, and the rest follows from the response.
///
/// A call whose seqid and `index` are those of the slot's record is a repetition: the stored response, if the fingerprints
/// agree (else `FalseRetry`). With a lower index it was executed, and so was more of its COMPOUND, by another frontend: `Conflict`, upon which the
/// frontend reads the slot again and finds the answer in `before`. A seqid below the record's (by up to 2^20) is `Misordered`. Any other is
/// new: which ones are acceptable is the frontend's to say, since calls that change nothing leave no record.
///
/// No record is made of `Delay`, `Delegated`, `Fenced` and `TableFull`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotKey {
    /// Session; `BadSession` if there is none.
    pub session: SessionId,
    /// Slot; `BadSession` if beyond the session's.
    pub slot: u32,
    /// Sequence number on the slot.
    pub seqid: u32,
    /// Hash (64 bits, XXH3) of the request, from the operation after SEQUENCE on, and of the principal.
    pub fingerprint: u64,
    /// Which operation of the COMPOUND, from 0.
    pub index: u32,
    /// What the frontend needs to give the same reply again: results before this operation. At most
    /// [`SLOT_BEFORE_MAX`] bytes.
    pub before: Bytes,
}

/// Most bytes of a reply that are stored with a slot; a COMPOUND that gathers more before it changes something gets no replay after
/// a failover (NFS4ERR_RETRY_UNCACHED_REP), which only requests that were not to be cached may meet.
pub const SLOT_BEFORE_MAX: usize = 16 << 10;

/// What a slot keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotOutcome {
    /// Sequence number.
    pub seqid: u32,
    /// Of the request.
    pub fingerprint: u64,
    /// Which operation.
    pub index: u32,
    /// As given.
    pub before: Bytes,
    /// What came of the operation.
    pub response: Response,
}

/// One step in the sequence of an NFSv4.0 open owner or lock owner (RFC 7530 §9.1.7). The same seqid again gets the stored response; any other than the next
/// is `BadSeqid`. An owner that is new takes any. Refusals count, but those that §9.1.7 excepts; `Delay` and `Expired` count, `Delegated` does not, `TableFull` is taken for
/// NFS4ERR_RESOURCE, which does not. The key must be of the operation's client and owner or state (else `Invalid`).
///
/// An `Err` of [`crate::MetadataService::execute`] itself does not count, while a client counts after NFS4ERR_DELAY or NFS4ERR_NOSPC: after
/// `Delay` repeat the call, after anything else send [`crate::nfs4::StateOp::Refuse`] with the same key. The same
/// holds for a response of `Delegated`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerKey {
    /// Client.
    pub client: ClientId,
    /// Whose sequence it is.
    pub sequence: OwnerSequence,
    /// `seqid4`.
    pub seqid: u32,
    /// Hash (64 bits, XXH3) of the operation and its arguments: the same seqid for something else is `BadSeqid`.
    pub fingerprint: u64,
}

/// Which owner an operation counts for: it names it, or a stateid of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerSequence {
    /// An open owner by name (OPEN).
    Open(Bytes),
    /// The owner of this state, open or lock.
    Of(crate::nfs4::StateId),
}

/// Names one non-idempotent request of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OnceKey {
    /// Client address; IPv4 in its IPv6-mapped form.
    pub client: [u8; 16],
    /// RPC transaction id.
    pub xid: u32,
    /// Hash (64 bits, XXH3) over program, version, procedure, credential and the argument bytes.
    pub fingerprint: u64,
}

impl OnceKey {
    /// Composes a key.
    pub fn new(client: IpAddr, xid: u32, fingerprint: u64) -> Self {
        let client = match client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { client, xid, fingerprint }
    }
}

impl Hash for OnceKey {
    /// In one piece: a call is looked for in several tables, and its parts one by one take the hasher twice as long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut all = [0; 28];
        all[..16].copy_from_slice(&self.client);
        all[16..24].copy_from_slice(&self.fingerprint.to_ne_bytes());
        all[24..].copy_from_slice(&self.xid.to_ne_bytes());
        state.write(&all);
    }
}

impl From<OnceKey> for Once {
    fn from(key: OnceKey) -> Self {
        Self::Request(key)
    }
}

impl From<SlotKey> for Once {
    fn from(key: SlotKey) -> Self {
        Self::Slot(key)
    }
}

impl From<OwnerKey> for Once {
    fn from(key: OwnerKey) -> Self {
        Self::Owner(key)
    }
}
