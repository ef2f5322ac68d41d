//! What rust-libp2p demands of relay and client in its own suite (`protocols/relay/tests/lib.rs`),
//! with knocks over the circuits and over what is below them: in either order of the transports,
//! and at circuits with our mark and without.

use crate::nodes::*;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, ping, relay};
use std::error::Error;

const MEMORY: &str = "/memory/0/tls";

/// Where to listen through a relay: as the user writes it, and as it is announced then.
#[derive(Debug, Clone)]
struct Circuit {
    order: Order,
    asked: Multiaddr,
    listens: Multiaddr,
    /// What the relay's client confirms is never marked.
    external: Multiaddr,
}

/// For a client of `order`, in every form that a user may write.
fn circuits(relay: &Multiaddr, client: &Swarm<Client>, order: Order) -> Vec<Circuit> {
    let us = Protocol::P2p(*client.local_peer_id());
    let plain = relay.clone().with(Protocol::P2pCircuit);
    let marked = plain.clone().with(Protocol::Tls);
    let external = plain.clone().with(us.clone());
    let circuit = |asked: Multiaddr, listens: Multiaddr| Circuit {
        order,
        asked,
        listens,
        external: external.clone(),
    };
    let listens_marked = marked.clone().with(us.clone());
    vec![
        circuit(plain, external.clone()),
        circuit(external.clone(), external.clone()),
        circuit(marked, listens_marked.clone()),
        circuit(listens_marked.clone(), listens_marked),
    ]
}

/// Runs `test` for every order of transports and every way to write the circuit, all at once.
async fn everywhere<F>(relay: &Multiaddr, test: impl Fn(Swarm<Client>, Circuit) -> F)
where
    F: Future<Output = ()>,
{
    let mut tests = Vec::new();
    for order in ORDERS {
        for way in 0..4 {
            let client = client(order);
            let circuit = circuits(relay, &client, order).swap_remove(way);
            tests.push(test(client, circuit));
        }
    }
    futures::future::join_all(tests).await;
}

/// Whether the dial to `remote`, which begins by itself, succeeds.
async fn connects(client: &mut Swarm<Client>, remote: PeerId) -> bool {
    wait("the relay", client, |event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == remote => Some(true),
        SwarmEvent::OutgoingConnectionError { peer_id, .. } if peer_id == Some(remote) => Some(false),
        _ => None,
    })
    .await
}

fn relay_of(circuit: &Circuit) -> PeerId {
    let peers = circuit.asked.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    peers.expect("the relay's is the first")
}

/// Waits for a reservation, or for its renewal, and for the address it is announced under.
async fn reserved(client: &mut Swarm<Client>, circuit: &Circuit, renewed: bool) {
    let (mut listens, mut accepted) = (false, false);
    wait("a reservation", client, |event| {
        match event {
            SwarmEvent::ExternalAddrConfirmed { address } => assert_eq!(address, circuit.external),
            SwarmEvent::NewListenAddr { address, .. } => {
                assert_eq!(address, circuit.listens);
                listens = true;
            }
            SwarmEvent::Behaviour(ClientEvent::Relay(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            })) => {
                assert_eq!((relay_peer_id, renewal), (relay_of(circuit), renewed));
                accepted = true;
            }
            SwarmEvent::ListenerClosed { reason, .. } => panic!("{circuit:?}: {reason:?}"),
            _ => {}
        }
        (listens && accepted).then_some(())
    })
    .await;
}

async fn listen(client: &mut Swarm<Client>, circuit: &Circuit) -> ListenerId {
    let id = client.listen_on(circuit.asked.clone()).unwrap();
    assert!(connects(client, relay_of(circuit)).await);
    reserved(client, circuit, false).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_is_made_and_renewed() {
    let relay = start(relay(), MEMORY).await;
    everywhere(&relay, async |mut client, circuit| {
        listen(&mut client, &circuit).await;
        reserved(&mut client, &circuit, true).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_reservation_at_the_same_relay_replaces_the_old_one() {
    let relay = start(relay(), MEMORY).await;
    everywhere(&relay, async |mut client, circuit| {
        let old = listen(&mut client, &circuit).await;
        let new = client.listen_on(circuit.asked.clone()).unwrap();
        let (mut closed, mut accepted, mut listens) = (false, false, false);
        wait("the new reservation", &mut client, |event| {
            match event {
                SwarmEvent::ListenerClosed {
                    addresses, listener_id, ..
                } => {
                    assert_eq!((addresses, listener_id), (vec![circuit.listens.clone()], old));
                    closed = true;
                }
                SwarmEvent::Behaviour(ClientEvent::Relay(relay::client::Event::ReservationReqAccepted {
                    relay_peer_id,
                    ..
                })) => {
                    assert_eq!(relay_peer_id, relay_of(&circuit));
                    accepted = true;
                }
                SwarmEvent::NewListenAddr { address, listener_id } => {
                    assert_eq!((&address, listener_id), (&circuit.listens, new));
                    listens = true;
                }
                SwarmEvent::ExternalAddrConfirmed { address } => assert_eq!(address, circuit.external),
                _ => {}
            }
            (closed && accepted && listens).then_some(())
        })
        .await;
    })
    .await;
}

/// Removes a listener and waits until it and its external address are gone.
async fn unlisten(client: &mut Swarm<Client>, circuit: &Circuit, id: ListenerId) {
    assert!(client.remove_listener(id));
    let (mut closed, mut expired) = (false, false);
    wait("the end of the listener", client, |event| {
        match event {
            SwarmEvent::ListenerClosed {
                listener_id, addresses, ..
            } => {
                assert_eq!((listener_id, addresses), (id, vec![circuit.listens.clone()]));
                closed = true;
            }
            SwarmEvent::ExternalAddrExpired { address } => {
                assert_eq!(address, circuit.external);
                expired = true;
            }
            _ => {}
        }
        (closed && expired).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_external_address_expires_with_its_listener_and_comes_back_with_the_next() {
    let relay = start(relay(), MEMORY).await;
    everywhere(&relay, async |mut client, circuit| {
        let first = listen(&mut client, &circuit).await;
        unlisten(&mut client, &circuit, first).await;
        client.listen_on(circuit.asked.clone()).unwrap();
        reserved(&mut client, &circuit, false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_connect_through_the_relay() {
    let relay = start(relay(), MEMORY).await;
    everywhere(&relay, async |mut called, circuit| {
        listen(&mut called, &circuit).await;
        for address in [&circuit.listens, &circuit.external] {
            let mut caller = client(circuit.order);
            let (from, to) = (*caller.local_peer_id(), *called.local_peer_id());
            caller.dial(address.clone()).unwrap();
            futures::future::join(
                connected(&mut caller, to, None),
                connected(&mut called, from, Some(from)),
            )
            .await;
        }
    })
    .await;
}

/// Waits for a ping with `other`. An inbound connection says whose it is.
async fn connected(swarm: &mut Swarm<Client>, other: PeerId, inbound: Option<PeerId>) {
    wait("the connection", swarm, |event| match event {
        SwarmEvent::Behaviour(ClientEvent::Relay(relay::client::Event::InboundCircuitEstablished {
            src_peer_id,
            ..
        })) => {
            assert_eq!(Some(src_peer_id), inbound);
            None
        }
        SwarmEvent::IncomingConnection { send_back_addr, .. } => {
            let named = send_back_addr.iter().find_map(|part| match part {
                Protocol::P2p(peer) => Some(peer),
                _ => None,
            });
            assert_eq!(named, inbound, "{send_back_addr}");
            None
        }
        SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error:?}"),
        SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { peer, result, .. })) if peer == other => {
            result.expect("a ping that came back");
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_not_there_is_a_failed_dial() {
    let nowhere = "/memory/1/tls".parse::<Multiaddr>().unwrap();
    // A key that can be knocked at.
    let relay = nowhere.with_p2p(*relay().local_peer_id()).unwrap();
    everywhere(&relay, async |mut client, circuit| {
        client.listen_on(circuit.asked.clone()).unwrap();
        assert!(!connects(&mut client, relay_of(&circuit)).await);
    })
    .await;
}

/// The cause of `error` that the relay's client gives.
fn caused<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_that_is_refused_closes_its_listener_and_says_why() {
    let config = relay::Config {
        max_reservations: 0,
        ..relay::Config::default()
    };
    let full = start(relay_with(config), MEMORY).await;
    let mut disabled = relay();
    let address = listening(&mut disabled, MEMORY).await;
    disabled.behaviour_mut().relay.set_status(Some(relay::Status::Disable));
    run(disabled);
    for (relay, full) in [(full, true), (address, false)] {
        everywhere(&relay, async |mut client, circuit| {
            let id = client.listen_on(circuit.asked.clone()).unwrap();
            assert!(connects(&mut client, relay_of(&circuit)).await);
            let error = wait("the end of the listener", &mut client, |event| match event {
                SwarmEvent::ListenerClosed {
                    listener_id,
                    reason: Err(error),
                    ..
                } if listener_id == id => Some(error),
                _ => None,
            })
            .await;
            let cause = caused::<relay::outbound::hop::ReserveError>(&error);
            match cause {
                Some(relay::outbound::hop::ReserveError::ResourceLimitExceeded) => assert!(full),
                Some(_) => assert!(!full, "{error:?}"),
                None => panic!("{error:?}"),
            }
        })
        .await;
    }
}

/// Dials a circuit to a peer that has no reservation: the address that failed, and why.
async fn refused(caller: &mut Swarm<Client>, address: &Multiaddr) {
    let opts = DialOpts::from(address.clone());
    let id = opts.connection_id();
    caller.dial(opts).unwrap();
    let errors = wait("a failed dial", caller, |event| match event {
        SwarmEvent::OutgoingConnectionError {
            connection_id,
            error: DialError::Transport(errors),
            ..
        } if connection_id == id => Some(errors),
        _ => None,
    })
    .await;
    let [(failed, error)] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(failed, address);
    let cause = caused::<relay::outbound::hop::ConnectError>(error);
    assert!(
        matches!(cause, Some(relay::outbound::hop::ConnectError::NoReservation)),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_to_a_peer_without_a_reservation_is_refused_and_the_dialer_hears_why() {
    let relay = start(relay(), MEMORY).await;
    let mut idle = client(Order::CircuitsFirst);
    let there = *idle.local_peer_id();
    idle.dial(relay.clone()).unwrap();
    assert!(connects(&mut idle, last_peer(&relay)).await);
    run(idle);
    let nowhere = *client(Order::CircuitsFirst).local_peer_id();
    for order in ORDERS {
        for peer in [there, nowhere] {
            let plain = relay.clone().with(Protocol::P2pCircuit);
            for circuit in [plain.clone(), plain.with(Protocol::Tls)] {
                refused(&mut client(order), &circuit.with(Protocol::P2p(peer))).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_the_relay_is_used_for_the_reservation() {
    let relay = start(relay(), MEMORY).await;
    everywhere(&relay, async |mut client, circuit| {
        client.dial(relay.clone()).unwrap();
        assert!(connects(&mut client, relay_of(&circuit)).await);
        client.listen_on(circuit.asked.clone()).unwrap();
        let (mut listens, mut accepted) = (false, false);
        wait("a reservation", &mut client, |event| {
            match event {
                SwarmEvent::NewListenAddr { address, .. } => {
                    assert_eq!(address, circuit.listens);
                    listens = true;
                }
                SwarmEvent::Behaviour(ClientEvent::Relay(event)) => {
                    assert!(matches!(
                        event,
                        relay::client::Event::ReservationReqAccepted { renewal: false, .. }
                    ));
                    accepted = true;
                }
                SwarmEvent::Dialing { .. } | SwarmEvent::ConnectionEstablished { .. } => panic!("a second connection"),
                _ => {}
            }
            (listens && accepted).then_some(())
        })
        .await;
    })
    .await;
}
