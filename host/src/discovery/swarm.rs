//! What a Swarm knows, for a host: kad, mDNS, identify, rendezvous and whatever else finds peers
//! there.
//!
//! Behaviours that find an address tell the Swarm, which tells all of them. [`Behaviour`] listens
//! to that and remembers; its [`SwarmAddresses`] are the [`Discoverer`] of a host beside the Swarm.
//! Nothing has to be configured for mDNS, identify, rendezvous and
//! [`Swarm::add_peer_address`](libp2p_swarm::Swarm::add_peer_address). kad looks for a peer only
//! when it is told to:
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
//! What is found are the addresses that the peers' Swarms announce. For a host to be found there,
//! its own address has to be among them: add what it listens on with
//! [`Swarm::add_external_address`](libp2p_swarm::Swarm::add_external_address), and identify tells
//! others. A host dials every TCP address it is given, with a knock, and one where no host listens
//! costs it that dial.
//!
//! # Limits
//!
//! 1,024 peers. Beyond that the one goes that was asked for or spoken of the longest ago: first one
//! that no host has asked for and that was not reached, then one that was not reached. 16 addresses
//! for each, of which the oldest goes, and beside them the last 4 knock addresses at which this
//! Swarm has reached the peer, which nothing that is claimed pushes out: some 2.5 MB in all. One
//! search for a peer in ten seconds, 64 waiting; more are asked for again by the next dial.
//!
//! What the Swarm's behaviours believe becomes an address here, and kad and mDNS believe any peer.
//! A wrong address costs a dial, nothing else: it is the key that is dialled. What has worked comes
//! first.

use super::Discoverer;
use crate::Handle;
use futures::future::BoxFuture;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_knock::is_knock_address;
use libp2p_swarm::behaviour::ConnectionEstablished;
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

/// The most addresses of one peer that are only claimed.
pub const MAX_ADDRESSES_PER_PEER: usize = 16;

/// The most addresses of one peer at which the Swarm has reached it.
pub const MAX_PROVEN_PER_PEER: usize = 4;

/// Between two searches for the same peer.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Searches that the Swarm has not been told of yet.
const MAX_SEARCHES: usize = 64;

/// What the Swarm's owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A host wants to dial this peer, and nothing is known of it. A program that can search
    /// should.
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
    /// The newest last; none of them is in both.
    claimed: VecDeque<Multiaddr>,
    proven: VecDeque<Multiaddr>,
    /// Whether a host has asked for it.
    asked: bool,
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
                .min_by_key(|(_, entry)| (!entry.proven.is_empty(), entry.asked, entry.used))
                .map(|(peer, _)| *peer)
        {
            self.peers.remove(&oldest);
        }
        self.clock += 1;
        let entry = self.peers.entry(peer).or_default();
        entry.used = self.clock;
        entry
    }

    fn claim(&mut self, peer: PeerId, address: &Multiaddr) {
        let Some(address) = without_peer(address, &peer) else {
            return;
        };
        let entry = self.entry(peer);
        if !entry.proven.contains(&address) {
            entry.claimed.retain(|known| *known != address);
            newest(&mut entry.claimed, address, MAX_ADDRESSES_PER_PEER);
        }
    }

    /// The Swarm has reached the peer there.
    fn prove(&mut self, peer: PeerId, address: &Multiaddr) {
        let Some(address) = without_peer(address, &peer) else {
            return;
        };
        let entry = self.entry(peer);
        entry.claimed.retain(|known| *known != address);
        entry.proven.retain(|known| *known != address);
        if let Some(oldest) = newest(&mut entry.proven, address, MAX_PROVEN_PER_PEER) {
            newest(&mut entry.claimed, oldest, MAX_ADDRESSES_PER_PEER);
        }
    }

    /// What is known, and the behaviour's waker where a search is to begin: to be woken without the
    /// lock, as it may run the Swarm.
    fn find(&mut self, peer: PeerId, now: Instant) -> (Vec<Multiaddr>, Option<Waker>) {
        let room = self.searches.len() < MAX_SEARCHES;
        let entry = self.entry(peer);
        entry.asked = true;
        let known = entry.addresses();
        if !known.is_empty() {
            return (known, None);
        }
        let due = entry
            .searched
            .is_none_or(|searched| now.duration_since(searched) >= SEARCH_INTERVAL);
        if due && room {
            entry.searched = Some(now);
            self.searches.push_back(peer);
            return (Vec::new(), self.waker.take());
        }
        (Vec::new(), None)
    }
}

impl Entry {
    /// What has worked, and then what was heard last, as the likeliest to be right.
    fn addresses(&self) -> Vec<Multiaddr> {
        let known = self.proven.iter().rev().chain(self.claimed.iter().rev());
        known.cloned().collect()
    }
}

/// Adds `address` behind the others. What there is no room for comes back.
fn newest(addresses: &mut VecDeque<Multiaddr>, address: Multiaddr, most: usize) -> Option<Multiaddr> {
    addresses.push_back(address);
    if addresses.len() > most {
        addresses.pop_front()
    } else {
        None
    }
}

/// `None` for an address that names another peer.
fn without_peer(address: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    let mut address = address.clone();
    if let Some(Protocol::P2p(named)) = address.iter().last() {
        if named != *peer {
            return None;
        }
        address.pop();
    }
    Some(address)
}

impl SwarmAddresses {
    /// Adds what was found in another way: by kad's queries, which end as events.
    ///
    /// No lock is held while `addresses` is asked for the next one.
    pub fn extend(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        for address in addresses {
            self.lock().claim(peer, &address);
        }
    }

    /// What is known of a peer: first what has worked, then the newest. Starts no search.
    pub fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let book = self.lock();
        book.peers.get(peer).map(Entry::addresses).unwrap_or_default()
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
        let (known, waker) = self.lock().find(*peer, Instant::now());
        if let Some(waker) = waker {
            waker.wake();
        }
        known
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
        match event {
            FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer { peer_id, addr }) => {
                self.addresses.lock().claim(peer_id, addr);
            }
            // A host knocks, so what was reached otherwise proves nothing to it; nor does a hole
            // that was punched.
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                endpoint:
                    ConnectedPoint::Dialer {
                        address,
                        role_override: Endpoint::Dialer,
                        ..
                    },
                ..
            }) if is_knock_address(address) && !address.iter().any(|part| part == Protocol::P2pCircuit) => {
                self.addresses.lock().prove(peer_id, address);
            }
            _ => {}
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
        let old = match &book.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => book.waker.replace(cx.waker().clone()),
        };
        drop(book);
        drop(old);
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
            "an address that names another peer belongs to neither"
        );
    }

    #[test]
    fn an_address_that_worked_comes_first_and_claims_cannot_take_its_place() {
        let book = SwarmAddresses::default();
        let peer = PeerId::random();
        book.extend(peer, (1..=3).map(address));
        book.lock().prove(peer, &address(2).with_p2p(peer).unwrap());
        book.extend(peer, (100..200).map(address));
        let known = book.find_peer(&peer);
        assert_eq!((known.len(), &known[0]), (MAX_ADDRESSES_PER_PEER + 1, &address(2)));
        // Said again it is the same one.
        book.extend(peer, [address(2)]);
        assert_eq!(book.find_peer(&peer), known);
        // The last few that worked are remembered; the one before them is a claim like others.
        for port in 3..=6 {
            book.lock().prove(peer, &address(port));
        }
        let known = book.find_peer(&peer);
        assert_eq!(known[..5], [6, 5, 4, 3, 2].map(address));
        book.extend(peer, (200..300).map(address));
        let known = book.find_peer(&peer);
        assert_eq!(known.len(), MAX_PROVEN_PER_PEER + MAX_ADDRESSES_PER_PEER);
        assert!(!known.contains(&address(2)));
    }

    #[test]
    fn peers_that_are_only_spoken_of_push_out_none_that_was_reached_or_asked_for() {
        let book = SwarmAddresses::default();
        let (reached, asked) = (PeerId::random(), PeerId::random());
        book.lock().prove(reached, &address(1));
        book.extend(asked, [address(2)]);
        book.find_peer(&asked);
        for _ in 0..MAX_PEERS * 3 {
            book.extend(PeerId::random(), [address(3)]);
        }
        assert_eq!(book.addresses(&reached), [address(1)]);
        assert_eq!(book.addresses(&asked), [address(2)]);
        assert_eq!(book.lock().peers.len(), MAX_PEERS);
    }

    #[test]
    fn a_full_book_forgets_peers_that_no_host_has_asked_for() {
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
            let (known, _) = behaviour.addresses.lock().find(peer, now + at);
            assert!(known.is_empty());
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
        let (known, waker) = behaviour.addresses.lock().find(peer, now + SEARCH_INTERVAL * 5);
        assert_eq!(known, [address(1)]);
        assert!(waker.is_none());
        assert!(behaviour.addresses.lock().searches.is_empty());
    }

    /// It takes no lock of its own book that is held meanwhile.
    struct CallsBack(SwarmAddresses);

    impl std::task::Wake for CallsBack {
        fn wake(self: Arc<Self>) {
            assert!(self.0.addresses(&PeerId::random()).is_empty());
        }
    }

    #[test]
    fn what_is_iterated_over_and_whom_a_search_wakes_may_ask_the_addresses_again() {
        let mut behaviour = Behaviour::new();
        let (book, peer) = (behaviour.addresses(), PeerId::random());
        let waker = Waker::from(Arc::new(CallsBack(book.clone())));
        assert!(behaviour.poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(book.find_peer(&peer).is_empty(), "wakes whom the search is for");

        let calling_back = (1..=3).map(|port| {
            assert_eq!(book.addresses(&peer).len(), port - 1);
            address(port)
        });
        book.extend(peer, calling_back);
        assert_eq!(book.addresses(&peer).len(), 3);
    }

    #[test]
    fn searches_that_are_not_taken_up_do_not_pile_up() {
        let book = SwarmAddresses::default();
        for _ in 0..MAX_SEARCHES * 2 {
            book.find_peer(&PeerId::random());
        }
        assert_eq!(book.lock().searches.len(), MAX_SEARCHES);
    }
}
