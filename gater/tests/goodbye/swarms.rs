//! Swarms that can say goodbye, and some that cannot.

use futures::StreamExt as _;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::handler::{ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, Stream, StreamProtocol, SwarmEvent, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use libp2p_gater::goodbye;
use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Leaving")]
pub(crate) struct Node {
    pub(crate) goodbye: goodbye::Behaviour,
    ping: ping::Behaviour,
}

#[derive(Debug)]
pub(crate) enum Leaving {
    Goodbye(goodbye::Event),
    Ping,
}

impl From<goodbye::Event> for Leaving {
    fn from(event: goodbye::Event) -> Self {
        Self::Goodbye(event)
    }
}

impl From<ping::Event> for Leaving {
    fn from(_: ping::Event) -> Self {
        Self::Ping
    }
}

pub(crate) type Host = Swarm<Node>;

fn of<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| behaviour)
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

pub(crate) fn swarm(config: goodbye::Config) -> Host {
    swarm_of(goodbye::Behaviour::new(config))
}

pub(crate) fn swarm_of(goodbye: goodbye::Behaviour) -> Host {
    of(Node {
        goodbye,
        ping: ping::Behaviour::default(),
    })
}

/// Does not wait for ever.
pub(crate) async fn until<T>(what: &str, happens: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), happens)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

pub(crate) async fn listening<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
        .expect("it listens");
    until("it listens", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    })
    .await
}

/// The next event of either, and whether it is the first's.
pub(crate) async fn until_either(first: &mut Host, second: &mut Host) -> (bool, SwarmEvent<Leaving>) {
    tokio::select! {
        event = first.select_next_some() => (true, event),
        event = second.select_next_some() => (false, event),
    }
}

/// The connection as each knows it.
pub(crate) async fn connected<A: NetworkBehaviour, B: NetworkBehaviour>(
    host: &mut Swarm<A>,
    guest: &mut Swarm<B>,
    at: Multiaddr,
) -> (ConnectionId, ConnectionId) {
    // From a new port: with both ends listening, the way back would be the socket that has just been closed.
    let opts = DialOpts::unknown_peer_id().address(at).allocate_new_port().build();
    guest.dial(opts).expect("it dials");
    until("connected", async {
        let (mut here, mut there) = (None, None);
        loop {
            tokio::select! {
                event = host.select_next_some() => if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                    here = Some(connection_id);
                },
                event = guest.select_next_some() => if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                    there = Some(connection_id);
                },
            }
            if let (Some(here), Some(there)) = (here, there) {
                return (here, there);
            }
        }
    })
    .await
}

/// How it fails to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mute {
    /// Knows no such protocol.
    Unable,
    /// Takes the stream and never reads.
    Deaf,
}

/// A behaviour that does not listen.
pub(crate) struct Deaf(Mute);

pub(crate) fn mute(how: Mute) -> Swarm<Deaf> {
    of(Deaf(how))
}

#[derive(Default)]
pub(crate) struct Ear {
    able: bool,
    streams: Vec<Stream>,
}

impl ConnectionHandler for Ear {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let name = match self.able {
            true => "/libp2p-gater/goodbye/1.0.0",
            false => "/something/else",
        };
        SubstreamProtocol::new(ReadyUpgrade::new(StreamProtocol::new(name)), ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        if let ConnectionEvent::FullyNegotiatedInbound(inbound) = event {
            self.streams.push(inbound.protocol);
        }
    }
}

impl NetworkBehaviour for Deaf {
    type ConnectionHandler = Ear;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.ear())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: libp2p::core::Endpoint,
        _: libp2p::core::transport::PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.ear())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

impl Deaf {
    fn ear(&self) -> Ear {
        Ear {
            able: self.0 == Mute::Deaf,
            streams: Vec::new(),
        }
    }
}
