//! The address marker: `/tls` at the end, before an optional `/p2p/<peer>`.
//!
//! No transport of rust-libp2p claims `/tcp/N/tls`, so it reaches ours whatever the order in which transports are
//! asked, and every libp2p peer can parse it and pass it on.
//!
//! Circuits are different. A relay's client transport claims everything with `/p2p-circuit` in it,
//! and announces addresses that no transport on top of it can mark: its behaviour confirms
//! `<relay>/p2p-circuit/p2p/<peer>` as an external address. So a transport of ours over a relay's
//! takes a circuit with the marker or without, and one over anything else takes none.

use libp2p_core::multiaddr::{Multiaddr, Protocol};
use libp2p_identity::PeerId;

/// An address that is ours, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    /// What the inner transport is given.
    pub(crate) inner: Multiaddr,
    /// The peer that is to answer, if the address names one.
    pub(crate) peer: Option<PeerId>,
}

/// Whether an address says that one has to knock there: whether a transport of this crate would
/// claim it over an inner transport that knows what is in front of the marker.
///
/// ```text
/// knock = inner "/tls" peers
/// inner = 1*component            ; of TCP, memory, a Unix socket, a circuit
/// peers = *( "/p2p/" peer-id )   ; all the same
/// ```
///
/// A circuit (`<relay>/p2p-circuit/tls/p2p/<peer>`) may name its peer in front of the marker as
/// well, which has to be the same peer then. `/tls` with anything else behind it (`/tls/ws`,
/// `/tls/sni/example.org`, `/tls/p2p/<relay>/p2p-circuit`) is no knock. An address with two different
/// peers at its end is not claimed.
///
/// A circuit without the marker (`<relay>/p2p-circuit/p2p/<peer>`) does not say what is spoken
/// through it, so the answer is false. A transport of this crate over a relay's client claims it
/// all the same, and knocks: everything that such a transport dials does, and rust-libp2p's relay
/// announces circuits in that form alone.
///
/// For configuration files, address books and policies that have to tell the knock's addresses from stock ones.
///
/// ```
/// let knock = "/ip4/192.0.2.7/tcp/4001/tls".parse()?;
/// let stock = "/ip4/192.0.2.7/tcp/4001".parse()?;
/// assert!(libp2p_knock::is_knock_address(&knock) && !libp2p_knock::is_knock_address(&stock));
/// # Ok::<(), libp2p_core::multiaddr::Error>(())
/// ```
pub fn is_knock_address(address: &Multiaddr) -> bool {
    parse(address).is_some()
}

/// Whether it leads through a relay.
pub(crate) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| protocol == Protocol::P2pCircuit)
}

/// `<inner>/tls` of every address the transport emits. A circuit's peer stays behind the marker, as
/// everywhere.
pub(crate) fn mark(mut inner: Multiaddr) -> Multiaddr {
    match inner.pop() {
        Some(Protocol::P2p(peer)) if inner.iter().last() == Some(Protocol::P2pCircuit) => {
            inner.with(Protocol::Tls).with(Protocol::P2p(peer))
        }
        last => {
            last.into_iter().for_each(|last| inner.push(last));
            inner.with(Protocol::Tls)
        }
    }
}

/// Takes an address with the marker apart; `None` for anything else, which is then another
/// transport's address.
pub(crate) fn parse(address: &Multiaddr) -> Option<Marked> {
    let mut inner = address.clone();
    let mut peer = None;
    if pop_peers(&mut inner, &mut peer)? != Protocol::Tls || inner.is_empty() {
        return None;
    }
    if is_circuit(&inner) {
        return to_circuit(inner, peer);
    }
    Some(Marked { inner, peer })
}

/// The same of a circuit without the marker: what a relay's client announces.
pub(crate) fn parse_circuit(address: &Multiaddr) -> Option<Marked> {
    is_circuit(address).then(|| to_circuit(address.clone(), None))?
}

/// A relay needs to be told, once, whom the circuit leads to; every other transport does not care.
fn to_circuit(mut inner: Multiaddr, mut peer: Option<PeerId>) -> Option<Marked> {
    let last = pop_peers(&mut inner, &mut peer)?;
    inner.push(last);
    peer.into_iter().for_each(|peer| inner.push(Protocol::P2p(peer)));
    Some(Marked { inner, peer })
}

/// What is left of the circuit addresses that ask an inner transport whether it carries circuits:
/// too little to be dialled by one that does, and nothing that any other would take for its own.
pub(crate) fn circuit_probe(address: &Multiaddr) -> Multiaddr {
    let mut relay = Multiaddr::empty();
    for protocol in address {
        match protocol {
            Protocol::P2p(_) => {}
            Protocol::P2pCircuit => break,
            protocol => relay.push(protocol),
        }
    }
    relay.with(Protocol::P2pCircuit)
}

/// Takes the peers off the end, and the component before them. `None` if two of them differ, or
/// nothing is before them.
fn pop_peers(address: &mut Multiaddr, peer: &mut Option<PeerId>) -> Option<Protocol<'static>> {
    loop {
        match address.pop()? {
            Protocol::P2p(named) => {
                if *peer.get_or_insert(named) != named {
                    return None;
                }
            }
            other => return Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    const OTHER: &str = "12D3KooWRdMLPQGLUgdmpocSxFgNKVRBhVpXetFJiTL2wfNjkZep";

    fn parsed(address: &str) -> Option<(String, bool)> {
        let address = address.parse().expect("a multiaddr");
        parse(&address).map(|marked| (marked.inner.to_string(), marked.peer.is_some()))
    }

    #[test]
    fn the_marker_is_the_last_component_but_for_the_peer() {
        assert_eq!(
            parsed("/ip4/192.0.2.7/tcp/4001/tls"),
            Some(("/ip4/192.0.2.7/tcp/4001".into(), false))
        );
        assert_eq!(
            parsed(&format!("/ip6/2001:db8::7/tcp/4001/tls/p2p/{PEER}")),
            Some(("/ip6/2001:db8::7/tcp/4001".into(), true))
        );
        assert_eq!(
            parsed(&format!("/dns4/example.org/tcp/4001/tls/p2p/{PEER}")),
            Some(("/dns4/example.org/tcp/4001".into(), true))
        );
        assert_eq!(parsed("/memory/7/tls"), Some(("/memory/7".into(), false)));
    }

    #[test]
    fn addresses_of_other_transports_are_left_alone() {
        for other in [
            "/ip4/192.0.2.7/tcp/4001".to_owned(),
            format!("/ip4/192.0.2.7/tcp/4001/p2p/{PEER}"),
            "/ip4/192.0.2.7/tcp/443/tls/ws".to_owned(),
            "/ip4/192.0.2.7/tcp/443/tls/sni/example.org/ws".to_owned(),
            "/ip4/192.0.2.7/udp/4001/quic-v1".to_owned(),
            format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{PEER}/p2p-circuit/p2p/{PEER}"),
            "/ip4/192.0.2.7/tcp/443/tls/sni/example.org".to_owned(),
            format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{PEER}/p2p/{OTHER}"),
            format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{PEER}/p2p-circuit"),
            format!("/ip4/192.0.2.7/tcp/4001/p2p/{OTHER}/p2p-circuit/tls/p2p/{PEER}/p2p/{OTHER}"),
            format!("/ip4/192.0.2.7/tcp/4001/p2p/{OTHER}/p2p-circuit/p2p/{OTHER}/tls/p2p/{PEER}"),
            "/tls".to_owned(),
            format!("/tls/p2p/{PEER}"),
            format!("/p2p/{PEER}"),
        ] {
            assert_eq!(parsed(&other), None, "{other}");
        }
    }

    #[test]
    fn a_peer_that_is_named_more_than_once_is_one_peer() {
        let twice = format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{PEER}/p2p/{PEER}");
        assert_eq!(parsed(&twice), Some(("/ip4/192.0.2.7/tcp/4001".into(), true)));
    }

    #[test]
    fn a_socket_with_a_path_may_be_knocked_at() {
        let socket = Multiaddr::from(Protocol::Unix("/run/knock".into()));
        let address = socket.clone().with(Protocol::Tls);
        assert!(is_knock_address(&address) && !is_knock_address(&socket));
        let peer = PEER.parse().expect("a peer");
        assert!(is_knock_address(&address.with(Protocol::P2p(peer))));
    }

    #[test]
    fn a_relay_is_told_the_target_once_wherever_the_address_names_it() {
        let relay = format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{OTHER}/p2p-circuit");
        let inner = format!("{relay}/p2p/{PEER}");
        for target in [
            format!("{relay}/tls/p2p/{PEER}"),
            format!("{relay}/tls/p2p/{PEER}/p2p/{PEER}"),
            format!("{relay}/p2p/{PEER}/tls"),
            format!("{relay}/p2p/{PEER}/tls/p2p/{PEER}"),
        ] {
            assert_eq!(parsed(&target), Some((inner.clone(), true)), "{target}");
        }
        assert_eq!(parsed(&format!("{relay}/tls")), Some((relay.clone(), false)));
    }

    #[test]
    fn a_circuit_without_the_marker_is_no_knock_by_its_address() {
        let relay = format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{OTHER}/p2p-circuit");
        for (peers, named) in [
            (String::new(), false),
            (format!("/p2p/{PEER}"), true),
            (format!("/p2p/{PEER}/p2p/{PEER}"), true),
        ] {
            let circuit: Multiaddr = format!("{relay}{peers}").parse().expect("a multiaddr");
            assert!(!is_knock_address(&circuit), "{circuit}");
            let marked = parse_circuit(&circuit).expect("a circuit");
            assert_eq!(marked.peer.is_some(), named);
            let named = if named { format!("/p2p/{PEER}") } else { String::new() };
            assert_eq!(marked.inner.to_string(), format!("{relay}{named}"));
        }
        let direct = format!("/ip4/192.0.2.7/tcp/4001/p2p/{PEER}")
            .parse()
            .expect("a multiaddr");
        assert_eq!(parse_circuit(&direct), None);
    }

    #[test]
    fn what_a_relay_is_asked_with_names_nobody() {
        let circuit = format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{OTHER}/p2p-circuit/tls/p2p/{PEER}");
        let probe = circuit_probe(&circuit.parse().expect("a multiaddr"));
        assert_eq!(probe.to_string(), "/ip4/192.0.2.7/tcp/4001/tls/p2p-circuit");
    }

    #[test]
    fn marking_and_parsing_are_inverse() {
        for inner in [
            "/ip4/192.0.2.7/tcp/4001".to_owned(),
            "/memory/7".to_owned(),
            format!("/ip4/192.0.2.7/tcp/4001/p2p/{OTHER}/p2p-circuit"),
            format!("/ip4/192.0.2.7/tcp/4001/p2p/{OTHER}/p2p-circuit/p2p/{PEER}"),
        ] {
            let inner: Multiaddr = inner.parse().expect("a multiaddr");
            let marked = mark(inner.clone());
            assert_eq!(parse(&marked).map(|marked| marked.inner), Some(inner), "{marked}");
        }
        // What a relay's client says of who calls.
        let caller: Multiaddr = format!("/p2p/{PEER}").parse().expect("a multiaddr");
        assert_eq!(mark(caller).to_string(), format!("/p2p/{PEER}/tls"));
    }

    #[test]
    fn the_marker_of_a_circuit_stands_before_its_peer() {
        let relay = format!("/ip4/192.0.2.7/tcp/4001/p2p/{OTHER}/p2p-circuit");
        let announced = format!("{relay}/p2p/{PEER}").parse().expect("a multiaddr");
        assert_eq!(mark(announced).to_string(), format!("{relay}/tls/p2p/{PEER}"));
    }
}
