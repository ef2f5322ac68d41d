#!/usr/bin/env bash
# libp2p 0.57.1 (libp2p-relay 0.22): a relay that goes away, seen by a node that listens through it.
#
# Behaviour: the listener through the relay ends with the reason `Ok(())`, as if the node itself had removed it.
# No ExpiredListenAddr is told, and nothing makes a new reservation. Each renewal of a reservation, on the other
# hand, tells NewListenAddr again for the address that has been there all along.
#
# Seen: two NewListenAddr for one address while a reservation of 20 s is renewed; then, when the relay is
# gone, ListenerClosed with Ok(()), no ExpiredListenAddr, and no further reservation in 20 s.
#
# For users: take NewListenAddr as said again, and ListenerClosed(Ok) of a circuit as a loss: listen anew.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir -p finding/src
cat > finding/Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
libp2p = { version = "=0.57.1", features = ["ed25519", "macros", "noise", "relay", "tcp", "tokio", "yamux"] }
futures = "0.3"
tokio = { version = "1", features = ["full"] }
TOML
cat > finding/src/main.rs <<'RUST'
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, noise, relay, tcp, yamux};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::main]
async fn main() {
    let mut relay = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let config = relay::Config { reservation_duration: Duration::from_secs(20), ..Default::default() };
            relay::Behaviour::new(key.public().to_peer_id(), config)
        })
        .unwrap()
        .build();
    relay.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let at: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = relay.select_next_some().await {
            break address;
        }
    };
    relay.add_external_address(at.clone());
    let circuit = at.with(Protocol::P2p(*relay.local_peer_id())).with(Protocol::P2pCircuit);
    let running = tokio::spawn(async move { loop { relay.select_next_some().await; } });

    let mut node = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_, relay| relay)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(120)))
        .build();
    node.listen_on(circuit).unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        if let SwarmEvent::NewListenAddr { address, .. } = node.select_next_some().await {
            told.push(address);
        }
    }
    println!("one address, told as new twice: {}", told[0] == told[1]);

    running.abort();
    let (mut closed, mut expired) = (None, false);
    let _ = timeout(Duration::from_secs(20), async {
        loop {
            match node.select_next_some().await {
                SwarmEvent::ListenerClosed { reason, .. } => closed = Some(format!("{reason:?}")),
                SwarmEvent::ExpiredListenAddr { .. } => expired = true,
                SwarmEvent::NewListenAddr { .. } => closed = None,
                _ => {}
            }
        }
    })
    .await;
    println!("the relay is gone: ListenerClosed {closed:?}, ExpiredListenAddr {expired}");
}
RUST

expected='one address, told as new twice: true
the relay is gone: ListenerClosed Some("Ok(())"), ExpiredListenAddr false'
seen=$(cd finding && cargo run --quiet)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || {
    printf 'this has changed; expected:\n%s\n' "$expected" >&2
    exit 1
}
