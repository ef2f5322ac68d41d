//! `examples/rendezvous`: peers register at a point that all know, and find each other there.

use crate::common::{failure, is_marked, knock, listen, reason, until};
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::rendezvous::{self, Namespace};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder};

fn program<B: NetworkBehaviour>(behaviour: impl FnOnce(libp2p::identity::Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(knock)
        .unwrap()
        .with_behaviour(|key| behaviour(key.clone()))
        .unwrap()
        .build()
}

fn client() -> Swarm<rendezvous::client::Behaviour> {
    program(rendezvous::client::Behaviour::new)
}

/// Registers with this external address, and returns under which one it is found and what then follows it.
async fn found_as(external: impl FnOnce(Multiaddr) -> Multiaddr) -> (Swarm<rendezvous::client::Behaviour>, Multiaddr) {
    let mut point = program(|_| rendezvous::server::Behaviour::new(rendezvous::server::Config::default()));
    let address = listen(&mut point).await;
    let point_id = *point.local_peer_id();
    // The example dials the point without its id.
    let error = failure(&mut client(), &address, &mut point).await;
    assert!(
        matches!(reason(&error), libp2p_knock::Error::MissingPeerId { .. }),
        "{error}"
    );
    let address = address.with_p2p(point_id).unwrap();
    tokio::spawn(async move {
        loop {
            point.select_next_some().await;
        }
    });

    let mut registering = client();
    let here = listen(&mut registering).await;
    registering.add_external_address(external(here));
    registering.dial(address.clone()).unwrap();
    let connected = |event: &SwarmEvent<rendezvous::client::Event>| {
        matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())
    };
    until(&mut registering, connected).await;
    let namespace = || Namespace::from_static("rendezvous");
    registering
        .behaviour_mut()
        .register(namespace(), point_id, None)
        .unwrap();
    until(&mut registering, |event| match event {
        SwarmEvent::Behaviour(rendezvous::client::Event::Registered { .. }) => Some(()),
        SwarmEvent::Behaviour(rendezvous::client::Event::RegisterFailed { error, .. }) => panic!("{error:?}"),
        _ => None,
    })
    .await;

    let mut discovering = client();
    discovering.dial(address).unwrap();
    until(&mut discovering, connected).await;
    discovering
        .behaviour_mut()
        .discover(Some(namespace()), None, None, point_id);
    let found = until(&mut discovering, |event| match event {
        SwarmEvent::Behaviour(rendezvous::client::Event::Discovered { registrations, .. }) => {
            let record = &registrations[0].record;
            // As the example does: without doubling the peer.
            let suffix = Multiaddr::empty().with(Protocol::P2p(record.peer_id()));
            let address = record.addresses()[0].clone();
            Some(match address.ends_with(&suffix) {
                true => address,
                false => address.with_p2p(record.peer_id()).unwrap(),
            })
        }
        _ => None,
    })
    .await;
    tokio::spawn(async move {
        loop {
            registering.select_next_some().await;
        }
    });
    (discovering, found)
}

#[tokio::test]
async fn a_registered_address_leads_back_if_it_was_external_with_the_mark() {
    let (mut discovering, found) = found_as(|here| here).await;
    assert!(is_marked(&found), "{found}");
    discovering.dial(found.clone()).unwrap();
    let reached = until(&mut discovering, |event| match event {
        SwarmEvent::ConnectionEstablished { endpoint, .. } => Some(endpoint.get_remote_address().clone()),
        SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
        _ => None,
    });
    assert_eq!(reached.await, found);
}

#[tokio::test]
async fn a_registered_address_leads_nowhere_if_the_external_one_lacked_the_mark() {
    let (mut discovering, found) = found_as(|mut here| {
        assert_eq!(here.pop(), Some(Protocol::Tls));
        here
    })
    .await;
    let error = failure(&mut discovering, &found, &mut client()).await;
    assert!(error.to_string().contains("Multiaddr is not supported"), "{error}");
}
