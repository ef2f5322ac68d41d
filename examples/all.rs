//! A room: every line of stdin goes to all members, over gossipsub. All plugins of this workspace in
//! one program: which goes where, and why there.
//!
//! `all/stock.rs` is the same program without them, and `all/stock-to-all.diff` is what it takes.

#[path = "src/bin/node/key.rs"]
mod key;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::StreamExt as _;
use futures::future::Either;
use knock_host::{Limits, Stream};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::metrics::{Metrics, Recorder as _, Registry};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, connection_limits, gossipsub, identify, noise, ping, quic, relay, tcp};
use libp2p::{PeerId, Transport as _, yamux};
use libp2p_connmgr::{Manager, PersistentPeers, persistent};
use libp2p_gater::{Gate, Rules, TransportKind, goodbye};
use libp2p_knock::{Migration, MigrationStage};
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

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
    /// An address, with /p2p/… at its end, of a member to stay connected to. Repeatable.
    #[arg(long, value_name = "ADDR")]
    want: Vec<Multiaddr>,
    /// The file with the rules for who may connect. SIGHUP reads it anew.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The most connections at a time.
    #[arg(long, default_value_t = 256)]
    most: usize,
    /// Where Prometheus asks for metrics: 127.0.0.1:9100.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

/// What says no comes first: it is asked before anything else has begun to work for a newcomer.
#[derive(NetworkBehaviour)]
struct Behaviour {
    gate: libp2p_gater::Behaviour,
    // Whatever else denies.
    limits: connection_limits::Behaviour,
    connmgr: libp2p_connmgr::Behaviour,
    wanted: PersistentPeers,
    // libp2p's.
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    gossipsub: gossipsub::Behaviour,
    // Your own.
    notes: knock_host::Behaviour,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let (key, _) = key::load_or_create(&cli.key)?;
    let mut registry = Registry::default();
    let rules = cli.rules.as_ref().map_or_else(|| Ok(Rules::new()), Rules::load)?;
    let (mut swarm, manager) = swarm(key, &rules, cli.most, &mut registry)?;
    #[cfg(unix)]
    if let Some(path) = cli.rules {
        reload_at_hangup(rules, path)?;
    }
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
    let mut notes = Vec::new();
    for address in cli.want {
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            anyhow::bail!("{address} does not end in /p2p/<peer id>");
        };
        swarm.behaviour_mut().wanted.add_peer(peer, [address])?;
        notes.push(take_notes(&swarm, peer)?);
    }
    let mut lines = stdin();
    let mut look = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            Some(line) = lines.recv() => typed(&mut swarm, &manager, &notes, &line),
            event = swarm.select_next_some() => {
                recorder.record(&event);
                happened(&recorder, event);
            }
            _ = look.tick() => score(&swarm, &manager),
        }
    }
}

fn typed(swarm: &mut Swarm<Behaviour>, manager: &Manager, notes: &[Arc<Stream>], line: &str) {
    if line == "/peers" {
        let known = |peer: &PeerId| manager.tag_info(peer).unwrap_or_default();
        return swarm
            .connected_peers()
            .for_each(|peer| println!("known {peer} {:?}", known(peer).tags));
    }
    if let Some(note) = line.strip_prefix("/note ") {
        return notes
            .iter()
            .for_each(|stream| println!("note {:?} {}", stream.send(note), stream.peer()));
    }
    if let Err(error) = swarm.behaviour_mut().gossipsub.publish(room(), line) {
        println!("not-said {error}");
    }
}

/// Messages to one peer alone, which wait while it is away.
fn take_notes(swarm: &Swarm<Behaviour>, peer: PeerId) -> Result<Arc<Stream>> {
    let notes = Arc::new(
        swarm
            .behaviour()
            .notes
            .handle()
            .open_stream(peer, "notes", Limits::default())?,
    );
    let taking = notes.clone();
    tokio::spawn(async move {
        while let Some(note) = taking.recv().await {
            println!("noted {}", String::from_utf8_lossy(&note).escape_debug());
        }
    });
    Ok(notes)
}

/// SIGHUP reads the rules anew. A connected peer that they refuse is told so, and disconnected.
#[cfg(unix)]
fn reload_at_hangup(rules: Rules, path: PathBuf) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match rules.reload(&path) {
                Ok(()) => println!("reloaded"),
                Err(error) => println!("not-reloaded {error}"),
            }
        }
    });
    Ok(())
}

/// Gossipsub's opinion of its peers decides who stays when there are too many.
fn score(swarm: &Swarm<Behaviour>, manager: &Manager) {
    for peer in swarm.connected_peers() {
        if let Some(score) = swarm.behaviour().gossipsub.peer_score(peer) {
            manager.tag_peer(peer, "gossipsub", score as i64);
        }
    }
}

/// Names in addresses are what a peer has said, and may hold what a terminal obeys.
fn happened(recorder: &Metrics, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => println!("listening {address}"),
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            let address = endpoint.get_remote_address().to_string();
            println!("connected {peer_id} {}", address.escape_debug());
        }
        SwarmEvent::ConnectionClosed { peer_id, .. } => println!("closed {peer_id}"),
        SwarmEvent::OutgoingConnectionError { error, .. } => {
            let why = format!("{:#}", anyhow::Error::new(error));
            println!("dial-failed {}", why.escape_debug());
        }
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
        SwarmEvent::Behaviour(BehaviourEvent::Gate(event)) => println!("gate {event:?}"),
        SwarmEvent::Behaviour(BehaviourEvent::Connmgr(event)) => println!("manager {event:?}"),
        SwarmEvent::Behaviour(BehaviourEvent::Wanted(event)) => {
            println!("wanted {}", format!("{event:?}").escape_debug());
        }
        _ => {}
    }
}

fn room() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new("room")
}

fn swarm(key: Keypair, rules: &Rules, most: usize, registry: &mut Registry) -> Result<(Swarm<Behaviour>, Manager)> {
    // Each needs the other: the manager closes through the gate, which tells the peer why, and the
    // gate asks the manager whether there is room.
    let gate = Gate::new(rules.clone()).with_metrics(registry)?;
    let config = libp2p_connmgr::Config::new(most / 2, most * 3 / 4)?
        .with_hard_limit(most)?
        .with_closer(gate.closer())
        .with_metrics(registry)?;
    let (connmgr, manager) = libp2p_connmgr::new(config);
    let gate = gate.with_admission(manager.hard_cap());

    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| {
            let tcp = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(gate.upgrade(noise::Config::new)(key)?)
                .multiplex(yamux::Config::default());
            let quic = quic::tokio::Transport::new(quic::Config::new(key));
            // Each under a gate of its own: `or_transport` asks the second when the first has nothing to say.
            let stock = gate.transport(tcp).or_transport(gate.transport(quic));
            let stock = stock.map(|connected, _| match connected {
                Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
                Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            });
            let config = libp2p_knock::Config::new(key)?
                .with_admission(gate.knock())
                .with_secured_hook(gate.secured())
                .with_metrics(registry)?;
            let knock = gate.transport(libp2p_knock::tokio::Transport::new(config));
            // By knock where a peer has it. The manager's wrapper, which counts, goes round all.
            let both = Migration::new(MigrationStage::Prefer, stock, knock);
            Ok(manager.count(both.with_metrics(registry)?))
        })?
        // Outside the gate, which so sees addresses and no names.
        .with_dns()?
        .with_relay_client(
            gate.upgrade_over(TransportKind::Relayed, noise::Config::new),
            yamux::Config::default,
        )?
        .with_bandwidth_metrics(registry)
        .with_behaviour(|key, relay| {
            let local = key.public().to_peer_id();
            let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
            let mut gossipsub = gossipsub::Behaviour::new(signed, gossipsub::Config::default())?;
            gossipsub.subscribe(&room())?;
            let mut params = gossipsub::PeerScoreParams::default();
            params
                .topics
                .insert(room().hash(), gossipsub::TopicScoreParams::default());
            gossipsub.with_peer_score(params, gossipsub::PeerScoreThresholds::default())?;
            // A peer that has said goodbye is wanted again when it said.
            let wanted = persistent::Config::new().with_denied_for(goodbye::denied_for);
            let limits = connection_limits::ConnectionLimits::default().with_max_established_per_peer(Some(4));
            Ok(Behaviour {
                gate: gate.behaviour(),
                limits: connection_limits::Behaviour::new(limits),
                connmgr,
                wanted: PersistentPeers::new(local, wanted).with_manager(manager.clone()),
                relay,
                identify: identify::Behaviour::new(identify::Config::new("/room/1".to_owned(), key.public())),
                ping: ping::Behaviour::default(),
                gossipsub,
                notes: knock_host::Behaviour::new(local, knock_host::BehaviourConfig::default()),
            })
        })?
        .with_swarm_config(|config| {
            config
                // libp2p-dns dials an address when it is first polled, and libp2p polls eight at a
                // time. With all polled, a stock dial sees the knocks that it has to wait for.
                .with_dial_concurrency_factor(NonZeroU8::MAX)
                .with_idle_connection_timeout(Duration::from_secs(3600))
        })
        .build();
    Ok((swarm, manager))
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
