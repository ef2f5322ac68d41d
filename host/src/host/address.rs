//! Addresses of hosts, in the form in which the transport wants them.

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use std::net::{IpAddr, SocketAddr};

/// IP addresses of one name that are tried, at most.
const OF_A_NAME: usize = 8;

/// With `/tls` and without our own id, `local`: where to listen. Another's id stays, for the
/// transport to refuse.
pub(super) fn listening(address: &Multiaddr, local: &PeerId) -> Multiaddr {
    let mut address = address.clone();
    while address.iter().last() == Some(Protocol::P2p(*local)) {
        address.pop();
    }
    if !matches!(address.iter().last(), Some(Protocol::Tls | Protocol::P2p(_))) {
        address.push(Protocol::Tls);
    }
    address
}

/// What was `configured`, with the port of `found`, one of the addresses that came of it: a port of 0 is chosen by the system, and
/// of an unspecified IP address come many.
pub(super) fn bound(configured: &Multiaddr, found: &Multiaddr, local: &PeerId) -> Multiaddr {
    let port = found.iter().find(|part| matches!(part, Protocol::Tcp(_)));
    let configured = listening(configured, local);
    let parts = configured.iter().map(|part| match (&part, &port) {
        (Protocol::Tcp(0), Some(port)) => port.clone(),
        _ => part,
    });
    parts.collect()
}

/// Where to dial `peer`: an IP address or a name, a port, `/tls`, and the peer. None for an address
/// that names another peer, and for one that no host can be behind: neither takes a place in a
/// round of dials.
pub(super) fn dialling(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    let mut parts = address.iter().peekable();
    let (host, port) = (parts.next()?, parts.next()?);
    let dialled = match &host {
        Protocol::Ip4(ip) => !ip.is_unspecified(),
        Protocol::Ip6(ip) => !ip.is_unspecified(),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => true,
        _ => false,
    };
    if !dialled || !matches!(port, Protocol::Tcp(1..)) {
        return None;
    }
    parts.next_if_eq(&Protocol::Tls);
    let theirs = parts.all(|part| part == Protocol::P2p(*peer));
    theirs.then(|| {
        Multiaddr::from(host)
            .with(port)
            .with(Protocol::Tls)
            .with(Protocol::P2p(*peer))
    })
}

/// Whether a name has to be looked up before `address` can be dialled.
pub(super) fn is_name(address: &Multiaddr) -> bool {
    matches!(
        address.iter().next(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
    )
}

/// `address` with the IP addresses that the system finds for its name. Empty, with a line in the log, if it finds none.
pub(super) async fn resolved(address: Multiaddr) -> Vec<Multiaddr> {
    let mut parts = address.iter();
    let (Some(name), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
        return vec![address];
    };
    let (name, wanted): (_, fn(&IpAddr) -> bool) = match name {
        Protocol::Dns(name) => (name, |_| true),
        Protocol::Dns4(name) => (name, IpAddr::is_ipv4),
        Protocol::Dns6(name) => (name, IpAddr::is_ipv6),
        _ => return vec![address],
    };
    let found: Vec<SocketAddr> = match tokio::net::lookup_host((&*name, port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::debug!(%address, %error, "no address for this name");
            return Vec::new();
        }
    };
    let ips = found.iter().map(SocketAddr::ip).filter(wanted).take(OF_A_NAME);
    let with = |ip| address.iter().skip(1).fold(Multiaddr::from(ip), Multiaddr::with);
    ips.map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_becomes_the_addresses_of_its_family_and_the_rest_stays() {
        let resolve = |address: &str| {
            let address: Multiaddr = address.parse().unwrap();
            async move {
                let found = resolved(address).await;
                found.iter().map(ToString::to_string).collect::<Vec<_>>()
            }
        };
        // Literals are names that need nobody's help.
        assert_eq!(
            resolve("/dns/192.0.2.7/tcp/4001/tls").await,
            ["/ip4/192.0.2.7/tcp/4001/tls"]
        );
        assert_eq!(resolve("/dns4/192.0.2.7/tcp/4001").await, ["/ip4/192.0.2.7/tcp/4001"]);
        assert_eq!(resolve("/dns6/192.0.2.7/tcp/4001").await, [""; 0]);
        assert_eq!(resolve("/ip4/192.0.2.7/tcp/4001").await, ["/ip4/192.0.2.7/tcp/4001"]);
        // No name has a zero in it, and no resolver is asked.
        let none = Multiaddr::from(Protocol::Dns("a\0b".into())).with(Protocol::Tcp(4001));
        assert!(resolved(none).await.is_empty());
    }

    #[test]
    fn names_are_looked_up_and_nothing_else_is() {
        for (address, name) in [
            ("/dns/example.org/tcp/1", true),
            ("/dns4/example.org/tcp/1", true),
            ("/dns6/example.org/tcp/1", true),
            ("/dnsaddr/example.org", false),
            ("/ip4/192.0.2.7/tcp/1", false),
        ] {
            assert_eq!(is_name(&address.parse().unwrap()), name, "{address}");
        }
    }

    #[test]
    fn an_address_that_stands_for_many_stays_one_with_the_port_of_all() {
        let local = PeerId::random();
        let bound = |configured: &str, found: &str| {
            bound(&configured.parse().unwrap(), &found.parse().unwrap(), &local).to_string()
        };
        assert_eq!(
            bound("/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/7/tls"),
            "/ip4/0.0.0.0/tcp/7/tls"
        );
        assert_eq!(bound("/ip6/::/tcp/9/tls", "/ip6/::1/tcp/9/tls"), "/ip6/::/tcp/9/tls");
    }

    #[test]
    fn an_address_is_taken_however_much_of_it_is_written() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let full: Multiaddr = format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{peer}").parse().unwrap();
        for tail in [
            String::new(),
            "/tls".into(),
            format!("/p2p/{peer}"),
            format!("/tls/p2p/{peer}"),
            format!("/tls/p2p/{peer}/p2p/{peer}"),
        ] {
            let address: Multiaddr = format!("/ip4/192.0.2.7/tcp/4001{tail}").parse().unwrap();
            assert_eq!(dialling(&address, &peer), Some(full.clone()), "{tail}");
            assert_eq!(listening(&address, &peer).to_string(), "/ip4/192.0.2.7/tcp/4001/tls");
        }
        assert_eq!(dialling(&full, &other), None);
        assert_eq!(listening(&full, &other), full, "for the transport to refuse");
    }

    #[test]
    fn what_no_host_can_be_behind_takes_no_place_in_a_round_of_dials() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        for address in [
            "/ip4/192.0.2.7/udp/4001/quic-v1".to_owned(),
            "/ip4/192.0.2.7/tcp/4001/ws".to_owned(),
            "/ip4/192.0.2.7/tcp/4001/tls/ws".to_owned(),
            "/ip4/192.0.2.7/tcp/4001/tls/sni/example.org".to_owned(),
            "/ip4/192.0.2.7/tcp/0".to_owned(),
            "/ip4/0.0.0.0/tcp/4001".to_owned(),
            "/ip6/::/tcp/4001".to_owned(),
            "/ip4/192.0.2.7".to_owned(),
            "/dnsaddr/example.org".to_owned(),
            "/memory/7".to_owned(),
            format!("/p2p/{peer}"),
            format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{other}/p2p-circuit/p2p/{peer}"),
            format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{peer}/p2p/{other}"),
        ] {
            assert_eq!(dialling(&address.parse().unwrap(), &peer), None, "{address}");
        }
        assert_eq!(dialling(&Multiaddr::empty(), &peer), None);
    }
}
