//! What a registry shows before anything has happened: every counter with every label, at zero, as
//! Prometheus' own parser takes it.

use crate::common::there_is;
use knock_host::discovery::StaticList;
use knock_host::discovery::ragedisco::Ragedisco;
use knock_host::metrics::rageping::{Config, Rageping};
use knock_host::metrics::{register, register_handle, register_ragedisco};
use knock_host::{Host, HostConfig, Limits};
use libp2p_identity::{Keypair, PeerId};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

async fn start(seed: u8) -> Host {
    let config = HostConfig::new(libp2p_knock::Config::new(&keypair(seed)).unwrap())
        .with_listen_address("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap());
    Host::start(config, StaticList::new()).await.unwrap()
}

/// The first scrape of all that this crate registers. The metrics of a peer begin with its first
/// stream, those of rageping with its first peer.
pub(crate) async fn of_everything() -> String {
    let host = start(35).await;
    let mut registry = Registry::default();
    register(&mut registry, &host).unwrap();
    let disco = Ragedisco::new(Default::default());
    register_ragedisco(&mut registry, host.handle(), &disco).unwrap();
    let pings = Rageping::new(&host, Config::defaults());
    pings.register(&mut registry).unwrap();
    pings.add_peers([peer(32)]);
    let text = scraped(&registry);
    host.close().await;
    text
}

fn scraped(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

/// What `promtool check metrics` says, or nothing where there is no promtool.
///
/// It reads Prometheus' older format alone, where the name of a counter ends in `_total` and a unit
/// has no line.
fn promtool(text: &str) -> Option<Result<(), String>> {
    let counters = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: BTreeSet<&str> = counters.filter_map(|line| line.strip_suffix(" counter")).collect();
    let mut older = String::new();
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                older += &format!("# {kind} {name}_total {rest}\n");
            }
            _ => older += &format!("{line}\n"),
        }
    }
    if !there_is("promtool") {
        return None;
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

/// Every counter of the host of the seed, and of the peer of the other one if it has a stream.
fn counters(seed: u8, remote: Option<u8>) -> BTreeSet<String> {
    let host = format!("peer_id=\"{}\"", peer(seed));
    let mut names = BTreeSet::from([format!("ragep2p_host_inbound_dials_total{{{host}}}")]);
    for hook in knock_host::Hook::ALL {
        names.insert(format!("knock_host_hook_panics_total{{{host},hook=\"{hook}\"}}"));
    }
    if let Some(remote) = remote {
        let peer = format!("{host},remote_peer_id=\"{}\"", peer(remote));
        for name in [
            "conn_established_total",
            "conn_established_inbound_total",
            "conn_read_processed_bytes_total",
            "conn_read_skipped_bytes_total",
            "conn_written_bytes_total",
            "rawconn_read_bytes_total",
            "rawconn_written_bytes_total",
        ] {
            names.insert(format!("ragep2p_peer_{name}{{{peer}}}"));
        }
        names.insert(format!("ragep2p_experimental_peer_message_bytes_count{{{peer}}}"));
        for reason in [
            "outgoing_buffer",
            "incoming_buffer",
            "rate",
            "length",
            "unknown_stream",
            "memory",
        ] {
            names.insert(format!(
                "knock_host_peer_messages_dropped_total{{{peer},reason=\"{reason}\"}}"
            ));
        }
    }
    names.into_iter().map(|name| format!("{name} 0")).collect()
}

fn assert_first(registry: &Registry, counters: &BTreeSet<String>) {
    let text = scraped(registry);
    let is_counter = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap();
        name.ends_with("_total") || name.ends_with("_count")
    };
    let found: BTreeSet<String> = text.lines().filter(is_counter).map(str::to_owned).collect();
    assert_eq!(found, *counters);
    if let Some(said) = promtool(&text) {
        assert_eq!(said, Ok(()), "{text}");
    }
}

#[tokio::test]
async fn the_first_scrape_has_every_counter_with_every_label_at_zero() {
    let host = start(31).await;
    let mut registry = Registry::default();
    register(&mut registry, &host).unwrap();
    let disco = Ragedisco::new(Default::default());
    register_ragedisco(&mut registry, host.handle(), &disco).unwrap();
    let pings = Rageping::new(&host, Config::defaults());
    pings.register(&mut registry).unwrap();
    assert_first(&registry, &counters(31, None));
    // The metrics of a peer begin with its first stream.
    let stream = host.open_stream(peer(32), "x", Limits::default()).unwrap();
    assert_first(&registry, &counters(31, Some(32)));
    drop(stream);
    host.close().await;
}

#[tokio::test]
async fn a_second_host_in_one_registry_is_an_error_and_so_is_a_second_of_what_measures() {
    let (one, other) = (start(33).await, start(34).await);
    let mut registry = Registry::default();
    let disco = Ragedisco::new(Default::default());
    register(&mut registry, &one).unwrap();
    register_ragedisco(&mut registry, one.handle(), &disco).unwrap();
    let pings = Rageping::new(&one, Config::defaults());
    pings.register(&mut registry).unwrap();
    let before = scraped(&registry);
    for host in [&one, &other] {
        let refused = register(&mut registry, host).unwrap_err();
        assert_eq!(refused, register_handle(&mut registry, host.handle()).unwrap_err());
        assert_eq!(refused.name(), "knock_host_hook_panics");
        register_ragedisco(&mut registry, host.handle(), &disco).unwrap_err();
        let others = Rageping::new(host, Config::defaults());
        let refused = others.register(&mut registry).unwrap_err();
        assert_eq!(refused.name(), "knock_host_rageping_streams");
    }
    assert_eq!(scraped(&registry), before);
    // One that is gone shows nothing any more, and leaves its place.
    drop(pings);
    let next = Rageping::new(&one, Config::defaults());
    next.register(&mut registry).unwrap();
    assert_eq!(scraped(&registry), before);
    // A registry each.
    let mut beside = Registry::default();
    register(&mut beside, &other).unwrap();
    assert_first(&beside, &counters(34, None));
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_host_that_is_gone_leaves_the_scrape_and_the_registry_takes_the_next_one() {
    let mut registry = Registry::default();
    for _ in 0..2 {
        let (called, host) = (start(36).await, start(37).await);
        register(&mut registry, &host).unwrap();
        let disco = Ragedisco::new(Default::default());
        register_ragedisco(&mut registry, host.handle(), &disco).unwrap();
        // With a stream, and a connection that it may have by the time that it is closed.
        let stream = host.open_stream(peer(36), "x", Limits::default()).unwrap();
        assert!(scraped(&registry).contains("ragep2p_host_inbound_dials_total"));
        drop(stream);
        host.close().await;
        called.close().await;
        drop((host, disco));
        assert_eq!(scraped(&registry), "# EOF\n");
    }
}
