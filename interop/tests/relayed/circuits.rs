//! The knock over relay circuits: a relay carries bytes, and strangers reach a node through it too.

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, PortUse};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Config as SwarmConfig, NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, Swarm, ping, relay};
use libp2p_knock::{Config, Transport, tokio as knock_tokio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(NetworkBehaviour)]
struct Client {
    relay: relay::client::Behaviour,
    ping: ping::Behaviour,
}

/// One transport for sockets and one for circuits; the knock on both, and one memory of what was answered.
fn node(config: Config) -> Swarm<Client> {
    let peer = config.local_peer_id();
    let (circuits, relay) = relay::client::new(peer);
    let transport: Boxed<(PeerId, StreamMuxerBox)> = Transport::new(circuits, config.clone())
        .or_transport(knock_tokio::Transport::new(config))
        .map(|either, _| match either {
            futures::future::Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            futures::future::Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        })
        .boxed();
    let ping = ping::Behaviour::default();
    swarm(transport, Client { relay, ping }, peer)
}

fn swarm<B: NetworkBehaviour>(transport: Boxed<(PeerId, StreamMuxerBox)>, behaviour: B, peer: PeerId) -> Swarm<B> {
    let config = SwarmConfig::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
    Swarm::new(transport, behaviour, peer, config)
}

/// A relay that knocks like everybody else. Returns where it listens.
async fn start_relay() -> Multiaddr {
    let config = Config::new(&Keypair::generate_ed25519()).unwrap();
    let peer = config.local_peer_id();
    let transport = knock_tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let mut swarm = swarm(transport, relay::Behaviour::new(peer, relay::Config::default()), peer);
    swarm.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    // A reservation says where the relay can be reached, which it has to know first.
    swarm.add_external_address(address.clone());
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    address.with(Protocol::P2p(peer))
}

/// A node that can be reached through the relay only, and what it reports.
async fn start_listener(
    config: Config,
    relay: &Multiaddr,
) -> (Multiaddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let mut swarm = node(config);
    let peer = *swarm.local_peer_id();
    let circuit = relay.clone().with(Protocol::P2pCircuit);
    swarm.listen_on(circuit.clone().with(Protocol::Tls)).unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                assert_eq!(
                    address.iter().last(),
                    Some(Protocol::Tls),
                    "{address} says that one has to knock"
                );
                break;
            }
            SwarmEvent::ListenerClosed { reason, .. } => panic!("no reservation: {reason:?}"),
            _ => {}
        }
    }
    let (events, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let _ = match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => events.send(format!("connected {peer_id}")),
                SwarmEvent::IncomingConnectionError { error, .. } => events.send(format!("failed {error}")),
                _ => Ok(()),
            };
        }
    });
    (circuit.with(Protocol::Tls).with(Protocol::P2p(peer)), received)
}

fn config() -> Config {
    Config::new(&Keypair::generate_ed25519()).unwrap()
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_friend_knocks_through_the_relay_and_is_let_in() {
    let relay = start_relay().await;
    let (address, mut seen) = soon("the reservation", start_listener(config(), &relay)).await;
    let mut dialer = node(config());
    let us = *dialer.local_peer_id();
    dialer.dial(address.clone()).unwrap();
    let rtt = soon("a ping through the relay", async {
        loop {
            match dialer.select_next_some().await {
                SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { peer, result, .. }))
                    if address
                        .iter()
                        .any(|part| part == Protocol::P2p(peer) && !relay.iter().any(|r| r == part)) =>
                {
                    break result;
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await;
    rtt.expect("answered");
    let told = soon("the listener", async {
        loop {
            let event = seen.recv().await.unwrap();
            if event == format!("connected {us}") {
                break event;
            }
        }
    })
    .await;
    assert!(told.ends_with(&us.to_string()));
}

/// Whoever has the relay's address and the PeerID can have a circuit made. What he then says is heard by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_through_the_relay_gets_no_byte() {
    const CLOSE: Duration = Duration::from_millis(600);
    let relay = start_relay().await;
    let (address, mut seen) = soon(
        "the reservation",
        start_listener(config().dangerous().with_close_time(CLOSE), &relay),
    )
    .await;
    // The relay has to be knocked at all the same; the circuit he wants without a knock.
    let listener = address.iter().last().unwrap();
    let circuit = relay.clone().with(Protocol::P2pCircuit).with(listener);

    // His half of the relay protocol, and the naked byte stream that comes of it.
    let attacker = config();
    let peer = attacker.local_peer_id();
    let (mut circuits, relay_client) = relay::client::new(peer);
    // The listener counts from when it is called, which is before we hear that it was.
    let started = std::time::Instant::now();
    let dial = circuits
        .dial(
            circuit,
            DialOpts {
                role: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            },
        )
        .unwrap();
    let transport = circuits
        .map(|_, _| -> (PeerId, StreamMuxerBox) { unreachable!("nobody calls him") })
        .or_transport(knock_tokio::Transport::new(attacker))
        .map(|either, _| match either {
            futures::future::Either::Left(never) => never,
            futures::future::Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        })
        .boxed();
    let ping = ping::Behaviour::default();
    let mut swarm = swarm(
        transport,
        Client {
            relay: relay_client,
            ping,
        },
        peer,
    );
    swarm.dial(relay).unwrap();
    soon("the relay", async {
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    })
    .await;
    tokio::spawn(async move { while swarm.next().await.is_some() {} });

    let mut stream = soon("the circuit", dial).await.expect("the relay connects anybody");
    stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end of the circuit", stream.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"", "bytes for a stranger");
    assert!(started.elapsed() >= CLOSE, "closed after {:?}", started.elapsed());
    while let Ok(event) = seen.try_recv() {
        assert!(
            !event.contains(&peer.to_string()) && !event.starts_with("failed"),
            "{event}"
        );
    }
}
