//! A peer that keeps others connected: `PersistentPeers` over the knock transport, with identify beside it.
//!
//! Commands come as JSON lines on standard input, events go out as JSON lines on standard output; the end of the
//! input is the end of the process. See `tests/persistent/main.rs`.

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use libp2p_connmgr::persistent::{Config, Event, Probes};
use libp2p_connmgr::{Manager, PersistentPeers};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[derive(Parser)]
struct Args {
    /// The identity: whoever starts with the same number is the same peer.
    #[arg(long)]
    seed: u8,
    /// Where to listen.
    #[arg(long)]
    listen: Vec<Multiaddr>,
}

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum Command {
    /// Keeps `peer` connected.
    Want { peer: String, addresses: Vec<Multiaddr> },
    /// Listens at `address` too.
    Listen { address: Multiaddr },
    /// Asks for an event with the connections that are open, and whether each peer is protected.
    State,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    connmgr: libp2p_connmgr::Behaviour,
    persistent: PersistentPeers,
    identify: identify::Behaviour,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let (mut swarm, manager) = swarm(args.seed)?;
    for address in args.listen {
        swarm.listen_on(address)?;
    }
    // By connection: the peer, and who dialled.
    let mut open = BTreeMap::new();
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = commands.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                match serde_json::from_str(&line).with_context(|| format!("no such command: {line}"))? {
                    Command::Want { peer, addresses } => {
                        swarm.behaviour_mut().persistent.add_peer(peer.parse()?, addresses)?;
                    }
                    Command::Listen { address } => {
                        swarm.listen_on(address)?;
                    }
                    Command::State => {
                        let connections: Vec<_> = open
                            .values()
                            .map(|(peer, dialled): &(PeerId, bool)| json!({
                                "peer": peer.to_string(),
                                "dialled": dialled,
                                "protected": manager.is_protected(peer, ""),
                            }))
                            .collect();
                        println!("{}", json!({ "event": "state", "connections": connections }));
                    }
                }
            }
            event = swarm.select_next_some() => report(event, &mut open),
        }
    }
}

/// Impatient, for a test: what takes seconds elsewhere takes a fraction of one.
fn swarm(seed: u8) -> Result<(Swarm<Behaviour>, Manager)> {
    let key = Keypair::ed25519_from_bytes([seed; 32])?;
    let (connmgr, manager) = libp2p_connmgr::new(libp2p_connmgr::Config::new(160, 192)?);
    let config = Config::new()
        .with_min_interval(Duration::from_millis(100))
        .with_max_interval(Duration::from_secs(1))
        .with_probes(Probes {
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(3),
        });
    let persistent = PersistentPeers::new(key.public().to_peer_id(), config).with_manager(manager.clone());
    let swarm = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))?
        .with_behaviour(|key| Behaviour {
            connmgr,
            persistent,
            identify: identify::Behaviour::new(
                identify::Config::new("/keeper/1".into(), key.public()).with_push_listen_addr_updates(true),
            ),
        })?
        .with_swarm_config(|config| config)
        .with_connection_timeout(Duration::from_secs(3))
        .build();
    Ok((swarm, manager))
}

fn report(event: SwarmEvent<BehaviourEvent>, open: &mut BTreeMap<String, (PeerId, bool)>) {
    let event = match event {
        SwarmEvent::NewListenAddr { address, .. } => json!({ "event": "listening", "address": address }),
        SwarmEvent::ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            ..
        } => {
            open.insert(connection_id.to_string(), (peer_id, endpoint.is_dialer()));
            json!({ "event": "connected", "peer": peer_id.to_string(), "address": endpoint.get_remote_address() })
        }
        SwarmEvent::ConnectionClosed {
            peer_id,
            connection_id,
            num_established,
            ..
        } => {
            open.remove(&connection_id.to_string());
            json!({ "event": "closed", "peer": peer_id.to_string(), "left": num_established })
        }
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) => {
            json!({ "event": "identified", "addresses": info.listen_addrs })
        }
        SwarmEvent::Behaviour(BehaviourEvent::Persistent(event)) => match event {
            Event::Unresponsive { .. } => json!({ "event": "unresponsive" }),
            Event::DialFailed { failures, .. } => json!({ "event": "dial_failed", "failures": failures }),
            other => json!({ "event": "persistent", "what": format!("{other:?}") }),
        },
        other => json!({ "event": "other", "what": format!("{other:?}") }),
    };
    println!("{event}");
}
