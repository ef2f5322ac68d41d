use libp2p_gater::{AlreadyRegistered, ConnectionGater, FirstWins, Gate, Rules, Stage, goodbye};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

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

/// A policy beside the rules, which says what its denials name.
struct Quota;

impl ConnectionGater for Quota {
    fn denial_rules(&self, stage: Stage) -> Vec<Cow<'static, str>> {
        match stage {
            Stage::Upgraded => vec!["quota".into()],
            _ => Vec::new(),
        }
    }
}

/// What the rules may name at every stage.
const RULES: [&str; 10] = [
    "admit_known_addresses",
    "admit_members",
    "block",
    "block_list",
    "block_network",
    "block_peer",
    "block_set",
    "malformed_address",
    "refuse_names",
    "require_knock",
];

const CAPS: [&str; 9] = [
    "cap_inbound",
    "cap_outbound",
    "cap_pending_inbound",
    "cap_pending_outbound",
    "cap_per_ip",
    "cap_per_peer",
    "cap_per_prefix",
    "cap_total",
    "cap_transport",
];

fn denials(stage: &str) -> Vec<&'static str> {
    let mut rules = vec!["policy_panicked"];
    rules.extend(RULES);
    if stage != "live" {
        rules.extend(CAPS);
    }
    if ["accept", "addr_dial"].contains(&stage) {
        rules.push("rate");
    }
    if ["knock", "secured", "upgraded"].contains(&stage) {
        rules.push("admission");
    }
    if stage == "upgraded" {
        rules.push("quota");
    }
    rules
}

/// Every counter, with every label.
fn counters() -> BTreeSet<String> {
    let mut names = BTreeSet::from(["goodbye_dials_denied_total".to_owned()]);
    for stage in [
        "peer_dial",
        "addr_dial",
        "accept",
        "knock",
        "secured",
        "upgraded",
        "live",
    ] {
        let mut decision = |verdict: &str, rule: &str| {
            names.insert(format!(
                "decisions_total{{stage=\"{stage}\",verdict=\"{verdict}\",rule=\"{rule}\"}}"
            ));
        };
        decision("allow", "");
        decision("pass", "");
        for rule in denials(stage) {
            decision("deny", rule);
        }
    }
    for hook in [
        "peer_dial",
        "addr_dial",
        "accept",
        "knock",
        "secured",
        "upgraded",
        "judge_live",
        "judge_pending",
        "observe",
        "tick",
        "timer",
        "waker",
    ] {
        names.insert(format!("hook_panics_total{{hook=\"{hook}\"}}"));
    }
    for code in [
        "unspecified",
        "trimmed",
        "not_allowed",
        "too_many",
        "shutting_down",
        "other",
    ] {
        names.insert(format!("goodbye_heard_total{{code=\"{code}\"}}"));
        for outcome in ["heard", "unheard", "unsupported"] {
            names.insert(format!("goodbye_said_total{{code=\"{code}\",outcome=\"{outcome}\"}}"));
        }
    }
    names.into_iter().map(|name| format!("libp2p_gater_{name} 0")).collect()
}

fn gate() -> Gate {
    Gate::new(FirstWins::new().with(Quota).with(Rules::new()))
}

#[test]
fn the_first_scrape_has_every_counter_with_every_label_at_zero() {
    let mut registry = Registry::default();
    let _gate = gate().with_metrics(&mut registry).unwrap();
    let text = scraped(&registry);
    let is_counter = |line: &&str| line.split(['{', ' ']).next().unwrap().ends_with("_total");
    let found: BTreeSet<String> = text.lines().filter(is_counter).map(str::to_owned).collect();
    assert_eq!(found, counters());
    assert!(text.lines().any(|line| line == "libp2p_gater_goodbye_back_offs 0"));
    if let Some(said) = promtool(&text) {
        assert_eq!(said, Ok(()), "{text}");
    }
}

#[test]
fn a_second_gate_in_one_registry_is_an_error_and_below_a_prefix_it_is_none() {
    let mut registry = Registry::default();
    let first = gate().with_metrics(&mut registry).unwrap();
    let before = scraped(&registry);
    // The same gate would be described twice as well.
    for gate in [first.clone(), gate()] {
        let refused: AlreadyRegistered = gate.with_metrics(&mut registry).unwrap_err();
        assert!(refused.name().starts_with("libp2p_gater_"), "{refused}");
    }
    // What stands in a gate already.
    let refused = goodbye::Behaviour::default().with_metrics(&mut registry).unwrap_err();
    assert!(refused.name().starts_with("libp2p_gater_goodbye_"), "{refused}");
    assert_eq!(before.lines().count(), scraped(&registry).lines().count());

    let _second = gate().with_metrics(registry.sub_registry_with_prefix("other")).unwrap();
    if let Some(said) = promtool(&scraped(&registry)) {
        assert_eq!(said, Ok(()));
    }
    // One gate may be shown in two registries.
    let mut beside = Registry::default();
    let _first = first.with_metrics(&mut beside).unwrap();
    assert_eq!(before.lines().count(), scraped(&beside).lines().count());
}

#[test]
fn what_is_gone_leaves_the_scrape_and_the_registry_takes_the_next_one() {
    let mut registry = Registry::default();
    for _ in 0..2 {
        let gate = gate().with_metrics(&mut registry).unwrap();
        // What was made of a gate counts for it.
        let behaviour = gate.behaviour();
        drop(gate);
        let refused = Gate::new(Rules::new()).with_metrics(&mut registry).unwrap_err();
        assert!(refused.name().starts_with("libp2p_gater_"), "{refused}");
        drop(behaviour);
        assert_eq!(scraped(&registry), "# EOF\n");

        let goodbyes = goodbye::Behaviour::default().with_metrics(&mut registry).unwrap();
        assert!(scraped(&registry).contains("libp2p_gater_goodbye_back_offs 0"));
        drop(goodbyes);
        assert_eq!(scraped(&registry), "# EOF\n");
    }
}
