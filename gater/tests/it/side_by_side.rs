//! What is gated beside what is not: nobody slips through between the two.

use crate::common::soon;
use crate::recorder::Recorder;
use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport as _, noise, tcp, yamux};
use libp2p_gater::{Behaviour, Denied, Direction, FirstWins, Gate, Stage, TransportKind};
use std::time::Duration;

/// Stock TCP with a gated upgrade, QUIC without, and a knock with both hooks inside the gate's transport.
fn everything(gate: &Gate) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            gate.upgrade(noise::Config::new),
            yamux::Config::default,
        )
        .unwrap()
        .with_quic()
        .with_other_transport(|key| {
            let config = libp2p_knock::Config::new(key)?
                .with_admission(gate.knock())
                .with_secured_hook(gate.secured());
            Ok(gate.transport(libp2p_knock::tokio::Transport::new(config)))
        })
        .unwrap()
        .with_behaviour(|_| gate.behaviour())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

async fn listen(swarm: &mut Swarm<Behaviour>, at: &str) -> Multiaddr {
    swarm.listen_on(at.parse().unwrap()).unwrap();
    soon("a listen address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    })
    .await
}

#[tokio::test]
async fn every_stage_is_asked_once_for_each_of_several_connections_of_the_same_two_peers() {
    let (ours, theirs) = (Recorder::default(), Recorder::default());
    let mut dialer = everything(&Gate::new(FirstWins::new().with(ours.clone())));
    let mut listener = everything(&Gate::new(FirstWins::new().with(theirs.clone())));
    let mut at = Vec::new();
    for address in [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/127.0.0.1/tcp/0/tls",
    ] {
        at.push(listen(&mut listener, address).await);
    }
    // All at once.
    for address in &at {
        let opts = DialOpts::peer_id(*listener.local_peer_id())
            .addresses(vec![address.clone()])
            .condition(PeerCondition::Always)
            .build();
        dialer.dial(opts).unwrap();
    }
    let mut up = 0;
    soon("six ends connected", async {
        while up < 6 {
            let event = tokio::select! {
                event = dialer.select_next_some() => event,
                event = listener.select_next_some() => event,
            };
            match event {
                SwarmEvent::ConnectionEstablished { .. } => up += 1,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error:?}"),
                _ => {}
            }
        }
    })
    .await;
    for kind in [TransportKind::Tcp, TransportKind::Quic, TransportKind::Knock] {
        for (policy, stages) in [
            (&ours, vec![Stage::AddrDial, Stage::Secured, Stage::Upgraded]),
            (&theirs, vec![Stage::Accept, Stage::Secured, Stage::Upgraded]),
        ] {
            let asked = policy.asked();
            for stage in stages {
                let times = asked
                    .iter()
                    .filter(|asked| asked.kind == kind && asked.stage == stage)
                    .count();
                assert_eq!(times, 1, "{kind}, {stage}: {asked:#?}");
            }
        }
    }
    let peer_dials = ours
        .asked()
        .iter()
        .filter(|asked| asked.stage == Stage::PeerDial)
        .count();
    assert_eq!(peer_dials, 3);
}

/// Whoever has passed the gated upgrade of one transport has not thereby passed another.
#[tokio::test]
async fn a_handshake_that_was_let_in_over_tcp_opens_no_door_over_quic() {
    let policy = Recorder::default();
    let mut listener = everything(&Gate::new(FirstWins::new().with(policy.clone())));
    policy.deny(|asked| asked.stage == Stage::Secured && asked.kind == TransportKind::Quic);
    let (tcp_at, quic_at) = (
        listen(&mut listener, "/ip4/127.0.0.1/tcp/0").await,
        listen(&mut listener, "/ip4/127.0.0.1/udp/0/quic-v1").await,
    );
    // It proves itself over TCP and goes no further: no muxer, so no connection, and the note about it is never taken.
    let key = libp2p::identity::Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let mut half = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(Nothing)
        .boxed();
    let opts = libp2p::core::transport::DialOpts {
        role: libp2p::core::Endpoint::Dialer,
        port_use: libp2p::core::transport::PortUse::New,
    };
    let half = half.dial(tcp_at, opts).unwrap();
    tokio::spawn(half);
    let secured = |policy: &Recorder| policy.asked().iter().any(|asked| asked.stage == Stage::Secured);
    soon("proven over TCP", async {
        while !secured(&policy) {
            let _ = tokio::time::timeout(Duration::from_millis(20), listener.select_next_some()).await;
        }
    })
    .await;
    let mut over_quic = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_quic()
        .with_behaviour(|_| libp2p::ping::Behaviour::default())
        .unwrap()
        .build();
    over_quic.dial(quic_at).unwrap();
    let denied = soon("a denial", async {
        loop {
            tokio::select! {
                event = listener.select_next_some() => match event {
                    SwarmEvent::IncomingConnectionError { error, .. } => {
                        if let Some(denied) = Denied::in_listen(&error) {
                            return denied.clone();
                        }
                    }
                    SwarmEvent::ConnectionEstablished { endpoint, .. } => panic!("{endpoint:?}"),
                    _ => {}
                },
                _ = over_quic.select_next_some() => {}
            }
        }
    })
    .await;
    assert_eq!((denied.stage, denied.peer), (Stage::Secured, Some(peer)));
    let over = policy.asked();
    let quic = over
        .iter()
        .filter(|asked| asked.kind == TransportKind::Quic && asked.direction == Direction::Inbound);
    assert_eq!(quic.filter(|asked| asked.stage == Stage::Secured).count(), 1);
}

/// An upgrade that agrees on a protocol nobody has, and never ends.
#[derive(Clone)]
struct Nothing;

impl libp2p::core::UpgradeInfo for Nothing {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/nothing")
    }
}

impl<C: Send + 'static> libp2p::core::upgrade::InboundConnectionUpgrade<C> for Nothing {
    type Output = StreamMuxerBox;
    type Error = std::io::Error;
    type Future = std::future::Pending<Result<StreamMuxerBox, std::io::Error>>;

    fn upgrade_inbound(self, _: C, _: Self::Info) -> Self::Future {
        std::future::pending()
    }
}

impl<C: Send + 'static> libp2p::core::upgrade::OutboundConnectionUpgrade<C> for Nothing {
    type Output = StreamMuxerBox;
    type Error = std::io::Error;
    type Future = std::future::Pending<Result<StreamMuxerBox, std::io::Error>>;

    fn upgrade_outbound(self, _: C, _: Self::Info) -> Self::Future {
        std::future::pending()
    }
}
