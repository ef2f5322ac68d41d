//! The plugins in one Swarm, where they meet: none of them knows another.
#![cfg(test)]

use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, Transport as _, noise, tcp, yamux};
use libp2p_connmgr::{KeepAlive, Manager, TrimTarget};
use libp2p_gater::goodbye::{self, Code};
use libp2p_gater::{Gate, Rules};
use libp2p_knock::{Migration, MigrationStage, is_knock_address};
use std::time::Duration;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
struct Behaviour {
    gate: libp2p_gater::Behaviour,
    connmgr: libp2p_connmgr::Behaviour,
}

/// What the wrappers stand around.
#[derive(Clone, Copy, PartialEq)]
enum Around {
    Knock,
    /// A migration of both worlds.
    Both,
    /// Each of the two in a migration.
    Each,
}

fn node(around: Around) -> (Swarm<Behaviour>, Manager, Rules) {
    let rules = Rules::new();
    let gate = Gate::new(rules.clone());
    let config = libp2p_connmgr::Config::new(1, 100)
        .unwrap()
        .with_trim_target(TrimTarget::Total)
        .with_keep_alive(KeepAlive::All)
        .with_grace_period(Duration::ZERO)
        .with_closer(gate.closer());
    let (connmgr, manager) = libp2p_connmgr::new(config);
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            let config = libp2p_knock::Config::new(key)?
                .with_admission(gate.knock())
                .with_secured_hook(gate.secured());
            let knock = libp2p_knock::tokio::Transport::new(config);
            let stock = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(gate.upgrade(noise::Config::new)(key)?)
                .multiplex(yamux::Config::default());
            Ok(match around {
                Around::Knock => boxed(manager.count(gate.transport(knock))),
                Around::Both => {
                    let both = Migration::new(MigrationStage::Prefer, stock, knock);
                    boxed(manager.count(gate.transport(both)))
                }
                Around::Each => {
                    let stock = manager.count(gate.transport(stock));
                    let knock = manager.count(gate.transport(knock));
                    boxed(Migration::new(MigrationStage::Prefer, stock, knock))
                }
            })
        })
        .unwrap()
        .with_behaviour(|_| Behaviour {
            gate: gate.behaviour(),
            connmgr,
        })
        .unwrap()
        .build();
    (swarm, manager, rules)
}

type Leaf = (PeerId, Rules, mpsc::UnboundedReceiver<SwarmEvent<BehaviourEvent>>);

fn boxed<T, M>(transport: T) -> libp2p::core::transport::Boxed<(PeerId, StreamMuxerBox)>
where
    T: libp2p::Transport<Output = (PeerId, M)> + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    T::Error: Send + Sync,
    M: libp2p::core::StreamMuxer + Send + 'static,
    M::Substream: Send,
    M::Error: Send + Sync,
{
    let boxed = transport.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    boxed.boxed()
}

/// Dials the hub, and reports all that happens.
fn leaf(around: Around, (hub, addresses): &(PeerId, Vec<Multiaddr>)) -> Leaf {
    let (mut swarm, _, rules) = node(around);
    let peer = *swarm.local_peer_id();
    swarm
        .dial(DialOpts::peer_id(*hub).addresses(addresses.clone()).build())
        .unwrap();
    let (events, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move { while events.send(swarm.select_next_some().await).is_ok() {} });
    (peer, rules, heard)
}

async fn until<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_trimmed_is_told_so_first_and_a_rule_refuses_before_the_manager_hears_of_it() {
    together(Around::Knock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_so_with_the_wrappers_around_a_migration() {
    together(Around::Both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_so_with_the_wrappers_around_each_side_of_a_migration() {
    together(Around::Each).await;
}

async fn together(around: Around) {
    let (mut hub, manager, rules) = node(around);
    let listens = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/tls"];
    for address in listens.iter().skip(usize::from(around == Around::Knock)) {
        hub.listen_on(address.parse().unwrap()).unwrap();
    }
    let mut addresses = Vec::new();
    until("the addresses", async {
        while addresses.len() < hub.listeners().count().max(1) || !addresses.iter().any(is_knock_address) {
            if let SwarmEvent::NewListenAddr { address, .. } = hub.select_next_some().await {
                addresses.push(address);
            }
        }
    })
    .await;
    addresses.sort_by_key(is_knock_address);
    let address = (*hub.local_peer_id(), addresses);
    tokio::spawn(async move { while hub.next().await.is_some() {} });

    let leaves: Vec<_> = (0..3).map(|_| leaf(around, &address)).collect();
    let connected = |peer: &PeerId| {
        let info = manager.tag_info(peer);
        info.is_some_and(|info| !info.connections.is_empty())
    };
    until("three connections", async {
        while !leaves.iter().all(|(peer, ..)| connected(peer)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    for (peer, ..) in &leaves {
        let connections = manager.tag_info(peer).unwrap().connections;
        assert!(
            connections
                .iter()
                .all(|connection| is_knock_address(&connection.remote_address)),
            "{connections:?}"
        );
    }
    let [(friend, ..), (_, _, first), (_, _, second)] = leaves.try_into().ok().unwrap();
    manager.protect(&friend, "friend");
    let trimmed = until("the trim", manager.trim_open_conns()).await.unwrap();
    assert_eq!((trimmed.closed, trimmed.stuck), (2, 0), "{trimmed:?}");
    for mut heard in [first, second] {
        let goodbye = until("a goodbye, and then the end", async {
            let mut told = None;
            loop {
                match heard.recv().await.unwrap() {
                    SwarmEvent::Behaviour(BehaviourEvent::Gate(libp2p_gater::Event::Goodbye(
                        goodbye::Event::Heard { goodbye, .. },
                    ))) => told = Some(goodbye),
                    SwarmEvent::ConnectionClosed { .. } => return told,
                    _ => {}
                }
            }
        })
        .await;
        assert_eq!(goodbye.expect("said before the end").code(), Code::Trimmed);
    }
    assert!(connected(&friend), "protected");

    // Who is blocked knocks and hears nothing, and the manager has no record of him.
    let (swarm, ..) = node(around);
    let blocked = *swarm.local_peer_id();
    rules.change(|change| change.block(blocked)).unwrap();
    let mut swarm = swarm;
    swarm
        .dial(DialOpts::peer_id(address.0).addresses(address.1).build())
        .unwrap();
    until("the end of the dial", async {
        while !matches!(
            swarm.select_next_some().await,
            // By stock it is through with its half of Noise before it is refused.
            SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. }
        ) {}
    })
    .await;
    assert!(manager.tag_info(&blocked).is_none());
}
