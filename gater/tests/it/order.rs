//! Where the gate stands among other behaviours.

use crate::common::soon;
use crate::recorder::Recorder;
use futures::StreamExt as _;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_gater::{Gate, Stage};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// What a connection manager goes by: it makes room when a newcomer is established.
#[derive(Default)]
struct Probe {
    asked: Arc<AtomicUsize>,
    established: Arc<AtomicUsize>,
}

impl Probe {
    fn asked(&self) -> Result<THandler<Self>, ConnectionDenied> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(dummy::ConnectionHandler)
    }

    fn counts(&self) -> (usize, usize) {
        (
            self.asked.load(Ordering::SeqCst),
            self.established.load(Ordering::SeqCst),
        )
    }
}

impl NetworkBehaviour for Probe {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.asked()
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.asked()
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(_) = event {
            self.established.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[derive(NetworkBehaviour)]
struct Both {
    before: Probe,
    gate: libp2p_gater::Behaviour,
    behind: Probe,
}

fn node(policy: &Recorder) -> Swarm<Both> {
    let gate = Gate::new(policy.clone());
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Both {
            before: Probe::default(),
            gate: gate.behaviour(),
            behind: Probe::default(),
        })
        .unwrap()
        .build()
}

#[tokio::test]
async fn what_the_gate_denies_is_established_for_no_behaviour_in_either_order() {
    for stage in [Stage::Secured, Stage::Upgraded] {
        for inbound in [true, false] {
            let (policy, other) = (Recorder::default(), Recorder::default());
            let denies = if inbound { &policy } else { &other };
            denies.deny(move |asked| asked.stage == stage);
            let (mut listener, mut dialer) = (node(&policy), node(&other));
            listener.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
            let at = soon("a listen address", async {
                loop {
                    if let SwarmEvent::NewListenAddr { address, .. } = listener.select_next_some().await {
                        return address;
                    }
                }
            })
            .await;
            dialer.dial(at).unwrap();
            soon("a denial", async {
                loop {
                    tokio::select! {
                        event = listener.select_next_some() =>
                            if let SwarmEvent::IncomingConnectionError { .. } = event && inbound { return },
                        event = dialer.select_next_some() =>
                            if let SwarmEvent::OutgoingConnectionError { .. } = event && !inbound { return },
                    }
                }
            })
            .await;
            let denying = if inbound { &listener } else { &dialer }.behaviour();
            assert_eq!(
                denying.before.counts(),
                (1, 0),
                "{stage}: asked, and told of no connection"
            );
            assert_eq!(denying.behind.counts(), (0, 0), "{stage}: not even asked");
        }
    }
}
