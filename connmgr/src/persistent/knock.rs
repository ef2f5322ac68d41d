//! What a knock's address is. The rule is `libp2p-knock`'s `is_knock_address`, said again as this
//! crate does not depend on that one.

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;

/// Whether `/tls` is the last component, but for a `/p2p/<peer>` behind it.
pub(crate) fn is_knock(address: &Multiaddr) -> bool {
    let mut parts = address.iter().collect::<Vec<_>>();
    if let Some(Protocol::P2p(_)) = parts.last() {
        parts.pop();
    }
    parts.len() > 1 && parts.last() == Some(&Protocol::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knocks_address_is_what_the_transport_says_it_is() {
        const PEER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        for (address, knock) in [
            ("/ip4/192.0.2.7/tcp/4001/tls".to_owned(), true),
            (format!("/dns4/example.org/tcp/4001/tls/p2p/{PEER}"), true),
            ("/memory/7/tls".to_owned(), true),
            (
                format!("/ip4/192.0.2.7/tcp/4001/p2p/{PEER}/p2p-circuit/tls/p2p/{PEER}"),
                true,
            ),
            ("/ip4/192.0.2.7/tcp/4001".to_owned(), false),
            ("/ip4/192.0.2.7/tcp/443/tls/ws".to_owned(), false),
            (
                format!("/ip4/192.0.2.7/tcp/4001/tls/p2p/{PEER}/p2p-circuit/p2p/{PEER}"),
                false,
            ),
            ("/tls".to_owned(), false),
            (format!("/tls/p2p/{PEER}"), false),
            (format!("/p2p/{PEER}"), false),
        ] {
            let address: Multiaddr = address.parse().unwrap();
            assert_eq!(is_knock(&address), knock, "{address}");
            assert_eq!(libp2p_knock::is_knock_address(&address), knock, "{address}");
        }
        assert!(!is_knock(&Multiaddr::empty()));
    }
}
