use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::{AddError, Config};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;

/// Generous: what is awaited mostly comes within a second.
const SOON: Duration = Duration::from_secs(120);

#[derive(NetworkBehaviour)]
struct Behaviour {
    persistent: PersistentPeers,
    ping: ping::Behaviour,
}

#[derive(Debug, Clone, Copy)]
enum Stack {
    Knock,
    Noise,
}

/// A Swarm, and what it has said so far.
struct Node {
    swarm: Swarm<Behaviour>,
    address: Multiaddr,
    /// Whether we dialled, by connection.
    open: HashMap<ConnectionId, bool>,
    /// Dials that have neither succeeded nor failed.
    dialling: usize,
    established: usize,
    /// Connections over which a ping came back since this was cleared.
    pinged: Vec<ConnectionId>,
}

impl Node {
    async fn new(stack: Stack) -> Self {
        let builder = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519()).with_tokio();
        let behaviour = |key: &Keypair| Behaviour {
            persistent: PersistentPeers::new(
                key.public().to_peer_id(),
                Config::new().with_settle(Duration::from_millis(20)),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(100))),
        };
        let (swarm, address) = match stack {
            Stack::Knock => (
                builder
                    .with_other_transport(|key| {
                        Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?))
                    })
                    .unwrap()
                    .with_behaviour(behaviour)
                    .unwrap()
                    .with_swarm_config(|config| config)
                    .with_connection_timeout(SOON)
                    .build(),
                "/ip4/127.0.0.1/tcp/0/tls",
            ),
            Stack::Noise => (
                builder
                    .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
                    .unwrap()
                    .with_behaviour(behaviour)
                    .unwrap()
                    .with_swarm_config(|config| config)
                    .with_connection_timeout(SOON)
                    .build(),
                "/ip4/127.0.0.1/tcp/0",
            ),
        };
        let mut node = Self {
            swarm,
            address: Multiaddr::empty(),
            open: HashMap::new(),
            dialling: 0,
            established: 0,
            pinged: Vec::new(),
        };
        node.swarm.listen_on(address.parse().unwrap()).unwrap();
        while node.address.is_empty() {
            if let SwarmEvent::NewListenAddr { address, .. } = node.swarm.select_next_some().await {
                node.address = address;
            }
        }
        node
    }

    fn want(&mut self, other: &Self) {
        let peer = *other.swarm.local_peer_id();
        let added = self
            .swarm
            .behaviour_mut()
            .persistent
            .add_peer(peer, [other.address.clone()]);
        assert_eq!(added, Ok(true));
    }

    /// A dial under any condition.
    fn dial(&mut self, other: &Self) {
        let opts = DialOpts::peer_id(*other.swarm.local_peer_id())
            .addresses(vec![other.address.clone()])
            .condition(PeerCondition::Always);
        self.swarm.dial(opts.build()).unwrap();
        self.dialling += 1;
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Dialing { .. } => self.dialling += 1,
            SwarmEvent::ConnectionEstablished {
                connection_id,
                endpoint,
                ..
            } => {
                self.established += 1;
                if endpoint.is_dialer() {
                    self.dialling -= 1;
                }
                self.open.insert(connection_id, endpoint.is_dialer());
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.open.remove(&connection_id);
            }
            SwarmEvent::OutgoingConnectionError { .. } => self.dialling -= 1,
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Ok(_),
                ..
            })) => self.pinged.push(connection),
            _ => {}
        }
    }

    /// The one connection, and whether we dialled it; unless a dial may still bring another one.
    fn only(&self) -> Option<(ConnectionId, bool)> {
        match (self.dialling, self.open.len()) {
            (0, 1) => self.open.iter().map(|(id, dialled)| (*id, *dialled)).next(),
            _ => None,
        }
    }
}

async fn step(ada: &mut Node, bob: &mut Node) {
    tokio::select! {
        event = ada.swarm.select_next_some() => ada.on_event(event),
        event = bob.swarm.select_next_some() => bob.on_event(event),
    }
}

/// Until each has one connection, and they are the two ends of one: bytes come back over both,
/// while neither has another.
async fn settle(ada: &mut Node, bob: &mut Node) {
    let settled = async {
        loop {
            let before = (ada.only(), bob.only());
            if let (Some((left, dialled)), Some((right, other))) = before
                && dialled != other
            {
                if ada.pinged.contains(&left) && bob.pinged.contains(&right) {
                    return;
                }
            } else {
                ada.pinged.clear();
                bob.pinged.clear();
            }
            step(ada, bob).await;
            if (ada.only(), bob.only()) != before {
                ada.pinged.clear();
                bob.pinged.clear();
            }
        }
    };
    if timeout(SOON, settled).await.is_err() {
        panic!("not settled: {:?} and {:?}", ada.open, bob.open);
    }
}

async fn two_that_want_each_other(stack: Stack, pairs: usize) {
    let mut duplicates = 0;
    for _ in 0..pairs {
        let (mut ada, mut bob) = (Node::new(stack).await, Node::new(stack).await);
        ada.want(&bob);
        bob.want(&ada);
        settle(&mut ada, &mut bob).await;
        duplicates += ada.established - 1;
    }
    println!("{duplicates} duplicates in {pairs} pairs over {stack:?}");
    assert!(duplicates > 0, "otherwise nothing was tested");
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_over_knock_settle_on_one_connection() {
    two_that_want_each_other(Stack::Knock, 100).await;
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_over_noise_settle_on_one_connection() {
    two_that_want_each_other(Stack::Noise, 100).await;
}

#[tokio::test]
async fn two_hundred_simultaneous_dials_always_settle_on_one_connection() {
    for _ in 0..3 {
        let (mut ada, mut bob) = (Node::new(Stack::Noise).await, Node::new(Stack::Noise).await);
        ada.want(&bob);
        bob.want(&ada);
        for _ in 0..100 {
            ada.dial(&bob);
            bob.dial(&ada);
        }
        settle(&mut ada, &mut bob).await;
        assert!(ada.established > 2, "{} connections", ada.established);
    }
}

#[tokio::test]
async fn wanted_peers_stay_connected_past_the_idle_timeout_and_others_do_not() {
    let (mut ada, mut bob) = (Idle::new(Duration::ZERO), Idle::new(Duration::from_secs(86_400)));
    bob.swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = bob.swarm.select_next_some().await {
            break address;
        }
    };
    let peer = *bob.swarm.local_peer_id();
    let dial = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
    // It is not wanted, so with an idle timeout of zero it is closed as soon as it is there.
    ada.swarm.dial(dial.build()).unwrap();
    timeout(SOON, ada.until(&mut bob, 1)).await.unwrap();

    // Only one end wants it, so that it is ours alone to keep: the other end's timeout is of a day.
    ada.swarm.behaviour_mut().add_peer(peer, [address]).unwrap();
    let silence = timeout(Duration::from_secs(2), ada.until(&mut bob, 2)).await;
    assert!(silence.is_err(), "it was closed");
    assert!(ada.swarm.is_connected(&peer));
    ada.swarm.behaviour_mut().remove_peer(&peer);
    timeout(SOON, ada.until(&mut bob, 2)).await.unwrap();
}

/// A Swarm whose connections have no streams, so that they end with the idle timeout unless they are kept.
struct Idle {
    swarm: Swarm<PersistentPeers>,
    closed: usize,
}

impl Idle {
    fn new(timeout: Duration) -> Self {
        let swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| PersistentPeers::new(key.public().to_peer_id(), Config::new()))
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(timeout))
            .build();
        Self { swarm, closed: 0 }
    }

    /// Drives both until so many of our connections have been closed in all.
    async fn until(&mut self, other: &mut Self, closed: usize) {
        while self.closed < closed {
            tokio::select! {
                event = self.swarm.select_next_some() => {
                    if let SwarmEvent::ConnectionClosed { .. } = event {
                        self.closed += 1;
                    }
                }
                _ = other.swarm.select_next_some() => {}
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_wanted_is_refused_with_a_reason() {
    let (mut ada, bob) = (Node::new(Stack::Noise).await, Node::new(Stack::Noise).await);
    let (local, peer) = (*ada.swarm.local_peer_id(), *bob.swarm.local_peer_id());
    let persistent = &mut ada.swarm.behaviour_mut().persistent;
    assert_eq!(persistent.add_peer(local, []), Err(AddError::LocalPeer));
    let address = bob.address.clone().with_p2p(local).unwrap();
    let another = AddError::AnotherPeer {
        address: address.clone(),
    };
    assert_eq!(persistent.add_peer(peer, [address]), Err(another));
    let many = vec![bob.address.clone(); 17];
    assert_eq!(
        persistent.add_peer(peer, many),
        Err(AddError::TooManyAddresses { given: 17 })
    );
    assert!(!persistent.is_wanted(&peer));
}

#[tokio::test]
async fn the_target_is_reached_from_known_peers_and_regained_when_some_are_lost() {
    const TARGET: usize = 4;
    let mut node = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let config = Config::new()
                .with_min_interval(Duration::from_millis(50))
                .with_target_connections(TARGET);
            PersistentPeers::new(key.public().to_peer_id(), config)
        })
        .unwrap()
        .build();
    let mut others = HashMap::new();
    for _ in 0..TARGET + 3 {
        let mut other = Idle::new(Duration::from_secs(86_400)).swarm;
        other.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = other.select_next_some().await {
                break address;
            }
        };
        let peer = *other.local_peer_id();
        node.behaviour_mut().add_known(peer, [address]).unwrap();
        let task = tokio::spawn(async move {
            loop {
                other.select_next_some().await;
            }
        });
        others.insert(peer, task);
    }
    timeout(SOON, connected(&mut node, TARGET, |connected| connected == TARGET))
        .await
        .unwrap();

    // Two that are connected die, so that only the others can make up for them.
    let lost: Vec<_> = node.connected_peers().copied().take(2).collect();
    for peer in &lost {
        others[peer].abort();
    }
    timeout(SOON, connected(&mut node, TARGET, |connected| connected < TARGET))
        .await
        .unwrap();
    timeout(SOON, connected(&mut node, TARGET, |connected| connected == TARGET))
        .await
        .unwrap();
    assert!(lost.iter().all(|peer| !node.is_connected(peer)));
}

/// Until so many peers are connected, and never more than `most`.
async fn connected(node: &mut Swarm<PersistentPeers>, most: usize, enough: impl Fn(usize) -> bool) {
    loop {
        let connected = node.behaviour().connected();
        assert!(connected <= most, "{connected} peers");
        if enough(connected) {
            return;
        }
        node.select_next_some().await;
    }
}

#[test]
fn a_protection_hook_that_panics_panics_into_the_call_and_nothing_has_changed() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let local = Keypair::generate_ed25519().public().to_peer_id();
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    let panics = Arc::new(AtomicBool::new(true));
    let hook = panics.clone();
    let mut persistent = PersistentPeers::new(local, Config::new()).with_protection(move |_, _| {
        assert!(!hook.load(Ordering::Relaxed), "a hook of the test's");
    });
    let add = |persistent: &mut PersistentPeers, panics: bool| {
        let call = catch_unwind(AssertUnwindSafe(|| persistent.add_peer(peer, [])));
        assert_eq!(call.is_err(), panics);
        persistent.is_wanted(&peer)
    };
    assert!(!add(&mut persistent, true));
    panics.store(false, Ordering::Relaxed);
    assert!(add(&mut persistent, false));
    panics.store(true, Ordering::Relaxed);
    let call = catch_unwind(AssertUnwindSafe(|| persistent.remove_peer(&peer)));
    assert!(call.is_err() && persistent.is_wanted(&peer));
    // Wanted already: the hook is not called.
    assert!(add(&mut persistent, false));
    panics.store(false, Ordering::Relaxed);
    assert!(persistent.remove_peer(&peer) && !persistent.is_wanted(&peer));
}
