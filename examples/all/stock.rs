//! A room: every line of stdin goes to all members, over gossipsub. Stock libp2p over TCP, QUIC and
//! relays, with metrics. `../all.rs` is the same program with all plugins of this workspace, and
//! `stock-to-all.diff` is what it takes.

#[path = "../src/bin/node/key.rs"]
mod key;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::metrics::{Metrics, Recorder as _, Registry};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, gossipsub, identify, noise, ping, relay, tcp, yamux};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[derive(Debug, Parser)]
struct Cli {
    /// The file with this node's key, made if it does not exist.
    #[arg(long, value_name = "FILE", default_value = "room.key")]
    key: PathBuf,
    /// An address to listen on, one of a relay's that ends in /p2p-circuit too. Repeatable.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Multiaddr>,
    /// An address of a member. Repeatable.
    #[arg(long, value_name = "ADDR")]
    dial: Vec<Multiaddr>,
    /// Where Prometheus asks for metrics: 127.0.0.1:9100.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    gossipsub: gossipsub::Behaviour,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let (key, _) = key::load_or_create(&cli.key)?;
    let mut registry = Registry::default();
    let mut swarm = swarm(key, &mut registry)?;
    let recorder = Metrics::new(&mut registry);
    if let Some(address) = cli.metrics {
        let listener = TcpListener::bind(address).await?;
        println!("metrics http://{}/metrics", listener.local_addr()?);
        tokio::spawn(serve(listener, registry));
    }
    println!("peer {}", swarm.local_peer_id());
    for address in cli.listen {
        let listening = swarm.listen_on(address.clone());
        listening.with_context(|| format!("cannot listen on {address}"))?;
    }
    for address in cli.dial {
        swarm.dial(address)?;
    }
    let mut lines = stdin();
    loop {
        tokio::select! {
            Some(line) = lines.recv() => typed(&mut swarm, &line),
            event = swarm.select_next_some() => {
                recorder.record(&event);
                happened(&recorder, event);
            }
        }
    }
}

fn typed(swarm: &mut Swarm<Behaviour>, line: &str) {
    if let Err(error) = swarm.behaviour_mut().gossipsub.publish(room(), line) {
        println!("not-said {error}");
    }
}

fn happened(recorder: &Metrics, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => println!("listening {address}"),
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            println!("connected {peer_id} {}", endpoint.get_remote_address());
        }
        SwarmEvent::ConnectionClosed { peer_id, .. } => println!("closed {peer_id}"),
        SwarmEvent::OutgoingConnectionError { error, .. } => println!("dial-failed {:#}", anyhow::Error::new(error)),
        SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(event)) => {
            recorder.record(&event);
            match event {
                gossipsub::Event::Message { message, .. } => {
                    println!("said {}", String::from_utf8_lossy(&message.data).escape_debug());
                }
                gossipsub::Event::Subscribed { peer_id, .. } => println!("joined {peer_id}"),
                _ => {}
            }
        }
        _ => {}
    }
}

fn room() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new("room")
}

fn swarm(key: Keypair, registry: &mut Registry) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_dns()?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_bandwidth_metrics(registry)
        .with_behaviour(|key, relay| {
            let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
            let mut gossipsub = gossipsub::Behaviour::new(signed, gossipsub::Config::default())?;
            gossipsub.subscribe(&room())?;
            Ok(Behaviour {
                relay,
                identify: identify::Behaviour::new(identify::Config::new("/room/1".to_owned(), key.public())),
                ping: ping::Behaviour::default(),
                gossipsub,
            })
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build())
}

/// Answers every request with the metrics.
async fn serve(listener: TcpListener, registry: Registry) {
    while let Ok((mut scrape, _)) = listener.accept().await {
        // What is asked for does not matter, but a socket that closes unread is reset.
        let _ = timeout(Duration::from_secs(1), scrape.read(&mut [0; 4096])).await;
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_ok() {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\nConnection: close";
            let _ = scrape.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).await;
        }
    }
}

/// Lines of stdin, from a thread of its own: the runtime's reader would keep the program from ending.
fn stdin() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        let typed = std::io::stdin().lines().map_while(Result::ok);
        typed
            .take_while(|line| sender.blocking_send(line.clone()).is_ok())
            .for_each(drop);
    });
    lines
}
