//! Where a peer can be found: what the application says, and what was learned.

use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;

/// The addresses of one peer.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    given: Vec<Multiaddr>,
    /// The newest first.
    learned: Vec<Multiaddr>,
}

/// A peer says of itself what it likes: more than this of it is not remembered.
pub(crate) const MAX_LEARNED: usize = 8;

impl Addresses {
    /// Replaces what was given before.
    pub(crate) fn give(&mut self, addresses: Vec<Multiaddr>) {
        self.given.clear();
        for address in addresses.into_iter().map(without_peer) {
            if !self.given.contains(&address) {
                self.given.push(address);
            }
        }
    }

    /// What leads through a relay is not remembered: it is the relay's to forward, for as long as that reservation lasts.
    pub(crate) fn learn(&mut self, address: Multiaddr) {
        let address = without_peer(address);
        if address.is_empty() || address.iter().any(|part| part == Protocol::P2pCircuit) {
            return;
        }
        self.learned.retain(|have| *have != address);
        self.learned.insert(0, address);
        self.learned.truncate(MAX_LEARNED);
    }

    /// What was given stays: it may be right again tomorrow.
    pub(crate) fn unlearn(&mut self, address: &Multiaddr) {
        let address = without_peer(address.clone());
        self.learned.retain(|have| *have != address);
    }

    /// Each once, the given ones first.
    pub(crate) fn all(&self) -> Vec<Multiaddr> {
        let more = self.learned.iter().filter(|address| !self.given.contains(address));
        self.given.iter().chain(more).cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty() && self.learned.is_empty()
    }
}

/// The Swarm appends the peer itself.
fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::PeerId;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn tcp(port: usize) -> Multiaddr {
        address(&format!("/ip4/192.0.2.1/tcp/{port}"))
    }

    #[test]
    fn given_addresses_come_first_and_are_never_unlearned() {
        let mut addresses = Addresses::default();
        addresses.give(vec![tcp(1), tcp(2), tcp(1)]);
        addresses.learn(tcp(3));
        addresses.learn(tcp(2));
        assert_eq!(addresses.all(), [tcp(1), tcp(2), tcp(3)]);
        for port in 1..=3 {
            addresses.unlearn(&tcp(port));
        }
        assert_eq!(addresses.all(), [tcp(1), tcp(2)]);
    }

    #[test]
    fn only_so_many_are_learned_and_the_newest_are_kept() {
        let mut addresses = Addresses::default();
        for port in 1..=20 {
            addresses.learn(tcp(port));
        }
        let newest: Vec<Multiaddr> = (13..=20).rev().map(tcp).collect();
        assert_eq!(addresses.all(), newest);
    }

    #[test]
    fn the_peer_at_the_end_is_no_part_of_an_address_and_a_relay_is_not_learned() {
        let peer = PeerId::random();
        let mut addresses = Addresses::default();
        addresses.learn(address(&format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}")));
        addresses.learn(address(&format!(
            "/ip4/192.0.2.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"
        )));
        addresses.learn(address(&format!("/p2p/{peer}")));
        assert_eq!(addresses.all(), [tcp(1)]);
        addresses.unlearn(&address(&format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}")));
        assert!(addresses.is_empty());
    }
}
