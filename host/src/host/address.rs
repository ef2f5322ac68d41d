//! Addresses of hosts, in the form in which the transport wants them.

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;

/// With `/tls` and without a peer: where to listen.
pub(super) fn listening(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    if address.iter().last() != Some(Protocol::Tls) {
        address.push(Protocol::Tls);
    }
    address
}

/// What was `configured`, with the port of `found`, one of the addresses that came of it: a port of 0 is chosen by the system, and
/// of an unspecified IP address come many.
pub(super) fn bound(configured: &Multiaddr, found: &Multiaddr) -> Multiaddr {
    let port = found.iter().find(|part| matches!(part, Protocol::Tcp(_)));
    let configured = listening(configured);
    let parts = configured.iter().map(|part| match (&part, &port) {
        (Protocol::Tcp(0), Some(port)) => port.clone(),
        _ => part,
    });
    parts.collect()
}

/// Where to dial `peer`. None for an address that says it is somebody else's.
pub(super) fn dialling(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    if let Some(Protocol::P2p(named)) = address.iter().last()
        && named != *peer
    {
        return None;
    }
    Some(listening(address).with(Protocol::P2p(*peer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_many_stays_one_with_the_port_of_all() {
        let bound =
            |configured: &str, found: &str| bound(&configured.parse().unwrap(), &found.parse().unwrap()).to_string();
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
        ] {
            let address: Multiaddr = format!("/ip4/192.0.2.7/tcp/4001{tail}").parse().unwrap();
            assert_eq!(dialling(&address, &peer), Some(full.clone()), "{tail}");
            assert_eq!(listening(&address).to_string(), "/ip4/192.0.2.7/tcp/4001/tls");
        }
        assert_eq!(dialling(&full, &other), None);
    }
}
