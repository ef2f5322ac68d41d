//! How many connections there are, by everything that has a cap.

use super::limits::{Caps, Prefixes, index};
use super::rates::{Block, block};
use crate::address::{Parts, TransportKind, host};
use crate::context::Direction;
use crate::verdict::Stage;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

/// Which ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cap {
    Total,
    Direction(Direction),
    Pending(Direction),
    PerPeer,
    PerIp,
    PerPrefix,
    Transport(TransportKind),
}

/// What is counted of one connection. Kept, for it has to be taken off again as it was put on.
#[derive(Debug, Clone, Copy)]
struct Counted {
    direction: Direction,
    peer: PeerId,
    kind: TransportKind,
    ip: Option<IpAddr>,
}

#[derive(Default)]
pub(super) struct Counts {
    pending: HashMap<ConnectionId, Direction>,
    pending_inbound: u32,
    established: HashMap<ConnectionId, Counted>,
    inbound: u32,
    kinds: [u32; TransportKind::ALL.len()],
    peers: HashMap<PeerId, u32>,
    ips: HashMap<IpAddr, u32>,
    /// By the size in `sized`.
    blocks: HashMap<Block, u32>,
    sized: Prefixes,
}

impl Counts {
    pub(super) fn pending(&mut self, id: ConnectionId, direction: Direction) {
        if self.pending.insert(id, direction).is_none() && direction == Direction::Inbound {
            self.pending_inbound += 1;
        }
    }

    pub(super) fn failed(&mut self, id: ConnectionId) {
        if self.pending.remove(&id) == Some(Direction::Inbound) {
            self.pending_inbound -= 1;
        }
    }

    pub(super) fn established(&mut self, id: ConnectionId, peer: &PeerId, direction: Direction, parts: &Parts) {
        self.failed(id);
        let counted = Counted {
            direction,
            peer: *peer,
            kind: parts.kind,
            ip: counted(parts),
        };
        let Entry::Vacant(place) = self.established.entry(id) else {
            return;
        };
        place.insert(counted);
        self.inbound += u32::from(direction == Direction::Inbound);
        if let Some(kind) = self.kinds.get_mut(index(counted.kind)) {
            *kind += 1;
        }
        *self.peers.entry(counted.peer).or_default() += 1;
        if let Some(ip) = counted.ip {
            *self.ips.entry(ip).or_default() += 1;
            *self.blocks.entry(block(Some(ip), self.sized)).or_default() += 1;
        }
    }

    pub(super) fn closed(&mut self, id: ConnectionId) {
        let Some(counted) = self.established.remove(&id) else {
            return;
        };
        self.inbound -= u32::from(counted.direction == Direction::Inbound);
        if let Some(kind) = self.kinds.get_mut(index(counted.kind)) {
            *kind -= 1;
        }
        release(&mut self.peers, counted.peer);
        if let Some(ip) = counted.ip {
            release(&mut self.ips, ip);
            release(&mut self.blocks, block(Some(ip), self.sized));
        }
    }

    /// Counts blocks of another size from now on.
    pub(super) fn resize(&mut self, prefixes: Prefixes) {
        if self.sized == prefixes {
            return;
        }
        self.sized = prefixes;
        self.blocks.clear();
        for ip in self.established.values().filter_map(|counted| counted.ip) {
            *self.blocks.entry(block(Some(ip), prefixes)).or_default() += 1;
        }
    }

    /// The first ceiling that one more connection would break, as far as is known at `stage`, with the figure.
    pub(super) fn full(
        &self,
        caps: &Caps,
        stage: Stage,
        direction: Direction,
        peer: Option<&PeerId>,
        parts: Option<&Parts>,
    ) -> Option<(Cap, u32)> {
        let reached = |cap: Option<u32>, count: u32| cap.filter(|most| count >= *most);
        let established = u32::try_from(self.established.len()).unwrap_or(u32::MAX);
        if let Some(most) = reached(caps.total, established) {
            return Some((Cap::Total, most));
        }
        let (cap, count) = match direction {
            Direction::Inbound => (caps.inbound, self.inbound),
            Direction::Outbound => (caps.outbound, established - self.inbound),
        };
        if let Some(most) = reached(cap, count) {
            return Some((Cap::Direction(direction), most));
        }
        if let Some(most) = peer.and_then(|peer| reached(caps.per_peer, of(&self.peers, peer))) {
            return Some((Cap::PerPeer, most));
        }
        if let Some(parts) = parts {
            let at = index(parts.kind);
            let (cap, count) = (caps.per_transport.get(at).copied().flatten(), self.kinds.get(at));
            if let Some(most) = reached(cap, count.copied().unwrap_or_default()) {
                return Some((Cap::Transport(parts.kind), most));
            }
            if let Some(ip) = counted(parts) {
                if let Some(most) = reached(caps.per_ip, of(&self.ips, &ip)) {
                    return Some((Cap::PerIp, most));
                }
                let per_prefix = caps.per_prefix.map(|(most, _)| most);
                if let Some(most) = reached(per_prefix, of(&self.blocks, &block(Some(ip), self.sized))) {
                    return Some((Cap::PerPrefix, most));
                }
            }
        }
        self.no_place(caps, stage, peer)
    }

    /// The same of attempts alone.
    pub(super) fn no_place(&self, caps: &Caps, stage: Stage, peer: Option<&PeerId>) -> Option<(Cap, u32)> {
        let outbound = || u32::try_from(self.pending.len()).unwrap_or(u32::MAX) - self.pending_inbound;
        let (direction, cap, count) = match stage {
            Stage::Accept => (Direction::Inbound, caps.pending_inbound, self.pending_inbound),
            Stage::PeerDial => (Direction::Outbound, caps.pending_outbound, outbound()),
            // Of a dial that names nobody no peer was asked about, and it is among them already.
            Stage::AddrDial if peer.is_none() => {
                (Direction::Outbound, caps.pending_outbound, outbound().saturating_sub(1))
            }
            _ => return None,
        };
        let most = cap.filter(|most| count >= *most)?;
        Some((Cap::Pending(direction), most))
    }
}

/// The IP that a connection comes from or goes to, as its address is written.
pub(super) fn source(parts: &Parts) -> Option<IpAddr> {
    parts.ip.filter(|_| !parts.is_relayed())
}

/// The IP that a connection counts for: one host of IPv4 is one, whether or not a translator or a
/// tunnel is in between.
pub(super) fn counted(parts: &Parts) -> Option<IpAddr> {
    source(parts).map(host)
}

fn of<K: Eq + Hash>(counts: &HashMap<K, u32>, key: &K) -> u32 {
    counts.get(key).copied().unwrap_or_default()
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_core::Multiaddr;

    fn parts(address: &str) -> Parts {
        Parts::of(&address.parse::<Multiaddr>().expect("an address"))
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    /// As `fuzz` of go-libp2p's per-IP limiter: what was added and removed leaves nothing.
    #[test]
    fn what_has_come_and_gone_leaves_no_count() {
        let mut counts = Counts::default();
        let peers: Vec<PeerId> = (0..5).map(|_| PeerId::random()).collect();
        for n in 0..200 {
            let direction = if n % 3 == 0 {
                Direction::Inbound
            } else {
                Direction::Outbound
            };
            counts.pending(id(n), direction);
            match n % 5 {
                0 => counts.failed(id(n)),
                _ => {
                    let there = parts(&format!("/ip4/192.0.{}.{}/tcp/1", n % 3, n % 7));
                    counts.established(id(n), &peers[n % 5], direction, &there);
                }
            }
            // Told twice, counted once.
            counts.established(id(1), &peers[0], Direction::Inbound, &parts("/memory/1"));
            if n == 100 {
                counts.resize(Prefixes::new(16, 32));
            }
        }
        for n in (0..200).rev() {
            counts.closed(id(n));
            counts.closed(id(n));
        }
        assert!(counts.pending.is_empty() && counts.established.is_empty() && counts.peers.is_empty());
        assert!(counts.ips.is_empty() && counts.blocks.is_empty());
        assert_eq!((counts.inbound, counts.pending_inbound), (0, 0));
        assert_eq!(counts.kinds, [0; TransportKind::ALL.len()]);
    }

    #[test]
    fn blocks_are_counted_by_the_size_that_is_asked_for_now() {
        let mut counts = Counts::default();
        let peer = PeerId::random();
        counts.established(id(1), &peer, Direction::Inbound, &parts("/ip4/192.0.2.1/tcp/1"));
        let full = |counts: &Counts, prefixes, address: &str| {
            let caps = Caps::new().with_per_prefix(1, prefixes);
            counts.full(&caps, Stage::Accept, Direction::Inbound, None, Some(&parts(address)))
        };
        let narrow = Prefixes::default();
        assert_eq!(full(&counts, narrow, "/ip4/192.0.2.9/tcp/1"), Some((Cap::PerPrefix, 1)));
        assert_eq!(full(&counts, narrow, "/ip4/192.0.3.9/tcp/1"), None);
        counts.resize(Prefixes::new(16, 48));
        assert_eq!(
            full(&counts, Prefixes::new(16, 48), "/ip4/192.0.3.9/tcp/1"),
            Some((Cap::PerPrefix, 1))
        );
    }
}
