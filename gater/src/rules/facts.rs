//! What is known of a connection at a stage, as the rules want to have it.

use super::cidr::Cidr;
use crate::address::{Parts, TransportKind};
use crate::context::{Direction, Link};
use crate::verdict::Stage;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) stage: Stage,
    pub(super) direction: Direction,
    /// Proven, or the one that is dialled. Never what only a relay says.
    pub(super) peer: Option<&'a PeerId>,
    /// Of a dial that has not come to its addresses, nothing.
    pub(super) link: Option<&'a Link<'a>>,
}

impl<'a> Facts<'a> {
    /// What the remote address says; nothing if no address is known.
    pub(super) fn parts(&self) -> Option<&'a Parts> {
        self.link.filter(|link| link.remote.is_some()).map(|link| &link.parts)
    }

    /// Whether packets go, or are said to go, to `network`, by whatever form of an address; `None`
    /// while that cannot be said.
    pub(super) fn touches(&self, network: Cidr) -> Option<bool> {
        let parts = self.parts()?;
        match parts.ips().any(|ip| network.contains(ip)) {
            true => Some(true),
            // What a name stands for may be.
            false => (!parts.named).then_some(false),
        }
    }

    /// Whether the remote itself is in `network`, as its address is written: what a relay says
    /// about what is behind it is no proof, nor is an IPv4 address inside an IPv6 one, behind which
    /// a translator or a whole site can be.
    pub(super) fn comes_from(&self, network: Cidr) -> Option<bool> {
        let parts = self.parts().filter(|parts| !parts.named)?;
        Some(!parts.is_relayed() && parts.ip.is_some_and(|ip| network.contains(ip)))
    }

    /// The peers that the address names: its end and its relays. Nobody has proven them.
    pub(super) fn named(&self) -> impl Iterator<Item = &'a PeerId> {
        let parts = self.parts();
        let end = parts.and_then(|parts| parts.peer.as_ref());
        let relay = parts.and_then(|parts| parts.relay.as_ref());
        let second = parts.and_then(|parts| parts.second_relay.as_ref());
        end.into_iter().chain(relay).chain(second)
    }

    /// Those of them that are not the peer itself.
    pub(super) fn named_besides(&self) -> impl Iterator<Item = &'a PeerId> {
        let peer = self.peer;
        self.named().filter(move |named| peer != Some(*named))
    }

    /// Whether `peer` has part in it, as its end or as its relay, by proof or by what is said.
    pub(super) fn is_for(&self, peer: &PeerId) -> Option<bool> {
        if self.named().any(|other| other == peer) {
            return Some(true);
        }
        self.peer.map(|other| other == peer)
    }

    /// The port that was dialled, if the address has one; `None` while that cannot be said.
    pub(super) fn port(&self) -> Option<Option<u16>> {
        match self.direction {
            Direction::Outbound => self.parts().map(|parts| parts.port),
            Direction::Inbound => {
                let local = self.link?.local?;
                Some(Parts::of(local).port)
            }
        }
    }

    /// Our address, of what was accepted; `None` while that cannot be said.
    pub(super) fn listener(&self) -> Option<Option<&'a Multiaddr>> {
        match self.direction {
            Direction::Outbound => Some(None),
            Direction::Inbound => self.link?.local.map(Some),
        }
    }

    pub(super) fn is_over(&self, transport: TransportKind) -> Option<bool> {
        let parts = self.parts()?;
        // Inside a relay's circuit.
        let knock = transport == TransportKind::Knock && parts.is_relayed() && parts.knocks;
        Some(parts.kind == transport || knock)
    }
}
