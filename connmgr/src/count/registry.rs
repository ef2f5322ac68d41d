//! Connections that the transport has made and the Swarm has not announced yet.

use super::activity::Activity;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use web_time::Instant;

/// Where the transport leaves what it counts, and the manager picks it up. A clone is the same registry.
///
/// Holds only what was not joined: mostly nothing, at most as many entries as there are connections. The lock is taken
/// twice in the life of a connection, and never while it carries data.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_peer: HashMap<PeerId, Vec<Entry>>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    direction: Endpoint,
    remote: Multiaddr,
    activity: Activity,
}

/// A connection's place in the registry. Dropping it, with the connection, gives the place up.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Registry,
    peer: PeerId,
    id: u64,
}

impl Registry {
    /// An empty one; its clock of last activities begins now.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            waiting: Mutex::default(),
        }))
    }

    /// The activity of the connection that the Swarm announces, if it is clear which one that is.
    ///
    /// To be called once for each connection, when it is established: an entry is given out once, and entries between
    /// which the choice is not clear are given up.
    pub fn join(&self, peer: &PeerId, endpoint: &ConnectedPoint) -> Option<Activity> {
        let direction = endpoint.to_endpoint();
        let remote = without_peer(endpoint.get_remote_address().clone());
        let mut waiting = self.lock();
        let entries = waiting.by_peer.get_mut(peer)?;
        let exactly = |entry: &Entry| entry.direction == direction && entry.remote == remote;
        let roughly = |entry: &Entry| entry.direction == direction;
        let taken = if entries.iter().any(exactly) {
            take(entries, exactly)
        } else {
            take(entries, roughly)
        };
        if entries.is_empty() {
            waiting.by_peer.remove(peer);
        }
        drop(waiting);
        match <[Entry; 1]>::try_from(taken) {
            Ok([entry]) => Some(entry.activity),
            Err(_) => None,
        }
    }

    /// How many connections wait to be announced.
    pub fn waiting(&self) -> usize {
        self.lock().by_peer.values().map(Vec::len).sum()
    }

    /// Enters a connection whose upgrade has just ended. `remote` is the address that was dialled, or that the listener
    /// would send to.
    pub(crate) fn enter(
        &self,
        peer: PeerId,
        direction: Endpoint,
        remote: Multiaddr,
        now: Instant,
    ) -> (Activity, Place) {
        let activity = Activity::new(self.0.origin, now);
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        waiting.by_peer.entry(peer).or_default().push(Entry {
            id,
            direction,
            remote: without_peer(remote),
            activity: activity.clone(),
        });
        drop(waiting);
        let registry = self.clone();
        (activity, Place { registry, peer, id })
    }

    /// Nothing in here panics half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.registry.lock();
        if let Some(entries) = waiting.by_peer.get_mut(&self.peer) {
            entries.retain(|entry| entry.id != self.id);
            if entries.is_empty() {
                waiting.by_peer.remove(&self.peer);
            }
        }
    }
}

fn take(entries: &mut Vec<Entry>, which: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    entries.extract_if(.., |entry| which(entry)).collect()
}

/// The Swarm puts the peer at the end of an address before it dials, if it knows it. That is no part of where it leads.
fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::super::activity::Opener;
    use super::*;
    use libp2p_core::transport::PortUse;

    fn dialled(address: &str) -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: address.parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        }
    }

    fn accepted(address: &str) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: "/ip4/127.0.0.1/tcp/4001".parse().unwrap(),
            send_back_addr: address.parse().unwrap(),
        }
    }

    /// Enters a connection with `streams` outbound streams, by which it is known again.
    fn enter(registry: &Registry, peer: PeerId, direction: Endpoint, address: &str, streams: u32) -> Place {
        let now = Instant::now();
        let (activity, place) = registry.enter(peer, direction, address.parse().unwrap(), now);
        for _ in 0..streams {
            activity.opened(Opener::Local, now);
        }
        place
    }

    fn joined(registry: &Registry, peer: &PeerId, endpoint: &ConnectedPoint) -> Option<u32> {
        registry.join(peer, endpoint).map(|activity| activity.streams())
    }

    #[test]
    fn connections_are_told_apart_by_peer_direction_and_address() {
        let registry = Registry::new();
        let (ada, bob) = (PeerId::random(), PeerId::random());
        let _places = [
            enter(&registry, ada, Endpoint::Dialer, "/ip4/192.0.2.1/tcp/1", 1),
            enter(&registry, ada, Endpoint::Listener, "/ip4/192.0.2.1/tcp/1", 2),
            enter(&registry, ada, Endpoint::Listener, "/ip4/192.0.2.1/tcp/2", 3),
            enter(&registry, bob, Endpoint::Listener, "/ip4/192.0.2.1/tcp/2", 4),
        ];
        assert_eq!(joined(&registry, &ada, &accepted("/ip4/192.0.2.1/tcp/2")), Some(3));
        assert_eq!(joined(&registry, &bob, &accepted("/ip4/192.0.2.1/tcp/2")), Some(4));
        assert_eq!(joined(&registry, &ada, &dialled("/ip4/192.0.2.1/tcp/1")), Some(1));
        assert_eq!(joined(&registry, &ada, &accepted("/ip4/192.0.2.1/tcp/1")), Some(2));
        assert_eq!(registry.waiting(), 0);
    }

    #[test]
    fn the_peer_that_the_swarm_appends_is_no_difference() {
        let registry = Registry::new();
        let peer = PeerId::random();
        let with_peer = format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}");
        let _a = enter(&registry, peer, Endpoint::Dialer, &with_peer, 1);
        let _b = enter(&registry, peer, Endpoint::Dialer, "/ip4/192.0.2.1/tcp/2", 2);
        assert_eq!(joined(&registry, &peer, &dialled("/ip4/192.0.2.1/tcp/1")), Some(1));
        assert_eq!(
            joined(&registry, &peer, &dialled(&format!("/ip4/192.0.2.1/tcp/2/p2p/{peer}"))),
            Some(2)
        );
    }

    #[test]
    fn a_name_that_was_resolved_is_joined_when_there_is_only_one() {
        let registry = Registry::new();
        let peer = PeerId::random();
        let _in = enter(&registry, peer, Endpoint::Listener, "/ip4/192.0.2.1/tcp/9", 5);
        let _out = enter(&registry, peer, Endpoint::Dialer, "/ip4/192.0.2.1/tcp/1", 1);
        assert_eq!(joined(&registry, &peer, &dialled("/dns4/example.org/tcp/1")), Some(1));
    }

    #[test]
    fn two_that_could_be_either_are_both_unknown() {
        let registry = Registry::new();
        let peer = PeerId::random();
        let _a = enter(&registry, peer, Endpoint::Dialer, "/ip4/192.0.2.1/tcp/1", 1);
        let _b = enter(&registry, peer, Endpoint::Dialer, "/ip4/192.0.2.2/tcp/1", 2);
        assert_eq!(joined(&registry, &peer, &dialled("/dns4/example.org/tcp/1")), None);
        assert_eq!(joined(&registry, &peer, &dialled("/dns4/example.org/tcp/1")), None);
        // Nor is a later one taken for the one of the two that is left.
        assert_eq!(registry.waiting(), 0);
    }

    #[test]
    fn two_dials_of_one_address_at_once_are_both_unknown() {
        let registry = Registry::new();
        let peer = PeerId::random();
        let _a = enter(&registry, peer, Endpoint::Dialer, "/ip4/192.0.2.1/tcp/1", 1);
        let _b = enter(&registry, peer, Endpoint::Dialer, "/ip4/192.0.2.1/tcp/1", 2);
        assert_eq!(joined(&registry, &peer, &dialled("/ip4/192.0.2.1/tcp/1")), None);
        assert_eq!(joined(&registry, &peer, &dialled("/ip4/192.0.2.1/tcp/1")), None);
    }

    #[test]
    fn a_connection_that_was_never_announced_leaves_nothing_behind() {
        let registry = Registry::new();
        let peer = PeerId::random();
        let place = enter(&registry, peer, Endpoint::Listener, "/ip4/192.0.2.1/tcp/1", 1);
        assert_eq!(registry.waiting(), 1);
        drop(place);
        assert_eq!(registry.waiting(), 0);
        assert_eq!(joined(&registry, &peer, &accepted("/ip4/192.0.2.1/tcp/1")), None);
    }

    #[test]
    fn an_unknown_peer_and_an_uncounted_transport_are_unknown() {
        let registry = Registry::new();
        let peer = PeerId::random();
        let _a = enter(&registry, peer, Endpoint::Listener, "/ip4/192.0.2.1/tcp/1", 1);
        assert_eq!(
            joined(&registry, &PeerId::random(), &accepted("/ip4/192.0.2.1/tcp/1")),
            None
        );
        assert_eq!(joined(&registry, &peer, &dialled("/ip4/192.0.2.1/tcp/1")), None);
        assert_eq!(registry.waiting(), 1);
    }
}
