//! A rule that is tightened holds for what is there already, and for what is on its way.

use crate::common::soon;
use crate::nodes::{BehaviourEvent, End, Node, Parts, Stack, connect, next_of};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use libp2p_gater::{Cidr, Denied, Event, Rule, Stage};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

fn plain() -> Node {
    Node::new(Stack::Tcp, Parts::default())
}

fn wrapped() -> Node {
    let parts = Parts {
        transport: true,
        ..Parts::default()
    };
    Node::new(Stack::Tcp, parts)
}

fn loopback() -> Cidr {
    "127.0.0.0/8".parse().unwrap()
}

/// NT-21.
#[tokio::test]
async fn a_block_closes_the_connections_that_it_is_about() {
    for stack in [Stack::Knock, Stack::Tcp, Stack::Quic, Stack::WebSocket] {
        for (by_peer, inbound) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut dialer, mut listener) = (Node::new(stack, Parts::default()), Node::new(stack, Parts::default()));
            connect(&mut dialer, &mut listener).await;
            let (us, them) = (dialer.peer, listener.peer);
            let (blocking, blocked) = if inbound { (&listener, us) } else { (&dialer, them) };
            blocking.change(|change| match by_peer {
                true => change.block(blocked),
                false => change.block(loopback()),
            });
            let mut announced = 0;
            soon("closed at both ends", async {
                while dialer.swarm.is_connected(&them) || listener.swarm.is_connected(&us) {
                    let event = next_of(&mut dialer, &mut listener).await.1;
                    if let SwarmEvent::Behaviour(BehaviourEvent::Gate(Event::Closing { peer, .. })) = event {
                        assert_eq!(peer, blocked);
                        announced += 1;
                    }
                }
            })
            .await;
            assert_eq!(announced, 1);
        }
    }
}

#[tokio::test]
async fn a_block_leaves_alone_the_connections_that_it_is_not_about() {
    let (mut dialer, mut listener) = (plain(), plain());
    connect(&mut dialer, &mut listener).await;
    let (us, them) = (dialer.peer, listener.peer);
    let strange = PeerId::random();
    listener.policy.forget();
    listener.change(|change| {
        change.block(strange)?;
        change.insert(
            Rule::block()
                .network(loopback())
                .direction(libp2p_gater::Direction::Outbound),
        )
    });
    // It has been judged again, and is still there.
    soon("judged", async {
        while !listener.policy.asked().iter().any(|asked| asked.stage == Stage::Live) {
            next_of(&mut dialer, &mut listener).await;
        }
    })
    .await;
    assert!(listener.swarm.is_connected(&us) && dialer.swarm.is_connected(&them));
}

#[tokio::test]
async fn a_policy_that_rings_no_bell_is_judged_by_again_when_it_is_asked_for() {
    let (mut dialer, mut listener) = (plain(), plain());
    connect(&mut dialer, &mut listener).await;
    let us = dialer.peer;
    listener.policy.deny(|asked| asked.stage == Stage::Live);
    listener.gate.recheck();
    soon("closed", async {
        while listener.swarm.is_connected(&us) {
            next_of(&mut dialer, &mut listener).await;
        }
    })
    .await;
}

/// Something that accepts connections and never says a word.
async fn mute() -> (TcpListener, Multiaddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap())
}

/// Dials what never answers, and says what becomes of that once `tighten` has run.
async fn stopped(mut dialer: Node, tighten: impl FnOnce(&Node, PeerId)) -> (DialError, bool) {
    let ((listener, at), peer) = (mute().await, PeerId::random());
    dialer.dial(&at, peer).unwrap();
    // Under way: the connection is made, and the handshake is waited for.
    let accepted = soon("a connection", async {
        tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            _ = async { loop { dialer.next().await; } } => unreachable!(),
        }
    })
    .await;
    tighten(&dialer, peer);
    let mut announced = false;
    let error = soon("the end of the dial", async {
        loop {
            match dialer.next().await {
                SwarmEvent::OutgoingConnectionError { error, .. } => return error,
                SwarmEvent::Behaviour(BehaviourEvent::Gate(Event::DialsAborted { peer: aborted, .. })) => {
                    announced = aborted == peer;
                }
                _ => {}
            }
        }
    })
    .await;
    drop(accepted);
    (error, announced)
}

/// NT-22.
#[tokio::test]
async fn an_address_that_is_blocked_while_it_is_dialled_is_given_up() {
    let (error, _) = stopped(wrapped(), |node, _| node.change(|change| change.block(loopback()))).await;
    let denied = Denied::in_dial(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(denied.stage, Stage::Live);
}

/// NT-22.
#[tokio::test]
async fn a_peer_that_is_blocked_while_it_is_dialled_is_given_up() {
    let (error, announced) = stopped(plain(), |node, peer| node.change(|change| change.block(peer))).await;
    assert!(announced && matches!(error, DialError::Aborted), "{error:?}");
}

/// NT-22: what nothing can stop is refused when it gets there.
#[tokio::test]
async fn an_address_that_is_blocked_while_it_is_dialled_is_refused_at_the_latest_when_it_is_connected() {
    let (mut dialer, mut listener) = (plain(), plain());
    let them = listener.peer;
    let at = listener.listen().await;
    dialer.dial(&at, them).unwrap();
    dialer.change(|change| change.block(loopback()));
    let error = soon("the end of the dial", async {
        loop {
            match next_of(&mut dialer, &mut listener).await {
                (End::Dialer, SwarmEvent::OutgoingConnectionError { error, .. }) => return error,
                (End::Dialer, SwarmEvent::ConnectionEstablished { .. }) => panic!("connected"),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(Denied::in_dial(&error).unwrap().stage, Stage::AddrDial);
}

#[tokio::test]
async fn a_handshake_that_is_blocked_while_it_is_under_way_is_given_up_on_the_listening_side_too() {
    let mut node = wrapped();
    let at = node.listen().await;
    let port = at.iter().find_map(|protocol| match protocol {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mute = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port.unwrap())))
        .await
        .unwrap();
    soon("something comes in", async {
        while !matches!(node.next().await, SwarmEvent::IncomingConnection { .. }) {}
    })
    .await;
    node.change(|change| change.block(loopback()));
    let error = soon("given up", async {
        loop {
            if let SwarmEvent::IncomingConnectionError { error, .. } = node.next().await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(Denied::in_listen(&error).unwrap().stage, Stage::Live);
    drop(mute);
}
