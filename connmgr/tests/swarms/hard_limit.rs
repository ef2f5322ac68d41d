//! The hard limit beside a behaviour that denies, as a gate does: before the manager and behind it.

use crate::common::*;
use futures::StreamExt as _;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, Swarm, SwarmEvent, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p_connmgr::{Behaviour, Config, Event, Manager, Reason};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Denies some peers once they are authenticated.
#[derive(Clone, Default)]
struct Gate {
    denied: Arc<Mutex<HashSet<PeerId>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the gate denies {0}")]
struct Denied(PeerId);

impl Gate {
    fn ask(&self, peer: PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        match self.denied.lock().unwrap().contains(&peer) {
            true => Err(ConnectionDenied::new(Denied(peer))),
            false => Ok(dummy::ConnectionHandler),
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.ask(peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.ask(peer)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct GateFirst {
    gate: Gate,
    connmgr: Behaviour,
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct ManagerFirst {
    connmgr: Behaviour,
    gate: Gate,
}

#[derive(Debug)]
struct Out(Event);

impl From<Event> for Out {
    fn from(event: Event) -> Self {
        Self(event)
    }
}

impl From<Infallible> for Out {
    fn from(event: Infallible) -> Self {
        match event {}
    }
}

fn swarm<B: NetworkBehaviour>(over: Over, key: &Keypair, manager: &Manager, behaviour: B) -> Swarm<B> {
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(LONG);
    let transport = over.transport(key, Some(manager));
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

/// A full node, and a newcomer that is worth more than anybody and that the gate denies, then lets
/// in.
async fn denied_and_let_in<B>(over: Over, behaviour: fn(Gate, Behaviour) -> B, dials: bool)
where
    B: NetworkBehaviour<ToSwarm = Out>,
{
    let key = Keypair::generate_ed25519();
    let config = Config::new(1, 3).unwrap().with_hard_limit(3).unwrap();
    let (connmgr, manager) = libp2p_connmgr::new(config);
    let gate = Gate::default();
    let mut node = swarm(over, &key, &manager, behaviour(gate.clone(), connmgr));
    node.listen_on(over.listens()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = node.select_next_some().await {
            break address.with_p2p(*node.local_peer_id()).unwrap();
        }
    };
    let mut peers = tokio::task::JoinSet::new();
    let mut start = |mut peer: Swarm<dummy::Behaviour>| {
        peers.spawn(async move {
            loop {
                peer.select_next_some().await;
            }
        });
    };
    let mut friends = HashSet::new();
    for _ in 0..3 {
        let mut friend = plain(over);
        friends.insert(*friend.local_peer_id());
        friend.dial(address.clone()).unwrap();
        start(friend);
    }
    let end = tokio::time::sleep(PATIENCE);
    tokio::pin!(end);
    while manager.info().connections < 3 {
        tokio::select! {
            _ = node.select_next_some() => {}
            () = &mut end => panic!("the friends do not come over {over:?}"),
        }
    }

    let mut newcomer = plain(over);
    let id = *newcomer.local_peer_id();
    manager.protect(&id, "newcomer");
    gate.denied.lock().unwrap().insert(id);
    newcomer.listen_on(over.listens()).unwrap();
    let there = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = newcomer.select_next_some().await {
            break address.with_p2p(id).unwrap();
        }
    };
    let mut denials = 0;
    let mut trimmed = Vec::new();
    let connect = |node: &mut Swarm<B>, newcomer: &mut Swarm<dummy::Behaviour>| {
        if dials {
            node.dial(there.clone()).unwrap();
        } else {
            newcomer.dial(address.clone()).unwrap();
        }
    };
    connect(&mut node, &mut newcomer);
    loop {
        let event = tokio::select! {
            event = node.select_next_some() => event,
            _ = newcomer.select_next_some() => continue,
            () = &mut end => panic!("{denials} denials, trimmed {trimmed:?}, over {over:?}"),
        };
        match event {
            SwarmEvent::IncomingConnectionError { .. } | SwarmEvent::OutgoingConnectionError { .. } => {
                denials += 1;
                assert_eq!((manager.info().connections, manager.info().closing), (3, 0), "{over:?}");
                assert!(friends.iter().all(|friend| node.is_connected(friend)), "{over:?}");
                if denials == 3 {
                    gate.denied.lock().unwrap().clear();
                }
                connect(&mut node, &mut newcomer);
            }
            SwarmEvent::Behaviour(Out(Event::Trimmed { peer, reason, .. })) => trimmed.push((peer, reason)),
            SwarmEvent::ConnectionClosed { peer_id, .. } => {
                assert_eq!(trimmed, [(peer_id, Reason::HardLimit)], "{over:?}");
                assert!(friends.contains(&peer_id));
                break;
            }
            _ => {}
        }
        assert!(manager.info().connections <= 3, "{over:?}");
    }
    assert_eq!((denials, manager.info().connections), (3, 3));
    assert!(node.is_connected(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_a_gate_denies_costs_nobody_a_place_whichever_behaviour_is_first() {
    for over in ALL {
        for dials in [false, true] {
            denied_and_let_in(over, |gate, connmgr| GateFirst { gate, connmgr }, dials).await;
            denied_and_let_in(over, |gate, connmgr| ManagerFirst { connmgr, gate }, dials).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_closes_never_make_more_than_an_eighth_above_the_limit() {
    let config = Config::new(4, 16).unwrap().with_hard_limit(16).unwrap();
    // A closer that leaves it to the manager, which takes 2 s: all that time the connections are
    // there.
    let config = config.with_grace_period(LONG).with_closer(|_, _, _| {});
    let mut node = Node::new(Over::Knock, config, LONG).await;
    node.connect(16).await;
    for _ in 0..6 {
        let friend = plain(Over::Knock);
        node.manager.protect(friend.local_peer_id(), "friend");
        node.start(friend, 1);
    }
    // As the Swarm counts them.
    let (mut most, mut decided) = (0, 0);
    node.until(|node| {
        most = most.max(node.swarm.network_info().connection_counters().num_established());
        let denied = |event: &Event| matches!(event, Event::Denied { .. });
        let came = node.manager.counts().protected.connections;
        decided = came + node.reports().into_iter().filter(denied).count();
        decided == 6 && node.manager.info().closing == 0
    })
    .await;
    assert!((17..=18).contains(&most), "{most}");
    assert_eq!(node.manager.info().connections, 16);
}
