//! Exactly-once keys: how a retransmitted request of NFSv3 (and v4.0, NLM) is known again.
//!
//! The source port is left out, because a client reconnects from another; the transaction id alone is not
//! enough, because a rebooted client may draw it again; hence the fingerprint of procedure, credential and arguments.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Names one non-idempotent request of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
