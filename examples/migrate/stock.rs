//! A small libp2p program: it pings the peer it is told to dial, and prints one line for whatever happens.
//!
//! The same program three times: `stock.rs` before it adopts the knock, `knock.rs` while its network moves, and
//! `knock_only.rs` afterwards. MIGRATION.md shows what differs.

#[path = "../src/bin/node/key.rs"]
mod key;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identify, ping};
use libp2p::{noise, tcp, yamux};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Parser)]
struct Cli {
    /// The file with this node's key, made if it does not exist.
    #[arg(long, value_name = "FILE", default_value = "migrate.key")]
    key: PathBuf,
    /// An address to listen on. Repeatable.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Multiaddr>,
    /// An address of the peer to connect to, with /p2p/… at its end. Repeatable, for more addresses of that peer.
    #[arg(long, value_name = "ADDR")]
    dial: Vec<Multiaddr>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut swarm = swarm(&cli)?;
    println!("peer {}", swarm.local_peer_id());
    for address in cli.listen {
        let listening = swarm.listen_on(address.clone());
        listening.with_context(|| format!("cannot listen on {address}"))?;
    }
    if let Some(address) = cli.dial.first() {
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            anyhow::bail!("{address} does not end in /p2p/<peer id>");
        };
        swarm.dial(DialOpts::peer_id(peer).addresses(cli.dial).build())?;
    }
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => println!("listening {address}"),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                println!("connected {peer_id} {}", endpoint.get_remote_address());
            }
            SwarmEvent::ConnectionClosed { peer_id, .. } => println!("closed {peer_id}"),
            SwarmEvent::OutgoingConnectionError { error, .. } => println!("dial-failed {error}"),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result, .. })) => match result {
                Ok(_) => println!("ping {peer}"),
                Err(error) => println!("ping-failed {peer} {error}"),
            },
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                println!("identified {peer_id} {:?}", info.listen_addrs);
            }
            _ => {}
        }
    }
}

fn swarm(cli: &Cli) -> Result<Swarm<Behaviour>> {
    let (key, _) = key::load_or_create(&cli.key)?;
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| Behaviour {
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new("/migrate/1".to_owned(), key.public())),
        })?
        .with_swarm_config(|config| {
            // Default 10 s, after which the next word would cost a new connection.
            config.with_idle_connection_timeout(Duration::from_secs(60))
        })
        .build())
}
