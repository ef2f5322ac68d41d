use crate::common::*;
use futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::{Config, DialFailure, Event};
use libp2p_gater::goodbye::{BackedOff, Code, Goodbye};
use libp2p_gater::{Gate, Rules};
use prometheus_client::registry::Registry;
use std::time::{Duration, Instant};

#[derive(NetworkBehaviour)]
struct Gated {
    gate: libp2p_gater::Behaviour,
    persistent: PersistentPeers,
}

/// For how long the peer asks not to be dialled.
const BACK_OFF: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_back_off_of_our_own_gate_is_waited_for_and_is_no_failure() {
    let there = Gate::new(Rules::new());
    let mut peer = both(&mut Registry::default(), |_| there.behaviour());
    let address = listen(&mut peer, KNOCK).await;
    let id = *peer.local_peer_id();
    let gate = Gate::new(Rules::new());
    let mut node = both(&mut Registry::default(), |key| Gated {
        gate: gate.behaviour(),
        persistent: PersistentPeers::new(
            key.public().to_peer_id(),
            Config::new()
                // That the connection was short counts for nothing here.
                .with_stable(Duration::ZERO)
                .with_denied_for(|denied| denied.downcast_ref::<BackedOff>().map(|backed_off| backed_off.left)),
        ),
    });
    node.behaviour_mut().persistent.add_peer(id, [address]).unwrap();
    let (mut closed, mut denials, mut connections) = (None, Vec::new(), 0);
    // The peer trims us, and says for how long it does not want to hear of us.
    tokio::spawn(async move {
        let mut said = false;
        loop {
            if let SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, ..
            } = peer.select_next_some().await
                && !std::mem::replace(&mut said, true)
            {
                let goodbye = Goodbye::new(Code::Trimmed).with_retry_after(BACK_OFF);
                there.close(peer_id, connection_id, goodbye);
            }
        }
    });
    until("a second connection", async {
        while connections < 2 {
            match node.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => connections += 1,
                SwarmEvent::ConnectionClosed { .. } => closed = Some(Instant::now()),
                SwarmEvent::Behaviour(GatedEvent::Persistent(Event::DialFailed {
                    error,
                    failures,
                    retry_in,
                    ..
                })) => denials.push((error, failures, retry_in)),
                _ => {}
            }
        }
    })
    .await;
    let [(DialFailure::Denied { reason }, 0, retry_in)] = &denials[..] else {
        panic!("not one denial, and no failure: {denials:?}");
    };
    assert!(reason.contains("goodbye"), "{reason}");
    assert!(*retry_in <= BACK_OFF && *retry_in > BACK_OFF / 2, "{retry_in:?}");
    assert!(closed.unwrap().elapsed() >= BACK_OFF / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_denies_a_wanted_peer_is_tried_again_until_it_is_lifted() {
    let rules = Rules::new();
    let gate = Gate::new(rules.clone());
    let mut peer = both(&mut Registry::default(), |_| libp2p::swarm::dummy::Behaviour);
    let address = listen(&mut peer, KNOCK).await;
    let id = run(peer);
    rules.change(|change| change.block(id)).unwrap();
    let mut node = both(&mut Registry::default(), |key| Gated {
        gate: gate.behaviour(),
        // The closure's own fault costs it its say, and nothing else.
        persistent: PersistentPeers::new(
            key.public().to_peer_id(),
            Config::new()
                .with_min_interval(Duration::from_millis(200))
                .with_denied_for(|_| panic!("a closure of the test's")),
        ),
    });
    node.behaviour_mut().persistent.add_peer(id, [address]).unwrap();
    let mut denials = 0;
    until("a connection", async {
        while !node.is_connected(&id) {
            if let SwarmEvent::Behaviour(GatedEvent::Persistent(Event::DialFailed { error, failures, .. })) =
                node.select_next_some().await
            {
                assert!(matches!(error, DialFailure::Denied { .. }), "{error}");
                assert_eq!(failures, 0);
                denials += 1;
                if denials == 3 {
                    rules
                        .change(|change| {
                            change.unblock(id);
                            Ok(())
                        })
                        .unwrap();
                }
            }
        }
    })
    .await;
    assert_eq!(denials, 3);
}
