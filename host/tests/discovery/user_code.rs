//! Code of the application's that the discovery calls: it panics, it is slow, it calls back.

use crate::common::{INTERVAL, keypair, peer, until};
use knock_host::discovery::Discoverer as _;
use knock_host::discovery::ragedisco::{Config, Database, DatabaseError, Ragedisco};
use knock_host::{Hook, Host, HostConfig};
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::{Identity, SignError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const GROUP: [u8; 32] = [7; 32];

struct Node {
    host: Host,
    ragedisco: Ragedisco,
}

async fn start(knock: libp2p_knock::Config, config: Config) -> Node {
    let ragedisco = Ragedisco::new(config.with_interval(INTERVAL));
    let config = HostConfig::new(knock)
        .with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .with_dial_interval(INTERVAL);
    let host = Host::start(config, ragedisco.clone()).await.unwrap();
    Node { host, ragedisco }
}

async fn node(seed: u8, config: Config) -> Node {
    start(
        libp2p_knock::Config::new(&keypair(seed)).unwrap().ragep2p_compatible(),
        config,
    )
    .await
}

impl Node {
    fn join(&self, seeds: &[u8], bootstrapper: Option<&Self>) {
        let known = bootstrapper.map(|node| (node.host.local_peer_id(), node.host.listen_addresses()));
        let oracles = seeds.iter().copied().map(peer);
        self.ragedisco.add_group(GROUP, oracles, known).unwrap();
    }

    fn panics(&self, hook: Hook) -> u64 {
        self.host.counters().hook_panics.get(hook)
    }
}

/// Something that is done whenever a database or an identity is asked, with how often it was asked
/// before.
type Doing = Arc<dyn Fn(usize) + Send + Sync>;

/// A database in memory. Does something else first.
struct Wild {
    doing: Doing,
    calls: AtomicUsize,
    kept: Mutex<BTreeMap<PeerId, Vec<u8>>>,
}

impl Wild {
    fn new(doing: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self {
            doing: Arc::new(doing),
            calls: AtomicUsize::new(0),
            kept: Mutex::default(),
        }
    }

    fn call(&self) {
        (self.doing)(self.calls.fetch_add(1, Ordering::SeqCst));
    }
}

impl Database for Wild {
    fn store(&self, announcements: &[(PeerId, Vec<u8>)]) -> Result<(), DatabaseError> {
        self.call();
        self.kept.lock().unwrap().extend(announcements.iter().cloned());
        Ok(())
    }

    fn read(&self, peers: &[PeerId]) -> Result<Vec<(PeerId, Vec<u8>)>, DatabaseError> {
        self.call();
        let kept = self.kept.lock().unwrap();
        Ok(peers
            .iter()
            .filter_map(|peer| Some((*peer, kept.get(peer)?.clone())))
            .collect())
    }
}

/// Shared, so that a test can look at it.
struct Lent(Arc<Wild>);

impl Database for Lent {
    fn store(&self, announcements: &[(PeerId, Vec<u8>)]) -> Result<(), DatabaseError> {
        self.0.store(announcements)
    }

    fn read(&self, peers: &[PeerId]) -> Result<Vec<(PeerId, Vec<u8>)>, DatabaseError> {
        self.0.read(peers)
    }
}

#[tokio::test]
async fn a_database_that_panics_is_asked_again_and_keeps_nobody_from_being_found() {
    let wild = Arc::new(Wild::new(|call| assert!(call >= 2, "the first two calls")));
    let one = node(1, Config::default()).await;
    let two = node(2, Config::default().with_database(Lent(wild.clone()))).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    until("it has panicked", || two.panics(Hook::Database) == 1).await;
    until("everybody is found", || two.ragedisco.status().discovered_peers == 2).await;
    // A store that panics: the announcements of a group that goes. The next one is made.
    two.ragedisco.remove_group(&GROUP).unwrap();
    until("and again", || two.panics(Hook::Database) == 2).await;
    two.join(&[1, 2], Some(&one));
    until("everybody is found", || two.ragedisco.status().discovered_peers == 2).await;
    two.host.close().await;
    assert!(wild.kept.lock().unwrap().contains_key(&peer(1)), "stored at the close");
    assert_eq!(two.panics(Hook::Database), 2);
    one.host.close().await;
}

#[tokio::test]
async fn a_database_that_panics_in_what_its_error_says_ends_nothing() {
    /// Panics when it is printed.
    #[derive(Debug)]
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("printed");
        }
    }
    impl std::error::Error for Unspeakable {}
    struct Failing;
    impl Database for Failing {
        fn store(&self, _: &[(PeerId, Vec<u8>)]) -> Result<(), DatabaseError> {
            Err(Box::new(Unspeakable))
        }

        fn read(&self, _: &[PeerId]) -> Result<Vec<(PeerId, Vec<u8>)>, DatabaseError> {
            Err(Box::new(Unspeakable))
        }
    }
    // Something has to listen, or nothing is printed.
    let _listening = tracing::subscriber::set_default(Printing);
    let one = node(1, Config::default()).await;
    let two = node(2, Config::default().with_database(Failing)).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    until("everybody is found", || two.ragedisco.status().discovered_peers == 2).await;
    two.host.close().await;
    one.host.close().await;
}

/// Prints every line, to nowhere.
struct Printing;

impl tracing::Subscriber for Printing {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("knock_host")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| _ = format!("{value:?}"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_database_that_does_not_answer_keeps_nobody_from_being_found() {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let wild = Wild::new(move |_| _ = held.lock().unwrap().recv());
    let one = node(1, Config::default()).await;
    let two = node(2, Config::default().with_database(wild)).await;
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    until("everybody is found", || two.ragedisco.status().discovered_peers == 2).await;
    drop(let_go);
    two.host.close().await;
    one.host.close().await;
}

#[tokio::test]
async fn a_database_may_call_the_discovery_that_calls_it() {
    let calling = Arc::new(Mutex::new(None::<Ragedisco>));
    let done = Arc::new(AtomicUsize::new(0));
    let wild = {
        let (calling, done) = (calling.clone(), done.clone());
        Wild::new(move |call| {
            let Some(ragedisco) = calling.lock().unwrap().clone() else {
                return;
            };
            ragedisco.status();
            ragedisco.find_peer(&peer(1));
            ragedisco.add_group([call as u8; 32], [peer(1)], []).unwrap();
            ragedisco.remove_group(&[call as u8; 32]).unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        })
    };
    let one = node(1, Config::default()).await;
    let two = node(2, Config::default().with_database(wild)).await;
    *calling.lock().unwrap() = Some(two.ragedisco.clone());
    one.join(&[1, 2], None);
    two.join(&[1, 2], Some(&one));
    until("everybody is found", || two.ragedisco.status().discovered_peers == 2).await;
    until("it has called", || done.load(Ordering::SeqCst) > 0).await;
    // It would go on for ever.
    calling.lock().unwrap().take();
    two.host.close().await;
    one.host.close().await;
}

/// Signs with the key of `seed`. Does something else before each signature of an announcement but
/// the first.
struct Signer {
    keypair: Keypair,
    doing: Mutex<Option<Doing>>,
    calls: AtomicUsize,
}

impl Signer {
    fn new(seed: u8) -> Arc<Self> {
        Arc::new(Self {
            keypair: keypair(seed),
            doing: Mutex::default(),
            calls: AtomicUsize::new(0),
        })
    }

    fn knock(self: &Arc<Self>) -> libp2p_knock::Config {
        libp2p_knock::Config::with_signer(self.clone()).unwrap()
    }

    fn does(&self, doing: impl Fn(usize) + Send + Sync + 'static) {
        *self.doing.lock().unwrap() = Some(Arc::new(doing));
    }
}

impl Identity for Signer {
    fn public_key(&self) -> [u8; 32] {
        self.keypair.public().try_into_ed25519().unwrap().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let doing = self.doing.lock().unwrap().clone();
        // An announcement is signed by its digest. What a handshake signs is longer.
        if let Some(doing) = doing
            && message.len() == 32
        {
            doing(self.calls.fetch_add(1, Ordering::SeqCst));
        }
        Ok(self.keypair.sign(message).unwrap().try_into().unwrap())
    }
}

/// A member of the group that was elsewhere before. A peer that knows its former address makes it
/// sign again.
async fn returned(one: &Node, signer: &Arc<Signer>) -> Node {
    let former = start(signer.knock(), Config::default()).await;
    former.join(&[1, 2], Some(one));
    until("the former self is known", || {
        one.ragedisco.status().discovered_peers == 2
    })
    .await;
    former.host.close().await;
    start(signer.knock(), Config::default()).await
}

#[tokio::test]
async fn an_identity_that_panics_over_an_announcement_is_asked_again() {
    let one = node(1, Config::default()).await;
    one.join(&[1, 2], None);
    let signer = Signer::new(2);
    let two = returned(&one, &signer).await;
    signer.does(|call| assert!(call >= 2, "the first two"));
    two.join(&[1, 2], Some(&one));
    let at = two.host.listen_addresses();
    until("the new address is known", || one.ragedisco.find_peer(&peer(2)) == at).await;
    assert_eq!(two.panics(Hook::Sign), 2);
    two.host.close().await;
    one.host.close().await;
}

#[tokio::test]
async fn an_identity_that_is_slow_over_an_announcement_delays_nothing_else_and_may_call_the_discovery() {
    let one = node(1, Config::default()).await;
    one.join(&[1, 2], None);
    let signer = Signer::new(2);
    let two = returned(&one, &signer).await;
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (asked, calling) = (Arc::new(AtomicUsize::new(0)), two.ragedisco.clone());
    signer.does({
        let asked = asked.clone();
        move |_| {
            calling.status();
            asked.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
        }
    });
    two.join(&[1, 2], Some(&one));
    until("it was asked", || asked.load(Ordering::SeqCst) == 1).await;
    // Nothing waits for it: no call into the discovery, and no announcement of others.
    assert_eq!(two.ragedisco.status().registered_peers, 2);
    until("the other is found", || {
        two.ragedisco.find_peer(&peer(1)) == one.host.listen_addresses()
    })
    .await;
    tokio::time::sleep(5 * INTERVAL).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one signature at a time");
    drop(let_go);
    let at = two.host.listen_addresses();
    until("the new address is known", || one.ragedisco.find_peer(&peer(2)) == at).await;
    two.host.close().await;
    one.host.close().await;
}

#[tokio::test]
async fn an_identity_that_panics_at_the_start_leaves_the_discoverer_as_it_was() {
    let signer = Signer::new(2);
    signer.does(|call| assert!(call >= 1, "the first announcement"));
    let ragedisco = Ragedisco::new(Config::default());
    let config = HostConfig::new(signer.knock()).with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap());
    let starting = std::panic::AssertUnwindSafe(Host::start(config.clone(), ragedisco.clone()));
    let started = futures::FutureExt::catch_unwind(starting).await;
    assert!(started.is_err(), "the caller sees the panic");
    let host = Host::start(config, ragedisco).await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn what_lists_the_members_of_a_group_may_call_the_discovery_and_may_panic() {
    let one = node(1, Config::default()).await;
    let (calling, done) = (one.ragedisco.clone(), mpsc::channel());
    let panicking = one.ragedisco.clone();
    std::thread::spawn(move || {
        let members = (1..4).map(|seed| {
            calling.status();
            calling.add_group([seed; 32], [peer(1)], []).unwrap();
            peer(seed)
        });
        let bootstrappers = (9..10).map(|seed| {
            calling.status();
            (peer(seed), Vec::new())
        });
        done.0.send(calling.add_group(GROUP, members, bootstrappers)).unwrap();
    });
    let added = done.1.recv_timeout(Duration::from_secs(20));
    assert_eq!(added.expect("it waits for no lock that it holds"), Ok(()));
    let status = one.ragedisco.status();
    let wild = [8, 9].into_iter().map(|seed| {
        assert_eq!(seed, 8, "the second member");
        peer(seed)
    });
    let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panicking.add_group([99; 32], wild, [])));
    assert!(added.is_err(), "the caller sees the panic");
    assert_eq!(one.ragedisco.status(), status, "and nothing has changed");
    one.host.close().await;
}
