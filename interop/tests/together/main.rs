//! The plugins in one Swarm, where they meet: none of them knows another.
#![cfg(test)]

use futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder};
use libp2p_connmgr::{KeepAlive, Manager, TrimTarget};
use libp2p_gater::goodbye::{self, Code};
use libp2p_gater::{Gate, Rules};
use std::time::Duration;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
struct Behaviour {
    gate: libp2p_gater::Behaviour,
    connmgr: libp2p_connmgr::Behaviour,
}

fn node() -> (Swarm<Behaviour>, Manager, Rules) {
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
            Ok(manager.count(gate.transport(libp2p_knock::tokio::Transport::new(config))))
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

/// Dials the hub, and reports all that happens.
fn leaf(hub: &Multiaddr) -> Leaf {
    let (mut swarm, _, rules) = node();
    let peer = *swarm.local_peer_id();
    swarm.dial(hub.clone()).unwrap();
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
    let (mut hub, manager, rules) = node();
    hub.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap()).unwrap();
    let address = until("an address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = hub.select_next_some().await {
                return address.with_p2p(*hub.local_peer_id()).unwrap();
            }
        }
    })
    .await;
    tokio::spawn(async move { while hub.next().await.is_some() {} });

    let leaves: Vec<_> = (0..3).map(|_| leaf(&address)).collect();
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
    let (swarm, ..) = node();
    let blocked = *swarm.local_peer_id();
    rules.change(|change| change.block(blocked)).unwrap();
    let mut swarm = swarm;
    swarm.dial(address).unwrap();
    until("the end of the dial", async {
        while !matches!(
            swarm.select_next_some().await,
            SwarmEvent::OutgoingConnectionError { .. }
        ) {}
    })
    .await;
    assert!(manager.tag_info(&blocked).is_none());
}
