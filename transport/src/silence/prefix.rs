//! Where a socket comes from, as coarsely as limits are set: who has one address of such a block usually has all of it.

// `core::net` has addresses and no sockets.
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;

/// A remote's IPv4 /24 or IPv6 /48. Loopback is no exception: all of 127.0.0.0/24 is one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Prefix {
    V4([u8; 3]),
    V6([u8; 6]),
    /// No address of the remote's own: memory, Unix sockets, and whatever comes through a relay, whose address says
    /// nothing about who is behind it. All of them share this one, and it never counts as known.
    Unknown,
}

impl Prefix {
    /// The prefix of a remote as a transport reports it.
    pub(crate) fn of(remote: &Multiaddr) -> Self {
        if remote.iter().any(|part| part == Protocol::P2pCircuit) {
            return Self::Unknown;
        }
        match remote.iter().next() {
            Some(Protocol::Ip4(ip)) => ip.into(),
            Some(Protocol::Ip6(ip)) => ip.into(),
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0)),
            Self::V6(bytes) => {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(&bytes);
                write!(f, "{}/48", Ipv6Addr::from(octets))
            }
            Self::Unknown => f.write_str("without an address"),
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Prefix {
    fn from(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        Self::V4([a, b, c])
    }
}

impl From<Ipv6Addr> for Prefix {
    fn from(ip: Ipv6Addr) -> Self {
        // A socket that listens on both families reports IPv4 remotes in this form: all of IPv4 would be one /48.
        if let Some(ip) = ip.to_ipv4_mapped() {
            return ip.into();
        }
        let [a, b, c, d, e, f, ..] = ip.octets();
        Self::V6([a, b, c, d, e, f])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Prefix {
        Prefix::of(&address.parse().expect("an address"))
    }

    #[test]
    fn ipv4_counts_by_its_24_bits_and_ipv6_by_its_48() {
        assert_eq!(of("/ip4/192.0.2.7/tcp/1"), of("/ip4/192.0.2.250/tcp/2/tls"));
        assert_ne!(of("/ip4/192.0.2.7/tcp/1"), of("/ip4/192.0.3.7/tcp/1"));
        assert_eq!(of("/ip6/2001:db8:1:2::3/tcp/1"), of("/ip6/2001:db8:1:ffff::/tcp/1"));
        assert_ne!(of("/ip6/2001:db8:1::/tcp/1"), of("/ip6/2001:db8:2::/tcp/1"));
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_an_ipv4_address() {
        assert_eq!(of("/ip6/::ffff:192.0.2.7/tcp/1"), of("/ip4/192.0.2.1/tcp/1"));
        assert_ne!(of("/ip6/::ffff:192.0.2.7/tcp/1"), of("/ip6/::ffff:192.0.3.7/tcp/1"));
    }

    #[test]
    fn loopback_is_a_prefix_like_any_other() {
        assert_eq!(of("/ip4/127.0.0.1/tcp/1"), Prefix::V4([127, 0, 0]));
        assert_ne!(of("/ip4/127.0.1.1/tcp/1"), of("/ip4/127.0.0.1/tcp/1"));
        assert_eq!(of("/ip6/::1/tcp/1"), Prefix::V6([0; 6]));
    }

    #[test]
    fn what_has_no_address_of_its_own_shares_one_prefix() {
        let relay = "/ip4/192.0.2.7/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        assert_eq!(of(&format!("{relay}/p2p-circuit")), Prefix::Unknown);
        assert_eq!(of("/memory/7"), Prefix::Unknown);
        assert_eq!(of("/unix/%2Ftmp%2Fs"), Prefix::Unknown);
        assert_eq!(Prefix::of(&Multiaddr::empty()), Prefix::Unknown);
    }

    #[test]
    fn a_prefix_is_written_as_a_network() {
        for (address, text) in [
            ("/ip4/192.0.2.7/tcp/1", "192.0.2.0/24"),
            ("/ip6/2001:db8:1:2::3/tcp/1", "2001:db8:1::/48"),
            ("/memory/7", "without an address"),
        ] {
            assert_eq!(of(address).to_string(), text);
        }
    }
}
