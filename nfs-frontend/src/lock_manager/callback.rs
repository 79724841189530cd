//! How to reach a client whose request waits: what the replicated state keeps for us beside the request.
//!
//! Layout (integers big-endian): format 1, NLM version, transport (6 TCP, 17 UDP), client address, our address it called
//! (each 4 or 6, then 4 or 16 bytes), life of the process that queued it (8), file handle and cookie (each 2 bytes of
//! length, then the bytes).

use crate::rpc::{RpcCall, Transport};
use atoll_lockd::Callback;
use atoll_lockd::limits::MAX_CALLBACK_BYTES;
use std::net::IpAddr;

const FORMAT: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallbackAddress {
    pub(super) version: u32,
    pub(super) transport: Transport,
    pub(super) client: IpAddr,
    pub(super) local: IpAddr,
    pub(super) life: u64,
    pub(super) handle: Vec<u8>,
    pub(super) cookie: Vec<u8>,
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend(v6.octets());
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn take_ip(bytes: &mut &[u8]) -> Option<IpAddr> {
    match take::<1>(bytes)?[0] {
        4 => Some(IpAddr::from(take::<4>(bytes)?)),
        6 => Some(IpAddr::from(take::<16>(bytes)?)),
        _ => None,
    }
}

fn take_bytes(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let len = u16::from_be_bytes(take(bytes)?).into();
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head.to_vec())
}

impl CallbackAddress {
    /// Of a request.
    pub(super) fn of(call: &RpcCall, life: u64, handle: &[u8], cookie: &[u8]) -> Self {
        Self {
            version: call.version,
            transport: call.transport,
            client: call.peer.ip(),
            local: call.local.ip(),
            life,
            handle: handle.to_vec(),
            cookie: cookie.to_vec(),
        }
    }

    /// What is kept. A cookie that finds no room (the longest, beside a long handle) is left out: clients find the
    /// lock by its owner and range.
    pub(super) fn encode(&self) -> Callback {
        let transport = if self.transport == Transport::Tcp { TCP } else { UDP };
        let version = u8::try_from(self.version).expect("NLM has versions 1, 3 and 4");
        let mut out = vec![FORMAT, version, transport];
        put_ip(&mut out, self.client);
        put_ip(&mut out, self.local);
        out.extend(self.life.to_be_bytes());
        let len =
            |bytes: &[u8]| u16::try_from(bytes.len()).expect("a netobj has 1024 bytes at most").to_be_bytes();
        out.extend(len(&self.handle));
        out.extend(&self.handle);
        let fits = out.len() + 2 + self.cookie.len() <= MAX_CALLBACK_BYTES;
        let cookie = if fits { &self.cookie[..] } else { &[] };
        out.extend(len(cookie));
        out.extend(cookie);
        Callback::new(out).expect("headers and the longest handle are below the bound")
    }

    /// Reads what was kept; `None` if it is of another format.
    pub(super) fn decode(callback: &Callback) -> Option<Self> {
        let mut bytes = callback.as_bytes();
        let [format, version, transport] = take(&mut bytes)?;
        let transport = match transport {
            TCP => Transport::Tcp,
            UDP => Transport::Udp,
            _ => return None,
        };
        if format != FORMAT {
            return None;
        }
        let address = Self {
            version: version.into(),
            transport,
            client: take_ip(&mut bytes)?,
            local: take_ip(&mut bytes)?,
            life: u64::from_be_bytes(take(&mut bytes)?),
            handle: take_bytes(&mut bytes)?,
            cookie: take_bytes(&mut bytes)?,
        };
        bytes.is_empty().then_some(address)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(
            version in prop::sample::select(vec![1u32, 3, 4]),
            tcp in any::<bool>(),
            client in any::<IpAddr>(),
            local in any::<IpAddr>(),
            life in any::<u64>(),
            handle in prop::collection::vec(any::<u8>(), 0..1024),
            cookie in prop::collection::vec(any::<u8>(), 0..1024),
        ) {
            let transport = if tcp { Transport::Tcp } else { Transport::Udp };
            let address = CallbackAddress { version, transport, client, local, life, handle, cookie };
            let kept = CallbackAddress::decode(&address.encode()).unwrap();
            if address.handle.len() + address.cookie.len() <= 1200 {
                prop_assert_eq!(kept, address);
            } else {
                prop_assert_eq!(CallbackAddress { cookie: address.cookie.clone(), ..kept }, address);
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = CallbackAddress::decode(&Callback::new(bytes).unwrap());
        }
    }
}
