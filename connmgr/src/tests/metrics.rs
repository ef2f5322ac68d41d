//! What a scrape shows, and what the dashboard asks for.

use super::*;
use crate::{PersistentPeers, persistent};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

#[test]
fn a_scrape_shows_classes_and_what_trims_came_to() {
    let mut registry = Registry::default();
    let config = quiet(2, 100, SECOND).unwrap().with_max_tags(1);
    let mut node = Node::new(config.with_metrics(&mut registry).unwrap());
    let old = node.connect_many(6);
    node.advance(SECOND);
    node.connect_many(3);
    node.manager.protect(&old[0], "tag");
    node.manager.tag_peer(&old[1], "tag", 1);
    node.manager.tag_peer(&old[1], "another", 1);
    node.manager.tag_peer(&PeerId::random(), "tag", 1);
    node.trim();
    node.trim();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        r#"libp2p_connmgr_connections{class="protected"} 1"#,
        r#"libp2p_connmgr_connections{class="in_grace"} 3"#,
        r#"libp2p_connmgr_connections{class="tagged"} 1"#,
        r#"libp2p_connmgr_connections{class="plain"} 1"#,
        r#"libp2p_connmgr_connections{class="closing"} 0"#,
        r#"libp2p_connmgr_peers{class="early"} 1"#,
        r#"libp2p_connmgr_peers{class="gone"} 3"#,
        "libp2p_connmgr_low_watermark 2",
        "libp2p_connmgr_high_watermark 100",
        "libp2p_connmgr_refused_tags_total 1",
        r#"libp2p_connmgr_trims_total{reason="on_demand",outcome="closed"} 1"#,
        r#"libp2p_connmgr_trims_total{reason="on_demand",outcome="too_few_candidates"} 1"#,
        r#"libp2p_connmgr_trimmed_connections_total{reason="on_demand"} 3"#,
        "libp2p_connmgr_stuck_connections_total 0",
        "libp2p_connmgr_denied_total 0",
        "libp2p_connmgr_connection_lifetime_seconds_count 3",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[test]
fn panics_of_user_code_are_counted_by_hook_and_every_hook_is_there_from_the_start() {
    let mut registry = Registry::default();
    let config = quiet(1, 1, Duration::ZERO)
        .unwrap()
        .with_metrics(&mut registry)
        .unwrap();
    let mut node = Node::new(config.with_closer(|_, _, _| panic!("closer")));
    let shown = |registry: &Registry| {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("libp2p_connmgr_hook_panics_total{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let hooks = ["bump", "clock", "closer", "decay", "memory_source", "order", "waker"];
    let expected = |closer: u64| {
        let of = |hook: &&str| if **hook == *"closer" { closer } else { 0 };
        let line = |hook: &&str| format!("libp2p_connmgr_hook_panics_total{{hook=\"{hook}\"}} {}", of(hook));
        hooks.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(shown(&registry), expected(0));
    node.connect_many(3);
    node.trim();
    assert_eq!(shown(&registry), expected(2));
}

fn shown(registry: &Registry, name: &str) -> Option<u64> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let name = format!("libp2p_connmgr_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn a_manager_that_is_made_anew_from_a_clone_of_its_configuration_is_measured_again() {
    let mut registry = Registry::default();
    let config = quiet(2, 100, SECOND).unwrap().with_max_tags(1);
    let config = config.with_metrics(&mut registry).unwrap();
    let young = r#"connections{class="in_grace"}"#;
    let shown = |name| shown(&registry, name);
    // With handles of the first manager that are still there, and without any.
    let mut kept = Vec::new();
    for (connections, keeps) in [(3, true), (2, false), (1, false)] {
        let mut node = Node::new(config.clone());
        let peers = node.connect_many(connections);
        node.manager.tag_peer(&peers[0], "tag", 1);
        node.manager.tag_peer(&peers[0], "another", 1);
        assert_eq!(shown(young), Some(connections as u64));
        assert_eq!(shown("low_watermark"), Some(2));
        assert_eq!(shown("refused_tags_total"), Some(1));
        // One beside it does not take its place.
        let beside = Node::new(config.clone());
        assert_eq!(shown(young), Some(connections as u64));
        drop(beside);
        kept.extend(keeps.then(|| node.manager.clone()));
    }
    // The counters wait for the next one.
    assert_eq!(shown("low_watermark"), None);
    assert_eq!(shown("refused_tags_total"), Some(0));
    assert_eq!(shown("connection_lifetime_seconds_count"), Some(0));
}

#[test]
fn what_was_measured_leaves_the_scrape_and_the_registry_takes_the_next_one() {
    let mut registry = Registry::default();
    for _ in 0..2 {
        let config = quiet(2, 100, SECOND).unwrap().with_metrics(&mut registry).unwrap();
        let mut node = Node::new(config);
        node.connect_many(3);
        assert_eq!(shown(&registry, "low_watermark"), Some(2));
        assert_eq!(shown(&registry, "denied_total"), Some(0));

        let target = persistent::Config::new().with_target_connections(7);
        let wanted = PersistentPeers::new(PeerId::random(), target);
        let wanted = wanted.with_metrics(&mut registry).unwrap();
        assert_eq!(shown(&registry, "persistent_target_peers"), Some(7));
        let another = PersistentPeers::new(PeerId::random(), persistent::Config::new());
        assert!(another.with_metrics(&mut registry).is_err(), "while the first is there");

        drop((node, wanted));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert_eq!(text, "# EOF\n");
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let mut registry = Registry::default();
    let mut node = Node::new(
        quiet(1, 1, Duration::ZERO)
            .unwrap()
            .with_metrics(&mut registry)
            .unwrap(),
    );
    let wanted = PersistentPeers::new(PeerId::random(), persistent::Config::new());
    let _wanted = wanted.with_metrics(&mut registry).unwrap();
    node.connect_many(2);
    node.trim();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let dashboard = include_str!("../../monitoring/dashboard.json");
    let names = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: std::collections::BTreeSet<_> = names.filter(|name| name.starts_with("libp2p_connmgr_")).collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))),
            "{name}"
        );
    }
}
