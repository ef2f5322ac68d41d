//! What a Swarm knows, for a host: kad, mDNS, identify, rendezvous and whatever else finds peers there.
//!
//! Behaviours that find an address tell the Swarm, which tells all of them. [`Behaviour`] listens to that and remembers; its
//! [`SwarmAddresses`] are the [`Discoverer`] of a host beside the Swarm. Nothing has to be configured for mDNS, identify,
//! rendezvous and [`Swarm::add_peer_address`](libp2p_swarm::Swarm::add_peer_address). kad looks for a peer only when it is told to:
//!
//! ```
//! use knock_host::discovery::swarm::{self, SwarmAddresses};
//! use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
//! use libp2p::kad;
//!
//! #[derive(NetworkBehaviour)]
//! struct Behaviour {
//!     finder: swarm::Behaviour,
//!     kad: kad::Behaviour<kad::store::MemoryStore>,
//! }
//!
//! // `addresses` is `finder.addresses()`: the host was started with a clone of it.
//! fn on_event(event: SwarmEvent<BehaviourEvent>, swarm: &mut Swarm<Behaviour>, addresses: &SwarmAddresses) {
//!     match event {
//!         SwarmEvent::Behaviour(BehaviourEvent::Finder(swarm::Event::Search(peer))) => {
//!             swarm.behaviour_mut().kad.get_closest_peers(peer);
//!         }
//!         SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
//!             result: kad::QueryResult::GetClosestPeers(Ok(found)), ..
//!         })) => found.peers.into_iter().for_each(|peer| addresses.extend(peer.peer_id, peer.addrs)),
//!         _ => {}
//!     }
//! }
//! ```
//!
//! What is found are the addresses that the peers' Swarms announce. For a host to be found there, its own address has to be among them:
//! add what it listens on with [`Swarm::add_external_address`](libp2p_swarm::Swarm::add_external_address), and identify tells
//! others. A host dials every TCP address it is given, with a knock, and one where no host listens costs it that dial.
//!
//! # Limits
//!
//! 1,024 peers, of whom the one goes that nobody has asked for or spoken of for the longest time, and 16 addresses for each, of which
//! the oldest goes: some 2 MB. One search for a peer in ten seconds, 64 waiting; more are asked for again by the next dial.
//!
//! Who may add an address? Whoever the Swarm's behaviours believe, which for kad and mDNS is anybody. A wrong address costs a dial,
//! nothing else: it is the key that is dialled.

use super::Discoverer;
use crate::Handle;
use futures::future::BoxFuture;
use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NewExternalAddrOfPeer, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The most peers that are remembered.
pub const MAX_PEERS: usize = 1024;

/// The most addresses of one peer.
pub const MAX_ADDRESSES_PER_PEER: usize = 16;

/// Between two searches for the same peer.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Searches that the Swarm has not been told of yet.
const MAX_SEARCHES: usize = 64;

/// What the Swarm's owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A host wants to dial this peer, and nothing is known of it. Whoever can search should.
    Search(PeerId),
}

/// The addresses that a Swarm knows, as a host's discoverer. Clones share them.
#[derive(Clone, Default)]
pub struct SwarmAddresses(Arc<Mutex<Book>>);

/// Listens to what other behaviours find. Goes into the Swarm; asks for nothing there, and costs nothing when nothing is found.
#[derive(Debug, Default)]
pub struct Behaviour {
    addresses: SwarmAddresses,
}

#[derive(Default)]
struct Book {
    peers: BTreeMap<PeerId, Entry>,
    /// Counts uses; the entry with the lowest is the one that goes.
    clock: u64,
    searches: VecDeque<PeerId>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Entry {
    /// The newest last.
    addresses: VecDeque<Multiaddr>,
    used: u64,
    searched: Option<Instant>,
}

impl Book {
    fn entry(&mut self, peer: PeerId) -> &mut Entry {
        if self.peers.len() >= MAX_PEERS
            && !self.peers.contains_key(&peer)
            && let Some(oldest) = self
                .peers
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(peer, _)| *peer)
        {
            self.peers.remove(&oldest);
        }
        self.clock += 1;
        let entry = self.peers.entry(peer).or_default();
        entry.used = self.clock;
        entry
    }

    fn add(&mut self, peer: PeerId, address: &Multiaddr) {
        let address = without_peer(address, &peer);
        let Some(address) = address else { return };
        let addresses = &mut self.entry(peer).addresses;
        addresses.retain(|known| *known != address);
        addresses.push_back(address);
        if addresses.len() > MAX_ADDRESSES_PER_PEER {
            addresses.pop_front();
        }
    }

    fn find(&mut self, peer: PeerId, now: Instant) -> Vec<Multiaddr> {
        let room = self.searches.len() < MAX_SEARCHES;
        let entry = self.entry(peer);
        if !entry.addresses.is_empty() {
            // What was heard last is the likeliest to be right.
            return entry.addresses.iter().rev().cloned().collect();
        }
        let due = entry
            .searched
            .is_none_or(|searched| now.duration_since(searched) >= SEARCH_INTERVAL);
        if due && room {
            entry.searched = Some(now);
            self.searches.push_back(peer);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        Vec::new()
    }
}

/// `None` for an address that says it is somebody else's.
fn without_peer(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    let mut address = address.clone();
    if let Some(libp2p_core::multiaddr::Protocol::P2p(named)) = address.iter().last() {
        if named != *peer {
            return None;
        }
        address.pop();
    }
    Some(address)
}

impl SwarmAddresses {
    /// Adds what was found in another way: by kad's queries, which end as events.
    pub fn extend(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        let mut book = self.lock();
        for address in addresses {
            book.add(peer, &address);
        }
    }

    /// What is known of a peer, the newest address first. Starts no search.
    pub fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let book = self.lock();
        book.peers
            .get(peer)
            .map(|entry| entry.addresses.iter().rev().cloned().collect())
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SwarmAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmAddresses")
            .field("peers", &self.lock().peers.len())
            .finish()
    }
}

impl Discoverer for SwarmAddresses {
    fn start(&self, _: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.lock().find(*peer, Instant::now())
    }
}

impl Behaviour {
    /// With nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For the host.
    pub fn addresses(&self) -> SwarmAddresses {
        self.addresses.clone()
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer { peer_id, addr }) = event {
            self.addresses.lock().add(peer_id, addr);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        let event: Infallible = event;
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let mut book = self.addresses.lock();
        if let Some(peer) = book.searches.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Event::Search(peer)));
        }
        if !book.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            book.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: usize) -> Multiaddr {
        format!("/ip4/192.0.2.7/tcp/{port}/tls").parse().unwrap()
    }

    #[test]
    fn the_newest_address_comes_first_and_the_oldest_goes() {
        let book = SwarmAddresses::default();
        let (peer, other) = (PeerId::random(), PeerId::random());
        book.extend(peer, (1..=20).map(address));
        book.extend(
            peer,
            [address(7).with_p2p(peer).unwrap(), address(99).with_p2p(other).unwrap()],
        );
        let known = book.addresses(&peer);
        assert_eq!(known.len(), MAX_ADDRESSES_PER_PEER);
        assert_eq!(known[..3], [address(7), address(20), address(19)]);
        assert!(
            !known.contains(&address(4)),
            "the fifth oldest is the oldest that is left"
        );
        assert!(
            book.addresses(&other).is_empty(),
            "an address that names somebody else is nobody's"
        );
    }

    #[test]
    fn a_full_book_forgets_whom_nobody_has_asked_for() {
        let book = SwarmAddresses::default();
        let peers: Vec<PeerId> = (0..=MAX_PEERS).map(|_| PeerId::random()).collect();
        book.extend(peers[0], [address(1)]);
        for peer in &peers[1..MAX_PEERS] {
            book.extend(*peer, [address(2)]);
        }
        assert_eq!(book.find_peer(&peers[0]), [address(1)], "asked for: the last to go now");
        book.extend(peers[MAX_PEERS], [address(3)]);
        assert!(book.addresses(&peers[1]).is_empty());
        assert_eq!(book.addresses(&peers[0]), [address(1)]);
        assert_eq!(book.lock().peers.len(), MAX_PEERS);
    }

    #[test]
    fn a_peer_that_nothing_is_known_of_is_searched_for_once_in_ten_seconds() {
        let mut behaviour = Behaviour::new();
        let peer = PeerId::random();
        let now = Instant::now();
        let mut searches = |at: Duration| {
            behaviour.addresses.lock().find(peer, now + at);
            let mut cx = Context::from_waker(Waker::noop());
            let mut count = 0;
            while let Poll::Ready(ToSwarm::GenerateEvent(Event::Search(searched))) = behaviour.poll(&mut cx) {
                assert_eq!(searched, peer);
                count += 1;
            }
            count
        };
        assert_eq!(searches(Duration::ZERO), 1);
        assert_eq!(searches(Duration::from_millis(9_999)), 0);
        assert_eq!(searches(SEARCH_INTERVAL), 1);
        behaviour.addresses.extend(peer, [address(1)]);
        assert_eq!(
            behaviour.addresses.lock().find(peer, now + SEARCH_INTERVAL * 5),
            [address(1)]
        );
        assert!(behaviour.addresses.lock().searches.is_empty());
    }

    #[test]
    fn searches_that_nobody_takes_up_do_not_pile_up() {
        let book = SwarmAddresses::default();
        for _ in 0..MAX_SEARCHES * 2 {
            book.find_peer(&PeerId::random());
        }
        assert_eq!(book.lock().searches.len(), MAX_SEARCHES);
    }
}
