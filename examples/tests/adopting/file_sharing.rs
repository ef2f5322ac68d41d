//! `examples/file-sharing`: who has a file is in Kademlia, the file comes by request and response.

use crate::common::{is_marked, knock, listen, until};
use futures::StreamExt as _;
use libp2p::kad::{self, GetProvidersOk, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Message, ProtocolSupport, cbor};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder};
use std::time::Duration;

#[derive(NetworkBehaviour)]
struct Behaviour {
    request_response: cbor::Behaviour<String, Vec<u8>>,
    kademlia: kad::Behaviour<kad::store::MemoryStore>,
}

type Event = SwarmEvent<BehaviourEvent>;

fn program() -> Swarm<Behaviour> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(knock)
        .unwrap()
        .with_behaviour(|key| {
            let local = key.public().to_peer_id();
            let protocol = (StreamProtocol::new("/file-exchange/1"), ProtocolSupport::Full);
            Behaviour {
                kademlia: kad::Behaviour::new(local, kad::store::MemoryStore::new(local)),
                request_response: cbor::Behaviour::new([protocol], request_response::Config::default()),
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.behaviour_mut().kademlia.set_mode(Some(kad::Mode::Server));
    swarm
}

/// As the example does: the peer is in the address already, and is put behind it once more.
fn dial(swarm: &mut Swarm<Behaviour>, peer: PeerId, address: &Multiaddr) {
    swarm.behaviour_mut().kademlia.add_address(&peer, address.clone());
    swarm.dial(address.clone().with(Protocol::P2p(peer))).unwrap();
}

/// Answers every request for the file, for ever.
async fn run(mut swarm: Swarm<Behaviour>) {
    loop {
        if let SwarmEvent::Behaviour(BehaviourEvent::RequestResponse(request_response::Event::Message {
            message: Message::Request { request, channel, .. },
            ..
        })) = swarm.select_next_some().await
        {
            assert_eq!(request, "file");
            let answered = swarm
                .behaviour_mut()
                .request_response
                .send_response(channel, vec![7; 100_000]);
            answered.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_is_found_and_fetched_from_a_provider_that_only_the_network_knows() {
    let (mut boot, mut provider, mut getter) = (program(), program(), program());
    let (boot_id, provider_id) = (*boot.local_peer_id(), *provider.local_peer_id());
    let at = listen(&mut boot).await.with_p2p(boot_id).unwrap();
    tokio::spawn(run(boot));

    let here = listen(&mut provider).await;
    // What the example leaves out: where no identify runs, others learn it from nowhere else.
    provider.add_external_address(here.clone());
    dial(&mut provider, boot_id, &at);
    let connected = |event: &Event| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(());
    until(&mut provider, connected).await;
    provider
        .behaviour_mut()
        .kademlia
        .start_providing(b"file".to_vec().into())
        .unwrap();
    until(&mut provider, |event: &Event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Kademlia(kad::Event::OutboundQueryProgressed {
            result: QueryResult::StartProviding(result),
            ..
        })) => Some(result.clone()),
        _ => None,
    })
    .await
    .unwrap();
    tokio::spawn(run(provider));

    dial(&mut getter, boot_id, &at);
    until(&mut getter, connected).await;
    getter.behaviour_mut().kademlia.get_providers(b"file".to_vec().into());
    let found = until(&mut getter, |event: &Event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Kademlia(kad::Event::OutboundQueryProgressed {
            result: QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
            ..
        })) => providers.iter().next().copied(),
        _ => None,
    })
    .await;
    assert_eq!(found, provider_id);
    getter
        .behaviour_mut()
        .request_response
        .send_request(&found, "file".to_owned());
    let mut through = None;
    let file = until(&mut getter, |event: &Event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } if *peer_id == provider_id => {
            through = Some(endpoint.get_remote_address().clone());
            None
        }
        SwarmEvent::Behaviour(BehaviourEvent::RequestResponse(request_response::Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => Some(response.clone()),
        SwarmEvent::Behaviour(BehaviourEvent::RequestResponse(request_response::Event::OutboundFailure {
            error,
            ..
        })) => panic!("{error}"),
        _ => None,
    })
    .await;
    assert_eq!(file, vec![7; 100_000]);
    assert!(through.as_ref().is_some_and(is_marked), "{through:?}");
}
