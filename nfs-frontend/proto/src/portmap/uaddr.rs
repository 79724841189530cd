//! Network identifiers and universal addresses (RFC 5665 §5.1, §5.2.3.3, §5.2.3.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Network identifiers of the transports that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetId {
    /// TCP over IPv4.
    Tcp,
    /// UDP over IPv4.
    Udp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl NetId {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Tcp6, Self::Udp6];

    /// The identifier as it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tcp6 => "tcp6",
            Self::Udp6 => "udp6",
        }
    }

    /// The identifier with this name.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.as_str().as_bytes() == name)
    }

    /// The identifier of a transport.
    pub const fn of(stream: bool, ipv6: bool) -> Self {
        match (stream, ipv6) {
            (true, false) => Self::Tcp,
            (false, false) => Self::Udp,
            (true, true) => Self::Tcp6,
            (false, true) => Self::Udp6,
        }
    }

    /// Whether addresses are IPv6.
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6)
    }

    /// Whether it is a stream (TCP).
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tcp6)
    }
}

/// The universal address: the textual form of the address, then the octets of the port in decimal.
///
/// An address has no scope there: a link-local IPv6 address is told without its interface.
pub fn format_uaddr(addr: SocketAddr) -> String {
    let [high, low] = addr.port().to_be_bytes();
    format!("{}.{high}.{low}", addr.ip())
}

/// Reads a universal address of IPv4 (`h1.h2.h3.h4.p1.p2`) or IPv6 (any form of RFC 4291 §2.2, then `.p1.p2`).
pub fn parse_uaddr(uaddr: &[u8]) -> Option<SocketAddr> {
    let (rest, low) = split_octet(std::str::from_utf8(uaddr).ok()?)?;
    let (host, high) = split_octet(rest)?;
    let ip = if host.contains(':') {
        IpAddr::V6(host.parse::<Ipv6Addr>().ok()?)
    } else {
        IpAddr::V4(host.parse::<Ipv4Addr>().ok()?)
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

/// Splits a decimal octet off the end.
fn split_octet(s: &str) -> Option<(&str, u8)> {
    let (rest, octet) = s.rsplit_once('.')?;
    // `parse` alone would take a sign.
    let digits = octet.bytes().all(|b| b.is_ascii_digit());
    Some((rest, digits.then(|| octet.parse().ok())??))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        let v4: SocketAddr = "192.0.2.7:52049".parse().unwrap();
        assert_eq!(format_uaddr(v4), "192.0.2.7.203.81");
        assert_eq!(parse_uaddr(b"192.0.2.7.203.81"), Some(v4));
        let v6: SocketAddr = "[2001:db8::1]:2049".parse().unwrap();
        assert_eq!(format_uaddr(v6), "2001:db8::1.8.1");
        assert_eq!(parse_uaddr(b"2001:db8:0:0:0:0:0:1.8.1"), Some(v6));
        assert_eq!(parse_uaddr(b"::.0.111"), Some("[::]:111".parse().unwrap()));
        assert_eq!(parse_uaddr(b"::ffff:192.0.2.7.0.111"), Some("[::ffff:192.0.2.7]:111".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address() {
        let bad: [&[u8]; 9] = [
            b"",
            b"1.2.3.4",
            b"1.2.3.4.5",
            b"1.2.3.4.256.1",
            b"1.2.3.4.+1.1",
            b"1.2.3.4.5.6.7",
            b"/run/rpcbind.sock",
            b"::1.1.",
            b"\xff.1.1",
        ];
        for uaddr in bad {
            assert_eq!(parse_uaddr(uaddr), None, "{}", uaddr.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn round_trip(ip in any::<IpAddr>(), port in any::<u16>()) {
            let addr = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_uaddr(format_uaddr(addr).as_bytes()), Some(addr));
        }

        #[test]
        fn any_bytes(uaddr in prop::collection::vec(prop::sample::select(b"0123456789.:af+".to_vec()), 0..24)) {
            if let Some(addr) = parse_uaddr(&uaddr) {
                prop_assert_eq!(parse_uaddr(format_uaddr(addr).as_bytes()), Some(addr));
            }
        }
    }
}
