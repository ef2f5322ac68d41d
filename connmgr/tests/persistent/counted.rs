//! What a scrape shows of wanted peers, between real Swarms.

#![cfg(feature = "metrics")]

use crate::addresses::{SOON, at, run, swarm};
use futures::StreamExt as _;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p::swarm::{ConnectionDenied, NetworkBehaviour, Swarm, SwarmEvent, dummy};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::Config;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::time::Duration;
use tokio::time::timeout;

fn shown(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let name = format!("libp2p_connmgr_persistent_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}in\n{text}")).parse().unwrap()
}

fn dials(registry: &Registry, outcome: &str) -> u64 {
    shown(registry, &format!("dials_total{{outcome=\"{outcome}\"}}"))
}

fn wanted(registry: &Registry) -> [u64; 3] {
    let of = |state| shown(registry, &format!("wanted_peers{{state=\"{state}\"}}"));
    [of("connected"), of("dialling"), of("waiting")]
}

const LOOK: Duration = Duration::from_millis(50);

/// Runs until a scrape shows what is waited for.
async fn until<B: NetworkBehaviour>(swarm: &mut Swarm<B>, registry: &Registry, there: impl Fn(&Registry) -> bool) {
    let wait = async {
        while !there(registry) {
            // What is shown changes behind an event.
            let _ = timeout(LOOK, swarm.select_next_some()).await;
        }
    };
    if timeout(SOON, wait).await.is_err() {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        panic!("never shown; the last was\n{text}");
    }
}

fn quick() -> Config {
    Config::new().with_min_interval(Duration::from_millis(100))
}

fn wanting(registry: &mut Registry, config: Config) -> Swarm<PersistentPeers> {
    swarm(|key| {
        PersistentPeers::new(key.public().to_peer_id(), config)
            .with_metrics(registry)
            .unwrap()
    })
}

#[tokio::test]
async fn a_wanted_peer_that_is_lost_and_comes_back_is_counted_as_both() {
    let mut registry = Registry::default();
    let mut ada = wanting(&mut registry, quick());
    let mut bob = swarm(|_| dummy::Behaviour);
    let peer = *bob.local_peer_id();
    bob.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let SwarmEvent::NewListenAddr { address, .. } = bob.select_next_some().await else {
        panic!("bob does not listen");
    };
    ada.behaviour_mut().add_peer(peer, [address]).unwrap();
    // It accepts one, is there for it, and closes it; the next one it keeps.
    let bob = tokio::spawn(async move {
        let mut closed = false;
        loop {
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = bob.select_next_some().await
                && !std::mem::replace(&mut closed, true)
            {
                bob.close_connection(connection_id);
            }
        }
    });
    until(&mut ada, &registry, |registry| {
        shown(registry, "reconnected_total") == 1
    })
    .await;
    assert_eq!(shown(&registry, "lost_total"), 1);
    assert_eq!(dials(&registry, "connected"), 2);
    until(&mut ada, &registry, |registry| wanted(registry) == [1, 0, 0]).await;
    assert_eq!(shown(&registry, "connected_peers"), 1);
    bob.abort();
    until(&mut ada, &registry, |registry| dials(registry, "unreachable") > 0).await;
    assert_eq!(shown(&registry, "lost_total"), 2);
    until(&mut ada, &registry, |registry| wanted(registry) == [0, 0, 1]).await;
    assert_eq!(shown(&registry, "connected_peers"), 0);
    ada.behaviour_mut().remove_peer(&peer);
    until(&mut ada, &registry, |registry| wanted(registry) == [0, 0, 0]).await;
}

/// Denies every dial.
struct Deny(dummy::Behaviour);

#[derive(Debug, thiserror::Error)]
#[error("not today")]
struct NotToday;

impl NetworkBehaviour for Deny {
    type ConnectionHandler = <dummy::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = <dummy::Behaviour as NetworkBehaviour>::ToSwarm;

    fn handle_pending_outbound_connection(
        &mut self,
        _: libp2p::swarm::ConnectionId,
        _: Option<PeerId>,
        _: &[libp2p::Multiaddr],
        _: libp2p::core::Endpoint,
    ) -> Result<Vec<libp2p::Multiaddr>, ConnectionDenied> {
        Err(ConnectionDenied::new(NotToday))
    }
    fn handle_established_inbound_connection(
        &mut self,
        connection: libp2p::swarm::ConnectionId,
        peer: PeerId,
        local: &libp2p::Multiaddr,
        remote: &libp2p::Multiaddr,
    ) -> Result<libp2p::swarm::THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_inbound_connection(connection, peer, local, remote)
    }
    fn handle_established_outbound_connection(
        &mut self,
        connection: libp2p::swarm::ConnectionId,
        peer: PeerId,
        address: &libp2p::Multiaddr,
        role: libp2p::core::Endpoint,
        port: libp2p::core::transport::PortUse,
    ) -> Result<libp2p::swarm::THandler<Self>, ConnectionDenied> {
        self.0
            .handle_established_outbound_connection(connection, peer, address, role, port)
    }
    fn on_swarm_event(&mut self, _: libp2p::swarm::FromSwarm<'_>) {}
    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: libp2p::swarm::ConnectionId,
        event: libp2p::swarm::THandlerOutEvent<Self>,
    ) {
        match event {}
    }
    fn poll(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<libp2p::swarm::ToSwarm<Self::ToSwarm, libp2p::swarm::THandlerInEvent<Self>>> {
        std::task::Poll::Pending
    }
}

#[derive(NetworkBehaviour)]
struct Denying {
    deny: Deny,
    persistent: PersistentPeers,
}

#[tokio::test]
async fn a_dial_in_vain_is_counted_by_why_it_was() {
    let mut registry = Registry::default();
    let mut ada = wanting(&mut registry, quick());
    let (_, wrong, _task) = run(swarm(|_| dummy::Behaviour)).await;
    let id = || Keypair::generate_ed25519().public().to_peer_id();
    ada.behaviour_mut().add_peer(id(), [wrong]).unwrap();
    ada.behaviour_mut().add_peer(id(), [at(1)]).unwrap();
    ada.behaviour_mut().add_peer(id(), []).unwrap();
    until(&mut ada, &registry, |registry| {
        ["wrong_peer", "unreachable", "no_addresses"]
            .iter()
            .all(|outcome| dials(registry, outcome) > 0)
    })
    .await;
    assert_eq!(dials(&registry, "connected"), 0);
    assert_eq!(dials(&registry, "denied"), 0);

    let mut registry = Registry::default();
    let mut eve = swarm(|key| Denying {
        deny: Deny(dummy::Behaviour),
        persistent: PersistentPeers::new(
            key.public().to_peer_id(),
            quick().with_denied_for(|_| panic!("denied_for")),
        )
        .with_metrics(&mut registry)
        .unwrap(),
    });
    eve.behaviour_mut().persistent.add_peer(id(), [at(1)]).unwrap();
    until(&mut eve, &registry, |registry| dials(registry, "denied") > 0).await;
    assert_eq!(dials(&registry, "unreachable"), 0);
    let panics = shown(&registry, "hook_panics_total{hook=\"denied_for\"}");
    assert_eq!(panics, dials(&registry, "denied"));
}
