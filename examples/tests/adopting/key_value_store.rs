//! `examples/distributed-key-value-store`: Kademlia among neighbours that mDNS finds.

use crate::common::{is_marked, knock};
use futures::StreamExt as _;
use libp2p::kad::{self, GetRecordOk, QueryResult, Quorum, Record};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, mdns};
use std::time::Duration;

#[derive(NetworkBehaviour)]
struct Behaviour {
    kademlia: kad::Behaviour<kad::store::MemoryStore>,
    mdns: mdns::tokio::Behaviour,
}

fn program() -> Swarm<Behaviour> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(knock)
        .unwrap()
        .with_behaviour(|key| {
            let local = key.public().to_peer_id();
            Ok(Behaviour {
                kademlia: kad::Behaviour::new(local, kad::store::MemoryStore::new(local)),
                mdns: mdns::tokio::Behaviour::new(mdns::Config::default(), local)?,
            })
        })
        .unwrap()
        .build();
    swarm.behaviour_mut().kademlia.set_mode(Some(kad::Mode::Server));
    swarm.listen_on("/ip4/0.0.0.0/tcp/0/tls".parse().unwrap()).unwrap();
    swarm
}

#[tokio::test]
async fn what_one_neighbour_puts_the_other_gets() {
    let mut both = [program(), program()];
    let ours = both.each_ref().map(|swarm| *swarm.local_peer_id());
    let (mut known, mut stored) = ([false; 2], false);
    let run = async {
        loop {
            let [one, two] = &mut both;
            let (at, event) = tokio::select! {
                event = one.select_next_some() => (0, event),
                event = two.select_next_some() => (1, event),
            };
            match event {
                SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(list))) => {
                    // Others on this network may run the same.
                    for (peer, address) in list.into_iter().filter(|(peer, _)| ours.contains(peer)) {
                        assert!(is_marked(&address), "{address}");
                        both[at].behaviour_mut().kademlia.add_address(&peer, address);
                        let first = !std::mem::replace(&mut known[at], true);
                        if first && at == 0 {
                            let record = Record::new(b"key".to_vec(), b"value".to_vec());
                            both[0]
                                .behaviour_mut()
                                .kademlia
                                .put_record(record, Quorum::One)
                                .unwrap();
                        }
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Kademlia(kad::Event::OutboundQueryProgressed {
                    result, ..
                })) => match result {
                    QueryResult::PutRecord(result) => {
                        result.unwrap();
                        stored = true;
                        both[1].behaviour_mut().kademlia.get_record(b"key".to_vec().into());
                    }
                    QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => return found.record.value,
                    _ => {}
                },
                _ => {}
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), run)
        .await
        .expect("it is found in time");
    assert_eq!((stored, found), (true, b"value".to_vec()));
}
