//! Wanted peers beside everything else that opens and closes connections in one Swarm, against
//! peers as libp2p makes them: AutoNAT 1 and 2, identify, kad, a relay, hole punching, the manager
//! and a gate, each with intervals so short that every timer fires three times in a minute.
#![cfg(test)]

mod feeder;
mod node;
mod peers;
mod usage;

use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, autonat, dcutr, identify, kad, relay};
use libp2p_connmgr::persistent;
use libp2p_gater::goodbye;
use node::{BehaviourEvent, Node};
use peers::Peer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// After all peers are there: for so long, and each timer fires so often in that time. A minute where every test must
/// run, as in CI; every day a third of it.
fn time() -> (Duration, usize) {
    match std::env::var_os("KNOCK_TESTS_MUST_RUN") {
        Some(_) => (Duration::from_secs(60), 3),
        None => (Duration::from_secs(20), 1),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// What has happened at the node.
#[derive(Debug, Default)]
struct Seen {
    /// How often each thing that a timer sets off has happened.
    fired: BTreeMap<&'static str, usize>,
    /// What must not happen to wanted peers.
    trouble: Vec<String>,
    connected: BTreeMap<PeerId, usize>,
    /// The connection that each peer had first, directly.
    first: BTreeMap<PeerId, libp2p::swarm::ConnectionId>,
    /// Whether others have said where they see the node.
    observed: bool,
    /// Relayed connections that a direct one has replaced.
    punched: usize,
    visitors: BTreeSet<PeerId>,
}

/// What is set off by a timer of the node's, and what of it shows that it did.
const TIMERS: [&str; 8] = [
    "autonat 1: reachable",
    "autonat 2: reachable",
    "identify: asked again",
    "kad: bootstrap",
    "relay: reservation renewed",
    "manager: trim",
    "gate: goodbye",
    "wanted peers: second connection closed",
];

impl Seen {
    fn fired(&mut self, timer: &'static str) {
        assert!(TIMERS.contains(&timer), "{timer}");
        *self.fired.entry(timer).or_default() += 1;
    }

    fn on_event(&mut self, node: &mut Node, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } if !endpoint.is_relayed() => {
                self.first.entry(peer_id).or_insert(connection_id);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } if !self.visitors.contains(&peer_id) && self.first.get(&peer_id) == Some(&connection_id) => {
                let cause = cause.map(|cause| cause.to_string());
                self.trouble
                    .push(format!("the first connection to {peer_id}: {cause:?}"));
            }
            SwarmEvent::NewExternalAddrCandidate { .. } => self.observed = true,
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(node, event),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, node: &mut Node, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Persistent(persistent::Event::Connected { peer }) => {
                *self.connected.entry(peer).or_default() += 1;
            }
            BehaviourEvent::Persistent(persistent::Event::DuplicateClosed { .. }) => {
                self.fired("wanted peers: second connection closed");
            }
            BehaviourEvent::Persistent(event) => self.trouble.push(format!("{event:?}")),
            BehaviourEvent::Usage(usage::Event::Broken { peer, connection }) if !self.visitors.contains(&peer) => {
                self.trouble.push(format!("a stream to {peer} over {connection}"));
            }
            BehaviourEvent::Autonat1(autonat::v1::Event::OutboundProbe(
                autonat::v1::OutboundProbeEvent::Response { .. },
            )) => self.fired("autonat 1: reachable"),
            BehaviourEvent::Autonat2Client(autonat::v2::client::Event { result: Ok(()), .. }) => {
                self.fired("autonat 2: reachable");
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if self.visitors.contains(&peer_id) {
                    return;
                }
                self.fired("identify: asked again");
                // As every program with kad and identify does.
                for address in info.listen_addrs {
                    node.swarm.behaviour_mut().kad.add_address(&peer_id, address);
                }
            }
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::Bootstrap(Ok(kad::BootstrapOk { num_remaining: 0, .. })),
                ..
            }) => self.fired("kad: bootstrap"),
            BehaviourEvent::Dcutr(dcutr::Event { result: Ok(_), .. }) => self.punched += 1,
            BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted { renewal: true, .. }) => {
                self.fired("relay: reservation renewed");
            }
            BehaviourEvent::Connmgr(libp2p_connmgr::Event::TrimFinished { .. }) => self.fired("manager: trim"),
            BehaviourEvent::Gate(libp2p_gater::Event::Goodbye(goodbye::Event::Said { .. })) => {
                self.fired("gate: goodbye");
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_use_is_closed_no_peer_flaps_and_every_dial_is_one_knock() {
    let mut node = Node::start().await;
    let relay = Peer::start(peers::Kind::Relay).await;
    let others = [
        Peer::start(peers::Kind::Plain).await,
        Peer::start(peers::Kind::Plain).await,
    ];
    let bare = Peer::start(peers::Kind::Bare).await;
    let hidden = Peer::behind(&relay).await;
    let visitors: Vec<Peer> = futures::future::join_all((0..3).map(|_| Peer::visiting(&node))).await;

    let mut seen = Seen {
        visitors: visitors.iter().map(|visitor| visitor.id).collect(),
        ..Seen::default()
    };
    // The relay first: its client drops a circuit if the relay is being dialled already. And no
    // hole can be punched before the node knows where it is seen.
    want(&mut node, &mut seen, &[&relay, &others[0], &others[1], &bare]).await;
    want(&mut node, &mut seen, &[&hidden]).await;
    let wanted: Vec<PeerId> = node
        .swarm
        .behaviour()
        .persistent
        .wanted()
        .map(|(peer, _)| *peer)
        .collect();

    // Where the node can be found as well, for as long as it renews its reservation.
    node.listen_through(&relay);
    let (time, times) = time();
    let end = Instant::now() + time;
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            event = node.swarm.select_next_some() => seen.on_event(&mut node, event),
        }
    }

    assert_eq!(seen.trouble, [""; 0]);
    // Otherwise this has tested nothing.
    for timer in TIMERS {
        let fired = seen.fired.get(timer).copied().unwrap_or_default();
        assert!(fired >= times, "{timer}: {fired} times in {time:?}: {:?}", seen.fired);
    }
    println!("{:?}, {} streams", seen.fired, node.swarm.behaviour().usage.opened());
    assert!(node.swarm.behaviour().usage.opened() > 3 * times, "streams were used");
    assert!(seen.punched > 0, "a hole was punched");

    let once: BTreeMap<PeerId, usize> = wanted.iter().map(|peer| (*peer, 1)).collect();
    assert_eq!(seen.connected, once);
    // A peer that carries no stream at all is there by being asked alone.
    assert!(node.swarm.is_connected(&bare.id));
    for peer in [&relay, &others[0], &others[1], &bare] {
        let (knocks, connections) = peer.knocks().await;
        assert_eq!(knocks, connections, "knocks and connections: {}", peer.rendered());
    }
    assert_eq!(node.knocks_refused(), 0, "{}", node.rendered());
}

/// Wants `peers`, and runs until there is a direct connection to each of them.
async fn want(node: &mut Node, seen: &mut Seen, peers: &[&Peer]) {
    for peer in peers {
        let persistent = &mut node.swarm.behaviour_mut().persistent;
        persistent.add_peer(peer.id, [peer.address.clone()]).unwrap();
    }
    let there = async {
        while !seen.observed || !peers.iter().all(|peer| seen.first.contains_key(&peer.id)) {
            let event = node.swarm.select_next_some().await;
            seen.on_event(node, event);
        }
    };
    timeout(PATIENCE, there).await.expect("the wanted peers are there");
}

/// Where only the test's own process is.
fn loopback() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap()
}
