//! The first scrape of a program that has registered everything.

use crate::promtool::promtool;
use knock_host::discovery::StaticList;
use knock_host::discovery::ragedisco::Ragedisco;
use knock_host::metrics::rageping::{Config as Pings, Rageping};
use knock_host::{Host, HostConfig, Limits};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport as _, noise, tcp, yamux};
use libp2p_connmgr::{PersistentPeers, persistent};
use libp2p_gater::{Gate, Rules};
use libp2p_knock::{Migration, MigrationStage};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};

/// A label, and what its value has to be.
pub(crate) type Wanted<'a> = (&'a str, &'a dyn Fn(&str) -> bool);

pub(crate) struct Scrape {
    text: String,
    /// The kind of each metric that is described, by its name without an ending.
    kinds: BTreeMap<String, String>,
    /// The labels of the samples of each name.
    samples: BTreeMap<String, Vec<BTreeMap<String, String>>>,
}

/// Registers everything that this workspace has, in one registry, and renders it once.
///
/// Has to be called inside a tokio runtime. The peers of the host have a stream, as theirs begin
/// with that.
pub(crate) async fn first() -> Scrape {
    let mut registry = Registry::default();
    let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let knock = libp2p_knock::Config::new(&keypair)
        .unwrap()
        .with_metrics(&mut registry)
        .unwrap();
    let stock = tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default());
    // Its metrics end with it.
    let _both = Migration::new(
        MigrationStage::Prefer,
        stock,
        libp2p_knock::tokio::Transport::new(knock),
    )
    .with_metrics(&mut registry)
    .unwrap();
    let gate = Gate::new(Rules::new()).with_metrics(&mut registry).unwrap();
    let config = libp2p_connmgr::Config::new(160, 192).unwrap();
    let manager = libp2p_connmgr::new(config.with_metrics(&mut registry).unwrap());
    let wanted = PersistentPeers::new(keypair.public().to_peer_id(), persistent::Config::new());
    let wanted = wanted.with_metrics(&mut registry).unwrap();
    let config = HostConfig::new(libp2p_knock::Config::new(&keypair).unwrap())
        .with_listen_address("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap());
    let host = Host::start(config, StaticList::new()).await.unwrap();
    knock_host::metrics::register(&mut registry, &host).unwrap();
    let disco = Ragedisco::new(Default::default());
    knock_host::metrics::register_ragedisco(&mut registry, host.handle(), &disco).unwrap();
    let pings = Rageping::new(&host, Pings::defaults());
    pings.register(&mut registry).unwrap();
    let peer = PeerId::from(Keypair::ed25519_from_bytes([8; 32]).unwrap().public());
    pings.add_peers([peer]);
    let stream = host.open_stream(peer, "x", Limits::default()).unwrap();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    drop((gate, manager, wanted, stream));
    host.close().await;
    Scrape::read(text)
}

impl Scrape {
    fn read(text: String) -> Self {
        let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let kinds = described.filter_map(|line| line.split_once(' '));
        let kinds = kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        let kinds: BTreeMap<String, String> = kinds.collect();
        let mut samples = BTreeMap::<String, Vec<_>>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            // No value here has a quote or a comma in it.
            let labels = labels.trim_end_matches('}').split(',');
            let labels = labels.filter_map(|label| label.split_once('='));
            let labels = labels.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()));
            samples.entry(name.to_owned()).or_default().push(labels.collect());
        }
        Self { text, kinds, samples }
    }

    /// Why a series of that name with these labels is not there, if it is not.
    pub(crate) fn lacks<'a>(&self, name: &str, labels: impl IntoIterator<Item = Wanted<'a>>) -> Option<String> {
        let Some(samples) = self.samples.get(name) else {
            return Some(format!("{name} is not rendered"));
        };
        let labels: Vec<_> = labels.into_iter().collect();
        let fits = |sample: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(label, is)| sample.get(*label).is_some_and(|value| is(value)))
        };
        let wanted: Vec<&str> = labels.iter().map(|(label, _)| *label).collect();
        (!samples.iter().any(fits)).then(|| format!("{name} has no such {}", wanted.join(", ")))
    }
}

#[tokio::test]
async fn prometheus_reads_the_first_scrape_of_everything_in_one_registry() {
    let scrape = first().await;
    assert!(scrape.samples.len() >= 60, "{}", scrape.samples.len());
    // Its linter reads the older format alone, where the name of a counter has the ending and a
    // unit has no line.
    let counters = scrape.kinds.iter().filter(|(_, kind)| *kind == "counter");
    let counters: BTreeSet<&str> = counters.map(|(name, _)| name.as_str()).collect();
    let older = scrape.text.lines().filter(|line| !line.starts_with("# UNIT "));
    let older: String = older
        .map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", kind, name, rest] if counters.contains(name) => format!("# {kind} {name}_total {rest}\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let said = promtool(&["check", "metrics"], &older);
    // ragep2p's own names, which its linter would rather have otherwise.
    let said = said.err().unwrap_or_default();
    let against = said
        .lines()
        .filter(|line| !line.starts_with("rage") && !line.is_empty());
    assert_eq!(against.collect::<Vec<_>>(), [""; 0], "{said}");
}
