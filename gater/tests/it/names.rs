//! Names do not hide addresses where the gate stands inside DNS.

use crate::common::soon;
use crate::nodes::{Node, Parts, Stack};
use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport as _, noise, tcp, yamux};
use libp2p_gater::{Behaviour, Caps, Cidr, Denied, FirstWins, Gate, Rules, Stage};
use std::time::Duration;

use crate::recorder::Recorder;

/// A node that resolves names, round the gate, as `SwarmBuilder` puts it.
fn resolving(gate: &Gate) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            let stack = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(key)?)
                .multiplex(yamux::Config::default())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
            Ok(gate.transport(stack))
        })
        .unwrap()
        .with_dns()
        .unwrap()
        .with_behaviour(|_| gate.behaviour())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

fn by_name(address: &Multiaddr) -> Multiaddr {
    let host = |protocol| match protocol {
        Protocol::Ip4(_) => Protocol::Dns4("localhost".into()),
        other => other,
    };
    address.iter().map(host).collect()
}

/// NT-20.
#[tokio::test]
async fn a_name_that_leads_to_a_blocked_address_is_not_dialled() {
    let mut listener = Node::new(Stack::Tcp, Parts::default());
    let at = by_name(&listener.listen().await);
    let rules = Rules::new();
    rules
        .change(|change| change.block("127.0.0.0/8".parse::<Cidr>().unwrap()))
        .unwrap();
    let mut dialer = resolving(&Gate::new(rules));
    dialer.dial(at.with_p2p(listener.peer).unwrap()).unwrap();
    let error = soon("the end of the dial", async {
        loop {
            tokio::select! {
                event = dialer.select_next_some() => if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                    return error;
                },
                event = listener.next() => assert!(!matches!(event, SwarmEvent::IncomingConnection { .. })),
            }
        }
    })
    .await;
    let denied = Denied::in_dial(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(denied.stage, Stage::AddrDial);
}

#[tokio::test]
async fn an_address_is_asked_about_once_though_the_swarm_knows_it_by_another_name() {
    let mut listener = Node::new(Stack::Tcp, Parts::default());
    let at = by_name(&listener.listen().await);
    let policy = Recorder::default();
    let mut dialer = resolving(&Gate::new(FirstWins::new().with(policy.clone())));
    dialer.dial(at.with_p2p(listener.peer).unwrap()).unwrap();
    soon("connected", async {
        loop {
            tokio::select! {
                event = dialer.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { .. } => return,
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error:?}"),
                    _ => {}
                },
                _ = listener.next() => {}
            }
        }
    })
    .await;
    let asked = policy.asked();
    let dials: Vec<_> = asked.iter().filter(|asked| asked.stage == Stage::AddrDial).collect();
    assert!(
        !dials.is_empty() && dials.iter().all(|dial| !dial.in_swarm),
        "{dials:?}"
    );
}

#[tokio::test]
async fn what_was_dialled_by_name_is_counted_and_judged_by_what_the_name_stood_for() {
    let mut listener = Node::new(Stack::Tcp, Parts::default());
    let at = by_name(&listener.listen().await);
    let rules = Rules::new();
    rules
        .change(|change| {
            change.caps(Caps::new().with_per_ip(1));
            Ok(())
        })
        .unwrap();
    let mut dialer = resolving(&Gate::new(rules.clone()));
    let at = at.with_p2p(listener.peer).unwrap();
    let mut dials = 0;
    let mut closed = false;
    soon("one, a second that is refused, and the end of the first", async {
        dialer.dial(at.clone()).unwrap();
        while !closed {
            tokio::select! {
                event = dialer.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { .. } => {
                        dials += 1;
                        let again = DialOpts::peer_id(listener.peer).addresses(vec![at.clone()]);
                        dialer.dial(again.condition(PeerCondition::Always).build()).unwrap();
                    }
                    SwarmEvent::OutgoingConnectionError { error, .. } => {
                        let denied = Denied::in_dial(&error).unwrap_or_else(|| panic!("{error:?}"));
                        assert_eq!(denied.reason.rule(), "cap_per_ip");
                        rules.change(|change| change.block("127.0.0.0/8".parse::<Cidr>().unwrap())).unwrap();
                    }
                    SwarmEvent::ConnectionClosed { .. } => closed = true,
                    _ => {}
                },
                _ = listener.next() => {}
            }
        }
    })
    .await;
    assert_eq!(dials, 1);
}
