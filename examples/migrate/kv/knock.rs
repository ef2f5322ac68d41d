//! A distributed key-value store: `put KEY VALUE` and `get KEY` on stdin, Kademlia between the nodes.
//!
//! The same program three times: `stock.rs` before it adopts the knock, `knock.rs` while its network moves, and
//! `knock_only.rs` afterwards. They differ in the same lines as the smaller program in the directory above.

#[path = "../../src/bin/node/key.rs"]
mod key;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use libp2p::kad::{self, GetRecordOk, QueryResult, Quorum, Record};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify};
use libp2p::{Transport as _, noise, tcp, yamux};
use libp2p_knock::{Migration, MigrationStage};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(Debug, Parser)]
struct Cli {
    /// Which connections to make and to take.
    #[arg(long, default_value = "prefer")]
    stage: MigrationStage,
    /// The file with this node's key, made if it does not exist.
    #[arg(long, value_name = "FILE", default_value = "migrate.key")]
    key: PathBuf,
    /// An address to listen on. Repeatable.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Multiaddr>,
    /// An address of a node to join the network through, with /p2p/… at its end. Repeatable.
    #[arg(long, value_name = "ADDR")]
    bootstrap: Vec<Multiaddr>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut swarm = swarm(&cli)?;
    println!("peer {}", swarm.local_peer_id());
    for address in cli.listen {
        if !cli.stage.admits(&address) {
            eprintln!("not listening on {address}: the stage is {}", cli.stage);
            continue;
        }
        let listening = swarm.listen_on(address.clone());
        listening.with_context(|| format!("cannot listen on {address}"))?;
    }
    for address in &cli.bootstrap {
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            anyhow::bail!("{address} does not end in /p2p/<peer id>");
        };
        swarm.behaviour_mut().kad.add_address(&peer, address.clone());
    }
    if !cli.bootstrap.is_empty() {
        swarm.behaviour_mut().kad.bootstrap()?;
    }
    let mut lines = stdin();
    loop {
        tokio::select! {
            // When there are no more commands, the node goes on serving others.
            Some(line) = lines.recv() => command(&mut swarm.behaviour_mut().kad, &line),
            event = swarm.select_next_some() => print(&mut swarm, event),
        }
    }
}

fn command(kad: &mut kad::Behaviour<kad::store::MemoryStore>, line: &str) {
    match *line.split_whitespace().collect::<Vec<_>>() {
        ["put", key, value] => {
            let record = Record::new(key.as_bytes().to_vec(), value.as_bytes().to_vec());
            if let Err(error) = kad.put_record(record, Quorum::One) {
                println!("put-failed {key} {error}");
            }
        }
        ["get", key] => drop(kad.get_record(key.as_bytes().to_vec().into())),
        _ => println!("usage: put KEY VALUE, get KEY"),
    }
}

fn print(swarm: &mut Swarm<Behaviour>, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => println!("listening {address}"),
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            println!("connected {peer_id} {}", endpoint.get_remote_address());
        }
        // Kademlia knows only what it is told: where a peer listens, identify learns.
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
            println!("joined {peer_id}");
        }
        SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, .. })) => {
            match result {
                QueryResult::PutRecord(Ok(stored)) => println!("stored {}", text(stored.key.as_ref())),
                QueryResult::PutRecord(Err(error)) => println!("put-failed {} {error}", text(error.key().as_ref())),
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                    let (key, value) = (text(found.record.key.as_ref()), text(&found.record.value));
                    println!("found {key} {value}");
                    // The first copy will do.
                    if let Some(mut query) = swarm.behaviour_mut().kad.query_mut(&id) {
                        query.finish();
                    }
                }
                QueryResult::GetRecord(Err(error)) => println!("missing {}", text(error.key().as_ref())),
                _ => {}
            }
        }
        _ => {}
    }
}

/// What others have stored, fit for a terminal.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().collect()
}

/// Lines of stdin, from a thread of its own: the runtime's reader would keep the program from ending.
fn stdin() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn swarm(cli: &Cli) -> Result<Swarm<Behaviour>> {
    let (key, _) = key::load_or_create(&cli.key)?;
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| {
            let stock = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(libp2p::core::upgrade::Version::V1Lazy)
                .authenticate(noise::Config::new(key)?)
                .multiplex(yamux::Config::default());
            let knock = libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?);
            Ok(Migration::new(cli.stage, stock, knock))
        })?
        .with_behaviour(|key| {
            let us = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new("/migrate-kv/1"));
            let mut kad = kad::Behaviour::with_config(us, kad::store::MemoryStore::new(us), config);
            // Else it serves nobody before it has learnt an address at which everybody can reach it.
            kad.set_mode(Some(kad::Mode::Server));
            let identify = identify::Config::new("/migrate-kv/1".to_owned(), key.public());
            Behaviour {
                identify: identify::Behaviour::new(identify),
                kad,
            }
        })?
        .with_swarm_config(|config| {
            // A round trip less for every substream.
            let config = config.with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy);
            // Default 10 s, after which the next word would cost a new connection.
            config.with_idle_connection_timeout(Duration::from_secs(60))
        })
        .build())
}
