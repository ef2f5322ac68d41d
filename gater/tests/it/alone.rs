//! Parts of a gate without the behaviour, and more parts than are needed.

use crate::common::soon;
use crate::nodes::{End, Node, Parts, Stack, connect, connected, next_of};
use libp2p::swarm::SwarmEvent;
use libp2p_gater::Stage;

fn stages(node: &Node) -> Vec<Stage> {
    let mut stages: Vec<_> = node.policy.asked().iter().map(|asked| asked.stage).collect();
    stages.sort();
    stages
}

#[tokio::test]
async fn without_the_behaviour_each_part_asks_its_own_stages_and_nobody_asks_the_others() {
    let (hooks, transport) = (
        Parts {
            hooks: true,
            ..Parts::default()
        },
        Parts {
            transport: true,
            ..Parts::default()
        },
    );
    let secured = vec![Stage::Secured];
    for (stack, parts, out, inwards) in [
        (Stack::Tcp, Parts::default(), vec![], vec![]),
        (Stack::Tcp, hooks, secured.clone(), secured.clone()),
        (Stack::Knock, hooks, secured.clone(), vec![Stage::Knock, Stage::Secured]),
        (Stack::Knock, transport, vec![Stage::AddrDial], vec![Stage::Accept]),
        (Stack::Quic, transport, vec![Stage::AddrDial], vec![Stage::Accept]),
    ] {
        let (mut dialer, mut listener) = (Node::with(stack, parts, false), Node::with(stack, parts, false));
        connect(&mut dialer, &mut listener).await;
        assert_eq!((stages(&dialer), stages(&listener)), (out, inwards), "{stack:?}");
    }
}

#[tokio::test]
async fn without_the_behaviour_a_part_refuses_all_the_same() {
    let parts = Parts {
        transport: true,
        hooks: true,
        ..Parts::default()
    };
    for stage in [Stage::Accept, Stage::Secured] {
        for stack in [Stack::Tcp, Stack::Knock] {
            let (mut dialer, mut listener) = (Node::with(stack, parts, false), Node::with(stack, parts, false));
            listener.policy.deny(move |asked| asked.stage == stage);
            let at = listener.listen().await;
            dialer.dial(&at, listener.peer).unwrap();
            let end = soon("the end of the dial", async {
                loop {
                    match next_of(&mut dialer, &mut listener).await {
                        (End::Listener, SwarmEvent::ConnectionEstablished { .. }) => panic!("{stack:?}: let in"),
                        (
                            End::Dialer,
                            end @ (SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. }),
                        ) => return end,
                        _ => {}
                    }
                }
            })
            .await;
            assert!(listener.policy.has_denied(), "{stack:?}, {stage}: {end:?}");
        }
    }
}

/// Round the knock, and beneath it as well.
#[tokio::test]
async fn two_transports_of_one_gate_ask_once() {
    let parts = Parts {
        transport: true,
        beneath: true,
        hooks: true,
    };
    let (mut dialer, mut listener) = (Node::new(Stack::Knock, parts), Node::new(Stack::Knock, parts));
    let at = listener.listen().await;
    for _ in 0..3 {
        dialer.policy.forget();
        listener.policy.forget();
        dialer.dial(&at, listener.peer).unwrap();
        connected(&mut dialer, &mut listener).await;
        assert_eq!(
            stages(&dialer),
            [Stage::PeerDial, Stage::AddrDial, Stage::Secured, Stage::Upgraded]
        );
        assert_eq!(
            stages(&listener),
            [Stage::Accept, Stage::Knock, Stage::Secured, Stage::Upgraded]
        );
        let (us, them) = (dialer.peer, listener.peer);
        dialer.swarm.disconnect_peer_id(them).unwrap();
        soon("apart", async {
            while dialer.swarm.is_connected(&them) || listener.swarm.is_connected(&us) {
                next_of(&mut dialer, &mut listener).await;
            }
        })
        .await;
    }
}
