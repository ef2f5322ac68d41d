//! A trim ends no dial that is in flight, nor the relayed connection over which a hole is being punched.

use crate::common::*;
use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Transport as _, noise, relay, tcp, yamux};
use libp2p_connmgr::{Behaviour, Config, Manager};
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(NetworkBehaviour)]
struct Punching {
    connmgr: Behaviour,
    relay: relay::client::Behaviour,
}

#[derive(NetworkBehaviour)]
struct Relaying {
    relay: relay::Behaviour,
}

fn swarm_config() -> libp2p::swarm::Config {
    libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(LONG)
}

fn punching() -> (Swarm<Punching>, Manager) {
    let config = Config::new(1, 1_000).unwrap().with_grace_period(Duration::ZERO);
    let (connmgr, manager) = libp2p_connmgr::new(config);
    let swarm = libp2p::SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_, relay| Punching { connmgr, relay })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(LONG))
        .build();
    (swarm, manager)
}

/// A relay that listens, on a task of its own.
async fn start_relay() -> Multiaddr {
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id();
    let transport = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let relay = relay::Behaviour::new(id, relay::Config::default());
    let mut swarm = Swarm::new(transport, Relaying { relay }, id, swarm_config());
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    // A reservation says where the relay is to be found.
    swarm.add_external_address(address.clone());
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    address.with_p2p(id).unwrap()
}

async fn until(swarm: &mut Swarm<Punching>, mut is_it: impl FnMut(&SwarmEvent<PunchingEvent>) -> bool) {
    let wait = async { while !is_it(&swarm.select_next_some().await) {} };
    tokio::time::timeout(PATIENCE, wait).await.expect("it happens in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_punch_in_flight_survives_a_trim() {
    let relay = start_relay().await;
    let (mut remote, _) = punching();
    let remote_id = *remote.local_peer_id();
    let circuit = relay.clone().with(libp2p::multiaddr::Protocol::P2pCircuit);
    remote.listen_on(circuit.clone()).unwrap();
    until(&mut remote, |event| matches!(event, SwarmEvent::NewListenAddr { .. })).await;
    tokio::spawn(async move {
        loop {
            remote.select_next_some().await;
        }
    });

    let (mut swarm, manager) = punching();
    swarm.dial(circuit.with_p2p(remote_id).unwrap()).unwrap();
    let relayed = |event: &SwarmEvent<_>| {
        matches!(event, SwarmEvent::ConnectionEstablished { endpoint: ConnectedPoint::Dialer { .. }, peer_id, .. }
            if *peer_id == remote_id)
    };
    until(&mut swarm, relayed).await;
    assert!(manager.tag_info(&remote_id).unwrap().connections[0].relayed);

    // A socket that is accepted by the kernel and never answers: the dial lasts until this test ends it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port())
        .parse()
        .unwrap();
    // As DCUtR dials when it was asked through the relay: a second connection, in the listener's role.
    let punch = DialOpts::peer_id(remote_id)
        .condition(PeerCondition::Always)
        .addresses(vec![address])
        .override_role()
        .build();
    swarm.dial(punch).unwrap();
    assert!(manager.explain(&remote_id).dialing);

    // Both the relay's connection and the remote's are candidates, and one is too many: the remote's is the younger.
    let before: Vec<PeerId> = swarm.connected_peers().copied().collect();
    assert_eq!((before.len(), manager.info().connections), (2, 2));
    let trim = manager.trim_open_conns();
    let mut trim = Box::pin(trim);
    let trimmed = loop {
        tokio::select! {
            trimmed = &mut trim => break trimmed.unwrap(),
            _ = swarm.select_next_some() => {}
        }
    };
    assert_eq!(
        (trimmed.closed, trimmed.stuck),
        (0, 0),
        "the only other candidate may stay"
    );
    assert!(swarm.is_connected(&remote_id));
    assert_eq!(
        swarm.network_info().connection_counters().num_pending_outgoing(),
        1,
        "the dial goes on"
    );

    // Once it is over the peer is a candidate like any other.
    drop(silent);
    until(&mut swarm, |event| {
        matches!(event, SwarmEvent::OutgoingConnectionError { .. })
    })
    .await;
    let mut trim = Box::pin(manager.trim_open_conns());
    let trimmed = loop {
        tokio::select! {
            trimmed = &mut trim => break trimmed.unwrap(),
            _ = swarm.select_next_some() => {}
        }
    };
    assert_eq!(trimmed.closed, 1);
}
