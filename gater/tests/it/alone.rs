//! Parts of a gate without the behaviour, and more parts than are needed.

use crate::common::soon;
use crate::logs::logged;
use crate::nodes::{End, Node, Parts, Stack, connect, connected, next_of};
use crate::parts::{By, Driven};
use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p_gater::{Gate, Rules, Stage};
use tracing::Level;

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

#[test]
fn a_gate_without_its_behaviour_says_so_once_when_a_part_asks_or_something_is_to_be_closed() {
    let warnings = |work: &dyn Fn()| logged(Level::WARN, work);
    let asking = [By::AddrDial, By::Accept, By::Knock, By::Secured];
    for by in asking {
        let gate = Gate::new(Rules::new());
        let said = warnings(&|| {
            for _ in 0..3 {
                Driven::without_behaviour(&gate).ask(by);
            }
        });
        assert!(said.len() == 1 && said[0].contains("no behaviour"), "{by:?}: {said:?}");
    }
    let gate = Gate::new(Rules::new());
    let said = warnings(&|| gate.closer()(PeerId::random(), ConnectionId::new_unchecked(1), "watermark"));
    assert_eq!(said.len(), 1, "{said:?}");
    // Where there is one, or where its Swarm is gone, there is nothing to say.
    let gate = Gate::new(Rules::new());
    let said = warnings(&|| {
        for by in asking {
            Driven::new(&gate).ask(by);
            Driven::without_behaviour(&gate).ask(by);
        }
        gate.closer()(PeerId::random(), ConnectionId::new_unchecked(1), "watermark");
    });
    assert_eq!(said, [""; 0]);
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
