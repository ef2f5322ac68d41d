use crate::common::*;
use futures::StreamExt as _;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent, dummy};
use libp2p::{Multiaddr, Swarm, kad};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::{AddError, Config, NotByKnock};
use libp2p_knock::is_knock_address;
use prometheus_client::registry::Registry;

#[derive(NetworkBehaviour)]
struct Behaviour {
    persistent: PersistentPeers,
    kad: kad::Behaviour<MemoryStore>,
}

fn node() -> Swarm<Behaviour> {
    both(&mut Registry::default(), |key| {
        let local = key.public().to_peer_id();
        Behaviour {
            persistent: PersistentPeers::new(local, Config::new()),
            kad: kad::Behaviour::new(local, MemoryStore::new(local)),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_of_a_wanted_peer_is_one_knock_though_a_dht_knows_the_address_too() {
    const DIALS: u64 = 10;
    let mut registry = Registry::default();
    let mut peer = both(&mut registry, |_| dummy::Behaviour);
    let address = listen(&mut peer, KNOCK).await;
    let id = run(peer);
    for _ in 0..DIALS {
        let mut node = node();
        node.behaviour_mut().kad.add_address(&id, address.clone());
        // With the peer at its end, and without.
        let given = [address.clone(), address.clone().with_p2p(id).unwrap()];
        node.behaviour_mut().persistent.add_peer(id, given).unwrap();
        until("a connection", async {
            while !node.is_connected(&id) {
                node.next().await;
            }
        })
        .await;
    }
    until("all of them heard", async {
        while count(&registry, "libp2p_knock_knocks_total") < DIALS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // A second knock leaves with the first, and would be there by now but for the machine.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(count(&registry, "libp2p_knock_knocks_total"), DIALS);
    assert_eq!(
        count(&registry, "libp2p_knock_handshakes_total{role=\"listener\""),
        DIALS
    );
}

/// A peer with both transports, and where it is.
async fn migrating() -> (libp2p::PeerId, Multiaddr, Multiaddr) {
    let mut peer = both(&mut Registry::default(), |_| dummy::Behaviour);
    let (knock, stock) = (listen(&mut peer, KNOCK).await, listen(&mut peer, STOCK).await);
    (run(peer), knock, stock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_wanted_by_knock_does_not_come_back_over_stock_tcp() {
    let (peer, knock, stock) = migrating().await;
    let mut node = node();
    let behaviour = node.behaviour_mut();
    let added = behaviour.persistent.add_peer_by_knock(peer, [stock.clone()]);
    assert_eq!(added, Err(AddError::NotByKnock { address: stock.clone() }));
    // A DHT knows the other address, and dials it for its own purposes.
    behaviour.kad.add_address(&peer, stock.clone());
    behaviour.persistent.add_peer_by_knock(peer, [knock]).unwrap();
    let mut connections = 0;
    until("three connections", async {
        while connections < 3 {
            match node.select_next_some().await {
                SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                    let address = endpoint.get_remote_address();
                    assert!(is_knock_address(address), "{address}");
                    connections += 1;
                    // Lost; kad looks for it at the same time as the wanted peers do.
                    node.disconnect_peer_id(peer).unwrap();
                    node.behaviour_mut().kad.get_closest_peers(peer);
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    let DialError::Denied { cause } = &error else {
                        panic!("{error}");
                    };
                    assert_eq!(cause.downcast_ref::<NotByKnock>().unwrap().peer, peer);
                }
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_over_stock_tcp_gives_way_when_the_peer_is_wanted_by_knock() {
    let (peer, knock, stock) = migrating().await;
    let mut node = node();
    let dial = |condition| {
        DialOpts::peer_id(peer)
            .condition(condition)
            .addresses(vec![stock.clone()])
            .build()
    };
    node.dial(dial(PeerCondition::Always)).unwrap();
    until("a stock connection", async {
        while !node.is_connected(&peer) {
            node.next().await;
        }
    })
    .await;
    node.behaviour_mut()
        .persistent
        .add_peer_by_knock(peer, [knock])
        .unwrap();
    until("a knock", async {
        loop {
            if let SwarmEvent::ConnectionEstablished { endpoint, .. } = node.select_next_some().await {
                let address = endpoint.get_remote_address();
                assert!(is_knock_address(address), "{address}");
                return;
            }
        }
    })
    .await;
    // From here on the application's own dials are refused as well, and once it is let go of they
    // are not.
    let refused = async |node: &mut Swarm<Behaviour>| {
        node.dial(dial(PeerCondition::Always)).unwrap();
        until("its end", async {
            loop {
                match node.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => return false,
                    SwarmEvent::OutgoingConnectionError { .. } => return true,
                    _ => {}
                }
            }
        })
        .await
    };
    assert!(refused(&mut node).await);
    node.behaviour_mut().persistent.remove_peer(&peer);
    assert!(!refused(&mut node).await);
}
