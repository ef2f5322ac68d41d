//! `examples/chat`: gossipsub among neighbours that mDNS finds, over TCP and QUIC.

use crate::common::{is_marked, knock};
use futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, gossipsub, mdns, noise, tcp, yamux};
use std::time::Duration;

#[derive(NetworkBehaviour)]
struct MyBehaviour {
    gossipsub: gossipsub::Behaviour,
    mdns: mdns::tokio::Behaviour,
}

fn program() -> Swarm<MyBehaviour> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        // Here: behind it the builder has no `with_quic` any more.
        .with_other_transport(knock)
        .unwrap()
        .with_behaviour(|key| {
            let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
            Ok(MyBehaviour {
                gossipsub: gossipsub::Behaviour::new(signed, gossipsub::Config::default())?,
                mdns: mdns::tokio::Behaviour::new(mdns::Config::default(), key.public().to_peer_id())?,
            })
        })
        .unwrap()
        .build();
    let topic = gossipsub::IdentTopic::new("test-net");
    swarm.behaviour_mut().gossipsub.subscribe(&topic).unwrap();
    swarm
}

/// The only listener is a knock's, so that what is heard came over one.
#[tokio::test]
async fn neighbours_find_each_other_and_chat() {
    let (mut one, mut two) = (program(), program());
    for swarm in [&mut one, &mut two] {
        swarm.listen_on("/ip4/0.0.0.0/tcp/0/tls".parse().unwrap()).unwrap();
    }
    let mut again = tokio::time::interval(Duration::from_millis(200));
    let ours = [*one.local_peer_id(), *two.local_peer_id()];
    let chat = async {
        loop {
            let (at, event) = tokio::select! {
                event = one.select_next_some() => (0, event),
                event = two.select_next_some() => (1, event),
                _ = again.tick() => {
                    // Until the other one listens.
                    let _ = one.behaviour_mut().gossipsub.publish(gossipsub::IdentTopic::new("test-net"), "hello");
                    continue;
                }
            };
            match event {
                SwarmEvent::Behaviour(MyBehaviourEvent::Mdns(mdns::Event::Discovered(list))) => {
                    for (peer, address) in list {
                        // Others on this network may run the same.
                        if ours.contains(&peer) {
                            assert!(is_marked(&address), "{address}");
                            [&mut one, &mut two][at]
                                .behaviour_mut()
                                .gossipsub
                                .add_explicit_peer(&peer);
                        }
                    }
                }
                SwarmEvent::Behaviour(MyBehaviourEvent::Gossipsub(gossipsub::Event::Message { message, .. })) => {
                    assert_eq!((at, &message.data[..]), (1, &b"hello"[..]));
                    return;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), chat)
        .await
        .expect("they chat in time");
}
