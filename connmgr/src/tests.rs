//! The behaviour and its handle, driven by hand on a clock that the tests own. The Swarm's part is played here: whoever is told to close
//! closes at once, unless a test wants it otherwise.

mod background;
mod bad_input;
mod calling_back;
mod decaying;
mod gaps;
mod hard_limit;
mod idle;
mod keep_alive;
#[cfg(feature = "metrics")]
mod metrics;
mod model;
#[allow(
    dead_code,
    reason = "the program that runs beside go-libp2p includes it too, and needs other parts"
)]
mod naive;
mod order;
mod original;
mod remembered;
mod threads;
mod unpolled;
mod user_code;

use crate::count::Activity;
use crate::handler::SetKeepAlive;
use crate::{Behaviour, Config, ConfigError, Event, Manager, Reason, TagInfo, Trimmed, Trimming};
use futures::FutureExt as _;
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, ToSwarm,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use web_time::Instant;

/// Time that moves when a test says so.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    fn set(&self, to: Instant) {
        *self.0.lock().unwrap() = to;
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A behaviour, its handle, and what a Swarm would know.
struct Node {
    behaviour: Behaviour,
    manager: Manager,
    clock: Clock,
    next: usize,
    connections: BTreeMap<ConnectionId, (PeerId, ConnectedPoint)>,
    by_peer: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// Told to close, in that order, whether or not they did.
    told: Vec<ConnectionId>,
    /// Whether a connection that is told to close does.
    wired: bool,
    events: Vec<Event>,
    /// What handlers were told.
    notified: Vec<(ConnectionId, bool)>,
    flag: Arc<Flag>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn outbound() -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: address(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn inbound() -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: "/ip4/127.0.0.1/udp/1".parse().unwrap(),
        send_back_addr: address(),
    }
}

/// The same for all, as in the original's tests.
fn address() -> Multiaddr {
    "/ip4/127.0.0.1/udp/1234".parse().unwrap()
}

impl Node {
    fn new(config: Config) -> Self {
        let clock = Clock::new();
        let own = clock.clone();
        Self::of(crate::new(config.with_clock(move || own.now())), clock)
    }

    /// With a configuration that has a clock already.
    fn of((behaviour, manager): (Behaviour, Manager), clock: Clock) -> Self {
        Self {
            behaviour,
            manager,
            clock,
            next: 0,
            connections: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            told: Vec::new(),
            wired: true,
            events: Vec::new(),
            notified: Vec::new(),
            flag: Arc::new(Flag(AtomicBool::new(false))),
        }
    }

    /// Watermarks and a grace period; background trims once an hour.
    fn with(low: usize, high: usize, grace: Duration) -> Self {
        Self::new(quiet(low, high, grace).unwrap())
    }

    fn unwired(mut self) -> Self {
        self.wired = false;
        self
    }

    fn connect(&mut self, peer: PeerId) -> ConnectionId {
        self.connect_as(peer, outbound()).unwrap()
    }

    fn connect_new(&mut self) -> PeerId {
        let peer = PeerId::random();
        self.connect(peer);
        peer
    }

    fn connect_many(&mut self, count: usize) -> Vec<PeerId> {
        (0..count).map(|_| self.connect_new()).collect()
    }

    fn connect_as(&mut self, peer: PeerId, endpoint: ConnectedPoint) -> Result<ConnectionId, ConnectionDenied> {
        let id = self.enter(peer, endpoint)?;
        self.run();
        Ok(id)
    }

    /// A new connection, before the next poll.
    fn enter(&mut self, peer: PeerId, endpoint: ConnectedPoint) -> Result<ConnectionId, ConnectionDenied> {
        let id = ConnectionId::new_unchecked(self.next);
        self.next += 1;
        self.handle_established(id, peer, &endpoint)?;
        // As in a Swarm, which has the connection before it tells of it.
        self.connections.insert(id, (peer, endpoint.clone()));
        self.by_peer.entry(peer).or_default().push(id);
        self.established(id, peer, &endpoint);
        Ok(id)
    }

    fn handle_established(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
    ) -> Result<(), ConnectionDenied> {
        let handler = match endpoint {
            ConnectedPoint::Dialer {
                address,
                role_override,
                port_use,
            } => self
                .behaviour
                .handle_established_outbound_connection(id, peer, address, *role_override, *port_use)?,
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => self
                .behaviour
                .handle_established_inbound_connection(id, peer, local_addr, send_back_addr)?,
        };
        self.notified
            .push((id, libp2p_swarm::ConnectionHandler::connection_keep_alive(&handler)));
        Ok(())
    }

    fn established(&mut self, connection_id: ConnectionId, peer_id: PeerId, endpoint: &ConnectedPoint) {
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
    }

    /// As if the connection had closed, whoever wanted it.
    fn disconnect(&mut self, id: ConnectionId) {
        self.remove(id);
        self.run();
    }

    fn disconnect_peer(&mut self, peer: PeerId) {
        for id in self.connections_of(peer) {
            self.disconnect(id);
        }
    }

    fn closed(&mut self, connection_id: ConnectionId, peer_id: PeerId, endpoint: &ConnectedPoint) {
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                endpoint,
                cause: None,
                remaining_established: 0,
            }));
    }

    fn connections_of(&self, peer: PeerId) -> Vec<ConnectionId> {
        self.by_peer.get(&peer).cloned().unwrap_or_default()
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some((peer, endpoint)) = self.connections.remove(&id) {
            self.by_peer.entry(peer).or_default().retain(|known| *known != id);
            self.closed(id, peer, &endpoint);
        }
    }

    /// A peer with a connection in each of these directions and with that many streams, all counted.
    fn connect_counted(&mut self, connections: &[(ConnectedPoint, u32)]) -> (PeerId, Vec<Activity>) {
        let peer = PeerId::random();
        let activities = connections
            .iter()
            .enumerate()
            .map(|(at, (endpoint, streams))| {
                let mut endpoint = endpoint.clone();
                let own: Multiaddr = format!("/ip4/127.0.0.1/udp/{}", at + 1).parse().unwrap();
                match &mut endpoint {
                    ConnectedPoint::Dialer { address, .. } => *address = own.clone(),
                    ConnectedPoint::Listener { send_back_addr, .. } => *send_back_addr = own.clone(),
                }
                let registry = self.behaviour.registry();
                let (activity, _place) = registry.enter(peer, endpoint.to_endpoint(), own, self.clock.now());
                for _ in 0..*streams {
                    activity.opened(crate::count::Opener::Local, self.clock.now());
                }
                self.connect_as(peer, endpoint).unwrap();
                activity
            })
            .collect();
        (peer, activities)
    }

    /// Polls until there is nothing to be done before the clock moves.
    fn run(&mut self) {
        while self.poll_once() {}
    }

    /// One turn of the Swarm's loop; false when the behaviour has nothing to do and has not woken itself.
    fn poll_once(&mut self) -> bool {
        self.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.flag.clone());
        match self.behaviour.poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => return self.flag.0.load(Ordering::SeqCst),
            Poll::Ready(ToSwarm::GenerateEvent(event)) => self.events.push(event),
            Poll::Ready(ToSwarm::CloseConnection { peer_id, connection }) => {
                let ids = match connection {
                    CloseConnection::All => self.connections_of(peer_id),
                    CloseConnection::One(id) => vec![id],
                };
                self.told.extend(&ids);
                if self.wired {
                    for id in ids {
                        self.remove(id);
                    }
                }
            }
            Poll::Ready(ToSwarm::NotifyHandler {
                handler: NotifyHandler::One(id),
                event: SetKeepAlive(keep),
                ..
            }) => self.notified.push((id, keep)),
            Poll::Ready(other) => panic!("a manager does not ask for {other:?}"),
        }
        true
    }

    /// One poll; false when it was pending, woken or not.
    fn poll_until_pending_or_one(&mut self) -> bool {
        self.poll_once() && !self.flag.0.load(Ordering::SeqCst)
    }

    fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.run();
    }

    /// Lets everything close that was told to.
    fn release(&mut self) {
        for id in self.told.clone() {
            if self.connections.contains_key(&id) {
                self.disconnect(id);
            }
        }
    }

    /// A trim on demand, which must be over at once.
    fn trim(&mut self) -> Trimmed {
        let trimming = self.manager.trim_open_conns();
        self.finish(trimming)
    }

    fn force_trim(&mut self) -> Trimmed {
        let trimming = self.manager.force_trim();
        self.finish(trimming)
    }

    fn finish(&mut self, trimming: Trimming) -> Trimmed {
        self.run();
        trimming
            .now_or_never()
            .expect("every connection that is told to close does")
            .unwrap()
    }

    fn is_open(&self, peer: PeerId) -> bool {
        self.connections_of(peer).iter().any(|id| !self.told.contains(id))
    }

    fn info(&self, peer: PeerId) -> TagInfo {
        self.manager.tag_info(&peer).expect("the peer is known")
    }

    fn value(&self, peer: PeerId) -> i64 {
        self.info(peer).value
    }

    fn count(&self) -> usize {
        self.manager.info().connections
    }

    fn records(&self) -> usize {
        self.behaviour.records()
    }

    /// Whom trims told to close, in order, and why.
    fn trimmed(&self) -> Vec<(PeerId, Reason)> {
        let of = |event: &Event| match event {
            Event::Trimmed { peer, reason, .. } => Some((*peer, *reason)),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }
}

fn quiet(low: usize, high: usize, grace: Duration) -> Result<Config, ConfigError> {
    Config::new(low, high)?
        .with_grace_period(grace)
        .with_silence_period(HOUR)
}
