//! Addresses as ragedisco writes them: `192.0.2.7:6690` or `[2001:db8::7]:6690`, and which of our own are announced.

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use std::net::{IpAddr, SocketAddr};

/// The longest address there is: an IPv4-mapped one, with every digit.
pub const MAX_ADDRESS_LENGTH: usize = "[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535".len();

/// At most so many addresses are in one announcement.
pub const MAX_ADDRESSES: usize = 10;

/// An address may not be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Longer than [`MAX_ADDRESS_LENGTH`].
    #[error("an address of {0} bytes; the longest there is has {MAX_ADDRESS_LENGTH}")]
    TooLong(usize),
    /// Not an IP address with a port: a host name, no port, no brackets round IPv6, a zone.
    #[error("{0:?} is not an IP address and a port, such as 192.0.2.7:6690 or [2001:db8::7]:6690")]
    NotAnIpAndPort(String),
    /// Nothing is left to announce: `0.0.0.0` or `[::]` stands for the addresses of the interfaces, and there are none.
    #[error("there is no address to announce")]
    None,
    /// The addresses of the interfaces cannot be read, and one that must be announced depends on them.
    #[error("the addresses of the interfaces cannot be read: {0}")]
    Interfaces(String),
}

/// Reads an address as an announcement may have it.
///
/// # Errors
///
/// When it is anything but an IP address, in brackets if it is IPv6 and without a zone, and a port.
pub(crate) fn parse(address: &[u8]) -> Result<SocketAddr, AddressError> {
    if address.len() > MAX_ADDRESS_LENGTH {
        return Err(AddressError::TooLong(address.len()));
    }
    let refused = || AddressError::NotAnIpAndPort(String::from_utf8_lossy(address).into_owned());
    let text = std::str::from_utf8(address).map_err(|_| refused())?;
    if text.contains('%') {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}

/// Where to dial what was announced.
pub(crate) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(match address.ip() {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        })
        .with(Protocol::Tcp(address.port()))
        .with(Protocol::Tls)
}

/// What to announce: `configured`, in which `0.0.0.0` and `[::]` stand for every address of the interfaces of their
/// family, those that are reached from furthest away first. No address twice, at most [`MAX_ADDRESSES`].
///
/// # Errors
///
/// When an address is malformed, or when none is left.
pub(crate) fn announced(
    configured: &[String],
    interfaces: Result<Vec<IpAddr>, String>,
) -> Result<Vec<Vec<u8>>, AddressError> {
    let mut all = Vec::<String>::new();
    let mut add = |address: String| {
        if !all.contains(&address) {
            all.push(address);
        }
    };
    for text in configured {
        let address = parse(text.as_bytes())?;
        if !address.ip().is_unspecified() {
            // As it was written: whoever configured it may have had a reason.
            add(text.clone());
            continue;
        }
        for ip in by_reach(interfaces.as_deref().unwrap_or_default(), address.is_ipv4()) {
            add(SocketAddr::new(ip, address.port()).to_string());
        }
    }
    if all.is_empty() {
        return Err(match interfaces {
            Err(reason) if !configured.is_empty() => AddressError::Interfaces(reason),
            _ => AddressError::None,
        });
    }
    if let Err(reason) = interfaces {
        tracing::warn!(%reason, "the addresses of the interfaces cannot be read: announcing only those that are configured");
    }
    if all.len() > MAX_ADDRESSES {
        tracing::warn!(
            addresses = all.len(),
            "more addresses than an announcement holds: the last ones stay out"
        );
        all.truncate(MAX_ADDRESSES);
    }
    Ok(all.into_iter().map(String::into_bytes).collect())
}

/// Those of one family: public ones, then private and link-local ones, then loopback, each class sorted as text.
fn by_reach(interfaces: &[IpAddr], v4: bool) -> Vec<IpAddr> {
    let mut chosen: Vec<(u8, String, IpAddr)> = interfaces
        .iter()
        .filter(|ip| ip.is_ipv4() == v4)
        .map(|ip| (reach(ip), ip.to_string(), *ip))
        .collect();
    chosen.sort();
    chosen.dedup();
    chosen.into_iter().map(|(_, _, ip)| ip).collect()
}

fn reach(ip: &IpAddr) -> u8 {
    let near = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        // fc00::/7 and fe80::/10
        IpAddr::V6(ip) => ip.segments()[0] & 0xfe00 == 0xfc00 || ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    match (ip.is_loopback(), near) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(addresses: Vec<Vec<u8>>) -> Vec<String> {
        addresses
            .into_iter()
            .map(|address| String::from_utf8(address).unwrap())
            .collect()
    }

    fn ips(list: &[&str]) -> Result<Vec<IpAddr>, String> {
        Ok(list.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    #[test]
    fn an_unspecified_address_stands_for_those_of_the_interfaces_the_furthest_reaching_first() {
        let interfaces = ips(&[
            "127.0.0.1",
            "192.168.1.9",
            "198.51.100.7",
            "10.0.0.1",
            "198.51.100.10",
            "::1",
            "fe80::1",
            "2001:db8::1",
            "fd00::1",
            "169.254.0.1",
        ]);
        let found = announced(&["0.0.0.0:7".into(), "192.0.2.1:8".into(), "[::]:9".into()], interfaces).unwrap();
        assert_eq!(
            texts(found),
            [
                "198.51.100.10:7",
                "198.51.100.7:7",
                "10.0.0.1:7",
                "169.254.0.1:7",
                "192.168.1.9:7",
                "127.0.0.1:7",
                "192.0.2.1:8",
                "[2001:db8::1]:9",
                "[fd00::1]:9",
                "[fe80::1]:9",
            ],
            "ten at most: [::1]:9 stays out"
        );
    }

    #[test]
    fn no_address_is_announced_twice_and_without_any_there_is_an_error() {
        let found = announced(
            &["10.0.0.1:7".into(), "0.0.0.0:7".into(), "10.0.0.1:7".into()],
            ips(&["10.0.0.1"]),
        );
        assert_eq!(texts(found.unwrap()), ["10.0.0.1:7"]);
        assert_eq!(
            announced(&["[::]:7".into()], ips(&["10.0.0.1"])),
            Err(AddressError::None)
        );
        assert_eq!(announced(&[], ips(&["10.0.0.1"])), Err(AddressError::None));
        let unreadable = announced(&["0.0.0.0:7".into()], Err("no".into()));
        assert_eq!(unreadable, Err(AddressError::Interfaces("no".into())));
        assert_eq!(
            texts(announced(&["10.0.0.1:7".into()], Err("no".into())).unwrap()),
            ["10.0.0.1:7"]
        );
        assert!(matches!(
            announced(&["localhost:7".into()], ips(&[])),
            Err(AddressError::NotAnIpAndPort(_))
        ));
    }

    #[test]
    fn the_longest_address_is_not_too_long() {
        let longest = "[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535";
        assert_eq!(longest.len(), 53);
        assert!(parse(longest.as_bytes()).is_ok());
        assert_eq!(parse(format!("{longest} ").as_bytes()), Err(AddressError::TooLong(54)));
    }
}
