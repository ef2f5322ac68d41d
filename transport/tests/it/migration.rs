//! Two worlds in one transport, in Swarms over real sockets. libp2p's own defaults but where a test says so.

#![cfg(feature = "metrics")]

use crate::common::*;
use crate::metrics::{rendered, value};
use futures::StreamExt as _;
use libp2p::core::upgrade::Version;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport as _, noise, ping, tcp, yamux};
use libp2p_knock::{Config, Error, Failure, Migration, MigrationStage, is_knock_address};
use prometheus_client::registry::Registry;
use std::num::NonZeroU8;
use std::time::Duration;
use tokio::net::TcpListener;

const STOCK: &str = "/ip4/127.0.0.1/tcp/0";
const KNOCK: &str = "/ip4/127.0.0.1/tcp/0/tls";

/// What a node is made of, beside its key.
#[derive(Clone, Copy)]
struct Made {
    stage: MigrationStage,
    head_start: Duration,
    /// DNS around it all, and places for as many dials as the page asks for then.
    dns: bool,
}

const PREFER: Made = Made {
    stage: MigrationStage::Prefer,
    // Longer than libp2p gives a dial: no stock connection comes of slowness.
    head_start: Duration::from_secs(60),
    dns: false,
};

struct Node {
    swarm: Swarm<ping::Behaviour>,
    registry: Registry,
    addresses: Vec<Multiaddr>,
    /// How many connections it was not told of as closed.
    open: usize,
}

impl Node {
    fn new(seed: u8, made: Made) -> Self {
        let mut registry = Registry::default();
        let builder = SwarmBuilder::with_existing_identity(keypair(seed)).with_tokio();
        let builder = builder.with_other_transport(|key| {
            let stock = tcp::tokio::Transport::new(tcp::Config::default())
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(key)?)
                .multiplex(yamux::Config::default());
            let config = Config::new(key)?.with_metrics(&mut registry)?;
            let knock = libp2p_knock::tokio::Transport::new(config);
            let both = Migration::new(made.stage, stock, knock).with_head_start(made.head_start);
            Ok(both.with_metrics(&mut registry)?)
        });
        let behaviour = ping::Behaviour::default();
        let idle = Duration::from_secs(60);
        let swarm = if made.dns {
            let builder = builder
                .unwrap()
                .with_dns()
                .unwrap()
                .with_behaviour(|_| behaviour)
                .unwrap();
            let places = NonZeroU8::new(64).unwrap();
            let builder = builder.with_swarm_config(|config| {
                config
                    .with_idle_connection_timeout(idle)
                    .with_dial_concurrency_factor(places)
            });
            builder.build()
        } else {
            let builder = builder.unwrap().with_behaviour(|_| behaviour).unwrap();
            builder
                .with_swarm_config(|config| config.with_idle_connection_timeout(idle))
                .build()
        };
        Self {
            swarm,
            registry,
            addresses: Vec::new(),
            open: 0,
        }
    }

    async fn listening(seed: u8, made: Made, addresses: &[&str]) -> Self {
        let mut node = Self::new(seed, made);
        for address in addresses {
            node.swarm.listen_on(address.parse().unwrap()).unwrap();
        }
        while node.addresses.len() < addresses.len() {
            if let SwarmEvent::NewListenAddr { address, .. } = soon("an address", node.swarm.select_next_some()).await {
                node.addresses.push(address);
            }
        }
        // The order of the arguments, which is that of the worlds.
        node.addresses.sort_by_key(is_knock_address);
        node
    }

    fn count(&self, name: &str) -> f64 {
        value(&self.registry, name)
    }

    /// The sum of the handshakes in which this node has listened, by what became of them.
    fn handshakes(&self, outcome: Option<&str>) -> f64 {
        let text = rendered(&self.registry);
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("libp2p_knock_handshakes_total{role=\"listener\","));
        let outcome = outcome.map(|outcome| format!("outcome=\"{outcome}\""));
        let lines = lines.filter(|line| outcome.as_ref().is_none_or(|outcome| line.starts_with(outcome)));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// One event, which no lost race may be.
    fn saw(&mut self, event: SwarmEvent<ping::Event>) -> Option<Multiaddr> {
        match event {
            SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                self.open += 1;
                return Some(endpoint.get_remote_address().clone());
            }
            SwarmEvent::ConnectionClosed { .. } => self.open -= 1,
            SwarmEvent::IncomingConnectionError { error, .. } => panic!("{error:?}"),
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error:?}"),
            _ => {}
        }
        None
    }
}

/// One dial of all `addresses`. Returns the one that it was, when both ends have closed it and nothing is under way.
async fn meet(dialer: &mut Node, listener: &mut Node, addresses: Vec<Multiaddr>) -> Multiaddr {
    let peer = *listener.swarm.local_peer_id();
    dialer
        .swarm
        .dial(DialOpts::peer_id(peer).addresses(addresses).build())
        .unwrap();
    let mut met = None;
    let mut heard = false;
    let mut calm = tokio::time::interval(Duration::from_millis(10));
    soon("a connection, and its end", async {
        loop {
            tokio::select! {
                event = dialer.swarm.select_next_some() => met = dialer.saw(event).or_else(|| met.take()),
                event = listener.swarm.select_next_some() => heard |= listener.saw(event).is_some(),
                _ = calm.tick() => {
                    let accepted = listener.count("libp2p_knock_knocks_total{outcome=\"accepted\"}");
                    let over = dialer.open + listener.open == 0 && accepted == listener.handshakes(None);
                    if heard && over && let Some(address) = met.take() {
                        return address;
                    }
                }
            }
            if met.is_some() && heard {
                let _ = dialer.swarm.disconnect_peer_id(peer);
            }
        }
    })
    .await
}

#[tokio::test]
async fn adopters_meet_by_knock_whatever_the_order_and_the_number_of_their_addresses() {
    let listens: Vec<_> = [STOCK; 20].into_iter().chain([KNOCK]).collect();
    let mut listener = Node::listening(2, PREFER, &listens).await;
    let mut dialer = Node::new(1, PREFER);
    let knock = listener.addresses.last().unwrap().clone();
    let mut dials = 0.0;
    for before in [0, 1, 7, 8, 9, 20] {
        let mut addresses = listener.addresses[..20].to_vec();
        addresses.insert(before, knock.clone());
        let address = meet(&mut dialer, &mut listener, addresses).await;
        assert!(
            is_knock_address(&address),
            "{before} stock addresses before it: {address}"
        );
        dials += 1.0;
    }
    for (node, direction) in [(&dialer, "outbound"), (&listener, "inbound")] {
        for (world, made) in [("stock", 0.0), ("knock", dials)] {
            let labels = format!("{{world=\"{world}\",direction=\"{direction}\"}}");
            let established = format!("libp2p_knock_migration_established_total{labels}");
            assert_eq!(node.count(&established), made, "{established}");
            assert_eq!(node.count(&format!("libp2p_knock_migration_connections{labels}")), 0.0);
        }
    }
    assert_eq!(listener.handshakes(Some("ok")), dials);
}

#[tokio::test]
async fn adopters_meet_by_knock_inside_dns_that_dials_when_it_is_polled() {
    let made = Made { dns: true, ..PREFER };
    let listens: Vec<_> = [STOCK; 9].into_iter().chain([KNOCK]).collect();
    let mut listener = Node::listening(2, made, &listens).await;
    let mut dialer = Node::new(1, made);
    let addresses = listener.addresses.clone();
    let address = meet(&mut dialer, &mut listener, addresses).await;
    assert!(is_knock_address(&address), "{address}");
    let named = |address: &Multiaddr| {
        address
            .to_string()
            .replace("ip4/127.0.0.1", "dns4/localhost")
            .parse()
            .unwrap()
    };
    let addresses = listener.addresses.iter().map(named).collect();
    let address = meet(&mut dialer, &mut listener, addresses).await;
    assert!(is_knock_address(&address), "{address}");
    assert_eq!(listener.handshakes(None), listener.handshakes(Some("ok")));
}

#[tokio::test]
async fn of_two_knocks_at_one_peer_none_fails_at_the_listener() {
    let mut listener = Node::listening(2, PREFER, &[STOCK, KNOCK, KNOCK, KNOCK]).await;
    let mut dialer = Node::new(1, PREFER);
    for _ in 0..10 {
        let addresses = listener.addresses.clone();
        let address = meet(&mut dialer, &mut listener, addresses).await;
        assert!(is_knock_address(&address), "{address}");
    }
    assert_eq!(listener.handshakes(None), listener.handshakes(Some("ok")));
}

#[tokio::test]
async fn a_peer_that_does_not_answer_knocks_is_reached_by_stock_behind_any_number_of_them() {
    let head_start = Duration::from_millis(100);
    let mut listener = Node::listening(2, PREFER, &[STOCK]).await;
    let mut dialer = Node::new(1, Made { head_start, ..PREFER });
    // The kernel accepts, and nothing answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let knock = |ip: u8, port: u16| {
        format!("/ip4/127.0.0.{ip}/tcp/{port}/tls")
            .parse::<Multiaddr>()
            .unwrap()
    };
    let refused = knock(1, closed.local_addr().unwrap().port());
    drop(closed);
    let silent_all = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let one = knock(1, silent.local_addr().unwrap().port());
    let many: Vec<_> = (1..=12)
        .map(|ip| knock(ip, silent_all.local_addr().unwrap().port()))
        .collect();
    for knocks in [vec![], vec![refused], vec![one], many] {
        let addresses = knocks.iter().chain(&listener.addresses).cloned().collect();
        let address = meet(&mut dialer, &mut listener, addresses).await;
        assert!(!is_knock_address(&address), "{address} after {knocks:?}");
    }
    let made = "libp2p_knock_migration_established_total{world=\"stock\",direction=\"outbound\"}";
    assert_eq!(dialer.count(made), 4.0);
}

#[tokio::test]
async fn a_stage_dials_and_listens_in_its_own_world_alone() {
    let stage = |word: &str| word.parse::<MigrationStage>().unwrap();
    assert_eq!(
        "both".parse::<MigrationStage>().unwrap_err().to_string(),
        "unknown stage `both`: expected `stock`, `prefer` or `require`"
    );
    let mut listener = Node::listening(2, PREFER, &[STOCK, KNOCK]).await;
    let [stock, knock] = <[Multiaddr; 2]>::try_from(listener.addresses.clone()).unwrap();
    for (seed, word, own, other) in [(3, "stock", &stock, &knock), (4, "require", &knock, &stock)] {
        let made = Made {
            stage: stage(word),
            ..PREFER
        };
        let mut node = Node::listening(seed, made, &[if word == "stock" { STOCK } else { KNOCK }]).await;
        let refused = node
            .swarm
            .listen_on(if word == "stock" { KNOCK } else { STOCK }.parse().unwrap());
        assert!(refused.is_err(), "{word}");
        let address = meet(&mut node, &mut listener, vec![stock.clone(), knock.clone()]).await;
        assert_eq!(address, own.clone().with_p2p(peer(2)).unwrap());
        node.swarm
            .dial(DialOpts::peer_id(peer(2)).addresses(vec![other.clone()]).build())
            .unwrap();
        let error = soon("no", async {
            loop {
                if let SwarmEvent::OutgoingConnectionError { error, .. } = node.swarm.select_next_some().await {
                    return error;
                }
            }
        });
        let error = error.await;
        assert!(format!("{error:?}").contains("MultiaddrNotSupported"), "{error:?}");
    }
}

#[tokio::test]
async fn the_knocks_error_is_found_behind_both() {
    let mut dialer = Node::new(1, PREFER);
    dialer
        .swarm
        .dial("/ip4/127.0.0.1/tcp/1/tls".parse::<Multiaddr>().unwrap())
        .unwrap();
    let SwarmEvent::OutgoingConnectionError { error, .. } = soon("no", dialer.swarm.select_next_some()).await else {
        panic!("a knock at nobody");
    };
    let DialError::Transport(addresses) = &error else {
        panic!("{error:?}")
    };
    let found = Failure::find(&addresses[0].1);
    assert!(matches!(found, Some(Error::MissingPeerId { .. })), "{error:?}");
}

#[tokio::test]
async fn a_migration_that_is_gone_leaves_the_scrape_and_the_registry_takes_the_next_one() {
    let mut registry = Registry::default();
    let key = keypair(1);
    let made = |registry: &mut Registry| {
        let stock = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default());
        let knock = libp2p_knock::tokio::Transport::new(config(1));
        Migration::new(MigrationStage::Prefer, stock, knock).with_metrics(registry)
    };
    let open = "libp2p_knock_migration_connections{world=\"stock\",direction=\"inbound\"} 0";
    let mut dials = Vec::new();
    for _ in 0..2 {
        let mut migration = made(&mut registry).unwrap();
        assert!(made(&mut registry).is_err(), "while the first is there");
        assert!(rendered(&registry).contains(open));
        // A dial that outlasts its transport, as in a task of a Swarm's, keeps nothing.
        dials.push(
            migration
                .dial("/ip4/127.0.0.1/tcp/1".parse().unwrap(), dialer())
                .unwrap(),
        );
        drop(migration);
        assert_eq!(rendered(&registry), "# EOF\n");
    }
}
