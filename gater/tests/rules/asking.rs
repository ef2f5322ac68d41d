//! Questions in one line each.

use libp2p_core::{Endpoint, Multiaddr};
use libp2p_gater::{
    Accept, AddrDial, Cidr, ConnectionGater as _, Direction, Link, LiveConnection, Observation, PeerDial, Rules,
    Secured, Upgraded, Verdict,
};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn address(text: &str) -> Multiaddr {
    text.parse().expect(text)
}

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().expect(text)
}

/// The rule that says no, or how it passes.
pub(crate) fn name(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Deny(reason) => reason.rule().to_owned(),
        other => other.name().to_owned(),
    }
}

pub(crate) trait Asking {
    fn dial(&self, peer: &PeerId) -> String;
    fn dial_at(&self, peer: Option<&PeerId>, remote: &str) -> String;
    fn accept(&self, remote: &str) -> String;
    fn accept_on(&self, local: &str, remote: &str) -> String;
    fn secured_in(&self, peer: &PeerId, remote: &str) -> String;
    fn secured_out(&self, peer: &PeerId, remote: &str) -> String;
    fn upgraded_in(&self, peer: &PeerId, remote: &str) -> String;
    fn live_in(&self, peer: &PeerId, remote: &str) -> String;
    fn established(&self, id: usize, peer: &PeerId, direction: Direction, remote: &str);
    fn closed(&self, id: usize, peer: &PeerId, direction: Direction, remote: &str);
}

pub(crate) const LOCAL: &str = "/ip4/198.51.100.1/tcp/4001";

fn link<'a>(direction: Direction, local: &'a Multiaddr, remote: &'a Multiaddr) -> Link<'a> {
    match direction {
        Direction::Inbound => Link::inbound(local, remote),
        Direction::Outbound => Link::outbound(remote, Endpoint::Dialer),
    }
}

impl Asking for Rules {
    fn dial(&self, peer: &PeerId) -> String {
        name(&self.intercept_peer_dial(&PeerDial::new(peer)))
    }

    fn dial_at(&self, peer: Option<&PeerId>, remote: &str) -> String {
        let remote = address(remote);
        name(&self.intercept_addr_dial(&AddrDial::new(peer, Link::outbound(&remote, Endpoint::Dialer))))
    }

    fn accept(&self, remote: &str) -> String {
        self.accept_on(LOCAL, remote)
    }

    fn accept_on(&self, local: &str, remote: &str) -> String {
        let (local, remote) = (address(local), address(remote));
        name(&self.intercept_accept(&Accept::new(Link::inbound(&local, &remote))))
    }

    fn secured_in(&self, peer: &PeerId, remote: &str) -> String {
        let (local, remote) = (address(LOCAL), address(remote));
        name(&self.intercept_secured(&Secured::new(peer, Link::inbound(&local, &remote))))
    }

    fn secured_out(&self, peer: &PeerId, remote: &str) -> String {
        let remote = address(remote);
        name(&self.intercept_secured(&Secured::new(peer, Link::outbound(&remote, Endpoint::Dialer))))
    }

    fn upgraded_in(&self, peer: &PeerId, remote: &str) -> String {
        let (local, remote) = (address(LOCAL), address(remote));
        let link = Link::inbound(&local, &remote).with_connection(ConnectionId::new_unchecked(0));
        name(&self.intercept_upgraded(&Upgraded::new(peer, link)))
    }

    fn live_in(&self, peer: &PeerId, remote: &str) -> String {
        let (local, remote) = (address(LOCAL), address(remote));
        let link = Link::inbound(&local, &remote).with_connection(ConnectionId::new_unchecked(0));
        name(&self.judge_live(&LiveConnection::new(peer, link)))
    }

    fn established(&self, id: usize, peer: &PeerId, direction: Direction, remote: &str) {
        let (local, remote) = (address(LOCAL), address(remote));
        self.observe(&Observation::Established {
            connection: ConnectionId::new_unchecked(id),
            peer,
            link: link(direction, &local, &remote),
        });
    }

    fn closed(&self, id: usize, peer: &PeerId, direction: Direction, remote: &str) {
        let (local, remote) = (address(LOCAL), address(remote));
        self.observe(&Observation::Closed {
            connection: ConnectionId::new_unchecked(id),
            peer,
            link: link(direction, &local, &remote),
        });
    }
}

/// Both clocks, in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn rules(&self) -> Rules {
        let (steady, wall) = (self.0.clone(), self.clone());
        Rules::with_clock(
            move || Duration::from_millis(steady.load(Ordering::Relaxed)),
            move || wall.now(),
        )
    }

    pub(crate) fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn pass(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).expect("not for ever");
        self.0.fetch_add(time, Ordering::Relaxed);
    }

    /// By no more than has passed.
    pub(crate) fn back(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).expect("not for ever");
        self.0.fetch_sub(time, Ordering::Relaxed);
    }
}
