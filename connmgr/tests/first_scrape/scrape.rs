use libp2p_connmgr::{AlreadyRegistered, Config, PersistentPeers, persistent};
use libp2p_identity::PeerId;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

fn config() -> Config {
    Config::new(160, 192).unwrap()
}

fn wanted() -> PersistentPeers {
    PersistentPeers::new(PeerId::random(), persistent::Config::new())
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
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(_) if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some() => {
            panic!("no promtool: Debian's package is prometheus")
        }
        Err(_) => {
            println!("skipped: no promtool; Debian's package is prometheus");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

/// Every counter, with every label.
fn counters() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = [
        "stuck_connections_total",
        "denied_total",
        "refused_tags_total",
        "connection_lifetime_seconds_count",
        "persistent_lost_total",
        "persistent_reconnected_total",
        "persistent_unresponsive_connections_total",
        "persistent_duplicate_connections_total",
        "persistent_hook_panics_total{hook=\"denied_for\"}",
    ]
    .map(str::to_owned)
    .into();
    for reason in ["high_watermark", "on_demand", "pressure"] {
        for outcome in ["closed", "stuck", "disabled", "at_low_watermark", "too_few_candidates"] {
            names.insert(format!("trims_total{{reason=\"{reason}\",outcome=\"{outcome}\"}}"));
        }
    }
    for reason in ["high_watermark", "on_demand", "pressure", "hard_limit"] {
        names.insert(format!("trimmed_connections_total{{reason=\"{reason}\"}}"));
    }
    for hook in ["bump", "clock", "closer", "decay", "memory_source", "order", "waker"] {
        names.insert(format!("hook_panics_total{{hook=\"{hook}\"}}"));
    }
    for outcome in [
        "connected",
        "denied",
        "no_addresses",
        "not_needed",
        "other",
        "unreachable",
        "wrong_peer",
    ] {
        names.insert(format!("persistent_dials_total{{outcome=\"{outcome}\"}}"));
    }
    names
        .into_iter()
        .map(|name| format!("libp2p_connmgr_{name} 0"))
        .collect()
}

fn is_counter(line: &&str) -> bool {
    let name = line.split(['{', ' ']).next().unwrap();
    name.ends_with("_total") || name.ends_with("_count")
}

#[test]
fn the_first_scrape_has_every_counter_with_every_label_at_zero() {
    let mut registry = Registry::default();
    let config = config().with_metrics(&mut registry).unwrap();
    let _wanted = wanted().with_metrics(&mut registry).unwrap();
    assert_first(&scraped(&registry), false);
    let _manager = libp2p_connmgr::new(config);
    assert_first(&scraped(&registry), true);
}

/// The gauges come with the manager, the counters are there before it.
fn assert_first(text: &str, with_manager: bool) {
    let found: BTreeSet<String> = text.lines().filter(is_counter).map(str::to_owned).collect();
    assert_eq!(found, counters());
    for gauge in ["connections{class=\"protected\"}", "peers{class=\"gone\"}"] {
        let line = format!("libp2p_connmgr_{gauge} 0");
        assert_eq!(text.lines().any(|found| found == line), with_manager, "{line}");
    }
    for state in ["connected", "dialling", "waiting"] {
        let line = format!("libp2p_connmgr_persistent_wanted_peers{{state=\"{state}\"}} 0");
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    if let Some(said) = promtool(text) {
        assert_eq!(said, Ok(()), "{text}");
    }
}

#[test]
fn a_second_configuration_in_one_registry_is_an_error_and_below_a_prefix_it_is_none() {
    let mut registry = Registry::default();
    let _first = config().with_metrics(&mut registry).unwrap();
    let _wanted = wanted().with_metrics(&mut registry).unwrap();
    let before = scraped(&registry);
    let refused: AlreadyRegistered = config().with_metrics(&mut registry).unwrap_err();
    assert!(refused.name().starts_with("libp2p_connmgr_"), "{refused}");
    let refused = wanted().with_metrics(&mut registry).unwrap_err();
    assert!(refused.name().starts_with("libp2p_connmgr_persistent_"), "{refused}");
    assert_eq!(before.lines().count(), scraped(&registry).lines().count());

    let below = registry.sub_registry_with_prefix("other");
    let _second = config().with_metrics(below).unwrap();
    let _wanted = wanted().with_metrics(below).unwrap();
    if let Some(said) = promtool(&scraped(&registry)) {
        assert_eq!(said, Ok(()));
    }
    // What the error stands for: a label alone leaves two descriptions of one name.
    let mut labelled = Registry::default();
    let _both = ["one", "another"].map(|name| {
        let below = labelled.sub_registry_with_label(("manager".into(), name.into()));
        config().with_metrics(below).unwrap()
    });
    if let Some(said) = promtool(&scraped(&labelled)) {
        assert!(said.is_err());
    }
}
