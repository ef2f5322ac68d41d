use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_connmgr::pressure::{Config, Usage, Watcher};
use libp2p_connmgr::{Behaviour, Event, KeepAlive, Manager, Reason};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Generous: what is awaited mostly comes within a second.
const SOON: Duration = Duration::from_secs(60);

fn swarm(behaviour: Behaviour) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(86_400)))
        .build()
}

/// Never trims by itself in the time of a test: only five peers, all in grace, below the high watermark.
fn manager() -> (Behaviour, Manager) {
    let config = libp2p_connmgr::Config::new(2, 1_000).unwrap();
    libp2p_connmgr::new(config.with_keep_alive(KeepAlive::All))
}

#[tokio::test]
async fn memory_that_runs_short_closes_connections_down_to_the_low_mark_and_spares_the_protected() {
    let percent = Arc::new(AtomicU64::new(50));
    let source = percent.clone();
    let watcher = Watcher::new(
        Config::new()
            .with_interval(Duration::from_millis(10))
            .with_confirmations(NonZeroU32::MIN),
        move || Ok(Usage::new(source.load(Ordering::Relaxed), 100)),
    );
    let (behaviour, manager) = manager();
    let mut node = swarm(behaviour.with_memory_pressure(watcher));
    node.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = node.select_next_some().await {
            break address;
        }
    };
    let peers: Vec<PeerId> = (0..5).map(|_| dial(address.clone())).collect();
    let connected = async {
        let mut established = 0;
        while established < peers.len() {
            match node.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => established += 1,
                SwarmEvent::ConnectionClosed { .. } => panic!("closed without need"),
                _ => {}
            }
        }
    };
    timeout(SOON, connected).await.unwrap();
    manager.protect(&peers[0], "friend");
    manager.protect(&peers[1], "friend");

    percent.store(95, Ordering::Relaxed);
    let mut trimmed = Vec::new();
    let finished = async {
        loop {
            match node.select_next_some().await {
                SwarmEvent::Behaviour(Event::Trimmed { peer, reason, .. }) => {
                    assert_eq!(reason, Reason::Pressure);
                    trimmed.push(peer);
                }
                SwarmEvent::Behaviour(Event::TrimFinished { trimmed, .. }) => break trimmed,
                _ => {}
            }
        }
    };
    let outcome = timeout(SOON, finished).await.unwrap();
    assert_eq!((outcome.closed, outcome.stuck), (3, 0));
    trimmed.sort_unstable();
    let mut others = peers[2..].to_vec();
    others.sort_unstable();
    assert_eq!(trimmed, others);
    assert!(node.is_connected(&peers[0]) && node.is_connected(&peers[1]));
}

/// Connects to `address` from a Swarm of its own, on a task of its own.
fn dial(address: Multiaddr) -> PeerId {
    let mut swarm = swarm(manager().0);
    let peer = *swarm.local_peer_id();
    swarm.dial(address).unwrap();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    peer
}
