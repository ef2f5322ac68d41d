//! The address marker: `/tls` at the end, before an optional `/p2p/<peer>`.
//!
//! No transport of rust-libp2p claims `/tcp/N/tls`, so it reaches ours whatever the order in which transports are
//! asked, and every libp2p peer can parse it and pass it on.

use libp2p_core::multiaddr::{Multiaddr, Protocol};
use libp2p_identity::PeerId;

/// An address that carries the marker, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    /// What the inner transport is given.
    pub(crate) inner: Multiaddr,
    /// The peer that is to answer, if the address names one.
    pub(crate) peer: Option<PeerId>,
}

/// Whether this transport would claim `address`: `/tls` is its last component, but for a `/p2p/<peer>` behind it.
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

/// `<inner>/tls` of every address the transport emits.
pub(crate) fn mark(inner: Multiaddr) -> Multiaddr {
    inner.with(Protocol::Tls)
}

/// Takes `<inner>/tls[/p2p/<peer>]` apart; `None` for anything else, which is then another transport's address.
pub(crate) fn parse(address: &Multiaddr) -> Option<Marked> {
    let mut inner = address.clone();
    let mut last = inner.pop()?;
    let mut peer = None;
    if let Protocol::P2p(named) = last {
        peer = Some(named);
        last = inner.pop()?;
    }
    if last != Protocol::Tls || inner.is_empty() {
        return None;
    }
    // A relay needs to be told whom the circuit leads to; every other transport does not care.
    if let Some(peer) = peer
        && inner.iter().any(|protocol| protocol == Protocol::P2pCircuit)
    {
        inner.push(Protocol::P2p(peer));
    }
    Some(Marked { inner, peer })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

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
            "/tls".to_owned(),
            format!("/tls/p2p/{PEER}"),
            format!("/p2p/{PEER}"),
        ] {
            assert_eq!(parsed(&other), None, "{other}");
        }
    }

    #[test]
    fn a_relay_is_told_the_target() {
        let target = format!("/ip4/192.0.2.7/tcp/4001/p2p/{PEER}/p2p-circuit/tls/p2p/{PEER}");
        let inner = format!("/ip4/192.0.2.7/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}");
        assert_eq!(parsed(&target), Some((inner, true)));
    }

    #[test]
    fn marking_and_parsing_are_inverse() {
        let inner: Multiaddr = "/ip4/192.0.2.7/tcp/4001".parse().expect("a multiaddr");
        assert_eq!(parse(&mark(inner.clone())), Some(Marked { inner, peer: None }));
    }
}
