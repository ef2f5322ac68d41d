//! A peer that can punch holes, or the relay that helps two of them: stock behaviours over the knock transport.
//!
//! Commands come as JSON lines on standard input, events go out as JSON lines on standard output; the end of the
//! input is the end of the process. See `tests/internet/hole_punch.rs`.

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, dcutr, identify, noise, ping, relay, yamux};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::MissedTickBehavior;

#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long)]
    listen: Vec<Multiaddr>,
    /// Relay for others, and punch no holes.
    #[arg(long)]
    relay: bool,
    /// Have a connection manager that keeps one connection, gives no grace, and trims over and over while a peer is dialled that
    /// is connected through a relay.
    #[arg(long)]
    trim: bool,
    /// How long a dial may take. The default is rust-libp2p's own.
    #[arg(long, default_value_t = 10)]
    dial_timeout_secs: u64,
}

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum Command {
    /// Dials `address`; through a relay when it says so.
    Dial { address: Multiaddr },
    /// Listens at `address` too; through a relay, that is a reservation.
    Listen { address: Multiaddr },
    /// Asks for an event with what the knock transport has counted.
    Metrics,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    client: relay::client::Behaviour,
    server: Toggle<relay::Behaviour>,
    dcutr: Toggle<dcutr::Behaviour>,
    connmgr: Toggle<libp2p_connmgr::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
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
    let (connmgr, manager) = libp2p_connmgr::new(
        libp2p_connmgr::Config::new(1, 2)?
            .with_grace_period(Duration::ZERO)
            // Nothing in the background: every trim is one that was asked for.
            .with_silence_period(Duration::from_secs(3600))?,
    );
    let mut swarm = swarm(&args, &mut registry, connmgr)?;
    let mut relayed = BTreeSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    emit(&json!({ "event": "started", "peer": swarm.local_peer_id().to_string() }));
    for address in &args.listen {
        swarm.listen_on(address.clone())?;
    }
    let mut open = BTreeSet::new();
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let trim = tokio::select! {
            line = commands.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let command = serde_json::from_str(&line).with_context(|| format!("no such command: {line}"))?;
                obey(command, &mut swarm, &registry)?;
                false
            }
            _ = ticks.tick(), if args.trim => true,
            event = swarm.select_next_some() => {
                if let SwarmEvent::NewListenAddr { address, .. } = &event && args.relay {
                    // A reservation says where the relay is to be found; nobody else will tell a relay that.
                    swarm.add_external_address(address.clone());
                }
                if let SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } = &event && endpoint.is_relayed() {
                    relayed.insert(*peer_id);
                }
                let dialing = matches!(event, SwarmEvent::Dialing { .. });
                report(event, &mut open);
                dialing && args.trim
            }
        };
        // Nobody waits for what comes of it: the manager's events say.
        if trim && relayed.iter().any(|peer| manager.explain(peer).dialing) {
            drop(manager.trim_open_conns());
            emit(&json!({ "event": "trim", "connections": manager.info().connections }));
        }
    }
}

fn swarm(args: &Args, registry: &mut Registry, connmgr: libp2p_connmgr::Behaviour) -> Result<Swarm<Behaviour>> {
    let key = Keypair::generate_ed25519();
    let config = libp2p_knock::Config::new(&key)?.with_metrics(registry)?;
    Ok(libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| libp2p_knock::tokio::Transport::new(config))?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, client| {
            let peer = key.public().to_peer_id();
            Behaviour {
                client,
                server: args
                    .relay
                    .then(|| relay::Behaviour::new(peer, relay::Config::default()))
                    .into(),
                dcutr: (!args.relay).then(|| dcutr::Behaviour::new(peer)).into(),
                connmgr: args.trim.then_some(connmgr).into(),
                identify: identify::Behaviour::new(identify::Config::new("/puncher/1".into(), key.public())),
                ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(500))),
            }
        })?
        // Ping and identify keep no connection open, and the one to the relay has to last.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(300)))
        .with_connection_timeout(Duration::from_secs(args.dial_timeout_secs))
        .build())
}

fn obey(command: Command, swarm: &mut Swarm<Behaviour>, registry: &Registry) -> Result<()> {
    match command {
        Command::Dial { address } => swarm.dial(address)?,
        Command::Listen { address } => {
            swarm.listen_on(address)?;
        }
        Command::Metrics => emit(&json!({ "event": "metrics", "samples": samples(registry)? })),
    }
    Ok(())
}

fn report(event: SwarmEvent<BehaviourEvent>, open: &mut BTreeSet<ConnectionId>) {
    emit(&match event {
        SwarmEvent::NewListenAddr { address, .. } => json!({ "event": "listening", "address": address }),
        SwarmEvent::NewExternalAddrCandidate { address } => json!({ "event": "candidate", "address": address }),
        SwarmEvent::ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            ..
        } => {
            open.insert(connection_id);
            json!({
                "event": "connected",
                "connection": connection_id.to_string(),
                "peer": peer_id.to_string(),
                "relayed": endpoint.is_relayed(),
                "point": point(&endpoint),
            })
        }
        SwarmEvent::ConnectionClosed {
            connection_id, cause, ..
        } => {
            open.remove(&connection_id);
            json!({
                "event": "closed",
                "connection": connection_id.to_string(),
                "cause": cause.map(|cause| cause.to_string()),
            })
        }
        SwarmEvent::OutgoingConnectionError {
            connection_id, error, ..
        } => json!({
            "event": "dial_failed",
            "connection": connection_id.to_string(),
            "error": format!("{error:?}"),
        }),
        SwarmEvent::IncomingConnectionError { error, .. } => {
            json!({ "event": "incoming_failed", "error": format!("{error:?}") })
        }
        SwarmEvent::Behaviour(BehaviourEvent::Client(relay::client::Event::ReservationReqAccepted { .. })) => {
            json!({ "event": "reserved" })
        }
        SwarmEvent::Behaviour(BehaviourEvent::Dcutr(dcutr::Event { result, .. })) => match result {
            Ok(connection) => json!({ "event": "upgraded", "connection": connection.to_string() }),
            Err(error) => json!({ "event": "upgrade_failed", "error": error.to_string() }),
        },
        SwarmEvent::Behaviour(BehaviourEvent::Connmgr(libp2p_connmgr::Event::Trimmed {
            peer, connections, ..
        })) => {
            json!({ "event": "trimmed", "peer": peer.to_string(), "connections": connections })
        }
        SwarmEvent::Behaviour(BehaviourEvent::Connmgr(libp2p_connmgr::Event::TrimFinished { trimmed, .. })) => {
            json!({ "event": "trim_finished", "closed": trimmed.closed })
        }
        SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { connection, result, .. })) => json!({
            "event": "ping",
            "connection": connection.to_string(),
            "micros": result.ok().map(|rtt| rtt.as_micros()),
            "open": open.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        other => json!({ "event": "other", "what": format!("{other:?}") }),
    });
}

fn point(endpoint: &ConnectedPoint) -> Value {
    match endpoint {
        ConnectedPoint::Dialer {
            address,
            role_override,
            port_use,
        } => json!({
            "kind": "dialer",
            "role": match role_override {
                Endpoint::Dialer => "dialer",
                Endpoint::Listener => "listener",
            },
            "port": match port_use {
                PortUse::Reuse => "reuse",
                PortUse::New => "new",
            },
            "address": address,
        }),
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } => json!({ "kind": "listener", "local": local_addr, "address": send_back_addr }),
    }
}

/// Every sample in the registry, by its name and labels as the text format has them.
fn samples(registry: &Registry) -> Result<Value> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse::<f64>().map_or(Value::Null, Value::from)))
        .collect())
}

fn emit(event: &Value) {
    println!("{event}");
}
