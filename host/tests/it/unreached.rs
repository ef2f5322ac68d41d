//! What a host says about a peer that it does not reach.

use crate::common::{address, config, host, keypair, knock, peer, until, wide};
use futures::StreamExt as _;
use knock_host::discovery::{Discoverer, StaticList};
use knock_host::{Behaviour, BehaviourConfig, Handle, Host};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// In place of five seconds.
const PATIENT: Duration = Duration::from_millis(300);

type Line = (Level, BTreeMap<&'static str, String>);

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("knock_host") {
            let mut fields = Fields(BTreeMap::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push((*event.metadata().level(), fields.0));
        }
    }
}

impl Log {
    fn keep(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    /// The reasons of what was logged about `of` with this message.
    fn reasons(&self, level: Level, message: &str, of: u8) -> Vec<String> {
        let (lines, of) = (self.0.lock().unwrap(), peer(of).to_string());
        let about = lines
            .iter()
            .filter(|(at, fields)| *at == level && fields["message"] == message && fields.get("peer") == Some(&of));
        about.map(|(_, fields)| fields["reason"].clone()).collect()
    }

    fn warned(&self, of: u8) -> Vec<String> {
        self.reasons(Level::WARN, "not connected to a peer that there is a stream to", of)
    }

    fn dialled(&self, of: u8) -> usize {
        self.reasons(Level::DEBUG, "dial", of).len()
    }
}

#[tokio::test]
async fn a_host_that_forgot_the_older_version_warns_once_and_names_it_when_the_peer_has_knocked() {
    let log = Log::default();
    let _kept = log.keep();
    let list = StaticList::new();
    let forgot = knock(1).with_handshake_timeout(PATIENT);
    let one = Host::start(config(forgot), list.clone()).await.unwrap();
    let old = StaticList::new();
    let as_go = knock(2).ragep2p_compatible().with_handshake_timeout(PATIENT);
    let two = Host::start(config(as_go), old.clone()).await.unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    // It knocks first.
    old.add(peer(1), address(&one));
    until("it was not answered", || log.dialled(1) >= 1).await;
    list.add(peer(2), address(&two));
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    until("three rounds of dials", || log.dialled(2) >= 3).await;
    let warned = log.warned(2);
    assert_eq!(warned.len(), 1, "one in a minute: {warned:#?}");
    let text = "perhaps it is configured otherwise: it knocks here with knock version 2, as Go's ragep2p does \
                (`Config::ragep2p_compatible`)";
    assert!(warned[0].contains(text), "{warned:#?}");
    assert!(warned[0].starts_with(&address(&two).to_string()), "{warned:#?}");
    drop((there, back));
}

#[tokio::test]
async fn a_host_says_that_no_address_is_known() {
    let log = Log::default();
    let _kept = log.keep();
    let list = StaticList::new();
    let one = host(1, &list).await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    until("a warning", || !log.warned(2).is_empty()).await;
    assert_eq!(log.warned(2), ["no address of the peer is known"]);
    drop(there);
}

/// Knows one address, and says so when the sender of the channel has gone.
#[derive(Clone)]
struct Slow {
    asked: Arc<AtomicUsize>,
    may_answer: Arc<Mutex<Receiver<()>>>,
}

impl Discoverer for Slow {
    fn start(&self, _: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn close(&self) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn find_peer(&self, _: &PeerId) -> Vec<Multiaddr> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let _ = self.may_answer.lock().unwrap().recv();
        vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()]
    }
}

#[tokio::test]
async fn an_address_found_for_a_stream_that_has_gone_is_no_lack_of_addresses() {
    let log = Log::default();
    let _kept = log.keep();
    let (kept, may_answer) = channel();
    let slow = Slow {
        asked: Arc::default(),
        may_answer: Arc::new(Mutex::new(may_answer)),
    };
    let one = Host::start(config(knock(1)), slow.clone()).await.unwrap();
    let first = one.open_stream(peer(2), "x", wide()).unwrap();
    until("it was asked", || slow.asked.load(Ordering::Relaxed) == 1).await;
    let others = || async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    drop(first);
    others().await;
    let second = one.open_stream(peer(2), "x", wide()).unwrap();
    others().await;
    // Its answer is for the first stream.
    drop(kept);
    until("a warning", || !log.warned(2).is_empty()).await;
    let warned = log.warned(2);
    assert!(warned[0].starts_with("/ip4/127.0.0.1/tcp/1"), "{warned:#?}");
    drop(second);
}

#[tokio::test]
async fn a_reason_from_a_machine_that_was_reached_outranks_a_refused_connect() {
    let log = Log::default();
    let _kept = log.keep();
    let list = StaticList::new();
    let one = Host::start(config(knock(1).with_handshake_timeout(PATIENT)), list.clone())
        .await
        .unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    list.add(peer(2), there.parse().unwrap());
    list.add(peer(2), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
    let stream = one.open_stream(peer(2), "x", wide()).unwrap();
    until("a warning", || !log.warned(2).is_empty()).await;
    let warned = log.warned(2);
    assert!(warned[0].starts_with(&there), "{warned:#?}");
    assert!(
        warned[0].contains("no byte came within 300ms; perhaps another peer listens there"),
        "{warned:#?}"
    );
    drop((stream, silent));
}

#[tokio::test]
async fn a_behaviour_warns_about_a_peer_that_its_swarm_cannot_dial() {
    let log = Log::default();
    let _kept = log.keep();
    let behaviour = Behaviour::new(peer(1), BehaviourConfig::default().with_dial_interval(PATIENT));
    let streams = behaviour.handle();
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair(1))
        .with_tokio()
        .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .build();
    let stream = streams.open_stream(peer(2), "x", wide()).unwrap();
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    until("a warning", || !log.warned(2).is_empty()).await;
    assert_eq!(log.warned(2), ["no address of the peer is known"]);
    drop(stream);
}
