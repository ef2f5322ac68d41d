use super::*;
use libp2p_identity::PeerId;
use std::collections::BTreeSet;

/// A host, a peer, what is counted, and what shows it.
fn collector() -> (PeerId, PeerId, Arc<HostCounters>, HostCollector) {
    let (host, peer) = (PeerId::random(), PeerId::random());
    let all = Arc::<HostCounters>::default();
    let collector = HostCollector {
        host: host.to_string(),
        counters: Arc::downgrade(&all),
    };
    (host, peer, all, collector)
}

fn render(collector: impl Collector) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// The names of all samples.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect()
}

#[test]
fn the_rendered_names_are_those_of_the_original() {
    let (_, peer, all, collector) = collector();
    all.join(peer);
    let text = render(collector);
    // From libocr's metrics.go of both stacks, and what a histogram becomes.
    let original = BTreeSet::from([
        "ragep2p_host_inbound_dials_total",
        "ragep2p_peer_conn_established_total",
        "ragep2p_peer_conn_established_inbound_total",
        "ragep2p_peer_conn_read_processed_bytes_total",
        "ragep2p_peer_conn_read_skipped_bytes_total",
        "ragep2p_peer_conn_written_bytes_total",
        "ragep2p_peer_rawconn_read_bytes_total",
        "ragep2p_peer_rawconn_written_bytes_total",
        "ragep2p_peer_rawconn_rate_limit_rate",
        "ragep2p_peer_rawconn_rate_limit_capacity",
        "ragep2p_peer_messages_rate_limit_rate",
        "ragep2p_peer_messages_rate_limit_capacity",
        "ragep2p_peer_bytes_rate_limit_rate",
        "ragep2p_peer_bytes_rate_limit_capacity",
        "ragep2p_experimental_peer_message_bytes_bucket",
        "ragep2p_experimental_peer_message_bytes_count",
        "ragep2p_experimental_peer_message_bytes_sum",
    ]);
    let ours: BTreeSet<&str> = names(&text)
        .into_iter()
        .filter(|name| name.starts_with("ragep2p_"))
        .collect();
    assert_eq!(ours, original, "{text}");
    assert!(names(&text).contains("knock_host_peer_messages_dropped_total"));
}

#[test]
fn every_hook_has_its_number_of_panics_from_the_start_on() {
    let (host, _, all, collector) = collector();
    let panics = &all.hook_panics;
    assert_eq!(panics.call(Hook::Database, || panic!("a database")), None::<()>);
    let text = render(collector);
    for hook in Hook::ALL {
        let count = u64::from(hook == Hook::Database);
        let line = format!("knock_host_hook_panics_total{{peer_id=\"{host}\",hook=\"{hook}\"}} {count}");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn every_sample_has_the_labels_of_the_original_and_its_own_number() {
    let (host, peer, all, collector) = collector();
    let counters = all.join(peer);
    all.inbound_dials.add(3);
    // A different number everywhere, to see none in the place of another.
    for (at, (_, _, of)) in COUNTERS.iter().enumerate() {
        of(&counters).add(100 + at as u64);
    }
    for (at, (_, _, of)) in GAUGES.iter().enumerate() {
        of(&counters).set(0.5 + at as f64);
    }
    let text = render(collector);
    let expect = |line: String| assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    expect(format!("ragep2p_host_inbound_dials_total{{peer_id=\"{host}\"}} 3"));
    let labels = format!("{{peer_id=\"{host}\",remote_peer_id=\"{peer}\"}}");
    for (at, (name, _, _)) in COUNTERS.iter().enumerate() {
        expect(format!("{name}_total{labels} {}", 100 + at));
    }
    for (at, (name, _, _)) in GAUGES.iter().enumerate() {
        expect(format!("{name}{labels} {:.1}", 0.5 + at as f64));
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_buckets_are_those_of_the_original_and_cumulative() {
    let (host, peer, all, collector) = collector();
    let counters = all.join(peer);
    for size in [1, 256, 257, 1 << 28, 1 << 30] {
        counters.message_bytes.observe(size);
    }
    let text = render(collector);
    let labels = format!("peer_id=\"{host}\",remote_peer_id=\"{peer}\"");
    let buckets: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("ragep2p_experimental_peer_message_bytes_bucket{le=\""))
        .collect();
    let expected: Vec<String> = [8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28]
        .iter()
        .zip([2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4])
        .map(|(power, count)| format!("{:.1}\",{labels}}} {count}", f64::from(1 << power)))
        .chain([format!("+Inf\",{labels}}} 5")])
        .collect();
    assert_eq!(buckets, expected, "{text}");
    assert!(text.contains(&format!("_bytes_count{{{labels}}} 5\n")));
    assert!(text.contains(&format!(
        "_bytes_sum{{{labels}}} {:.1}\n",
        (1 + 256 + 257 + (1 << 28) + (1 << 30)) as f64
    )));
}

#[test]
fn a_peer_without_a_stream_has_no_metrics() {
    let (_, peer, all, collector) = collector();
    all.join(peer);
    all.leave(&peer);
    assert_eq!(
        names(&render(collector)),
        BTreeSet::from(["knock_host_hook_panics_total", "ragep2p_host_inbound_dials_total"])
    );
}

#[test]
fn the_discovery_is_rendered_under_the_names_of_the_original() {
    let host = PeerId::random();
    let ragedisco = Ragedisco::new(crate::discovery::ragedisco::Config::default());
    let text = render(RagediscoCollector {
        host: host.to_string(),
        ragedisco: ragedisco.downgrade(),
    });
    for name in [
        "ragedisco_registered_peers",
        "ragedisco_discovered_peers",
        "ragedisco_bootstappers",
    ] {
        assert!(
            text.lines()
                .any(|line| line == format!("{name}{{peer_id=\"{host}\"}} 0.0")),
            "{text}"
        );
    }
}
