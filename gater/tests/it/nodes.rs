//! Swarms with a gate in them, installed in one of the ways that the README's table has rows for.

use crate::common::soon;
use crate::faulty::Faulty;
use crate::recorder::Recorder;
use crate::wire::Wire;
use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, Transport as _, noise, ping, relay, tcp, websocket, yamux};
use libp2p_gater::{Change, FirstWins, Gate, RuleError, Rules, TransportKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Knock,
    Tcp,
    Quic,
    WebSocket,
    Relay,
}

/// Which parts of the gate it has, beside the behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Parts {
    /// `gate.transport` round the whole stack.
    pub(crate) transport: bool,
    /// `gate.transport(tcp).beneath(..)`, under the knock; with relays, `gate.transport` round TCP alone.
    pub(crate) beneath: bool,
    /// Both hooks of the knock, or `gate.upgrade`.
    pub(crate) hooks: bool,
}

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: Toggle<libp2p_gater::Behaviour>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) client: Toggle<relay::client::Behaviour>,
    pub(crate) relay: Toggle<relay::Behaviour>,
}

pub(crate) type Event = SwarmEvent<BehaviourEvent>;

pub(crate) struct Node {
    pub(crate) swarm: Swarm<Behaviour>,
    /// Asked first. It passes while it is not armed.
    pub(crate) faulty: Faulty,
    /// Asked next. It passes what it is not told to deny.
    pub(crate) policy: Recorder,
    pub(crate) rules: Rules,
    pub(crate) gate: Gate,
    pub(crate) peer: PeerId,
    stack: Stack,
}

/// In the order in which they are asked.
#[derive(Default)]
struct Policies {
    faulty: Faulty,
    recorder: Recorder,
    rules: Rules,
}

impl Policies {
    fn gate(&self) -> Gate {
        let policies = FirstWins::new().with(self.faulty.clone()).with(self.recorder.clone());
        Gate::new(policies.with(self.rules.clone()))
    }
}

type Stacked = Boxed<(PeerId, StreamMuxerBox)>;

fn tcp() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::default())
}

/// `$raw`, secured with noise, with the gate in between where `$gated` says so, and muxed.
macro_rules! secured {
    ($raw:expr, $key:expr, $gate:expr, $kind:expr, $gated:expr) => {{
        let muxed = yamux::Config::default;
        let raw = $raw.upgrade(Version::V1Lazy);
        match $gated {
            true => raw
                .authenticate($gate.upgrade_over($kind, noise::Config::new)($key).unwrap())
                .multiplex(muxed())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
            false => raw
                .authenticate(noise::Config::new($key).unwrap())
                .multiplex(muxed())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
        }
    }};
}

fn knock(key: &Keypair, gate: &Gate, parts: Parts) -> Stacked {
    let mut config = libp2p_knock::Config::new(key).unwrap();
    if parts.hooks {
        config = config.with_admission(gate.knock()).with_secured_hook(gate.secured());
    }
    let spawn = |task| drop(tokio::spawn(task));
    match parts.beneath {
        true => {
            let beneath = gate.transport(tcp()).beneath(TransportKind::Knock);
            libp2p_knock::Transport::new(beneath, config)
                .with_executor(spawn)
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed()
        }
        false => libp2p_knock::tokio::Transport::new(config)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    }
}

fn quic(key: &Keypair) -> Stacked {
    libp2p::quic::tokio::Transport::new(libp2p::quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

impl Node {
    pub(crate) fn new(stack: Stack, parts: Parts) -> Self {
        Self::with(stack, parts, true)
    }

    /// The same without the gate's behaviour, if so wanted.
    pub(crate) fn with(stack: Stack, parts: Parts, behaviour: bool) -> Self {
        let policies = Policies::default();
        let gate = policies.gate();
        Self::stacked(stack, parts, behaviour, policies, gate)
    }

    /// With these rules, and timers on their clock.
    pub(crate) fn timed<F>(
        stack: Stack,
        parts: Parts,
        rules: Rules,
        timer: impl Fn(Duration) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let policies = Policies {
            rules,
            ..Policies::default()
        };
        let gate = policies.gate().with_timer(timer);
        Self::stacked(stack, parts, true, policies, gate)
    }

    fn stacked(stack: Stack, parts: Parts, behaviour: bool, policies: Policies, gate: Gate) -> Self {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let mut client = None;
        let inside = match stack {
            Stack::Knock => knock(&key, &gate, parts),
            Stack::Tcp => secured!(tcp(), &key, gate, TransportKind::Tcp, parts.hooks),
            Stack::Quic => quic(&key),
            Stack::WebSocket => {
                let raw = websocket::Config::new(tcp());
                secured!(raw, &key, gate, TransportKind::WebSocket, parts.hooks)
            }
            Stack::Relay => {
                let (circuits, behaviour) = relay::client::new(peer);
                client = Some(behaviour);
                let circuits = secured!(circuits, &key, gate, TransportKind::Relayed, parts.hooks);
                let direct = secured!(tcp(), &key, gate, TransportKind::Tcp, false);
                let direct = match parts.beneath {
                    true => gate.transport(direct).boxed(),
                    false => direct,
                };
                circuits
                    .or_transport(direct)
                    .map(|either, _| either.into_inner())
                    .boxed()
            }
        };
        let transport = match parts.transport {
            true => gate.transport(inside).boxed(),
            false => inside,
        };
        let behaviour = Behaviour {
            gate: behaviour.then(|| gate.behaviour()).into(),
            ping: ping::Behaviour::default(),
            client: client.into(),
            relay: None.into(),
        };
        Self::of(transport, behaviour, &key, policies, gate, stack)
    }

    /// A relay for others, with a gate that nobody asks.
    pub(crate) fn relay() -> Self {
        let (key, policies) = (Keypair::generate_ed25519(), Policies::default());
        let gate = policies.gate();
        let peer = key.public().to_peer_id();
        let behaviour = Behaviour {
            gate: None.into(),
            ping: ping::Behaviour::default(),
            client: None.into(),
            relay: Some(relay::Behaviour::new(peer, relay::Config::default())).into(),
        };
        let transport = secured!(tcp(), &key, gate, TransportKind::Tcp, false);
        Self::of(transport, behaviour, &key, policies, gate, Stack::Tcp)
    }

    fn of(
        transport: Stacked,
        behaviour: Behaviour,
        key: &Keypair,
        policies: Policies,
        gate: Gate,
        stack: Stack,
    ) -> Self {
        let peer = key.public().to_peer_id();
        let config =
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
        Self {
            swarm: Swarm::new(transport, behaviour, peer, config),
            faulty: policies.faulty,
            policy: policies.recorder,
            rules: policies.rules,
            gate,
            peer,
            stack,
        }
    }

    /// Changes the rules.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Change) -> Result<(), RuleError>) {
        self.rules.change(change).unwrap();
    }

    pub(crate) async fn next(&mut self) -> Event {
        self.swarm.select_next_some().await
    }

    /// Listens on the loopback, and says where.
    pub(crate) async fn listen(&mut self) -> Multiaddr {
        let address = match self.stack {
            Stack::Knock => "/ip4/127.0.0.1/tcp/0/tls",
            Stack::Tcp | Stack::Relay => "/ip4/127.0.0.1/tcp/0",
            Stack::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Stack::WebSocket => "/ip4/127.0.0.1/tcp/0/ws",
        };
        self.swarm.listen_on(address.parse().unwrap()).unwrap();
        soon("a listen address", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = self.next().await {
                    return address;
                }
            }
        })
        .await
    }

    pub(crate) fn dial(&mut self, address: &Multiaddr, peer: PeerId) -> Result<(), DialError> {
        self.swarm.dial(address.clone().with_p2p(peer).unwrap())
    }

    /// Asks a relay for a reservation, and says at which address it has one.
    pub(crate) async fn reserve(&mut self, relay: &mut Self, at: &Multiaddr) -> Multiaddr {
        let circuit = at.clone().with_p2p(relay.peer).unwrap().with(Protocol::P2pCircuit);
        self.swarm.listen_on(circuit.clone()).unwrap();
        soon("a reservation", async {
            loop {
                tokio::select! {
                    event = self.next() => if let SwarmEvent::NewListenAddr { .. } = event {
                        return circuit;
                    },
                    _ = relay.next() => {}
                }
            }
        })
        .await
    }
}

/// Connects two nodes, and says by which connections.
pub(crate) async fn connect(dialer: &mut Node, listener: &mut Node) -> (ConnectionId, ConnectionId) {
    let at = listener.listen().await;
    dialer.dial(&at, listener.peer).unwrap();
    connected(dialer, listener).await
}

/// Waits until both have a connection.
pub(crate) async fn connected(dialer: &mut Node, listener: &mut Node) -> (ConnectionId, ConnectionId) {
    let (mut ours, mut theirs) = (None, None);
    soon("both ends connected", async {
        loop {
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                return (ours, theirs);
            }
            let (at, event) = next_of(dialer, listener).await;
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                match at {
                    End::Dialer => ours = Some(connection_id),
                    End::Listener => theirs = Some(connection_id),
                }
            }
        }
    })
    .await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Dialer,
    Listener,
}

/// What happens next, at either end.
pub(crate) async fn next_of(dialer: &mut Node, listener: &mut Node) -> (End, Event) {
    tokio::select! {
        event = dialer.next() => (End::Dialer, event),
        event = listener.next() => (End::Listener, event),
    }
}

/// `address`, with a counting forwarder before it.
pub(crate) async fn behind_wire(address: &Multiaddr) -> (Multiaddr, Wire) {
    let (mut ip, mut port, mut udp) = (None, 0, false);
    for protocol in address {
        match protocol {
            Protocol::Ip4(found) => ip = Some(IpAddr::from(found)),
            Protocol::Tcp(found) => port = found,
            Protocol::Udp(found) => (port, udp) = (found, true),
            _ => {}
        }
    }
    let to = SocketAddr::new(ip.unwrap(), port);
    let wire = match udp {
        true => Wire::udp(to).await,
        false => Wire::tcp(to).await,
    };
    let replaced = address.iter().map(|protocol| match protocol {
        Protocol::Tcp(_) => Protocol::Tcp(wire.address.port()),
        Protocol::Udp(_) => Protocol::Udp(wire.address.port()),
        other => other,
    });
    (replaced.collect(), wire)
}
