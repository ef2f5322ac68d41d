//! The dashboard asks for what is there.

use crate::common::monitoring;
use crate::first_scrape::of_everything;
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

/// The words of an expression that can be the name of a metric of this crate's. Those of the other
/// crates are looked at where there are all of them: in `interop`.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| {
        ["ragep2p", "ragedisco", "rageping", "knock_host"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    })
}

#[tokio::test]
async fn every_metric_of_a_host_on_the_dashboard_is_in_a_first_scrape() {
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
    let scrape = of_everything().await;
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let rendered: BTreeSet<&str> = samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    for name in all.iter().flat_map(|expression| metrics(expression)) {
        let there = if name.contains(':') { &recorded } else { &rendered };
        assert!(there.contains(name), "{name} is neither rendered nor a rule");
    }
}
