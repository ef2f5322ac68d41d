//! The knock over relay circuits: a relay carries bytes, and strangers reach a node through it too.

use crate::nodes::*;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, ping, relay};
use libp2p_knock::{Config, is_knock_address};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// A node that can be reached through the relay only: where, by its own words, and what it reports.
async fn start_listener(
    configure: impl FnOnce(Config) -> Config,
    relay: &Multiaddr,
) -> (Multiaddr, UnboundedReceiver<String>) {
    let keypair = Keypair::generate_ed25519();
    let config = configure(Config::new(&keypair).unwrap());
    let mut swarm = client_of(&keypair, config, Order::CircuitsFirst);
    let circuit = relay.clone().with(Protocol::P2pCircuit).with(Protocol::Tls);
    swarm.listen_on(circuit).unwrap();
    let address = wait("the reservation", &mut swarm, |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address),
        SwarmEvent::ListenerClosed { reason, .. } => panic!("no reservation: {reason:?}"),
        _ => None,
    })
    .await;
    assert!(is_knock_address(&address), "{address} says that one has to knock");
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
    (address, received)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_friend_knocks_through_the_relay_and_is_let_in() {
    let relay = start(relay(), "/ip4/127.0.0.1/tcp/0/tls").await;
    let (address, mut seen) = start_listener(|config| config, &relay).await;
    let mut dialer = client(Order::CircuitsFirst);
    let (us, them) = (*dialer.local_peer_id(), last_peer(&address));
    dialer.dial(address).unwrap();
    let answered = wait("a ping through the relay", &mut dialer, |event| match event {
        SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { peer, result, .. })) if peer == them => Some(result),
        SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
        _ => None,
    })
    .await;
    answered.expect("answered");
    soon("the listener", async {
        while seen.recv().await.unwrap() != format!("connected {us}") {}
    })
    .await;
}

/// Whoever has the relay's address and the PeerID can have a circuit made. What he then says is heard by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_through_the_relay_gets_no_byte() {
    const CLOSE: Duration = Duration::from_millis(600);
    let relay = start(relay(), "/ip4/127.0.0.1/tcp/0/tls").await;
    let (address, mut seen) = start_listener(|config| config.dangerous().with_close_time(CLOSE), &relay).await;
    // The relay has to be knocked at all the same; the circuit he wants without a knock.
    let circuit = relay
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(last_peer(&address)));

    // His half of the relay protocol, and the naked byte stream that comes of it.
    let keypair = Keypair::generate_ed25519();
    let attacker = Config::new(&keypair).unwrap();
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
    let circuits = circuits
        .map(|_, _| -> (PeerId, StreamMuxerBox) { unreachable!("nobody calls him") })
        .boxed();
    let mut swarm = client_with(&keypair, either(circuits, sockets(&attacker)), relay_client);
    swarm.dial(relay).unwrap();
    wait("the relay", &mut swarm, |event| {
        matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())
    })
    .await;
    run(swarm);

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
