//! `V1Lazy` is the same on the wire, as the programs here show, some of which have it and some not. One thing differs.

use futures::StreamExt as _;
use libp2p::core::upgrade::Version;
use libp2p::request_response::{self, OutboundFailure, ProtocolSupport, cbor};
use libp2p::swarm::{self, NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use std::time::Duration;

fn swarm<B: NetworkBehaviour>(behaviour: B, tuned: fn(swarm::Config) -> swarm::Config) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(tuned)
        .build()
}

/// What becomes of a request to a peer that does not know the protocol.
async fn asked_in_vain(tuned: fn(swarm::Config) -> swarm::Config) -> OutboundFailure {
    let mut other = swarm(ping::Behaviour::default(), |config| {
        config.with_idle_connection_timeout(Duration::from_secs(60))
    });
    other.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = other.select_next_some().await {
            break address;
        }
    };
    let protocol = [(StreamProtocol::new("/unheard-of/1"), ProtocolSupport::Full)];
    let behaviour = cbor::Behaviour::<(), ()>::new(protocol, request_response::Config::default());
    let mut one = swarm(behaviour, tuned);
    let peer = *other.local_peer_id();
    one.add_peer_address(peer, address);
    one.behaviour_mut().send_request(&peer, ());
    loop {
        tokio::select! {
            _ = other.select_next_some() => {}
            event = one.select_next_some() => {
                if let SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) = event {
                    return error;
                }
            }
        }
    }
}

#[tokio::test]
async fn with_v1_lazy_an_unknown_protocol_is_a_broken_stream() {
    let eager = asked_in_vain(|config| config).await;
    assert!(matches!(eager, OutboundFailure::UnsupportedProtocols), "{eager:?}");
    let lazy = asked_in_vain(|config| config.with_substream_upgrade_protocol_override(Version::V1Lazy)).await;
    assert!(matches!(lazy, OutboundFailure::Io(_)), "{lazy:?}");
}
