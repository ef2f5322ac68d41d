//! Relays, and nodes that can be reached through them. All of their connections knock.

use futures::StreamExt as _;
use futures::future::Either;
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Config as SwarmConfig, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping, relay};
use libp2p_knock::{Config, Transport, tokio as knock_tokio};
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// Which transport is asked first whether an address is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    CircuitsFirst,
    SocketsFirst,
}

pub(crate) const ORDERS: [Order; 2] = [Order::CircuitsFirst, Order::SocketsFirst];

#[derive(NetworkBehaviour)]
pub(crate) struct Client {
    pub(crate) relay: relay::client::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
}

#[derive(NetworkBehaviour)]
pub(crate) struct Relay {
    pub(crate) relay: relay::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
}

/// The knock over memory and over TCP.
pub(crate) fn sockets(config: &Config) -> Connections {
    Transport::new(MemoryTransport::default(), config.clone())
        .or_transport(knock_tokio::Transport::new(config.clone()))
        .map(|either, _| match either {
            Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        })
        .boxed()
}

pub(crate) fn either(first: Connections, second: Connections) -> Connections {
    first.or_transport(second).map(|either, _| either.into_inner()).boxed()
}

/// A node that knocks over sockets and over circuits, with one memory of what was answered.
pub(crate) fn client(order: Order) -> Swarm<Client> {
    let keypair = Keypair::generate_ed25519();
    let config = Config::new(&keypair).unwrap();
    client_of(&keypair, config, order)
}

pub(crate) fn client_of(keypair: &Keypair, config: Config, order: Order) -> Swarm<Client> {
    let peer = config.local_peer_id();
    let (circuits, relay) = relay::client::new(peer);
    let circuits = Transport::new(circuits, config.clone())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let transport = match order {
        Order::CircuitsFirst => either(circuits, sockets(&config)),
        Order::SocketsFirst => either(sockets(&config), circuits),
    };
    client_with(keypair, transport, relay)
}

pub(crate) fn client_with(keypair: &Keypair, transport: Connections, relay: relay::client::Behaviour) -> Swarm<Client> {
    let behaviour = Client {
        relay,
        ping: ping::Behaviour::default(),
        identify: identify(keypair),
    };
    swarm(transport, behaviour, keypair.public().to_peer_id())
}

/// A relay whose reservations last for two seconds.
pub(crate) fn relay() -> Swarm<Relay> {
    relay_with(relay::Config {
        reservation_duration: Duration::from_secs(2),
        ..relay::Config::default()
    })
}

pub(crate) fn relay_with(config: relay::Config) -> Swarm<Relay> {
    let keypair = Keypair::generate_ed25519();
    let knock = Config::new(&keypair).unwrap();
    let peer = knock.local_peer_id();
    let behaviour = Relay {
        relay: relay::Behaviour::new(peer, config),
        ping: ping::Behaviour::default(),
        identify: identify(&keypair),
    };
    swarm(sockets(&knock), behaviour, peer)
}

fn identify(keypair: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/relayed/1.0.0".into(), keypair.public()))
}

fn swarm<B: NetworkBehaviour>(transport: Connections, behaviour: B, peer: PeerId) -> Swarm<B> {
    let config = SwarmConfig::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
    Swarm::new(transport, behaviour, peer, config)
}

/// Where a relay listens, once it does. A reservation says where the relay can be reached, which it
/// has to know first.
pub(crate) async fn listening(relay: &mut Swarm<Relay>, address: &str) -> Multiaddr {
    relay.listen_on(address.parse().unwrap()).unwrap();
    let address = wait("the relay's address", relay, |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address),
        _ => None,
    })
    .await;
    relay.add_external_address(address.clone());
    address.with_p2p(*relay.local_peer_id()).unwrap()
}

/// The same of a relay that goes on by itself from then on.
pub(crate) async fn start(mut relay: Swarm<Relay>, address: &str) -> Multiaddr {
    let address = listening(&mut relay, address).await;
    run(relay);
    address
}

pub(crate) fn run<B>(mut swarm: Swarm<B>)
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
    Swarm<B>: Send + 'static,
{
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
}

/// Drives `swarm` until something happens.
pub(crate) async fn wait<B: NetworkBehaviour, T>(
    what: &str,
    swarm: &mut Swarm<B>,
    mut happens: impl FnMut(SwarmEvent<B::ToSwarm>) -> Option<T>,
) -> T {
    soon(what, async {
        loop {
            if let Some(found) = happens(swarm.select_next_some().await) {
                break found;
            }
        }
    })
    .await
}

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing"))
}

pub(crate) fn last_peer(address: &Multiaddr) -> PeerId {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => peer,
        other => panic!("{other:?} at the end of {address}"),
    }
}
