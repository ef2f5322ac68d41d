//! What a policy is told, and what is counted.

use crate::common::soon;
use crate::nodes::{Node, Parts, Stack, connect, connected, next_of};
use libp2p::PeerId;
use libp2p::swarm::SwarmEvent;
use libp2p_gater::{Caps, Stage};

#[tokio::test]
async fn a_policy_hears_of_each_attempt_and_of_what_became_of_it() {
    let (mut dialer, mut listener) = (
        Node::new(Stack::Tcp, Parts::default()),
        Node::new(Stack::Tcp, Parts::default()),
    );
    let (us, them) = (dialer.peer, listener.peer);
    connect(&mut dialer, &mut listener).await;
    assert_eq!(dialer.policy.observed(), ["pending outbound", "established outbound"]);
    assert_eq!(listener.policy.observed(), ["pending inbound", "established inbound"]);
    dialer.swarm.disconnect_peer_id(them).unwrap();
    soon("closed at both ends", async {
        while dialer.swarm.is_connected(&them) || listener.swarm.is_connected(&us) {
            next_of(&mut dialer, &mut listener).await;
        }
    })
    .await;
    assert_eq!(dialer.policy.observed()[2..], ["closed outbound"]);
    assert_eq!(listener.policy.observed()[2..], ["closed inbound"]);
}

#[tokio::test]
async fn a_policy_hears_of_an_attempt_that_it_denied_late_that_it_failed() {
    let (mut dialer, mut listener) = (
        Node::new(Stack::Tcp, Parts::default()),
        Node::new(Stack::Tcp, Parts::default()),
    );
    listener.policy.deny(|asked| asked.stage == Stage::Upgraded);
    let at = listener.listen().await;
    dialer.dial(&at, listener.peer).unwrap();
    soon("a failure", async {
        while !listener.policy.observed().iter().any(|line| line.starts_with("failed")) {
            next_of(&mut dialer, &mut listener).await;
        }
    })
    .await;
    assert_eq!(listener.policy.observed(), ["pending inbound", "failed inbound"]);
}

/// The accept stage knows nobody, and a cap on attempts must not keep what has failed.
#[tokio::test]
async fn a_cap_on_connections_holds_in_a_swarm_and_gives_way_when_one_leaves() {
    let mut listener = Node::new(Stack::Tcp, Parts::default());
    listener.change(|change| {
        change.caps(Caps::new().with_total(1));
        Ok(())
    });
    let (mut first, mut second) = (
        Node::new(Stack::Tcp, Parts::default()),
        Node::new(Stack::Tcp, Parts::default()),
    );
    let at = listener.listen().await;
    first.dial(&at, listener.peer).unwrap();
    connected(&mut first, &mut listener).await;
    second.dial(&at, listener.peer).unwrap();
    soon("a refusal", async {
        loop {
            match next_of(&mut second, &mut listener).await {
                (crate::nodes::End::Listener, SwarmEvent::ConnectionEstablished { .. }) => panic!("above the cap"),
                (crate::nodes::End::Listener, SwarmEvent::IncomingConnectionError { .. }) => return,
                _ => {}
            }
        }
    })
    .await;
    let them = listener.peer;
    let _ = second.swarm.disconnect_peer_id(them);
    first.swarm.disconnect_peer_id(them).unwrap();
    soon("room", async {
        while listener.swarm.is_connected(&first.peer) || second.swarm.is_connected(&them) {
            tokio::select! {
                _ = next_of(&mut first, &mut listener) => {}
                _ = second.next() => {}
            }
        }
    })
    .await;
    second.dial(&at, them).unwrap();
    connected(&mut second, &mut listener).await;
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn every_decision_is_counted_by_stage_verdict_and_rule() {
    use libp2p_gater::{Gate, Rules};
    use prometheus_client::{encoding::text::encode, registry::Registry};
    let mut registry = Registry::default();
    let rules = Rules::new();
    let gate = Gate::new(rules.clone()).with_metrics(&mut registry).unwrap();
    let labels = |registry: &Registry| {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let of = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
        text.lines().filter_map(of).collect::<std::collections::BTreeSet<_>>()
    };
    let first = labels(&registry);
    let peer = PeerId::random();
    rules.change(|change| change.block(peer)).unwrap();
    let mut swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default(),
            gate.upgrade(libp2p::noise::Config::new),
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| gate.behaviour())
        .unwrap()
        .build();
    swarm.dial(peer).unwrap_err();
    swarm.dial(peer).unwrap_err();
    // Nobody is blocked there; it fails for want of an address.
    swarm.dial(PeerId::random()).unwrap_err();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let line = |verdict: &str| {
        text.lines()
            .find(|line| {
                line.starts_with("libp2p_gater_decisions_total{stage=\"peer_dial\"")
                    && line.contains(&format!("verdict=\"{verdict}\""))
                    && !line.ends_with(" 0")
            })
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    assert!(
        line("deny").contains("rule=\"block") && line("deny").ends_with(" 2"),
        "{text}"
    );
    assert!(line("pass").ends_with(" 1"), "{text}");
    // Nothing is born at the first event.
    assert_eq!(labels(&registry), first);
}

#[tokio::test]
async fn what_a_swarm_had_is_given_back_when_it_is_dropped() {
    let (mut dialer, mut listener) = (
        Node::new(Stack::Tcp, Parts::default()),
        Node::new(Stack::Tcp, Parts::default()),
    );
    connect(&mut dialer, &mut listener).await;
    // One more that is still under way.
    dialer
        .dial(&"/ip4/127.0.0.1/tcp/9".parse().unwrap(), PeerId::random())
        .unwrap();
    let policy = dialer.policy.clone();
    drop(dialer);
    assert_eq!(
        policy.observed()[2..],
        ["pending outbound", "failed outbound", "closed outbound"]
    );
}
