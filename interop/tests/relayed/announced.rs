//! What is announced is dialled as it stands: by `Swarm::listeners`, as external addresses, and by
//! identify.

use crate::nodes::*;
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use std::collections::BTreeSet;

/// Listens through `relay` until the reservation stands, at a circuit with our mark or without.
async fn reserve(listener: &mut Swarm<Client>, relay: &Multiaddr, marked: bool) {
    let circuit = relay.clone().with(Protocol::P2pCircuit);
    let circuit = if marked { circuit.with(Protocol::Tls) } else { circuit };
    listener.listen_on(circuit).unwrap();
    let (mut listens, mut confirmed) = (false, false);
    wait("a reservation", listener, |event| {
        match event {
            SwarmEvent::NewListenAddr { .. } => listens = true,
            SwarmEvent::ExternalAddrConfirmed { .. } => confirmed = true,
            SwarmEvent::ListenerClosed { reason, .. } => panic!("no reservation: {reason:?}"),
            _ => {}
        }
        (listens && confirmed).then_some(())
    })
    .await;
}

/// Whether `dialer` gets through to `peer` by what `dial` says, and knocks there.
async fn reaches(mut dialer: Swarm<Client>, dial: DialOpts, peer: PeerId) -> Result<(), DialError> {
    let id = dial.connection_id();
    dialer.dial(dial).unwrap();
    wait("the end of the dial", &mut dialer, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => Some(Ok(())),
        SwarmEvent::OutgoingConnectionError {
            connection_id, error, ..
        } if connection_id == id => Some(Err(error)),
        _ => None,
    })
    .await
}

/// What identify at `peer` says of where it listens, heard by a node that it connects to.
async fn identified(mut heard: Swarm<Client>, peer: PeerId, at: &Multiaddr) -> Vec<Multiaddr> {
    heard.dial(at.clone()).unwrap();
    wait("identify", &mut heard, |event| match event {
        SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Received { peer_id, info, .. }))
            if peer_id == peer =>
        {
            Some(info.listen_addrs)
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_circuit_that_is_announced_is_dialled_as_it_stands_in_either_order_of_transports() {
    let relay = start(relay(), "/ip4/127.0.0.1/tcp/0/tls").await;
    for (order, marked) in [
        (Order::CircuitsFirst, true),
        (Order::SocketsFirst, true),
        (Order::CircuitsFirst, false),
        (Order::SocketsFirst, false),
    ] {
        let mut listener = client(order);
        let peer = *listener.local_peer_id();
        reserve(&mut listener, &relay, marked).await;
        let listens: Vec<Multiaddr> = listener.listeners().cloned().collect();
        let external: Vec<Multiaddr> = listener.external_addresses().cloned().collect();
        assert!(!listens.is_empty() && !external.is_empty());
        for address in &listens {
            assert_eq!(libp2p_knock::is_knock_address(address), marked, "{address}");
        }
        run(listener);
        let told = identified(client(order), peer, &listens[0]).await;
        let all: BTreeSet<_> = listens.iter().chain(&external).chain(&told).cloned().collect();
        for address in all.iter().filter(|a| a.iter().any(|part| part == Protocol::P2pCircuit)) {
            for dialling in ORDERS {
                let as_it_stands = DialOpts::from(address.clone());
                let by_peer = DialOpts::peer_id(peer).addresses(vec![address.clone()]).build();
                for dial in [as_it_stands, by_peer] {
                    let reached = reaches(client(dialling), dial, peer).await;
                    reached.unwrap_or_else(|error| panic!("{address}: {error:?}"));
                }
            }
        }
        for address in listens.iter().chain(&external) {
            assert!(told.contains(address), "{address} is not among {told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_that_names_no_peer_is_an_error_that_says_so_in_either_order_of_transports() {
    let relay = start(relay(), "/memory/0/tls").await;
    for order in ORDERS {
        for mark in [None, Some(Protocol::Tls)] {
            let mut nameless = relay.clone().with(Protocol::P2pCircuit);
            mark.clone().into_iter().for_each(|mark| nameless.push(mark));
            let mut dialer = client(order);
            dialer
                .dial(DialOpts::unknown_peer_id().address(nameless.clone()).build())
                .unwrap();
            let error = soon("the end of the dial", async {
                loop {
                    if let SwarmEvent::OutgoingConnectionError { error, .. } = dialer.select_next_some().await {
                        break error;
                    }
                }
            })
            .await;
            let DialError::Transport(errors) = &error else {
                panic!("{error:?}")
            };
            let found = libp2p_knock::Failure::find(&errors[0].1);
            assert!(
                matches!(found, Some(libp2p_knock::Error::MissingPeerId { address }) if *address == nameless),
                "{error:?}"
            );
        }
    }
}
