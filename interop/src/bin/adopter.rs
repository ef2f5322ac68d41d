//! A program that has adopted both worlds with the snippet of the transport's README, line by line,
//! and counts what comes of it.
//!
//! Commands come as JSON lines on standard input, events go out as JSON lines on standard output; the end of the
//! input is the end of the process. See `tests/adopters.rs`.

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, Swarm, Transport as _, noise, ping, tcp, yamux};
use libp2p_knock::{Config, Migration, MigrationStage, is_knock_address};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::json;
use std::num::NonZeroU8;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Parser)]
struct Args {
    /// The identity: the same number is the same peer.
    #[arg(long)]
    seed: u8,
    #[arg(long)]
    stage: MigrationStage,
    /// Where to listen, but for what the stage leaves out.
    #[arg(long)]
    listen: Vec<Multiaddr>,
}

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum Command {
    Dial {
        peer: String,
        addresses: Vec<Multiaddr>,
    },
    /// Asks for an event with the text of a scrape.
    Metrics,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let mut registry = Registry::default();
    let mut swarm = swarm(args.seed, args.stage, &mut registry)?;
    println!(
        "{}",
        json!({"event": "peer", "peer": swarm.local_peer_id().to_string()})
    );
    for address in args.listen.into_iter().filter(|address| args.stage.admits(address)) {
        swarm.listen_on(address)?;
    }
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = commands.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                match serde_json::from_str(&line).with_context(|| format!("no such command: {line}"))? {
                    Command::Dial { peer, addresses } => {
                        let peer: PeerId = peer.parse()?;
                        // An error is that it is connected, or being dialled.
                        let _ = swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build());
                    }
                    Command::Metrics => {
                        let mut text = String::new();
                        encode(&mut text, &registry)?;
                        println!("{}", json!({"event": "metrics", "text": text}));
                    }
                }
            }
            event = swarm.select_next_some() => report(event),
        }
    }
}

fn report(event: SwarmEvent<ping::Event>) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            println!("{}", json!({"event": "listening", "address": address.to_string()}));
        }
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            let (peer, knock) = (peer_id.to_string(), is_knock(&endpoint));
            println!("{}", json!({"event": "connected", "peer": peer, "knock": knock}));
        }
        SwarmEvent::ConnectionClosed { endpoint, .. } => {
            println!("{}", json!({"event": "closed", "knock": is_knock(&endpoint)}));
        }
        SwarmEvent::IncomingConnectionError { error, .. } => {
            println!("{}", json!({"event": "incoming_failed", "error": format!("{error:?}")}));
        }
        SwarmEvent::OutgoingConnectionError { error, .. } => {
            println!("{}", json!({"event": "dial_failed", "error": format!("{error:?}")}));
        }
        _ => {}
    }
}

fn is_knock(point: &ConnectedPoint) -> bool {
    is_knock_address(match point {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { local_addr, .. } => local_addr,
    })
}

fn swarm(seed: u8, stage: MigrationStage, registry: &mut Registry) -> Result<Swarm<ping::Behaviour>> {
    let keypair = Keypair::ed25519_from_bytes([seed; 32])?;
    let behaviour = ping::Behaviour::default();
    Ok(libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|key| {
            let stock = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(key)?)
                .multiplex(yamux::Config::default());
            let knock = libp2p_knock::tokio::Transport::new(Config::new(key)?.with_metrics(registry)?);
            Ok(Migration::new(stage, stock, knock).with_metrics(registry)?)
        })?
        .with_dns()?
        .with_behaviour(|_| behaviour)?
        // libp2p-dns dials an address when it is first polled, and libp2p polls eight at a time: poll all.
        .with_swarm_config(|config| config.with_dial_concurrency_factor(NonZeroU8::MAX))
        .build())
}
