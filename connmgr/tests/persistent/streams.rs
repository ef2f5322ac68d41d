//! Streams of others on the connections to wanted peers.

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, InboundUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, Swarm, SwarmEvent, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::{Config, Probes};
use std::convert::Infallible;
use std::iter;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Generous: what is awaited mostly comes within a second.
const SOON: Duration = Duration::from_secs(60);

/// Opens a stream on a connection, or drops those that it has there.
struct Holder {
    orders: Vec<(PeerId, ConnectionId, Order)>,
    /// How long the accepting end takes over each.
    slow: Duration,
    /// Whether the accepting end lets go of each at once.
    drops: bool,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Open,
    Drop,
}

impl Holder {
    fn new(slow: Duration) -> Self {
        let orders = Vec::new();
        let drops = false;
        Self { orders, slow, drops }
    }

    fn handler(&self) -> Handler {
        Handler {
            slow: self.slow,
            drops: self.drops,
            open: 0,
            streams: Vec::new(),
        }
    }
}

impl NetworkBehaviour for Holder {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        // The test asks between two turns of the Swarm.
        match self.orders.pop() {
            Some((peer_id, connection, event)) => Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            }),
            None => Poll::Pending,
        }
    }
}

const PROTOCOL: StreamProtocol = StreamProtocol::new("/hold/1");

struct Slow(Duration);

impl UpgradeInfo for Slow {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

impl InboundUpgrade<Stream> for Slow {
    type Output = Stream;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: Self::Info) -> Self::Future {
        tokio::time::sleep(self.0).map(|()| Ok(stream)).boxed()
    }
}

struct Handler {
    slow: Duration,
    drops: bool,
    open: usize,
    streams: Vec<Stream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Order;
    type ToBehaviour = Infallible;
    type InboundProtocol = Slow;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Slow> {
        SubstreamProtocol::new(Slow(self.slow), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        if let Some(left) = self.open.checked_sub(1) {
            self.open = left;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, order: Order) {
        match order {
            Order::Open => self.open += 1,
            Order::Drop => self.streams.clear(),
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(_) if self.drops => {}
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. })
            | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.streams.push(protocol);
            }
            _ => {}
        }
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    persistent: PersistentPeers,
    holder: Holder,
}

/// How long second connections are spared here.
const SETTLE: Duration = Duration::from_millis(500);

fn wanting(config: Config) -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Behaviour {
            persistent: PersistentPeers::new(key.public().to_peer_id(), config.with_settle(SETTLE)),
            holder: Holder::new(Duration::ZERO),
        })
        .unwrap()
        .build()
}

/// One that wants no peer, and runs by itself.
async fn other(
    slow: Duration,
    config: impl FnOnce(swarm::Config) -> swarm::Config,
) -> (PeerId, Multiaddr, JoinHandle<()>) {
    other_with(Holder::new(slow), config).await
}

async fn other_with(
    holder: Holder,
    config: impl FnOnce(swarm::Config) -> swarm::Config,
) -> (PeerId, Multiaddr, JoinHandle<()>) {
    let mut swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| holder)
        .unwrap()
        .with_swarm_config(config)
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let peer = *swarm.local_peer_id();
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (peer, address, task)
}

/// The next connection.
async fn connected(swarm: &mut Swarm<Behaviour>) -> ConnectionId {
    let wait = async {
        loop {
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = swarm.select_next_some().await {
                return connection_id;
            }
        }
    };
    timeout(SOON, wait).await.expect("a connection")
}

/// The next connection that ends within `time`.
async fn closed(swarm: &mut Swarm<Behaviour>, time: Duration) -> Option<ConnectionId> {
    let wait = async {
        loop {
            if let SwarmEvent::ConnectionClosed { connection_id, .. } = swarm.select_next_some().await {
                return connection_id;
            }
        }
    };
    timeout(time, wait).await.ok()
}

#[tokio::test]
async fn a_second_connection_stays_while_it_carries_a_stream_and_no_longer() {
    // The other end's idle timeout is not what ends it.
    let long = |config: swarm::Config| config.with_idle_connection_timeout(Duration::from_secs(3600));
    let (peer, address, _task) = other(Duration::ZERO, long).await;
    let mut ada = wanting(Config::new());
    ada.behaviour_mut()
        .persistent
        .add_peer(peer, [address.clone()])
        .unwrap();
    let first = connected(&mut ada).await;
    let dial = DialOpts::peer_id(peer)
        .condition(PeerCondition::Always)
        .addresses(vec![address]);
    ada.dial(dial.build()).unwrap();
    let second = connected(&mut ada).await;
    // For a while neither carries a stream, and then both do: so neither goes, whichever is the one
    // too many.
    assert_eq!(closed(&mut ada, SETTLE / 3).await, None);
    for connection in [first, second] {
        ada.behaviour_mut().holder.orders.push((peer, connection, Order::Open));
    }
    assert_eq!(closed(&mut ada, 3 * SETTLE).await, None);
    ada.behaviour_mut().holder.orders.push((peer, second, Order::Drop));
    // Both have the same direction: the older one stays.
    assert_eq!(closed(&mut ada, SOON).await, Some(second));
    assert_eq!(closed(&mut ada, 2 * SETTLE).await, None);
}

#[tokio::test]
async fn a_peer_that_takes_one_stream_at_a_time_and_its_time_over_it_is_kept_too() {
    let slow = Duration::from_millis(1_500);
    let short = |config: swarm::Config| {
        config
            .with_max_negotiating_inbound_streams(1)
            .with_idle_connection_timeout(Duration::from_secs(1))
    };
    let (peer, address, _task) = other(slow, short).await;
    let mut ada = wanting(Config::new().with_keep_alive_interval(Duration::from_millis(400)));
    ada.behaviour_mut().persistent.add_peer(peer, [address]).unwrap();
    let connection = connected(&mut ada).await;
    // Questions wait behind this one, and are answered when it is done.
    ada.behaviour_mut().holder.orders.push((peer, connection, Order::Open));
    assert_eq!(closed(&mut ada, slow + SETTLE).await, None);
    ada.behaviour_mut().holder.orders.push((peer, connection, Order::Drop));
    assert_eq!(closed(&mut ada, 4 * SETTLE).await, None);
}

#[tokio::test]
async fn a_peer_is_asked_in_time_though_only_this_end_still_holds_a_stream() {
    let mut holder = Holder::new(Duration::ZERO);
    holder.drops = true;
    let idle = Duration::from_secs(3);
    let (peer, address, _task) = other_with(holder, |config| config.with_idle_connection_timeout(idle)).await;
    // The first question comes after 300 ms, the second 1.8 s later.
    let interval = Duration::from_millis(1_800);
    let mut ada = wanting(Config::new().with_keep_alive_interval(interval));
    ada.behaviour_mut().persistent.add_peer(peer, [address]).unwrap();
    let connection = connected(&mut ada).await;
    ada.behaviour_mut().holder.orders.push((peer, connection, Order::Open));
    // The peer's idle timeout runs since the first question. Here the stream ends shortly before the
    // second.
    assert_eq!(closed(&mut ada, Duration::from_millis(1_900)).await, None);
    ada.behaviour_mut().holder.orders.push((peer, connection, Order::Drop));
    assert_eq!(closed(&mut ada, idle).await, None);
}

/// Over QUIC, as one end takes so few streams at a time.
fn over_quic<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B, streams: u32) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_quic_config(|mut config| {
            config.max_concurrent_stream_limit = streams;
            config
        })
        .with_behaviour(behaviour)
        .unwrap()
        .build()
}

#[tokio::test]
async fn a_connection_whose_streams_are_all_in_use_is_not_taken_for_dead() {
    const STREAMS: u32 = 4;
    let mut bob = over_quic(|_| Holder::new(Duration::ZERO), STREAMS);
    bob.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = bob.select_next_some().await {
            break address;
        }
    };
    let peer = *bob.local_peer_id();
    let task = tokio::spawn(async move {
        loop {
            bob.select_next_some().await;
        }
    });
    let probes = Probes {
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(500),
    };
    let config = Config::new()
        .with_keep_alive_interval(Duration::from_millis(500))
        .with_probes(probes);
    let mut ada = over_quic(
        |key| Behaviour {
            persistent: PersistentPeers::new(key.public().to_peer_id(), config),
            holder: Holder::new(Duration::ZERO),
        },
        STREAMS,
    );
    ada.behaviour_mut().persistent.add_peer(peer, [address]).unwrap();
    let connection = connected(&mut ada).await;
    for _ in 0..STREAMS {
        ada.behaviour_mut().holder.orders.push((peer, connection, Order::Open));
    }
    assert_eq!(closed(&mut ada, Duration::from_secs(3)).await, None);
    // Where it can be asked again, silence counts again.
    ada.behaviour_mut().holder.orders.push((peer, connection, Order::Drop));
    assert_eq!(closed(&mut ada, Duration::from_secs(2)).await, None);
    task.abort();
    assert_eq!(closed(&mut ada, SOON).await, Some(connection));
}
