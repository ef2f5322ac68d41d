//! What go-libp2p's swarms and transports do with a gater, done here.

use crate::common::soon;
use crate::nodes::{End, Node, Parts, Stack, connect, next_of};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p_gater::{Cidr, Denied, Direction, Rule, Stage, Verdict};

const STACKS: [Stack; 4] = [Stack::Knock, Stack::Tcp, Stack::Quic, Stack::WebSocket];

/// Everything that a stack can have.
fn installed(stack: Stack) -> Parts {
    Parts {
        transport: true,
        hooks: stack != Stack::Quic,
        beneath: false,
    }
}

fn pair(stack: Stack) -> (Node, Node) {
    (Node::new(stack, installed(stack)), Node::new(stack, installed(stack)))
}

/// Whether a dial connects both ends, or fails with what `denied` finds.
async fn outcome(dialer: &mut Node, listener: &mut Node) -> Result<(), Option<Denied>> {
    let at = listener.listen().await;
    if let Err(error) = dialer.dial(&at, listener.peer) {
        return Err(Denied::in_dial(&error).cloned());
    }
    let mut up = 0;
    soon("the end of a dial", async {
        loop {
            match next_of(dialer, listener).await {
                (_, SwarmEvent::ConnectionEstablished { .. }) => up += 1,
                (End::Dialer, SwarmEvent::OutgoingConnectionError { error, .. }) => {
                    return Err(Denied::in_dial(&error).cloned());
                }
                (End::Dialer, SwarmEvent::ConnectionClosed { .. }) => return Err(None),
                _ => {}
            }
            if up == 2 {
                return Ok(());
            }
        }
    })
    .await
}

/// GI-01.
#[tokio::test]
async fn two_nodes_whose_policies_deny_nothing_connect() {
    for stack in STACKS {
        let (mut dialer, mut listener) = pair(stack);
        outcome(&mut dialer, &mut listener).await.unwrap();
    }
}

/// GI-02, GI-03, GI-06, GI-07, GI-24.
#[tokio::test]
async fn a_dialer_that_denies_at_any_stage_of_a_dial_is_not_connected_and_its_error_says_why() {
    for stack in STACKS {
        for stage in [Stage::PeerDial, Stage::AddrDial, Stage::Secured, Stage::Upgraded] {
            let (mut dialer, mut listener) = pair(stack);
            dialer.policy.deny(move |asked| asked.stage == stage);
            let denied = outcome(&mut dialer, &mut listener).await.unwrap_err();
            let denied = denied.unwrap_or_else(|| panic!("{stack:?}, {stage}: the cause is not in the error"));
            assert_eq!((denied.stage, denied.reason.rule()), (stage, "told-to"), "{stack:?}");
            assert!(!dialer.swarm.is_connected(&listener.peer), "{stack:?}, {stage}");
        }
    }
}

/// GI-04, GI-08, GI-16.
#[tokio::test]
async fn what_a_listener_would_not_dial_and_a_dialer_would_not_accept_is_no_matter() {
    for stack in STACKS {
        let (mut dialer, mut listener) = pair(stack);
        dialer
            .policy
            .deny(|asked| matches!(asked.stage, Stage::Accept | Stage::Knock));
        listener
            .policy
            .deny(|asked| matches!(asked.stage, Stage::PeerDial | Stage::AddrDial));
        outcome(&mut dialer, &mut listener).await.unwrap();
    }
}

/// GI-05.
#[tokio::test]
async fn a_listener_that_does_not_accept_is_connected_to_nobody() {
    for stack in STACKS {
        let (mut dialer, mut listener) = pair(stack);
        listener.policy.deny(|asked| asked.stage == Stage::Accept);
        outcome(&mut dialer, &mut listener).await.unwrap_err();
        assert_eq!(listener.swarm.connected_peers().count(), 0, "{stack:?}");
    }
}

/// The address without the peer behind it.
fn bare(address: &Multiaddr) -> Multiaddr {
    address
        .iter()
        .filter(|protocol| !matches!(protocol, Protocol::P2p(_)))
        .collect()
}

/// GI-09 to GI-15.
#[tokio::test]
async fn each_stage_is_told_who_and_where() {
    for stack in STACKS {
        let (mut dialer, mut listener) = pair(stack);
        let (us, them) = (dialer.peer, listener.peer);
        connect(&mut dialer, &mut listener).await;
        let listening = listener.swarm.listeners().next().cloned().unwrap();
        // A wrapped upgrade sees no addresses.
        let blind = |stage| stage == Stage::Secured && matches!(stack, Stack::Tcp | Stack::WebSocket);
        let asked = dialer.policy.asked();
        assert_eq!(
            asked.iter().map(|asked| asked.stage).collect::<Vec<_>>(),
            [Stage::PeerDial, Stage::AddrDial, Stage::Secured, Stage::Upgraded],
            "{stack:?}"
        );
        for asked in asked {
            assert_eq!(asked.peer, Some(them), "{stack:?}, {}", asked.stage);
            assert_eq!(asked.direction, Direction::Outbound);
            if asked.stage != Stage::PeerDial && !blind(asked.stage) {
                assert_eq!(asked.remote.as_ref().map(bare).as_ref(), Some(&listening));
            }
        }
        for asked in listener.policy.asked() {
            assert_eq!(asked.direction, Direction::Inbound, "{stack:?}, {}", asked.stage);
            match asked.stage {
                Stage::Accept => assert_eq!(asked.peer, None),
                _ => assert_eq!(asked.peer, Some(us)),
            }
            if !blind(asked.stage) {
                assert_eq!(asked.local.as_ref(), Some(&listening), "{stack:?}, {}", asked.stage);
                assert!(asked.remote.is_some());
            }
        }
    }
}

/// GI-17, GI-18.
#[tokio::test]
async fn a_listener_that_has_refused_goes_on_and_lets_in_who_is_allowed_later() {
    for stack in STACKS {
        for stage in [Stage::Accept, Stage::Secured, Stage::Upgraded] {
            let (mut dialer, mut listener) = pair(stack);
            listener.policy.deny(move |asked| asked.stage == stage);
            outcome(&mut dialer, &mut listener).await.unwrap_err();
            assert!(listener.policy.has_denied(), "{stack:?}, {stage}");
            listener.policy.allow();
            connect(&mut dialer, &mut listener).await;
        }
    }
}

/// GI-22.
#[tokio::test]
async fn a_blocked_peer_is_connected_to_in_neither_direction() {
    for stack in STACKS {
        for ours in [true, false] {
            let (mut dialer, mut listener) = pair(stack);
            let (us, them) = (dialer.peer, listener.peer);
            match ours {
                true => dialer.change(|change| change.block(them)),
                false => listener.change(|change| change.block(us)),
            }
            outcome(&mut dialer, &mut listener).await.unwrap_err();
            let blocking = if ours { &dialer } else { &listener };
            assert_eq!(blocking.swarm.connected_peers().count(), 0, "{stack:?}");
        }
    }
}

/// GI-23.
#[tokio::test]
async fn a_blocked_network_is_connected_to_in_neither_direction() {
    let loopback: Cidr = "127.0.0.0/8".parse().unwrap();
    for stack in STACKS {
        for ours in [true, false] {
            let (mut dialer, mut listener) = pair(stack);
            let blocking = if ours { &dialer } else { &listener };
            blocking.change(|change| change.block(loopback));
            outcome(&mut dialer, &mut listener).await.unwrap_err();
            let blocking = if ours { &dialer } else { &listener };
            assert_eq!(blocking.swarm.connected_peers().count(), 0, "{stack:?}");
        }
    }
}

/// NT-20: go-libp2p asks about inbound peers only.
#[tokio::test]
async fn a_peer_that_turns_out_to_be_blocked_after_an_outbound_handshake_is_not_connected_to() {
    for stack in [Stack::Tcp, Stack::Quic, Stack::WebSocket] {
        let (mut dialer, mut listener) = pair(stack);
        let them = listener.peer;
        dialer.change(|change| change.block(them));
        let at = listener.listen().await;
        // Without a peer, nobody is asked about one before the handshake.
        dialer.swarm.dial(at).unwrap();
        let error = soon("the end of the dial", async {
            loop {
                match next_of(&mut dialer, &mut listener).await {
                    (End::Dialer, SwarmEvent::OutgoingConnectionError { error, .. }) => return error,
                    (End::Dialer, SwarmEvent::ConnectionEstablished { .. }) => panic!("{stack:?}: connected"),
                    _ => {}
                }
            }
        })
        .await;
        let denied = Denied::in_dial(&error).unwrap();
        assert_eq!(denied.stage, Stage::Secured, "{stack:?}");
    }
}

/// NT-20.
#[tokio::test]
async fn a_required_knock_keeps_stock_tcp_out_and_lets_a_knock_in() {
    for (stack, connects) in [(Stack::Tcp, false), (Stack::Quic, false), (Stack::Knock, true)] {
        let (mut dialer, mut listener) = pair(stack);
        listener.change(|change| {
            change.require_knock_of_everybody(true);
            Ok(())
        });
        assert_eq!(outcome(&mut dialer, &mut listener).await.is_ok(), connects, "{stack:?}");
    }
}

/// NT-20.
#[tokio::test]
async fn a_relay_hides_neither_its_own_address_nor_the_peer_behind_it() {
    let circuits = |event: &crate::nodes::Event| matches!(event, SwarmEvent::ConnectionEstablished { endpoint, .. } if endpoint.is_relayed());
    for (by_peer, inbound) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut dialer, mut listener) = (
            Node::new(Stack::Relay, Parts::default()),
            Node::new(Stack::Relay, Parts::default()),
        );
        let mut relay = Node::relay();
        let at = relay.listen().await;
        relay.swarm.add_external_address(at.clone());
        let circuit = listener.reserve(&mut relay, &at).await;
        let (us, them) = (dialer.peer, listener.peer);
        let denier = if inbound { &listener } else { &dialer };
        denier.change(|change| match by_peer {
            true => change.block(if inbound { us } else { them }),
            // What leads to the relay itself is not at issue.
            false => change.insert(
                Rule::block()
                    .network("127.0.0.1".parse::<Cidr>().unwrap())
                    .transport(libp2p_gater::TransportKind::Relayed),
            ),
        });
        let dialled = dialer.dial(&circuit, them);
        if !inbound {
            dialled.unwrap_err();
            continue;
        }
        soon("a denial", async {
            loop {
                tokio::select! {
                    event = dialer.next() => drop(event),
                    event = listener.next() => {
                        assert!(!circuits(&event), "connected");
                        if let SwarmEvent::IncomingConnectionError { error, .. } = event
                            && let Some(denied) = Denied::in_listen(&error) {
                            return assert!(matches!(denied.stage, Stage::Accept | Stage::Secured));
                        }
                    },
                    _ = relay.next() => {}
                }
            }
        })
        .await;
    }
}

/// libp2p's relay client takes what stands behind the circuit for a part of the target's address, and speaks Noise.
#[tokio::test]
async fn a_mark_behind_a_circuit_is_no_knock() {
    for hooks in [false, true] {
        let parts = Parts {
            hooks,
            ..Parts::default()
        };
        let (mut dialer, mut listener) = (
            Node::new(Stack::Relay, parts),
            Node::new(Stack::Relay, Parts::default()),
        );
        let mut relay = Node::relay();
        let at = relay.listen().await;
        relay.swarm.add_external_address(at.clone());
        let circuit = listener.reserve(&mut relay, &at).await;
        let them = listener.peer;
        dialer.change(|change| change.require_knock(them, true));
        dialer.dial(&circuit.with(Protocol::Tls), them).unwrap();
        let error = soon("a denial", async {
            loop {
                tokio::select! {
                    event = dialer.next() => match event {
                        SwarmEvent::OutgoingConnectionError { error, .. } => return error,
                        SwarmEvent::ConnectionEstablished { peer_id, .. } => assert_ne!(peer_id, them, "connected"),
                        _ => {}
                    },
                    _ = listener.next() => {}
                    _ = relay.next() => {}
                }
            }
        })
        .await;
        let denied = Denied::in_dial(&error).unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!(denied.reason.rule(), "require_knock");
    }
}

/// What is said about a peer is what would be answered.
#[tokio::test]
async fn a_gate_explains_what_it_would_say() {
    let (dialer, listener) = pair(Stack::Knock);
    let them = listener.peer;
    dialer.change(|change| change.block(them));
    let lines = dialer.gate.explain(Some(&them), None);
    let deny = |line: &&libp2p_gater::Explanation| matches!(line.verdict, Verdict::Deny(_));
    assert!(
        lines.iter().filter(deny).any(|line| line.stage == Stage::PeerDial),
        "{lines:?}"
    );
}
