#!/usr/bin/env bash
# libp2p 0.57.1 (libp2p-autonat 0.16): both versions of AutoNAT in one Swarm.
#
# Behaviour: version 1 confirms an external address with the node's own `/p2p/<id>` at its end, version 2 the same
# address without. The Swarm takes them for two, and identify announces both.
#
# Seen: for one listener, two ExternalAddrConfirmed that differ by `/p2p/<own id>` alone; two external addresses.
#
# For users: take one's own `/p2p` off before external addresses are compared, listed or counted (identify tells
# twenty at most), or run version 2 alone.
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
libp2p = { version = "=0.57.1", features = ["autonat", "ed25519", "identify", "macros", "noise", "tcp", "tokio", "yamux"] }
futures = "0.3"
rand = "0.8"
tokio = { version = "1", features = ["full"] }
TOML
cat > finding/src/main.rs <<'RUST'
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, autonat, identify, identity, noise, tcp, yamux};
use std::time::Duration;
use tokio::time::timeout;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    first: autonat::v1::Behaviour,
    client: autonat::v2::client::Behaviour,
    server: autonat::v2::server::Behaviour,
}

fn behaviour(key: &identity::Keypair) -> Behaviour {
    let first = autonat::v1::Config {
        only_global_ips: false,
        boot_delay: Duration::from_secs(1),
        ..Default::default()
    };
    Behaviour {
        identify: identify::Behaviour::new(identify::Config::new("/finding/1".into(), key.public())),
        first: autonat::v1::Behaviour::new(key.public().to_peer_id(), first),
        client: autonat::v2::client::Behaviour::default(),
        server: autonat::v2::server::Behaviour::default(),
    }
}

async fn node() -> (libp2p::Swarm<Behaviour>, Multiaddr) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.listen_on("/ip4/0.0.0.0/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
            && address.to_string().starts_with("/ip4/127.")
        {
            return (swarm, address);
        }
    }
}

#[tokio::main]
async fn main() {
    let (mut server, at) = node().await;
    let (mut node, own) = node().await;
    let (server_id, id) = (*server.local_peer_id(), *node.local_peer_id());
    tokio::spawn(async move { loop { server.select_next_some().await; } });
    node.behaviour_mut().first.add_server(server_id, Some(at.clone()));
    node.dial(at).unwrap();
    let mut confirmed = Vec::new();
    let _ = timeout(Duration::from_secs(40), async {
        while confirmed.len() < 2 {
            if let SwarmEvent::ExternalAddrConfirmed { address } = node.select_next_some().await
                && address.to_string().starts_with(&own.to_string())
            {
                confirmed.push(address);
            }
        }
    })
    .await;
    eprintln!("{confirmed:?}");
    let with_id = own.clone().with(Protocol::P2p(id));
    println!("without /p2p: {}, with it: {}", confirmed.contains(&own), confirmed.contains(&with_id));
    let all: Vec<_> = node.external_addresses().collect();
    println!("both are external addresses: {}", all.contains(&&own) && all.contains(&&with_id));
}
RUST

expected='without /p2p: true, with it: true
both are external addresses: true'
seen=$(cd finding && cargo run --quiet)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || {
    printf 'this has changed; expected:\n%s\n' "$expected" >&2
    exit 1
}
