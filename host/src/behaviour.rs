//! The same streams in any Swarm, over any transport: their frames on one substream with each peer.

mod handler;

use crate::config::{DIAL_INTERVAL, MEMORY};
use crate::discovery::Discoverer;
use crate::engine::dial::{DialPlan, ROUND};
use crate::handle::Handle;
use crate::peers::{Need, Registry, Setup, chance};
use crate::unreached::{Reason, Unreached};
use crate::user_code::Hook;
use futures::future::FutureExt as _;
use futures_timer::Delay;
use handler::{Handler, Open, Outcome};
use libp2p_core::transport::PortUse;
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure, FromSwarm};
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use rand::rngs::StdRng;
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Addresses of one peer that are dialled at once: as many as a round has of ours, and as many that
/// other behaviours know. All of them have one and the same time in a Swarm, and the ninth would
/// get none of it.
const AT_ONCE: NonZeroU8 = NonZeroU8::new(2 * ROUND as u8).expect("not zero");

/// Configuration of a [`Behaviour`].
#[derive(Debug, Clone)]
pub struct BehaviourConfig {
    dial_interval: Duration,
    memory: usize,
}

impl Default for BehaviourConfig {
    fn default() -> Self {
        Self {
            dial_interval: DIAL_INTERVAL,
            memory: MEMORY,
        }
    }
}

impl BehaviourConfig {
    /// As [`HostConfig::with_dial_interval`](crate::HostConfig::with_dial_interval), for dials and for substreams on the
    /// connections there are. Default 3 s.
    pub fn with_dial_interval(mut self, interval: Duration) -> Self {
        self.dial_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// As [`HostConfig::with_memory_budget`](crate::HostConfig::with_memory_budget). Default 256 MiB.
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }
}

/// ragep2p's streams as a behaviour: one substream of `/knock-host/streams/1` with each peer that there is a stream to, on
/// whatever connection the Swarm has, dialled when it has none.
///
/// Addresses come from the Swarm's other behaviours (kad, mDNS, identify, the peer store), and from a [`Discoverer`] if one is
/// given. Peers may have keys of any type. Other than with a [`Host`](crate::Host) there is no limit on the bytes of a whole
/// connection, which is not this behaviour's own; each stream's limits hold.
///
/// A connection that carries streams is kept alive by their substream, at both ends: it lasts while the peer has a stream to
/// us. Dropping the behaviour closes every stream.
///
/// ```
/// # fn swarm(keypair: libp2p_identity::Keypair, peer: libp2p_identity::PeerId) -> Result<(), Box<dyn std::error::Error>> {
/// use knock_host::{Behaviour, BehaviourConfig, Limits};
///
/// let behaviour = Behaviour::new(keypair.public().to_peer_id(), BehaviourConfig::default());
/// let streams = behaviour.handle();
/// // … give `behaviour` to a Swarm, and `streams` to whoever speaks to peers:
/// let stream = streams.open_stream(peer, "greetings", Limits::default())?;
/// stream.send("good morning");
/// # Ok(()) }
/// ```
pub struct Behaviour {
    registry: Arc<Registry>,
    discoverer: Option<Arc<dyn Discoverer>>,
    plan: DialPlan,
    unreached: Unreached,
    rng: StdRng,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// Dials of ours, which have their addresses.
    dialling: HashSet<ConnectionId>,
    events: VecDeque<ToSwarm<Infallible, Open>>,
    timer: Option<(Delay, Instant)>,
}

impl Behaviour {
    /// For the Swarm whose id is `local`.
    pub fn new(local: PeerId, config: BehaviourConfig) -> Self {
        let registry = Registry::new(Setup {
            local,
            identity: None,
            ed25519_only: false,
            memory: config.memory,
            dial_interval: config.dial_interval,
        });
        let registry = Arc::new(registry);
        Self {
            unreached: Unreached::new(registry.clone()),
            registry,
            discoverer: None,
            plan: DialPlan::new(config.dial_interval),
            rng: chance(),
            connections: HashMap::new(),
            dialling: HashSet::new(),
            events: VecDeque::new(),
            timer: None,
        }
    }

    /// Asks `discoverer`, or one behind an `Arc`, for addresses as well, whenever the Swarm dials a
    /// peer that there is a stream to. Its maker has to start and to close it.
    ///
    /// [`Discoverer::find_peer`] is called in the Swarm's own poll: while it runs the whole Swarm
    /// waits. A panic in it finds no address, and is counted ([`Hook::FindPeer`]).
    pub fn with_discoverer(mut self, discoverer: impl Discoverer) -> Self {
        self.discoverer = Some(Arc::new(discoverer));
        self
    }

    /// What opens streams.
    pub fn handle(&self) -> Handle {
        Handle::new(self.registry.clone())
    }

    fn handler(&self, peer: PeerId, dialled: bool) -> Handler {
        // One end begins; should it fail, both try again later.
        let open = dialled && self.registry.need(&peer) == Need::Connection;
        Handler::new(self.registry.clone(), peer, open)
    }

    /// A substream on a connection there is, or a connection.
    fn reach(&mut self, peer: PeerId) {
        let event = match self.connections.get(&peer).and_then(|ids| ids.last()) {
            Some(id) => ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(*id),
                event: Open,
            },
            None => {
                let mut found = self.find(&peer);
                found.extend(self.plan.proven(&peer).cloned());
                let opts = DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .override_dial_concurrency_factor(AT_ONCE)
                    .addresses(self.plan.order(&peer, found))
                    .extend_addresses_through_behaviour()
                    .build();
                self.dialling.insert(opts.connection_id());
                ToSwarm::Dial { opts }
            }
        };
        self.events.push_back(event);
    }

    /// What the discoverer knows, as the Swarm will dial it: it takes an address with a peer and
    /// one without for two.
    fn find(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let found = self.discoverer.as_ref().and_then(|discoverer| {
            let panics = &self.registry.counters.hook_panics;
            panics.call(Hook::FindPeer, || discoverer.find_peer(peer))
        });
        let found = found.into_iter().flatten();
        found.filter_map(|address| address.with_p2p(*peer).ok()).collect()
    }

    /// Wakes when the next peer is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.plan.next() else {
            self.timer = None;
            return Poll::Pending;
        };
        if self.timer.as_ref().is_none_or(|(_, for_)| *for_ != at) {
            self.timer = Some((Delay::new(at.saturating_duration_since(Instant::now())), at));
        }
        match &mut self.timer {
            Some((delay, _)) => delay.poll_unpin(cx),
            None => Poll::Pending,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, false))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // A dial of ours has its addresses, and these would only stand behind them.
        let foreign = !self.dialling.remove(&id);
        let known = peer
            .filter(|peer| foreign && self.registry.get(peer).is_some())
            .map(|peer| self.plan.proven(&peer).cloned().into_iter().chain(self.find(&peer)));
        Ok(known.into_iter().flatten().collect())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        role: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, role.is_dialer()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.connections.entry(peer_id).or_default().push(connection_id);
                // What a hole punch went through is closed again by now.
                if let ConnectedPoint::Dialer {
                    address,
                    role_override: Endpoint::Dialer,
                    ..
                } = endpoint
                    && let Ok(address) = address.clone().with_p2p(peer_id)
                {
                    self.plan.worked(&peer_id, address);
                }
                self.plan.finished(peer_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                remaining_established,
                ..
            }) => {
                if remaining_established == 0 {
                    self.connections.remove(&peer_id);
                } else if let Some(ids) = self.connections.get_mut(&peer_id) {
                    ids.retain(|id| *id != connection_id);
                }
                // A substream that was being opened there will not be heard of.
                self.plan.finished(peer_id);
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                connection_id,
                error,
            }) => {
                self.dialling.remove(&connection_id);
                self.unreached.warn(peer, || Reason::of_swarm(error));
                self.plan.finished(peer);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Outcome::Opened => {}
            Outcome::Failed(reason) => {
                tracing::debug!(%peer, reason, "no streams on this connection");
                self.unreached.warn(peer, || Some(Reason::new(reason)));
            }
        }
        self.plan.finished(peer);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            let now = Instant::now();
            if let Poll::Ready((peer, need)) = self.registry.poll_changed(cx) {
                match need {
                    Need::Connection => self.plan.want(peer, now, &mut self.rng),
                    Need::Nothing => self.plan.satisfied(&peer),
                    Need::Forget => {
                        self.plan.forget(&peer);
                        self.unreached.forget(&peer);
                    }
                }
            } else if let Some(peer) = self.plan.due(now, &mut self.rng) {
                self.reach(peer);
            } else if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.registry.close_all();
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("local_peer_id", &self.registry.local())
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
