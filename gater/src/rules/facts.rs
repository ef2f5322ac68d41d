//! What is known of a connection at a stage, as the rules want to have it.

use super::cidr::Cidr;
use crate::address::{Parts, TransportKind};
use crate::context::{Direction, Link};
use crate::verdict::Stage;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::net::IpAddr;

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

    /// The IPs that packets go to or are said to go to; `None` while that cannot be said.
    pub(super) fn ips(&self) -> Option<impl Iterator<Item = IpAddr>> {
        self.parts().filter(|parts| !parts.named).map(Parts::ips)
    }

    pub(super) fn touches(&self, network: Cidr) -> Option<bool> {
        Some(self.ips()?.any(|ip| network.contains(ip)))
    }

    /// Whether the remote itself is in `network`: what a relay says about what is behind it is no proof.
    pub(super) fn comes_from(&self, network: Cidr) -> Option<bool> {
        let parts = self.parts().filter(|parts| !parts.named)?;
        Some(!parts.is_relayed() && parts.ip.is_some_and(|ip| network.contains(ip)))
    }

    /// The peers that the address names: its end and its relay. Nobody has proven them.
    pub(super) fn named(&self) -> impl Iterator<Item = &'a PeerId> {
        let parts = self.parts();
        let end = parts.and_then(|parts| parts.peer.as_ref());
        end.into_iter().chain(parts.and_then(|parts| parts.relay.as_ref()))
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
