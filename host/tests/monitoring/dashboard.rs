//! The dashboard asks for what is there.

use crate::common::monitoring;
use serde_json::Value;
use std::collections::BTreeSet;

/// Every expression of every panel, those in rows too.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(expression)) = object.get("expr") {
                found.push(expression.clone());
            }
            object.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The words of an expression that can be the name of a metric of ours.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| {
        ["ragep2p", "ragedisco", "rageping", "knock_host", "libp2p_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    })
}

#[test]
fn every_metric_on_the_dashboard_is_one_that_a_plugin_renders() {
    let text = std::fs::read_to_string(monitoring("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    expressions(&dashboard, &mut all);
    assert!(all.len() >= 20, "{}", all.len());
    let rules = std::fs::read_to_string(monitoring("rules.yml")).unwrap();
    let recorded: BTreeSet<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .collect();
    for name in all.iter().flat_map(|expression| metrics(expression)) {
        if name.contains(':') {
            assert!(recorded.contains(name), "{name} is no rule");
            continue;
        }
        assert!(is_rendered(name), "{name} is rendered by nobody");
    }
}

/// Whether the plugin that `name` belongs to registers it. Where that plugin's source is not beside this crate, as in a package,
/// nothing can be said against it.
fn is_rendered(name: &str) -> bool {
    let (prefix, crates) = [
        ("libp2p_knock_", "../transport"),
        ("libp2p_connmgr_", "../connmgr"),
        ("libp2p_gater_", "../gater"),
        ("", "."),
    ]
    .into_iter()
    .find(|(prefix, _)| name.starts_with(prefix))
    .unwrap();
    let sources: String = [
        "src/metrics.rs",
        "src/metrics/present.rs",
        "src/metrics/mod.rs",
        "src/metrics/rageping/mod.rs",
    ]
    .iter()
    .filter_map(|file| std::fs::read_to_string(format!("{}/{crates}/{file}", env!("CARGO_MANIFEST_DIR"))).ok())
    .collect();
    // As it is registered: without the prefix of the registry, and without what is added when it is rendered.
    let mut short = name.strip_prefix(prefix).unwrap();
    let mut names = vec![short];
    for ending in ["_bucket", "_count", "_sum", "_total", "_seconds", "_bytes"] {
        short = short.strip_suffix(ending).unwrap_or(short);
        names.push(short);
    }
    sources.is_empty() || names.iter().any(|name| sources.contains(&format!("\"{name}\"")))
}
