#!/usr/bin/env bash
# libp2p 0.57.1 (libp2p-relay 0.22, libp2p-stream 0.5.0-alpha, libp2p-yamux): a circuit that its relay cuts.
#
# Behaviour: a relay ends a circuit when it has carried `max_circuit_bytes`, both directions counted together.
# The reader of a stream over that circuit sees the end of the stream, not an error: half a message looks
# like a whole one. Only the connection's event says that something was cut.
#
# Seen: 131072 bytes allowed, 200000 written; the reader got between 100000 and 131072 bytes and then
# `Ok(0)`; ConnectionClosed with a cause at the reader's Swarm.
#
# For users: every protocol that may run over a circuit needs a length or a mark at its end.
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
libp2p-stream = "=0.5.0-alpha"
futures = "0.3"
tokio = { version = "1", features = ["full"] }
TOML
cat > finding/src/main.rs <<'RUST'
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, SwarmBuilder, noise, relay, tcp, yamux};
use std::time::Duration;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/finding/1");
const ALLOWED: u64 = 131_072;
const WRITTEN: usize = 200_000;

#[derive(NetworkBehaviour)]
struct Client {
    relay: relay::client::Behaviour,
    stream: libp2p_stream::Behaviour,
}

fn client() -> libp2p::Swarm<Client> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_, relay| Client { relay, stream: libp2p_stream::Behaviour::new() })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

#[tokio::main]
async fn main() {
    let mut relay = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let config = relay::Config { max_circuit_bytes: ALLOWED, ..Default::default() };
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
    tokio::spawn(async move { loop { relay.select_next_some().await; } });

    let (mut reader, mut writer) = (client(), client());
    let mut incoming = reader.behaviour().stream.new_control().accept(PROTOCOL).unwrap();
    reader.listen_on(circuit.clone()).unwrap();
    loop {
        if let SwarmEvent::Behaviour(ClientEvent::Relay(relay::client::Event::ReservationReqAccepted { .. })) =
            reader.select_next_some().await
        {
            break;
        }
    }
    let peer = *reader.local_peer_id();
    writer.dial(circuit.with(Protocol::P2p(peer))).unwrap();
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionClosed { endpoint, cause, .. } = reader.select_next_some().await
                && endpoint.is_relayed()
            {
                let _ = told.send(cause.is_some());
            }
        }
    });
    loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = writer.select_next_some().await
            && peer_id == peer
        {
            break;
        }
    }
    let mut control = writer.behaviour().stream.new_control();
    tokio::spawn(async move { loop { writer.select_next_some().await; } });
    tokio::spawn(async move {
        let mut stream = control.open_stream(peer, PROTOCOL).await.unwrap();
        let _ = stream.write_all(&vec![7; WRITTEN]).await;
        let _ = stream.flush().await;
        std::future::pending::<()>().await;
    });
    let (_, mut stream) = incoming.next().await.unwrap();
    let mut got = 0;
    let end = loop {
        match stream.read(&mut [0; 4096]).await {
            Ok(0) => break "Ok(0)".to_owned(),
            Ok(n) => got += n,
            Err(error) => break format!("{error:?}"),
        }
    };
    eprintln!("{got} bytes came");
    println!("all came: {}, most came: {}", got == WRITTEN, (100_000..=ALLOWED as usize).contains(&got));
    println!("the stream's reader sees: {end}");
    println!("the connection ended with a cause: {}", tells.recv().await.unwrap());
}
RUST

expected="all came: false, most came: true
the stream's reader sees: Ok(0)
the connection ended with a cause: true"
seen=$(cd finding && cargo run --quiet)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || {
    printf 'this has changed; expected:\n%s\n' "$expected" >&2
    exit 1
}
